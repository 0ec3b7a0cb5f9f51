package hcm

import (
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// wantsTunnel tells whether the client asks for something else than an exchange of
// messages: CONNECT, or a switch to another protocol.
func (x *exchange) wantsTunnel() bool { return x.req.Method == "CONNECT" || x.req.Upgrade != "" }

// allowTunnel makes the exchange one that may become a tunnel, if the route lets it,
// or where the route says nothing the connection manager. Without a route there is
// nothing to become; the protocol's filters see the request all the same, as in Envoy.
func (x *exchange) allowTunnel() bool {
	kind := x.upgradeKind()
	r := x.sel.Route
	var ofRoute []route.Upgrade
	if r != nil && r.Forward != nil {
		ofRoute = r.Forward.Upgrades
	}
	allowed, said := route.Allows(ofRoute, kind)
	if !said {
		allowed, _ = route.Allows(x.policy.cfg.Upgrades, kind)
	}
	switch {
	case x.req.Method == "POST" && route.TerminatesPost(ofRoute):
		allowed = false // its host takes bytes: it would read the request as some
	case x.req.Upgrade != "" && message.EqualNames(kind, "CONNECT"):
		allowed = false // that is no protocol: what is allowed of the method, by its own filters, is not of others
	}
	if allowed {
		x.policy = x.policy.forUpgrade(kind)
	}
	if allowed = allowed && (r != nil || x.sel.HTTPS); allowed {
		x.terminate = x.req.Method == "CONNECT" && x.req.Upgrade == "" && route.Terminates(ofRoute)
		x.tunnel = true
		x.client.tunnel(x)
		// A client of HTTP/2 may have ended its half with the head.
		x.complete = x.req.Body == nil
	}
	return allowed
}

// refuseTunnel has the connection of a request for a tunnel that it does not get end, and
// answers it. Where no route matches, that is what there is to be told.
func (x *exchange) refuseTunnel() (answered bool) {
	// What follows may be meant for the tunnel: it must not be read as a request.
	x.closeAfter = true
	if x.sel.Route == nil && !x.sel.HTTPS {
		return false
	}
	x.answer(403, "upgrade_failed")
	return true
}

// switched tells whether the host agreed to what the client asked for. What follows
// the heads on either side is then the tunnel's.
func (x *exchange) switched() bool {
	switch {
	case !x.tunnel:
		return false
	case x.req.Upgrade != "":
		return x.resp.Status == 101 && message.EqualNames(x.resp.Upgrade, x.req.Upgrade)
	}
	return x.resp.Status >= 200 && x.resp.Status < 300
}

// looksSwitched tells whether a client of HTTP/2 would take the host's answer for its consent
// (RFC 8441 5), where the host of HTTP/1 answered the request as if it asked for nothing.
func (x *exchange) looksSwitched() bool {
	return x.req.Upgrade != "" && x.req.Version == message.HTTP2 && x.resp.Status >= 200 && x.resp.Status < 300
}

// ignored tells whether a host of HTTP/1 answered as if no WebSocket had been asked for. What it
// says of a fault is passed on as it is.
func (x *exchange) ignored() bool {
	return isWebSocket(x.req) && x.attempt.version != message.HTTP2 && x.resp.Status >= 200 && x.resp.Status < 400
}

// dropContent leaves the head of what a host made of a request for a WebSocket: its content was
// not asked for, as behind Envoy.
func (x *exchange) dropContent() {
	x.details = "websocket_handshake_unsuccessful"
	x.resp.Body, x.resp.ContentLength = nil, 0
	x.resp.Fields.DelID(message.ContentLength)
}

// spokeEarly tells whether a client that may not has said something for its CONNECT before that was
// answered.
func (x *exchange) spokeEarly() bool {
	return x.m.cfg.RejectEarlyConnect && x.tunnel && x.req.Method == "CONNECT" && x.req.Upgrade == "" &&
		x.req.Body != nil && (len(x.payload) > 0 || x.req.Body.Ready() || x.client == client(&x.h1) && x.h1.c.unread() && !x.h1.gone())
}

func (x *exchange) refuseEarly() {
	x.closeAfter = true
	x.answer(400, "early_connect_data")
}

// relayTunnel carries bytes both ways until either side ends. A client that ends its
// half is passed on as such; the host's end is the tunnel's. A host that takes nothing may
// have spoken all the same: it is heard to its end.
func (x *exchange) relayTunnel() {
	defer x.m.tunnels.remove(x)
	if x.spokeEarly() {
		x.endUpstream(false)
		x.refuseEarly()
		return
	}
	if !x.openTunnel() {
		x.endUpstream(false)
		return
	}
	if err := x.client.head(x, true); err != nil {
		x.headFailed(err)
		return
	}
	body := x.resp.Body
	if body == nil {
		// The host ended it with its answer.
		ok := x.data(nil, true, nil)
		x.endUpstream(false)
		if ok {
			x.flush()
		}
		return
	}
	// No answer is waited for any more; what counts is that bytes flow, and how long the
	// exchange may last, and that the client is there: nobody may be reading from one that
	// has ended its half. One of HTTP/1 looks the same when it has left.
	x.attempt.until = min(x.lifeEnd, x.attempt.streamBy)
	x.dog.await(monotonic(), x.attempt.until, x.idleTimeout(), !x.dog.polled)
	first := x.payload
	x.keep, x.payload = false, nil // there is no other attempt at a tunnel
	if len(first) > 0 || !x.complete {
		x.startPump(x.attempt.up, first)
	} else if err := x.attempt.up.write(nil, true, nil); stream.IsTimeout(err) {
		x.bodyBroken(err)
		return
	}
	if x.m.cfg.LogTunnels {
		x.log(telemetry.LogTunnelStarted, sinceMono(x.startMono))
	}
	x.relayBody(body)
}

// abortTunnel has the host of a tunnel that was cut not take what it got for the whole.
// On a stream of HTTP/2 leaving does that.
func (a *attempt) abortTunnel() {
	switch up := a.up.(type) {
	case *http1Upstream:
		stream.Abort(up.c.Stream)
	case *bytesUpstream:
		stream.Abort(up.c.Stream)
	}
}
