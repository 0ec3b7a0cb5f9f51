package hcm

import (
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// pump sends a request's body, or what a host does not take at once of one that is here,
// while the response is waited for or relayed: the only case in which an exchange has a
// second goroutine. While it runs it owns the reading side of the client and the writing
// side of the upstream.
//
// An exchange has one, and starts it anew: a client whose bodies come in pieces would
// otherwise pay for its memory each time.
type pump struct {
	x    *exchange
	up   upstream
	rest []byte // of the payload, to be sent first
	task func() // work, made once

	// over is set when nothing of the pump runs any more. Whoever waits for it finds
	// something in woken then; that may also be there for an earlier end.
	over  atomic.Bool
	woken chan struct{}

	// last is set when the body's end was read: what remains is one write, which reads nothing of
	// the request any more. It has the trailers.
	last     atomic.Bool
	trailers *message.Fields
	// gaveUp is set before the wait for a response is interrupted: the pump is over
	// right after.
	gaveUp atomic.Bool
	// replay says whether what was read can be sent again.
	replay atomic.Uint32
	// received counts what was read, until stopPump adds it to the exchange's.
	received atomic.Int64
	clock    responseClock
	// held are pieces that were read and wait for what is there already after them.
	held []byte

	// Valid once it is over.
	refused   error // the body broke the protocol
	clientErr bool  // the client left
	upErr     error // the upstream does not take more
	panicked  bool  // nobody knows what was read and sent
	sent      int64
	// When the end was read and when it was written, 0 where nobody wants to know.
	readAt, wroteAt int64
}

// States of pump.replay.
const (
	replayKept   uint32 = iota
	replayGone          // it was more than is kept, or nobody wants it any more
	replayWanted        // the exchange is about to send it again: what comes until the pump is stopped is kept too
)

// newPump makes the pump of an exchange.
func newPump(x *exchange) *pump {
	p := &pump{x: x, woken: make(chan struct{}, 1)}
	p.task = p.work
	p.over.Store(true)
	return p
}

// reset prepares for another start. The pump is over.
func (p *pump) reset() {
	p.over.Store(false)
	p.last.Store(false)
	p.gaveUp.Store(false)
	p.replay.Store(replayKept)
	p.received.Store(0)
	p.clock.began, p.clock.answered, p.clock.whole = 0, false, false
	p.refused, p.clientErr, p.upErr, p.panicked = nil, false, nil, false
	p.sent, p.readAt, p.wroteAt = 0, 0, 0
}

func (p *pump) ended() bool { return p.over.Load() }

// end is the last that a pump does.
func (p *pump) end() {
	// A body that broke off leaves pieces that waited: they are no part of the next one.
	p.up, p.rest, p.trailers, p.held = nil, nil, nil, p.held[:0]
	if cap(p.held) > firstBuffer {
		p.held = nil
	}
	p.over.Store(true)
	select {
	case p.woken <- struct{}{}:
	default: // it has not been looked for since
	}
}

// wait waits for the end.
func (p *pump) wait() {
	for !p.ended() {
		<-p.woken
	}
}

// waitFor is wait for no longer than d, and tells whether it has ended.
func (p *pump) waitFor(d time.Duration) bool {
	if p.ended() {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	for !p.ended() {
		select {
		case <-p.woken:
		case <-t.C:
			return p.ended()
		}
	}
	return true
}

// startPump has rest sent, and then what is still to be read of the body. An earlier pump
// is over.
func (x *exchange) startPump(up upstream, rest []byte) {
	if x.ownPump == nil || !x.ownPump.ended() {
		x.ownPump = newPump(x)
	}
	p := x.ownPump
	p.reset()
	p.up, p.rest = up, rest
	if !x.complete {
		x.limitKept(up)
		x.settleTrailerChanges()
	}
	if !x.keep {
		p.replay.Store(replayGone)
	}
	if x.complete {
		p.readAt = x.observed.moments[telemetry.RequestEnded]
		p.trailers = requestTrailers(x)
		p.last.Store(true)
	}
	x.pump = p
	go p.task()
}

// sendRest sends the rest of the payload; more is false when that was all, or failed.
func (p *pump) sendRest() (more bool) {
	x := p.x
	if p.upErr = p.up.write(p.rest, x.complete, p.trailers); p.upErr != nil {
		return false
	}
	p.sent += int64(len(p.rest))
	x.dog.active()
	if x.complete {
		p.wroteAt = p.now(x)
	}
	return !x.complete
}

func (p *pump) work() {
	x, up := p.x, p.up
	defer p.end()
	defer panics.Contain(panics.Body, x.d, func() {
		p.panicked, p.upErr = true, errPanicked
		p.gaveUp.Store(true)
		up.stopReading()
	})
	if len(p.rest) > 0 && !p.sendRest() {
		return
	}
	body := x.req.Body
	from, _ := body.(*http2.Stream)
	to, _ := up.(*http2Upstream)
	for {
		if from != nil { // one of HTTP/1 tells by itself
			x.dog.awaits()
		}
		if from != nil && to != nil && !x.keep {
			from.Pipe(to.s, (*requestTap)(x))
		}
		data, last, err := body.Next()
		if from != nil && x.dog.pace != nil {
			x.dog.came(len(data))
		}
		if err != nil {
			switch _, ok := refusal(err); {
			case ok:
				p.refused = err
			case stream.IsTimeout(err):
				return // interrupted: whoever did that knows why
			default:
				p.clientErr = true
			}
			// Whoever waits for the response learns that none is to be waited for. The
			// connection is the attempt's until the pump is over.
			p.gaveUp.Store(true)
			up.stopReading()
			return
		}
		p.count(x, len(data))
		x.remember(p, data)
		if last {
			x.complete = true
			x.dog.noteWhole(true)
			p.readAt = p.now(x)
			p.trailers = requestTrailers(x)
			p.last.Store(true)
		}
		if to == nil {
			var more bool
			if data, more = p.join(data, last, body); more {
				continue
			}
		}
		if len(data) > 0 || last {
			if err := up.write(data, last, p.trailers); err != nil {
				p.upErr = err
				return
			}
			p.sent += int64(len(data))
			x.dog.active()
		}
		if last {
			p.wroteAt = p.now(x)
			if !x.tunnel {
				x.startClock(p)
			}
			return
		}
	}
}

// join has small pieces that came together go on together: of a body in tiny chunks each
// would cost a system call, and so much more than its sender pays. It returns what is to be
// written; more says that nothing is yet, as the next piece is there too. HTTP/2 has no need
// of it: its connections join frames themselves.
func (p *pump) join(data []byte, last bool, body message.Body) (out []byte, more bool) {
	more = !last && len(data) < directWrite && len(p.held)+len(data) < joinUpTo && body.Ready()
	if !more && len(p.held) == 0 {
		return data, false
	}
	p.held = append(p.held, data...)
	if more {
		return nil, true
	}
	out, p.held = p.held, p.held[:0]
	return out, false
}

// joinUpTo is from how many bytes on pieces wait for no more.
const joinUpTo = 16 << 10

// count notes n bytes of the body. The exchange's own count stands still meanwhile.
func (p *pump) count(x *exchange, n int) {
	all := x.received + p.received.Add(int64(n))
	if r := x.reporter; r != nil {
		r.received.Store(all)
	}
}

// receivedSoFar are the bytes of the body that were read, also while a pump reads.
func (x *exchange) receivedSoFar() int64 {
	if x.pump == nil {
		return x.received
	}
	return x.received + x.pump.received.Load()
}

// requestTap counts what goes from stream to stream without the pump.
type requestTap exchange

// Passed implements http2.Tap.
func (t *requestTap) Passed(n int, now int64) {
	x := (*exchange)(t)
	x.pump.count(x, n)
	x.pump.sent += int64(n)
	x.dog.cameAt(n, now)
	x.dog.awaits()
}

// remember keeps a piece for another attempt, as long as all of them fit.
func (x *exchange) remember(p *pump, data []byte) {
	if !x.keep {
		return
	}
	if len(x.store)+len(data) <= int(x.keepUpTo) && p.replay.Load() != replayGone && x.keepMore(data, false) {
		return
	}
	p.forgetReplay()
	if p.replay.Load() == replayGone {
		x.keep = false
		x.dropKept()
		return
	}
	x.keepMore(data, true)
}

// forgetReplay ends the keeping, unless another attempt is about to send what is kept.
// Without it, what comes goes from stream to stream. Anyone may call it.
func (p *pump) forgetReplay() { p.replay.CompareAndSwap(replayKept, replayGone) }

// settlePump gives a body that was read to its end the moment that its last write
// takes: the upstream often answers before the write has returned. One that does not
// take the rest is not waited for.
func (x *exchange) settlePump() {
	p := x.pump
	if p == nil || !p.last.Load() {
		return
	}
	if !p.waitFor(lastWrite) {
		return
	}
	x.markPump(p)
}

// lastWrite is how long a response waits for the last write of its request.
const lastWrite = 20 * time.Millisecond

// now reads the clock for whoever shows moments.
func (p *pump) now(x *exchange) int64 {
	if x.observed.wants&telemetry.WantMoments == 0 {
		return 0
	}
	return monotonic()
}

// markPump takes over the moments of a pump that has ended.
func (x *exchange) markPump(p *pump) {
	if p.wroteAt != 0 {
		x.observed.markAt(telemetry.RequestEnded, p.readAt)
		x.observed.markAt(telemetry.SendingEnded, p.wroteAt)
	}
}

// stopPump ends the sending of a body that nobody needs any more.
func (x *exchange) stopPump() {
	p := x.pump
	if p == nil {
		return
	}
	if !p.ended() {
		x.client.interrupt()
		if up := x.attempt.up; up != nil {
			up.stopWriting()
		}
		p.wait()
		x.client.resume()
	}
	x.takeClock()
	x.markPump(p)
	x.received += p.received.Swap(0)
	x.attempt.sent += p.sent
	p.sent = 0
}
