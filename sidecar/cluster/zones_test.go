package cluster

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// zoned makes an assignment of "a=2 b=1/3 c=1x5": two hosts in zone a, three in b of which one
// is healthy, one of weight 5 in c. "!" is a priority more, "~" has the healthy ones degraded,
// and "@7" a locality's weight.
func zoned(name, spec string) *Assignment {
	out := &Assignment{Cluster: name}
	for i, s := range strings.Fields(spec) {
		l := Locality{Priority: strings.Count(s, "!")}
		state := Healthy
		if strings.Contains(s, "~") {
			state = Degraded
		}
		s = strings.NewReplacer("!", "", "~", "").Replace(s)
		s, of, _ := strings.Cut(s, "@")
		if w, err := strconv.Atoi(of); err == nil {
			l.Weight = uint32(w)
		}
		var count string
		l.Zone, count, _ = strings.Cut(s, "=")
		var healthy, weight int
		if n, _ := fmt.Sscanf(count, "%dx%d", &healthy, &weight); n < 2 {
			weight = 1
		}
		all := healthy
		if _, of, ok := strings.Cut(count, "/"); ok {
			all, _ = strconv.Atoi(of)
		}
		for j := range all {
			e := Endpoint{Host: fmt.Sprintf("10.%d.%d.1", i, j), Port: 80, Weight: uint32(weight), Health: state, Hostname: l.Zone}
			if j >= healthy {
				e.Health = Unhealthy
			}
			l.Endpoints = append(l.Endpoints, e)
		}
		out.Localities = append(out.Localities, l)
	}
	return out
}

// chances are those of the numbers that an alias draws, in percent.
func (a *alias) chances() []float64 {
	if a == nil {
		return nil
	}
	out := make([]float64, len(a.keep))
	for i := range a.keep {
		p := 100 / float64(len(a.keep))
		kept := float64(a.keep[i]) / (1 << 32)
		out[i] += p * kept
		out[a.other[i]] += p * (1 - kept)
	}
	for i := range out {
		out[i] = math.Round(out[i]*100) / 100
	}
	return out
}

func zoneManager(t *testing.T, own string) *Manager {
	t.Helper()
	m := newManager(t, Options{Own: &Own{Cluster: "own", Zone: &Zone{Zone: "a"}}})
	mustUpdate(t, m, &Config{Name: "own", Endpoints: zoned("own", own)})
	return m
}

func least(n uint32) *uint32 { return &n }

