// Package render turns compiled discovery chains and authorizations into Envoy
// v3 resources. Every function is pure: equal inputs give equal bytes, so any
// control plane gives a resource the same version. A Cache in front of them
// renders again only what a change touches.
//
// Resources are plain Envoy types in two dialects. Mesh is our own sidecar: it
// gets exactly the features it announces. Envoy gets all of them. What a client
// cannot honour is withheld and reported as a Problem; where that is a part of
// authorization, the filter chain denies.
package render

import (
	"cmp"
	"slices"
	"strings"

	"github.com/hauberk-mesh/hauberk/xds/names"
)

// Dialect is the family of a client.
type Dialect uint8

// The dialects.
const (
	Mesh Dialect = iota
	Envoy
)

func (d Dialect) String() string {
	if d == Envoy {
		return "envoy"
	}
	return "mesh"
}

// Client is what rendering needs to know of the one who will read a resource.
// It is comparable: clients that are equal share their resources.
type Client struct {
	Dialect Dialect
	Caps    Capabilities
}

// Can reports whether the client honours a feature. An Envoy announces none, and all
// that are supported can everything but trace: see TracingEnvoy.
func (c Client) Can(capability string) bool {
	return c.Dialect == Envoy && capability != names.CapTracing || c.Caps.Has(capability)
}

// TracingEnvoy is the minor version of Envoy 1 that takes tags and names of spans as
// texts with operators. One before it refuses a listener that has them.
const TracingEnvoy = 37

// Capabilities is a set of announced features in a canonical, comparable form.
type Capabilities struct{ list string }

// A set is part of keys that are remembered, and a client writes what it likes: more and longer
// names than these are no capabilities that anybody knows.
const maxCapabilities, maxCapability = 64, 64

// NewCapabilities makes a set of the names that are capabilities; others, such
// as Envoy's own client features, do not matter to rendering and are dropped.
func NewCapabilities(announced ...string) Capabilities {
	var own []string
	for _, a := range announced {
		if strings.HasPrefix(a, names.CapabilityPrefix) && !strings.Contains(a, ",") && len(a) <= maxCapability {
			own = append(own, a)
		}
	}
	slices.Sort(own)
	own = slices.Compact(own)
	if len(own) > maxCapabilities {
		own = nil // who announces more than there are cannot be taken at its word
	}
	if len(own) == 0 {
		return Capabilities{}
	}
	return Capabilities{"," + strings.Join(own, ",") + ","}
}

// Has reports whether the set holds a capability.
func (c Capabilities) Has(name string) bool { return strings.Contains(c.list, ","+name+",") }

func (c Capabilities) String() string { return strings.Trim(c.list, ",") }

// Problem is a part of the intent that a client does not get, or gets in a
// safer form. Nothing is withheld without one.
type Problem struct {
	// Node is the Hauberk node that is affected; empty for every one.
	Node string
	// Service is the service whose intent it is; empty for all of them.
	Service string
	// Path names the field: an entry and field, or a registration and field.
	Path string
	// Reason says what is wrong, what happens instead and what to do.
	Reason string
}

func (p Problem) String() string {
	if p.Path == "" {
		return p.Reason
	}
	return p.Path + ": " + p.Reason
}

// SortProblems orders problems and drops repetitions.
func SortProblems(ps []Problem) []Problem {
	slices.SortFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Service, b.Service),
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Reason, b.Reason))
	})
	return slices.Compact(ps)
}
