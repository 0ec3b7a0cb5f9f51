package listener

import (
	"sync/atomic"
	"time"
)

// connectionLimit counts the connections of a filter chain.
type connectionLimit struct {
	cfg  *ConnectionLimit
	open atomic.Int64
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
		if !r.Take() {
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
