package cluster

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestRetryBudgetInterval: with an interval a budget is a share of the requests that began in
// it, whether they go on or not.
func TestRetryBudgetInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewManager(Options{})
		defer m.Close()
		limits := Limits{RetryBudget: &RetryBudget{Percent: 25, Interval: time.Second}}
		c := mustUpdate(t, m, &Config{Name: "c", Limits: limits})
		b, l := c.breakerOf(DefaultPriority)
		begin := func(n int) {
			for range n {
				if !c.StartRequest(0) {
					t.Fatal("refused")
				}
			}
		}
		expect := func(when string, want int64) {
			t.Helper()
			if got := b.mostRetries(l, 0); got != want {
				t.Errorf("%s: %d retries, not %d", when, got, want)
			}
		}
		begin(8)
		for range 8 {
			c.EndRequest()
		}
		expect("after they ended", 2)
		time.Sleep(500 * time.Millisecond)
		begin(4)
		expect("with further ones", 3)
		time.Sleep(399 * time.Millisecond)
		expect("just before the first are too old", 3)
		time.Sleep(101 * time.Millisecond)
		expect("when the first are too old", 1)
		mustUpdate(t, m, &Config{Name: "c", Limits: limits, ConnectTimeout: time.Second})
		_, l = c.breakerOf(DefaultPriority)
		expect("after another change", 1)
		time.Sleep(500 * time.Millisecond)
		expect("of requests that only go on", 0)
		time.Sleep(time.Hour)
		expect("long after", 0)

		mustUpdate(t, m, &Config{Name: "c", Limits: Limits{RetryBudget: &RetryBudget{Percent: 25}}})
		_, l = c.breakerOf(DefaultPriority)
		expect("without an interval, of those that go on", 1)
		mustUpdate(t, m, &Config{Name: "c", HighLimits: &limits})
		_, l = c.breakerOf(HighPriority)
		b = &c.high
		for range 4 {
			c.StartRequestAt(HighPriority, 0)
		}
		expect("of the high priority", 1)
	})
}

func TestRecentTogether(t *testing.T) {
	r := newRecent(time.Second)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				r.began(12345)
			}
		})
	}
	wg.Wait()
	if n := r.count(12345); n != 8000 {
		t.Errorf("%d of 8000", n)
	}
	r.slots[0].Store(countMask)
	r.began(1)
	if n := r.count(1); n != countMask {
		t.Errorf("a full slot has %d", n)
	}
}
