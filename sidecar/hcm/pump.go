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
type pump struct {
	done chan struct{}
	// last is set when the body's end was read: what remains is one write.
	last atomic.Bool
	// gaveUp is set before the wait for a response is interrupted: done is closed
	// right after.
	gaveUp atomic.Bool
	// replay says whether what was read can be sent again.
	replay atomic.Uint32
	// received counts what was read, until stopPump adds it to the exchange's.
	received atomic.Int64
	clock    responseClock
	// held are pieces that were read and wait for what is there already after them.
	held []byte

	// Valid once done is closed.
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

func (p *pump) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// startPump has rest sent, and then what is still to be read of the body.
func (x *exchange) startPump(up upstream, rest []byte) {
	p := &pump{done: make(chan struct{})}
	if !x.keep {
		p.replay.Store(replayGone)
	}
	if x.complete {
		p.readAt = x.observed.moments[telemetry.RequestEnded]
		p.last.Store(true)
	}
	x.pump = p
	go x.runPump(p, up, rest)
}

// sendRest sends the rest of the payload; it is false when that was all, or failed.
func (x *exchange) sendRest(p *pump, up upstream, rest []byte) (more bool) {
	if p.upErr = up.write(rest, x.complete, requestTrailers(x)); p.upErr != nil {
		return false
	}
	p.sent += int64(len(rest))
	x.dog.active()
	if x.complete {
		p.wroteAt = p.now(x)
	}
	return !x.complete
}

func (x *exchange) runPump(p *pump, up upstream, rest []byte) {
	defer close(p.done)
	defer panics.Contain(panics.Body, x.d, func() {
		p.panicked, p.upErr = true, errPanicked
		p.gaveUp.Store(true)
		up.stopReading()
	})
	if len(rest) > 0 && !x.sendRest(p, up, rest) {
		return
	}
	from, _ := x.req.Body.(*http2.Stream)
	to, _ := up.(*http2Upstream)
	for {
		if from != nil && to != nil && !x.keep {
			from.Pipe(to.s, (*requestTap)(x))
		}
		data, last, err := x.req.Body.Next()
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
			// connection is the attempt's until done is closed.
			p.gaveUp.Store(true)
			up.stopReading()
			return
		}
		p.count(x, len(data))
		x.remember(p, data)
		if last {
			x.complete = true
			p.readAt = p.now(x)
			p.last.Store(true)
		}
		if to == nil {
			var more bool
			if data, more = p.join(data, last, x.req.Body); more {
				continue
			}
		}
		if len(data) > 0 || last {
			var trailers *message.Fields
			if last {
				trailers = requestTrailers(x)
			}
			if err := up.write(data, last, trailers); err != nil {
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
	more = !last && len(data) < directWrite && len(p.held)+len(data) < upstreamBuffer && body.Ready()
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
func (t *requestTap) Passed(n int) {
	x := (*exchange)(t)
	x.pump.count(x, n)
	x.pump.sent += int64(n)
	x.dog.active()
}

// remember keeps a piece for another attempt, as long as all of them fit.
func (x *exchange) remember(p *pump, data []byte) {
	if !x.keep {
		return
	}
	if len(x.store)+len(data) > x.keepUpTo {
		p.forgetReplay()
	}
	if p.replay.Load() == replayGone {
		x.keep = false
		return
	}
	x.store = append(x.store, data...)
	x.payload = x.store
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
	if !p.ended() {
		t := time.NewTimer(lastWrite)
		defer t.Stop()
		select {
		case <-p.done:
		case <-t.C:
			return
		}
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
		<-p.done
		x.client.resume()
	}
	x.takeClock()
	x.markPump(p)
	x.received += p.received.Swap(0)
	x.attempt.sent += p.sent
	p.sent = 0
}
