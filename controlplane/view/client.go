// Package view decides which resources a client sees, by its node identity, and
// keeps that set current: its own workloads' listeners, what their upstreams
// lead to, and its local applications. Nothing else of the mesh is visible.
//
// A Manager owns everything that is computed. It takes one publication of the
// store at a time, compiles and renders again only what the publication
// touches, and replaces the set of each view that differs. Readers take sets
// without a lock.
package view

import (
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/render"
	"github.com/hauberk-mesh/hauberk/xds/names"
)

// Published is one published state of the catalog and what it changed.
type Published struct {
	Snapshot *catalog.Snapshot
	Dirty    catalog.Dirty
	// Received is when the source learned of the change; Index is Consul's.
	Received time.Time
	Index    uint64
}

// Client is who looks. Node and Permitted are facts the control plane
// authenticated; the rest is what the client said of itself, which can only
// narrow what it sees.
type Client struct {
	// Node is the Hauberk node name from the client certificate.
	Node string
	// Permitted are the SPIFFE IDs of the node's join record.
	Permitted []string
	// Kind is the dialect and the announced capabilities.
	Kind render.Client
	// Workloads, when not nil, narrows the view to these registration ids.
	Workloads []string
	// Entitled, when not nil, narrows the view to these SPIFFE IDs.
	Entitled []string
}

// NewClient reads what a client says of itself from its xDS node.
func NewClient(node string, permitted []string, n *corev3.Node) Client {
	c := Client{Node: node, Permitted: permitted}
	if n.GetUserAgentName() == names.EnvoyUserAgent {
		c.Kind.Dialect = render.Envoy
		if tracesAt(n.GetUserAgentVersion()) {
			c.Kind.Caps = render.NewCapabilities(names.CapTracing)
		}
	} else {
		c.Kind.Caps = render.NewCapabilities(n.GetClientFeatures()...)
	}
	c.Workloads = stringList(n, names.MetadataWorkloads)
	c.Entitled = stringList(n, names.MetadataEntitled)
	return c
}

// tracesAt tells whether an Envoy of a version traces as it is told to. One that names
// none is an old one.
func tracesAt(version string) bool {
	var major, minor int
	n, _ := fmt.Sscanf(version, "%d.%d.", &major, &minor)
	return n == 2 && (major > 1 || major == 1 && minor >= render.TracingEnvoy)
}

// stringList reads a list of strings from the node's metadata. A key that is
// present but holds something else narrows to nothing: a client that tried to
// narrow its view must not get all of it.
func stringList(n *corev3.Node, key string) []string {
	v, ok := n.GetMetadata().GetFields()[key]
	if !ok {
		return nil
	}
	out := []string{}
	for _, item := range v.GetListValue().GetValues() {
		if s := item.GetStringValue(); s != "" {
			out = append(out, s)
		}
	}
	return out
}
