package downstream

import (
	"sync"
	"testing"
)

// TestKept: a thing stays while its place is of one version, and goes with that.
func TestKept(t *testing.T) {
	c := New(Facts{}, nil)
	made := 0
	kept := func(version *int, key string) int {
		return *c.Kept(version, true, key, func() any { made++; n := made; return &n }).(*int)
	}
	outdated := func(version *int, key string) int {
		return *c.Kept(version, false, key, func() any { made++; n := made; return &n }).(*int)
	}
	chain, newer := new(int), new(int)
	for _, step := range []struct {
		what      string
		got, want int
	}{
		{"made", kept(chain, "a"), 1},
		{"another key", kept(chain, "b"), 2},
		{"kept", kept(chain, "a"), 1},
		{"another chain", kept(newer, "a"), 3},
		{"what was of the first is forgotten", kept(chain, "a"), 4},
		{"an exchange of an older one has its own", outdated(newer, "a"), 5},
		{"and takes nothing from the others", kept(chain, "a"), 4},
		{"an older one of the same has what is kept", outdated(chain, "a"), 4},
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
		wg.Go(func() { got[i] = c.Kept(version, true, "a", func() any { return new(int) }) })
	}
	wg.Wait()
	for _, v := range got {
		if v != got[0] {
			t.Fatal("there are two")
		}
	}
}
