package main

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestScheduleHasARequest: the slowest contender may answer so seldom that half of its rate
// is less than one request in the time of the open loop, which measures all the same.
func TestScheduleHasARequest(t *testing.T) {
	for _, c := range []struct {
		rate float64
		want int
	}{{7, 1}, {10, 1}, {25, 2}} {
		s, got := newSchedule(c.rate, 100*time.Millisecond), 0
		for _, more := s.next(); more; _, more = s.next() {
			got++
		}
		if got != c.want {
			t.Errorf("%g a second for 100 ms: %d requests, want %d", c.rate, got, c.want)
		}
	}
}

// slowLane takes its time, and tells how many exchanges are under way.
type slowLane struct{ underWay *atomic.Int64 }

func (l slowLane) dial(target) (lane, error) { return l, nil }
func (l slowLane) Close() error              { return nil }
func (l slowLane) exchange() error {
	l.underWay.Add(1)
	defer l.underWay.Add(-1)
	time.Sleep(400 * time.Millisecond)
	return nil
}

// TestMeasuredExchangesAreWhole: the clocks are read when nothing is under way, and the rate
// is of the time that all of what counts took.
func TestMeasuredExchangesAreWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := slowLane{new(atomic.Int64)}
		measured := 0
		r, err := closedLanes(l, target{}, 3, time.Second, time.Second, func(bool) {
			if n := l.underWay.Load(); n != 0 {
				t.Errorf("%d exchanges are under way", n)
			}
			measured++
		})
		if err != nil || measured != 2 || r.done != 9 || r.took != 1200*time.Millisecond {
			t.Errorf("%+v, %v, measured %d times", r, err, measured)
		}
	})
}
