package consul

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/source"
)

// marks are where the watches go on after the first full read.
type marks struct {
	list     uint64
	services map[string]uint64
	kinds    map[string]*kindState
	// directory becomes Run's.
	directory *directory
}

// readAll reads the whole catalog once.
func (s *Source) readAll(ctx context.Context) (*source.Update, *marks, error) {
	u := &source.Update{
		Full: true, Received: time.Now(),
		Origins: map[catalog.EntryKey]string{},
		Broken:  map[catalog.EntryKey]string{},
	}
	m := &marks{services: map[string]uint64{}, kinds: map[string]*kindState{}}
	dc, err := s.datacenter(ctx)
	if err != nil {
		return nil, nil, err
	}
	u.Datacenter = dc
	names, index, err := s.listServices(ctx, 0)
	if err != nil {
		return nil, nil, err
	}
	m.list = index
	m.directory = newDirectory(dc)
	for name := range names {
		entries, index, err := s.entries(ctx, name, 0, s.query(ctx, 0))
		if refusesName(err) {
			m.services[name] = 0 // its watch says what is wrong, and asks again
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		m.services[name] = index
		m.directory.put(name, entries)
		u.Index = max(u.Index, index)
	}
	u.Instances, _ = m.directory.update(m.directory.names(), true)
	s.noteUnusable(m.directory, m.directory.names())
	for _, kind := range catalog.Kinds {
		st := &kindState{}
		change, err := s.readKind(ctx, kind, st, 0)
		if err != nil {
			return nil, nil, err
		}
		m.kinds[kind] = st
		u.Entries = append(u.Entries, change.Entries...)
		for k, v := range change.Origins {
			u.Origins[k] = v
		}
		for k, v := range change.Broken {
			u.Broken[k] = v
		}
	}
	allow, err := s.defaultAllow(ctx)
	if err != nil {
		return nil, nil, err
	}
	u.DefaultAllow = &allow
	s.answered("consul", u.Index)
	return u, m, nil
}

// datacenter is the agent's own: a catalog that is asked for no other lists the
// nodes of that one.
func (s *Source) datacenter(ctx context.Context) (string, error) {
	s.mu.Lock()
	dc := s.dc
	s.mu.Unlock()
	if dc != "" {
		return dc, nil
	}
	nodes, meta, err := s.client.Catalog().Nodes((&api.QueryOptions{AllowStale: true}).WithContext(ctx))
	if err != nil {
		return "", asRefusal("nodes", nodeRule, err)
	}
	if err := s.check("nodes", nodeRule, meta); err != nil {
		return "", err
	}
	if len(nodes) == 0 {
		return "", errors.New("consul: the catalog has no node yet")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dc = nodes[0].Datacenter
	return s.dc, nil
}

func (s *Source) listServices(ctx context.Context, index uint64) (map[string][]string, uint64, error) {
	var names map[string][]string
	meta, err := s.ask(ctx, index, s.query(ctx, index), func(opts *api.QueryOptions) (meta *api.QueryMeta, err error) {
		names, meta, err = s.client.Catalog().Services(opts)
		return meta, err
	})
	if err != nil {
		return nil, 0, asRefusal("services", catalogRule, err)
	}
	if err := s.check("services", catalogRule, meta); err != nil {
		return nil, 0, err
	}
	return s.sift(names), meta.LastIndex, nil
}

// sift takes out of a list, and puts into the status, the names that cannot be
// asked for: Consul's own mux cleans a path, so that the answer would be an
// error, or another name's. No service of a mesh has such a name.
func (s *Source) sift(names map[string][]string) map[string][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.odd {
		if _, still := names[name]; !still {
			delete(s.odd, name)
			delete(s.status.Errors, oddConcern(name))
		}
	}
	for name := range names {
		if askable(name) {
			continue
		}
		delete(names, name)
		if _, known := s.odd[name]; !known {
			s.odd[name] = struct{}{}
			s.log.Warn("service left out", "service", name, "err", "its name cannot be asked for")
		}
		s.status.Errors[oddConcern(name)] = "left out: the name cannot be asked for; register it under another"
	}
	return names
}

func oddConcern(name string) string { return fmt.Sprintf("service %q", name) }

func askable(name string) bool {
	return name != "" && name != "." && name != ".." && utf8.ValidString(name) &&
		!strings.ContainsFunc(name, func(r rune) bool { return r == '/' || !unicode.IsPrint(r) })
}

// refusesName reports whether Consul answers that it will not take a query. That
// is about the one name, and no sign that the agent is lost.
func refusesName(err error) bool {
	var st api.StatusError
	return errors.As(err, &st) && st.Code == http.StatusBadRequest
}

// report is what one watch has read, on its way to Run's goroutine.
type report struct {
	watch       *serviceWatch
	entries     []*api.ServiceEntry
	gone        []string // of the list's watch: names that are no longer there
	reconnected bool
	received    time.Time
	index       uint64
}

// serviceWatch is the watch of one name.
type serviceWatch struct {
	name string
	stop context.CancelFunc
	// blocking is set while it holds one of the connections that may block.
	// Source.mu guards it.
	blocking bool
}

// take makes an update of a report. What a watch read that was stopped meanwhile
// is old: its name is gone, or has another watch.
func (s *Source) take(d *directory, r report) (source.Update, bool) {
	var concerned []string
	switch {
	case r.watch == nil:
		for _, name := range r.gone {
			concerned = append(concerned, d.drop(name)...)
		}
	case s.current(r.watch):
		concerned = d.put(r.watch.name, r.entries)
	}
	u := source.Update{Reconnected: r.reconnected, Received: r.received, Index: r.index}
	u.Instances, u.DeletedServices = d.update(concerned, r.reconnected)
	s.noteUnusable(d, concerned)
	return u, r.reconnected || len(u.Instances)+len(u.DeletedServices) > 0
}

// noteUnusable brings the status up to date with the directory.
func (s *Source) noteUnusable(d *directory, services []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, service := range services {
		now := d.unusable[service]
		for key := range s.unusable[service] {
			if _, still := now[key]; !still {
				delete(s.status.Errors, key)
			}
		}
		for key, reason := range now {
			if s.status.Errors[key] != reason {
				s.log.Warn("instance left out", "service", service, "instance", key, "err", reason)
			}
			s.status.Errors[key] = reason
		}
		if s.unusable[service] = now; len(now) == 0 {
			delete(s.unusable, service)
		}
	}
}

func (s *Source) current(w *serviceWatch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.services[w.name] == w
}

func (s *Source) report(ctx context.Context, r report) {
	select {
	case s.reports <- r:
	case <-ctx.Done():
	}
}

// watchServices follows the list and keeps one watch for each name on it.
func (s *Source) watchServices(ctx context.Context, wg *sync.WaitGroup, m *marks) {
	for name, index := range m.services {
		s.startService(ctx, wg, name, index)
	}
	// A read's context ends with the read; what it starts lives as long as ctx.
	s.loop(ctx, "services", m.list, func(read context.Context, index uint64) (uint64, error) {
		names, next, err := s.listServices(read, index)
		if err != nil {
			return 0, err
		}
		reconnected := s.answered("services", next)
		gone := s.reconcile(ctx, wg, names)
		if reconnected || len(gone) > 0 {
			s.report(ctx, report{gone: gone, reconnected: reconnected, received: time.Now(), index: next})
		}
		return next, nil
	})
}

// reconcile starts watches for new names and stops those of names that are gone.
func (s *Source) reconcile(ctx context.Context, wg *sync.WaitGroup, names map[string][]string) (gone []string) {
	s.mu.Lock()
	for name, w := range s.services {
		if _, ok := names[name]; !ok {
			w.stop()
			delete(s.services, name)
			delete(s.status.Errors, "service "+name)
			gone = append(gone, name)
		}
	}
	var fresh []string
	for name := range names {
		if s.services[name] == nil {
			fresh = append(fresh, name)
		}
	}
	s.mu.Unlock()
	for _, name := range fresh {
		s.startService(ctx, wg, name, 0)
	}
	return gone
}

func (s *Source) startService(ctx context.Context, wg *sync.WaitGroup, name string, index uint64) {
	ctx, stop := context.WithCancel(ctx)
	w := &serviceWatch{name: name, stop: stop}
	s.mu.Lock()
	s.services[name] = w
	s.mu.Unlock()
	s.mayBlock(w) // in the order of starting
	wg.Go(func() {
		defer func() {
			stop()
			s.release(w)
		}()
		s.watchService(ctx, w, index)
	})
}

// mayBlock reports whether a watch may hold a connection in a blocking query:
// always over TLS, and over plain HTTP while the agent allows more. What may
// not is polled, and asks again before each poll.
func (s *Source) mayBlock(w *serviceWatch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !w.blocking && (s.secure || s.watching < plainHTTPWatches) {
		w.blocking = true
		s.watching++
	}
	return w.blocking
}

func (s *Source) release(w *serviceWatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.blocking {
		w.blocking = false
		s.watching--
	}
}

func (s *Source) watchService(ctx context.Context, w *serviceWatch, index uint64) {
	what := "service " + w.name
	known := index > 0
	s.loop(ctx, what, index, func(read context.Context, index uint64) (uint64, error) {
		opts := s.query(read, index)
		if known && !s.mayBlock(w) {
			opts.WaitIndex, opts.WaitTime = 0, 0
			if err := pause(read, pollEvery-rand.N(pollEvery/5)); err != nil {
				return 0, err
			}
		}
		entries, next, err := s.entries(read, w.name, index, opts)
		if err != nil {
			return 0, err
		}
		known = true
		s.report(ctx, report{watch: w, entries: entries, reconnected: s.answered(what, next), received: time.Now(), index: next})
		return next, nil
	})
}

// entries reads what is registered under a name: applications, or sidecars.
func (s *Source) entries(ctx context.Context, name string, known uint64, opts *api.QueryOptions) ([]*api.ServiceEntry, uint64, error) {
	what := "service " + name
	var entries []*api.ServiceEntry
	meta, err := s.ask(ctx, known, opts, func(opts *api.QueryOptions) (meta *api.QueryMeta, err error) {
		entries, meta, err = s.client.Health().Service(name, "", false, opts)
		return meta, err
	})
	if err != nil {
		return nil, 0, asRefusal(what, catalogRule, err)
	}
	if err := s.check(what, catalogRule, meta); err != nil {
		return nil, 0, err
	}
	return entries, meta.LastIndex, nil
}

// Confirm implements source.Confirmer: un-indexed reads that the leader answers.
func (s *Source) Confirm(ctx context.Context, service catalog.Name) ([]*catalog.Instance, error) {
	what := "service " + service.Service
	sidecars, meta, err := s.client.Health().Connect(service.Service, "", false, s.query(ctx, 0))
	if err != nil {
		return nil, asRefusal(what, catalogRule, err)
	}
	if err := s.check(what, catalogRule, meta); err != nil {
		return nil, err
	}
	if len(sidecars) == 0 {
		return nil, nil
	}
	applications, _, err := s.entries(ctx, service.Service, 0, s.query(ctx, 0))
	if err != nil {
		return nil, err
	}
	list, _ := assemble(service, sidecars, applications)
	return list, nil
}
