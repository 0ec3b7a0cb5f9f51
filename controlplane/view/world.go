package view

import (
	"maps"
	"slices"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/compile"
	"github.com/hauberk-mesh/hauberk/controlplane/render"
)

// world is the newest snapshot and everything that was computed from it. What
// is computed carries its dependencies, and a publication makes stale only what
// it touches; what is stale is computed again when a view needs it.
type world struct {
	snap  *catalog.Snapshot
	env   *render.Environment
	cache *render.Cache

	chains     map[catalog.Name]*chainState
	customized map[customKey]*customState
	auths      map[catalog.Name]*authState
	overrides  map[callKey]*overrideState
	upstreams  map[catalog.InstanceKey]*upstreamState
	// hosted indexes the registrations that shape a sidecar, by Hauberk node.
	hosted map[string]map[catalog.InstanceKey]*registration
	// tick counts publications.
	tick uint64
	// behind is set when a publication could not be taken: what it made dirty
	// is unknown to the next one.
	behind bool
}

// stamp says when an input of a compiled result last changed, so that a view
// asks each of its results instead of comparing all of their dependencies.
type stamp struct {
	stale   bool
	touched uint64
}

func (s *stamp) touch(tick uint64) { s.stale, s.touched = true, tick }

// A state keeps its last good result: an entry that stops compiling changes
// nothing but the list of problems.
type chainState struct {
	stamp
	chain   *compile.Chain // nil when it never compiled
	deps    compile.Deps
	problem *render.Problem
}

type authState struct {
	stamp
	auth    *compile.Authorization // nil when it never compiled: deny
	deps    compile.Deps
	problem *render.Problem
}

// callKey is a caller and what it calls.
type callKey struct{ source, destination catalog.Name }

type overrideState struct {
	stamp
	overrides compile.Overrides
	deps      compile.Deps
	problem   *render.Problem
}

type customKey struct {
	service       catalog.Name
	customization string
}

type customState struct{ base, chain *compile.Chain }

type upstreamState struct {
	instance  *catalog.Instance
	upstreams []render.Upstream
	problems  []render.Problem
}

// registration is a workload's newest registration that can be hosted, and why
// the newest of all cannot be, when it differs.
type registration struct {
	latest  *catalog.Instance
	good    *catalog.Instance // nil when there never was one
	problem *render.Problem
}

func newWorld() *world {
	return &world{
		cache:      render.NewCache(),
		chains:     map[catalog.Name]*chainState{},
		customized: map[customKey]*customState{},
		auths:      map[catalog.Name]*authState{},
		overrides:  map[callKey]*overrideState{},
		upstreams:  map[catalog.InstanceKey]*upstreamState{},
		hosted:     map[string]map[catalog.InstanceKey]*registration{},
	}
}

// changes is what a publication means for views.
type changes struct {
	dirty catalog.Dirty
	// all: everything that is rendered may differ.
	all bool
	// nodes whose registrations changed.
	nodes map[string]struct{}
	tick  uint64
}

// advance moves the world to a new snapshot.
func (w *world) advance(p Published) (changes, error) {
	old := w.snap
	c := changes{dirty: p.Dirty, nodes: map[string]struct{}{}}
	if old == nil || w.behind {
		c.dirty = catalog.Dirty{All: true}
	}
	c.all = c.dirty.All
	if c.all || w.env.Deps.Touches(p.Dirty) {
		env, err := render.NewEnvironment(p.Snapshot)
		if err != nil {
			w.behind = true
			return c, err
		}
		w.env, c.all = env, true
	}
	w.snap, w.behind = p.Snapshot, false
	if c.dirty.All {
		w.rehost(c.nodes)
	} else {
		for n := range p.Dirty.Instances {
			w.host(old.Instances[n], p.Snapshot.Instances[n], c.nodes)
		}
	}
	w.recompile(c.dirty)
	c.tick = w.tick
	return c, nil
}

// recompile makes stale what the change touches. Chains and authorizations are
// compiled again at once, looked at or not: the last good one must be the last
// that was good, not the last that somebody saw. Compiling reads entries only;
// instances matter to the views that show them.
func (w *world) recompile(dirty catalog.Dirty) {
	dirty.Instances = nil
	w.tick++
	for n, s := range w.chains {
		if s.deps.Touches(dirty) {
			s.touch(w.tick)
			w.chain(n)
		}
	}
	for n, s := range w.auths {
		if s.deps.Touches(dirty) {
			s.touch(w.tick)
			w.authorization(n)
		}
	}
	for _, s := range w.overrides {
		if s.deps.Touches(dirty) {
			s.touch(w.tick)
		}
	}
}

