package cluster

import "github.com/hauberk-mesh/hauberk/sidecar/panics"

// AwaitsChecks tells whether the cluster is new and its hosts are still to be checked for the
// first time, or to be known: as in Envoy the first answer for any of its names, or its failure,
// is enough. Of such hosts nothing is known: a listener that is new does not lead to them, as
// in Envoy. Those in force do, where the cluster may panic: a request that a host may answer is
// not refused, as it is in Envoy, which has no such cluster until then.
func (c *Cluster) AwaitsChecks() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.awaitsChecks()
}

// awaitsChecks is AwaitsChecks. As many results as there are hosts are awaited, as in Envoy,
// whosever they are: one host that is long silent keeps a cluster from no other. What was found of
// hosts that have gone tells nothing of those that are there. c.mu is held.
func (c *Cluster) awaitsChecks() bool {
	if !c.unproven {
		return false
	}
	if len(c.unanswered) > 0 || c.nameless {
		return true // their hosts are not there yet
	}
	due, results := 0, uint64(0)
	for _, h := range c.order {
		if h.check.removed || h.check.state.Load()&(checked|checkPending) == 0 {
			continue
		}
		due++
		if h.check.history != nil {
			results += h.check.history.attempts
		}
	}
	return results < uint64(due)
}

// resulted goes on where a result was the last one that was awaited. c.mu is held.
func (c *Cluster) resulted() {
	if c.unproven && !c.awaitsChecks() {
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