// TestZoneRoutes: the routes of a cluster, worked out by hand as Envoy's documentation has it,
// in whole hundredths of a percent. The sidecar is in zone a.
func TestZoneRoutes(t *testing.T) {
	const anywhere = -1
	small := ZoneAware{Percent: 100}
	force := ZoneAware{Percent: 100, Force: least(2)}
	weigh := ZoneAware{Percent: 100, ByWeight: true}
	for name, tc := range map[string]struct {
		own, hosts string
		terms      ZoneAware
		stay       int // of 10,000
		elsewhere  []float64
		structure  telemetry.ZoneStructure
	}{
		"as many here":                    {"a=1 b=1", "a=1 b=1", small, 10000, nil, telemetry.ZoneDirect},
		"more here":                       {"a=1 b=2", "a=2 b=1", small, 10000, nil, telemetry.ZoneDirect},
		"sizes differ":                    {"a=1 b=3", "a=25 b=75", small, 10000, nil, telemetry.ZoneDirect},
		"half of them":                    {"a=2 b=8", "a=1 b=9", small, 5000, []float64{0, 100}, telemetry.ZoneResidual},
		"a third is missing":              {"a=1 b=1", "a=1 b=2", small, 3333 * 10000 / 5000, []float64{0, 100}, telemetry.ZoneResidual},
		"documented":                      {"a=40 b=40 c=20", "a=25 b=50 c=25", small, 6250, []float64{0, 66.67, 33.33}, telemetry.ZoneResidual},
		"none here":                       {"a=1 b=1", "b=1 c=1", small, 0, []float64{0, 100}, telemetry.ZoneResidual},
		"none healthy here":               {"a=1 b=1", "a=0/3 b=1 c=1", small, 0, []float64{0, 0, 100}, telemetry.ZoneResidual},
		"a zone without clients":          {"a=2 b=1", "a=1 b=1 c=2", small, 2500 * 10000 / 6666, []float64{0, 0, 100}, telemetry.ZoneResidual},
		"unhealthy ones do not count":     {"a=1/3 b=3", "a=1/9 b=3/3", small, 10000, nil, telemetry.ZoneDirect},
		"no capacity anywhere":            {"a=0/1 b=1", "a=0/1 b=2", small, 0, nil, telemetry.ZoneResidual},
		"the own cluster is unhealthy":    {"a=0/1 b=0/1", "a=1 b=2", small, 10000, nil, telemetry.ZoneDirect},
		"one zone":                        {"a=1 b=1", "a=9", small, anywhere, nil, telemetry.ZoneUnneeded},
		"two zones, one healthy":          {"a=1 b=1", "a=9 b=0/1", small, 10000, nil, telemetry.ZoneDirect},
		"one zone of clients":             {"a=2", "a=1 b=1", small, anywhere, nil, telemetry.ZoneUnneeded},
		"one zone of clients, forced":     {"a=2", "a=2 b=1", force, 10000, nil, telemetry.ZoneDirect},
		"no client here":                  {"b=1 c=1", "a=1 b=1", small, anywhere, nil, telemetry.ZoneOwnAbsent},
		"no client here, forced":          {"b=1", "a=2 b=1", force, anywhere, nil, telemetry.ZoneOwnAbsent},
		"no clients":                      {"", "a=1 b=1", small, anywhere, nil, telemetry.ZoneUnneeded},
		"forced":                          {"a=9 b=1", "a=2 b=8", force, 10000, nil, telemetry.ZoneDirect},
		"forced, too few":                 {"a=9 b=1", "a=1/2 b=9", force, 1000 * 10000 / 9000, []float64{0, 100}, telemetry.ZoneResidual},
		"forced, none needed":             {"a=9 b=1", "a=0/2 b=9", ZoneAware{Percent: 100, Force: least(0)}, 10000, nil, telemetry.ZoneDirect},
		"the default is six":              {"a=1 b=1", "a=3 b=2", DefaultZoneAware(), anywhere, nil, telemetry.ZoneTooFewHosts},
		"six":                             {"a=1 b=1", "a=3 b=3", DefaultZoneAware(), 10000, nil, telemetry.ZoneDirect},
		"six, one of them unhealthy":      {"a=1 b=1", "a=3 b=2/3", DefaultZoneAware(), anywhere, nil, telemetry.ZoneTooFewHosts},
		"too small, and no client here":   {"b=1 c=1", "a=1 b=1", DefaultZoneAware(), anywhere, nil, telemetry.ZoneOwnAbsent},
		"by weight":                       {"a=1x3 b=1x1", "a=1x1 b=1x3", weigh, 2500 * 10000 / 7500, []float64{0, 100}, telemetry.ZoneResidual},
		"by number, though there is some": {"a=1x3 b=1x1", "a=1x1 b=1x3", small, 10000, nil, telemetry.ZoneDirect},
	} {
		m := zoneManager(t, tc.own)
		terms := tc.terms
		z := mustUpdate(t, m, &Config{Name: "c", Zones: &terms, Endpoints: zoned("c", tc.hosts)}).set.Load().whole.router
		r, structure := z.route(m.own.Load())
		if structure != tc.structure || (r == nil) != (tc.stay == anywhere) {
			t.Errorf("%s: got %v, %+v", name, structure, r)
			continue
		}
		if r == nil {
			continue
		}
		stay := r.stay
		if r.direct {
			stay = 10000
		}
		if stay != tc.stay || !slices.Equal(r.elsewhere.chances(), tc.elsewhere) {
			t.Errorf("%s: %d of 10,000 stay, the others go to %v; want %d and %v", name, stay, r.elsewhere.chances(), tc.stay, tc.elsewhere)
		}
	}
}

// zonesOf counts where n requests go, by zone.
func zonesOf(t *testing.T, c *Cluster, n int) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range n {
		h, err := c.Pick(nil)
		if err != nil {
			got["none"]++
			continue
		}
		got[h.Hostname()]++
	}
	return got
}

