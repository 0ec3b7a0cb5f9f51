package cluster

import (
	"fmt"
	"testing"
)

// TestDropping: a share of the requests is dropped, no more than the limit allows.
func TestDropping(t *testing.T) {
	limit := func(n uint32) *uint32 { return &n }
	for _, tc := range []struct {
		share uint32
		limit *uint32
		want  float64
		all   bool
	}{
		{share: 0, want: -1},
		{share: 300_000, want: 0.3},
		{share: million, want: 1, all: true},
		{share: million - 1, want: 1},
		{share: million, limit: limit(100), want: 1, all: true},
		{share: million, limit: limit(40), want: 0.4},
		{share: 200_000, limit: limit(40), want: 0.2},
		{share: million, limit: limit(0), want: -1},
	} {
		t.Run(fmt.Sprint(tc.share, tc.want), func(t *testing.T) {
			m := newManager(t, Options{MostDropped: tc.limit})
			a := hosts("c", "10.0.0.1")
			a.DropPerMillion = tc.share
			d := mustUpdate(t, m, &Config{Name: "c", Endpoints: a}).Dropping()
			if tc.want < 0 {
				if d != nil {
					t.Error("some are dropped")
				}
				return
			}
			const n = 10_000
			dropped := 0
			for range n {
				if d.Drops(0) {
					dropped++
				}
			}
			if got := float64(dropped) / n; got < tc.want-0.03 || got > tc.want+0.03 || d.All() != tc.all {
				t.Errorf("%v were dropped, all %v", got, d.All())
			}
			if got := d.counter.Value(); got != uint64(dropped) {
				t.Errorf("%v counted of %v", got, dropped)
			}
		})
	}
}

// TestDroppingComesAndGoes: it is the assignment's in force, also where the hosts stay; an
// aggregate has none.
func TestDroppingComesAndGoes(t *testing.T) {
	m := newManager(t, Options{})
	c := mustUpdate(t, m, &Config{Name: "c", Type: EDS})
	aggregate := mustUpdate(t, m, &Config{Name: "all", Type: Aggregate, Aggregate: []string{"c"}})
	for _, share := range []uint32{0, million, 0} {
		a := hosts("c", "10.0.0.1")
		a.DropPerMillion = share
		set(t, m, a)
		if got := c.Dropping() != nil; got != (share > 0) {
			t.Errorf("with a share of %d some are dropped: %v", share, got)
		}
		if aggregate.Dropping() != nil {
			t.Error("the aggregate drops")
		}
	}
}
