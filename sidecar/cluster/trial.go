package cluster

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// Trial is what is to take the place of a cluster, in force nowhere yet: its hosts are checked
// meanwhile, so that they are known when those of the one before are gone.
type Trial struct{ c *Cluster }

// findings are what a trial has found so far.
type findings struct {
	checks map[string]uint32       // by the keys of hosts
	known  map[string][]netip.Addr // what names resolved to
}

// Try begins to check the hosts of a Static, an EDS or a DNS cluster, an EDS cluster's of a, and
// to resolve the names of a DNS cluster. What is found is counted nowhere: the counters are those
// of the cluster in force.
func (m *Manager) Try(cfg *Config, a *Assignment) (*Trial, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &Cluster{name: cfg.Name, m: m}
	c.cfg.Store(&settings{Config: cfg, tlsGeneration: 1})
	c.set.Store(&endpointSet{whole: &balancer{}})
	err := m.validate(cfg)
	if err == nil && (cfg.Type == StrictDNS || cfg.Type == LogicalDNS) {
		c.unanswered = map[string]bool{}
		for _, name := range cfg.names() {
			c.unanswered[name] = true
		}
	}
	if cfg.Type != EDS {
		a = cfg.Endpoints
	}
	if err == nil {
		err = cfg.holds(a)
	}
	if err == nil {
		err = c.apply(cfg, a, findings{}, true)
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

// AwaitsChecks tells whether names are still to be resolved, or hosts to be checked, for the first
// time; when they have been, Options.Proven is called.
func (t *Trial) AwaitsChecks() bool { return t.c.AwaitsChecks() }

// AwaitsNames tells whether names are still to be resolved for the first time.
func (t *Trial) AwaitsNames() bool {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	return len(t.c.unanswered) > 0
}

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

func (t *Trial) found() findings {
	if t == nil {
		return findings{}
	}
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	out := findings{checks: make(map[string]uint32, len(t.c.order)), known: maps.Clone(t.c.known)}
	for _, h := range t.c.order {
		out.checks[h.key] = h.check.state.Load() &^ checked
	}
	return out
}
