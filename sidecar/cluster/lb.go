package cluster

import (
	"math/rand/v2"
	"slices"
)

// group is the hosts that one choice is made from.
type group struct {
	hosts []*Host
	// strides are the weights scaled to maxStride; nil when all are equal.
	strides []uint32
	// reach are the running sums of the weights; nil when all are equal.
	reach []uint64
}

const maxStride = 1 << 16

func newGroup(hosts []*Host) group {
	g := group{hosts: hosts}
	var most, sum uint64
	equal := true
	for _, h := range hosts {
		w := uint64(h.Weight())
		most = max(most, w)
		equal = equal && w == uint64(hosts[0].Weight())
	}
	if equal {
		return g
	}
	for _, h := range hosts {
		w := uint64(h.Weight())
		sum += w
		g.reach = append(g.reach, sum)
		g.strides = append(g.strides, uint32(max(1, w*maxStride/most)))
	}
	return g
}

// next is weighted round robin without a lock: in each round a host is passed over
// as often as its weight is below the greatest, and the rounds of different hosts
// are shifted so that a round's picks do not come in a block.
func (g *group) next(c *Cluster) *Host {
	n := uint64(len(g.hosts))
	if g.strides == nil {
		return g.hosts[(c.rr.Add(1)-1)%n]
	}
	for {
		seq := c.rr.Add(1) - 1
		i, round := seq%n, seq/n
		w := uint64(g.strides[i])
		if (w*round+i*maxStride/2)%maxStride < maxStride-w {
			continue
		}
		return g.hosts[i]
	}
}

func (g *group) random() *Host {
	if g.reach == nil {
		return g.hosts[rand.IntN(len(g.hosts))]
	}
	at := rand.Uint64N(g.reach[len(g.reach)-1])
	i, _ := slices.BinarySearch(g.reach, at+1)
	return g.hosts[i]
}

// leastRequest compares a few hosts that chance (or, with weights, the weighted
// round) offers. It is as good as comparing all, and needs no order kept.
func (g *group) leastRequest(c *Cluster, choices int) *Host {
	var best *Host
	var bestActive int64
	for range choices {
		var h *Host
		if g.strides == nil {
			h = g.random()
		} else {
			h = g.next(c)
		}
		if active := h.active.Load(); best == nil || active < bestActive {
			best, bestActive = h, active
		}
	}
	return best
}

func (g *group) pick(c *Cluster, s *settings) *Host {
	switch len(g.hosts) {
	case 0:
		return nil
	case 1:
		return g.hosts[0]
	}
	switch s.LB {
	case LeastRequest:
		return g.leastRequest(c, s.choices)
	case Random:
		return g.random()
	}
	return g.next(c)
}

// choose picks a priority by its share, and a host of it.
func (s *endpointSet) choose(c *Cluster, cfg *settings) *Host {
	if len(s.prios) == 0 {
		return nil
	}
	p, degraded := 0, false
	if s.healthyLoad != nil {
		p, degraded = s.level(rand.IntN(100))
	}
	lv := &s.prios[p]
	switch {
	case lv.panic:
		return lv.all.pick(c, cfg)
	case degraded:
		return lv.degraded.pick(c, cfg)
	}
	if h := lv.healthy.pick(c, cfg); h != nil {
		return h
	}
	return nil
}

func (s *endpointSet) level(at int) (p int, degraded bool) {
	for i, reach := range s.healthyLoad {
		if at < reach {
			return i, false
		}
	}
	for i, reach := range s.degradedLoad {
		if at < reach {
			return i, true
		}
	}
	return 0, false
}

// Pick chooses a host. Hosts in avoid (those that were tried before) are chosen
// only when there is no other. An aggregate cluster asks its clusters in order.
// The host's Cluster is the one whose limits and counters apply.
func (c *Cluster) Pick(avoid []*Host) (*Host, error) {
	if h := c.pick(avoid, 0); h != nil {
		return h, nil
	}
	if len(avoid) > 0 {
		if h := c.pick(nil, 0); h != nil {
			return h, nil
		}
	}
	if c.metrics != nil {
		c.metrics.NoHealthy.Inc(0)
	}
	return nil, &Error{Kind: NoHealthyHost, Cluster: c.name}
}

// maxAggregateDepth bounds aggregates of aggregates, and loops among them.
const maxAggregateDepth = 8

func (c *Cluster) pick(avoid []*Host, depth int) *Host {
	cfg := c.cfg.Load()
	if cfg.Type == Aggregate {
		if depth == maxAggregateDepth {
			return nil
		}
		for _, name := range cfg.Aggregate {
			if child := c.m.Get(name); child != nil {
				if h := child.pick(avoid, depth+1); h != nil {
					return h
				}
			}
		}
		return nil
	}
	set := c.set.Load()
	h := set.choose(c, cfg)
	if h == nil || len(avoid) == 0 || !slices.Contains(avoid, h) {
		return h
	}
	// Chance gives a fair host of the others in most cases; a scan finds the
	// last one that is left.
	for range 5 {
		if h = set.choose(c, cfg); !slices.Contains(avoid, h) {
			return h
		}
	}
	for i := range set.prios {
		g := &set.prios[i].healthy
		if set.prios[i].panic {
			g = &set.prios[i].all
		}
		if len(g.hosts) == 0 {
			continue
		}
		start := rand.IntN(len(g.hosts))
		for j := range g.hosts {
			if h = g.hosts[(start+j)%len(g.hosts)]; !slices.Contains(avoid, h) {
				return h
			}
		}
	}
	return nil
}
