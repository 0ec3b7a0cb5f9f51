package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func name(s string) catalog.Name { return catalog.NewName("dc1", s) }

func inst(svc, id string, h catalog.Health) *catalog.Instance {
	return &catalog.Instance{
		Service: name(svc), ID: id, Node: "n1", Address: "10.0.0.1", Port: 21000,
		PassingWeight: 1, WarningWeight: 1, Health: h,
	}
}

func unproven(i *catalog.Instance, e catalog.Evidence) *catalog.Instance {
	c := *i
	c.Health, c.Evidence = catalog.Critical, e
	return &c
}

type list = map[catalog.Name][]*catalog.Instance

// world runs a store inside a synctest bubble.
type world struct {
	t   *testing.T
	s   *Store
	sub *Subscription
}

func run(t *testing.T, cfg Config, f func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.TrustDomain = "td"
		s := New(cfg)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		w := &world{t: t, s: s, sub: s.Subscribe()}
		f(w)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
}

func (w *world) send(u source.Update) {
	w.t.Helper()
	if err := w.s.Update(w.t.Context(), u); err != nil {
		w.t.Fatal(err)
	}
}

// next waits for a publication and returns it with the time it took.
func (w *world) next() (Published, time.Duration) {
	w.t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Minute)
	defer cancel()
	p, err := w.sub.Next(ctx)
	if err != nil {
		w.t.Fatalf("no publication: %v", err)
	}
	return p, time.Since(start)
}

func (w *world) nothingFor(d time.Duration) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), d)
	defer cancel()
	if p, err := w.sub.Next(ctx); err == nil {
		w.t.Fatalf("unexpected publication %+v", p.Dirty)
	}
}

func (w *world) health(svc string) map[string]catalog.Health {
	out := map[string]catalog.Health{}
	for _, i := range w.s.Current().Snapshot.Instances[name(svc)] {
		out[i.ID] = i.Health
	}
	return out
}

func (w *world) wantHealth(svc string, want map[string]catalog.Health) {
	w.t.Helper()
	if d := cmp.Diff(want, w.health(svc)); d != "" {
		w.t.Fatalf("%s (-want +got):\n%s", svc, d)
	}
}

func defaults(svc, protocol string) *api.ServiceConfigEntry {
	return &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: svc, Protocol: protocol}
}

func TestNothingBeforeTheFirstFullSet(t *testing.T) {
	run(t, Config{}, func(w *world) {
		w.send(source.Update{Instances: list{name("a"): {inst("a", "1", catalog.Passing)}}})
		w.nothingFor(time.Minute)
		if w.s.Current() != nil || w.s.Status().Synced {
			t.Fatal("published before the full set")
		}
		allow := true
		received := time.Now()
		w.send(source.Update{
			Full: true, Datacenter: "dc9", DefaultAllow: &allow, Index: 7, Received: received,
			Instances: list{name("b"): {}},
			Entries:   []api.ConfigEntry{defaults("b", "http")},
			Origins:   map[catalog.EntryKey]string{catalog.Entry(api.ServiceDefaults, "b"): "b.hcl:1"},
		})
		p, took := w.next()
		if took != 0 {
			t.Errorf("the first snapshot waited %v", took)
		}
		s := p.Snapshot
		if !p.Dirty.All || s.Datacenter != "dc9" || s.TrustDomain != "td" || !s.DefaultAllow ||
			s.Generation != 1 || p.Index != 7 || !p.Received.Equal(received) {
			t.Errorf("published %+v of %+v", p, s)
		}
		if _, ok := s.Instances[name("a")]; ok {
			t.Error("an update before the full set was applied")
		}
		if got, ok := s.Instances[name("b")]; !ok || len(got) != 0 {
			t.Errorf("known service without instances: %v, %v", got, ok)
		}
		if s.EntryOrigins[catalog.Entry(api.ServiceDefaults, "b")] != "b.hcl:1" {
			t.Error("origin lost")
		}
	})
}

