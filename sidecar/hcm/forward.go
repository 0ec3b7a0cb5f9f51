package hcm

import (
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// forward sends the request to the cluster, again where the policy has it so, and
// relays the response; conclude says what redirected is.
func (x *exchange) forward() (redirected bool) {
	if !x.pullBody() {
		return false
	}
	x.mutateRequest()
	x.mirrors()
	x.deadline = noDeadline
	if t := int64(x.timeouts.Total); t > 0 && x.complete {
		x.deadline = x.admittedAt + t
		if x.req.Body != nil {
			x.deadline = monotonic() + t
		}
	}
	if x.hedges() {
		return x.forwardHedged()
	}
	if x.sel.Hedge != nil && x.goesOn() {
		x.timeouts.PerTry, x.timeouts.PerTryIdle = 0, 0
	}
	for {
		x.attempts++
		o := x.attempt.run()
		again := false
		if o == responded {
			if o, again = x.retryResponse(); o == responded && !again {
				x.endRetry(x.resp.Status < 500)
				return x.conclude()
			}
		} else {
			o, again = x.retryFailure(o)
		}
		if again {
			continue
		}
		x.endRetry(false)
		x.fail(o)
		return false
	}
}

// pullBody reads a body of known length as a whole where attempts may run side by
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
	pull := x.pullSmall
	if x.req.ContentLength > replayLimit {
		pull = x.pullLarge
	}
	if err := pull(); err != nil {
		x.bodyFailed(err, hard)
		return false
	}
	x.payload = x.store
	if x.complete {
		x.admittedAt = monotonic()
		x.observed.mark(telemetry.RequestEnded)
		x.keep = x.keep && len(x.payload) <= int(x.keepUpTo)
	}
	return true
}

// pullSmall reads a body into an exchange's own memory.
func (x *exchange) pullSmall() error {
	have := len(x.store)
	x.store = grow(x.store, int(x.req.ContentLength))
	for !x.complete {
		n, last, err := x.client.fill(x.store[have:])
		have += n
		x.received += int64(n)
		if err != nil {
			return err
		}
		x.complete = last
	}
	x.store = x.store[:have]
	return nil
}

// pullLarge reads a body as long as there is room for what has come: its length is only a
// claim.
func (x *exchange) pullLarge() error {
	for room := true; room && !x.complete; {
		data, last, err := x.client.Next()
		if err != nil {
			return err
		}
		x.received += int64(len(data))
		if room = x.keepMore(data, false); !room {
			x.keepMore(data, true)
		}
		x.complete = last
	}
	return nil
}

// hedgesWhole tells whether attempts may run side by side, and the body fits.
func (x *exchange) hedgesWhole() bool {
	h, n := x.sel.Hedge, x.req.ContentLength
	return h != nil && h.OnPerTryTimeout && !x.terminate && n >= 0 && n <= int64(x.keepUpTo)
}

// tooSlowReply is for a request that is not whole in time.
var tooSlowReply = reply{status: 408, body: "request timeout", details: "request_overall_timeout", close: true, byManager: true}

// receiveBy is until when the whole request has to be here, as long as it is not answered.
// What follows an upgrade is no part of it.
func (x *exchange) receiveBy() int64 {
	if x.m.requestTimeout > 0 && !x.tunnel && x.status == 0 {
		return min(x.lifeEnd, x.startMono+x.m.requestTimeout)
	}
	return x.lifeEnd
}

// bodyFailed answers a request whose body did not come whole; hard was the time for
// it.
func (x *exchange) bodyFailed(err error, hard int64) {
	x.closeAfter = true
	if r, ok := refusal(err); ok {
		x.answerRefusal(err, &r)
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
		x.fail(idleTimedOut)
		return
	}
	slow := tooSlowReply
	if cause == causeSlow {
		slow = slowReply
		x.m.countSlow(x.d, "body")
	}
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
	if x.pick.Tried != nil {
		x.pick.Tried = x.pick.Tried.And(h)
	}
}

