package hcm

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// replayable tells whether the whole request can be sent again.
func (x *exchange) replayable() bool {
	// What a pump has read is in the payload, and another one reads on.
	return x.keep && (x.pump == nil || !x.pump.clientErr && x.pump.refused == nil)
}

// retryFailure decides over another attempt after one without a response, and
// waits for its turn.
func (x *exchange) retryFailure(o outcome) bool {
	if x.responded || x.ctx.Err() != nil || !x.replayable() {
		return false
	}
	switch o {
	case noHost, overflow, timedOut, idleTimedOut, clientGone, clientBroke, unwritable:
		return false
	}
	// A pooled connection that its peer had closed: the request was not refused for
	// what it is, it only met a dead or leaving connection. This needs no policy, once, but it must be
	// certain that the request has no effect twice.
	if (o == refused || o == reset) && x.attempt.stale && !x.staleRetried && (!x.attempt.wrote || x.req.Idempotent()) {
		x.staleRetried = true
		x.attempts--
		x.ntried-- // the host is not at fault
		return true
	}
	p := x.sel.Retry
	if p == nil || !x.wantsRetry(p, o) {
		return false
	}
	return x.startRetry(p)
}

// wantsRetry applies the conditions to a failure. Those under which nothing of the
// request was sent hold for every method.
func (x *exchange) wantsRetry(p *route.RetryPolicy, o outcome) bool {
	anyFailure := p.On&(route.Retry5xx|route.RetryGatewayError|route.RetryReset) != 0
	switch {
	case o == connectFailed || o == connectTimeout:
		return p.On&(route.RetryConnectFailure|route.RetryResetBeforeRequest) != 0 || anyFailure
	case o == refused, o == reset && !x.attempt.wrote:
		return p.On&(route.RetryResetBeforeRequest|route.RetryRefusedStream) != 0 || anyFailure
	}
	if (o == reset || o == remoteReset) && p.On&route.RetryResetIdempotent != 0 && x.req.Idempotent() {
		return true
	}
	if p.IdempotentOnly && !x.req.Idempotent() {
		return false
	}
	return anyFailure
}

// retryResponse decides over another attempt after a response that is not good
// enough; the response is then dropped.
func (x *exchange) retryResponse() bool {
	p := x.sel.Retry
	if p == nil || x.responded || !retriableStatus(p, x.resp.Status) || !x.replayable() {
		return false
	}
	if p.IdempotentOnly && !x.req.Idempotent() {
		return false
	}
	if !x.mayRetry(p) {
		return false
	}
	x.endUpstream(x.resp.Body == nil)
	return x.waitTurn(p)
}

func retriableStatus(p *route.RetryPolicy, status int) bool {
	switch {
	case p.On&route.Retry5xx != 0 && status >= 500:
		return true
	case p.On&route.RetryGatewayError != 0 && status >= 502 && status <= 504:
		return true
	case p.On&route.RetryRetriable4xx != 0 && status == 409:
		return true
	}
	return p.On&route.RetryStatusCodes != 0 && slices.Contains(p.StatusCodes, status)
}

func (x *exchange) startRetry(p *route.RetryPolicy) bool { return x.mayRetry(p) && x.waitTurn(p) }

// mayRetry asks the policy's number and the budget.
func (x *exchange) mayRetry(p *route.RetryPolicy) bool {
	shard := x.d.Shard
	m := x.attempt.host.Cluster().Metrics()
	if uint32(x.attempts) > p.NumRetries {
		x.flags |= telemetry.FlagRetryLimitExceeded
		if m != nil {
			m.RetryLimit.Inc(shard)
		}
		return false
	}
	if x.retrying == nil {
		// The cluster of the host: an aggregate has no requests of its own.
		own := x.attempt.host.Cluster()
		if !own.StartRetry(shard) {
			x.flags |= telemetry.FlagUpstreamOverflow
			return false
		}
		x.retrying = own
	}
	return true
}

// waitTurn backs off: a random part of a window that doubles with each attempt, so
// that clients that failed together do not come back together.
func (x *exchange) waitTurn(p *route.RetryPolicy) bool {
	base := p.BackOffBase
	if base <= 0 {
		base = 25 * time.Millisecond
	}
	most := p.BackOffMax
	if most <= 0 {
		most = 10 * base
	}
	window := min(base*time.Duration(1<<min(x.attempts, 20)-1), most)
	wait := time.Duration(rand.Int64N(int64(window) + 1))
	if x.deadline != noDeadline {
		if left := time.Duration(x.deadline - monotonic()); wait >= left {
			return true // the next attempt will find the time over
		}
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-x.ctx.Done():
		return false
	}
}

// endRetry gives the place in the budget back and counts how it went.
func (x *exchange) endRetry(good bool) {
	if x.retrying == nil {
		return
	}
	x.retrying.EndRetry()
	if m := x.retrying.Metrics(); m != nil {
		if good {
			m.RetrySuccess.Inc(x.d.Shard)
		} else {
			m.RetryFailure.Inc(x.d.Shard)
		}
	}
	x.retrying = nil
}
