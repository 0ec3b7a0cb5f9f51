package hcm

import (
	"sync"
	"sync/atomic"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// policy is all of a connection manager that decides whether a request goes on, and where
// to: how its path is read, the routes with what they say of each filter, and the filters
// with the rules of RBAC in their places. After a listener update a connection has that of
// the chain which it would get now, while its own manager goes on to serve it. It is taken
// as one thing, once for each request: new rules in the places, under the names or with
// the switches of an old chain could be skipped.
type policy struct {
	paths  pathRules
	routes func() *route.Table
	chain  *chain
}

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

// StandingRules are the RBAC filters that every request meets, unless a route says
// otherwise.
func (c *Config) StandingRules() []authz.HTTPFilter {
	disabled := map[int]bool{}
	n := 0
	for i := range c.Filters {
		if _, ok := c.Filters[i].Config.(RBACFilter); ok {
			disabled[n] = c.Filters[i].Disabled
			n++
		}
	}
	var out []authz.HTTPFilter
	for i := range c.RBAC {
		if !disabled[i] {
			out = append(out, c.RBAC[i])
		}
	}
	return out
}

// bindings are what a manager made of the overrides of the newest route table.
type bindings struct {
	build  sync.Mutex
	newest atomic.Pointer[binding]
}

// of prepares a table's overrides for a chain, once for each table.
func (s *bindings) of(c *chain, t *route.Table) *binding {
	if b := s.newest.Load(); b != nil && b.table == t && b.chain == c {
		return b
	}
	s.build.Lock()
	defer s.build.Unlock()
	if b := s.newest.Load(); b != nil && b.table == t && b.chain == c {
		return b
	}
	b := c.bind(t)
	s.newest.Store(b)
	return b
}
