package hcm

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// exchange is one request and its response, with the memory both need. A
// connection takes it from a pool with a request's first byte and gives it back
// when it waits for the next.
type exchange struct {
	c *conn
	m *Manager

	in     buffer // from the client
	out    []byte // to be written, to either side
	parser http1.RequestParser
	req    message.Request

	// The request's body. complete: all of it was read from the client. keep:
	// payload holds all that was read so far, so that it can be sent again.
	framing  http1.Framing
	body     http1.BodyDecoder
	trailers message.Fields
	payload  []byte
	store    []byte // payload's memory when it is not a part of in
	complete bool
	keep     bool
	pump     *pump // reads and sends what is not in payload, nil without need

	up       responseBuffer
	rparser  http1.ResponseParser
	resp     message.Response
	rbody    http1.BodyDecoder
	rframing http1.Framing
	rtrail   message.Fields

	sel      route.Selected
	formats  *formats
	cluster  *cluster.Cluster
	host     *cluster.Host
	tried    [8]*cluster.Host
	ntried   int
	attempts int
	conn     *cluster.Conn
	stale    bool // the connection was used before
	wrote    bool // at least a byte of the attempt was sent
	// staleRetried: the one retry that needs no policy was used.
	staleRetried bool
	deadline     int64            // of the whole response, noDeadline for none
	tryUntil     int64            // of the attempt
	retrying     *cluster.Cluster // holds a place in its retry budget

	dial func() (context.Context, context.CancelFunc)

	// What is to be told of the exchange.
	start         time.Time
	startMono     int64
	received      int64 // body bytes from the client
	sent          int64 // body bytes to the client
	upSent        int64
	upReceived    int64
	flags         telemetry.Flags
	status        int
	details       string
	upStart       int64 // when the attempt was sent
	upFirst       int64 // when its answer began
	upHost        net.Addr
	upLocal       net.Addr
	upPeer, upOwn string
	upTLS         uint16
	upFailure     string
	decided       bool
	decision      authz.Decision
	closeAfter    bool // the connection ends with this exchange
	responded     bool // bytes of the response are on the wire

	used    bool // since next
	scratch []byte
	rec     *telemetry.Record
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

func newExchange(c *conn) *exchange {
	x := exchanges.Get().(*exchange)
	x.c = c
	if x.m == c.m {
		return x
	}
	x.m = c.m
	if x.dial == nil {
		x.dial = x.dialContext
	}
	x.parser.Configure(c.m.limits, http1.Underscores(c.m.cfg.UnderscoreNames))
	x.parser.AcceptHTTP10 = c.m.cfg.AcceptHTTP10
	x.rparser.Configure(c.m.upstreamLimits)
	return x
}

// dialContext bounds a dial by the attempt's deadline.
func (x *exchange) dialContext() (context.Context, context.CancelFunc) {
	if x.tryUntil != noDeadline {
		return context.WithTimeout(x.c.ctx, time.Duration(max(1, x.tryUntil-monotonic())))
	}
	return context.WithCancel(x.c.ctx)
}

// release gives the exchange back to the pool; what the client sent and nobody
// read is lost.
func (x *exchange) release() {
	x.next()
	x.up.release()
	x.c, x.formats = nil, nil
	x.in.r, x.in.w = 0, 0
	if len(x.in.b) > keepBuffer {
		x.in.b = nil
	}
	exchanges.Put(x)
}

// next prepares for the next request on the connection.
func (x *exchange) next() {
	if !x.used {
		return
	}
	x.used = false
	x.resetRequest()
	x.resp.Reset()
	if x.framing == http1.Chunked {
		x.trailers.Reset()
	}
	if x.rframing == http1.Chunked {
		x.rtrail.Reset()
	}
	x.payload, x.complete, x.keep, x.pump = nil, false, false, nil
	for i := range x.ntried {
		x.tried[i] = nil
	}
	x.ntried, x.attempts, x.retrying = 0, 0, nil
	x.received, x.sent, x.upSent, x.upReceived = 0, 0, 0, 0
	x.flags, x.status, x.details, x.upStart, x.upFirst = 0, 0, "", 0, 0
	x.upHost, x.upLocal, x.upPeer, x.upOwn, x.upTLS, x.upFailure = nil, nil, "", "", 0, ""
	x.decided, x.closeAfter, x.responded = false, false, false
	x.stale, x.wrote, x.staleRetried = false, false, false
	x.decision = authz.Decision{}
	x.sel, x.cluster, x.host = route.Selected{}, nil, nil
	if cap(x.out) > keepBuffer {
		x.out = nil
	}
	if cap(x.store) > keepBuffer {
		x.store = nil
	}
}

// resetRequest forgets a request, also one that was parsed only in part.
func (x *exchange) resetRequest() {
	x.req.Reset()
	x.parser.Reset()
}

// handle answers the request in c.x. The result tells whether the connection goes
// on.
func (c *conn) handle(framing http1.Framing) bool {
	x := c.x
	x.framing = framing
	x.body.Start(framing, x.req.ContentLength, c.m.limits)
	x.req.Scheme = "http"
	if c.d.Info.TLS {
		x.req.Scheme = "https"
	}
	x.closeAfter = x.req.Close
	x.takeBuffered()
	if x.admit() {
		x.forward()
	}
	x.finish()
	if !x.complete && !x.closeAfter {
		x.discardBody()
	}
	if x.closeAfter && x.responded && (!x.complete || x.in.len() > 0) {
		c.linger()
	}
	return !x.closeAfter
}

// admit runs everything that can answer without an upstream. It is true when the
// request is to be forwarded.
func (x *exchange) admit() bool {
	if x.c.d.Shedding() {
		x.flags |= telemetry.FlagOverload
		x.c.localReply(&reply{status: 503, body: "overloaded", details: "overload", close: true})
		return false
	}
	if x.req.Method == "CONNECT" || x.req.Upgrade != "" {
		x.c.localReply(&reply{status: 403, details: "upgrade_failed", close: x.req.Method == "CONNECT"})
		return false
	}
	if !x.normalizePath() {
		return false
	}
	x.identifyClient()
	d := x.c.d.CheckRequest(&x.req)
	x.decided, x.decision = true, d
	if !d.Allowed {
		x.flags |= telemetry.FlagUnauthorized
		x.c.localReply(&reply{status: 403, body: "RBAC: access denied", details: "rbac_access_denied"})
		return false
	}
	return x.route()
}

// normalizePath applies the path rules; it answers when they refuse.
func (x *exchange) normalizePath() bool {
	out, verdict := x.m.paths.apply(x.scratch[:0], x.req.Path)
	x.scratch = out[:0]
	switch verdict {
	case pathRejected:
		x.c.localReply(&reply{status: 400, details: "path_normalization_failed"})
		return false
	case pathRedirect:
		x.c.localReply(&reply{status: 307, details: "path_normalization_redirect", location: string(out)})
		return false
	case pathChanged:
		x.req.SetPath(message.View(out))
	}
	return true
}

// route selects what is to be done and answers redirects and direct responses.
func (x *exchange) route() bool {
	table := x.m.routes()
	if table == nil {
		x.flags |= telemetry.FlagNoRoute
		x.c.localReply(&reply{status: 404, details: "route_configuration_not_received"})
		return false
	}
	x.sel = table.Select(&x.req, rand.Uint64())
	x.formats = x.m.formatsOf(table)
	r := x.sel.Route
	switch {
	case r == nil:
		x.flags |= telemetry.FlagNoRoute
		x.c.localReply(&reply{status: 404, details: "route_not_found"})
		return false
	case r.Redirect != nil:
		x.c.localReply(&reply{status: redirectStatus(r.Redirect), details: "direct_response", location: x.redirectLocation(r)})
		return false
	case r.Direct != nil:
		x.c.localReply(&reply{status: r.Direct.Status, body: string(r.Direct.Body), details: "direct_response"})
		return false
	}
	if x.cluster = x.m.clusters.Get(x.sel.Cluster); x.cluster == nil {
		x.flags |= telemetry.FlagNoCluster
		x.c.localReply(&reply{status: 503, details: "cluster_not_found"})
		return false
	}
	return true
}

// takeBuffered makes the part of the body that has arrived the payload.
func (x *exchange) takeBuffered() {
	x.keep = true
	switch x.framing {
	case http1.NoBody:
		x.complete = true
	case http1.Length:
		data, n, done, _ := x.body.Decode(x.in.bytes(), &x.trailers)
		x.received += int64(len(data))
		if done {
			// The bytes stay where they are: nothing is read from the client
			// until the exchange is over.
			x.payload, x.complete = data, true
			x.in.consume(n)
			return
		}
		x.store = append(x.store[:0], data...)
		x.payload = x.store
		x.in.consume(n)
	case http1.Chunked:
		x.store = x.store[:0]
		x.payload = x.store
		x.decodeBuffered()
	}
}

// decodeBuffered takes what has arrived of a chunked body. An error is found again
// by whoever reads on.
func (x *exchange) decodeBuffered() {
	for !x.complete && x.in.len() > 0 {
		data, n, done, err := x.body.Decode(x.in.bytes(), &x.trailers)
		if err != nil {
			return
		}
		x.received += int64(len(data))
		x.store = append(x.store, data...)
		x.payload = x.store
		x.in.consume(n)
		x.complete = done
		if n == 0 {
			return
		}
	}
}

// finish reports the exchange.
func (x *exchange) finish() {
	c := x.c
	now := monotonic()
	took := time.Duration(now - x.startMono)
	if e := c.d.Ended(); e != nil {
		x.flags |= e.Flags
	}
	c.d.PeerMetrics.Request(c.d.Shard, x.status, x.flags, took)
	c.d.PeerMetrics.Bytes(c.d.Shard, x.received, x.sent)
	if x.host != nil {
		if m := x.host.Cluster().Metrics(); m != nil {
			m.BytesSent.Add(c.d.Shard, uint64(x.upSent))
			m.BytesReceived.Add(c.d.Shard, uint64(x.upReceived))
		}
	}
	if x.m.access != nil {
		r := x.record()
		r.Duration = took
		x.m.access.Log(r)
	}
	if x.rec != nil {
		x.rec.Release()
		x.rec = nil
	}
}

// record fills in what is known so far: for the access log, and for header values
// with operators.
func (x *exchange) record() *telemetry.Record {
	r := x.rec
	if r == nil {
		r = x.c.d.NewRecord()
		x.rec = r
		r.Start = x.start
		r.Protocol = x.req.Version.String()
		r.RequestHeaders = &x.req
		if x.decided {
			downstream.Authorize(r, x.decision)
		}
	}
	r.ResponseHeaders = &x.resp
	r.Code, r.CodeDetails = x.status, x.details
	r.Flags |= x.flags
	r.BytesReceived, r.BytesSent = x.received, x.sent
	if x.sel.VirtualHost != nil {
		r.VirtualHost = x.sel.VirtualHost.Name
	}
	if x.sel.Route != nil {
		r.Route = x.sel.Route.Name
		if r.Route == "" {
			r.Route = x.sel.Route.Origin
		}
		r.Cluster = x.sel.Cluster
	}
	r.UpstreamHost, r.UpstreamLocal = x.upHost, x.upLocal
	r.UpstreamPeerID, r.UpstreamOwnID, r.UpstreamTLSVersion = x.upPeer, x.upOwn, x.upTLS
	r.UpstreamTransportFailure = x.upFailure
	r.Attempts = x.attempts
	if x.upFirst > 0 {
		r.UpstreamDuration = time.Duration(x.upFirst - x.upStart)
	}
	return r
}