// TestZonePicks: where requests go. Shares that chance decides are of 4,000, give or take 150.
func TestZonePicks(t *testing.T) {
	zone := func(change func(*Config)) func(*Config) {
		return func(c *Config) {
			c.Zones = &ZoneAware{Percent: 100}
			if change != nil {
				change(c)
			}
		}
	}
	none := 0.0
	for name, tc := range map[string]struct {
		own, hosts string
		change     func(*Config)
		want       map[string]int
	}{
		"direct":                           {"a=1 b=1", "a=1 b=1", zone(nil), map[string]int{"a": 4000}},
		"least request":                    {"a=1 b=1", "a=2 b=1", zone(func(c *Config) { c.LB = LeastRequest }), map[string]int{"a": 4000}},
		"random":                           {"a=1 b=1", "a=2 b=1", zone(func(c *Config) { c.LB = Random }), map[string]int{"a": 4000}},
		"residual":                         {"a=2 b=8", "a=1 b=9", zone(nil), map[string]int{"a": 2000, "b": 2000}},
		"to the zones that have more":      {"a=40 b=40 c=20", "a=25 b=50 c=25", zone(nil), map[string]int{"a": 2500, "b": 1000, "c": 500}},
		"no capacity":                      {"a=0/1 b=1", "a=0/1 b=2", zone(nil), map[string]int{"none": 2000, "b": 2000}},
		"no routing":                       {"a=1 b=1", "a=1 b=1", zone(func(c *Config) { c.Zones.Percent = 0 }), map[string]int{"a": 2000, "b": 2000}},
		"half of it":                       {"a=1 b=1", "a=1 b=1", zone(func(c *Config) { c.Zones.Percent = 50 }), map[string]int{"a": 3000, "b": 1000}},
		"too small":                        {"a=1 b=1", "a=1 b=1", nil, map[string]int{"a": 2000, "b": 2000}},
		"large enough":                     {"a=1 b=1", "a=3 b=3", nil, map[string]int{"a": 4000}},
		"a hash policy":                    {"a=1 b=1", "a=3 b=3", func(c *Config) { c.LB = Maglev }, map[string]int{"a": 2000, "b": 2000}},
		"panic":                            {"a=1 b=1", "a=1/3 b=1/3", zone(nil), map[string]int{"a": 2000, "b": 2000}},
		"panic that fails":                 {"a=1 b=1", "a=1/3 b=1/3", zone(func(c *Config) { c.FailOnPanic = true }), map[string]int{"none": 4000}},
		"no panic":                         {"a=1 b=1", "a=1/3 b=1/3", zone(func(c *Config) { c.PanicThreshold = &none }), map[string]int{"a": 4000}},
		"the own cluster panics":           {"a=1/3 b=1/3", "a=1 b=1", zone(nil), map[string]int{"a": 2000, "b": 2000}},
		"the own cluster panics, and that": {"a=1/3 b=1/3", "a=1 b=1", zone(func(c *Config) { c.FailOnPanic = true }), map[string]int{"none": 4000}},
		"the own cluster does not panic":   {"a=1/3 b=1/3", "a=1 b=1", zone(func(c *Config) { c.PanicThreshold = &none }), map[string]int{"a": 4000}},
		"the second priority":              {"a=1 b=1", "a=0/1 b=0/1 a=1! b=1!", zone(func(c *Config) { c.PanicThreshold = &none }), map[string]int{"a": 2000, "b": 2000}},
		// The first priority bears 70 %: all of it goes to the own zone.
		"beside the second priority": {"a=1 b=1", "a=1/2 b=1/2 c=1!", zone(nil), map[string]int{"a": 2800, "c": 1200}},
		// The degraded ones go by the routes that healthy ones make: there is no healthy host.
		"degraded":               {"a=1 b=1", "a=1~ b=1~", zone(func(c *Config) { c.Zones.Force = least(0) }), map[string]int{"a": 4000}},
		"weights of localities":  {"a=1 b=1", "a=1@1 b=1@3", zone(func(c *Config) { c.LocalityWeighted = true }), map[string]int{"a": 1000, "b": 3000}},
		"localities, no weights": {"a=1 b=1", "a=1 b=1", zone(func(c *Config) { c.LocalityWeighted = true }), map[string]int{"a": 4000}},
		"subsets": {"a=1 b=1", "a=1 b=1", zone(func(c *Config) {
			c.Subsets = &Subsets{Selectors: []Selector{{Keys: []string{"v"}}}, Fallback: FallbackAny}
		}), map[string]int{"a": 4000}},
	} {
		t.Run(name, func(t *testing.T) {
			m := zoneManager(t, tc.own)
			cfg := &Config{Name: "c", Endpoints: zoned("c", tc.hosts)}
			if tc.change != nil {
				tc.change(cfg)
			}
			got := zonesOf(t, mustUpdate(t, m, cfg), 4000)
			for z := range got {
				if _, ok := tc.want[z]; !ok {
					t.Errorf("%d went to %q", got[z], z)
				}
			}
			for z, n := range tc.want {
				if d := got[z] - n; d < -150 || d > 150 || n == 4000 && d != 0 {
					t.Errorf("%d went to %q, want %d", got[z], z, n)
				}
			}
		})
	}
}

