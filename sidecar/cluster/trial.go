package cluster

import (
	"fmt"
	"maps"
	"slices"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// Trial is what is to take the place of a cluster, in force nowhere yet: its hosts are checked
// meanwhile, so that they are known when those of the one before are gone.
type Trial struct{ c *Cluster }

// Try begins to check the hosts of a Static or an EDS cluster, an EDS cluster's of a. What is
// found is counted nowhere: the counters are those of the cluster in force.
func (m *Manager) Try(cfg *Config, a *Assignment) (*Trial, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &Cluster{name: cfg.Name, m: m}
	c.cfg.Store(&settings{Config: cfg, tlsGeneration: 1})
	c.set.Store(&endpointSet{whole: &balancer{}})
	err := m.validate(cfg)
	if cfg.Type != EDS {
		a = cfg.Endpoints
	}
	if err == nil {
		err = cfg.Subsets.check(a)
	}
	if err == nil {
		err = c.apply(cfg, a, nil, true)
	}
	if err != nil {
		panics.Guard(panics.Configuration, c.remove)
		return nil, fmt.Errorf("cluster %s: %w", cfg.Name, err)
	}
	if m.trials == nil {
		m.trials = map[*Cluster]bool{}
	}
	m.trials[c] = true
	return &Trial{c}, nil
}

// tried are the clusters that are on trial.
func (m *Manager) tried() []*Cluster {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.trials))
}

// AwaitsChecks tells whether hosts are still to be checked for the first time; when they have
// been, Options.Proven is called.
func (t *Trial) AwaitsChecks() bool { return t.c.AwaitsChecks() }

// SetEndpoints replaces the endpoints of an EDS cluster.
func (t *Trial) SetEndpoints(a *Assignment) error {
	return setTogether([]*Cluster{t.c}, a)
}

// Close ends the checks; nil has none.
func (t *Trial) Close() {
	if t == nil {
		return
	}
	t.c.m.mu.Lock()
	defer t.c.m.mu.Unlock()
	delete(t.c.m.trials, t.c)
	panics.Guard(panics.Configuration, t.c.remove)
}

// found is what checks have found so far, by the keys of hosts.
func (t *Trial) found() map[string]uint32 {
	if t == nil {
		return nil
	}
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	out := make(map[string]uint32, len(t.c.order))
	for _, h := range t.c.order {
		out[h.key] = h.check.state.Load() &^ checked
	}
	return out
}
