package hcm

import (
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// selectRoute finds in the table what is to be done with the request.
//
//go:noinline
func (x *exchange) selectRoute() {
	if x.table == nil {
		return
	}
	x.asker.Info, x.asker.Addr = x.d.Info, x.peer.Remote
	x.sel = x.table.Select(x.req, &x.asker, rand.Uint64())
	x.heedRoute()
}

// heedRoute settles what the selected route says of the request before anything is done with it.
func (x *exchange) heedRoute() {
	if r := x.sel.Route; r != nil && r.Forward != nil {
		most := r.Forward.MaxDuration(x.req, x.m.maxDuration)
		if most > 0 {
			x.lifeEnd = x.startMono + int64(most)
		}
		if r.Forward.StreamDuration != nil && route.IsGRPC(x.req) {
			x.tellGRPCTimeout(most)
		}
	}
	x.noteIdle()
	if r := x.sel.Route; r != nil && r.Forward != nil && len(r.Forward.Upgrades) > 0 {
		x.terminate = x.req.Method == "POST" && x.req.Upgrade == "" && route.TerminatesPost(r.Forward.Upgrades)
	} else {
		x.terminate = false
	}
	if x.req.Body != nil {
		x.keepUpTo = x.keepLimit()
		x.keep = x.keep && len(x.payload) <= int(x.keepUpTo)
	}
}

// tellGRPCTimeout has grpc-timeout say what a route allows the exchange. One that lifts
// the connection manager's limit takes the client's away too, as in Envoy.
func (x *exchange) tellGRPCTimeout(most time.Duration) {
	switch f := &x.req.Fields; {
	case most > 0:
		x.scratch = message.AppendGRPCTimeout(x.scratch[:0], most)
		f.SetIDBytes(message.GRPCTimeout, x.scratch)
	case x.m.maxDuration > 0:
		f.DelID(message.GRPCTimeout)
	}
}

// forgetRoute prepares for the next request's.
func (x *exchange) forgetRoute() {
	x.sel = route.Selected{} // one by one: together they would be made on the stack first
	x.timeouts = route.Timeouts{}
	if x.placed {
		x.placed = false
		x.asker, x.pick = route.Client{}, cluster.PickContext{}
	} else {
		p := &x.pick
		p.Request, p.Metadata, p.Tried = nil, nil, nil
		x.asker.Info, x.asker.Addr = nil, netip.Addr{}
	}
	x.table, x.cluster, x.original = nil, nil, ""
	x.keepUpTo, x.lifeEnd = replayLimit, noDeadline
	clear(x.cookies)
	x.cookies = x.cookies[:0]
}

// act does what the route says; it is true when the request is to be forwarded.
func (x *exchange) act() bool {
	r := x.sel.Route
	switch {
	case x.table == nil:
		x.leaveOld()
		x.flags |= telemetry.FlagNoRoute
		x.answer(404, "route_configuration_not_received")
		return false
	case x.sel.HTTPS:
		location := ""
		if x.req.Path != "" { // CONNECT has none, and follows nowhere
			location = "https://" + x.req.Authority + x.req.Path
		}
		x.sendTo(301, "direct_response", location)
		return false
	case r == nil:
		x.flags |= telemetry.FlagNoRoute
		x.answer(404, "route_not_found")
		return false
	case r.Redirect != nil:
		x.redirect(r)
		return false
	case r.Direct != nil:
		x.answerDirectly(r.Direct)
		return false
	}
	if x.cluster = x.m.clusters.Get(x.sel.Cluster); x.cluster == nil {
		x.leaveOld()
		x.flags |= telemetry.FlagNoCluster
		x.answer(notFoundStatus(r.Forward), "cluster_not_found")
		return false
	}
	if d := x.cluster.Dropping(); d != nil && d.Drops(x.d.Shard) {
		x.answerDropped(d)
		return false
	}
	if x.d.Overload.RefuseUpstream() {
		x.attempts++ // as in Envoy, to which it is one
		x.shed()
		return false
	}
	if x.spokeEarly() {
		x.refuseEarly()
		return false
	}
	return true
}

// answerDropped answers in the place of a cluster that has an overload. Nothing of what the route
// says of requests is done yet, as in Envoy.
//
//go:noinline
func (x *exchange) answerDropped(d *cluster.Dropping) {
	r := reply{status: 503, body: "drop overload", details: "drop_overload", dropped: "x-envoy-drop-overload"}
	flag := telemetry.FlagDropOverload
	if d.All() {
		r.body, r.details, r.dropped = "unconditional drop overload", "unconditional_drop_overload", "x-envoy-unconditional-drop-overload"
		flag = telemetry.FlagUnconditionalDropOverload
	}
	x.flags |= flag
	x.localReply(&r)
}

// leaveOld ends a connection whose listener was updated since, when what it was to use
// is gone: the client's next one is served by what is there now.
func (x *exchange) leaveOld() {
	if x.d.Superseded() {
		x.closeAfter, x.lastHere = true, true
	}
}

func notFoundStatus(f *route.Forward) int {
	if f.NotFoundStatus == 0 {
		return 503
	}
	return int(f.NotFoundStatus)
}

// redirect answers with where the route leads. What the route's headers, local replies
// and logs are made of is the request with the path that it leads to, as in Envoy.
func (x *exchange) redirect(r *route.Route) {
	if x.req.Path == "" { // CONNECT has none, and follows nowhere
		x.localReply(&reply{status: redirectStatus(r.Redirect), details: "direct_response", routed: true})
		return
	}
	proto, _ := x.req.Fields.ByID(message.XForwardedProto)
	location, rewritten := r.Location(x.req, proto, x.sel.RedirectPath(x, &x.scratch))
	if rewritten != "" {
		if !x.m.cfg.SuppressEnvoyHeaders {
			x.req.Fields.SetID(message.XEnvoyOriginalPath, x.req.Path)
		}
		x.req.SetPath(rewritten)
	}
	x.localReply(&reply{status: redirectStatus(r.Redirect), details: "direct_response", location: location, routed: true})
}

func redirectStatus(r *route.Redirect) int {
	if r.Code == 0 {
		return 301
	}
	return r.Code
}

// answerDirectly: where the status wants a Location, it is the request's own
// (RFC 9110 10.2.2).
func (x *exchange) answerDirectly(d *route.DirectResponse) {
	r := reply{status: d.Status, body: message.View(d.Body), details: "direct_response", routed: true}
	if b := x.sel.DirectBody(); b != nil {
		rec := x.record()
		rec.LocalReply = r.body
		r.body, r.contentType = string(b.Append(nil, rec)), b.ContentType
		rec.LocalReply = ""
	}
	if d.Status == 201 || d.Status >= 300 && d.Status < 400 {
		r.location = x.req.Scheme + "://" + x.req.Authority + x.req.Path
	}
	x.localReply(&r)
}

// Record implements route.Facts. Where the request has a cluster, its first attempt is the
// one under way before it has begun, unless it is dropped.
func (x *exchange) Record() *telemetry.Record {
	r := x.record()
	if x.cluster != nil && x.flags&(telemetry.FlagDropOverload|telemetry.FlagUnconditionalDropOverload) == 0 {
		r.Attempts = max(1, r.Attempts)
	}
	return r
}

// mutateRequest applies the selected route to the request: headers, host, path. It
// runs once, before the first attempt.
func (x *exchange) mutateRequest() {
	x.speaksGRPC()
	x.timeouts = x.sel.Timeouts(x.req)
	if x.m.cfg.RespectExpectedTimeout {
		v, _ := x.req.Fields.ByID(message.XEnvoyExpectedTimeout)
		if ms, err := strconv.ParseUint(strings.TrimPrefix(v, "+"), 10, 63); err == nil { // as Envoy reads a number
			const longest = uint64(1<<62) / uint64(time.Millisecond)
			x.timeouts.SetTotal(time.Duration(min(ms, longest)) * time.Millisecond)
		}
	}
	x.tellAttempt(1, 0)
	x.sel.MutateRequest(x.req, x, &x.scratch)
	x.restorePort()
	x.original = x.req.Authority
	if x.sel.Rewrites() {
		x.rewrite()
	}
	x.place(x.sel.Route.Forward)
}

// rewrite changes authority and path as the route says. It is by itself because few
// routes do, and its buffers are to be cleared on the stack of those requests only.
func (x *exchange) rewrite() {
	var host, path [512]byte
	if b, changed := x.sel.AppendHost(host[:0], x.req, x, &x.scratch); changed {
		x.rewriteHost(message.View(b))
	}
	if b, changed := x.sel.AppendPath(path[:0], x.req, x, &x.scratch); changed {
		if !x.m.cfg.SuppressEnvoyHeaders {
			x.req.Fields.SetID(message.XEnvoyOriginalPath, x.req.Path)
		}
		x.req.SetPath(message.View(b))
	}
}

// place settles what the choice of a host depends on, which is the request as the host
// gets it: a hash is one of the headers and the path that the route has made, as in Envoy.
// Only where hosts are chosen by the hash is one made, and with it cookies.
func (x *exchange) place(fw *route.Forward) {
	x.pick.Request, x.pick.Shard = x.req, x.d.Shard
	if len(fw.Metadata) > 0 || x.sel.Leg != nil && len(x.sel.Leg.Metadata) > 0 {
		b := x.binding // it may be of a table that is not in force any more
		if b == nil {
			b = x.policy.bind(x.table)
		}
		x.pick.Metadata = b.subset(&x.sel)
	}
	c := x.cluster.Config()
	if to := x.destination(c); to.IsValid() || x.placed {
		x.placed, x.pick.Destination = true, to
	}
	if c.HTTP.Retry != nil {
		x.sel.Retry = c.HTTP.Retry // whatever the route says; its times stay, both as in Envoy
	}
	by := fw.Hash
	if len(c.HTTP.Hash) > 0 {
		by = c.HTTP.Hash
	}
	switch {
	case c.OwnHash():
		by = c.Hash.Policies
	case c.Type == cluster.Aggregate: // those within may have some
		x.placed, x.pick.Client = true, &x.asker
	}
	if len(by) > 0 && (c.LB == cluster.RingHash || c.LB == cluster.Maglev || c.Type == cluster.Aggregate) {
		x.placed = true
		x.asker.Remote, x.asker.Local = route.AddrPort(x.d.Info.Remote), x.d.Peer.Destination
		x.pick.Hash, x.pick.HasHash, x.cookies = route.Hash64(by, x.req, &x.asker, x.cookies)
	}
}

// destination is where the client meant to connect to, for a cluster that may go there.
func (x *exchange) destination(c *cluster.Config) (to netip.AddrPort) {
	if c.Type == cluster.OriginalDestination || c.Type == cluster.Aggregate {
		to = cluster.Redirected(x.d.Destination, x.d.Info)
	}
	return to
}

// priority is whose limits apply.
func (x *exchange) priority() cluster.Priority {
	if r := x.sel.Route; r != nil && r.Forward != nil && r.Forward.HighPriority {
		return cluster.HighPriority
	}
	return cluster.DefaultPriority
}

// rewriteHost replaces the authority and keeps the original for whoever asks.
func (x *exchange) rewriteHost(host string) {
	f := &x.req.Fields
	if !x.m.cfg.SuppressEnvoyHeaders {
		f.Set("x-envoy-original-host", x.original)
	}
	if x.sel.Route.Forward.AppendForwardedHost && x.original != "" && !route.LastForwardedHost(f, x.original) {
		if v, ok := f.Joined("x-forwarded-host"); ok {
			x.scratch = append(append(append(x.scratch[:0], v...), ','), x.original...)
			f.SetIDBytes(message.XForwardedHost, x.scratch)
		} else {
			f.AddID(message.XForwardedHost, x.original)
		}
	}
	x.req.SetAuthority(host)
}

// mutateResponse applies the selected route's changes to a response that an
// upstream, or we ourselves, gave. They see the cookies that the hash made. An answer that is
// the manager's own is not the router's, which alone knows of attempts.
func (x *exchange) mutateResponse(byManager bool) {
	if x.sel.Route == nil {
		return
	}
	f := &x.resp.Fields
	if !x.local {
		// No host answered that a cookie could lead back to.
		for _, c := range x.cookies {
			x.scratch = c.AppendSetCookie(x.scratch[:0], &x.asker)
			f.AddBytes("set-cookie", x.scratch)
		}
	}
	x.sel.MutateResponse(f, x, &x.scratch)
	if x.sel.VirtualHost.AttemptCountInResponse && x.attempts > 0 && !byManager {
		x.scratch = strconv.AppendInt(x.scratch[:0], int64(x.attempts), 10)
		f.SetIDBytes(message.XEnvoyAttemptCount, x.scratch)
	}
}

// prepareAttempt brings up to date what the upstream is told of this attempt.
func (x *exchange) prepareAttempt(h *cluster.Host) {
	if x.shadow {
		return // a copy stays as it was made
	}
	if x.sel.Route.Forward.AutoHostRewrite {
		if name := h.Authority(); name != "" {
			x.rewriteHost(name)
		}
	}
	if x.attempts > 1 {
		x.tellAgain()
	}
}

// tellAgain is told of an attempt that is not the first, where the route's changes are over.
//
//go:noinline
func (x *exchange) tellAgain() {
	var elapsed time.Duration
	if x.deadline != noDeadline {
		elapsed = x.timeouts.Total - time.Duration(x.deadline-monotonic())
	}
	x.tellAttempt(x.attempts, elapsed)
	if x.sel.VirtualHost.TimeoutRetryHeader {
		x.req.Fields.Set("x-envoy-is-timeout-retry", strconv.FormatBool(x.afterTimeout))
	}
}

// tellAttempt is what a host is told of an attempt. Of the first it stands before the route
// changes headers, which may show, change and remove it.
func (x *exchange) tellAttempt(attempt int, elapsed time.Duration) {
	f := &x.req.Fields
	if left := x.timeouts.Expected(elapsed); left > 0 {
		if !x.m.cfg.SuppressEnvoyHeaders {
			x.scratch = strconv.AppendInt(x.scratch[:0], left.Milliseconds(), 10)
			f.SetIDBytes(message.XEnvoyExpectedTimeout, x.scratch)
		}
		if x.timeouts.RewriteGRPC {
			x.scratch = message.AppendGRPCTimeout(x.scratch[:0], left)
			f.SetIDBytes(message.GRPCTimeout, x.scratch)
		}
	}
	if x.sel.VirtualHost.AttemptCountInRequest {
		x.scratch = strconv.AppendInt(x.scratch[:0], int64(attempt), 10)
		f.SetIDBytes(message.XEnvoyAttemptCount, x.scratch)
	}
}
