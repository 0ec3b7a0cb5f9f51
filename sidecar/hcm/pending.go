package hcm

import (
	"context"
	"errors"
)

// pending stands where the watchdog looks for an upstream while there is none: what is to
// be interrupted then is a wait, for a connection, for what a peer admits, or for the turn
// of another attempt.
type pending struct {
	upstream // nil: nobody but the watchdog knows it
	cancel   context.CancelFunc
}

func (p *pending) interrupt() { p.cancel() }

// resume implements side. A wait that was cancelled is over.
func (p *pending) resume() {}

// errInterrupted is the error of a wait that ended before what it was for.
var errInterrupted = errors.New("interrupted")

// pend begins such a wait. The context ends at until, when the request has not come whole
// in time or nothing has moved for long, and when nobody waits for the answer any more;
// interrupted tells which, until the watchdog is armed again. Who asked calls done.
func (x *exchange) pend(until int64) (ctx context.Context, done func()) {
	if !x.requestRead() {
		until = min(until, x.receiveBy())
	}
	ctx, cancel := context.WithCancel(x.ctx)
	up := upstream(&pending{cancel: cancel})
	x.dog.hold(&up)
	x.noteWhole()
	x.dog.await(monotonic(), until, x.idleTimeout(), true)
	return ctx, func() {
		x.dog.hold(nil)
		cancel()
	}
}

// interrupted tells what ended the wait.
func (x *exchange) interrupted() outcome {
	switch x.dog.cause.Load() {
	case causeIdle:
		return idleTimedOut
	case causeHard:
		return x.overdue()
	}
	return clientGone
}

// noteWhole has the watchdog know that nobody reads from the client any more, where that is so. No pump runs.
func (x *exchange) noteWhole() {
	if x.complete {
		x.dog.noteWhole(true)
	}
}
