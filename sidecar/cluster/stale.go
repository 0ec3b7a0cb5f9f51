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
	next := ageing{of: c.assignment}
	var ok bool
	if next.at, ok = next.of.staleAt(); !ok || c.cfg.Load().Type != EDS {
		next = ageing{}
	}
	if next.of == c.ageing.of && next.at == c.ageing.at {
		return
	}
	c.ageNoMore()
	if next.of != nil {
		c.ageing = next
		c.metrics.AssignmentAges()
		c.staleIn(time.Duration(next.at - monotonic()))
	}
}

// ageing is an assignment that goes stale, when, and the timer of that; nil for none.
type ageing struct {
	of    *Assignment
	at    int64
	timer *time.Timer
}

// ageNoMore has nothing go stale. c.mu is held.
func (c *Cluster) ageNoMore() {
	if c.ageing.timer != nil {
		c.ageing.timer.Stop()
	}
	c.ageing = ageing{}
}

func (c *Cluster) staleIn(d time.Duration) {
	of, at := c.ageing.of, c.ageing.at
	c.ageing.timer = time.AfterFunc(d, func() {
		defer panics.Contain(panics.Housekeeper, nil, nil)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.ageing.of == of && c.ageing.at == at {
			c.goStale()
		}
	})
}

// goStale takes the endpoints out of force. Hosts that outlive their assignment do so here too,
// as in Envoy. c.mu is held.
func (c *Cluster) goStale() {
	a := c.ageing.of
	err := c.change(func() { c.replace(&Assignment{Cluster: a.Cluster}) })
	if err != nil && c.ageing.of == a { // else what was restored is stale, and gone
		c.m.log.Error("stale endpoints stay in use for now", "cluster", c.name, "err", err)
		c.staleIn(time.Second)
		return
	}
	c.metrics.AssignmentStale()
	c.m.log.Warn("endpoints are stale and in use no longer: no update came in time", "cluster", c.name, "endpoint_stale_after", a.StaleAfter)
}
