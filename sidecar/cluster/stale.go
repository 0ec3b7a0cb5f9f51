package cluster

import (
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// staleAt is when the endpoints are stale, unless another assignment comes; ok is false where
// they never are.
func (a *Assignment) staleAt() (at int64, ok bool) {
	if a == nil || a.StaleAfter <= 0 {
		return 0, false
	}
	return a.arrived + int64(a.StaleAfter), true
}

// arrives notes that the assignment is there: from now on it ages, whichever cluster it is for
// and however often that changes.
func (a *Assignment) arrives() {
	if a != nil && a.StaleAfter > 0 {
		a.arrived = monotonic()
	}
}

// unlessStale is the assignment, or once it is stale what Envoy has in its place: one that says
// nothing, neither of endpoints nor of requests to be dropped.
func (a *Assignment) unlessStale() *Assignment {
	if at, ok := a.staleAt(); ok && at <= monotonic() {
		return &Assignment{Cluster: a.Cluster}
	}
	return a
}

// awaitUpdate has the endpoints of the assignment in force go when it is stale. The timer of
// the one before ends: that another assignment came is the update, also where it says the same.
// c.mu is held.
func (c *Cluster) awaitUpdate() {
	a := c.assignment
	at, ok := a.staleAt()
	if !ok || c.cfg.Load().Type != EDS {
		a = nil
	}
	if a == c.ageing.of {
		return
	}
	if c.ageing.timer != nil {
		c.ageing.timer.Stop()
	}
	if c.ageing = (ageing{of: a}); a == nil {
		return
	}
	c.metrics.AssignmentAges()
	c.ageing.timer = time.AfterFunc(time.Duration(at-monotonic()), func() {
		defer panics.Contain(panics.Housekeeper, nil, nil)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.ageing.of == a {
			c.goStale()
		}
	})
}

// ageing is an assignment that goes stale, and the timer of that; nil for none.
type ageing struct {
	of    *Assignment
	timer *time.Timer
}

// goStale takes the endpoints out of force. Hosts that outlive their assignment do so here too,
// as in Envoy. c.mu is held.
func (c *Cluster) goStale() {
	after := c.ageing.of.StaleAfter
	c.metrics.AssignmentStale()
	if err := c.change(func() { c.replace(&Assignment{Cluster: c.assignment.Cluster}) }); err != nil {
		c.m.log.Error("stale endpoints stay in use", "cluster", c.name, "err", err)
		return
	}
	c.m.log.Warn("endpoints are stale and in use no longer: no update came in time", "cluster", c.name, "endpoint_stale_after", after)
}
