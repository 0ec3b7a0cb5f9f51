package consul

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/catalog/validate"
	"github.com/hauberk-mesh/hauberk/controlplane/source"
	"github.com/hauberk-mesh/hauberk/controlplane/source/decode"
)

// kindState is what one kind's watch has delivered.
type kindState struct {
	index uint64
	// raw is the last answer for each entry, by which changes are found.
	raw map[catalog.EntryKey]string
	// good are the entries that have had a usable form.
	good map[catalog.EntryKey]bool
	// unsupported: this server does not know the kind.
	unsupported bool
}

// reprobe is how often a kind that the server does not know is asked for again:
// servers are upgraded.
const reprobe = time.Hour

func (s *Source) watchKind(ctx context.Context, kind string, st *kindState) {
	what := "config entries " + kind
	s.loop(ctx, what, st.index, func(read context.Context, index uint64) (uint64, error) {
		if st.unsupported {
			if err := pause(ctx, reprobe); err != nil {
				return 0, err
			}
			// The time for reading is long over.
			var cancel context.CancelFunc
			read, cancel = s.bounded(ctx)
			defer cancel()
			index = 0
		}
		u, err := s.readKind(read, kind, st, index)
		if err != nil {
			return 0, err
		}
		u.Reconnected = s.answered(what, st.index)
		if kind == api.ServiceIntentions && touchesWildcard(u) {
			// The probe for the default sees the wildcard in its place; what it
			// saw of one that is gone must not outlive it.
			allow := s.defaultAfterWildcard(read)
			u.DefaultAllow = &allow
		}
		if u.Reconnected || len(u.Entries)+len(u.DeletedEntries)+len(u.Broken) > 0 {
			s.send(ctx, *u)
		}
		return st.index, nil
	})
}

// touchesWildcard reports whether an update changes the intentions of every
// service.
func touchesWildcard(u *source.Update) bool {
	key := catalog.Entry(api.ServiceIntentions, catalog.Wildcard)
	_, broken := u.Broken[key]
	return broken || slices.Contains(u.DeletedEntries, key) ||
		slices.ContainsFunc(u.Entries, func(e api.ConfigEntry) bool { return catalog.KeyOf(e) == key })
}

// defaultAfterWildcard asks for the default anew, and is closed when there is no
// answer; watchPolicy asks again.
func (s *Source) defaultAfterWildcard(ctx context.Context) bool {
	allow, err := s.defaultAllow(ctx)
	if err != nil {
		s.problem("default policy", err)
		allow = false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allow = allow
	s.asked++
	return allow
}

// readKind reads all entries of a kind and returns what differs from st, which
// it updates.
func (s *Source) readKind(ctx context.Context, kind string, st *kindState, index uint64) (*source.Update, error) {
	what := "config entries " + kind
	var raw []json.RawMessage
	meta, err := s.ask(ctx, index, s.query(ctx, index), func(opts *api.QueryOptions) (*api.QueryMeta, error) {
		raw = nil
		return s.client.Raw().Query("/v1/config/"+url.PathEscape(kind), &raw, opts)
	})
	if err != nil {
		var status api.StatusError
		if errors.As(err, &status) && strings.Contains(status.Body, "invalid config entry kind") {
			st.unsupported, st.index = true, 1
			return &source.Update{Received: time.Now()}, nil
		}
		return nil, asRefusal(what, serviceRule, err)
	}
	st.unsupported = false
	if err := s.check(what, serviceRule, meta); err != nil {
		return nil, err
	}
	st.index = meta.LastIndex
	return s.changes(kind, raw, st, meta.LastIndex), nil
}

func (s *Source) changes(kind string, raw []json.RawMessage, st *kindState, index uint64) *source.Update {
	u := &source.Update{
		Received: time.Now(), Index: index,
		Origins: map[catalog.EntryKey]string{}, Broken: map[catalog.EntryKey]string{},
	}
	next := map[catalog.EntryKey]string{}
	good := map[catalog.EntryKey]bool{}
	for _, b := range raw {
		e, key, err := decodeEntry(kind, b)
		next[key] = string(b)
		good[key] = st.good[key]
		if st.raw[key] == string(b) {
			continue // as it was, good or not
		}
		where := "entry " + key.String()
		if err != nil {
			s.reject(where, err)
			if !st.good[key] {
				u.Broken[key] = err.Error()
			}
			continue
		}
		s.accept(where)
		good[key] = true
		u.Entries = append(u.Entries, e)
		u.Origins[key] = fmt.Sprintf("consul index %d", e.GetModifyIndex())
	}
	for key := range st.raw {
		if _, ok := next[key]; !ok {
			s.accept("entry " + key.String())
			u.DeletedEntries = append(u.DeletedEntries, key)
		}
	}
	st.raw, st.good = next, good
	return u
}

// decodeEntry reads an entry as strictly as one that a person wrote, but for
// fields that the server knows and we do not, as long as they say nothing. The
// key is valid in any case.
func decodeEntry(kind string, b []byte) (api.ConfigEntry, catalog.EntryKey, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, catalog.Entry(kind, "?"), err
	}
	e, key, err := decode.Entry(decode.FromAny(v), decode.Server)
	if key.Kind == "" || key.Name == "" {
		if m, ok := v.(map[string]any); ok {
			name, _ := m["Name"].(string)
			key = catalog.Entry(kind, name)
		}
	}
	if err != nil {
		return nil, key, err
	}
	return e, key, validate.Validate(e)
}

func (s *Source) reject(where string, err error) {
	s.log.Warn("config entry cannot be used", "entry", where, "err", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Errors[where] = err.Error()
}

func (s *Source) accept(where string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.status.Errors, where)
}
