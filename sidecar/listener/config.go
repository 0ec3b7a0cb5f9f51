// Package listener accepts connections, picks a filter chain and hands the
// stream to it. All listening sockets come from one registry, which can inherit
// them from a parent process and hand them over.
package listener

import (
	"io/fs"
	"net/netip"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/tokenbucket"
	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
	"github.com/hauberk-mesh/hauberk/sidecar/proxytlv"
	"github.com/hauberk-mesh/hauberk/sidecar/sockopt"
	"github.com/hauberk-mesh/hauberk/sidecar/tcp"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
)

// Config is a listener (envoy.config.listener.v3.Listener).
type Config struct {
	Name string
	// Metadata are for access logs: its filter_metadata by namespace, but the mesh's own, values as
	// JSON has them.
	Metadata map[string]map[string]any `json:",omitempty"`
	// Network is "tcp" or "unix"; Address is host:port (port 0 works) or a path.
	// A path that begins with @ is in the abstract namespace.
	Network, Address string
	Socket           SocketOptions
	// Additional are further addresses of the same listener.
	Additional []Address
	// Unbound listeners have no socket: what they serve is handed over by a
	// listener that redirects connections to where they were going.
	Unbound bool
	// Workload, Service, Direction and Upstream are Hauberk's own facts, from
	// the metadata namespace "hauberk"; empty on a foreign listener.
	Workload  string // SPIFFE ID
	Service   string
	Direction Direction
	Upstream  string
	Chains    []FilterChain
	Default   *FilterChain
	// AccessLog has every connection when it ends; RefusedLog only those that no
	// filter chain served.
	AccessLog, RefusedLog []telemetry.AccessLogConfig
	// Filters look at a connection, in this order, before a chain is chosen.
	Filters []Filter
	// FilterTimeout bounds them together: 15 s when 0. A connection that takes
	// longer is closed, or, with ContinueOnTimeout, served by what is known.
	FilterTimeout     time.Duration
	ContinueOnTimeout bool
	// HandOff gives a connection to the listener of its original destination,
	// where there is one.
	HandOff bool
	// DrainOnChange leaves connections alone while the process drains; they are
	// asked to finish only when the listener changes or goes.
	DrainOnChange bool
	// IgnoreGlobalLimit and IgnoreOverload exempt the listener from the process's
	// connection limit and from its overload actions.
	IgnoreGlobalLimit, IgnoreOverload bool
}

// Address is where a listener listens.
type Address struct {
	Network, Address string
	Socket           SocketOptions
}

// SocketOptions are what a listening socket is made with.
type SocketOptions struct {
	// Mode of a Unix socket's file, 0 for what the process's umask gives.
	Mode fs.FileMode
	// IPv4Compat lets an IPv6 socket take IPv4 connections too.
	IPv4Compat bool
	// ReusePort lets other processes listen on the same address.
	ReusePort             bool
	FreeBind, Transparent bool
	MultipathTCP          bool
	Backlog               int // the host's maximum when 0
	FastOpen              int // queue length, off when 0
	// KeepAlive probes silent peers; when nil, each 15 s.
	KeepAlive *KeepAlive
	Options   []sockopt.Option
}

// KeepAlive is the probing of silent peers; what is 0 is left to the host.
type KeepAlive struct {
	Idle, Interval time.Duration
	Probes         int
}

// Direction of a listener's traffic.
type Direction uint8

// The directions.
const (
	Unspecified Direction = iota
	Inbound
	Outbound
)

// Filter is a listener filter. Exactly one of the kinds is set.
type Filter struct {
	// TLSInspector reads SNI, ALPN and the transport protocol.
	TLSInspector bool
	// MaxClientHello bounds what the TLS inspector reads, 16 KB when 0.
	MaxClientHello int
	// JA3 and JA4 have the TLS inspector make fingerprints of clients.
	JA3, JA4 bool
	// TLSOnly has the TLS inspector end connections without TLS.
	TLSOnly bool
	// HTTPInspector recognises HTTP/1 and HTTP/2 without TLS.
	HTTPInspector bool
	// OriginalDst recovers the destination a firewall rule redirected.
	OriginalDst   bool
	ProxyProtocol *ProxyProtocol
	// Disabled, when it holds, skips the filter.
	Disabled *Predicate
}

