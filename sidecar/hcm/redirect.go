package hcm

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

// A redirect that is followed here is a request of its own: its route is chosen anew, the
// filters see it, authorization among them, and it has a record in the log. Of the request
// before it there remain who asks, the headers and the body.

// maxRedirected bounds what a request's head grows to by redirects: each adds to it, and a
// route may follow as many as it likes.
const maxRedirected = 256 << 10

// conclude relays the answer, unless it is a redirect that is followed: then the exchange
// is about the request that it leads to, and followRedirects is to be called.
func (x *exchange) conclude() (redirected bool) {
	if s := x.resp.Status; s > 300 && s < 309 {
		if p := x.sel.Route.Forward.InternalRedirect; p != nil && p.Follows(s) && x.redirected(p) {
			return true
		}
	}
	x.relay()
	return false
}

// followRedirects goes on until an answer is passed on.
func (x *exchange) followRedirects() {
	for x.readmit() && x.forward() { // one after the other
	}
	x.trail = nil
}

// redirected makes the exchange one about the request that the answer leads to, if the
// policy has it so.
func (x *exchange) redirected(p *route.InternalRedirect) bool {
	x.settlePump()
	trail := x.trail
	if trail == nil {
		trail = &route.RedirectTrail{}
	}
	next := hop{from: "http"}
	if x.d.Info.TLS && x.req.Scheme != "http" {
		next.from = "https"
	}
	result := x.mayFollow(p, trail, &next)
	if result == telemetry.RedirectFollowed {
		result = x.redirectTo(p, trail, &next)
	}
	x.attempt.host.Cluster().Metrics().Redirected(x.d.Shard, result)
	if result != telemetry.RedirectFollowed {
		x.dropReplay()
		return false
	}
	trail.Count++
	x.trail = trail
	// A pump that still writes is stopped; were it to panic, all of the body is here all the same.
	x.endUpstream(x.drainAnswer())
	x.endHop(next.req.Body != nil)
	*x.req = next.req
	x.beginHop()
	x.table, x.sel = next.table, next.sel
	x.asker = route.Client{Info: x.d.Info, Addr: x.peer.Remote}
	x.heedRoute()
	return true
}

// hop is a request that a redirect leads to, before it is the exchange's.
type hop struct {
	from  string // the scheme of the request before it
	to    location
	req   message.Request
	table *route.Table
	sel   route.Selected
}

// mayFollow reads where the answer leads. The result says why it is not followed, as far as that
// shows without making the next request.
func (x *exchange) mayFollow(p *route.InternalRedirect, trail *route.RedirectTrail, next *hop) telemetry.Redirect {
	if x.tunnel || x.interim || !x.requestRead() || !x.holdReplay() {
		return telemetry.RedirectIncomplete
	}
	if !x.policyInForce() {
		return telemetry.RedirectUpdated // the client is to ask those who decide now
	}
	uri, ok := x.resp.Fields.ByID(message.Location)
	if !ok {
		return telemetry.RedirectBadLocation
	}
	if next.to, ok = parseLocation(uri); !ok {
		return telemetry.RedirectBadLocation
	}
	switch {
	case next.to.scheme != next.from && !p.CrossScheme:
		return telemetry.RedirectScheme
	case trail.Count >= p.Max || x.req.Fields.Stored() > maxRedirected:
		return telemetry.RedirectTooMany
	}
	return telemetry.RedirectFollowed
}

// redirectTo makes the request that the answer leads to, and finds its route. The result says why
// it is not to be sent.
func (x *exchange) redirectTo(p *route.InternalRedirect, trail *route.RedirectTrail, next *hop) telemetry.Redirect {
	// What was asked stays as it is until the log has it, and where the redirect is passed on.
	was := *x.req
	x.req.Fields = message.Fields{}
	x.req.Fields.CopyFrom(&was.Fields)
	defer func() { next.req, *x.req = *x.req, was }()
	x.req.Fields.Set("x-envoy-original-url", next.from+"://"+x.req.Authority+x.req.Path)
	x.aim(p, &next.to)
	next.table = x.policy.routes()
	if next.table != nil {
		if !slices.Equal(next.table.InternalOnly, x.table.InternalOnly) {
			return telemetry.RedirectUpdated // the request has what its routes do not expect
		}
		next.sel = next.table.Select(x.req, &x.asker, rand.Uint64())
	}
	name := ""
	switch r := next.sel.Route; {
	case r != nil:
		name = r.Name
	case !next.sel.HTTPS:
		return telemetry.RedirectNoRoute
	}
	if !p.Admits(trail, x.sel.Route.Name, name, next.from == "https", next.to.scheme == "https") {
		return telemetry.RedirectRefused
	}
	return telemetry.RedirectFollowed
}