// TestBatching has one row for each urgency.
func TestBatching(t *testing.T) {
	up := inst("a", "1", catalog.Passing)
	moved := inst("a", "1", catalog.Passing)
	moved.Address = "10.0.0.9"
	deny := &api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: "a"}
	allow := true
	for _, tt := range []struct {
		name   string
		update source.Update
		want   time.Duration
	}{
		{"new instance", source.Update{Instances: list{name("a"): {up, inst("a", "2", catalog.Passing)}}}, DefaultQuiet},
		{"config entry", source.Update{Entries: []api.ConfigEntry{defaults("a", "grpc")}}, DefaultQuiet},
		{"removal", source.Update{Instances: list{name("a"): {}}}, DefaultUrgent},
		{"service removed", source.Update{DeletedServices: []catalog.Name{name("a")}}, DefaultUrgent},
		{"health down", source.Update{Instances: list{name("a"): {inst("a", "1", catalog.Critical)}}}, DefaultUrgent},
		{"warning", source.Update{Instances: list{name("a"): {inst("a", "1", catalog.Warning)}}}, DefaultUrgent},
		{"maintenance", source.Update{Instances: list{name("a"): {inst("a", "1", catalog.Maintenance)}}}, DefaultUrgent},
		{"moved", source.Update{Instances: list{name("a"): {moved}}}, DefaultUrgent},
		{"intention", source.Update{Entries: []api.ConfigEntry{deny}}, DefaultUrgent},
		{"broken intention", source.Update{Broken: map[catalog.EntryKey]string{catalog.KeyOf(deny): "x"}}, DefaultUrgent},
		{"default policy", source.Update{DefaultAllow: &allow}, DefaultUrgent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run(t, Config{}, func(w *world) {
				w.send(source.Update{Full: true, Instances: list{name("a"): {up}}})
				w.next()
				w.send(tt.update)
				if _, took := w.next(); took != tt.want {
					t.Errorf("published after %v, want %v", took, tt.want)
				}
			})
		})
	}
}

