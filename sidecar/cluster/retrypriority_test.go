package cluster

import "testing"

// TestOtherPriorities: a retry goes to a priority that was not tried, and where there is no
// other one, as requests do.
func TestOtherPriorities(t *testing.T) {
	m := newManager(t, Options{})
	three := mustUpdate(t, m, &Config{Name: "three", Endpoints: hosts("three", "10.0.0.1", "10.0.1.1 priority=1", "10.0.2.1 priority=2")})
	gap := mustUpdate(t, m, &Config{Name: "gap", Endpoints: hosts("gap", "10.0.0.1", "10.0.1.1 priority=1 unhealthy", "10.0.2.1 priority=2 degraded")})
	down := mustUpdate(t, m, &Config{Name: "down", Endpoints: hosts("down", "10.0.0.1 unhealthy")})
	mustUpdate(t, m, &Config{Name: "first", Endpoints: hosts("first", "10.1.0.1")})
	agg := mustUpdate(t, m, &Config{Name: "agg", Type: Aggregate, Aggregate: []string{"first", "three"}})
	some := hosts("subsets", "10.0.0.1", "10.0.1.1 priority=1", "10.0.2.1 priority=2")
	for i := range 2 {
		some.Localities[i].Endpoints[0].Metadata = map[string]map[string]any{lbNamespace: {"v": "1"}}
	}
	subsets := mustUpdate(t, m, &Config{
		Name: "subsets", Endpoints: some,
		Subsets: &Subsets{Selectors: []Selector{{Keys: []string{"v"}}}},
	})
	for name, tc := range map[string]struct {
		c     *Cluster
		every int
		want  []string
	}{
		"each":                {three, 1, []string{"10.0.0.1", "10.0.1.1", "10.0.2.1", "10.0.0.1", "10.0.1.1"}},
		"every second":        {three, 2, []string{"10.0.0.1", "10.0.0.1", "10.0.1.1", "10.0.1.1", "10.0.2.1", "10.0.2.1", "10.0.0.1", "10.0.0.1", "10.0.1.1"}},
		"what is available":   {gap, 1, []string{"10.0.0.1", "10.0.2.1", "10.0.0.1"}},
		"none available":      {down, 1, []string{"10.0.0.1", "10.0.0.1"}},
		"of an aggregate":     {agg, 1, []string{"10.1.0.1", "10.0.0.1", "10.0.1.1", "10.0.2.1", "10.1.0.1"}},
		"within a subset":     {subsets, 1, []string{"10.0.0.1", "10.0.1.1", "10.0.0.1"}},
		"as load has it":      {three, 0, []string{"10.0.0.1", "10.0.0.1"}},
		"more often than all": {three, 100, []string{"10.0.0.1", "10.0.0.1", "10.0.0.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			pc := &PickContext{OtherPriorities: tc.every}
			if tc.c == subsets {
				pc.Metadata = NewMetadataMatch(map[string]any{"v": "1"})
			}
			for i, want := range tc.want {
				h, err := tc.c.PickFor(pc)
				if err != nil || h.Address() != want+":80" {
					t.Fatalf("attempt %d goes to %v, %v, not to %s", i+1, h, err, want)
				}
				pc.Tried = pc.Tried.And(h)
			}
		})
	}
	var none *Tried
	if none.Before() != nil || none.And(nil).Before() != nil {
		t.Error("nothing is before the first")
	}
}

// TestOtherPrioritiesOverOmitted: a host that is to be avoided is taken where the priorities that were
// not tried have no other; and a host of another cluster excludes none.
func TestOtherPrioritiesOverOmitted(t *testing.T) {
	m := newManager(t, Options{})
	levels := func(name string) *Assignment {
		a := hosts(name, "10.0.0.1", "10.0.1.1 priority=1", "10.0.2.1 priority=2")
		a.Localities[1].Endpoints[0].Metadata = map[string]map[string]any{lbNamespace: {"canary": true}}
		return a
	}
	three := mustUpdate(t, m, &Config{Name: "three", Endpoints: levels("three")})
	subsets := mustUpdate(t, m, &Config{Name: "subsets", Endpoints: levels("subsets"), Subsets: &Subsets{Fallback: FallbackAny}})
	mustUpdate(t, m, &Config{Name: "first", Endpoints: hosts("first", "10.1.0.1")})
	agg := mustUpdate(t, m, &Config{Name: "agg", Type: Aggregate, Aggregate: []string{"first", "three"}})
	for name, tc := range map[string]struct {
		c    *Cluster
		want []string
	}{
		"a cluster":    {three, []string{"10.0.0.1", "10.0.1.1", "10.0.2.1", "10.0.0.1"}},
		"subsets":      {subsets, []string{"10.0.0.1", "10.0.1.1", "10.0.2.1", "10.0.0.1"}},
		"an aggregate": {agg, []string{"10.1.0.1", "10.0.0.1", "10.0.1.1", "10.0.2.1"}},
	} {
		for reselections := range 5 {
			pc := &PickContext{OtherPriorities: 1, OmitCanary: true, Reselections: reselections}
			for i, want := range tc.want {
				h, err := tc.c.PickFor(pc)
				if err != nil || h.Address() != want+":80" {
					t.Fatalf("%s, %d reselections: attempt %d goes to %v, %v, not to %s", name, reselections, i+1, h, err, want)
				}
				pc.Tried = pc.Tried.And(h)
			}
		}
	}
}

// TestOtherPrioritiesOfOthers: hosts of another cluster exclude no priority of this one.
func TestOtherPrioritiesOfOthers(t *testing.T) {
	m := newManager(t, Options{})
	at := func(name string) *Assignment {
		return hosts(name, "10.0.0.1", "10.0.1.1 priority=1", "10.0.2.1 priority=2")
	}
	one, two := mustUpdate(t, m, &Config{Name: "one", Endpoints: at("one")}), mustUpdate(t, m, &Config{Name: "two", Endpoints: at("two")})
	var tried *Tried
	for _, h := range one.hosts()[:2] {
		tried = tried.And(h)
	}
	for c, want := range map[*Cluster]string{one: "10.0.2.1:80", two: "10.0.0.1:80"} {
		if h, err := c.PickFor(&PickContext{OtherPriorities: 1, Tried: tried}); err != nil || h.Address() != want {
			t.Errorf("%s: %v, not %s", c.Name(), err, want)
		}
	}
}

// TestOtherPrioritiesAreWorkedOutOnce: choosing again costs no more.
func TestOtherPrioritiesAreWorkedOutOnce(t *testing.T) {
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1", "10.0.1.1 priority=1")})
	var tried *Tried
	tried = tried.And(c.hosts()[0])
	allocs := func(reselections int) float64 {
		pc := &PickContext{OtherPriorities: 1, Tried: tried, Avoid: c.hosts(), Reselections: reselections}
		return testing.AllocsPerRun(100, func() { _, _ = c.PickFor(pc) })
	}
	if one, four := allocs(1), allocs(4); one != four || one == 0 {
		t.Errorf("%v allocations, with three more choices %v", one, four)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = c.PickFor(&PickContext{OtherPriorities: 1}) }); n != 0 {
		t.Errorf("%v allocations for a first attempt", n)
	}
}
