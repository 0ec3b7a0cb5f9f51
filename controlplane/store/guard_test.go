package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/source"
)

type healths = map[string]catalog.Health

// fleet is n services of two instances each.
func fleet(n int, f func(*catalog.Instance) *catalog.Instance) list {
	out := list{}
	for s := range n {
		svc := fmt.Sprint("s", s)
		var l []*catalog.Instance
		for _, id := range []string{"1", "2"} {
			if i := f(inst(svc, id, catalog.Passing)); i != nil {
				l = append(l, i)
			}
		}
		out[name(svc)] = l
	}
	return out
}

func same(i *catalog.Instance) *catalog.Instance { return i }

var both = healths{"1": catalog.Passing, "2": catalog.Passing}

func reconnected(t *testing.T, f func(*world)) {
	run(t, Config{}, func(w *world) {
		w.send(source.Update{Full: true, Instances: fleet(4, same)})
		w.next()
		w.send(source.Update{Reconnected: true})
		f(w)
	})
}

// TestMassFlip: a restart of Consul makes every check critical, one service
// after the other, none of them having run.
func TestMassFlip(t *testing.T) {
	reconnected(t, func(w *world) {
		for n, l := range fleet(4, func(i *catalog.Instance) *catalog.Instance { return unproven(i, catalog.EvidenceNone) }) {
			w.send(source.Update{Instances: list{n: l}})
			time.Sleep(300 * time.Millisecond)
		}
		w.nothingFor(20 * time.Second)
		w.wantHealth("s0", both)
		if st := w.s.Status(); len(st.Held) != 8 || !st.Mass || st.GuardUntil.IsZero() {
			t.Errorf("status %+v", st)
		}
		// Checks run: three services pass, one instance really fails.
		for s := range 3 {
			n := fmt.Sprint("s", s)
			w.send(source.Update{Instances: list{name(n): {inst(n, "1", catalog.Passing), inst(n, "2", catalog.Passing)}}})
		}
		w.nothingFor(time.Second)
		w.send(source.Update{Instances: list{name("s3"): {
			unproven(inst("s3", "1", catalog.Passing), catalog.EvidenceSeen),
			unproven(inst("s3", "2", catalog.Passing), catalog.EvidenceNone),
		}}})
		if _, took := w.next(); took != DefaultUrgent {
			t.Errorf("a real failure took %v", took)
		}
		w.wantHealth("s3", healths{"1": catalog.Critical, "2": catalog.Passing})
		// The last one never runs: bounded.
		_, took := w.next()
		if total := 300*4*time.Millisecond + 21*time.Second + took; total > DefaultGuardWindow+DefaultUrgent*2 || total < 50*time.Second {
			t.Errorf("kept for %v, want up to %v", total, DefaultGuardWindow)
		}
		w.wantHealth("s3", healths{"1": catalog.Critical, "2": catalog.Critical})
		if st := w.s.Status(); len(st.Held) != 0 || !st.GuardUntil.IsZero() {
			t.Errorf("status after the window %+v", st)
		}
	})
}

// TestSingleFailureInWindow: what is proven, or single, is believed at once.
func TestSingleFailureInWindow(t *testing.T) {
	for _, tt := range []struct {
		name string
		to   *catalog.Instance
		want catalog.Health
	}{
		{"check ran", unproven(inst("s0", "1", catalog.Passing), catalog.EvidenceSeen), catalog.Critical},
		{"gossip or TTL", unproven(inst("s0", "1", catalog.Passing), catalog.EvidenceWeak), catalog.Critical},
		{"maintenance", inst("s0", "1", catalog.Maintenance), catalog.Maintenance},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reconnected(t, func(w *world) {
				w.send(source.Update{Instances: list{name("s0"): {tt.to, inst("s0", "2", catalog.Passing)}}})
				if _, took := w.next(); took != DefaultUrgent {
					t.Errorf("took %v", took)
				}
				w.wantHealth("s0", healths{"1": tt.want, "2": catalog.Passing})
			})
		})
	}
	t.Run("gone", func(t *testing.T) {
		reconnected(t, func(w *world) {
			w.send(source.Update{Instances: list{name("s0"): {inst("s0", "2", catalog.Passing)}}})
			if _, took := w.next(); took != DefaultUrgent {
				t.Errorf("took %v", took)
			}
		})
	})
}

