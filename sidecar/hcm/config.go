// Package hcm is the HTTP connection manager: it drives a codec, runs filters,
// routes each request and carries the exchange with the upstream.
package hcm

import (
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Config is
// envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.
type Config struct {
	StatPrefix string
	// Exactly one of RouteName (RDS) and Routes (inline).
	RouteName string
	Routes    *route.Config
	// Filters run in order before the router; RBAC are those of them that are RBAC.
	Filters []HTTPFilter
	RBAC    []authz.HTTPFilter
	// SuppressEnvoyHeaders leaves out the x-envoy headers that the router adds,
	// RespectExpectedTimeout takes the route's timeout from a caller's
	// x-envoy-expected-rq-timeout-ms.
	SuppressEnvoyHeaders, RespectExpectedTimeout bool
	AccessLog                                    []telemetry.AccessLogConfig

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
	// SetClientCertURI adds the peer's URI SAN to x-forwarded-client-cert.
	SetClientCertURI  bool
	UseRemoteAddress  bool
	SkipXFFAppend     bool
	GenerateRequestID bool
	ServerName        string // "envoy" semantics; empty leaves the upstream's
	AcceptHTTP10      bool
	// Codec is what clients speak.
	Codec Codec
	// HTTP2 are the codec's terms; nil is http2.Default. Limits and name rules are
	// taken from the members above.
	HTTP2 *http2.Config
	// Upgrades are the protocols that a request may switch to, "CONNECT" among them.
	Upgrades []route.Upgrade
}

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

// Speaks tells whether a connection on which ALPN agreed on a protocol can be served.
func (c Codec) Speaks(alpn string) bool {
	return alpn == "h2" && c != CodecHTTP1 || alpn == "http/1.1" && c != CodecHTTP2
}

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
