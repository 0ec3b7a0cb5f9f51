package cluster

import (
	"fmt"
	"testing"
	"time"
)

// pickedFrom is the cluster whose host an aggregate chooses, "" where there is none.
func pickedFrom(c *Cluster) string {
	h, err := c.Pick(nil)
	if err != nil {
		return ""
	}
	return h.Cluster().Name()
}

// TestAggregateChanges: what an aggregate lists, and its terms, act at once, also those of
// an aggregate in it.
func TestAggregateChanges(t *testing.T) {
	m := newManager(t, Options{})
	none := 0.0
	for i, name := range []string{"one", "two"} {
		mustUpdate(t, m, &Config{Name: name, Endpoints: hosts(name, fmt.Sprintf("10.0.0.%d", i))})
	}
	list := func(name string, panic *float64, of ...string) *Cluster {
		return mustUpdate(t, m, &Config{Name: name, Type: Aggregate, PanicThreshold: panic, Aggregate: of})
	}
	inner := list("inner", nil, "one", "two")
	outer := list("outer", nil, "inner", "two")
	see := func(what, want string) {
		t.Helper()
		if got := []string{pickedFrom(inner), pickedFrom(outer)}; got[0] != want || got[1] != want {
			t.Errorf("%s: %q, want %s", what, got, want)
		}
	}
	see("before", "one")
	list("inner", nil, "two", "one")
	see("another order", "two")
	list("inner", nil, "one")
	see("another list", "one")
	mustUpdate(t, m, &Config{Name: "one", Type: Aggregate, Aggregate: []string{"two"}})
	see("a cluster became an aggregate", "two")
	mustUpdate(t, m, &Config{Name: "one", PanicThreshold: &none, Endpoints: hosts("one", "10.0.0.1")})
	see("and is none again", "one")

	// One of four hosts and one of eight are healthy. In panic the number of hosts decides.
	down := func(name string, n int) {
		at := []string{"10.0.0.1"}
		for i := range n {
			at = append(at, fmt.Sprintf("10.0.1.%d unhealthy", i))
		}
		mustUpdate(t, m, &Config{Name: name, PanicThreshold: &none, Endpoints: hosts(name, at...)})
	}
	down("few", 3)
	down("many", 7)
	share := func() (few int) {
		for range 1000 {
			if pickedFrom(inner) == "few" {
				few++
			}
		}
		return few
	}
	list("inner", &none, "few", "many")
	if n := share(); n < 600 {
		t.Errorf("without panic the first gets %d of 1000", n)
	}
	half := 50.0
	list("inner", &half, "few", "many")
	if n := share(); n > 400 {
		t.Errorf("in panic the first gets %d of 1000", n)
	}
}

// TestAggregatesThatListEachOther: each is visited once, however many there are.
func TestAggregatesThatListEachOther(t *testing.T) {
	m := newManager(t, Options{})
	var names []string
	for i := range 200 {
		names = append(names, fmt.Sprint("aggregate-", i))
	}
	for _, name := range names {
		mustUpdate(t, m, &Config{Name: name, Type: Aggregate, Aggregate: append([]string{"last"}, names...)})
	}
	mustUpdate(t, m, &Config{Name: "last", Endpoints: hosts("last", "10.0.0.1")})
	began := cpuTime(t)
	if got := pickedFrom(m.Get(names[0])); got != "last" {
		t.Errorf("picked of %q", got)
	}
	if took := cpuTime(t) - began; took > time.Second {
		t.Errorf("one choice took %v", took)
	}
}
