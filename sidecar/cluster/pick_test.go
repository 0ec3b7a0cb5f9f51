package cluster

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// TestAggregateLevels: the levels of all clusters are as those of one.
func TestAggregateLevels(t *testing.T) {
	m := newManager(t, Options{})
	none := 0.0
	mustUpdate(t, m, &Config{Name: "one", PanicThreshold: &none, Endpoints: hosts("one", "10.0.0.1", "10.0.0.2 unhealthy")})
	mustUpdate(t, m, &Config{Name: "two", PanicThreshold: &none, Endpoints: hosts("two", "10.0.1.1 degraded", "10.0.1.2 priority=1")})
	inner := mustUpdate(t, m, &Config{Name: "inner", Type: Aggregate, Aggregate: []string{"two", "one"}})
	agg := mustUpdate(t, m, &Config{Name: "agg", Type: Aggregate, Aggregate: []string{"one", "inner"}})
	got := count1(t, agg, 4000)
	// one bears 70 %, the rest goes to the second level of two: its first has only
	// degraded hosts, which come after all healthy ones.
	if got["10.0.0.1"] < 2650 || got["10.0.0.1"] > 2950 || got["10.0.0.1"]+got["10.0.1.2"] != 4000 {
		t.Errorf("got %v", got)
	}
	if inner.aggregate.Load() != nil {
		t.Error("the inner aggregate was asked")
	}
	// A cluster that comes later takes part.
	m.Remove("one")
	if got = count1(t, agg, 100); got["10.0.1.2"] != 100 {
		t.Errorf("without one: %v", got)
	}
	mustUpdate(t, m, &Config{Name: "one", Endpoints: hosts("one", "10.0.0.9")})
	if got = count1(t, agg, 100); got["10.0.0.9"] != 100 {
		t.Errorf("with one again: %v", got)
	}
	for _, name := range []string{"one", "two"} {
		m.Remove(name)
	}
	if served(agg) {
		t.Error("an aggregate of nothing has a host")
	}
}

func TestOriginalDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewManager(Options{})
		defer m.Close()
		cfg := &Config{Name: "c", Type: OriginalDestination, OriginalDst: &OriginalDst{Header: "x-dst", Cleanup: 5 * time.Second}}
		if err := m.Update(cfg); err != nil {
			t.Fatal(err)
		}
		c := m.Get("c")
		to := func(dst, header string) string {
			pc := &PickContext{}
			if dst != "" {
				pc.Destination = netip.MustParseAddrPort(dst)
			}
			if header != "" {
				pc.Request = &message.Request{}
				pc.Request.Fields.Add("X-Dst", header)
			}
			h, err := c.PickFor(pc)
			if err != nil {
				var e *Error
				if !errors.As(err, &e) || e.Kind != NoHealthyHost {
					t.Error(err)
				}
				return ""
			}
			return h.Address()
		}
		for _, tc := range [][3]string{
			{"10.0.0.1:80", "", "10.0.0.1:80"}, {"[::ffff:10.0.0.1]:80", "", "10.0.0.1:80"}, {"[fd00::1]:80", "", "[fd00::1]:80"},
			{"10.0.0.1:80", "10.0.0.2:81", "10.0.0.2:81"}, {"10.0.0.1:80", "nonsense", "10.0.0.1:80"}, {"", "", ""}, {"10.0.0.1:0", "", ""},
			{"10.0.0.1:80", "10.0.0.2:81,10.0.0.3:82", "10.0.0.1:80"},
		} {
			if got := to(tc[0], tc[1]); got != tc[2] {
				t.Errorf("%s with header %q goes to %q", tc[0], tc[1], got)
			}
		}
		if len(c.Stats()) != 3 {
			t.Errorf("%d hosts are shown", len(c.Stats()))
		}
		first := c.hosts()[0]
		if first.Hostname() != "c"+first.Address() || first.Authority() != "" {
			t.Errorf("%s is called %q, and %q by requests", first.Address(), first.Hostname(), first.Authority())
		}
		first.Begin()
		if h, _ := c.Pick(nil); h != nil {
			t.Error("a host was found for nobody's destination")
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if got := c.hosts(); len(got) != 1 || got[0] != first {
			t.Errorf("after a while without use there are %d", len(got))
		}
		cfg = &Config{Name: "c", Type: OriginalDestination, OriginalDst: &OriginalDst{Port: 9}}
		_ = m.Update(cfg)
		if got := to("10.0.0.1:80", ""); got != "10.0.0.1:9" {
			t.Errorf("with another port goes to %s", got)
		}
		first.End()
		m.Remove("c")
		if got := to("10.0.0.5:80", ""); got != "" || !first.gone.Load() {
			t.Error("a removed cluster still makes hosts")
		}
	})
}

func TestDestinationsAreBounded(t *testing.T) {
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", Type: OriginalDestination})
	c.destinations.count = maxDestinations
	if h, _ := c.PickFor(&PickContext{Destination: netip.MustParseAddrPort("10.0.0.1:80")}); h != nil {
		t.Error("one more destination was remembered than there may be")
	}
}

