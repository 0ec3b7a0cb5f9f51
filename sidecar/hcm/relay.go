package hcm

import (
	"errors"
	"strconv"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// relay sends the response in x.resp to the client, and its body as it comes.
func (x *exchange) relay() {
	x.settlePump()
	if p := x.dog.pace; p != nil {
		p.state.Store(paceOver)
	}
	if x.req.Body != nil && (x.pump != nil || cap(x.store) > keepBuffer) && (x.mirrored || !x.isMirrored()) {
		x.forgetKept() // this was the last attempt, and no copy is made of it
	}
	if x.tunnel && x.looksSwitched() {
		x.endUpstream(false)
		x.fail(noUpgrade)
		return
	}
	x.status, x.details = x.resp.Status, "via_upstream"
	if x.tunnel && x.ignored() {
		x.dropContent()
	}
	x.answered()
	if !x.m.cfg.SuppressEnvoyHeaders && x.requestRead() { // of an early answer the time says nothing
		x.addServiceTime()
	}
	x.mutateResponse(false)
	x.filterResponse()
	if x.holding && x.held.over {
		return
	}
	x.finishHeaders()
	if x.reporter != nil {
		x.updateReporter()
	}
	if x.switched() {
		x.relayTunnel()
		return
	}
	body := x.resp.Body
	x.observed.mark(telemetry.ResponseBegan)
	if x.holding && (x.held.whole || x.held.rate == 0) {
		x.relayHeld()
		return
	}
	if body == nil {
		x.observed.mark(telemetry.AnswerEnded)
		x.answeredWhole()
	}
	if err := x.client.head(x, body != nil); err != nil {
		x.headFailed(err)
		return
	}
	if body == nil {
		x.relayed(true)
		return
	}
	if x.holding {
		x.relaySlowed(body)
		return
	}
	x.relayBody(body)
}

// relayed ends a response all of which is here; ok says that its client takes it. The host
// is left before the client is written to, which may take its time: none of the host's times
// runs meanwhile.
func (x *exchange) relayed(ok bool) {
	x.endUpstream(ok)
	if ok {
		x.flushEnd()
	}
}

// headFailed ends an exchange whose response's head the client does not get. Only one
// that may not be sent is the host's fault.
func (x *exchange) headFailed(err error) {
	switch {
	case err == http1.ErrUnwritable || err == http2.ErrUnwritable:
		x.endUpstream(false)
		x.resp.Reset()
		x.flags |= telemetry.FlagUpstreamProtocolError
		x.answer(502, "unwritable_response")
	case stream.IsTimeout(err):
		x.bodyBroken(err) // the client takes nothing, until the time was up
	default:
		x.endUpstream(false)
		x.clientFailed(err)
	}
}

// relayBody copies the body. Whatever has arrived is passed on before more is
// waited for.
func (x *exchange) relayBody(body message.Body) {
	for {
		if !body.Ready() && !x.flush() {
			x.endUpstream(false)
			return
		}
		if u, ok := body.(*http2Upstream); ok && x.client == client(&x.h2) {
			u.s.Pipe(x.h2.Stream, (*responseTap)(x))
		}
		data, last, err := body.Next()
		if err != nil {
			x.bodyBroken(err)
			return
		}
		x.attempt.received += int64(len(data))
		x.observed.markFirst(telemetry.AnswerBodyBegan)
		var trailers *message.Fields
		if last {
			trailers = body.Trailers()
			x.observed.mark(telemetry.AnswerEnded)
			x.takeTrailers(trailers, nil)
			x.answeredWhole()
			x.boundFlush()
		}
		ok := x.data(data, last, trailers)
		if last || !ok {
			x.relayed(ok)
			return
		}
	}
}

// responseTap counts what goes from stream to stream without the exchange.
type responseTap exchange

// Passed implements http2.Tap.
func (t *responseTap) Passed(n int, now int64) {
	x := (*exchange)(t)
	x.observed.markFirst(telemetry.AnswerBodyBegan)
	x.attempt.received += int64(n)
	x.sent += int64(n)
	if r := x.reporter; r != nil {
		r.sent.Store(x.sent)
	}
	x.dog.activeAt(now)
}

// noteTrailers keeps what the access log tells of them.
func (x *exchange) noteTrailers(trailers *message.Fields) {
	if trailers == nil || x.m.access == nil {
		return
	}
	if v, ok := trailers.ByID(message.GRPCStatus); ok {
		x.grpcStatus = x.resp.Fields.Store(v)
	}
}

// bodyBroken ends an exchange whose response's body has no end. As long as nothing
// of the response was sent, the client can still be told.
func (x *exchange) bodyBroken(err error) {
	o := x.attempt.broken(err)
	x.attempt.reportCut(o)
	if o == brokeProtocol && !x.responded {
		x.sent = 0
		x.endUpstream(false)
		x.fail(o)
		return
	}
	x.abort(x.brokenOff(o))
}

// brokenOff is what is told of a response that began, and ended so.
func (x *exchange) brokenOff(o outcome) (telemetry.Flags, string) {
	switch o {
	case timedOut, tryTimedOut:
		return telemetry.FlagUpstreamRequestTimeout, "response_timeout"
	case tryIdle:
		return telemetry.FlagUpstreamRequestTimeout, "upstream_per_try_idle_timeout"
	case lifeOver:
		return telemetry.FlagDurationTimeout, "max_duration_timeout"
	case streamOver:
		return telemetry.FlagUpstreamDurationTimeout, streamOverDetails
	case idleTimedOut:
		return telemetry.FlagStreamIdleTimeout, "stream_idle_timeout"
	case clientGone:
		return x.departure()
	case clientBroke:
		if errors.Is(x.pump.refused, errShed) { // what was answered already tells nobody of a fault of the codec
			return telemetry.FlagOverload, errShed.Error()
		}
		r, _ := refusal(x.pump.refused)
		return telemetry.FlagDownstreamProtocolError, r.details
	case remoteReset:
		x.resetCode = passedOn(x.attempt.resetCode)
		return telemetry.FlagUpstreamReset, resetDetails("after", x.attempt.resetCode)
	case refused:
		// Whatever the host says, it did begin: the client must not take it for refused.
		return telemetry.FlagUpstreamReset, "upstream_reset_after_response_started{remote_refused_stream_reset}"
	case hoarded:
		return telemetry.FlagOverload, http2.ErrOverloaded.Reason
	case brokeProtocol, resetProtocol:
		return telemetry.FlagUpstreamProtocolError, "upstream_reset_after_response_started{protocol_error}"
	}
	return telemetry.FlagUpstreamConnTermination, "upstream_reset_after_response_started{connection_termination}"
}

// reportCut tells the host and the counters of an answer that did not come whole. What
// came of it was reported when it began.
func (a *attempt) reportCut(o outcome) {
	f, ok := o.failure()
	if !ok {
		return
	}
	a.host.Cluster().Metrics().Failed(a.x.d.Shard, f)
	switch o {
	case reset, remoteReset, refused, brokeProtocol, resetProtocol:
		a.host.ReportCut()
	}
}

// abort ends an exchange whose response has begun: the client learns from the
// missing end that it is not whole.
func (x *exchange) abort(f telemetry.Flags, details string) {
	x.flags |= f
	x.details = details
	x.closeAfter = true
	x.client.abort(x)
	x.responded = false      // nothing more to be read in peace
	if x.attempt.up != nil { // or it was left with a whole answer, which is slowed
		x.endUpstream(false)
	}
}

// endUpstream finishes with the upstream; whole says that the response came whole.
func (x *exchange) endUpstream(whole bool) {
	clean := whole && x.requestSent() && x.attempt.up.clean(x.attempt)
	if !whole && (x.terminate || x.switched()) && !x.requestRead() {
		x.attempt.abortTunnel()
	}
	x.stopPump()
	x.attempt.endSpan(responded, x.flags)
	x.attempt.drop(clean)
}

// requestRead tells whether the whole request was read. While a pump runs, complete
// is the pump's.
func (x *exchange) requestRead() bool {
	if x.pump != nil && !x.pump.ended() {
		return x.pump.last.Load()
	}
	return x.complete
}

// requestSent tells whether the host has the whole request.
func (x *exchange) requestSent() bool {
	if p := x.pump; p != nil && (!p.ended() || p.upErr != nil) {
		return false
	}
	return x.complete
}

// data passes bytes of the response's body on to the client, with last its end.
func (x *exchange) data(p []byte, last bool, trailers *message.Fields) bool {
	x.sent += int64(len(p))
	if r := x.reporter; r != nil {
		r.sent.Store(x.sent)
	}
	if err := x.client.data(x, p, last, trailers); err != nil {
		x.clientFailed(err)
		return false
	}
	return true
}

// guard has the watchdog look after a wait for the client, where it does not look after
// more than that.
func (x *exchange) guard() {
	if !x.dog.armed() {
		since := max(x.startMono, x.attempt.firstAt, x.dog.lastActive())
		x.dog.await(since, noDeadline, x.idleTimeout(), false)
	}
}

// flush has everything on the wire.
func (x *exchange) flush() bool {
	if err := x.client.flush(x); err != nil {
		x.clientFailed(err)
		return false
	}
	x.responded = true
	return true
}

// flushEnd is flush for the end of a response.
func (x *exchange) flushEnd() {
	x.boundFlush()
	x.flush()
}

// boundFlush: nothing but the client is waited for any more.
func (x *exchange) boundFlush() {
	t := x.m.cfg.FlushTimeout
	if r := x.sel.Route; r != nil && r.Forward != nil && r.Forward.FlushTimeout != nil {
		t = r.Forward.FlushTimeout
	}
	if r := x.m.timers.reducer; r != nil {
		flush := x.idleTimeout()
		if t != nil {
			flush = int64(*t)
		}
		x.flushIdle(r, flush)
	}
	switch {
	case t == nil:
	case x.attempt.up != nil:
		x.dog.idleFor(int64(*t))
	default:
		x.dog.await(monotonic(), noDeadline, int64(*t), false)
	}
}

// clientFailed notes that the client does not take more.
func (x *exchange) clientFailed(err error) {
	cause := causeNone
	if x.timedOut(err) {
		cause = x.dog.cause.Load()
	}
	var f telemetry.Flags
	switch answering := x.attempt.up != nil; {
	case cause == causeIdle:
		f, x.details = telemetry.FlagStreamIdleTimeout, "stream_idle_timeout"
	case cause == causeHard && monotonic() >= x.lifeEnd:
		f, x.details = telemetry.FlagDurationTimeout, "max_duration_timeout"
	case cause == causeHard && answering && monotonic() >= x.attempt.streamBy:
		f, x.details = telemetry.FlagUpstreamDurationTimeout, streamOverDetails
		x.attempt.reportCut(streamOver)
	case cause == causeHard && answering:
		f, x.details = telemetry.FlagUpstreamRequestTimeout, "response_timeout"
	default:
		f, x.details = x.departure()
	}
	x.flags |= f
	x.closeAfter, x.responded = true, false
}

// addServiceTime tells how long the upstream took, as Envoy's router does.
func (x *exchange) addServiceTime() {
	x.scratch = strconv.AppendInt(x.scratch[:0], (x.attempt.firstAt-x.attempt.sentAt)/1e6, 10)
	x.resp.Fields.SetIDBytes(message.XEnvoyUpstreamServiceTime, x.scratch)
}

// finishHeaders adds what every response has.
func (x *exchange) finishHeaders() {
	f := &x.resp.Fields
	if p := x.m.cfg.ProxyStatus; p != nil && x.flags != 0 {
		x.tellProxyStatus(f, p)
	}
	if x.m.serverName != "" && !(x.m.cfg.ServerIfAbsent && f.Has(message.Server)) {
		f.SetID(message.Server, x.m.serverName)
	}
	if x.m.cfg.Via != "" {
		x.appendVia(f, x.m.cfg.Via)
	}
	if x.m.cfg.RequestIDInResponse || x.forcesTrace() {
		if id, ok := x.req.Fields.ByID(message.XRequestID); ok {
			f.SetID(message.XRequestID, id)
		}
	}
	x.span.Answer(f)
	if !f.Has(message.Date) {
		f.AddID(message.Date, x.m.dateNow(x.start))
	}
}
