// Package listener accepts connections, picks a filter chain and hands the
// stream to it. All listening sockets come from one registry, which can inherit
// them from a parent process and hand them over.
package listener

import (
	"net/netip"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
	"github.com/hauberk-mesh/hauberk/sidecar/tcp"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Config is a listener (envoy.config.listener.v3.Listener).
type Config struct {
	Name string
	// Network is "tcp" or "unix"; Address is host:port (port 0 works) or a path.
	Network, Address string
	// Workload, Service, Direction and Upstream are Hauberk's own facts, from
	// the metadata namespace "hauberk"; empty on a foreign listener.
	Workload  string // SPIFFE ID
	Service   string
	Direction Direction
	Upstream  string
	Chains    []FilterChain
	Default   *FilterChain
	AccessLog []telemetry.AccessLogConfig
	// Inspect reads SNI, ALPN and transport protocol before a chain is chosen.
	// OriginalDst recovers the destination a firewall rule redirected.
	TLSInspector, OriginalDst bool
	FilterChainTimeout        time.Duration // of the inspectors, 15 s when 0
}

// Direction of a listener's traffic.
type Direction uint8

// The directions.
const (
	Unspecified Direction = iota
	Inbound
	Outbound
)

// FilterChain is what happens to the connections that match.
type FilterChain struct {
	Name  string
	Match Match
	TLS   *TLS // nil for plaintext
	// RBAC runs first, on the connection's identity.
	RBAC []authz.NetworkFilter
	// Exactly one terminal filter.
	HTTP *hcm.Config
	TCP  *tcp.Config
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

// TLS is a downstream TLS context.
type TLS struct {
	// Certificate and Validation are SDS secret names (a SPIFFE ID, "default",
	// "ROOTCA"); Files is set instead by a static bootstrap.
	Certificate, Validation  string
	Files                    *FileTLS
	RequireClientCertificate bool
	// PeerIDs limits client SPIFFE IDs; empty leaves that to RBAC.
	PeerIDs      []string
	ALPN         []string
	MinVersion   uint16 // crypto/tls numbers, TLS 1.3 when 0
	MaxVersion   uint16
	CipherSuites []uint16 // TLS 1.2 only
}

// FileTLS names certificate material on disk (PEM).
type FileTLS struct {
	CertificateChain, PrivateKey, TrustedCA string
}
