package hcm

import "sync"

// A route's timeout, and an attempt's own, are about the host: they run from the moment at
// which the whole request is there (and is sent, the attempt's), as in Envoy. Until then
// the client is waited for, for which other times apply. The attempt's own ends with the
// answer's beginning, as the request's does; the route's goes on to its end. The attempt's
// idle time is the host's too.

// responseClock is what a request's last byte and its answer's first, of which either may
// come first and each bounds the exchange anew, know of each other.
type responseClock struct {
	mu       sync.Mutex
	began    int64 // when the request was whole, 0 before
	answered bool
	whole    bool // the answer is, too: nothing of the host is waited for
}

// startClock notes that the last of the body was sent. It is the pump's, and reads
// nothing of the exchange that changes while there is a pump.
func (x *exchange) startClock(p *pump) {
	p.clock.mu.Lock()
	defer p.clock.mu.Unlock()
	if p.clock.whole {
		return
	}
	now := monotonic()
	until := x.attempt.until
	if t := x.timeouts.Total; t > 0 {
		until = min(until, now+int64(t))
	}
	if t := x.timeouts.PerTry; t > 0 && !p.clock.answered {
		until = min(until, now+int64(t))
	}
	p.clock.began = now
	x.dog.bound(until)
	if idle := x.attempt.idle(); idle != x.idleTimeout() {
		x.dog.idleWithin(now, idle)
	}
}

// takeClock takes over the times that a pump has started.
func (x *exchange) takeClock() {
	p := x.pump
	if p == nil {
		return
	}
	p.clock.mu.Lock()
	defer p.clock.mu.Unlock()
	x.takeBegun(p)
}

// takeBegun is takeClock with the lock held.
func (x *exchange) takeBegun(p *pump) {
	if p.clock.began == 0 {
		return
	}
	a := x.attempt
	if t := x.timeouts.Total; t > 0 && x.deadline == noDeadline {
		x.deadline = p.clock.began + int64(t)
		a.until = min(a.until, x.deadline)
	}
	if t := x.timeouts.PerTry; t > 0 && !p.clock.answered {
		a.tryBy = p.clock.began + int64(t)
	}
}

// answered notes that a response has begun: the attempt's own time is over, and the
// request's. Where they ran out since the response was read, they have been met all the same.
func (x *exchange) answered() {
	if x.timeouts.PerTry == 0 && (x.pump == nil || x.m.requestTimeout == 0) {
		return
	}
	hard, idle := x.attempt.until, x.attempt.idle()
	if p := x.pump; p != nil {
		p.clock.mu.Lock()
		defer p.clock.mu.Unlock()
		x.takeBegun(p)
		p.clock.answered = true
		if hard = x.attempt.until; !x.requestRead() {
			hard, idle = min(hard, x.receiveBy()), x.idleTimeout()
		}
	}
	x.attempt.tryBy = noDeadline
	if x.dog.bound(hard); x.dog.firing() {
		x.dog.idleFor(idle)
	}
}

// answeredWhole notes that the end of the response is here: the client alone is waited for,
// for which no time of the host's or of the request's counts, also none that a pump would
// start.
func (x *exchange) answeredWhole() {
	since := x.admittedAt
	if p := x.pump; p != nil {
		p.clock.mu.Lock()
		defer p.clock.mu.Unlock()
		p.clock.whole = true
		since = max(since, p.clock.began)
	}
	x.countBudget(since)
	if idle := x.idleTimeout(); x.attempt.idle() != idle {
		x.dog.idleFor(idle) // the attempt's own is over too
	}
	x.attempt.until = x.lifeEnd
	x.dog.bound(x.lifeEnd)
}

// expired tells whose deadline the attempt reached.
func (a *attempt) expired() outcome {
	if o, yes := a.unwanted(); yes {
		return o
	}
	a.x.takeClock()
	switch first := min(a.x.lifeEnd, a.x.deadline); {
	case a.streamBy < min(first, a.tryBy) && monotonic() >= a.streamBy: // or the request's came first
		return streamOver
	case a.tryBy < first:
		return tryTimedOut
	}
	return a.x.overdue()
}

// overdue tells which of the exchange's times is over.
func (x *exchange) overdue() outcome {
	if by := x.receiveBy(); by < x.lifeEnd && !x.requestRead() && monotonic() >= by {
		return tooSlow
	}
	if x.lifeEnd <= x.deadline {
		return lifeOver
	}
	return timedOut
}

// idle is how long nothing may move in the attempt, 0 for ever.
func (a *attempt) idle() int64 {
	idle, try := a.x.idleTimeout(), int64(a.x.timeouts.PerTryIdle)
	if try > 0 && (idle == 0 || try < idle) {
		return try
	}
	return idle
}
