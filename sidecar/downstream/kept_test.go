package downstream

import (
	"sync"
	"testing"
)

// TestKept: a thing stays while its place is of one version, and goes with that.
func TestKept(t *testing.T) {
	c := New(Facts{}, nil)
	made := 0
	kept := func(from From, version *int, key string) int {
		return *c.Kept(from, version, true, key, func() any { made++; n := made; return &n }).(*int)
	}
	outdated := func(from From, version *int, key string) int {
		return *c.Kept(from, version, false, key, func() any { made++; n := made; return &n }).(*int)
	}
	chain, routes, newer := new(int), new(int), new(int)
	for _, step := range []struct {
		what      string
		got, want int
	}{
		{"made", kept(FromChain, chain, "a"), 1},
		{"another key", kept(FromChain, chain, "b"), 2},
		{"of the routes", kept(FromRoutes, routes, "a"), 3},
		{"kept", kept(FromChain, chain, "a"), 1},
		{"kept with the routes", kept(FromRoutes, routes, "a"), 3},
		{"other routes", kept(FromRoutes, newer, "a"), 4},
		{"the chain is the same", kept(FromChain, chain, "b"), 2},
		{"what was of the first routes is forgotten", kept(FromRoutes, routes, "a"), 5},
		{"the first routes are in force again", kept(FromRoutes, routes, "a"), 5},
		{"an exchange of older routes has its own", outdated(FromRoutes, newer, "a"), 6},
		{"and takes nothing from the others", kept(FromRoutes, routes, "a"), 5},
		{"an older one of the same has what is kept", outdated(FromRoutes, routes, "a"), 5},
	} {
		if step.got != step.want {
			t.Errorf("%s: %d, want %d", step.what, step.got, step.want)
		}
	}
}

// TestKeptAtOnce: exchanges that come together have the same thing.
func TestKeptAtOnce(t *testing.T) {
	c, version := New(Facts{}, nil), new(int)
	var got [8]any
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() { got[i] = c.Kept(FromChain, version, true, "a", func() any { return new(int) }) })
	}
	wg.Wait()
	for _, v := range got {
		if v != got[0] {
			t.Fatal("there are two")
		}
	}
}
