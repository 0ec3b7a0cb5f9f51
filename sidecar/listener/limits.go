package listener

import (
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// connectionLimit counts the connections of a filter chain.
type connectionLimit struct {
	cfg  *ConnectionLimit
	open atomic.Int64
}

// excess is why a connection gets no place in its chain's limits, and when it is closed.
type excess struct {
	reason string // empty where it got one
	delay  time.Duration
}

// note has a record tell.
func (e excess) note(r *telemetry.Record) {
	if e.reason == "rate_limit" {
		r.Flags |= telemetry.FlagRateLimited
	}
	r.ConnectionTermination = e.reason
}

// enter takes a place in every limit of the chain, or in none.
func (c *chain) enter() excess {
	for i, l := range c.limits {
		if l.open.Add(1) > l.cfg.Max {
			for _, undo := range c.limits[:i+1] {
				undo.open.Add(-1)
			}
			return excess{reason: "connection_limit", delay: l.cfg.Delay}
		}
	}
	for _, r := range c.rates {
		if !r.Take() {
			c.leave()
			return excess{reason: "rate_limit"}
		}
	}
	return excess{}
}

// leave gives the places back that enter took.
func (c *chain) leave() {
	for _, l := range c.limits {
		l.open.Add(-1)
	}
}
