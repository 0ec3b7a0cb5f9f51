package cluster

import (
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// HTTP is how HTTP is spoken to the hosts
// (envoy.extensions.upstreams.http.v3.HttpProtocolOptions). Zero durations and
// numbers mean no limit.
type HTTP struct {
	Protocol Protocol
	// Names has connections depend on the host that a request names; nil for not.
	Names *ServerNames `json:",omitempty"`
	// PerClient has a connection serve the requests of one connection of a client alone.
	PerClient bool `json:",omitempty"`
	// MaxConnectionDuration is a connection's life, to which up to
	// MaxConnectionJitter percent are added; it then takes no new request.
	MaxConnectionDuration time.Duration
	MaxConnectionJitter   float64
	// MaxRequestsPerConnection is how many requests a connection takes.
	MaxRequestsPerConnection int
	// MaxResponseHeaders and MaxResponseHeaderKB bound a response's head: 100 fields and
	// 60 KB when 0.
	MaxResponseHeaders  int `json:",omitzero"`
	MaxResponseHeaderKB int `json:",omitzero"`
	// MaxStreamDuration is how long the stream of an attempt may last, from when it has a
	// connection.
	MaxStreamDuration time.Duration `json:",omitzero"`
	HTTP1             HTTP1         `json:",omitzero"`
	// Retry, Hash and Mirrors, where they are set, stand in for those of every route that leads here;
	// an attempt's times are the route's all the same.
	Retry   *route.RetryPolicy `json:",omitempty"`
	Hash    []route.HashPolicy `json:",omitempty"`
	Mirrors *route.Mirrors     `json:",omitempty"`
	// Errors says which answers passive health checking takes for errors; nil is those of 500 and
	// above.
	Errors *route.AnswerMatch `json:",omitempty"`
	// HTTP2 are the codec's terms; nil is http2.Default. The limits above apply to
	// it too.
	HTTP2 *http2.Config
}

// ResponseLimits are what a host may send of a head.
func (h *HTTP) ResponseLimits() http1.Limits {
	return http1.Limits{Fields: h.MaxResponseHeaders, HeadBytes: h.MaxResponseHeaderKB << 10}.WithDefaults()
}

// Copies are the clusters that requests which go to this one are mirrored to.
func (h *HTTP) Copies() (names []string) {
	if h.Mirrors != nil {
		for i := range h.Mirrors.Policies {
			if n := h.Mirrors.Policies[i].Cluster; n != "" {
				names = append(names, n)
			}
		}
	}
	return names
}

// HTTP1 is how HTTP/1 is written, Envoy's Http1ProtocolOptions.
type HTTP1 struct {
	// EnableTrailers passes trailers on both ways; otherwise they are dropped.
	EnableTrailers bool
	// ProperCase writes field names with capitals, as in Content-Type.
	ProperCase bool
	// FullURL writes targets in absolute form (RFC 9112 3.2.2).
	FullURL bool
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
