package cluster

import (
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// PickContext is what the choice of a host depends on besides the cluster. The
// zero value is valid, and so is nil: each field adds something.
type PickContext struct {
	// Hash, if HasHash, is what hash policies place the request by; without one
	// they choose at random.
	Hash    uint64
	HasHash bool
	// Metadata chooses a subset.
	Metadata *MetadataMatch
	// Avoid are hosts that were tried; they are chosen only when there is no other.
	Avoid []*Host
	// Destination is where the client meant to connect to, where a firewall
	// redirected it; otherwise invalid. It is for OriginalDestination.
	Destination netip.AddrPort
	// Request is for the header that may name the destination; nil for a byte
	// stream.
	Request *message.Request
}

// Pick is PickFor with nothing but hosts to avoid.
func (c *Cluster) Pick(avoid []*Host) (*Host, error) {
	return c.PickFor(&PickContext{Avoid: avoid})
}

// PickFor chooses a host. An aggregate cluster chooses among the levels of all its
// clusters; the host's Cluster is the one whose limits and counters apply. It does
// not allocate.
func (c *Cluster) PickFor(pc *PickContext) (*Host, error) {
	h := c.once(pc, 0)
	if h != nil && pc != nil && len(pc.Avoid) > 0 && slices.Contains(pc.Avoid, h) {
		h = c.another(pc, h)
	}
	if h != nil {
		return h, nil
	}
	if c.metrics != nil {
		c.metrics.Use().NoHealthy.Inc(0)
	}
	return nil, &Error{Kind: NoHealthyHost, Cluster: c.name}
}

// another looks for a host that was not tried. Chance, or the next place of the
// hash, gives a fair one in most cases; a scan finds the last one that is left. A
// request with metadata criteria stays within them.
func (c *Cluster) another(pc *PickContext, tried *Host) *Host {
	for attempt := 1; attempt <= 5; attempt++ {
		if h := c.once(pc, attempt); h != nil && !slices.Contains(pc.Avoid, h) {
			return h
		}
	}
	if h := c.scan(pc); h != nil {
		return h
	}
	return tried
}

func (c *Cluster) scan(pc *PickContext) *Host {
	s := c.cfg.Load()
	switch {
	case s.Type == OriginalDestination || s.Subsets != nil:
		return nil
	case s.Type != Aggregate:
		return c.set.Load().whole.scan(s, pc.Avoid)
	}
	for _, child := range c.aggregated(s).clusters {
		if h := child.scan(pc); h != nil {
			return h
		}
	}
	return nil
}

// once makes one choice.
func (c *Cluster) once(pc *PickContext, attempt int) *Host {
	s := c.cfg.Load()
	switch s.Type {
	case OriginalDestination:
		return c.destinations.pick(s, pc)
	case Aggregate:
		return c.pickAggregate(s, pc, attempt)
	}
	return c.set.Load().choose(s, pc, pick{attempt: attempt, level: -1})
}

func (set *endpointSet) choose(s *settings, pc *PickContext, p pick) *Host {
	switch {
	case s.hashes() && pc != nil && pc.HasHash:
		p.hash = pc.Hash
	case s.hashes() || set.subsets != nil || set.whole.loads.healthy != nil:
		p.hash = rand.Uint64()
	}
	if set.subsets != nil {
		return set.subsets.pick(s, pc, p)
	}
	return set.whole.choose(s, p)
}