// fail answers for an upstream that did not.
func (x *exchange) fail(o outcome) {
	r := reply{status: 503}
	x.flags |= o.flags()
	before := "upstream connect error or disconnect/reset before headers. reset reason: "
	if x.attempts > 1 {
		before = "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: "
	}
	switch o {
	case noHost:
		r.body, r.details = "no healthy upstream", "no_healthy_upstream"
	case overflow:
		r.body, r.details, r.overloaded = before+"overflow", "upstream_reset_before_response_started{overflow}", true
	case connectFailed:
		r.body, r.details = before+"remote connection failure", connectDetails(x.attempt.dialErr)
	case connectTimeout:
		r.body, r.details = before+"connection timeout", "upstream_reset_before_response_started{connection_timeout}"
	case reset:
		r.body, r.details = before+"connection termination", "upstream_reset_before_response_started{connection_termination}"
	case remoteReset:
		code := x.attempt.resetCode
		r.body, r.details = before+resetWords(code), resetDetails("before", code)
	case refused:
		r.body, r.details = before+"remote refused stream reset", "upstream_reset_before_response_started{remote_refused_stream_reset}"
	case brokeProtocol, resetProtocol:
		r.status, r.body, r.details = 502, before+"protocol error", "upstream_reset_before_response_started{protocol_error}"
	case timedOut:
		r.status, r.body, r.details = 504, "upstream request timeout", "response_timeout"
	case tryTimedOut:
		r.status, r.body, r.details = 504, "upstream request timeout", "upstream_per_try_timeout"
	case tryIdle:
		r.status, r.body, r.details = 504, "upstream request timeout", "upstream_per_try_idle_timeout"
	case lifeOver:
		r.status, r.body, r.details, r.grpc = 504, "downstream duration timeout", "max_duration_timeout", grpcDeadlineExceeded
		r.byManager = true
		if !x.requestRead() {
			r.status = 408 // it waited for the client
		}
	case streamOver:
		r.status, r.body, r.details = 504, "upstream max stream duration reached", streamOverDetails
		if !x.requestRead() {
			r.status = 408 // it waited for the client
		}
	case tooSlow:
		r = tooSlowReply
	case crawls:
		r = slowReply
		x.m.countSlow(x.d, "body")
	case idleTimedOut:
		r.status, r.body, r.details, r.byManager = 504, "stream timeout", "stream_idle_timeout", true
		if !x.requestRead() {
			r.status, r.close = 408, true // it waited for the client
		}
	case clientBroke:
		if x.client == &x.h2 {
			x.clientLeft() // its stream was reset already
			return
		}
		r, _ = refusal(x.pump.refused)
	case hoarded:
		r.body, r.details = "envoy overloaded", http2.ErrOverloaded.Reason
	case unwritable:
		r.status, r.details = 500, "unwritable_request"
	case noUpgrade:
		r.status, r.details = 502, "upgrade_not_supported_by_host"
	case clientGone:
		x.clientLeft()
		return
	}
	x.localReply(&r)
}

// failure is what is counted of an attempt that was sent and ended so.
func (o outcome) failure() (f telemetry.Failure, ok bool) {
	switch o {
	case timedOut:
		return telemetry.FailedTimeout, true
	case tryTimedOut:
		return telemetry.FailedTryTimeout, true
	case tryIdle:
		return telemetry.FailedTryIdleTimeout, true
	case reset:
		return telemetry.FailedTermination, true
	case remoteReset:
		return telemetry.FailedReset, true
	case refused:
		return telemetry.FailedRefused, true
	case brokeProtocol, resetProtocol:
		return telemetry.FailedProtocol, true
	case streamOver:
		return telemetry.FailedStreamDuration, true
	}
	return 0, false
}

// flags are the response flags of an attempt that ended so.
func (o outcome) flags() telemetry.Flags {
	switch o {
	case noHost:
		return telemetry.FlagNoHealthyUpstream
	case overflow:
		return telemetry.FlagUpstreamOverflow
	case connectFailed, connectTimeout:
		return telemetry.FlagUpstreamConnectFailure
	case reset:
		return telemetry.FlagUpstreamConnTermination
	case remoteReset, refused:
		return telemetry.FlagUpstreamReset
	case brokeProtocol, resetProtocol:
		return telemetry.FlagUpstreamProtocolError
	case timedOut, tryTimedOut, tryIdle:
		return telemetry.FlagUpstreamRequestTimeout
	case lifeOver:
		return telemetry.FlagDurationTimeout
	case streamOver:
		return telemetry.FlagUpstreamDurationTimeout
	case idleTimedOut:
		return telemetry.FlagStreamIdleTimeout
	case clientBroke:
		return telemetry.FlagDownstreamProtocolError
	case hoarded:
		return telemetry.FlagOverload
	}
	return 0
}

// clientLeft notes that nobody waits for an answer.
func (x *exchange) clientLeft() {
	f, details := x.departure()
	x.flags |= f
	x.details = details
	x.closeAfter = true
}

// departure is how the client left, or was made to.
func (x *exchange) departure() (f telemetry.Flags, details string) {
	if x.client == &x.h2 {
		switch fault := x.h2.fault.Load(); {
		case fault == nil:
		case *fault == http2.ErrOverloaded.Reason:
			return telemetry.FlagOverload, *fault
		default:
			return telemetry.FlagDownstreamProtocolError, *fault
		}
		switch x.h2.reset.Load() {
		case 0:
		case 1 + uint64(http2.RefusedStream):
			return telemetry.FlagDownstreamReset, "http2.remote_refuse"
		case 1 + uint64(http2.ProtocolError):
			return telemetry.FlagDownstreamProtocolError, "http2.remote_reset"
		default:
			return telemetry.FlagDownstreamReset, "http2.remote_reset"
		}
	}
	return telemetry.FlagDownstreamTermination, "downstream_remote_disconnect"
}