// TestZoneOfNobody: where the node's locality is not said it is in no zone, and without an own
// cluster, or in that, nothing is routed by zone.
func TestZoneOfNobody(t *testing.T) {
	m := newManager(t, Options{Own: &Own{Cluster: "own"}})
	own := mustUpdate(t, m, &Config{Name: "own", Zones: &ZoneAware{Percent: 100}, Endpoints: zoned("own", "=1 b=1")})
	c := mustUpdate(t, m, &Config{Name: "c", Zones: &ZoneAware{Percent: 100}, Endpoints: zoned("c", "=1 b=1")})
	if r := c.set.Load().whole.router; r.local != -1 || r.routes.Load() != nil {
		t.Errorf("the zone without a name is the own one: %+v", r)
	}
	if c.set.Load().whole.levels[0].healthy.places != nil {
		t.Error("hosts are sorted by zone where no request will be")
	}
	if own.cfg.Load().zones != nil || own.set.Load().whole.router != nil {
		t.Error("the own cluster is routed by zone")
	}
	plain := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", Zones: &ZoneAware{Percent: 100}, Endpoints: zoned("c", "a=1 b=1")})
	if s := plain.set.Load(); plain.cfg.Load().zones != nil || s.whole.router != nil || s.own != nil || s.whole.levels[0].healthy.places != nil {
		t.Error("there is no own cluster, and routing by zone")
	}
}

// TestZonesFollow: routes follow what becomes of the own cluster and of the cluster itself.
func TestZonesFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewManager(Options{Own: &Own{Cluster: "own", Zone: &Zone{Zone: "a"}}, Metrics: telemetry.NewMetrics()})
		defer m.Close()
		c := mustUpdate(t, m, &Config{Name: "c", Type: EDS, Zones: &ZoneAware{Percent: 100}, Endpoints: zoned("c", "a=1 b=1")})
		// The clusters that have the own one's endpoints change under the same locks.
		twin := mustUpdate(t, m, &Config{Name: "twin", Type: EDS, ServiceName: "own", Zones: &ZoneAware{Percent: 100}})
		mustUpdate(t, m, &Config{Name: "own", Type: EDS})
		set := func(name, spec string) {
			t.Helper()
			if err := m.SetEndpoints(zoned(name, spec)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		want := func(what string, c *Cluster, want ...string) {
			t.Helper()
			if got := slices.Sorted(maps.Keys(zonesOf(t, c, 200))); !slices.Equal(got, want) {
				t.Errorf("%s: requests go to %v, want %v", what, got, want)
			}
		}
		want("nothing is known of the own cluster", c, "a", "b")
		set("own", "a=1 b=1")
		want("it is known", c, "a")
		want("those with its endpoints", twin, "a")
		set("own", "a=2 b=1")
		want("it has more here", c, "a", "b")
		set("c", "a=2 b=1")
		want("so has the cluster", c, "a")
		set("own", "b=1 c=1")
		want("the own cluster left", c, "a", "b")
		set("own", "a=1 b=1")
		want("it is back", c, "a")
		set("c", "a=0/1 b=2")
		want("none is healthy here", c, "b")
	})
}

