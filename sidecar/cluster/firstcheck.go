package cluster

import "slices"

// AwaitsChecks tells whether the cluster is new and some of its hosts were not checked yet.
// Nobody is served before: of such hosts nothing is known, and panic would send them
// requests. Envoy has no such cluster in force until then.
func (c *Cluster) AwaitsChecks() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unproven && c.uncheckedHosts()
}

// uncheckedHosts tells whether there are any whose first check is not through. c.mu is held.
func (c *Cluster) uncheckedHosts() bool {
	return slices.ContainsFunc(c.order, func(h *Host) bool { return h.check.state.Load()&checkPending != 0 })
}

// prove ends the wait for first checks, for good. c.mu is held.
func (c *Cluster) prove() {
	c.unproven = false
	if c.m.opts.Proven != nil && !c.removed {
		c.m.wg.Go(c.m.opts.Proven)
	}
}