// TestOutsideWindow: without a reconnect a mass flip is believed.
func TestOutsideWindow(t *testing.T) {
	run(t, Config{}, func(w *world) {
		w.send(source.Update{Full: true, Instances: fleet(4, same)})
		w.next()
		w.send(source.Update{Instances: fleet(4, func(i *catalog.Instance) *catalog.Instance { return unproven(i, catalog.EvidenceNone) })})
		if _, took := w.next(); took != DefaultUrgent {
			t.Errorf("took %v", took)
		}
		w.wantHealth("s0", healths{"1": catalog.Critical, "2": catalog.Critical})
	})
}

// TestMassLossRestores: the first losses look single and are believed; when the
// rest follows they come back.
func TestMassLossRestores(t *testing.T) {
	for _, tt := range []struct {
		name string
		f    func(*catalog.Instance) *catalog.Instance
	}{
		{"gone", func(*catalog.Instance) *catalog.Instance { return nil }},
		{"gossip", func(i *catalog.Instance) *catalog.Instance { return unproven(i, catalog.EvidenceWeak) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reconnected(t, func(w *world) {
				lost := fleet(4, tt.f)
				w.send(source.Update{Instances: list{name("s0"): lost[name("s0")]}})
				w.next()
				if w.health("s0")["1"] == catalog.Passing && len(w.health("s0")) == 2 {
					t.Fatal("a single loss was not believed")
				}
				for _, s := range []string{"s1", "s2", "s3"} {
					w.send(source.Update{Instances: list{name(s): lost[name(s)]}})
				}
				time.Sleep(2 * time.Second)
				for s := range 4 {
					w.wantHealth(fmt.Sprint("s", s), both)
				}
				// Bounded.
				time.Sleep(DefaultGuardWindow)
				if h := w.health("s2"); len(h) != 0 && h["1"] != catalog.Critical {
					t.Errorf("after the window: %v", h)
				}
			})
		})
	}
}

// TestReconnectAgain: a second restart inside the window extends it, but no
// instance is kept longer than its length.
func TestReconnectAgain(t *testing.T) {
	reconnected(t, func(w *world) {
		flip := func(i *catalog.Instance) *catalog.Instance { return unproven(i, catalog.EvidenceNone) }
		w.send(source.Update{Instances: list{name("s0"): fleet(1, flip)[name("s0")]}})
		time.Sleep(40 * time.Second)
		w.send(source.Update{Reconnected: true})
		w.send(source.Update{Instances: list{name("s1"): fleet(2, flip)[name("s1")]}})
		time.Sleep(21 * time.Second)
		w.wantHealth("s0", healths{"1": catalog.Critical, "2": catalog.Critical})
		w.wantHealth("s1", both)
		time.Sleep(40 * time.Second)
		w.wantHealth("s1", healths{"1": catalog.Critical, "2": catalog.Critical})
	})
}

// leader answers confirmation reads.
type leader struct {
	mu    sync.Mutex
	list  func() ([]*catalog.Instance, error)
	asked int
}

// change alters what the leader says.
func (l *leader) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

func (l *leader) Confirm(ctx context.Context, n catalog.Name) ([]*catalog.Instance, error) {
	time.Sleep(3 * time.Millisecond)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	return l.list()
}

var errLeader = errors.New("no cluster leader")