// benchmarked are clusters whose choice must cost next to nothing.
func benchmarked(t testing.TB) map[string]func() *Host {
	m := newManager(t, Options{})
	var many []string
	for i := range 50 {
		many = append(many, fmt.Sprintf("10.0.0.%d weight=%d priority=%d", i+1, 1+i%3, i/40))
	}
	out := map[string]func() *Host{}
	add := func(name string, cfg *Config, pc *PickContext) {
		cfg.Name = name
		c := mustUpdate(t, m, cfg)
		out[name] = func() *Host { h, _ := c.PickFor(pc); return h }
	}
	equal := ports(100, 149)
	none := &PickContext{}
	hash := &PickContext{Hash: 0x1234567812345678, HasHash: true}
	add("round robin", &Config{Endpoints: equal}, none)
	add("weighted round robin", &Config{Endpoints: hosts("c", many...)}, none)
	add("least request", &Config{LB: LeastRequest, Endpoints: equal}, none)
	add("weighted least request", &Config{LB: LeastRequest, Endpoints: hosts("c", many...)}, none)
	add("random", &Config{LB: Random, Endpoints: equal}, none)
	add("ring hash", &Config{LB: RingHash, Endpoints: equal}, hash)
	add("maglev", &Config{LB: Maglev, Endpoints: equal}, hash)
	add("maglev, bounded", &Config{LB: Maglev, Hash: &HashTable{BalanceFactor: 150}, Endpoints: equal}, hash)
	add("localities", &Config{LocalityWeighted: true, Endpoints: localities(map[string]uint32{"a": 1, "b": 2}, []Endpoint{ep("10.0.0.1", Healthy)}, []Endpoint{ep("10.0.0.2", Healthy), ep("10.0.0.3", Healthy)})}, none)
	add("priorities", &Config{Endpoints: hosts("c", strings.Split("10.0.0.1;10.0.0.2 unhealthy;10.0.0.3 priority=1", ";")...)}, none)
	add("subsets", &Config{Endpoints: labelled("v=1", "v=1", "v=2"), Subsets: &Subsets{Selectors: []Selector{{Keys: []string{"v"}}}}},
		&PickContext{Metadata: NewMetadataMatch(map[string]any{"v": "1"})})
	add("aggregate", &Config{Type: Aggregate, Aggregate: []string{"round robin", "random"}}, none)
	add("original destination", &Config{Type: OriginalDestination}, &PickContext{Destination: netip.MustParseAddrPort("10.0.0.1:80")})
	again := &PickContext{Destination: netip.MustParseAddrPort("10.0.0.1:80"), Reselections: 2}
	add("original destination again", &Config{Type: OriginalDestination}, again)
	again.Avoid = []*Host{out["original destination again"]()}
	return out
}

func TestPickDoesNotAllocate(t *testing.T) {
	for name, pick := range benchmarked(t) {
		if pick() == nil {
			t.Errorf("%s: no host", name)
		}
		if n := testing.AllocsPerRun(200, func() { pick() }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", Endpoints: ports(100, 149)})
	avoid := c.hosts()[:3]
	if n := testing.AllocsPerRun(200, func() { _, _ = c.Pick(avoid) }); n != 0 {
		t.Errorf("with hosts to avoid: %v allocations", n)
	}
}

// A choice that may be made again only so often takes what it has then, as Envoy's does;
// where it may be made for every host, it finds the one that is left.
func TestReselections(t *testing.T) {
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", LB: Random, Endpoints: ports(90, 97)})
	left := c.hosts()[3]
	avoid := slices.DeleteFunc(slices.Clone(c.hosts()), func(h *Host) bool { return h == left })
	for _, tc := range []struct{ reselections, least, most int }{{1, 300, 700}, {7, 1100, 1800}, {8, 2000, 2000}, {1000, 2000, 2000}, {0, 2000, 2000}} {
		found := 0
		for range 2000 {
			h, err := c.PickFor(&PickContext{Avoid: avoid, Reselections: tc.reselections})
			if err != nil {
				t.Fatal(err)
			}
			if h == left {
				found++
			}
		}
		if found < tc.least || found > tc.most {
			t.Errorf("%d reselections found the host %d times of 2000, want %d to %d", tc.reselections, found, tc.least, tc.most)
		}
	}
}

// TestReselectionsInSubset: more choices never find fewer hosts, whatever their weights.
func TestReselectionsInSubset(t *testing.T) {
	a := ports(90, 94)
	for i := range a.Localities[0].Endpoints {
		e := &a.Localities[0].Endpoints[i]
		e.Weight, e.Metadata = 1000, map[string]map[string]any{"envoy.lb": {"stage": "prod"}}
	}
	eps := a.Localities[0].Endpoints
	eps[3].Weight = 1
	eps[4].Metadata = map[string]map[string]any{"envoy.lb": {"stage": "dev"}}
	m := newManager(t, Options{})
	one := mustUpdate(t, m, &Config{
		Name: "one", LB: RoundRobin, Endpoints: a,
		Subsets: &Subsets{Selectors: []Selector{{Keys: []string{"stage"}}}, Fallback: FallbackNone},
	})
	agg := mustUpdate(t, m, &Config{Name: "agg", Type: Aggregate, Aggregate: []string{"one"}})
	left, other := one.hosts()[3], one.hosts()[4]
	avoid := slices.Clone(one.hosts()[:3])
	prod := NewMetadataMatch(map[string]any{"stage": "prod"})
	// An aggregate chooses a level of its clusters, and a subset of it.
	for _, c := range []*Cluster{one, agg} {
		for range 100 {
			h, err := c.PickFor(&PickContext{Avoid: avoid, Reselections: 100, Metadata: prod})
			if err != nil || h != left {
				t.Fatalf("%s: %v, %v", c.name, h, err)
			}
			if h, err = c.PickFor(&PickContext{Avoid: append(avoid, left), Reselections: 100, Metadata: prod}); err != nil || h == other {
				t.Fatalf("%s left the subset: %v, %v", c.name, h, err)
			}
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for name, pick := range benchmarked(b) {
		b.Run(strings.ReplaceAll(name, " ", "_"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				pick()
			}
		})
	}
}
