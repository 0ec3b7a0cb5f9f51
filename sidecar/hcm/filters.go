package hcm

import (
	"fmt"
	"maps"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	bodybuffer "github.com/hauberk-mesh/hauberk/sidecar/filter/buffer"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/cors"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/fault"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/grpcbridge"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/headermutation"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/healthcheck"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/ratelimit"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// HTTPFilter is a filter of the chain before the router.
type HTTPFilter struct {
	// Name is what routes call it in their overrides.
	Name string
	// Disabled: it runs only where a route has a configuration for it.
	Disabled bool
	// Config is of a type of one of the packages below sidecar/filter, or an
	// RBACFilter.
	Config any
}

// FilterChain is the filters that requests pass: Filters run in order before the router; RBAC are
// those of them that are RBAC.
type FilterChain struct {
	Filters []HTTPFilter
	RBAC    []authz.HTTPFilter
}

// RBACFilter stands for the next of FilterChain.RBAC, in order.
type RBACFilter struct{}

// CORSFilter is the CORS filter, whose policies are those of routes.
type CORSFilter struct{}

// DeprecatedCORS is the name by which the policies of the deprecated cors fields of
// virtual hosts and routes find a CORS filter, whatever the filter's own.
const DeprecatedCORS = "(cors)"

// maxFilters bounds a chain: an exchange notes in a word which were asked.
const maxFilters = 64

// chain is the filters of a connection manager.
type chain struct {
	links []link
	// faultHeaders: the headers by which requests may choose faults are kept.
	faultHeaders bool
	// trailers: some filter looks at those of answers.
	trailers bool

	count authz.CounterFor
	rules *authz.Evaluator // of the RBAC filters, in order
	// normalized: paths are, before rules see them.
	normalized bool
}

// looks tells whether some filter sees requests and answers by their exchange's context: all
// but RBAC do.
func (c *chain) looks() bool {
	for i := range c.links {
		if !c.links[i].rbac {
			return true
		}
	}
	return false
}

type link struct {
	name     string
	alias    string // another name by which routes may mean it
	disabled bool
	rbac     bool
	index    int           // of an RBAC filter among those of the chain
	filter   filter.Filter // nil for RBAC
	ender    filter.Ender
	trailers filter.Trailers
}

func (l *link) is(name string) bool { return name == l.name || l.alias != "" && name == l.alias }

// binding is what the chain made of the overrides of one route table.
type binding struct {
	table    *route.Table
	compiled map[*route.FilterOverride]any
	// spared are the links that some route disables, by bit, and instead what routes have
	// in place of the rules of RBAC, by link.
	spared  uint64
	instead map[int][]*authz.Evaluator
	// subsets are what routes and their legs ask of endpoints' metadata.
	subsets map[subsetKey]*cluster.MetadataMatch
	// upgrades are the protocols that some route allows.
	upgrades []string
	err      error
}

type subsetKey struct {
	forward *route.Forward
	leg     *route.WeightedCluster
}

// subset is what the selected route asks of endpoints' metadata, nil for nothing.
func (b *binding) subset(s *route.Selected) *cluster.MetadataMatch {
	return b.subsets[subsetKey{s.Route.Forward, s.Leg}]
}

// addSubsets: a leg's metadata is merged over its route's.
func (b *binding) addSubsets(c *route.Config) {
	for i := range c.VirtualHosts {
		for j := range c.VirtualHosts[i].Routes {
			f := c.VirtualHosts[i].Routes[j].Forward
			if f == nil {
				continue
			}
			b.addSubset(subsetKey{f, nil}, f.Metadata)
			for k := range f.Weighted {
				leg := &f.Weighted[k]
				all := maps.Clone(f.Metadata)
				if all == nil {
					all = map[string]any{}
				}
				maps.Copy(all, leg.Metadata)
				b.addSubset(subsetKey{f, leg}, all)
			}
		}
	}
}

func (b *binding) addSubset(k subsetKey, fields map[string]any) {
	if m := cluster.NewMetadataMatch(fields); m != nil {
		b.subsets[k] = m
	}
}

func (m *Manager) newChain(cfg *FilterChain, normalized bool, o Options) (*chain, error) {
	c := &chain{normalized: normalized}
	if len(cfg.Filters) > maxFilters {
		return nil, fmt.Errorf("%d HTTP filters; %d are the most", len(cfg.Filters), maxFilters)
	}
	if o.Metrics != nil {
		c.count = o.Metrics.AuthzCounter
	}
	rbacs := 0
	for i := range cfg.Filters {
		f := &cfg.Filters[i]
		l := link{name: f.Name, disabled: f.Disabled}
		var err error
		if _, l.rbac = f.Config.(RBACFilter); l.rbac {
			l.index = rbacs
			rbacs++
		} else if l.filter, err = m.newFilter(f, o); err != nil {
			return nil, fmt.Errorf("filter %q: %w", f.Name, err)
		}
		l.ender, _ = l.filter.(filter.Ender)
		l.trailers, _ = l.filter.(filter.Trailers)
		c.trailers = c.trailers || l.trailers != nil
		if _, ok := f.Config.(CORSFilter); ok {
			l.alias = DeprecatedCORS
		}
		if _, ok := f.Config.(*fault.Config); ok {
			c.faultHeaders = true
		}
		c.links = append(c.links, l)
	}
	if rbacs != len(cfg.RBAC) {
		return nil, fmt.Errorf("%d RBAC filters have %d places in the chain", len(cfg.RBAC), rbacs)
	}
	var err error
	c.rules, err = authz.Compile(cfg.RBAC, authz.Exchange, c.count)
	c.rules.OfNormalized(c.normalized)
	return c, err
}

func (m *Manager) newFilter(f *HTTPFilter, o Options) (filter.Filter, error) {
	var count filter.Counter
	if o.Metrics != nil {
		count = func(event string) *telemetry.Counter { return o.Metrics.FilterEvents.With(f.Name, event) }
	}
	switch c := f.Config.(type) {
	case *fault.Config:
		return fault.New(c, count)
	case *ratelimit.Config:
		return ratelimit.New(c, ratelimit.Place{Source: o.ServiceCluster, Members: m.ownMembers()}, count)
	case CORSFilter:
		return cors.New(count), nil
	case *headermutation.Config:
		return headermutation.New(c)
	case *healthcheck.Config:
		return healthcheck.New(c, m.healthy, o.ServiceCluster, count)
	case *grpcbridge.Config:
		return grpcbridge.New(c), nil
	case *bodybuffer.Config:
		return bodybuffer.New(c), nil
	}
	return nil, fmt.Errorf("there is no filter for a %T", f.Config)
}

// ownMembers tells how many hosts the local cluster has, nil where there is none. A check of the
// configuration, which has no clusters, does not know.
func (m *Manager) ownMembers() func() int {
	if m.clusters == nil {
		return func() int { return 1 }
	}
	return m.clusters.OwnMembers()
}

// healthy implements healthcheck.Healthy.
func (m *Manager) healthy(name string) (healthy, total int, ok bool) {
	c := m.clusters.Get(name)
	if c == nil {
		return 0, 0, false
	}
	hosts := c.Stats()
	for i := range hosts {
		if h := &hosts[i]; !h.Ejected && (h.Health == cluster.Healthy || h.Health == cluster.Degraded) {
			healthy++
		}
	}
	return healthy, len(hosts), true
}

// bind prepares a table's overrides for the chain.
func (c *chain) bind(t *route.Table) *binding {
	b := &binding{table: t, compiled: map[*route.FilterOverride]any{}, instead: map[int][]*authz.Evaluator{},
		subsets: map[subsetKey]*cluster.MetadataMatch{}}
	b.addSubsets(t.Config())
	b.upgrades = upgradesOf(t.Config())
	t.EachOverride(func(where string, o *route.FilterOverride) {
		for i := range c.links {
			l := &c.links[i]
			if !l.is(o.Name) {
				continue
			}
			if o.Disabled {
				b.spared |= 1 << i
			}
			if o.Config != nil && b.err == nil {
				if b.compiled[o], b.err = c.override(l, o.Config); b.err != nil {
					b.err = fmt.Errorf("%s[%q]: %w", where, o.Name, b.err)
				} else if e, ok := b.compiled[o].(*authz.Evaluator); ok {
					b.instead[i] = append(b.instead[i], e)
				} else { // what a route limits, it limits together
					b.compiled[o] = t.Share(o, b.compiled[o])
				}
			}
		}
	})
	return b
}

func (c *chain) override(l *link, config any) (any, error) {
	if !l.rbac {
		o, ok := l.filter.(filter.Overrider)
		if !ok {
			return nil, fmt.Errorf("the filter takes no configuration from routes")
		}
		return o.Override(config)
	}
	f, ok := config.(*authz.HTTPFilter)
	if !ok {
		return nil, fmt.Errorf("the filter is RBAC, and the route's configuration a %T", config)
	}
	e, err := authz.Compile([]authz.HTTPFilter{*f}, authz.Exchange, c.count)
	return e.Named(c.rules, l.index).OfNormalized(c.normalized), err
}

// overrides collects what the selected route's levels have for a filter, the most
// specific first, and tells whether it runs.
func (x *exchange) overrides(l *link) (runs bool) {
	runs = !l.disabled
	if !x.overridden {
		return runs
	}
	x.fctx.Overrides = x.fctx.Overrides[:0]
	said := false
	for _, level := range x.levels {
		for i := range level {
			o := &level[i]
			if !l.is(o.Name) {
				continue
			}
			if !said && o.Name == l.name { // the deprecated fields switch nothing on
				said, runs = true, !o.Disabled
			}
			if o.Config != nil && !o.Disabled {
				x.fctx.Overrides = append(x.fctx.Overrides, x.binding.compiled[o])
			}
		}
	}
	return runs
}

// runFilters asks the chain; it is true when the request goes on to the router.
//
//go:noinline
func (x *exchange) runFilters() bool {
	c := x.policy.chain
	x.decided, x.decision = true, authz.Decision{Allowed: true}
	if len(c.links) == 0 {
		return true
	}
	if !x.beginFilters() {
		x.refuseBinding()
		return false
	}
	for i := range c.links {
		l := &c.links[i]
		runs := x.overrides(l)
		switch {
		case l.rbac:
			if !x.authorize(l, runs) {
				return false
			}
		case runs:
			x.asked |= 1 << i
			x.fctx.State = &x.states[i]
			v := l.filter.Request(&x.fctx)
			x.flags |= x.fctx.Flags
			if !v.Continues() {
				x.decision.Count(x.d.Shard) // of the rules before it
				x.stopped(v)
				return false
			}
		}
	}
	x.decision.Count(x.d.Shard)
	return true
}

// refuseBinding answers where what the routes say of the filters does not fit them.
//
//go:noinline
func (x *exchange) refuseBinding() {
	x.m.log.Error("route table does not fit the HTTP filters", "err", x.binding.err)
	x.answer(500, "route_filter_config")
}

// beginFilters settles what the route says of filters, and sets up what they see. It is false
// for a table whose overrides do not fit the chain, which serves nothing: some of them may forbid.
func (x *exchange) beginFilters() bool {
	x.speaksGRPC()
	x.filtered = true
	if x.policy.chain.looks() {
		x.beginContext()
	}
	if levels, any := x.sel.Overrides(); any {
		x.levels, x.overridden = levels, true
		x.binding = x.policy.bind(x.table)
		return x.binding.err == nil
	}
	return true
}

// beginContext sets up what filters see. Rules of RBAC alone do without: it is memory that
// nothing else of an exchange is in.
//
//go:noinline
func (x *exchange) beginContext() {
	x.looked = true
	x.fctx = filter.Context{
		Exchange: x, Request: x.req, Selected: &x.sel, Client: &x.asker, Peer: x.peer, Shard: x.d.Shard,
		Scratch: &x.scratch, Overrides: x.fctx.Overrides,
	}
	if n := len(x.policy.chain.links); cap(x.states) < n {
		x.states = make([]filter.State, n)
	} else {
		x.states = x.states[:n]
	}
}

// endFilters tells the filters that the exchange is over, and forgets them.
func (x *exchange) endFilters() {
	if x.asked != 0 {
		links := x.policy.chain.links
		for i := range links {
			if l := &links[i]; l.ender != nil && x.asked&(1<<i) != 0 {
				x.fctx.State = &x.states[i]
				l.ender.End(&x.fctx)
			}
		}
		x.asked = 0
	}
	if !x.filtered {
		return
	}
	x.filtered, x.binding = false, nil
	if x.overridden {
		x.overridden, x.levels = false, [4][]route.FilterOverride{}
		clear(x.fctx.Overrides[:cap(x.fctx.Overrides)])
		x.fctx.Overrides = x.fctx.Overrides[:0]
	}
	if x.looked {
		clear(x.states)
		x.fctx = filter.Context{Overrides: x.fctx.Overrides}
		x.looked, x.reqTrailers = false, nil
	}
}

// stopped ends a request by a filter's verdict.
//
//go:noinline
func (x *exchange) stopped(v filter.Verdict) {
	r := v.Reply()
	switch {
	case r != nil:
		if !r.LateFlags {
			x.flags |= r.Flags
		}
		x.localReply(&reply{status: r.Status, body: r.Body, details: r.Details, filter: r})
	case x.status != 0:
		// The filter had the connection manager answer.
	case x.lifeEnd != noDeadline && monotonic() >= x.lifeEnd:
		x.fail(lifeOver)
	default:
		x.clientLeft()
	}
}

// authorize asks one RBAC filter, or what a route has instead of it.
func (x *exchange) authorize(l *link, runs bool) bool {
	if !runs {
		return true
	}
	e, i := x.policy.chain.rules, l.index
	if x.overridden && len(x.fctx.Overrides) > 0 {
		if e, i = x.fctx.Overrides[0].(*authz.Evaluator), 0; e.Len() == 0 {
			return true // nothing is asked on this route
		}
	}
	ok := e.Next(i, x.peer, x.req, x, &x.decision) || x.denied()
	// Rules of another filter may ask for it that were read since this request began.
	if (x.observed.wants|telemetry.Wanted())&telemetry.WantMetadata != 0 {
		x.explain(e, i)
	}
	return ok
}

// explain notes what an RBAC filter found.
//
//go:noinline
func (x *exchange) explain(e *authz.Evaluator, i int) {
	x.noteFindings(e.Explain(i, x.peer, x.req, x))
}

// Said implements authz.Metadata.
func (x *exchange) Said(namespace, key string) (value any, ok bool) {
	text, ok := x.record().Metadata.Get(namespace, key)
	if namespace == telemetry.MetadataCommon {
		return text == "true", ok
	}
	return text, ok
}

// OfRoute implements authz.Metadata.
func (x *exchange) OfRoute(namespace string) (fields map[string]any, routed bool) {
	if x.sel.Route == nil {
		return nil, false
	}
	return x.sel.Route.Metadata[namespace], true
}

// IgnoresParameters implements authz.Metadata.
func (x *exchange) IgnoresParameters() bool {
	return x.sel.Route != nil && x.table.Config().IgnorePathParameters
}

// noteFindings keeps in Envoy's terms what an RBAC filter found. A key that a filter says nothing of
// keeps what one before it said. An answer that the filter gave was made without, as in Envoy.
func (x *exchange) noteFindings(f authz.Findings) {
	r := x.record()
	if r.Metadata == nil {
		r.Metadata = &telemetry.Metadata{}
	}
	note := func(prefix, kind string, f authz.Finding) {
		if !f.Asked {
			return
		}
		result := "denied"
		if f.Allowed {
			result = "allowed"
		}
		r.Metadata.Set(telemetry.MetadataRBAC, prefix, kind+"_engine_result", result)
		if f.Policy != "" {
			r.Metadata.Set(telemetry.MetadataRBAC, prefix, kind+"_effective_policy_id", f.Policy)
		}
	}
	note(f.Prefix, "shadow", f.Shadow)
	note(f.RulesPrefix, "enforced", f.Rules)
	if f.Logs {
		r.Metadata.SetFlag(telemetry.MetadataCommon, telemetry.LogHint, f.Logged)
	}
}

// denied answers a request that authorization refused; it is always false.
//
//go:noinline
func (x *exchange) denied() bool {
	x.decision.Count(x.d.Shard)
	x.localReply(&reply{status: 403, body: "RBAC: access denied", details: "rbac_access_denied"})
	return false
}

// filterResponse shows the response to the filters that saw the request, the last one
// first. An answer of our own goes through all of the chain, as in Envoy: also what is
// answered before a filter's turn has the headers that every answer is to have.
func (x *exchange) filterResponse() {
	if x.asked == 0 && !(x.local && x.beginAnswer()) {
		return
	}
	if x.holding && x.held.over {
		return // what is sent in place of an answer that was held is no filter's
	}
	x.fctx.Response = x.resp
	links := x.policy.chain.links
	for i := len(links) - 1; i >= 0; i-- {
		l, saw := &links[i], x.asked&(1<<i) != 0
		if l.rbac || !saw && !x.local {
			continue
		}
		if runs := x.overrides(l); !saw && !runs {
			continue
		}
		x.fctx.State = &x.states[i]
		l.filter.Response(&x.fctx)
		if x.holding && x.held.over {
			return
		}
	}
	x.flags |= x.fctx.Flags
}

// beginAnswer is beginFilters for an answer that no filter was asked for; false where
// there are none to see it.
func (x *exchange) beginAnswer() bool {
	if x.policy == nil {
		x.takePolicy() // the request was refused before anybody looked at it
	}
	switch {
	case !x.policy.chain.looks():
		return false
	case !x.filtered:
		return x.beginFilters()
	}
	return x.binding == nil || x.binding.err == nil
}
