package ratelimit

import (
	"math"
	"sync/atomic"
	"time"
)

// clock is the time in seconds since some moment, monotonic.
var clockBase = time.Now()

func clock() float64 { return time.Since(clockBase).Seconds() }

// bucket is a token bucket that fills steadily. Its one variable is when it would
// have been empty had nothing been taken since: tokens are the time since then.
type bucket struct {
	size, rate float64       // tokens, and tokens a second
	empty      atomic.Uint64 // float64 bits of a clock reading
}

func newBucket(c *Bucket) *bucket {
	b := &bucket{size: float64(c.Max), rate: float64(c.PerFill) / c.Interval.Seconds()}
	b.empty.Store(math.Float64bits(clock() - b.size/b.rate))
	return b
}

// take takes a token if there is one.
func (b *bucket) take() bool {
	for {
		old := b.empty.Load()
		now := clock()
		at := max(math.Float64frombits(old), now-b.size/b.rate) + 1/b.rate
		// A rounding error must not cost the last token.
		if at > now+1e-9 {
			return false
		}
		if b.empty.CompareAndSwap(old, math.Float64bits(at)) {
			return true
		}
	}
}

// left is how many tokens there are, and how long until there is one.
func (b *bucket) left() (tokens float64, next time.Duration) {
	tokens = min((clock()-math.Float64frombits(b.empty.Load()))*b.rate, b.size)
	if tokens < 1 {
		next = time.Duration((1 - tokens) / b.rate * float64(time.Second))
	}
	return max(tokens, 0), next
}
