package cluster

import "time"

// HTTP is how HTTP is spoken to the hosts
// (envoy.extensions.upstreams.http.v3.HttpProtocolOptions). Zero durations and
// numbers mean no limit.
type HTTP struct {
	Protocol Protocol
	// MaxConnectionDuration is a connection's life, to which up to
	// MaxConnectionJitter percent are added; it then takes no new request.
	MaxConnectionDuration time.Duration
	MaxConnectionJitter   float64
	// MaxRequestsPerConnection is how many requests a connection takes.
	MaxRequestsPerConnection int
	// MaxResponseHeaders and MaxResponseHeaderKB bound a response's head.
	MaxResponseHeaders, MaxResponseHeaderKB int
	MaxStreamDuration                       time.Duration
	HTTP2                                   HTTP2
}

// Protocol is what is spoken to the hosts.
type Protocol uint8

// The protocols.
const (
	SpeakHTTP1 Protocol = iota
	SpeakHTTP2
	SpeakAuto       // what ALPN agrees on, HTTP/1 without TLS
	SpeakDownstream // what the client speaks
)

// HTTP2 are the options of HTTP/2 connections; 0 is the default of the codec.
type HTTP2 struct {
	HeaderTableSize          uint32
	MaxConcurrentStreams     uint32
	InitialStreamWindow      uint32
	InitialConnectionWindow  uint32
	MaxOutboundFrames        uint32
	MaxOutboundControlFrames uint32
	MaxEmptyInboundFrames    uint32
	MaxInboundPriorityFrames uint32
	MaxInboundWindowUpdates  uint32
	StreamErrorOnInvalid     bool // reset the stream, not the connection
	AllowConnect             bool
	KeepAliveInterval        time.Duration // PING after this; 0 for none
	KeepAliveTimeout         time.Duration
	KeepAliveJitterPercent   float64
	KeepAliveConnectionIdle  time.Duration // PING before a stream after this long without one
}
