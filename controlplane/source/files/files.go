// Package files is a source that reads the catalog from a directory: config
// entries in Consul's format and service stanzas as an agent takes them, in
// HCL, JSON or YAML. It is what a mesh without Consul runs on.
//
// The directory is read as one: either every file is right and all of it takes
// effect at once, or nothing changes and Status says what is wrong where. It is
// watched by notification and, because notification is lost on some file
// systems and behind symbolic links, by polling too.
package files

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/source"
)

// Defaults of Config.
const (
	DefaultPoll  = 2 * time.Second
	DefaultQuiet = 50 * time.Millisecond
	// DefaultDatacenter is the datacenter of a directory that names none.
	DefaultDatacenter = "dc1"
	// DefaultNode is the node of services that name none, neither by meta
	// "hauberk-node" nor by `hauberk { node = "…" }`.
	DefaultNode = "files"
)

// Config is what a Source is made of.
type Config struct {
	Dir string
	// Poll is how often the directory is looked at without a notification;
	// Quiet is how long it must not change before it is read.
	Poll, Quiet time.Duration
	Logger      *slog.Logger
}

// Source watches a directory. It implements source.Source.
type Source struct {
	cfg Config
	log *slog.Logger

	mu     sync.Mutex
	status source.Status
}

// New returns a source; the directory is first read by Run.
func New(cfg Config) *Source {
	if cfg.Poll <= 0 {
		cfg.Poll = DefaultPoll
	}
	if cfg.Quiet <= 0 {
		cfg.Quiet = DefaultQuiet
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Source{
		cfg:    cfg,
		log:    cfg.Logger.With("component", "source/files"),
		status: source.Status{Kind: "files", Where: cfg.Dir},
	}
}

// Status tells how the directory is doing.
func (s *Source) Status() source.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Errors = maps.Clone(st.Errors)
	return st
}

// Run delivers the directory and its changes until ctx ends. It returns an
// error at once when the directory cannot be used as it is at the start.
func (s *Source) Run(ctx context.Context, sink source.Sink) error {
	w, err := newWatcher(s.cfg)
	if err != nil {
		return fmt.Errorf("source/files: %w", err)
	}
	defer w.close()
	received := time.Now()
	last, err := Load(s.cfg.Dir)
	if err != nil {
		return fmt.Errorf("source/files: %w", err)
	}
	if err := s.send(ctx, sink, last.full(received)); err != nil {
		return err
	}
	for {
		received, err := w.changed(ctx)
		if err != nil {
			return err
		}
		next, err := Load(s.cfg.Dir)
		if err == nil && next.files == 0 && last.files > 0 {
			err = fmt.Errorf("%s: no files any more, which looks like a volume that went away; the last state stands; to remove everything leave one empty file", s.cfg.Dir)
		}
		if err != nil {
			s.failed(err)
			if !isMistake(err) {
				w.forget() // not in the text: look again even if it stays the same
			}
			continue
		}
		u, changed := last.diff(next, received)
		last = next
		if !changed {
			s.succeeded()
			continue
		}
		if err := s.send(ctx, sink, u); err != nil {
			return err
		}
	}
}

func (s *Source) send(ctx context.Context, sink source.Sink, u source.Update) error {
	if err := sink.Update(ctx, u); err != nil {
		return fmt.Errorf("source/files: %w", err)
	}
	s.succeeded()
	return nil
}

func (s *Source) succeeded() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.status.Errors) > 0 {
		s.log.Info("the directory is whole again", "dir", s.cfg.Dir)
	}
	s.status.Synced = true
	s.status.LastSuccess = time.Now()
	s.status.Errors = nil
}

func (s *Source) failed(err error) {
	errs := map[string]string{}
	var mistakes Errors
	if errors.As(err, &mistakes) {
		for _, m := range mistakes {
			k := m.where()
			if errs[k] != "" {
				errs[k] += "; "
			}
			errs[k] += m.Reason
		}
	} else {
		errs[s.cfg.Dir] = err.Error()
	}
	s.log.Error("the directory cannot be used, the last state stands", "err", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Errors = errs
}

// full is the whole set as an update.
func (s *Set) full(received time.Time) source.Update {
	u := source.Update{
		Full: true, Received: received, Datacenter: s.Datacenter,
		Instances: s.Instances, Origins: s.Origins, DefaultAllow: &s.DefaultAllow,
	}
	for _, k := range sortedEntryKeys(s.Entries) {
		u.Entries = append(u.Entries, s.Entries[k])
	}
	return u
}

// diff is what differs in next.
func (s *Set) diff(next *Set, received time.Time) (source.Update, bool) {
	if s.Datacenter != next.Datacenter {
		return next.full(received), true
	}
	u := source.Update{
		Received:  received,
		Instances: map[catalog.Name][]*catalog.Instance{},
		Origins:   map[catalog.EntryKey]string{},
	}
	for n, list := range next.Instances {
		if old, ok := s.Instances[n]; !ok || !catalog.EqualInstances(old, list) {
			u.Instances[n] = list
		}
	}
	for n := range s.Instances {
		if _, ok := next.Instances[n]; !ok {
			u.DeletedServices = append(u.DeletedServices, n)
		}
	}
	for _, k := range sortedEntryKeys(next.Entries) {
		// An entry that only moved is sent for the sake of its origin.
		if !catalog.EqualEntries(s.Entries[k], next.Entries[k]) || s.Origins[k] != next.Origins[k] {
			u.Entries = append(u.Entries, next.Entries[k])
			u.Origins[k] = next.Origins[k]
		}
	}
	for _, k := range sortedEntryKeys(s.Entries) {
		if _, ok := next.Entries[k]; !ok {
			u.DeletedEntries = append(u.DeletedEntries, k)
		}
	}
	if s.DefaultAllow != next.DefaultAllow {
		u.DefaultAllow = &next.DefaultAllow
	}
	changed := len(u.Instances)+len(u.DeletedServices)+len(u.Entries)+len(u.DeletedEntries) > 0 || u.DefaultAllow != nil
	return u, changed
}

func sortedEntryKeys(m map[catalog.EntryKey]api.ConfigEntry) []catalog.EntryKey {
	keys := make([]catalog.EntryKey, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sortKeys(keys)
	return keys
}
