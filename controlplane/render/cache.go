package render

import (
	"slices"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/catalog/opaque"
	"github.com/hauberk-mesh/hauberk/controlplane/compile"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// Cache gives the result of the last rendering again while its inputs are the
// same objects, and the same *resource.Resource while the bytes are the same,
// so that a change costs what it touches and all clients of a kind share one
// body. It is owned by one goroutine.
type Cache struct {
	// sweep counts Begin; an entry not used since is dropped by End.
	sweep     uint64
	chains    memo[chainKey, chainInput, *Chain]
	endpoints memo[endpointsKey, endpointsInput, endpointsOutput]
	routes    memo[routesKey, *Chain, *resource.Resource]
	outbounds memo[outboundKey, outboundInput, listenerOutput]
	inbounds  memo[inboundKey, inboundInput, *Inbound]
	listeners memo[listenerKey, []*Inbound, listenerOutput]
	tracings  memo[inboundKey, tracingInput, tracingOutput]
	outside   memo[outsideKey, struct{}, *resource.Resource]
}

// NewCache returns an empty cache.
func NewCache() *Cache {
	c := &Cache{}
	c.chains.init(func(a, b chainInput) bool { return a == b })
	c.endpoints.init(endpointsInput.same)
	c.routes.init(func(a, b *Chain) bool { return a == b })
	c.outbounds.init(func(a, b outboundInput) bool { return a == b })
	c.inbounds.init(func(a, b inboundInput) bool { return a == b })
	c.listeners.init(slices.Equal[[]*Inbound])
	c.tracings.init(func(a, b tracingInput) bool { return a == b })
	c.outside.init(func(a, b struct{}) bool { return true })
	return c
}

type memo[K comparable, In, Out any] struct {
	entries map[K]*remembered[In, Out]
	same    func(a, b In) bool
}

type remembered[In, Out any] struct {
	in   In
	out  Out
	err  error
	used uint64
}

func (m *memo[K, In, Out]) init(same func(a, b In) bool) {
	m.entries, m.same = map[K]*remembered[In, Out]{}, same
}

// get returns what is remembered for the same inputs, or makes it anew. make
// gets the previous result, to take over what did not change.
func (m *memo[K, In, Out]) get(now uint64, key K, in In, make func(old Out) (Out, error)) (Out, error) {
	e, ok := m.entries[key]
	if ok && m.same(e.in, in) {
		e.used = now
		return e.out, e.err
	}
	if !ok {
		e = &remembered[In, Out]{}
		m.entries[key] = e
	}
	e.in, e.used = in, now
	e.out, e.err = make(e.out)
	return e.out, e.err
}

func (m *memo[K, In, Out]) drop(now uint64) {
	for k, e := range m.entries {
		if e.used < now {
			delete(m.entries, k)
		}
	}
}

// Begin starts a sweep: what is not asked for until End is dropped.
func (c *Cache) Begin() { c.sweep++ }

// End finishes a sweep.
func (c *Cache) End() {
	c.chains.drop(c.sweep)
	c.endpoints.drop(c.sweep)
	c.routes.drop(c.sweep)
	c.outbounds.drop(c.sweep)
	c.inbounds.drop(c.sweep)
	c.listeners.drop(c.sweep)
	c.tracings.drop(c.sweep)
	c.outside.drop(c.sweep)
}

// Len is the number of remembered results.
func (c *Cache) Len() int {
	return len(c.chains.entries) + len(c.endpoints.entries) + len(c.routes.entries) + len(c.outbounds.entries) +
		len(c.inbounds.entries) + len(c.listeners.entries) + len(c.tracings.entries) + len(c.outside.entries)
}

// intern returns old when it is the same resource, so that readers compare
// pointers and bodies are shared over time.
func intern(old, r *resource.Resource) *resource.Resource {
	if old == nil || r == nil || old.Version != r.Version || old.Name != r.Name || old.Type != r.Type || !slices.Equal(old.Refs, r.Refs) {
		return r
	}
	return old
}

type chainKey struct {
	client        Client
	caller        caller
	service       catalog.Name
	customization string
}

type chainInput struct {
	env   *Environment
	chain *compile.Chain
}

// Chain is NewChain, remembered.
func (c *Cache) Chain(env *Environment, client Client, source catalog.Name, chain *compile.Chain) (*Chain, error) {
	return c.chain(env, client, callerOf(client, source), source, chain)
}

// OwnChain is a chain for what the client calls by itself for a workload, with
// clusters that show that workload's identity and nobody else's.
func (c *Cache) OwnChain(env *Environment, client Client, source catalog.Name, chain *compile.Chain) (*Chain, error) {
	return c.chain(env, client, callerItself(source), source, chain)
}

func (c *Cache) chain(env *Environment, client Client, as caller, source catalog.Name, chain *compile.Chain) (*Chain, error) {
	key := chainKey{client, as, chain.Service, chain.Customization}
	return c.chains.get(c.sweep, key, chainInput{env, chain}, func(old *Chain) (*Chain, error) {
		out, err := newChain(env, client, as, source, chain)
		if err != nil {
			return nil, err
		}
		if old != nil {
			had := map[resource.Ref]*resource.Resource{}
			for _, r := range old.Resources {
				had[resource.Ref{Type: r.Type, Name: r.Name}] = r
			}
			for i, r := range out.Resources {
				out.Resources[i] = intern(had[resource.Ref{Type: r.Type, Name: r.Name}], r)
			}
		}
		return out, nil
	})
}

// endpointsKey is the name of the resource, which is that of the target: two
// chains that lead to one target share its endpoints.
type endpointsKey struct {
	service catalog.Name
	subset  string
	from    api.Locality
}

type endpointsInput struct {
	env         *Environment
	filter      string
	onlyPassing bool
	instances   []*catalog.Instance
}

func (a endpointsInput) same(b endpointsInput) bool {
	return a.env == b.env && a.filter == b.filter && a.onlyPassing == b.onlyPassing && slices.Equal(a.instances, b.instances)
}

type endpointsOutput struct {
	resource *resource.Resource
	problems []Problem
}

// Endpoints is the function of that name, remembered. Where from does not matter, all
// share one resource.
func (c *Cache) Endpoints(env *Environment, t *compile.Target, instances []*catalog.Instance, from api.Locality) (*resource.Resource, []Problem, error) {
	if !env.Nearest(t) {
		from = api.Locality{}
	}
	in := endpointsInput{env, t.Filter, t.OnlyPassing, instances}
	out, err := c.endpoints.get(c.sweep, endpointsKey{t.Service, t.Subset, from}, in, func(old endpointsOutput) (endpointsOutput, error) {
		r, problems, err := Endpoints(env, t, instances, from)
		return endpointsOutput{intern(old.resource, r), problems}, err
	})
	return out.resource, out.problems, err
}

type routesKey struct {
	chainKey
	source catalog.Name
}

// Routes is the method of that name of a chain, remembered.
func (c *Cache) Routes(env *Environment, client Client, source catalog.Name, customization string, chain *Chain) (*resource.Resource, error) {
	key := routesKey{chainKey{client, callerOf(client, source), chain.Service, customization}, source}
	return c.routes.get(c.sweep, key, chain, func(old *resource.Resource) (*resource.Resource, error) {
		r, err := chain.Routes(env, source)
		return intern(old, r), err
	})
}

type outboundKey struct {
	client   Client
	instance catalog.InstanceKey
	index    int
}

type outboundInput struct {
	env      *Environment
	instance *catalog.Instance
	chain    *Chain
	tracing  Tracing
}

type listenerOutput struct {
	resource *resource.Resource
	problems []Problem
}

// Outbound is the function of that name, remembered.
func (c *Cache) Outbound(env *Environment, client Client, inst *catalog.Instance, u Upstream, chain *Chain, tracing Tracing) (*resource.Resource, []Problem, error) {
	key := outboundKey{client, inst.Key(), u.Index}
	out, err := c.outbounds.get(c.sweep, key, outboundInput{env, inst, chain, tracing}, func(old listenerOutput) (listenerOutput, error) {
		r, problems, err := Outbound(env, client, inst, u, chain, tracing)
		return listenerOutput{intern(old.resource, r), problems}, err
	})
	return out.resource, out.problems, err
}

type inboundKey struct {
	client   Client
	instance catalog.InstanceKey
}

type inboundInput struct {
	env *Environment
	w   Workload
}

// Inbound is NewInbound, remembered.
func (c *Cache) Inbound(env *Environment, client Client, w Workload) (*Inbound, error) {
	return c.inbounds.get(c.sweep, inboundKey{client, w.Instance.Key()}, inboundInput{env, w}, func(old *Inbound) (*Inbound, error) {
		out, err := NewInbound(env, client, w)
		if err == nil && old != nil {
			out.Cluster = intern(old.Cluster, out.Cluster)
		}
		return out, err
	})
}

type listenerKey struct {
	client Client
	node   string
	host   string
	port   int
	// first tells the listeners of narrowed views apart from the whole one.
	first catalog.InstanceKey
}

// InboundListener is the function of that name, remembered by node.
func (c *Cache) InboundListener(client Client, node string, first catalog.InstanceKey, chains []*Inbound) (*resource.Resource, []Problem, error) {
	key := listenerKey{client, node, chains[0].Host, chains[0].Port, first}
	out, err := c.listeners.get(c.sweep, key, chains, func(old listenerOutput) (listenerOutput, error) {
		r, problems, err := InboundListener(chains)
		return listenerOutput{intern(old.resource, r), problems}, err
	})
	return out.resource, out.problems, err
}

type tracingInput struct {
	env      *Environment
	instance *catalog.Instance
}

type tracingOutput struct {
	settings *opaque.Tracing
	problems []Problem
}

// TracingOf is the function of that name, remembered: while nothing changes, the
// settings are the same object, which the renderings of listeners are told apart by.
func (c *Cache) TracingOf(env *Environment, client Client, inst *catalog.Instance) (*opaque.Tracing, []Problem) {
	out, _ := c.tracings.get(c.sweep, inboundKey{client, inst.Key()}, tracingInput{env, inst}, func(tracingOutput) (tracingOutput, error) {
		t, problems := TracingOf(env, client, inst)
		return tracingOutput{t, problems}, nil
	})
	return out.settings, out.problems
}

type outsideKey struct {
	client Client
	name   string
}

// Collector is the function of that name, remembered.
func (c *Cache) Collector(client Client, t *opaque.Tracing) (*resource.Resource, error) {
	key := outsideKey{client, collectorName(t)}
	return c.outside.get(c.sweep, key, struct{}{}, func(*resource.Resource) (*resource.Resource, error) {
		return Collector(client, t)
	})
}
