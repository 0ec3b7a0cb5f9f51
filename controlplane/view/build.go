package view

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/render"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// usage records what of the world a view is made of.
type usage struct {
	chains map[catalog.Name]bool
	auths  map[catalog.Name]bool
	calls  map[callKey]bool
}

func newUsage() *usage {
	return &usage{chains: map[catalog.Name]bool{}, auths: map[catalog.Name]bool{}, calls: map[callKey]bool{}}
}

// product is a view as computed from one world.
type product struct {
	byType   map[string]map[string]*resource.Resource
	problems []render.Problem
	used     *usage
	// stamps are of the compiled results, instances the services whose
	// endpoints are shown.
	stamps    []*stamp
	instances map[catalog.Name]struct{}
}

// touched reports whether a publication may change the product.
func (p *product) touched(node string, c changes) bool {
	if c.all {
		return true
	}
	if _, ok := c.nodes[node]; ok {
		return true
	}
	for n := range c.dirty.Instances {
		if _, ok := p.instances[n]; ok {
			return true
		}
	}
	return slices.ContainsFunc(p.stamps, func(s *stamp) bool { return s.touched == c.tick })
}

type builder struct {
	w      *world
	client Client
	out    *product
	routed map[*render.Chain]bool // chains whose resources are in already
	from   api.Locality           // where the node is
}

// build computes what a client sees.
func (w *world) build(client Client) *product {
	b := &builder{
		w: w, client: client,
		out: &product{byType: map[string]map[string]*resource.Resource{}, used: newUsage(),
			instances: map[catalog.Name]struct{}{}},
		routed: map[*render.Chain]bool{},
	}
	for _, t := range resource.PushOrder {
		b.out.byType[t] = map[string]*resource.Resource{}
	}
	inbound := map[hostPort][]*render.Inbound{}
	workloads := b.workloads()
	b.locate(workloads)
	for _, inst := range workloads {
		tracing := b.tracing(inst)
		if in := b.inbound(inst, tracing); in != nil {
			at := hostPort{in.Host, in.Port}
			inbound[at] = append(inbound[at], in)
		}
		b.outbound(inst, tracing)
	}
	// In one order: who has a name first keeps it, and what is said of the other is the same
	// each time.
	for _, at := range slices.SortedFunc(maps.Keys(inbound), hostPort.compare) {
		// A chain leads to its own application or nowhere.
		chains := slices.DeleteFunc(inbound[at], func(c *render.Inbound) bool { return !b.add(c.Cluster, c.Service) })
		if len(chains) == 0 {
			continue
		}
		first := catalog.InstanceKey{Node: client.Node, ID: chains[0].Registration}
		l, problems, err := w.cache.InboundListener(client.Kind, client.Node, first, chains)
		b.mine(problems)
		if err != nil {
			b.failed(chains[0].Service, err)
			continue
		}
		b.add(l, chains[0].Service)
	}
	b.out.problems = render.SortProblems(b.out.problems)
	return b.out
}

// locate finds where the node is: where the first of its registrations is that says so.
func (b *builder) locate(workloads []*catalog.Instance) {
	for _, inst := range workloads {
		switch at := render.Locality(inst); {
		case at.Region == "" || at == b.from:
		case b.from.Region == "":
			b.from = at
		default:
			b.problem(inst.Service.Service, inst.ID+" Locality", "%s/%s: another registration of the node is in %s/%s, and that is where it is taken to be; make them agree",
				at.Region, at.Zone, b.from.Region, b.from.Zone)
		}
	}
}

type hostPort struct {
	host string
	port int
}

func (a hostPort) compare(b hostPort) int {
	return cmp.Or(cmp.Compare(a.host, b.host), cmp.Compare(a.port, b.port))
}

// workloads are the registrations the client hosts, by registration id: those
// of its node whose identity its join record permits, and no others, whatever
// the client asks for.
func (b *builder) workloads() []*catalog.Instance {
	var out []*catalog.Instance
	for _, r := range b.w.hosted[b.client.Node] {
		inst := r.good
		if inst == nil {
			inst = r.latest
		}
		if b.client.Workloads != nil && !slices.Contains(b.client.Workloads, inst.ID) {
			continue
		}
		id, err := b.w.env.ServiceID(inst.Service)
		if err != nil {
			b.failed(inst.Service.Service, err)
			continue
		}
		if b.client.Entitled != nil && !slices.Contains(b.client.Entitled, id) {
			continue
		}
		if !slices.Contains(b.client.Permitted, id) {
			b.problem(inst.Service.Service, inst.ID, "the join record of node %q does not permit %s; it is not hosted; join the node with a token that names it", b.client.Node, id)
			continue
		}
		if r.problem != nil {
			b.mine([]render.Problem{*r.problem})
		}
		if r.good != nil {
			out = append(out, r.good)
		}
	}
	slices.SortFunc(out, func(a, b *catalog.Instance) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Node, b.Node))
	})
	return out
}

