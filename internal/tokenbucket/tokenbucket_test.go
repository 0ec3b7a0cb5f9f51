package tokenbucket

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestFillsSteadily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Spec{Max: 3, PerFill: 2, Interval: time.Second})
		for _, step := range []struct {
			wait time.Duration
			want int
		}{{0, 3}, {450 * time.Millisecond, 0}, {50 * time.Millisecond, 1}, {time.Second, 2}, {10 * time.Second, 3}} {
			time.Sleep(step.wait)
			n := 0
			for b.Take() {
				n++
			}
			if n != step.want {
				t.Errorf("after %v more: %d tokens, want %d", step.wait, n, step.want)
			}
		}
		time.Sleep(250 * time.Millisecond)
		if tokens, next := b.Left(); tokens < 0.49 || tokens > 0.51 || next < 240*time.Millisecond || next > 260*time.Millisecond {
			t.Errorf("%v tokens, the next in %v", tokens, next)
		}
	})
}

// Several tokens are taken together, or none.
func TestTakesSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Spec{Max: 5, PerFill: 1, Interval: time.Second})
		for i, step := range []struct {
			n    float64
			want bool
		}{{3, true}, {3, false}, {2, true}, {1, false}, {0, true}, {6, false}} {
			if got := b.TakeSome(step.n); got != step.want {
				t.Errorf("%d: %v tokens: %v", i, step.n, got)
			}
		}
	})
}

// What is given back can be taken again, but no more than the bucket holds.
func TestGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Spec{Max: 3, PerFill: 1, Interval: time.Hour})
		b.Give(5)
		if tokens, _ := b.Left(); tokens > 3.01 || !b.TakeSome(3) || b.Take() {
			t.Errorf("%v tokens of 3", tokens)
		}
		b.Give(2)
		if !b.TakeSome(2) || b.Take() {
			t.Error("not two tokens")
		}
	})
}

// A bucket gives as much after a year as on its first day.
func TestOldClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := clockBase
		defer func() { clockBase = base }()
		clockBase = time.Now().Add(-365 * 24 * time.Hour)
		for perFill := uint32(1); perFill < 2000; perFill++ {
			b := New(Spec{Max: perFill, PerFill: perFill, Interval: time.Second})
			for _, wait := range []time.Duration{0, 1001 * time.Millisecond} {
				time.Sleep(wait)
				var n uint32
				for b.Take() {
					n++
				}
				if n != perFill {
					t.Fatalf("%d tokens of %d", n, perFill)
				}
			}
		}
	})
}

// Tokens are neither lost nor made by takers that race.
func TestRace(t *testing.T) {
	b := New(Spec{Max: 1000, PerFill: 1, Interval: time.Hour})
	var taken atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				if b.Take() {
					taken.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if taken.Load() != 1000 {
		t.Errorf("%d tokens were taken of 1000", taken.Load())
	}
}
