// Package authz decides whether a connection or request may go on: Envoy's RBAC
// semantics over the identity the handshake proved. A denial is a value that
// carries the rule that decided.
package authz

import (
	"net/netip"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// Action says what a matching policy means.
type Action uint8

// Allow passes only what matches; Deny passes only what does not; Log passes
// everything and records the match.
const (
	Allow Action = iota
	Deny
	Log
)

// NetworkFilter and HTTPFilter are one RBAC filter each. Filters are evaluated
// in order; all must pass. Shadow rules are evaluated and reported only.
type NetworkFilter struct {
	StatPrefix string
	Rules      *Rules // nil passes everything
	Shadow     *Rules
	// ShadowPrefix stands in front of the keys of metadata on the shadow rules.
	ShadowPrefix string `json:",omitempty"`
	// DenyDelay is how long a connection that the filter denies waits for its end.
	DenyDelay time.Duration `json:",omitempty"`
}

// HTTPFilter is the same at the request level.
type HTTPFilter = NetworkFilter

// Rules is envoy.config.rbac.v3.RBAC.
type Rules struct {
	Action   Action
	Policies []Policy // sorted by name
	// Ordered stands in place of Action and Policies, if it is there.
	Ordered *Ordered
}

// Policy matches when any permission and any principal match.
type Policy struct {
	// Name is the origin of the rule ("service-intentions/api Sources[0] (web)")
	// where our control plane made it.
	Name        string
	Permissions []Permission
	Principals  []Principal
}

// Permission is what is being done. Exactly one field is set.
type Permission struct {
	Any         bool
	And, Or     []Permission
	Not         *Permission
	Header      *route.HeaderMatch
	URLPath     *route.StringMatch // path without query
	Destination *netip.Prefix
	Port        uint16
	PortRange   *[2]uint32 // [start, end)
	SNI         *route.StringMatch
	Template    *route.Template // of the path without query
	Metadata    *MetadataRule
}

// Principal is who does it. Exactly one field is set.
type Principal struct {
	Any     bool
	And, Or []Principal
	Not     *Principal
	// Authenticated matches the peer's SPIFFE ID. Behind a foreign TLS context it
	// matches any URI, any DNS name or the subject of the peer's certificate. With
	// Name nil any peer matches that the TLS context has let in, as in Envoy: behind a
	// foreign one that wants no certificate, also a peer without.
	Authenticated bool
	Name          *route.StringMatch
	// The peer's addresses are those of Peer: Direct, Connection and Remote.
	DirectSource, ConnectionSource, Source *netip.Prefix
	Header                                 *route.HeaderMatch
	URLPath                                *route.StringMatch
	Metadata                               *MetadataRule
}