// TestZonesInBursts: however often the own cluster changes, one goroutine at a time goes through
// the clusters, and once more where it changed meanwhile.
func TestZonesInBursts(t *testing.T) {
	m := newManager(t, Options{Own: &Own{Cluster: "own", Zone: &Zone{Zone: "a"}}})
	mustUpdate(t, m, &Config{Name: "own", Type: EDS})
	terms := &ZoneAware{Percent: 100}
	c := mustUpdate(t, m, &Config{Name: "c", Type: EDS, Zones: terms, Endpoints: zoned("c", "a=1 b=1")})
	mustUpdate(t, m, &Config{Name: "d", Type: EDS, Zones: terms, Endpoints: zoned("d", "a=1 b=2")})
	c.mu.Lock()
	for i := range 51 { // the last has as many here as there
		if err := m.SetEndpoints(zoned("own", []string{"a=1 b=1", "a=2 b=1"}[i%2])); err != nil {
			t.Error(err)
		}
		letOthersRun()
		if n := regarding(); n > 1 {
			t.Errorf("after %d changes %d goroutines have the cluster see them", i+1, n)
			break
		}
	}
	c.mu.Unlock()
	waitFor(t, func() bool { return c.set.Load().whole.router.routes.Load() != nil })
	waitFor(t, func() bool { return zonesOf(t, c, 100)["a"] == 100 })
	// As nothing is known of the own cluster, by the change that was under way, by the last.
	for _, name := range []string{"c", "d"} {
		if got := structures(t, m, name); got > 3 {
			t.Errorf("the routes of %s were made %d times", name, got)
		}
	}
}

// letOthersRun until they wait, or nearly so.
func letOthersRun() {
	for range 100 {
		runtime.Gosched()
	}
}

// regarding is how many goroutines make a cluster's routes anew.
func regarding() int {
	stacks := make([]byte, 4<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "(*Cluster).regardOwn(")
}

// structures is how often a cluster's routes were made.
func structures(t *testing.T, m *Manager, cluster string) int {
	t.Helper()
	var text strings.Builder
	if err := m.opts.Metrics.Registry.WritePrometheus(&text); err != nil {
		t.Fatal(err)
	}
	sum := 0
	for line := range strings.Lines(text.String()) {
		if rest, ok := strings.CutPrefix(line, `hauberk_upstream_zone_structures_total{cluster="`+cluster+`"`); ok {
			n, err := strconv.Atoi(strings.TrimSpace(rest[strings.Index(rest, "}")+1:]))
			if err != nil {
				t.Error(err)
			}
			sum += n
		}
	}
	return sum
}

// TestZonesAfterAFault: what is recalled after a fault follows the own cluster.
func TestZonesAfterAFault(t *testing.T) {
	m := newManager(t, Options{Own: &Own{Cluster: "own", Zone: &Zone{Zone: "a"}}})
	own := mustUpdate(t, m, &Config{Name: "own", Type: EDS, Endpoints: zoned("own", "a=1 b=1")})
	c := mustUpdate(t, m, &Config{Name: "c", Type: EDS, Zones: &ZoneAware{Percent: 100}, Endpoints: zoned("c", "a=1 b=1")})
	tried := func(of *Cluster, what func()) {
		of.mu.Lock()
		defer of.mu.Unlock()
		was := of.present()
		what()
		letOthersRun()
		of.recall(was, of.cfg.Load())
	}
	both := func() bool { got := zonesOf(t, c, 200); return got["a"] > 0 && got["b"] > 0 }
	tried(c, func() { // settings that know no zones, while the own cluster changes
		c.cfg.Store(&settings{Config: &Config{Name: "c", LB: Maglev}})
		if err := m.SetEndpoints(zoned("own", "a=2 b=1")); err != nil {
			t.Error(err)
		}
	})
	waitFor(t, both)
	tried(own, func() { own.install(&endpointSet{whole: &balancer{}, own: &ownHosts{}}) })
	waitFor(t, func() bool { return m.own.Load().present && both() })
}

// TestZoneRoutesOfAnotherTime: a set that was made before the own cluster changed, and is in
// force after it, has the routes of what it is now.
func TestZoneRoutesOfAnotherTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewManager(Options{Own: &Own{Cluster: "own", Zone: &Zone{Zone: "a"}}})
		defer m.Close()
		mustUpdate(t, m, &Config{Name: "own", Type: EDS})
		c := mustUpdate(t, m, &Config{Name: "c", Type: EDS, Zones: &ZoneAware{Percent: 100}, Endpoints: zoned("c", "a=1 b=1")})
		c.mu.Lock()
		late := c.newSet(c.cfg.Load())
		if err := m.SetEndpoints(zoned("own", "a=1 b=1")); err != nil {
			t.Error(err)
		}
		c.install(late)
		c.mu.Unlock()
		synctest.Wait()
		if got := zonesOf(t, c, 100); got["a"] != 100 {
			t.Errorf("requests go to %v", got)
		}
	})
}

