package cluster

import (
	"fmt"
	"slices"
	"testing"
)

// TestNamedAgain: where Envoy makes a host of each mention of an address, so is it here: it has as many shares of
// the requests as it is named, of each priority that it is named in.
func TestNamedAgain(t *testing.T) {
	specs := []string{"10.0.0.1", "10.0.0.1 weight=2", "10.0.0.2", "10.0.0.1 priority=1"}
	for name, tc := range map[string]struct {
		kind  Type
		hosts int
		want  int // of 600 that go to the first address
	}{
		"static":     {Static, 4, 450},
		"strict DNS": {StrictDNS, 4, 450},
		"EDS":        {EDS, 2, 300},
	} {
		t.Run(name, func(t *testing.T) {
			c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", Type: tc.kind, Endpoints: hosts("c", specs...)})
			if n := len(c.hosts()); n != tc.hosts {
				t.Fatalf("%d hosts", n)
			}
			if got := count1(t, c, 600); got["10.0.0.1"] != tc.want {
				t.Errorf("%v", got)
			}
		})
	}
}

// TestNamedLessOften: hosts of an address are the same after an update, those that it is named for still; each has
// its own ejection.
func TestNamedLessOften(t *testing.T) {
	m := newManager(t, Options{})
	with := func(specs ...string) []*Host {
		t.Helper()
		c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", specs...),
			Outlier: &Outlier{Consecutive5xx: 1, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 100}})
		return c.hosts()
	}
	var many []string
	for i := range 2 * scanned {
		many = append(many, fmt.Sprintf("10.0.1.%d", i))
	}
	three := with("10.0.0.1", "10.0.0.1", "10.0.0.1")
	three[1].Report(500)
	three[2].Report(500)
	if c := m.Get("c"); c.ejected != 2 || three[0].ejected() || !three[1].ejected() || !three[2].ejected() {
		t.Errorf("%d are ejected", c.ejected)
	}
	all := with(append([]string{"10.0.0.2", "10.0.0.1"}, append(many, "10.0.0.1")...)...)
	if all[1] != three[0] || all[len(all)-1] != three[1] || !three[2].gone.Load() {
		t.Error("other hosts are at the address")
	}
	if c := m.Get("c"); c.ejected != 1 {
		t.Errorf("%d are ejected", c.ejected)
	}
	if one := with("10.0.0.1"); len(one) != 1 || one[0] != three[0] || !three[1].gone.Load() {
		t.Error("the one that is left is another")
	}
	if again := with("10.0.0.1", "10.0.0.1"); again[0] != three[0] || slices.Contains(three, again[1]) {
		t.Error("the other one comes back from the dead")
	}
}

// TestNamedAgainIsNoOther: a host at an address that was tried is no other one.
func TestNamedAgainIsNoOther(t *testing.T) {
	all := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1", "10.0.0.1", "10.0.0.2")}).hosts()
	for range 50 {
		if h, err := all[0].cluster.PickFor(&PickContext{Avoid: all[:1], Reselections: 100}); err != nil || h != all[2] {
			t.Fatalf("picked %v, %v", h, err)
		}
	}
}
