package sidecar

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// heldCluster waits for its secrets, its endpoints or names, or first checks of its hosts; the one that
// it takes the place of goes on.
type heldCluster struct {
	cfg   *cluster.Config
	timer *time.Timer
	trial *cluster.Trial // nil before it has hosts that are to be checked
	// patient is set once it waits for nothing but the endpoints that its source says are to be
	// waited for, and after them for first checks of their hosts.
	patient bool
}

// waitsFor says what for.
func (s *state) waitsFor(h *heldCluster) string {
	switch {
	case !s.secretsReady(config.ClusterSecrets(h.cfg)):
		return "secrets"
	case h.trial != nil && h.trial.AwaitsNames():
		return "the addresses of its names"
	case h.trial != nil:
		return "first checks of its hosts"
	}
	return "endpoints"
}

// clusterWaits tells whether a cluster is not to be in force yet. One that takes the place
// of another waits for endpoints that the other has not: its terms are not for the other's
// hosts, and without any it would serve nobody.
func (s *state) clusterWaits(cfg *cluster.Config) bool {
	if !s.secretsReady(config.ClusterSecrets(cfg)) {
		return true
	}
	old := s.clusterConfigs[cfg.Name]
	return old != nil && cfg.Type == cluster.EDS && !s.endpointsCame(edsName(cfg)) &&
		(old.Type != cluster.EDS || edsName(old) != edsName(cfg))
}

// untried tells whether a cluster takes the place of another with hosts of which nothing is
// known, and which are to be checked. All of its hosts would be out until then. Those of names
// that are still to be resolved would not be there.
func (s *state) untried(cfg *cluster.Config) bool {
	old := s.clusterConfigs[cfg.Name]
	if old == nil {
		return false
	}
	if cfg.Type == cluster.StrictDNS || cfg.Type == cluster.LogicalDNS {
		return old.Type != cfg.Type || !share(old.Endpoints, cfg.Endpoints)
	}
	if cfg.HealthCheck == nil {
		return false
	}
	switch cfg.Type {
	case cluster.EDS:
		return s.assignments[edsName(cfg)] != nil && (old.Type != cluster.EDS || edsName(old) != edsName(cfg))
	case cluster.Static:
		return old.Type != cluster.Static || !share(old.Endpoints, cfg.Endpoints)
	}
	return false
}

// share tells whether two assignments have a host in common.
func share(a, b *cluster.Assignment) bool {
	type host struct {
		name, pipe string
		port       int
	}
	seen := map[host]bool{}
	each := func(a *cluster.Assignment, visit func(host) bool) bool {
		if a == nil {
			return false
		}
		return slices.ContainsFunc(a.Localities, func(l cluster.Locality) bool {
			return slices.ContainsFunc(l.Endpoints, func(e cluster.Endpoint) bool { return visit(host{e.Host, e.Pipe, e.Port}) })
		})
	}
	each(a, func(h host) bool { seen[h] = true; return false })
	return each(b, func(h host) bool { return seen[h] })
}

// try begins the checks of what a cluster is to become; nil where there are none to wait for.
func (s *state) try(cfg *cluster.Config) (*cluster.Trial, error) {
	if !s.untried(cfg) {
		return nil, nil
	}
	t, err := s.clusters.Try(cfg, s.assignments[edsName(cfg)])
	if err == nil && !t.AwaitsChecks() {
		t.Close()
		t = nil
	}
	return t, err
}

// holds tells whether a cluster is to go on waiting.
func (s *state) holds(h *heldCluster) bool {
	if s.clusterWaits(h.cfg) {
		return !h.patient || s.endpointsAwaited(h.cfg)
	}
	if h.trial == nil {
		h.trial, _ = s.try(h.cfg) // what it is refused for is told when it is put in force
		if h.trial != nil && h.patient {
			h.timer.Reset(s.warmUp)
		}
		return h.trial != nil
	}
	return h.trial.AwaitsChecks()
}

// hold has a cluster wait, for a bounded time, in the place of one that waited before.
func (s *state) hold(cfg *cluster.Config, trial *cluster.Trial) {
	s.release(cfg.Name)
	h := &heldCluster{cfg: cfg, trial: trial}
	h.timer = time.AfterFunc(s.warmUp, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.held[cfg.Name] != h {
			return
		}
		if s.endpointsAwaited(cfg) {
			h.patient = true
			return
		}
		s.log.Warn("cluster starts without all secrets, endpoints and checks that it waited for", "cluster", cfg.Name, "waited", s.warmUp)
		s.lateCluster(h)
		s.warmed()
		s.sweep()
	})
	s.held[cfg.Name] = h
	delete(s.leaving, cfg.Name) // the one in force goes on until then
	if cfg.Type == cluster.EDS {
		s.ask(resource.EndpointType, edsName(cfg), cfg.Discovery)
	}
}

// heldAlready tells whether that very cluster waits: of the state of the world it is said again
// with each change of another, and its wait would begin anew.
func (s *state) heldAlready(cfg *cluster.Config) bool {
	h := s.held[cfg.Name]
	return h != nil && reflect.DeepEqual(h.cfg, cfg)
}

// release ends the waiting of a cluster.
func (s *state) release(name string) {
	if h := s.held[name]; h != nil {
		h.timer.Stop()
		h.trial.Close()
		delete(s.held, name)
		s.forgetEndpoints(h.cfg)
	}
}

// lateCluster puts a cluster in force outside of the response that brought it, where it
// is too late to reject it.
func (s *state) lateCluster(h *heldCluster) {
	defer s.release(h.cfg.Name)
	if err := s.putCluster(h.cfg, h.trial); err != nil {
		s.log.Error("cluster could not be applied", "cluster", h.cfg.Name, "err", err)
	}
}

// setEndpoints puts endpoints in force, and with them the clusters that wait for them.
func (s *state) setEndpoints(a *cluster.Assignment) error {
	wanted := func(h *heldCluster) bool { return h.cfg.Type == cluster.EDS && edsName(h.cfg) == a.Cluster }
	for name, h := range s.held {
		if !wanted(h) {
			continue
		}
		if err := h.cfg.Takes(a); err != nil {
			return fmt.Errorf("endpoints of %s: for cluster %s: %w", a.Cluster, name, err)
		}
	}
	if err := s.clusters.SetEndpoints(a); err != nil {
		return err
	}
	s.assignments[a.Cluster] = a
	for _, h := range s.held {
		if !wanted(h) {
			continue
		}
		if h.trial != nil {
			if err := h.trial.SetEndpoints(a); err != nil {
				s.log.Error("hosts cannot be checked before they are in force", "cluster", h.cfg.Name, "err", err)
			}
		}
		if !s.holds(h) {
			s.lateCluster(h)
		}
	}
	return nil
}
