package hcm

import (
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// What an exchange does for filters: filter.Exchange.

// Wait implements filter.Exchange. It is for faults, so it may cost a timer.
func (x *exchange) Wait(d time.Duration) bool {
	x.dog.calm()
	x.noteWhole()
	began := monotonic()
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		end, how := x.waitEnds(began, began+int64(d))
		now := monotonic()
		if now < end {
			t.Reset(time.Duration(min(end-now, watchEvery)))
			select {
			case <-t.C:
			case <-x.ctx.Done():
				return false
			}
			if x.client.gone() {
				return false
			}
			continue
		}
		x.admittedAt = now
		if how == idleTimedOut {
			x.fail(idleTimedOut)
		}
		return how == responded && !x.client.gone()
	}
}

// waitEnds is when a wait until a time ends, and how. An overload may change that at any time.
func (x *exchange) waitEnds(began, until int64) (end int64, how outcome) {
	end, how = until, responded
	if idle := x.m.reduce(overload.StreamIdle, x.idleTimeout()); idle > 0 && began+idle < end && x.complete {
		end, how = began+idle, idleTimedOut // nothing moves meanwhile
	}
	if x.lifeEnd < end {
		end, how = x.lifeEnd, lifeOver
	}
	return end, how
}

// ReadBody implements filter.Exchange.
func (x *exchange) ReadBody(limit int) (whole bool, v filter.Verdict) {
	switch {
	case x.tunnel:
		return true, filter.Continue
	case x.complete:
		x.measureBody()
		return len(x.payload) <= limit, filter.Continue
	}
	if x.req.ExpectContinue {
		x.resp.Reset()
		x.resp.Status = 100
		err := x.tellInterim()
		x.resp.Reset()
		if err != nil {
			return false, filter.Gone
		}
		x.req.ExpectContinue = false
	}
	hard := x.receiveBy()
	x.dog.await(monotonic(), hard, x.idleTimeout(), false)
	if len(x.payload) > 0 && len(x.store) == 0 {
		x.store = append(x.store, x.payload...)
	}
	if len(x.store) > limit {
		return false, filter.Continue // what came with the head: more may never come
	}
	for !x.complete {
		data, last, err := x.client.Next() // which notes that something moved
		if err != nil {
			x.bodyFailed(err, hard)
			return false, filter.Gone
		}
		x.received += int64(len(data))
		if len(x.store)+len(data) > limit {
			return false, filter.Continue
		}
		if !x.keepMore(data, false) {
			x.shed() // all requests together keep what they may, or memory runs short
			return false, filter.Gone
		}
		x.complete = last
	}
	x.admittedAt = monotonic()
	x.observed.mark(telemetry.RequestEnded)
	x.payload, x.keep = x.store, len(x.store) <= int(x.keepUpTo)
	x.measureBody()
	return true, filter.Continue
}

// measureBody: a body that is whole has a length; with trailers it stays in chunks.
func (x *exchange) measureBody() {
	if x.req.Body != nil && x.req.ContentLength < 0 && x.req.Body.Trailers() == nil {
		x.req.ContentLength = int64(len(x.payload))
	}
}

// NoteHealthCheck implements filter.Exchange. What the request's trace goes on as is not
// sampled either.
func (x *exchange) NoteHealthCheck() {
	x.record().HealthCheck = true
	x.span.Sampled = false
}

// checksHealth tells whether the health check filter took the request for its own.
func (x *exchange) checksHealth() bool { return x.rec != nil && x.rec.HealthCheck }

// Draining implements filter.Exchange. A connection is also drained for reasons of its own:
// the certificate that opened it has expired, its filter chain is gone, memory is short.
func (x *exchange) Draining() bool { return x.m.drain.Draining() }

// Connection implements filter.Exchange.
func (x *exchange) Connection(key any, make func() any) any {
	return x.d.Kept(x.policy.whole(), x.policyInForce(), key, make)
}

var _ filter.Exchange = (*exchange)(nil)
