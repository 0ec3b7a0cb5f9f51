package listener

import (
	"sync"
	"sync/atomic"
	"time"
)

// connectionLimit counts the connections of a filter chain.
type connectionLimit struct {
	cfg  *ConnectionLimit
	open atomic.Int64
}

// rateLimit is a token bucket.
type rateLimit struct {
	cfg    *RateLimit
	mu     sync.Mutex
	tokens uint32
	filled time.Time
}

func newRateLimit(cfg *RateLimit, now time.Time) *rateLimit {
	return &rateLimit{cfg: cfg, tokens: cfg.Max, filled: now}
}

// take takes a token. The bucket is filled by whole intervals, as Envoy's is.
func (r *rateLimit) take(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := now.Sub(r.filled) / r.cfg.Interval; n > 0 {
		r.filled = r.filled.Add(n * r.cfg.Interval)
		r.tokens = uint32(min(uint64(r.cfg.Max), uint64(r.tokens)+uint64(n)*uint64(r.cfg.Fill)))
	}
	if r.tokens == 0 {
		return false
	}
	r.tokens--
	return true
}

// place is what a connection holds of its chain's limits, or why it got none.
type place struct {
	held   []*connectionLimit
	reason string
	delay  time.Duration
}

// enter takes a place in every limit of the chain, or in none.
func (c *chain) enter() (place, bool) {
	if len(c.limits) == 0 && len(c.rates) == 0 {
		return place{}, true
	}
	for i, l := range c.limits {
		if l.open.Add(1) > l.cfg.Max {
			for _, undo := range c.limits[:i+1] {
				undo.open.Add(-1)
			}
			return place{reason: "connection_limit", delay: l.cfg.Delay}, false
		}
	}
	for _, r := range c.rates {
		if !r.take(time.Now()) {
			place{held: c.limits}.leave()
			return place{reason: "rate_limit"}, false
		}
	}
	return place{held: c.limits}, true
}

func (p place) leave() {
	for _, l := range p.held {
		l.open.Add(-1)
	}
}
