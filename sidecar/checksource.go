package sidecar

import (
	"slices"

	"github.com/hauberk-mesh/hauberk/sidecar/config"
)

// checkSource is a workload whose requests go to a cluster, "" where there is none:
// the cluster's health checks present its identity. Of several it is the first by
// SPIFFE ID, so that it stays the same.
func (s *state) checkSource(cluster string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []string
	for _, l := range s.inForce {
		if l.Workload == "" {
			continue
		}
		refs := config.ListenerRefs(l)
		refs.Clusters = append(refs.Clusters, refs.Collectors...)
		for _, n := range refs.Routes {
			if t := s.routes.get(n); t != nil {
				refs.Clusters = append(refs.Clusters, config.RouteClusters(t.Config())...)
			}
		}
		if s.leadsTo(refs.Clusters, cluster, 0) {
			found = append(found, l.Workload)
		}
	}
	if len(found) == 0 {
		return ""
	}
	return slices.Min(found)
}

// leadsTo tells whether a cluster is among names, in an aggregate of them, or what they mirror to.
func (s *state) leadsTo(names []string, cluster string, depth int) bool {
	for _, n := range names {
		if n == cluster {
			return true
		}
		if c := s.clusterConfigs[n]; c != nil && depth < maxNested && s.leadsTo(slices.Concat(c.Aggregate, c.HTTP.Copies()), cluster, depth+1) {
			return true
		}
	}
	return false
}

// maxNested bounds aggregates of aggregates, and loops among them.
const maxNested = 8
