// Package filter is the seam between the HTTP connection manager and its filters:
// what looks at every request before the router does, and at every response on its
// way back. The filters are the packages below.
package filter

import (
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Filter is one HTTP filter of a chain. It is shared by all exchanges, so what
// belongs to one of them lies in the Context. A filter that does nothing to a
// request costs nothing: no allocation, no goroutine, no timer.
type Filter interface {
	// Request is called once for each request, in the order of the chain, until a
	// filter gives a verdict other than Continue.
	Request(*Context) Verdict
	// Response is called in reverse order for each response before it is sent: for the
	// filters whose Request was called, and where the connection manager or a filter
	// answered, for all. The State of one that was not asked is zero.
	Response(*Context)
}

// Ender is a filter that has to know when an exchange is over, answered or not.
// End is called for the filters whose Request was called.
type Ender interface{ End(*Context) }

// Trailers is a filter that looks at the trailers of hosts' answers. ResponseTrailers is
// called in reverse order for the filters whose Request was called, when the trailers are
// there; our own answers have none. The Context's Response is what was sent already.
type Trailers interface {
	ResponseTrailers(*Context, *message.Fields)
}

// Overrider is a filter that takes a configuration of its own from routes
// (typed_per_filter_config).
type Overrider interface {
	// Override checks such a configuration and returns what Context.Override is to
	// give for it. It is called once for each when a route table comes into use.
	Override(config any) (any, error)
}

// Heir is a filter that goes on with what the one has counted in whose place an update of the listener
// puts it: it is called before the heir is asked for anything. What Overrider returns may be one, too.
type Heir interface{ Inherit(before any) }

// Verdict is what a filter decided on a request.
type Verdict struct {
	reply *Reply
	stop  bool
}

// Continue lets the request go on to the next filter. Gone ends an exchange whose
// client has left.
var (
	Continue = Verdict{}
	Gone     = Verdict{stop: true}
)

// Answer has a reply sent instead of forwarding the request.
func Answer(r *Reply) Verdict { return Verdict{reply: r, stop: true} }

// Continues tells whether the request goes on.
func (v Verdict) Continues() bool { return !v.stop }

// Reply is what to answer; nil when there is nobody to answer.
func (v Verdict) Reply() *Reply { return v.reply }

// Reply is an answer that a filter gives itself. It may be shared by exchanges.
type Reply struct {
	Status int
	Body   string // text/plain; nothing of the request may be in it
	// GRPC is the status for a gRPC client, NoGRPC for the one that Status means.
	GRPC    int
	Details string // for access logs, a few words without spaces
	Flags   telemetry.Flags
	// LateFlags: the flags are raised only when the answer is whole. Those of its headers
	// that are not the filters', and what judges local replies, are made before.
	LateFlags bool
	// Bare: the answer is what Headers makes of it, and passes the filters. Routes and local
	// replies have no part in it, nor is it translated for gRPC.
	Bare bool
	// Headers adds to the response; nil adds nothing.
	Headers func(*Context)
}

// NoGRPC is a Reply's GRPC where the HTTP status says all.
const NoGRPC = -1

// Exchange is what the connection manager does for filters.
type Exchange interface {
	route.Facts
	// Wait lets time pass; false when the client left meanwhile, or the exchange's
	// own time is over.
	Wait(time.Duration) bool
	// ReadBody reads the whole body of the request into memory, at most limit
	// bytes. It answers by itself when the body is not whole; then it returns Gone.
	ReadBody(limit int) (whole bool, v Verdict)
	// HoldAnswer reads the whole body of a host's answer into memory, at most limit bytes and
	// what the client's connection may keep, before its head is sent, and returns its length
	// and trailers. It is for Response, of
	// an answer with a body. Where it is not whole the exchange has been answered or cut off,
	// or the body is a tunnel, which has no end.
	HoldAnswer(limit int) (length int, trailers *message.Fields, whole bool)
	// SlowAnswer has the body of a host's answer reach its client no faster than so many KiB a
	// second. It is for Response; a tunnel, and an answer of our own, are not slowed.
	SlowAnswer(kib uint32)
	// ChangeRequestTrailers has the steps carried out on the request's trailers when it has
	// been read to its end, after those of filters before. Of a request without trailers, or
	// a tunnel, nothing is changed.
	ChangeRequestTrailers(route.Mutations)
	// NoteHealthCheck says that the request asks for the health of this host or of what is
	// behind it, and is none of a service: it has no span, and is not counted among requests.
	NoteHealthCheck()
	// Draining tells that this host is to be asked no more: its process drains, or the
	// side of it that the listener is on.
	Draining() bool
	// Connection returns what is kept for the client's connection under a key,
	// making it the first time, for as long as the filter chain is what it is now. It
	// may be called for several exchanges at once.
	Connection(key any, make func() any) any
}

// Context is one exchange as a filter sees it. It is valid during a call.
type Context struct {
	Exchange
	Request *message.Request
	// Response is nil before there is one.
	Response *message.Response
	// Selected is what the route table gave; its Route may be nil.
	Selected *route.Selected
	Client   *route.Client
	Peer     *authz.Peer
	Shard    telemetry.Shard
	// Flags are added to the exchange's.
	Flags telemetry.Flags
	// Scratch is memory to be reused.
	Scratch *[]byte

	// Overrides are the configurations that routes have for the filter that is
	// called, the most specific first; what Overrider made of them.
	Overrides []any
	// State is the calling filter's own, zero at the first call.
	State *State
}

// State is what a filter keeps between its calls for one exchange.
type State struct {
	Value  int64
	Config any // a pointer, so that keeping it allocates nothing
	Text   string
}

// Override is the most specific configuration that a route has for the calling
// filter, nil for none.
func (c *Context) Override() any {
	if len(c.Overrides) == 0 {
		return nil
	}
	return c.Overrides[0]
}

// Counter gives the counter of an event of one filter; nil counts nothing.
type Counter func(event string) *telemetry.Counter

// Of is the counter of an event. A nil Counter gives a nil *telemetry.Counter.
func (c Counter) Of(event string) *telemetry.Counter {
	if c == nil {
		return nil
	}
	return c(event)
}