// rehost indexes everything again, keeping what was good.
func (w *world) rehost(nodes map[string]struct{}) {
	before := w.hosted
	w.hosted = map[string]map[catalog.InstanceKey]*registration{}
	for node, regs := range before {
		nodes[node] = struct{}{}
		for key, r := range regs {
			if r.good != nil {
				w.slot(node)[key] = &registration{good: r.good, latest: r.latest}
			}
		}
	}
	present := map[string]map[catalog.InstanceKey]struct{}{}
	for _, list := range w.snap.Instances {
		for _, inst := range list {
			if !w.hostable(inst) {
				continue
			}
			node := inst.HauberkNode()
			if present[node] == nil {
				present[node] = map[catalog.InstanceKey]struct{}{}
			}
			present[node][inst.Key()] = struct{}{}
			nodes[node] = struct{}{}
			w.register(node, inst)
		}
	}
	for node, regs := range w.hosted {
		for key, r := range regs {
			if _, ok := present[node][key]; !ok {
				w.unregister(node, r.latest)
			}
		}
	}
}

// host takes the change of one service's instances.
func (w *world) host(old, now []*catalog.Instance, nodes map[string]struct{}) {
	kept := map[catalog.InstanceKey]string{}
	had := map[catalog.InstanceKey]*catalog.Instance{}
	for _, inst := range old {
		had[inst.Key()] = inst
	}
	for _, inst := range now {
		if !w.hostable(inst) {
			continue
		}
		node := inst.HauberkNode()
		kept[inst.Key()] = node
		if had[inst.Key()] != inst {
			nodes[node] = struct{}{}
			w.register(node, inst)
		}
	}
	for _, inst := range old {
		if !w.hostable(inst) {
			continue
		}
		node := inst.HauberkNode()
		if kept[inst.Key()] != node {
			nodes[node] = struct{}{}
			w.unregister(node, inst)
		}
	}
}

// hostable tells the workloads of this datacenter's hosts from mere endpoints.
func (w *world) hostable(inst *catalog.Instance) bool {
	return inst.Proxy != nil && inst.Service.Datacenter == w.snap.Datacenter && inst.Service.Peer == ""
}

func (w *world) slot(node string) map[catalog.InstanceKey]*registration {
	regs := w.hosted[node]
	if regs == nil {
		regs = map[catalog.InstanceKey]*registration{}
		w.hosted[node] = regs
	}
	return regs
}

func (w *world) register(node string, inst *catalog.Instance) {
	regs := w.slot(node)
	r := regs[inst.Key()]
	if r == nil || (r.good != nil && r.good.Service != inst.Service) {
		r = &registration{}
	} else {
		copied := *r
		r = &copied
	}
	r.latest = inst
	if inst.Problem == "" {
		r.good, r.problem = inst, nil
	} else {
		reason := inst.Problem + "; it is not hosted until that is mended"
		if r.good != nil {
			reason = inst.Problem + "; its last good registration stays in force"
		}
		r.problem = &render.Problem{Service: inst.Service.Service, Path: inst.ID, Reason: reason}
	}
	regs[inst.Key()] = r
}

// unregister drops an instance, unless its key has been taken over: one that
// changed its service is gone from one list and new in another.
func (w *world) unregister(node string, inst *catalog.Instance) {
	if r := w.hosted[node][inst.Key()]; r == nil || r.latest != inst {
		return
	}
	delete(w.hosted[node], inst.Key())
	if len(w.hosted[node]) == 0 {
		delete(w.hosted, node)
	}
}

// chain compiles a discovery chain, or gives the last good one.
func (w *world) chain(name catalog.Name) *chainState {
	s := w.chains[name]
	if s == nil {
		s = &chainState{stamp: stamp{stale: true}}
		w.chains[name] = s
	}
	if !s.stale {
		return s
	}
	chain, deps, err := compile.CompileChain(w.snap, name)
	if err == nil {
		err = render.CheckChain(chain)
	}
	s.stale, s.problem = false, nil
	if err == nil {
		s.chain, s.deps = chain, deps
		return s
	}
	reason := "callers get no listener for it until that is mended"
	if s.chain != nil {
		reason = "the last good one stays in force"
		// Its instances still matter.
		deps = union(deps, s.chain.Deps)
	}
	s.deps = deps
	s.problem = &render.Problem{Service: name.Service, Reason: err.Error() + "; " + reason}
	return s
}