// ProxyProtocol takes the addresses of a connection from a PROXY header.
type ProxyProtocol struct {
	// Optional also takes connections without a header.
	Optional bool
	// NoV1 and NoV2 refuse a version.
	NoV1, NoV2 bool
	// Rules make metadata of extensions. Of rules for one type the last counts, as in Envoy.
	Rules []ProxyRule
	// Passed are the extensions that upstreams may be told.
	Passed proxytlv.Choice
}

// ProxyRule has an extension's value be metadata of the connection.
type ProxyRule struct {
	Type           byte
	Namespace, Key string
	// Base64 writes the value so; else each byte that is no UTF-8 is an exclamation mark.
	Base64 bool
}

// Predicate is over a connection's destination port.
type Predicate struct {
	Any      bool
	Or, And  []Predicate
	Not      *Predicate
	From, To uint16 // To is not part of the range; 0 is 65536
	IsRange  bool
}

// FilterChain is what happens to the connections that match.
type FilterChain struct {
	Name string
	// Metadata are for access logs: its filter_metadata by namespace, values as JSON has them.
	Metadata map[string]map[string]any `json:",omitempty"`

	Match Match
	TLS   *TLS // nil for plaintext
	// HandshakeTimeout bounds the TLS handshake; the manager's when 0.
	HandshakeTimeout time.Duration
	// Limits come first, before a handshake.
	ConnectionLimits []ConnectionLimit
	RateLimits       []RateLimit
	// RBAC runs on the connection's identity.
	RBAC []authz.NetworkFilter
	// Exactly one terminal filter.
	HTTP *hcm.Config
	TCP  *tcp.Config
}

// ConnectionLimit bounds the connections of a filter chain. One too many is
// closed after Delay.
type ConnectionLimit struct {
	StatPrefix string
	Max        int64
	Delay      time.Duration
}

// RateLimit is a token bucket that each new connection takes a token from.
type RateLimit struct {
	StatPrefix string
	Bucket     tokenbucket.Spec
	// Share, where it is not empty, names a bucket that all chains take from whose rate has the
	// same name and the same Bucket, whichever listener they are of.
	Share string
}

// Match is the full filter-chain match; an empty part matches anything.
// The most specific wins, in Envoy's order: destination port, destination IP,
// server name, transport protocol, application protocols, directly connected
// source IP, source type, source IP, source port.
type Match struct {
	DestinationPort      uint16
	Destination          []netip.Prefix
	ServerNames          []string // exact or "*.suffix", lower case
	TransportProtocol    string   // "", "tls" or "raw_buffer"
	ApplicationProtocols []string
	DirectSource         []netip.Prefix
	SourceType           SourceType
	Source               []netip.Prefix
	SourcePorts          []uint16
}

// SourceType is where a connection comes from.
type SourceType uint8

// The source types.
const (
	AnySource SourceType = iota
	SameIPOrLoopback
	External
)

// TLS is a downstream TLS context: the mesh's own terms, by the names of secrets
// that the host's agent has, or a Context of a foreign configuration.
type TLS struct {
	// Certificate and Validation are SDS secret names (a SPIFFE ID, "default",
	// "ROOTCA").
	Certificate, Validation  string
	RequireClientCertificate bool
	// PeerIDs limits client SPIFFE IDs; empty leaves that to RBAC.
	PeerIDs      []string
	ALPN         []string
	MinVersion   uint16 // crypto/tls numbers, TLS 1.3 when 0
	MaxVersion   uint16
	CipherSuites []uint16 // TLS 1.2 only
	// Context is set instead of all of these.
	Context *tlscontext.Server
}
