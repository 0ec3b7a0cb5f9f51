package cluster

import "github.com/hauberk-mesh/hauberk/sidecar/panics"

// AwaitsChecks tells whether the cluster is new and its hosts are still to be checked for the
// first time. Of such hosts nothing is known: a listener that is new does not lead to them, as
// in Envoy. Those in force do, where the cluster may panic: a request that a host may answer is
// not refused, as it is in Envoy, which has no such cluster until then.
func (c *Cluster) AwaitsChecks() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.awaitsChecks()
}

// awaitsChecks is AwaitsChecks. As many results as there are hosts are awaited, as in Envoy,
// whosever they are: one host that is long silent keeps a cluster from no other. c.mu is held.
func (c *Cluster) awaitsChecks() bool {
	if !c.unproven {
		return false
	}
	due := 0
	for _, h := range c.order {
		if h.check.state.Load()&checked != 0 || h.check.state.Load()&checkPending != 0 {
			due++
		}
	}
	return c.results < due
}

// resulted counts a result while the first ones are awaited. c.mu is held.
func (c *Cluster) resulted() {
	if !c.unproven {
		return
	}
	if c.results++; !c.awaitsChecks() {
		c.healthChanged()
	}
}

// prove ends the wait for first checks, for good. c.mu is held.
func (c *Cluster) prove() {
	c.unproven = false
	if c.m.opts.Proven != nil && !c.removed {
		c.m.wg.Go(func() {
			defer panics.Contain(panics.Housekeeper, nil, nil)
			c.m.opts.Proven()
		})
	}
}
