package cluster

import (
	"math/rand/v2"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// million is what the share of dropped requests is measured in.
const million = 1_000_000

// Dropping is what is not sent to the hosts of a cluster because it has an overload
// (drop_overloads). Immutable.
type Dropping struct {
	share   uint32 // of a million
	counter *telemetry.Counter
}

// Dropping is what of the cluster's requests is dropped, nil for nothing. An aggregate drops
// nothing, whatever the clusters that it lists do, and streams of bytes are not dropped, as in
// Envoy.
func (c *Cluster) Dropping() *Dropping { return c.set.Load().drop }

// All tells whether no request is sent.
func (d *Dropping) All() bool { return d.share >= million }

// Drops decides over a request, and counts it.
func (d *Dropping) Drops(s telemetry.Shard) bool {
	if rand.Uint32N(million) >= d.share {
		return false
	}
	if d.counter != nil {
		d.counter.Inc(s)
	}
	return true
}

// newDropping is what the assignment says of it, within the manager's limit. c.mu is held.
func (c *Cluster) newDropping() *Dropping {
	if c.assignment == nil {
		return nil
	}
	share := c.assignment.DropPerMillion
	if most := c.m.opts.MostDropped; most != nil {
		share = min(share, *most*(million/100))
	}
	if share == 0 {
		return nil
	}
	return &Dropping{share: share, counter: c.metrics.Dropped()}
}
