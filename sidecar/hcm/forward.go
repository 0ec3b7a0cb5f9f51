package hcm

import (
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// replayLimit is the most of a request's body that is kept for another attempt.
const replayLimit = 64 << 10

// forward sends the request to the cluster, again where the policy has it so, and
// relays the response.
func (x *exchange) forward() {
	if !x.pullBody() {
		return
	}
	x.mutateRequest()
	x.mirrors()
	x.deadline = noDeadline
	if t := int64(x.timeouts.Total); t > 0 && x.complete {
		x.deadline = x.startMono + t
		if x.req.Body != nil {
			x.deadline = monotonic() + t
		}
	}
	if x.hedges() {
		x.forwardHedged()
		return
	}
	for {
		x.attempts++
		o := x.attempt.run()
		if o == responded {
			if x.retryResponse() {
				continue
			}
			x.endRetry(x.resp.Status < 500)
			x.relay()
			return
		}
		if x.retryFailure(o) {
			continue
		}
		x.endRetry(false)
		x.fail(o)
		return
	}
}

// pullBody reads a small body of known length as a whole where attempts may run side by
// side, each of which sends all of it. Other bodies are sent as they come: the host may
// answer, or ask to go on, before it has all of them. Where no content is announced, the
// head is all of the message: content that comes after all makes it malformed, and such
// a message is not to be forwarded (RFC 9113 section 8.1.1).
func (x *exchange) pullBody() bool {
	if x.complete || x.tunnel || x.req.ExpectContinue || x.req.ContentLength != 0 && !x.hedgesWhole() {
		return true
	}
	hard := x.receiveBy()
	x.dog.await(monotonic(), hard, x.idleTimeout(), false)
	have := len(x.store)
	x.store = grow(x.store, int(x.req.ContentLength))
	for !x.complete {
		n, last, err := x.client.fill(x.store[have:])
		have += n
		x.received += int64(n)
		if err != nil {
			x.bodyFailed(err, hard)
			return false
		}
		x.complete = last
	}
	x.payload = x.store[:have]
	x.keep = x.keep && have <= x.keepUpTo
	return true
}

// hedgesWhole tells whether attempts may run side by side, and the body fits.
func (x *exchange) hedgesWhole() bool {
	h := x.sel.Hedge
	return h != nil && h.OnPerTryTimeout && x.req.ContentLength >= 0 && x.req.ContentLength <= replayLimit
}

// tooSlowReply is for a request that is not whole in time.
var tooSlowReply = reply{status: 408, body: "request timeout", details: "request_overall_timeout", close: true}

// receiveBy is until when the whole request has to be here. What follows an upgrade is
// no part of it.
func (x *exchange) receiveBy() int64 {
	if x.m.requestTimeout > 0 && !x.tunnel {
		return min(x.lifeEnd, x.startMono+x.m.requestTimeout)
	}
	return x.lifeEnd
}

// bodyFailed answers a request whose body did not come whole; hard was the time for
// it.
func (x *exchange) bodyFailed(err error, hard int64) {
	x.closeAfter = true
	if r, ok := refusal(err); ok {
		x.flags |= telemetry.FlagDownstreamProtocolError
		x.localReply(&r)
		return
	}
	if !x.timedOut(err) {
		x.clientLeft()
		return
	}
	cause := x.dog.cause.Load()
	if cause == causeHard && hard == x.lifeEnd {
		x.fail(lifeOver)
		return
	}
	if cause == causeIdle {
		x.flags |= telemetry.FlagStreamIdleTimeout
	}
	slow := tooSlowReply
	x.localReply(&slow)
}

// timedOut tells whether an error is our watchdog's doing.
func (x *exchange) timedOut(err error) bool {
	if err == nil || !stream.IsTimeout(err) {
		return false
	}
	x.dog.calm()
	return true
}

// grow extends b to n bytes and keeps its content.
func grow(b []byte, n int) []byte {
	if cap(b) < n {
		next := make([]byte, n)
		copy(next, b)
		return next
	}
	return b[:n]
}

func (x *exchange) idleTimeout() int64 {
	if r := x.sel.Route; r != nil && r.Forward != nil && r.Forward.IdleTimeout != nil {
		return int64(*r.Forward.IdleTimeout) // 0 is none
	}
	return x.m.streamIdle
}

func (x *exchange) noteTried(h *cluster.Host) {
	if x.ntried == len(x.tried) {
		copy(x.tried[:], x.tried[1:])
		x.ntried--
	}
	x.tried[x.ntried] = h
	x.ntried++
}

// fail answers for an upstream that did not.
func (x *exchange) fail(o outcome) {
	r := reply{status: 503}
	before := "upstream connect error or disconnect/reset before headers. reset reason: "
	if x.attempts > 1 {
		before = "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: "
	}
	switch o {
	case noHost:
		x.flags |= telemetry.FlagNoHealthyUpstream
		r.body, r.details = "no healthy upstream", "no_healthy_upstream"
	case overflow:
		x.flags |= telemetry.FlagUpstreamOverflow
		r.body, r.details, r.overloaded = before+"overflow", "upstream_reset_before_response_started{overflow}", true
	case connectFailed:
		x.flags |= telemetry.FlagUpstreamConnectFailure
		r.body, r.details = before+"remote connection failure", connectDetails(x.attempt.dialErr)
	case connectTimeout:
		x.flags |= telemetry.FlagUpstreamConnectFailure
		r.body, r.details = before+"connection timeout", "upstream_reset_before_response_started{connection_timeout}"
	case reset:
		x.flags |= telemetry.FlagUpstreamConnTermination
		r.body, r.details = before+"connection termination", "upstream_reset_before_response_started{connection_termination}"
	case remoteReset:
		x.flags |= telemetry.FlagUpstreamReset
		r.body, r.details = before+"remote reset", "upstream_reset_before_response_started{remote_reset}"
	case refused:
		x.flags |= telemetry.FlagUpstreamReset
		r.body, r.details = before+"remote refused stream reset", "upstream_reset_before_response_started{remote_refused_stream_reset}"
	case brokeProtocol:
		x.flags |= telemetry.FlagUpstreamProtocolError
		r.status, r.body, r.details = 502, before+"protocol error", "upstream_reset_before_response_started{protocol_error}"
	case timedOut:
		x.flags |= telemetry.FlagUpstreamRequestTimeout
		r.status, r.body, r.details = 504, "upstream request timeout", "response_timeout"
	case tryTimedOut:
		x.flags |= telemetry.FlagUpstreamRequestTimeout
		r.status, r.body, r.details = 504, "upstream request timeout", "upstream_per_try_timeout"
	case tryIdle:
		x.flags |= telemetry.FlagUpstreamRequestTimeout
		r.status, r.body, r.details = 504, "upstream request timeout", "upstream_per_try_idle_timeout"
	case lifeOver:
		x.flags |= telemetry.FlagDurationTimeout
		r.status, r.body, r.details = 408, "downstream duration timeout", "max_duration_timeout"
	case tooSlow:
		r = tooSlowReply
	case idleTimedOut:
		x.flags |= telemetry.FlagStreamIdleTimeout
		r.status, r.body, r.details = 504, "stream timeout", "stream_idle_timeout"
		if !x.requestRead() {
			r.status, r.close = 408, true // it waited for the client
		}
	case clientBroke:
		x.flags |= telemetry.FlagDownstreamProtocolError
		r, _ = refusal(x.pump.refused)
	case unwritable:
		r.status, r.details = 500, "unwritable_request"
	case clientGone:
		x.clientLeft()
		return
	}
	x.localReply(&r)
}

// clientLeft notes that nobody waits for an answer.
func (x *exchange) clientLeft() {
	f, details := x.departure()
	x.flags |= f
	x.details = details
	x.closeAfter = true
}

// departure is how the client left.
func (x *exchange) departure() (f telemetry.Flags, details string) {
	if x.client == &x.h2 && x.h2.reset.Load() {
		return telemetry.FlagDownstreamReset, "http2.remote_reset"
	}
	return telemetry.FlagDownstreamTermination, "downstream_remote_disconnect"
}