func TestLastEndpointIsConfirmed(t *testing.T) {
	one := []*catalog.Instance{inst("a", "1", catalog.Passing)}
	other := fleet(4, same)
	full := func() source.Update {
		u := source.Update{Full: true, Instances: list{name("a"): one}}
		for n, l := range other {
			u.Instances[n] = l
		}
		return u
	}
	for _, gone := range []source.Update{
		{Instances: list{name("a"): {}}},
		{DeletedServices: []catalog.Name{name("a")}},
	} {
		t.Run("confirmed", func(t *testing.T) {
			l := &leader{list: func() ([]*catalog.Instance, error) { return nil, nil }}
			run(t, Config{Confirmer: l}, func(w *world) {
				w.send(full())
				w.next()
				w.send(gone)
				if _, took := w.next(); took != DefaultUrgent+3*time.Millisecond {
					t.Errorf("took %v", took)
				}
				if h := w.health("a"); len(h) != 0 || l.asked != 1 {
					t.Errorf("%v, asked %d times", h, l.asked)
				}
			})
		})
	}
	lost := source.Update{Instances: list{name("a"): {}}}
	t.Run("error", func(t *testing.T) {
		l := &leader{list: func() ([]*catalog.Instance, error) { return nil, errLeader }}
		run(t, Config{Confirmer: l}, func(w *world) {
			w.send(full())
			w.next()
			w.send(lost)
			w.nothingFor(DefaultConfirmHold - time.Second)
			if c := w.s.Status().Confirming; len(c) != 1 || c[0] != "a (dc1)" {
				t.Errorf("confirming %v", c)
			}
			w.next()
			if h := w.health("a"); len(h) != 0 {
				t.Errorf("not believed after the bound: %v", h)
			}
		})
	})
	t.Run("refuted", func(t *testing.T) {
		truth := one
		l := &leader{list: func() ([]*catalog.Instance, error) { return truth, nil }}
		run(t, Config{Confirmer: l}, func(w *world) {
			w.send(full())
			w.next()
			w.send(lost)
			w.nothingFor(5 * time.Minute)
			w.wantHealth("a", healths{"1": catalog.Passing})
			l.change(func() { truth = nil }) // gone for good, and the source has nothing new to say
			if _, took := w.next(); took > 2*time.Second {
				t.Errorf("took %v", took)
			}
			if h := w.health("a"); len(h) != 0 {
				t.Errorf("%v", h)
			}
		})
	})
	t.Run("source corrects itself", func(t *testing.T) {
		l := &leader{list: func() ([]*catalog.Instance, error) { return nil, errLeader }}
		run(t, Config{Confirmer: l}, func(w *world) {
			w.send(full())
			w.next()
			w.send(lost)
			time.Sleep(time.Second)
			w.send(source.Update{Instances: list{name("a"): one}})
			w.nothingFor(5 * time.Minute)
			if c := w.s.Status().Confirming; len(c) != 0 {
				t.Errorf("confirming %v", c)
			}
		})
	})
	t.Run("one of two goes", func(t *testing.T) {
		l := &leader{list: func() ([]*catalog.Instance, error) { return nil, errLeader }}
		run(t, Config{Confirmer: l}, func(w *world) {
			w.send(full())
			w.next()
			w.send(source.Update{Instances: list{name("s0"): {inst("s0", "1", catalog.Passing)}}})
			if _, took := w.next(); took != DefaultUrgent || l.asked != 0 {
				t.Errorf("took %v, asked %d times", took, l.asked)
			}
		})
	})
}

// TestMassVanish: when most of everything vanishes it is kept for as long as
// nobody confirms it.
func TestMassVanish(t *testing.T) {
	ok := false
	l := &leader{list: func() ([]*catalog.Instance, error) {
		if ok {
			return nil, nil
		}
		return nil, errLeader
	}}
	run(t, Config{Confirmer: l}, func(w *world) {
		w.send(source.Update{Full: true, Instances: fleet(6, same)})
		w.next()
		u := source.Update{Instances: list{}}
		for n := range fleet(6, same) {
			u.Instances[n] = nil
		}
		w.send(u)
		time.Sleep(10 * time.Minute)
		serving := 0
		for s := range 6 {
			serving += len(w.health(fmt.Sprint("s", s)))
		}
		// Those that vanished before it was a mass loss are bounded singly.
		if serving < 6 {
			t.Errorf("%d of 12 instances kept", serving)
		}
		l.change(func() { ok = true })
		time.Sleep(time.Minute)
		if h := w.health("s5"); len(h) != 0 {
			t.Errorf("confirmed, yet kept: %v", h)
		}
	})
}

func TestConfirmEndsWithRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := confirmFunc(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		s := New(Config{Confirmer: l})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		one := list{name("a"): {inst("a", "1", catalog.Passing)}}
		for _, u := range []source.Update{{Full: true, Instances: one}, {Instances: list{name("a"): nil}}} {
			if err := s.Update(ctx, u); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		cancel()
		<-done
	})
}

type confirmFunc func(context.Context) error

func (f confirmFunc) Confirm(ctx context.Context, _ catalog.Name) ([]*catalog.Instance, error) {
	return nil, f(ctx)
}
