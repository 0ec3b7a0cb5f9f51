package cluster

import (
	"sync/atomic"
	"time"
)

// recentSlots is how finely the age of requests is told: one counts for 0.9 to 1 times the
// interval, as in Envoy.
const recentSlots = 10

// recent counts the requests that began in the last interval. It may be used by several goroutines at once.
type recent struct {
	slot  int64 // ns
	slots [recentSlots]atomic.Uint64
}

// A slot has the number of requests below and the turn that they came in above: a turn has passed
// before its number comes again, after a year of the shortest slots.
const (
	turnShift = 24
	countMask = 1<<turnShift - 1
)

// newRecent is nil for an interval of less than a millisecond, which is none, as in Envoy.
func newRecent(interval time.Duration) *recent {
	if interval < time.Millisecond {
		return nil
	}
	return &recent{slot: int64(interval) / recentSlots}
}

// over is the interval, 0 of nil.
func (r *recent) over() time.Duration {
	if r == nil {
		return 0
	}
	return time.Duration(r.slot * recentSlots)
}

// began counts a request.
func (r *recent) began(now int64) {
	turn := uint64(now / r.slot)
	s, turn := &r.slots[turn%recentSlots], turn<<turnShift
	for {
		was := s.Load()
		next := turn | 1
		if was&^countMask == turn {
			if next = was + 1; next&countMask == 0 {
				return // it is as many as it can say
			}
		}
		if s.CompareAndSwap(was, next) {
			return
		}
	}
}

// count is how many began in the interval that ends now.
func (r *recent) count(now int64) (n int64) {
	turn := uint64(now / r.slot)
	for i := range uint64(recentSlots) {
		at := turn - i
		if v := r.slots[at%recentSlots].Load(); v&^countMask == at<<turnShift {
			n += int64(v & countMask)
		}
	}
	return n
}

// remember has b count the requests of budget's interval, for as long as that is the same.
func (b *breaker) remember(limits *Limits) {
	var want *recent
	if limits != nil && limits.RetryBudget != nil {
		want = newRecent(limits.RetryBudget.Interval)
	}
	if b.recent.Load().over() != want.over() {
		b.recent.Store(want)
	}
}
