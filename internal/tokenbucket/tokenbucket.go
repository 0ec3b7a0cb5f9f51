// Package tokenbucket bounds how often something happens.
package tokenbucket

import (
	"math"
	"sync/atomic"
	"time"
)

// Spec is a bucket that starts full and fills steadily, by PerFill tokens in each
// Interval. PerFill and Interval are above zero; with Max 0 it never has a token.
type Spec struct {
	Max, PerFill uint32
	Interval     time.Duration
}

// Bucket is one bucket, safe for concurrent use. Its one variable is when it would
// have been empty had nothing been taken since: tokens are the time since then.
type Bucket struct {
	size, rate float64       // tokens, and tokens a second
	empty      atomic.Uint64 // float64 bits of a clock reading
}

// New returns a full bucket.
func New(s Spec) *Bucket {
	b := &Bucket{size: float64(s.Max), rate: float64(s.PerFill) / s.Interval.Seconds()}
	b.empty.Store(math.Float64bits(clock() - b.size/b.rate))
	return b
}

// Take takes a token if there is one.
func (b *Bucket) Take() bool { return b.TakeSome(1) }

// TakeSome takes n tokens if there are so many.
func (b *Bucket) TakeSome(n float64) bool {
	if b.size == 0 {
		return false
	}
	for {
		old := b.empty.Load()
		now := clock()
		at := max(math.Float64frombits(old), now-b.size/b.rate) + n/b.rate
		// Rounding errors, half of the last digit for each token, must not cost one.
		if at > now+1e-9+(b.size+4)*math.Abs(now)*0x1p-53 {
			return false
		}
		if b.empty.CompareAndSwap(old, math.Float64bits(at)) {
			return true
		}
	}
}

// Give gives n tokens back, as far as there is room for them.
func (b *Bucket) Give(n float64) {
	for {
		old := b.empty.Load()
		full := clock() - b.size/b.rate
		at := max(math.Float64frombits(old)-n/b.rate, full)
		if b.empty.CompareAndSwap(old, math.Float64bits(at)) {
			return
		}
	}
}

// Left is how many tokens there are, and how long until there is one.
func (b *Bucket) Left() (tokens float64, next time.Duration) {
	tokens = min((clock()-math.Float64frombits(b.empty.Load()))*b.rate, b.size)
	if tokens < 1 {
		next = time.Duration((1 - tokens) / b.rate * float64(time.Second))
	}
	return max(tokens, 0), next
}

var clockBase = time.Now()

// clock is the time in seconds since some moment, monotonic.
func clock() float64 { return time.Since(clockBase).Seconds() }
