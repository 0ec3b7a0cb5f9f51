package cluster

import (
	"math/rand/v2"
	"slices"
)

// aggregate is what an aggregate cluster chooses from: the levels of all its
// clusters, one after the other. Immutable; it is made anew when the settings, a
// cluster or a set of endpoints of its is another one.
type aggregate struct {
	settings *settings
	version  uint64 // of the manager's table, and of the aggregates in it
	clusters []*Cluster
	sets     []*endpointSet
	loads    loads
	of       []aggregateLevel
}

type aggregateLevel struct{ cluster, level int }

// aggregated is the current view of the clusters.
func (c *Cluster) aggregated(s *settings) *aggregate {
	a := c.aggregate.Load()
	if a != nil && a.settings == s && a.version == c.m.version.Load() {
		current := true
		for i, child := range a.clusters {
			if child.set.Load() != a.sets[i] {
				current = false
				break
			}
		}
		if current {
			return a
		}
	}
	a = &aggregate{settings: s, version: c.m.version.Load()}
	c.collect(a, s, map[*Cluster]bool{c: true})
	var counts []census
	for i, child := range a.clusters {
		set := child.set.Load()
		a.sets = append(a.sets, set)
		for j := range set.whole.levels {
			counts = append(counts, set.whole.levels[j].census)
			a.of = append(a.of, aggregateLevel{i, j})
		}
	}
	a.loads, _ = spread(counts, s.panicPercent)
	c.aggregate.Store(a)
	return a
}

// collect flattens aggregates of aggregates. It visits each cluster once: they may list
// each other, and themselves.
func (c *Cluster) collect(a *aggregate, s *settings, visited map[*Cluster]bool) {
	for _, name := range s.Aggregate {
		child := c.m.Get(name)
		if child == nil || visited[child] {
			continue
		}
		visited[child] = true
		if cfg := child.cfg.Load(); cfg.Type == Aggregate {
			child.collect(a, cfg, visited)
		} else {
			a.clusters = append(a.clusters, child)
		}
	}
}

func (c *Cluster) pickAggregate(s *settings, pc *PickContext, attempt int, not *exclusion) *Host {
	a := c.aggregated(s)
	if len(a.of) == 0 {
		return nil
	}
	level, degraded := 0, false
	if l := not.shares(a, &a.loads); l.healthy != nil {
		level, degraded = l.at(rand.IntN(100))
	}
	at := a.of[level]
	child := a.clusters[at.cluster]
	return a.sets[at.cluster].choose(child.cfg.Load(), pc, pick{attempt: attempt, level: at.level, degraded: degraded})
}

func (a *aggregate) count() int { return len(a.of) }

func (a *aggregate) availability(level int) (int, int) {
	at := a.of[level]
	return a.sets[at.cluster].whole.levels[at.level].available()
}

func (a *aggregate) level(_ *Cluster, h *Host) int {
	return slices.IndexFunc(a.of, func(at aggregateLevel) bool {
		return a.clusters[at.cluster] == h.cluster && at.level == h.Priority()
	})
}
