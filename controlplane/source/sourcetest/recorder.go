// Package sourcetest holds the contract that every source passes, and what
// tests of sources share: a sink that remembers, and (in faultproxy) a proxy
// that does to Consul's answers what Consul, networks and operators do.
package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/source"
)

// Patience is how long a change may take to arrive in a test.
const Patience = 60 * time.Second

// State is what a source has said so far, put together.
type State struct {
	Instances    map[catalog.Name][]*catalog.Instance
	Entries      map[catalog.EntryKey]api.ConfigEntry
	Broken       map[catalog.EntryKey]string
	DefaultAllow bool
	Datacenter   string
	Updates      int
	Reconnects   int
}

// Service returns the instances of a service in the default datacenter, and
// whether the service is known.
func (s State) Service(name string) ([]*catalog.Instance, bool) {
	l, ok := s.Instances[catalog.NewName(s.Datacenter, name)]
	return l, ok
}

// Health returns the health of a service's instances by id.
func (s State) Health(name string) map[string]catalog.Health {
	out := map[string]catalog.Health{}
	l, _ := s.Service(name)
	for _, i := range l {
		out[i.ID] = i.Health
	}
	return out
}

// Recorder is a sink that remembers, and fails the test when a rule of
// source.Source is broken.
type Recorder struct {
	t  testing.TB
	mu sync.Mutex
	// changed is closed and replaced with each update.
	changed chan struct{}
	state   State
	all     []source.Update
	inside  bool
}

// NewRecorder returns a recorder.
func NewRecorder(t testing.TB) *Recorder {
	return &Recorder{t: t, changed: make(chan struct{}), state: State{
		Instances: map[catalog.Name][]*catalog.Instance{},
		Entries:   map[catalog.EntryKey]api.ConfigEntry{},
		Broken:    map[catalog.EntryKey]string{},
	}}
}

// Update implements source.Sink.
func (r *Recorder) Update(_ context.Context, u source.Update) error {
	r.mu.Lock()
	if r.inside {
		r.t.Error("Update was called from two goroutines at a time")
	}
	r.inside = true
	r.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inside = false
	r.check(u)
	r.apply(u)
	r.all = append(r.all, u)
	close(r.changed)
	r.changed = make(chan struct{})
	return nil
}

func (r *Recorder) check(u source.Update) {
	if len(r.all) == 0 {
		if !u.Full {
			r.t.Errorf("the first update is not full: %+v", u)
		}
		if u.DefaultAllow == nil {
			r.t.Error("the full update does not say what the default is")
		}
		if u.Datacenter == "" {
			r.t.Error("the full update does not name the datacenter")
		}
	}
	if u.Received.IsZero() || time.Since(u.Received) < 0 {
		r.t.Errorf("Received is %v", u.Received)
	}
	for _, e := range u.Entries {
		if u.Origins[catalog.KeyOf(e)] == "" {
			r.t.Errorf("%s has no origin", catalog.KeyOf(e))
		}
	}
}

func (r *Recorder) apply(u source.Update) {
	s := &r.state
	if u.Full {
		clear(s.Instances)
		clear(s.Entries)
		clear(s.Broken)
	}
	maps.Copy(s.Instances, u.Instances)
	for _, n := range u.DeletedServices {
		delete(s.Instances, n)
	}
	for _, e := range u.Entries {
		s.Entries[catalog.KeyOf(e)] = e
		delete(s.Broken, catalog.KeyOf(e))
	}
	maps.Copy(s.Broken, u.Broken)
	for _, k := range u.DeletedEntries {
		delete(s.Entries, k)
		delete(s.Broken, k)
	}
	if u.DefaultAllow != nil {
		s.DefaultAllow = *u.DefaultAllow
	}
	if u.Datacenter != "" {
		s.Datacenter = u.Datacenter
	}
	if u.Reconnected {
		s.Reconnects++
	}
	s.Updates++
}

// State returns what was said so far.
func (r *Recorder) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state
	s.Instances, s.Entries, s.Broken = maps.Clone(s.Instances), maps.Clone(s.Entries), maps.Clone(s.Broken)
	return s
}

// Updates returns all updates.
func (r *Recorder) Updates() []source.Update {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]source.Update(nil), r.all...)
}

// Until waits until what was said satisfies a condition.
func (r *Recorder) Until(what string, ok func(State) bool) State {
	r.t.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		s := r.State()
		if ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-deadline.C:
			r.t.Fatalf("not within %v: %s; have %s", Patience, what, s)
		}
	}
}

// Never fails if what was said satisfies a condition within a time.
func (r *Recorder) Never(what string, d time.Duration, bad func(State) bool) {
	r.t.Helper()
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		if s := r.State(); bad(s) {
			r.t.Fatalf("must not happen: %s; have %s", what, s)
		}
		select {
		case <-changed:
		case <-deadline.C:
			return
		}
	}
}

func (s State) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d updates, %d reconnects, allow %v, datacenter %q;", s.Updates, s.Reconnects, s.DefaultAllow, s.Datacenter)
	for n, l := range s.Instances {
		fmt.Fprintf(&b, " %s:", n)
		for _, i := range l {
			fmt.Fprintf(&b, " %s=%s/%d", i.ID, i.Health, i.Evidence)
		}
		b.WriteString(";")
	}
	for k := range s.Entries {
		fmt.Fprintf(&b, " %s", k)
	}
	for k, why := range s.Broken {
		fmt.Fprintf(&b, " %s broken: %s", k, why)
	}
	return b.String()
}

// Start runs a source until the test ends, and fails the test if it ends
// before, or does not end then.
func Start(t testing.TB, s source.Source) *Recorder {
	t.Helper()
	r := NewRecorder(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, r) }()
	t.Cleanup(func() {
		select {
		case err := <-done:
			t.Errorf("Run ended by itself: %v", err)
			cancel()
			return
		default:
		}
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(Patience):
			t.Error("Run does not end with its context")
		}
	})
	return r
}

// UntilStatus waits for a status.
func UntilStatus(t testing.TB, s source.Source, what string, ok func(source.Status) bool) source.Status {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(Patience); ; <-tick.C {
		st := s.Status()
		if ok(st) {
			return st
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: status with %s; have %+v", Patience, what, st)
		}
	}
}
