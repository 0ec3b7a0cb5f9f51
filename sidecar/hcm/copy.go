package hcm

import (
	"context"
	"io"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// An exchange beside another is a second sending of its request, on a goroutine of its own:
// a mirrored request, or a hedged one. It has a copy of the whole request, and nobody
// waits at its client side. The end of its context interrupts it.

// beside makes such an exchange of x, whose request is whole in memory. Its owner
// calls leave.
func (x *exchange) beside(ctx context.Context) *exchange {
	y := newExchange(x.m, x.d, ctx)
	y.begin()
	y.client = nobody{}
	dog := &watchdog{}
	dog.start(x.m.timers, nobody{})
	y.dog, y.aside = dog, context.AfterFunc(ctx, func() {
		defer panics.Contain(panics.Timer, nil, nil)
		dog.bound(1)
	})
	copyRequest(y.req, x.req)
	if t := requestTrailers(x); t != nil {
		y.trailers.CopyFrom(t)
		y.req.Body = copied{&y.trailers}
	}
	y.store = append(y.store[:0], x.payload...)
	if n := cap(y.store); n > keepBuffer {
		y.reserve(n, true)
	}
	y.payload, y.complete, y.keep = y.store, true, true
	y.policy, y.table, y.sel, y.asker, y.original = x.policy, x.table, x.sel, x.asker, x.original
	y.cluster, y.pick, y.placed = x.cluster, x.pick, true
	y.pick.Request = y.req
	if y.pick.Client != nil {
		y.pick.Client = &y.asker
	}
	y.span, y.observed.wants = x.span, x.observed.wants
	y.timeouts, y.deadline, y.lifeEnd, y.attempts = x.timeouts, x.deadline, x.lifeEnd, x.attempts
	return y
}

// spoil ends the attempt of such an exchange that panicked, and has nobody use the
// exchange again.
func (x *exchange) spoil() {
	x.outcome, x.wrecked = reset, true
	panics.Guard(panics.Exchange, x.stopPump)
	x.attempt.wreck()
}

// leave gives back what beside took. No attempt of the exchange runs any more.
func (x *exchange) leave() {
	x.attempt.countBytes()
	x.aside()
	x.dog.stop()
	x.late.Store(false)
	if x.rec != nil {
		x.rec.Release()
		x.rec = nil
	}
	x.dropKept()
	x.release()
}

// unwanted says how an attempt beside an exchange ended that was interrupted because nobody
// waits for it any more, before its time was over: that is not the host's doing. One that
// another joined because it was late has had its own time.
func (a *attempt) unwanted() (o outcome, yes bool) {
	x := a.x
	switch {
	case x.aside == nil || x.ctx.Err() == nil || monotonic() >= a.until:
		return 0, false
	case x.late.Load():
		return tryTimedOut, true
	}
	return clientGone, true
}

// copyRequest copies all of a request but its body, which the copy has in memory.
func copyRequest(dst, src *message.Request) {
	f := dst.Fields
	f.CopyFrom(&src.Fields)
	*dst = message.Request{
		Method: f.Store(src.Method), Scheme: src.Scheme, Authority: f.Store(src.Authority), Path: f.Store(src.Path),
		Version: src.Version, ContentLength: src.ContentLength, AcceptTrailers: src.AcceptTrailers,
	}
	if src.Body != nil {
		dst.Body = copied{}
	}
	dst.Fields = f
}

// copied stands for a body that is whole in its exchange's payload.
type copied struct{ trailers *message.Fields }

func (copied) Next() ([]byte, bool, error) { return nil, true, nil }
func (copied) Ready() bool                 { return true }
func (c copied) Trailers() *message.Fields { return c.trailers }

// nobody is the client of an exchange that nobody waits for.
type nobody struct{ copied }

func (nobody) fill([]byte) (int, bool, error)                      { return 0, false, io.EOF }
func (nobody) tunnel(*exchange)                                    {}
func (nobody) interim(*exchange) error                             { return nil }
func (nobody) head(*exchange, bool) error                          { return nil }
func (nobody) data(*exchange, []byte, bool, *message.Fields) error { return nil }
func (nobody) flush(*exchange) error                               { return nil }
func (nobody) abort(*exchange)                                     {}
func (nobody) interrupt()                                          {}
func (nobody) resume()                                             {}
func (nobody) polled() bool                                        { return false }
func (nobody) gone() bool                                          { return false }

var _ client = nobody{}
