package view

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/render"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// sweepAbove is how much the caches may grow, on top of twice what was left by
// the last sweep, before unused results are looked for.
const sweepAbove = 1024

// Manager keeps every open view current. Its methods may be called from any
// goroutine.
type Manager struct {
	log *slog.Logger

	mu    sync.Mutex
	world *world
	last  Published
	views map[*View]*product // nil before the first publication
	swept int                // cache entries left by the last sweep
	// logged are the problems that were written to the log already.
	logged map[render.Problem]struct{}
}

// NewManager returns a manager that has not seen a publication yet.
func NewManager(log *slog.Logger) *Manager {
	return &Manager{log: log, world: newWorld(), views: map[*View]*product{}, logged: map[render.Problem]struct{}{}}
}

// Run applies publications as next returns them, until it fails. Its error is
// returned: the end of ctx is how Run is stopped.
func (m *Manager) Run(ctx context.Context, next func(context.Context) (Published, error)) error {
	for {
		p, err := next(ctx)
		if err != nil {
			return err
		}
		m.Apply(p)
	}
}

// Apply takes one publication. When it returns, every view is current.
func (m *Manager) Apply(p Published) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.world.advance(p)
	if err != nil {
		m.log.Error("publication not rendered, the last configuration stays in force", "err", err)
		return
	}
	m.last = p
	for v, old := range m.views {
		if old == nil || old.touched(v.client.Node, c) {
			m.refresh(v, old)
		}
	}
	m.sweep()
	m.report()
}

// refresh computes a view and replaces its set when that differs.
func (m *Manager) refresh(v *View, old *product) {
	next := m.world.build(v.client)
	m.views[v] = next
	differs := old == nil
	if old != nil {
		for t, set := range next.byType {
			if same(old.byType[t], set) {
				// Readers tell an unchanged type by its map.
				next.byType[t] = old.byType[t]
			} else {
				differs = true
			}
		}
	}
	if !differs {
		return
	}
	var generation uint64
	if s := v.current.Load(); s != nil {
		generation = s.Generation
	}
	set := &resource.Set{Generation: generation + 1, ByType: next.byType, Index: m.last.Index, Built: time.Now().UnixNano()}
	if !m.last.Received.IsZero() {
		set.Received = m.last.Received.UnixNano()
	}
	v.replace(set)
}

func same(a, b map[string]*resource.Resource) bool {
	return maps.EqualFunc(a, b, func(x, y *resource.Resource) bool {
		return x == y || x.Version == y.Version && x.Urgent == y.Urgent && slices.Equal(x.Refs, y.Refs)
	})
}

// Open starts a view.
func (m *Manager) Open(c Client) *View {
	c.Permitted, c.Workloads, c.Entitled = slices.Clone(c.Permitted), slices.Clone(c.Workloads), slices.Clone(c.Entitled)
	v := &View{manager: m, client: c, changed: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.views[v] = nil
	if m.world.snap != nil {
		m.refresh(v, nil)
		m.report()
	}
	return v
}

func (m *Manager) close(v *View) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.views, v)
	if m.world.snap != nil {
		m.sweep()
	}
}

// sweep drops results that no view uses any more, when there may be many: it
// asks for everything once, which costs little, because it is all remembered.
func (m *Manager) sweep() {
	if m.world.cache.Len() <= 2*m.swept+sweepAbove && len(m.views) > 0 {
		return
	}
	used := newUsage()
	m.world.cache.Begin()
	for v := range m.views {
		p := m.world.build(v.client)
		maps.Copy(used.chains, p.used.chains)
		maps.Copy(used.auths, p.used.auths)
		maps.Copy(used.calls, p.used.calls)
	}
	m.world.cache.End()
	m.world.forget(used)
	m.swept = m.world.cache.Len()
}

// Problems returns everything that is withheld from someone, sorted.
func (m *Manager) Problems() []render.Problem {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.problems("")
}

// NodeProblems returns what concerns one node: its own registrations and the
// services that its views depend on.
func (m *Manager) NodeProblems(node string) []render.Problem {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.problems(node)
}

func (m *Manager) problems(node string) []render.Problem {
	var out []render.Problem
	if m.world.env != nil {
		out = append(out, m.world.env.Problems...)
	}
	for v, p := range m.views {
		if p != nil && (node == "" || v.client.Node == node) {
			out = append(out, p.problems...)
		}
	}
	return render.SortProblems(out)
}

// report logs problems when they appear, once.
func (m *Manager) report() {
	now := map[render.Problem]struct{}{}
	note := func(ps []render.Problem) {
		for _, p := range ps {
			_, known := m.logged[p]
			if _, again := now[p]; !known && !again {
				m.log.Warn("configuration withheld", "node", p.Node, "service", p.Service, "path", p.Path, "err", p.Reason)
			}
			now[p] = struct{}{}
		}
	}
	note(m.world.env.Problems)
	for _, p := range m.views {
		if p != nil {
			note(p.problems)
		}
	}
	m.logged = now
}

// Inbound returns the inbound listener that a workload of the service has,
// rendered with every capability, whether or not one is registered. Its RBAC
// filters are what sidecars enforce.
func (m *Manager) Inbound(service catalog.Name) (*resource.Resource, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.world.snap == nil {
		return nil, fmt.Errorf("view: the catalog has not been read yet")
	}
	if service.Datacenter == "" {
		service.Datacenter = m.world.snap.Datacenter
	}
	proxy := &api.AgentServiceConnectProxyConfig{DestinationServiceName: service.Service, LocalServicePort: 1}
	for _, inst := range m.world.snap.Instances[service] {
		// A registration may speak another protocol than its service declares,
		// and the protocol decides what L7 permissions mean.
		if inst.Proxy != nil && inst.Proxy.Config["protocol"] != nil {
			proxy.Config = map[string]any{"protocol": inst.Proxy.Config["protocol"]}
			break
		}
	}
	defaults := m.world.defaults(service)
	auth := m.world.authorization(service)
	w := render.Workload{
		Instance:      &catalog.Instance{Service: service, ID: service.Service, Address: "127.0.0.1", Port: 15006, Proxy: proxy},
		Authorization: auth.auth,
		Defaults:      defaults,
	}
	if auth.auth == nil {
		w.Denied = auth.problem.Reason
	}
	in, err := render.NewInbound(m.world.env, render.Client{Dialect: render.Envoy}, w)
	if err != nil {
		return nil, fmt.Errorf("view: %w", err)
	}
	if in.Chain == nil {
		return nil, fmt.Errorf("view: %s has no inbound listener: %v", service, in.Problems)
	}
	l, _, err := render.InboundListener([]*render.Inbound{in})
	return l, err
}