func TestBurstHasAMaximum(t *testing.T) {
	run(t, Config{}, func(w *world) {
		w.send(source.Update{Full: true})
		w.next()
		begin := time.Now()
		go func() {
			for i := range 60 {
				u := source.Update{Entries: []api.ConfigEntry{defaults(fmt.Sprint("s", i), "http")}, Received: time.Now(), Index: uint64(i + 1)}
				if w.s.Update(w.t.Context(), u) != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		}()
		p, took := w.next()
		if took != DefaultMax {
			t.Errorf("burst published after %v, want the maximum %v", took, DefaultMax)
		}
		if n := len(p.Dirty.Entries); n < 19 || n > 21 {
			t.Errorf("batch of %d, want about 20", n)
		}
		if !p.Received.Equal(begin) {
			t.Errorf("clock starts at +%v, want the oldest change", p.Received.Sub(begin))
		}
		time.Sleep(5 * time.Second)
	})
}

// TestUrgentOvertakes: what is urgent takes what is pending with it.
func TestUrgentOvertakes(t *testing.T) {
	run(t, Config{}, func(w *world) {
		w.send(source.Update{Full: true, Instances: list{name("a"): {inst("a", "1", catalog.Passing)}}})
		w.next()
		w.send(source.Update{Entries: []api.ConfigEntry{defaults("a", "http")}})
		time.Sleep(20 * time.Millisecond)
		w.send(source.Update{Instances: list{name("a"): {inst("a", "1", catalog.Critical)}}})
		w.send(source.Update{Entries: []api.ConfigEntry{defaults("b", "http")}}) // must not postpone it
		p, took := w.next()
		if took != DefaultUrgent || len(p.Dirty.Entries) != 2 || len(p.Dirty.Instances) != 1 {
			t.Errorf("after %v: %+v", took, p.Dirty)
		}
	})
}

func TestUnchangedIsNotPublished(t *testing.T) {
	run(t, Config{}, func(w *world) {
		full := source.Update{
			Full: true, Instances: list{name("a"): {inst("a", "1", catalog.Passing)}},
			Entries: []api.ConfigEntry{defaults("a", "http")},
		}
		w.send(full)
		w.next()
		same := defaults("a", "http")
		same.ModifyIndex = 99
		full.Entries = []api.ConfigEntry{same}
		w.send(full)
		w.send(source.Update{Instances: list{name("a"): {inst("a", "1", catalog.Passing)}}, Received: time.Now(), Index: 3})
		w.send(source.Update{DeletedServices: []catalog.Name{name("zz")}, DeletedEntries: []catalog.EntryKey{catalog.Entry("mesh", "x")}})
		w.nothingFor(time.Minute)
		// The clock of a change starts with that change, not with a no-op before it.
		at := time.Now()
		w.send(source.Update{Entries: []api.ConfigEntry{defaults("a", "grpc")}, Received: at, Index: 2})
		if p, _ := w.next(); !p.Received.Equal(at) || p.Index != 2 {
			t.Errorf("clock %v, index %d", p.Received, p.Index)
		}
	})
}

func TestSnapshotsAreImmutable(t *testing.T) {
	run(t, Config{}, func(w *world) {
		w.send(source.Update{
			Full: true, Instances: list{name("a"): {inst("a", "1", catalog.Passing)}},
			Entries: []api.ConfigEntry{defaults("a", "http")},
		})
		p, _ := w.next()
		w.send(source.Update{
			Instances:      list{name("b"): {}},
			Entries:        []api.ConfigEntry{defaults("b", "http")},
			Broken:         map[catalog.EntryKey]string{catalog.Entry("mesh", "mesh"): "bad"},
			DeletedEntries: []catalog.EntryKey{catalog.Entry(api.ServiceDefaults, "a")},
		})
		q, _ := w.next()
		if len(p.Snapshot.Instances) != 1 || len(p.Snapshot.Entries) != 1 || len(p.Snapshot.Broken) != 0 {
			t.Errorf("the first snapshot changed: %+v", p.Snapshot)
		}
		if len(q.Snapshot.Instances) != 2 || len(q.Snapshot.Entries) != 1 || len(q.Snapshot.Broken) != 1 {
			t.Errorf("the second snapshot: %+v", q.Snapshot)
		}
	})
}

func TestFullReplaces(t *testing.T) {
	run(t, Config{}, func(w *world) {
		w.send(source.Update{
			Full: true, Instances: list{name("a"): {}, name("b"): {}},
			Entries: []api.ConfigEntry{defaults("a", "http"), defaults("b", "http")},
			Broken:  map[catalog.EntryKey]string{catalog.Entry("mesh", "mesh"): "bad"},
		})
		w.next()
		w.send(source.Update{Full: true, Instances: list{name("b"): {}}, Entries: []api.ConfigEntry{defaults("b", "http")}})
		p, _ := w.next()
		s := p.Snapshot
		if len(s.Instances) != 1 || len(s.Entries) != 1 || len(s.Broken) != 0 || p.Dirty.All ||
			len(p.Dirty.Instances) != 1 || len(p.Dirty.Entries) != 2 {
			t.Errorf("%+v, dirty %+v", s, p.Dirty)
		}
	})
}

// TestBrokenEntries: broken without a good version is broken, broken with one
// keeps it, and a good version heals.
func TestBrokenEntries(t *testing.T) {
	key := catalog.Entry(api.ServiceDefaults, "a")
	run(t, Config{}, func(w *world) {
		w.send(source.Update{Full: true, Broken: map[catalog.EntryKey]string{key: "bad"}})
		if p, _ := w.next(); p.Snapshot.Broken[key] != "bad" {
			t.Fatal("broken entry lost")
		}
		w.send(source.Update{Entries: []api.ConfigEntry{defaults("a", "http")}})
		if p, _ := w.next(); len(p.Snapshot.Broken) != 0 || p.Snapshot.Entries[key] == nil {
			t.Fatal("not healed")
		}
		w.send(source.Update{Broken: map[catalog.EntryKey]string{key: "bad again"}})
		w.nothingFor(time.Minute)
		w.send(source.Update{DeletedEntries: []catalog.EntryKey{key}})
		if p, _ := w.next(); len(p.Snapshot.Entries)+len(p.Snapshot.Broken) != 0 {
			t.Fatal("not deleted")
		}
	})
}

func TestSubscriptionCoalesces(t *testing.T) {
	run(t, Config{}, func(w *world) {
		w.send(source.Update{Full: true})
		w.next()
		first := time.Now()
		for _, n := range []string{"a", "b", "c"} {
			w.send(source.Update{Instances: list{name(n): {}}, Received: time.Now(), Index: 5})
			time.Sleep(2 * time.Second)
		}
		late := w.s.Subscribe()
		p, _ := w.next()
		if len(p.Dirty.Instances) != 3 || p.Snapshot.Generation != 4 || !p.Received.Equal(first) || p.Index != 5 {
			t.Errorf("slow subscriber got %+v", p)
		}
		if p, ok := late.Take(); !ok || !p.Dirty.All || p.Snapshot.Generation != 4 {
			t.Errorf("late subscriber got %+v, %v", p, ok)
		}
		late.Close()
		w.send(source.Update{Instances: list{name("d"): {}}})
		w.next()
		if _, ok := late.Take(); ok {
			t.Error("a closed subscription got a snapshot")
		}
	})
}

func TestClosed(t *testing.T) {
	s := New(Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	sub := s.Subscribe()
	if err := s.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), source.Update{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Update: %v", err)
	}
	if _, err := sub.Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Next: %v", err)
	}
	if _, err := s.Subscribe().Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Next of a late subscription: %v", err)
	}
}

func TestMetricNames(t *testing.T) {
	r := prometheus.NewRegistry()
	New(Config{Registerer: r})
	got, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(got).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}