// authorization compiles the intentions of a service, or gives the last good.
func (w *world) authorization(name catalog.Name) *authState {
	s := w.auths[name]
	if s == nil {
		s = &authState{stamp: stamp{stale: true}}
		w.auths[name] = s
	}
	if !s.stale {
		return s
	}
	auth, deps, err := compile.CompileAuthorization(w.snap, name)
	if err == nil {
		err = render.CheckAuthorization(auth)
	}
	s.stale, s.problem, s.deps = false, nil, deps
	if err == nil {
		s.auth = auth
		return s
	}
	reason := "everyone is denied until that is mended"
	if s.auth != nil {
		reason = "the last good intentions stay in force"
	}
	s.problem = &render.Problem{Service: name.Service, Reason: err.Error() + "; " + reason}
	return s
}

// called gives the chain for a caller: with its own overrides, and those of the
// registration on top. Callers that ask for the same share one.
func (w *world) called(source catalog.Name, up *render.Upstream, base *compile.Chain) (*compile.Chain, *overrideState) {
	s := w.callerOverrides(source, up.Name)
	o := s.overrides
	if up.Overrides.ConnectTimeout > 0 {
		o.ConnectTimeout = up.Overrides.ConnectTimeout
	}
	if up.Overrides.Limits != nil {
		o.Limits = up.Overrides.Limits
	}
	if up.Overrides.PassiveHealthCheck != nil {
		o.PassiveHealthCheck = up.Overrides.PassiveHealthCheck
	}
	chain := base.With(o)
	if chain == base {
		return base, s
	}
	key := customKey{base.Service, chain.Customization}
	if c := w.customized[key]; c != nil && c.base == base {
		return c.chain, s
	}
	w.customized[key] = &customState{base, chain}
	return chain, s
}

func (w *world) callerOverrides(source, destination catalog.Name) *overrideState {
	key := callKey{source, destination}
	s := w.overrides[key]
	if s == nil {
		s = &overrideState{stamp: stamp{stale: true}}
		w.overrides[key] = s
	}
	if !s.stale {
		return s
	}
	o, deps, err := compile.CompileOverrides(w.snap, source, destination)
	s.stale, s.problem, s.deps = false, nil, deps
	if err != nil {
		s.problem = &render.Problem{Service: source.Service, Reason: err.Error() + "; the last good settings stay in force"}
		return s
	}
	s.overrides = o
	return s
}

func (w *world) upstreamsOf(inst *catalog.Instance) *upstreamState {
	s := w.upstreams[inst.Key()]
	if s == nil || s.instance != inst {
		s = &upstreamState{instance: inst}
		s.upstreams, s.problems = render.Upstreams(inst, w.snap.Datacenter)
		w.upstreams[inst.Key()] = s
	}
	return s
}

// defaults is the service's own service-defaults. Its authorization depends on
// the same entry, for the protocol.
func (w *world) defaults(name catalog.Name) *api.ServiceConfigEntry {
	key := catalog.EntryKey{Kind: api.ServiceDefaults, Partition: name.Partition, Namespace: name.Namespace, Name: catalog.FoldName(name.Service)}
	d, _ := w.snap.Entries[key].(*api.ServiceConfigEntry)
	return d
}

// forget drops the compiled results that no view used. Those of services that
// exist stay, for they may be the last good ones of a sidecar that reconnects.
func (w *world) forget(used *usage) {
	exists := func(n catalog.Name) bool { _, ok := w.snap.Instances[n]; return ok }
	maps.DeleteFunc(w.chains, func(n catalog.Name, _ *chainState) bool { return !used.chains[n] && !exists(n) })
	maps.DeleteFunc(w.auths, func(n catalog.Name, _ *authState) bool { return !used.auths[n] && !exists(n) })
	maps.DeleteFunc(w.overrides, func(k callKey, _ *overrideState) bool { return !used.calls[k] })
	maps.DeleteFunc(w.customized, func(k customKey, _ *customState) bool { return !used.chains[k.service] })
	maps.DeleteFunc(w.upstreams, func(k catalog.InstanceKey, s *upstreamState) bool {
		return !slices.Contains(w.snap.Instances[s.instance.Service], s.instance)
	})
}

func union(a, b compile.Deps) compile.Deps {
	out := compile.Deps{Entries: maps.Clone(a.Entries), Instances: maps.Clone(a.Instances)}
	if out.Entries == nil {
		out.Entries = map[catalog.EntryKey]struct{}{}
	}
	if out.Instances == nil {
		out.Instances = map[catalog.Name]struct{}{}
	}
	maps.Copy(out.Entries, b.Entries)
	maps.Copy(out.Instances, b.Instances)
	return out
}
