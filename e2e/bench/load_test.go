package main

import (
	"testing"
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