func (b *builder) inbound(inst *catalog.Instance, tracing render.Tracing) *render.Inbound {
	auth := b.w.authorization(inst.Service)
	b.out.used.auths[inst.Service] = true
	defaults := b.w.defaults(inst.Service)
	b.out.stamps = append(b.out.stamps, &auth.stamp)
	w := render.Workload{Instance: inst, Authorization: auth.auth, Defaults: defaults, Tracing: tracing}
	if auth.problem != nil {
		b.everyones([]render.Problem{*auth.problem})
		if auth.auth == nil {
			w.Denied = auth.problem.Reason
		}
	}
	in, err := b.w.cache.Inbound(b.w.env, b.client.Kind, w)
	if err != nil {
		b.failed(inst.Service.Service, err)
		return nil
	}
	b.mine(in.Problems)
	if in.Chain == nil {
		return nil
	}
	return in
}

func (b *builder) outbound(inst *catalog.Instance, tracing render.Tracing) {
	ups := b.w.upstreamsOf(inst)
	b.mine(ups.problems)
	for i := range ups.upstreams {
		up := &ups.upstreams[i]
		state := b.w.chain(up.Name)
		b.out.used.chains[up.Name] = true
		b.out.used.calls[callKey{inst.Service, up.Name}] = true
		b.out.stamps = append(b.out.stamps, &state.stamp)
		if state.problem != nil {
			b.everyones([]render.Problem{*state.problem})
		}
		if state.chain == nil {
			continue
		}
		for _, p := range up.CheckProtocol(state.chain.Protocol) {
			p.Service = inst.Service.Service
			b.mine([]render.Problem{p})
		}
		compiled, overrides := b.w.called(inst.Service, up, state.chain)
		b.out.stamps = append(b.out.stamps, &overrides.stamp)
		if overrides.problem != nil {
			b.everyones([]render.Problem{*overrides.problem})
		}
		chain, err := b.w.cache.Chain(b.w.env, b.client.Kind, inst.Service, compiled)
		if err != nil {
			b.failed(up.Name.Service, err)
			continue
		}
		b.mine(chain.Problems)
		if chain.Withheld != "" || !b.reach(chain) {
			continue
		}
		l, problems, err := b.w.cache.Outbound(b.w.env, b.client.Kind, inst, *up, chain, tracing.To(up.Name))
		for k := range problems {
			problems[k].Service = inst.Service.Service
		}
		b.mine(problems)
		if err != nil {
			b.failed(inst.Service.Service, err)
			continue
		}
		r, err := b.w.cache.Routes(b.w.env, b.client.Kind, inst.Service, compiled.Customization, chain)
		if err != nil {
			b.failed(inst.Service.Service, err)
			continue
		}
		if r != nil {
			b.add(r, inst.Service.Service)
		}
		b.add(l, inst.Service.Service)
	}
}

// reach adds what a chain leads to, once. A cluster never comes without its
// endpoints.
func (b *builder) reach(chain *render.Chain) bool {
	if done, ok := b.routed[chain]; ok {
		return done
	}
	var endpoints []*resource.Resource
	for _, t := range chain.Targets {
		b.out.instances[t.Service] = struct{}{}
		r, problems, err := b.w.cache.Endpoints(b.w.env, t, b.w.snap.Instances[t.Service], b.from)
		b.everyones(problems)
		if b.from.Region == "" && b.w.env.Nearest(t) {
			b.problem(t.Service.Service, "PrioritizeByLocality", "no registration of the node says in its Locality where it is, so no instance is nearer than another; set it")
		}
		if err != nil {
			b.failed(t.Service.Service, err)
			b.routed[chain] = false
			return false
		}
		endpoints = append(endpoints, r)
	}
	for _, r := range slices.Concat(chain.Resources, endpoints) {
		b.add(r, chain.Service.Service)
	}
	b.routed[chain] = true
	return true
}

// add puts a resource into the set. Two that share a name and differ come from
// registrations that contradict each other: the first stands, and add reports
// whether that is r.
func (b *builder) add(r *resource.Resource, service string) bool {
	set := b.out.byType[r.Type]
	if have, ok := set[r.Name]; ok && have.Version != r.Version {
		b.problem(service, r.Name, "another registration of the node gives the same %s other settings, and those are in force; make them agree", kindOf(r.Type))
		return false
	}
	set[r.Name] = r
	return true
}

func kindOf(typeURL string) string {
	switch typeURL {
	case resource.ClusterType:
		return "cluster"
	case resource.ListenerType:
		return "listener"
	case resource.RouteType:
		return "route configuration"
	}
	return "resource"
}

func (b *builder) problem(service, path, format string, args ...any) {
	b.mine([]render.Problem{{Service: service, Path: path, Reason: fmt.Sprintf(format, args...)}})
}

// failed reports what could not be rendered at all.
func (b *builder) failed(service string, err error) {
	b.mine([]render.Problem{{Service: service, Reason: err.Error() + "; it is withheld"}})
}

// mine reports what concerns this node, everyones what concerns every one.
func (b *builder) mine(ps []render.Problem) {
	for _, p := range ps {
		p.Node = b.client.Node
		b.out.problems = append(b.out.problems, p)
	}
}

func (b *builder) everyones(ps []render.Problem) { b.out.problems = append(b.out.problems, ps...) }
