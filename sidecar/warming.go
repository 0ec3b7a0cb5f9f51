package sidecar

import (
	"slices"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

type warming struct {
	cfg   *listener.Config
	timer *time.Timer
	// patient is set once it waits for nothing but what a source says is to be waited for.
	patient bool
}

// cool ends the waiting of a listener.
func (s *state) cool(name string) {
	if w := s.warming[name]; w != nil {
		w.timer.Stop()
		delete(s.warming, name)
	}
}

// warms tells whether a listener is the one of its name that waits.
func (s *state) warms(cfg *listener.Config) bool {
	return cfg != nil && s.warming[cfg.Name] != nil && s.warming[cfg.Name].cfg == cfg
}

// ready tells whether what a listener names is there. One that is in force
// already waits for new routes and secrets only: its authorization must not wait for
// clusters. Routes that were refused are not waited for, as in Envoy: what else the listener
// says may be a deny, and there is nothing that would let anybody through.
func (s *state) ready(cfg *listener.Config) bool {
	refs := config.ListenerRefs(cfg)
	for _, n := range refs.Routes {
		switch t := s.routes.get(n); {
		case t != nil:
			refs.Wanted = append(refs.Wanted, config.RouteClusters(t.Config())...)
		case !s.refusedRoutes[n] && !s.overdue(resource.RouteType, n):
			return false
		}
	}
	if !s.secretsReady(refs.Secrets) {
		return false
	}
	if s.inForce[cfg.Name] != nil {
		return true
	}
	for _, n := range refs.Wanted {
		if !s.clusterReady(n, 0) || !s.loading && s.awaitsChecks(n, 0) {
			return false
		}
	}
	return true
}

// awaitsChecks tells whether a cluster, or one that an aggregate lists, has hosts that are
// still to be checked for the first time. A listener of the bootstrap has its socket before:
// that it cannot have it is told at the start (holdListeners).
func (s *state) awaitsChecks(name string, depth int) bool {
	switch c := s.clusters.Get(name); {
	case c == nil:
		return false
	case c.Config().Type == cluster.Aggregate:
		return depth < maxNested && slices.ContainsFunc(c.Config().Aggregate, func(n string) bool { return s.awaitsChecks(n, depth+1) })
	default:
		return c.AwaitsChecks()
	}
}

// proven goes on with what waited for first checks. Clusters that come together are looked at
// together: each look is at all that waits.
func (s *state) proven() {
	if s.provenDue.Swap(true) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.provenDue.Store(false)
	s.goOn()
}

func (s *state) clusterReady(name string, depth int) bool {
	c := s.clusterConfigs[name]
	switch {
	case c == nil:
		return false
	case c.Type == cluster.EDS:
		return s.endpointsCame(edsName(c))
	case c.Type == cluster.Aggregate && depth < maxNested:
		for _, n := range c.Aggregate {
			if !s.clusterReady(n, depth+1) {
				return false
			}
		}
	}
	return true
}

// warmed applies the listeners whose wait is over.
func (s *state) warmed() {
	var now []*listener.Config
	for name, w := range s.warming {
		if s.ready(w.cfg) || w.patient && !s.routesAwaited(w.cfg) {
			s.cool(name)
			now = append(now, w.cfg)
		}
	}
	s.late(now)
}

// late applies listeners outside of the response that brought them, where it is
// too late to reject them.
func (s *state) late(now []*listener.Config) {
	slices.SortFunc(now, func(a, b *listener.Config) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	for name, err := range s.replace(nil, now) {
		s.log.Error("listener could not be applied", "listener", name, "err", err)
		if i := slices.IndexFunc(now, func(c *listener.Config) bool { return c.Name == name }); mayBeFree(err) {
			s.tryLater(now[i])
			continue
		}
		s.forgo(name)
		s.restore(name)
	}
	s.tally()
}

func (s *state) expire(w *warming) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.warming[w.cfg.Name] != w {
		return
	}
	if s.inForce[w.cfg.Name] == nil && s.routesAwaited(w.cfg) {
		w.patient = true
		return
	}
	s.cool(w.cfg.Name)
	s.log.Warn("listener starts without all routes, clusters and secrets that it names", "listener", w.cfg.Name, "waited", s.warmUp)
	s.late([]*listener.Config{w.cfg})
}

// secretsReady tells whether discovered secrets are there. What can never come is not
// waited for: who uses it is told why.
func (s *state) secretsReady(refs []tlscontext.SecretRef) bool {
	for _, r := range refs {
		if s.secrets != nil && s.secrets.Usable(r) == nil && s.secrets.Lookup(r) == nil {
			return false
		}
	}
	return true
}

// secretsChanged goes on with what waited for secrets.
func (s *state) secretsChanged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.goOn()
}

// sweepSecrets has those that nothing names any more followed no longer.
func (s *state) sweepSecrets() {
	if s.secrets == nil {
		return
	}
	s.secrets.Retain(func() map[tlscontext.SecretRef]bool { return s.secretsOf(s.held, s.inForce, s.wants) })
}

// secretsOf are those of the clusters in force, and of some that wait, and of listeners.
func (s *state) secretsOf(held map[string]*heldCluster, listeners ...map[string]*listener.Config) map[tlscontext.SecretRef]bool {
	needed := map[tlscontext.SecretRef]bool{}
	add := func(refs []tlscontext.SecretRef) {
		for _, r := range refs {
			needed[r] = true
		}
	}
	add(s.pinned)
	for _, c := range s.clusterConfigs {
		add(config.ClusterSecrets(c))
	}
	for _, h := range held {
		add(config.ClusterSecrets(h.cfg))
	}
	for _, set := range listeners {
		for _, l := range set {
			add(config.ListenerRefs(l).Secrets)
		}
	}
	return needed
}
