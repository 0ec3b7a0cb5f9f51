package hcm

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// policy is all of a connection manager that decides whether a request goes on, and where
// to: whose word is taken for who asks, how path, host and field names are read, the routes
// with what they say of each filter, and the filters with the rules of RBAC in their places. After a listener update a connection has that of
// the chain which it would get now, while its own manager goes on to serve it. It is taken
// as one thing, once for each request: new rules in the places, under the names or with
// the switches of an old chain could be skipped.
type policy struct {
	// cfg has Trust, what becomes of x-forwarded-client-cert, the scheme, the rules for
	// hosts and names, and the protocols that a request may switch to.
	cfg   *Config
	paths pathRules
	// early is Config.EarlyMutations.
	early  route.Mutations
	certs  *authz.Choice // of Config.ClientCertCases, nil for none
	routes func() *route.Table
	chain  *chain
	// bound is one for all who are judged by the policy: route-level limits are in it.
	bound bindings
	// upgrades judge requests for protocols with a chain of their own; of is the policy that
	// such a one is a part of, nil for a whole one.
	upgrades []upgradePolicy
	of       *policy
	// someFaults: requests may choose faults in some chains and not in others. Which one is a
	// request's is found after what its client may say.
	someFaults bool
}

// bind prepares a table's overrides for the policy's chain.
func (p *policy) bind(t *route.Table) *binding { return p.bound.of(p.chain, t, p.routes) }

// Policy is what decides over requests by the manager's configuration. It stays of use
// after Close, to connections of other managers.
func (m *Manager) Policy() *downstream.Policy { return m.shown }

// takePolicy settles what decides over the request.
func (x *exchange) takePolicy() {
	x.policy = &x.m.policy
	if p := x.d.Policy(); p != nil && p != x.m.shown {
		x.policy = p.Held.(*policy) // only managers make them
	}
}

// policyInForce tells whether no update has come since takePolicy.
func (x *exchange) policyInForce() bool {
	p := x.d.Policy()
	return p == nil || p.Held.(*policy) == x.policy.whole()
}

// newEarly compiles Config.EarlyMutations.
func newEarly(cfg *Config) (route.Mutations, error) {
	out, err := route.NewMutations(cfg.EarlyMutations, message.RequestSingles)
	if err != nil {
		return out, fmt.Errorf("early header mutations: %w", err)
	}
	return out, nil
}

// judgeNames treats names with underscores as the policy has it where the connection's
// codec, which is older, did not. It answers when they are refused.
func (x *exchange) judgeNames() bool {
	rule := x.policy.cfg.UnderscoreNames
	if rule == AllowUnderscores || rule == x.m.cfg.UnderscoreNames {
		return true
	}
	if dropUnderscores(&x.req.Fields) && rule == RejectUnderscores {
		x.refuseMessage(http1.ErrUnderscore)
		return false
	}
	return true
}

// judgeScheme refuses a target that says https on a plain connection to an edge: nobody
// before us could have taken TLS off. Other requests of HTTP/1 have no scheme yet.
func (x *exchange) judgeScheme() bool {
	cfg := x.policy.cfg
	if x.req.Scheme != "https" || x.req.Version == message.HTTP2 || x.d.Info.TLS || !cfg.UseRemoteAddress || cfg.XFFTrustedHops > 0 {
		return true
	}
	x.refuseMessage(http1.ErrSchemeForbidden)
	return false
}

// judgeQuery refuses a QUERY that does not say what kind of query it is (RFC 10008 2.1).
func (x *exchange) judgeQuery() bool {
	if x.req.Method != "QUERY" {
		return true
	}
	if kind, _ := x.req.Fields.ByID(message.ContentType); kind != "" {
		return true
	}
	x.answer(400, "query_missing_content_type")
	return false
}

// judgeTrailers is judgeNames for a request's trailers. Its head may have gone on: also what
// would be refused is dropped.
func (x *exchange) judgeTrailers(t *message.Fields) *message.Fields {
	rule := x.policy.cfg.UnderscoreNames
	if rule != AllowUnderscores && rule != x.m.cfg.UnderscoreNames && dropUnderscores(t) && t.Len() == 0 {
		return nil
	}
	return t
}

// dropUnderscores tells whether there were any.
func dropUnderscores(f *message.Fields) (any bool) {
	for i := range f.Slots() {
		if name, _, ok := f.At(i); ok && strings.IndexByte(name, '_') >= 0 {
			f.DelAt(i)
			any = true
		}
	}
	return any
}

// DeniesAll tells whether every request of a peer would be denied, whatever it asked for
// and whichever route it took, and by which rule: then a connection of the peer has no use
// any more, and what it carries must not go on. In doubt it is false: so it is where a
// route decides otherwise, or by the client's address and the peer may name other clients.
func (m *Manager) DeniesAll(p *authz.Peer) (rule string, denied bool) {
	if rule, denied = m.policy.deniesAll(p); !denied {
		return "", false
	}
	for _, u := range m.policy.upgrades {
		if _, denied := u.policy.deniesAll(p); !denied && m.policy.mayReach(u.kind) {
			return "", false
		}
	}
	return rule, true
}

// mayReach tells whether requests for a protocol may pass its own chain.
func (p *policy) mayReach(kind string) bool {
	if allowed, _ := route.Allows(p.cfg.Upgrades, kind); allowed {
		return true
	}
	t := p.routes()
	return t != nil && names(p.bind(t).upgrades, kind)
}

// deniesAll is DeniesAll for the requests that pass the policy's own chain. Whether they may be of
// other clients is the policy's to say as well, and not the connection's older manager's.
func (p *policy) deniesAll(peer *authz.Peer) (rule string, denied bool) {
	c, forwarded := p.chain, p.cfg.NamesClients()
	var b *binding
	if t := p.routes(); t != nil {
		// Where overrides do not fit, requests that have any are refused.
		if b = p.bind(t); b.err != nil {
			b = nil
		}
	}
	for i := range c.links {
		l := &c.links[i]
		if !l.rbac || l.disabled {
			continue
		}
		if rule, denied = c.rules.DeniesAll(l.index, peer, forwarded); denied && b.denyAll(i, peer, forwarded) {
			return rule, true
		}
	}
	return "", false
}

// denyAll tells whether all that routes have in place of an RBAC filter denies every
// request too.
func (b *binding) denyAll(link int, p *authz.Peer, forwarded bool) bool {
	if b == nil {
		return true
	}
	if b.spared&(1<<link) != 0 {
		return false
	}
	for _, e := range b.instead[link] {
		if _, denied := e.DeniesAll(0, p, forwarded); !denied {
			return false
		}
	}
	return true
}

// NamesClients tells whether a request may name another client than who connected: then
// its address is not known before the request is.
func (t *Trust) NamesClients() bool { return !t.UseRemoteAddress || t.XFFTrustedHops > 0 }

// bindings are what a policy made of the overrides of the newest route table.
type bindings struct {
	build  sync.Mutex
	newest atomic.Pointer[binding]
}

// of prepares a table's overrides for the chain, once for each table. Whoever still has a
// table that is not in force any more does not replace what the others share.
func (s *bindings) of(c *chain, t *route.Table, inForce func() *route.Table) *binding {
	if b := s.newest.Load(); b != nil && b.table == t {
		return b
	}
	s.build.Lock()
	defer s.build.Unlock()
	if b := s.newest.Load(); b != nil && b.table == t {
		return b
	}
	b := c.bind(t)
	if inForce() == t {
		s.newest.Store(b)
	}
	return b
}
