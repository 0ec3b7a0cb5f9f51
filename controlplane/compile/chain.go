// Package compile turns config entries into decisions: the discovery chain of a
// service (router, then splitter, then resolver) and the authorization of a
// workload, both as Consul defines them. Every function is pure: the same
// snapshot gives the same result, and the result lists what it depended on, so
// that a change recompiles only what it touches.
package compile

import (
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
)

// Chain is the compiled discovery chain of one service: everything an outbound
// listener, its routes and its clusters are made of. Immutable.
type Chain struct {
	Service  catalog.Name
	Protocol string // "tcp", "http", "http2" or "grpc"
	// Routes are tried in order, the last one matches everything. A chain whose
	// protocol is tcp has exactly one, without a match.
	Routes []Route
	// Targets holds every target named by a resolver, by target id
	// ("v1.api.default.default.dc1", Consul's form).
	Targets map[string]*Target
	// Resolvers holds what a split leg ends in, by the id of its first target.
	Resolvers map[string]*Resolver
	// Customization is empty, or eight hex digits that tell this chain's
	// clusters from those of callers without the same Overrides: it prefixes
	// their names, "96f2c150~api.default.dc1.internal.TD", as in Consul. The SNI
	// stays the plain name.
	Customization string
	Deps          Deps
}

// Route is one rule of the router, or the implied catch-all.
type Route struct {
	// Match is nil for the catch-all.
	Match *api.ServiceRouteHTTPMatch
	// Destination carries prefix rewrite, timeouts, retries and header changes;
	// nil for the catch-all. Its Service and ServiceSubset were resolved
	// already, into Splits.
	Destination *api.ServiceRouteDestination
	// Splits are the weighted legs: weights in 1/10000, their sum is 10000.
	Splits []Split
	// RequestTimeout is the effective one: the route's, else the start
	// resolver's, zero when neither says.
	RequestTimeout time.Duration
	// LoadBalancer of the legs' resolver, for hash policies; nil if none.
	LoadBalancer *api.LoadBalancer
	// Origin names the entry and index the rule came from, for people:
	// "service-router/api Routes[2]".
	Origin string
}

// Split is one weighted leg.
type Split struct {
	Weight          uint32 // of 10000
	Resolver        string // key in Chain.Resolvers
	RequestHeaders  *api.HTTPHeaderModifiers
	ResponseHeaders *api.HTTPHeaderModifiers
}

// Resolver is a target and what to use when it has no healthy instance.
type Resolver struct {
	Target         string   // id of the first choice
	Failover       []string // ids, in order
	ConnectTimeout time.Duration
	LoadBalancer   *api.LoadBalancer
}

// Target is a set of instances: a service, perhaps a subset of it, somewhere.
type Target struct {
	ID      string
	Service catalog.Name // with its datacenter
	Subset  string
	// Filter is a go-bexpr expression on api.ServiceEntry; empty for all.
	Filter      string
	OnlyPassing bool
	// ConnectTimeout is the target's own resolver's (5 s when unset).
	ConnectTimeout time.Duration
	// LoadBalancer is the target's own resolver's.
	LoadBalancer *api.LoadBalancer
	// Limits, PassiveHealthCheck: what service-defaults say of upstream traffic.
	Limits             *api.UpstreamLimits
	PassiveHealthCheck *api.PassiveHealthCheck
	// Nearest prefers instances near the caller; nil where the target's resolver does
	// not say, so that proxy-defaults do.
	Nearest  *bool
	Protocol string
}

// Deps are the inputs a result was made from, present or absent: an entry that
// does not exist yet is a dependency too, since its creation changes the result.
type Deps struct {
	Entries   map[catalog.EntryKey]struct{}
	Instances map[catalog.Name]struct{}
}

// Touches reports whether a change may alter a result with these dependencies.
func (d Deps) Touches(dirty catalog.Dirty) bool {
	if dirty.All {
		return true
	}
	for k := range dirty.Entries {
		if _, ok := d.Entries[k]; ok {
			return true
		}
	}
	for n := range dirty.Instances {
		if _, ok := d.Instances[n]; ok {
			return true
		}
	}
	return false
}
