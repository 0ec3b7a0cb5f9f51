package sidecar

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/drain"
	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/tcp"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
	"github.com/hauberk-mesh/hauberk/sidecar/tunnel"
)

// routes are the route tables by name. A connection manager keeps the slot of
// its name and loads the table for each request: one atomic load, no lock.
type routes struct {
	mu    sync.Mutex
	slots map[string]*atomic.Pointer[route.Table]
}

func newRoutes() *routes { return &routes{slots: map[string]*atomic.Pointer[route.Table]{}} }

func (r *routes) slot(name string) *atomic.Pointer[route.Table] {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.slots[name]
	if s == nil {
		s = &atomic.Pointer[route.Table]{}
		r.slots[name] = s
	}
	return s
}

// get is nil for a name that nobody has a slot of, and makes none.
func (r *routes) get(name string) *route.Table {
	r.mu.Lock()
	s := r.slots[name]
	r.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.Load()
}

func (r *routes) set(name string, t *route.Table) { r.slot(name).Store(t) }

// forget drops a name. Connections that drain keep the slot, and its table.
func (r *routes) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.slots, name)
}

// all returns the tables, for people.
func (r *routes) all() map[string]*route.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]*route.Config{}
	for name, s := range r.slots {
		if t := s.Load(); t != nil {
			out[name] = t.Config()
		}
	}
	return out
}

// handlers builds the terminal filters of filter chains.
type handlers struct {
	clusters *cluster.Manager
	routes   *routes
	logs     *telemetry.Logs
	tracers  *tracing.Tracers
	metrics  *telemetry.Metrics
	timers   *hcm.Timers
	log      *slog.Logger
	// drain is the process's, and inbound that of its inbound side, which may begin before.
	drain, inbound *drain.Watcher
	// patience is with clients of HTTP.
	patience hcm.Patience
	// cluster is what the node says it belongs to.
	cluster string
	// node is what it calls itself.
	node string
}

// build returns no handler with an error: a nil pointer in the interface would be one.
func (h *handlers) build(l *listener.Config, c *listener.FilterChain) (downstream.Handler, error) {
	if c.TCP != nil {
		relay, err := tcp.New(c.TCP, tcp.Options{Clusters: h.clusters, Logs: h.logs, Metrics: h.metrics, Log: h.log})
		if err != nil {
			return nil, err
		}
		if c.TLS == nil || !slices.Contains(c.TLS.ALPN, cluster.TunnelALPN) {
			return relay, nil
		}
		return tunnel.New(relay, h.metrics), nil
	}
	o := hcm.Options{Clusters: h.clusters, Logs: h.logs, Tracers: h.tracers, Metrics: h.metrics, Timers: h.timers, Log: h.log, ServiceCluster: h.cluster, Node: h.node, Drain: h.drain, Patience: h.patience}
	if l.Direction == listener.Inbound {
		o.Drain = h.inbound
	}
	if c.HTTP.Routes == nil {
		o.Routes = h.routes.slot(c.HTTP.RouteName).Load
	}
	m, err := hcm.New(c.HTTP, o)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// workloadsOf are the SPIFFE IDs that a listener needs an SVID for.
func workloadsOf(l *listener.Config) []string {
	var out []string
	if l.Workload != "" {
		out = append(out, l.Workload)
	}
	each := func(c *listener.FilterChain) {
		if c.TLS != nil && strings.HasPrefix(c.TLS.Certificate, "spiffe://") {
			out = append(out, c.TLS.Certificate)
		}
	}
	for i := range l.Chains {
		each(&l.Chains[i])
	}
	if l.Default != nil {
		each(l.Default)
	}
	return out
}
