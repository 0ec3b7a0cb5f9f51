package hcm

import (
	"context"
	"sync"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// Hedging: where an attempt's time is over it is not ended but joined by another, and
// the first good answer counts. It costs a copy of the request and a goroutine for
// each attempt, and only routes that ask for it pay.

// hedges tells whether the exchange is to be hedged. The request must be whole in
// memory, so that each attempt can send it. Without a retry the only attempt goes on too
// when its time is over.
func (x *exchange) hedges() bool {
	h, p := x.sel.Hedge, x.sel.Retry
	return h != nil && h.OnPerTryTimeout && p != nil && p.On != 0 && x.hedgeAfter() > 0 && x.complete &&
		x.keep && !x.tunnel && !x.terminate && p.Admits(x.req) && x.mayCopy()
}

// goesOn tells whether an attempt goes on alone when its time is over: the route hedges, but the
// request may not be sent a second time, or is too long for that.
func (x *exchange) goesOn() bool {
	h, p := x.sel.Hedge, x.sel.Retry
	return h.OnPerTryTimeout && p != nil && (p.On == 0 || !p.Admits(x.req) || !x.keep || x.req.ContentLength > int64(x.keepUpTo))
}

// hedgeAfter is how long an attempt may be without an answer: until then it is idle, too.
func (x *exchange) hedgeAfter() time.Duration {
	t := &x.timeouts
	if t.PerTry == 0 || t.PerTryIdle > 0 && t.PerTryIdle < t.PerTry {
		return t.PerTryIdle
	}
	return t.PerTry
}

// hedge is the attempts of one exchange. Each is run's once it has ended; where run is
// over it ends by itself what is left of it.
type hedge struct {
	x        *exchange
	ctx      context.Context // of the attempts: they run until one is chosen
	cancel   context.CancelFunc
	attempts sync.WaitGroup
	ended    chan *exchange // attempts with their outcome, for run
	running  int
	// newest is the attempt whose time late watches; the older ones are late.
	newest *exchange
	late   *time.Timer
	after  time.Duration // when it is late
	// turn is when the next attempt may begin, while one is waiting for it.
	turn    *time.Timer
	waiting bool
	// chosen is the attempt that is relayed: what is left of its body is sent meanwhile, from
	// its own memory.
	chosen *exchange
	// last is the attempt that began last. Where none was answered in time its connection, by info
	// and version, is told of.
	last       *exchange
	unanswered bool
	info       *stream.Info
	version    message.Version
}

// forwardHedged stands in for forward's loop.
func (x *exchange) forwardHedged() (redirected bool) {
	h := &hedge{x: x, ended: make(chan *exchange), after: x.hedgeAfter()}
	x.timeouts.PerTryIdle = 0 // it ends none, nor the answer of the one that is chosen
	// Until run is over, which x's context ends, attempts are its own: none goes to another
	// exchange meanwhile.
	h.ctx, h.cancel = context.WithCancel(context.WithoutCancel(x.ctx))
	h.late, h.turn = time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	h.turn.Stop() // nobody waits for a turn yet
	defer h.end()
	x.dog.calm()
	x.noteWhole()
	o := h.run()
	h.cancel() // the others hold connections, and what is relayed now may have no end
	x.endRetry(o == responded && x.resp.Status < 500)
	if o == responded {
		return x.conclude()
	}
	h.unanswered = true
	x.fail(o)
	return false
}

// end returns when nothing of the attempts is left but the one that was chosen.
func (h *hedge) end() {
	h.cancel()
	h.late.Stop()
	h.turn.Stop()
	h.attempts.Wait()
	if a := h.x.attempt; h.unanswered && a.info == nil && h.info != nil {
		a.info, a.version = h.info, h.version
	}
	if y := h.chosen; y != nil {
		switch p := y.ownPump; {
		case p == nil:
		case p.ended():
			h.x.pump = nil // it goes with y to another exchange
		default:
			y.wrecked = true // a panic: nobody has stopped it
		}
		h.drop(y)
	}
}

// launch starts an attempt. A host that cannot be had is an outcome like others.
func (h *hedge) launch() {
	x := h.x
	x.attempts++
	y := x.beside(h.ctx)
	if x.checksHealth() {
		y.NoteHealthCheck() // a mirror's host, as behind Envoy, has a request like any other
	}
	if x.m.attempts != nil {
		y.seeClient(x)
	}
	// One meter for all attempts: what the chosen one has yet to get is counted after it was adopted.
	y.observed.sizes.Upstream = x.observed.sizes.Upstream
	y.timeouts.PerTry = 0
	y.tried, y.ntried, y.afterTimeout = x.tried, x.ntried, x.afterTimeout
	h.newest, h.last = y, y
	h.running++
	h.late.Reset(h.after)
	if y.outcome = y.attempt.choose(); y.outcome == responded {
		x.noteTried(y.attempt.host)
		x.pick.Tried = y.pick.Tried // which y may have begun
		// Whose cluster's budget counts, and which is told of when none answers.
		x.attempt.host, x.attempt.remote = y.attempt.host, y.attempt.remote
	}
	h.attempts.Go(func() { h.try(y) })
}

// try makes an attempt whose host was chosen, on a goroutine of its own.
func (h *hedge) try(y *exchange) {
	defer h.handOver(y)
	defer panics.Contain(panics.Hedge, y.d, y.spoil)
	if y.outcome == responded {
		y.outcome = y.attempt.try()
	}
}

// handOver gives an attempt that ended to run, or ends it.
func (h *hedge) handOver(y *exchange) {
	select {
	case h.ended <- y:
	case <-h.ctx.Done():
		if y == h.last {
			h.info, h.version = y.attempt.info, y.attempt.version
		}
		h.drop(y)
	}
}

// run starts attempts until one is good, or none can be any more.
func (h *hedge) run() outcome {
	x := h.x
	life := time.NewTimer(time.Duration(min(x.deadline, x.lifeEnd) - monotonic()))
	defer life.Stop()
	look := time.NewTicker(time.Duration(watchEvery))
	defer look.Stop()
	h.launch()
	for {
		select {
		case y := <-h.ended:
			h.running--
			if o, over := h.judge(y); over {
				return o
			}
		case <-h.late.C:
			// The newest attempt is late. Whatever the policy's conditions, another
			// joins it while there are retries left.
			h.newest.late.Store(true)
			h.newest = nil
			x.afterTimeout = true
			if !h.waiting && x.mayHedge() {
				h.launch()
			}
		case <-h.turn.C:
			h.waiting = false
			h.launch()
		case <-life.C:
			if monotonic() >= x.lifeEnd {
				return lifeOver
			}
			return timedOut
		case <-look.C:
			if x.client.gone() {
				return clientGone
			}
		case <-x.ctx.Done():
			return clientGone
		}
	}
}

// mayHedge asks the policy's number and the budget. That they refuse is told of, also where
// an attempt is answered after all, as Envoy does. Where there was no host for the first,
// none is asked.
func (x *exchange) mayHedge() bool { return x.attempt.host != nil && x.mayRetry(x.sel.Retry, 0) }

// judge decides what an attempt that ended means for the exchange. A bad one counts
// only when it is the last: where it was late, another runs already.
func (h *hedge) judge(y *exchange) (o outcome, over bool) {
	defer func() {
		if h.chosen != y {
			h.drop(y)
		}
	}()
	x, p := h.x, h.x.sel.Retry
	late := y != h.newest
	if !late {
		h.newest = nil // it is not late any more
		h.late.Stop()
	}
	good := y.outcome == responded && !p.RetriesResponse(y.resp)
	if !good && y.outcome != idleTimedOut { // which is of all the exchange
		if late && h.pending() {
			return 0, false
		}
		if h.retries(y) {
			wait := p.BackOff(x.attempts)
			if y.outcome == responded {
				if d, ok := p.RateLimitedBackOff(y.resp, time.Now()); ok {
					wait = d
				}
			}
			x.afterTimeout, h.waiting = false, true
			h.turn.Reset(wait)
			return 0, false
		}
		if h.pending() {
			return 0, false
		}
	}
	if p := y.pump; p != nil && p.ended() && p.upErr == nil {
		y.stopPump()
		y.pump = nil
	} else if p != nil {
		h.chosen = y
	}
	x.adopt(y)
	return y.outcome, true
}

// pending tells whether another attempt runs or is about to.
func (h *hedge) pending() bool { return h.running > 0 || h.waiting }

// retries tells whether a bad attempt is followed by another.
func (h *hedge) retries(y *exchange) bool {
	x := h.x
	switch o := y.outcome; o {
	case noHost, overflow, timedOut, idleTimedOut, lifeOver, crawls, clientGone, unwritable, hoarded:
		return false
	case responded:
		return x.mayRetry(x.sel.Retry, 0)
	default:
		return y.wantsRetry(x.sel.Retry, o) && x.mayRetry(x.sel.Retry, y.attempt.own())
	}
}

// drop ends what is left of an attempt. It does not panic.
func (h *hedge) drop(y *exchange) {
	defer y.leave()
	defer panics.Contain(panics.Hedge, y.d, y.spoil)
	if y.attempt.up != nil {
		y.endUpstream(y.resp.Body == nil)
	}
}

// adopt makes y's attempt the exchange's own, to be told of and relayed.
func (x *exchange) adopt(y *exchange) {
	y.aside()
	y.dog.hold(nil)
	x.wrecked = x.wrecked || y.wrecked
	x.attempt, y.attempt = y.attempt, x.attempt
	x.resp, y.resp = y.resp, x.resp
	x.pump, y.pump = y.pump, nil
	x.observed.adoptAttempt(&y.observed)
	x.attempt.belong(x)
	y.attempt.belong(y)
	x.attempt.log.adopted(y)
	if x.attempt.up == nil {
		return
	}
	x.dog.hold(&x.attempt.up)
	x.dog.await(monotonic(), min(x.deadline, x.lifeEnd, x.attempt.streamBy), x.attempt.idle(), true)
}

// belong makes x the exchange that an attempt is of.
func (a *attempt) belong(x *exchange) {
	a.x = x
	a.until = min(a.until, x.deadline, x.lifeEnd)
	if a.up != nil {
		a.h1.dog, a.h2.dog = x.dog, x.dog
	}
}
