package hcm

import (
	"errors"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// errPanicked is why a message is not sent on that met a fault of the program.
var errPanicked = errors.New("panic")

// wreck ends an exchange whose goroutine panicked, so that nobody else is hurt: what it
// holds of its upstream, its place in limits, and what its filters keep is given back.
// The client sees the end of its stream or connection.
func (x *exchange) wreck() {
	x.wrecked, x.closeAfter, x.responded = true, true, false
	x.mirrored = true // no copy either
	x.details = "panic"
	panics.Guard(panics.Exchange, x.stopPump)
	panics.Guard(panics.Exchange, x.attempt.wreck)
	panics.Guard(panics.Exchange, func() { x.endRetry(false) })
	panics.Guard(panics.Exchange, x.stopReporter)
	if x.status == 0 {
		x.resp.Reset() // whatever there is of it is no answer, and may be half read
	}
	panics.Guard(panics.Exchange, x.finish)
	panics.Guard(panics.Exchange, x.endFilters) // should it be the end that panics
}

// wreck gives back what an attempt holds that panicked. It panics only where giving
// something back does, which is not tried again.
func (a *attempt) wreck() {
	a.log.stop(a)
	a.log = nil
	a.drop(false)
}