func TestZoneCounters(t *testing.T) {
	for name, tc := range map[string]struct {
		own, hosts string
		zones      *ZoneAware
		want       []string
	}{
		"direct":      {"a=1 b=1", "a=1 b=1", &ZoneAware{Percent: 100}, []string{`picks_total{cluster="c",result="direct"} 9`, `structures_total{cluster="c",result="direct"} 1`}},
		"crossed":     {"a=1 b=1", "b=1 c=1", &ZoneAware{Percent: 100}, []string{`picks_total{cluster="c",result="cross_zone"} 9`, `structures_total{cluster="c",result="residual"} 1`}},
		"no capacity": {"a=0/1 b=1", "a=0/1 b=1", &ZoneAware{Percent: 100}, []string{`picks_total{cluster="c",result="no_capacity"} 9`}},
		"own panic":   {"a=0/1 b=0/1", "a=1 b=1", &ZoneAware{Percent: 100}, []string{`picks_total{cluster="c",result="local_cluster_panic"} 9`}},
		"small":       {"a=1 b=1", "a=1 b=1", nil, []string{`structures_total{cluster="c",result="cluster_too_small"} 1`}},
		"not there":   {"b=1 c=1", "a=1 b=1", nil, []string{`structures_total{cluster="c",result="local_cluster_not_ok"} 1`}},
		"one zone":    {"a=1 b=1", "a=1", nil, []string{`structures_total{cluster="c",result="one_zone"} 1`}},
	} {
		m := zoneManager(t, tc.own)
		zonesOf(t, mustUpdate(t, m, &Config{Name: "c", Zones: tc.zones, Endpoints: zoned("c", tc.hosts)}), 9)
		var text strings.Builder
		if err := m.opts.Metrics.Registry.WritePrometheus(&text); err != nil {
			t.Fatal(err)
		}
		for _, want := range tc.want {
			if !strings.Contains(text.String(), "hauberk_upstream_zone_"+want+"\n") {
				t.Errorf("%s: there is no %s", name, want)
			}
		}
	}
}

// TestOwnClusterHasOnePriority: as in Envoy, but for the one host of logical DNS.
func TestOwnClusterHasOnePriority(t *testing.T) {
	const want = `localities[1]: priority 1: the cluster that local_cluster_name names has only priority 0`
	two := zoned("own", "a=1 b=1!")
	m := newManager(t, Options{Own: &Own{Cluster: "own", Zone: &Zone{Zone: "a"}}})
	refused := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	refused("static", m.Update(&Config{Name: "own", Endpoints: two}))
	refused("strict DNS", m.Check(&Config{Name: "own", Type: StrictDNS, Endpoints: two}))
	mustUpdate(t, m, &Config{Name: "own", Type: EDS})
	refused("EDS", m.SetEndpoints(two))
	refused("EDS with its cluster", m.UpdateWith(&Config{Name: "own", Type: EDS}, two))
	mustUpdate(t, m, &Config{Name: "c", Endpoints: two})
	if err := errors.Join((*Own)(nil).Takes("own", two), (&Own{Cluster: "own"}).Takes("c", two)); err != nil {
		t.Error(err)
	}
}

// TestZonePicksAllocateNothing of each kind of route.
func TestZonePicksAllocateNothing(t *testing.T) {
	for _, hosts := range []string{"a=1 b=1", "a=1 b=9", "b=1 c=1"} {
		m := zoneManager(t, "a=2 b=2")
		c := mustUpdate(t, m, &Config{Name: "c", Zones: &ZoneAware{Percent: 99}, Endpoints: zoned("c", hosts)})
		pc := &PickContext{}
		if n := testing.AllocsPerRun(1000, func() { _, _ = c.PickFor(pc) }); n != 0 {
			t.Errorf("%s: %v allocations", hosts, n)
		}
	}
}
