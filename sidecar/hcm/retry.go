package hcm

import (
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// replayable tells whether the whole request can be sent again. No pump is running.
func (x *exchange) replayable() bool {
	// What a pump has read is in the payload, and another one reads on.
	return x.keep && (x.pump == nil || !x.pump.clientErr && !x.pump.panicked && x.pump.refused == nil)
}

// holdReplay is replayable while a pump may be running, and has it stay true until the
// pump is stopped, or dropReplay.
func (x *exchange) holdReplay() bool {
	if x.pump == nil || x.pump.ended() {
		return x.replayable()
	}
	return x.pump.replay.CompareAndSwap(replayKept, replayWanted)
}

func (x *exchange) dropReplay() {
	if x.pump != nil {
		x.pump.replay.CompareAndSwap(replayWanted, replayKept)
	}
}

// retryFailure decides over another attempt after one without a response, and
// waits for its turn. Without one the outcome is the exchange's: that of the attempt, or
// what ended the wait.
func (x *exchange) retryFailure(o outcome) (_ outcome, again bool) {
	if x.responded || x.interim || x.ctx.Err() != nil {
		return o, false
	}
	switch o {
	case noHost, overflow, timedOut, idleTimedOut, lifeOver, tooSlow, crawls, clientGone, clientBroke, unwritable, noUpgrade, hoarded:
		return o, false
	}
	p, replayable := x.sel.Retry, x.replayable()
	if p != nil && !replayable && x.keptForNone() && x.wantsRetry(p, o) {
		x.mayRetry(p, 0)
	}
	// Without a pump nothing was read for the attempt: all that has come is in memory,
	// though it may be more than is kept.
	if !replayable && x.pump != nil {
		return o, false
	}
	// A pooled connection that its peer had closed, as its end at once shows, or a new one
	// with more streams than the peer admits, before it could say so: the request was not
	// refused for what it is. This needs no policy, once, but it must be certain that the
	// request has no effect twice.
	if (o == refused && x.attempt.early || (o == refused || o == reset) && x.attempt.stale) &&
		!x.staleRetried && (!x.attempt.wrote || x.req.Idempotent()) {
		x.staleRetried, x.resent = true, x.attempt.wrote
		x.attempts--
		x.ntried-- // the host is not at fault
		x.pick.Tried = x.pick.Tried.Before()
		return o, true
	}
	if p == nil || !replayable || !x.wantsRetry(p, o) {
		return o, false
	}
	x.afterTimeout = o == tryTimedOut || o == tryIdle
	if !x.mayRetry(p, x.attempt.own()) {
		return o, false
	}
	if cut := x.waitTurn(p.BackOff(x.attempts)); cut != responded {
		return cut, false
	}
	return o, true
}

// keptForNone tells whether the policy has no retries, so that the body is not kept for any: that
// there are none is told all the same of a body that could have been.
func (x *exchange) keptForNone() bool {
	return x.sel.Retry != nil && x.sel.Retry.NumRetries == 0 && x.receivedSoFar() <= int64(x.keepLimit())
}

// wantsRetry applies the policy's conditions to a failure.
func (x *exchange) wantsRetry(p *route.RetryPolicy, o outcome) bool {
	f := route.Reset
	switch {
	case o == connectFailed || o == connectTimeout:
		f = route.NotConnected
	case o == refused:
		f = route.Refused
	case o == reset && !x.attempt.wrote:
		f = route.ResetUnsent
	}
	idempotent := (o == reset || o == remoteReset || o == resetProtocol) && x.req.Idempotent()
	return p.RetriesFailure(f, idempotent) && p.Admits(x.req)
}

// retryResponse decides over another attempt after a response that is not good
// enough; the response is then dropped. Without another attempt the outcome is responded
// where the response is to be relayed, and what became of the client where it is dropped
// all the same.
func (x *exchange) retryResponse() (o outcome, again bool) {
	p := x.sel.Retry
	if p == nil || x.responded || x.interim || !p.RetriesResponse(x.resp) || !p.Admits(x.req) || !x.keptForNone() && !x.holdReplay() {
		return responded, false
	}
	return x.retryAnswered(p)
}

// retryAnswered is retryResponse where the policy retries what was answered.
//
//go:noinline
func (x *exchange) retryAnswered(p *route.RetryPolicy) (o outcome, again bool) {
	if !x.mayRetry(p, 0) {
		x.dropReplay()
		return responded, false
	}
	wait, asked := p.RateLimitedBackOff(x.resp, time.Now())
	x.endUpstream(x.resp.Body == nil)
	x.resp.Reset() // it is not the answer
	// Until it was stopped the pump went on reading.
	if p := x.pump; p != nil && p.refused != nil {
		return clientBroke, false
	}
	if !x.replayable() {
		return clientGone, false
	}
	x.afterTimeout = false
	if !asked {
		wait = p.BackOff(x.attempts)
	}
	if cut := x.waitTurn(wait); cut != responded {
		return cut, false
	}
	return responded, true
}

// own is how many requests a budget is to count beside those that are counted: that of an attempt
// which has just failed is under way all the same. Envoy does not count one whose stream has ended.
func (a *attempt) own() int64 {
	if a.info != nil && a.version == message.HTTP2 {
		return 0
	}
	return 1
}

// mayRetry asks the policy's number and the budget, which counts own requests more.
func (x *exchange) mayRetry(p *route.RetryPolicy, own int64) bool {
	shard := x.d.Shard
	if uint32(x.attempts) > p.NumRetries {
		x.flags |= telemetry.FlagRetryLimitExceeded
		if m := x.attempt.host.Cluster().Metrics().Use(); m != nil {
			m.RetryLimit.Inc(shard)
		}
		return false
	}
	if x.retrying == nil {
		// The cluster of the host: an aggregate has no requests of its own.
		c := x.attempt.host.Cluster()
		if !c.StartRetryAt(x.priority(), own, shard) {
			x.flags |= telemetry.FlagUpstreamOverflow
			return false
		}
		x.retrying = c
	} else if m := x.retrying.Metrics().Use(); m != nil {
		m.RetryFailure.Inc(shard) // of the one before
	}
	return true
}

// waitTurn waits before another attempt; responded says that its turn has come. A host
// that asked for quiet has it, however little of the exchange's time is left.
func (x *exchange) waitTurn(wait time.Duration) outcome {
	ctx, done := x.pend(min(x.deadline, x.lifeEnd))
	defer done()
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		if x.client.gone() {
			return clientGone // nobody has looked for a moment
		}
		return responded
	case <-ctx.Done():
		return x.interrupted()
	}
}

// endRetry gives the place in the budget back and counts how the last retry went.
func (x *exchange) endRetry(good bool) {
	if x.retrying == nil {
		return
	}
	x.retrying.EndRetryAt(x.priority())
	if m := x.retrying.Metrics().Use(); m != nil {
		if good {
			m.RetrySuccess.Inc(x.d.Shard)
		} else {
			m.RetryFailure.Inc(x.d.Shard)
		}
	}
	x.retrying = nil
}