// aim makes the request one for where it is sent on to. Path and host are brought into the
// form that is in force for a client's before a route is chosen by them; readmit refuses what is
// refused of a client. What the first route rewrote is told of by x-envoy-original-url alone:
// rules, hosts and logs would take the rest for what this request was.
func (x *exchange) aim(p *route.InternalRedirect, to *location) {
	f := &x.req.Fields
	f.DelID(message.XEnvoyOriginalPath)
	f.Del("x-envoy-original-host")
	for _, name := range p.Copy {
		f.Del(name)
		for i := range x.resp.Fields.Slots() {
			if n, v, ok := x.resp.Fields.At(i); ok && message.EqualFold(n, name) {
				f.Add(name, v)
			}
		}
	}
	f.JoinSingles(message.RequestSingles)
	x.req.Scheme = to.scheme
	x.req.SetAuthority(to.authority)
	x.req.SetPath(to.target)
	var buf [512]byte
	if path, verdict := x.policy.paths.apply(buf[:0], x.req.Path); verdict == pathChanged {
		x.req.SetPath(message.View(path))
	}
	x.trimHost()
	if x.resp.Status == 303 && x.req.Method != "GET" && x.req.Method != "HEAD" {
		// RFC 9110 15.4.4
		x.req.Method, x.req.Body, x.req.ContentLength = "GET", nil, 0
		f.DelID(message.ContentLength)
	}
}

// drainAnswer reads the content of an answer that nobody gets as far as it is here, and tells
// whether that was all: its connection can be used again then.
func (x *exchange) drainAnswer() bool {
	body := x.resp.Body
	for body != nil && body.Ready() {
		data, last, err := body.Next()
		if err != nil {
			return false
		}
		if x.attempt.received += int64(len(data)); last {
			return true
		}
	}
	return body == nil
}

// endHop tells of a request that was answered with a redirect which is followed. kept says
// that the next one has its body.
func (x *exchange) endHop(kept bool) {
	ended := monotonic()
	took := time.Duration(ended - x.startMono)
	x.status, x.details = x.resp.Status, "internal_redirect"
	x.observed.markAt(telemetry.ResponseEnded, ended)
	x.countRequest(took)
	if !kept {
		x.d.PeerMetrics.Bytes(x.d.Shard, x.received, 0)
	}
	x.attempt.countBytes()
	x.attempt.countTime(ended)
	x.stopReporter()
	x.mirrors()
	x.restoreTrailers()
	x.tell(took)
}

// beginHop forgets the request that was answered, but for who asks and the body.
func (x *exchange) beginHop() {
	if x.req.Body == nil {
		x.dropKept() // the answer may take for ever
		x.payload = nil
	}
	x.dog.calm() // its times were the first route's
	x.resp.Reset()
	x.attempt.reset()
	clear(x.tried[:x.ntried])
	x.ntried, x.attempts = 0, 0
	x.received, x.pump = int64(len(x.payload)), nil
	x.flags, x.status, x.details, x.grpcStatus, x.resetCode = 0, 0, "", "", 0
	x.decided, x.heard, x.grpc, x.mirrored = false, false, false, false
	x.staleRetried, x.resent, x.afterTimeout = false, false, false
	client := x.observed.sizes.Downstream // it counts all that the client's one request took
	x.observed.reset()
	x.observed.sizes.Downstream = client
	x.span = tracing.Span{}
	x.forgetRoute()
	x.begin()
	x.observed.mark(telemetry.RequestEnded)
}

// readmit is admit for a request that a redirect has led to.
func (x *exchange) readmit() bool {
	if x.client.gone() || x.ctx.Err() != nil {
		x.clientLeft()
		return false
	}
	sel := x.sel
	x.sel = route.Selected{} // no route has a part in what is refused before one is chosen
	if x.d.Overload.RefuseRequest() {
		x.shed()
		return false
	}
	if !x.judgeQuery() || !x.normalizePath() {
		return false
	}
	x.sel = sel
	x.startSpan()
	if x.m.cfg.LogStart {
		x.log(telemetry.LogStart, 0)
	}
	x.startReporter()
	return x.runFilters() && x.act()
}
