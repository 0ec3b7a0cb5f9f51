package cluster

import (
	"math"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// makePool refuses a pool that would be one more than its priority may have in the cluster, which
// a pool without a connection is that is to have its first. Idle ones of its own host make room for
// it; those of others do not, as in Envoy.
func (p *pool) makePool(limits *Limits, s telemetry.Shard) error {
	if limits.MaxPools == 0 || !p.empty() {
		return nil
	}
	c := p.host.cluster
	for range looks {
		if !exceeds(c.busyPools(p.priority)+1, limits.MaxPools) {
			return nil
		}
		left := looks
		p.host.mu.Lock()
		idle := p.host.particular.oldest(math.MaxInt64, &left, &p.priority)
		p.host.mu.Unlock()
		if idle == nil {
			break
		}
		idle.end()
	}
	if c.metrics != nil {
		c.metrics.Use().OverflowPools.Inc(s)
	}
	return &Error{Kind: OverflowPools, Cluster: c.name, Host: p.host.key}
}

// busyPools counts the pools of a priority that have a connection, or are to have one.
func (c *Cluster) busyPools(of Priority) (n int64) {
	c.some(func(h *Host) bool {
		for _, p := range h.everyPool() {
			if p.priority == of && !p.empty() {
				n++
			}
		}
		return true
	})
	return n
}
