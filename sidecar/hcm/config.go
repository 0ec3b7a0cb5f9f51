// Package hcm is the HTTP connection manager: it drives a codec, runs filters,
// routes each request and carries the exchange with the upstream.
package hcm

import (
	"net/netip"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/discovery"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

// Config is
// envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.
type Config struct {
	StatPrefix string
	// Exactly one of RouteName (RDS, from where Discovery says) and Routes (inline).
	RouteName string
	Discovery discovery.Source `json:",omitzero"`
	Routes    *route.Config
	FilterChain
	// SuppressEnvoyHeaders leaves out the x-envoy headers that the router adds,
	// RespectExpectedTimeout takes the route's timeout from a caller's
	// x-envoy-expected-rq-timeout-ms.
	SuppressEnvoyHeaders, RespectExpectedTimeout bool
	// RejectEarlyConnect refuses a CONNECT whose client says something for it before it was answered.
	RejectEarlyConnect bool `json:",omitempty"`
	AccessLog          []telemetry.AccessLogConfig
	LogOptions
	// UpstreamLog has attempts logged; nil does not.
	UpstreamLog *UpstreamLog `json:",omitempty"`

	// Tracing is nil for none.
	Tracing *tracing.Config

	IdleTimeout           time.Duration // connection without a request, 1 h when 0
	StreamIdleTimeout     time.Duration // 5 min when 0
	RequestTimeout        time.Duration // whole request received, 0 for none
	RequestHeadersTimeout time.Duration // 0 for none
	MaxStreamDuration     time.Duration // whole exchange, 0 for none; a route may have its own
	MaxRequestHeadersKB   int           // 60 when 0
	MaxHeaders            int           // 100 when 0

	NormalizePath, MergeSlashes bool
	EscapedSlashes              EscapedSlashes
	UnderscoreNames             UnderscoreNames
	ForwardClientCert           ForwardClientCert
	// ClientCert is what x-forwarded-client-cert tells of the peer's certificate
	// besides its hash.
	ClientCert ClientCert
	// ClientCertCases may say otherwise of some requests; nil for none.
	ClientCertCases *ClientCertCases `json:",omitempty"`
	Trust
	GenerateRequestID bool
	// EarlyMutations change a request's headers before anything of it but the path and the
	// host is looked at, in this order.
	EarlyMutations []route.HeaderMutation `json:",omitempty"`
	ServerName     string                 // "envoy" semantics; empty leaves the upstream's
	// ServerIfAbsent keeps the upstream's Server where it has one.
	ServerIfAbsent bool
	// ProxyStatus tells clients of what went wrong; nil does not.
	ProxyStatus *ProxyStatus `json:",omitempty"`
	HTTP1
	Lifetime
	HostRules
	// Scheme replaces that of every request, empty for none; MatchUpstreamScheme makes
	// it say how the upstream is spoken to.
	Scheme              string
	MatchUpstreamScheme bool
	// ProxyContinue passes "Expect: 100-continue" and the upstream's 100 on; otherwise
	// the manager answers 100 itself.
	ProxyContinue bool
	// LocalReplies changes answers of our own; nil for none.
	LocalReplies *LocalReplies
	// AppendLocalOverload marks answers that are given because of overload with
	// x-envoy-local-overloaded.
	AppendLocalOverload bool
	// Codec is what clients speak.
	Codec Codec
	// HTTP2 are the codec's terms; nil is http2.Default. Limits and name rules are
	// taken from the members above.
	HTTP2 *http2.Config
	// BufferLimit is the listener's per_connection_buffer_limit_bytes, which bounds what is
	// kept of a body of HTTP/1 for another attempt: nil is Envoy's default, 0 no limit.
	BufferLimit *uint32
	// Upgrades are the protocols that a request may switch to, "CONNECT" among them.
	Upgrades []route.Upgrade
	// UpgradeFilters are the chains that requests for some protocols pass in place of FilterChain,
	// wherever the switch is allowed.
	UpgradeFilters []UpgradeFilters `json:",omitempty"`
}

// LogOptions are Envoy's HcmAccessLogOptions: when requests are logged besides at
// their end.
type LogOptions struct {
	LogStart, LogTunnels bool
	LogInterval          time.Duration // 0 for never
}

// Trust says whose word is taken for who asks.
type Trust struct {
	UseRemoteAddress bool
	SkipXFFAppend    bool
	// XFFTrustedHops is how many proxies in front are trusted to have told the truth
	// in x-forwarded-for.
	XFFTrustedHops int
	// Detections are asked for the client in this order, in place of XFFTrustedHops; none with
	// UseRemoteAddress.
	Detections []Detection `json:",omitempty"`
	// Internal are the addresses of clients whose requests are internal.
	Internal            []netip.Prefix
	InternalUnixSockets bool
	AppendForwardedPort bool
	// HTTPSPorts and HTTPPorts are those that say, in a header of the PROXY protocol, what its
	// client's connection was: it stands in for what the connection is.
	HTTPSPorts, HTTPPorts []uint16 `json:",omitempty"`
	// MapIPv4 writes IPv4 addresses as IPv6 ones (RFC 4291 2.5.5.2).
	MapIPv4 bool
	// Via is appended to Via of requests and responses, empty for none.
	Via string
	// AddUserAgent says which cluster and node of ours asks.
	AddUserAgent bool
	// PreserveRequestID keeps the id that a client at the edge brings,
	// RequestIDInResponse tells it the id.
	PreserveRequestID, RequestIDInResponse bool
	// KeepTraceReason leaves what an id that is kept at the edge says of tracing: it is Envoy's
	// pack_trace_reason: false.
	KeepTraceReason bool `json:",omitempty"`
}

// ClientCert is Envoy's SetCurrentClientCertDetails.
type ClientCert struct {
	Cert, Chain, Subject, Issuer, URI, DNS bool
	// JSON writes a list of objects where a request brings no value of another format.
	JSON bool `json:",omitempty"`
}

// HTTP1 is Envoy's Http1ProtocolOptions, as far as it has a meaning here.
type HTTP1 struct {
	AcceptHTTP10 bool
	// DefaultHost is the Host of a request of HTTP/1.0 that has none.
	DefaultHost string
	// ProperCase writes field names with capitals, as in Content-Type.
	ProperCase bool
	// EnableTrailers passes trailers on; otherwise they are dropped.
	EnableTrailers bool
	// AllowCustomMethods takes methods that are not registered.
	AllowCustomMethods bool
	// KeepAfterBadRequest goes on with a connection after an answer of our own that is a 400 to a
	// message that came whole. Otherwise it ends, as in Envoy, to which 400 says that a message
	// was broken.
	KeepAfterBadRequest bool
	// IgnoreUpgrade are values of Upgrade that are taken for absent.
	IgnoreUpgrade []route.StringMatch
}

// Lifetime bounds connections.
type Lifetime struct {
	// MaxConnectionDuration is a connection's life, to which up to
	// MaxConnectionJitter percent are added by chance; 0 is none. Then it is
	// drained; with SafeMaxDuration one of HTTP/1 ends with its next answer.
	MaxConnectionDuration time.Duration
	MaxConnectionJitter   float64
	SafeMaxDuration       bool
	// MaxRequests is how many requests a connection carries, 0 for any number.
	MaxRequests int
	// DrainTimeout is how long a connection that drains may wait for what was on its
	// way, 1 s when 0.
	DrainTimeout time.Duration
	// DrainJitter is how many percent of DrainTimeout are added to it at most, by chance for
	// each connection. With any the whole time passes over HTTP/2.
	DrainJitter float64 `json:",omitempty"`
	// DelayedClose is how long a client may take to read the last answer, 1 s when
	// nil. With 0 the connection is closed at once.
	DelayedClose *time.Duration
	// FlushTimeout is how long the end of a response may wait for its client, the
	// stream's idle timeout when nil; 0 is for ever.
	FlushTimeout *time.Duration
}

// HostRules are what is removed from a request's host before it is looked at.
type HostRules struct {
	StripPort StripPort
	// StripDot removes the dot at the end of the name.
	StripDot bool
}

// StripPort is which ports are removed.
type StripPort uint8

// Envoy's strip_matching_host_port and strip_any_host_port.
const (
	KeepPort StripPort = iota
	StripOwnPort
	StripAnyPort
)

// Codec is Envoy's CodecType.
type Codec uint8

// The codecs.
const (
	// CodecAuto is what ALPN agreed on or, where it did not, what the client begins
	// with.
	CodecAuto Codec = iota
	CodecHTTP1
	CodecHTTP2
)

// EscapedSlashes is what happens to %2F and %5C in a path.
type EscapedSlashes uint8

// Envoy's PathWithEscapedSlashesAction values.
const (
	KeepEscaped EscapedSlashes = iota
	RejectEscaped
	UnescapeAndRedirect
	UnescapeAndForward
)

// UnderscoreNames is what happens to header names with underscores.
type UnderscoreNames uint8

// Envoy's HeadersWithUnderscoresAction values.
const (
	AllowUnderscores UnderscoreNames = iota
	RejectUnderscores
	DropUnderscores
)

// ForwardClientCert is what happens to x-forwarded-client-cert.
type ForwardClientCert uint8

// Envoy's ForwardClientCertDetails values.
const (
	Sanitize ForwardClientCert = iota
	ForwardOnly
	AppendForward
	SanitizeSet
	AlwaysForwardOnly
)
