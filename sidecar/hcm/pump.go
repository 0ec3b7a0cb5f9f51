package hcm

import (
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/http1"
)

// pump sends a request's body while the response is waited for or relayed: the
// only case in which an exchange has a second goroutine. While it runs it owns the
// reading side of the client and the writing side of the upstream.
type pump struct {
	done chan struct{}
	// last is set when the body's end was read: what remains is one write.
	last atomic.Bool

	// Valid once done is closed.
	refused   *http1.Error // the body broke the protocol
	clientErr bool         // the client left
	upErr     error        // the upstream does not take more
	sent      int64
}

func (p *pump) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (x *exchange) startPump() {
	p := &pump{done: make(chan struct{})}
	x.pump = p
	go x.runPump(p, x.conn)
}

func (x *exchange) runPump(p *pump, conn *cluster.Conn) {
	defer close(p.done)
	var out []byte
	for {
		data, done, ok := x.nextPiece(p)
		if !ok {
			// Whoever waits for the response learns that none is to be waited for.
			defer func() { _ = conn.SetReadDeadline(past) }()
			return
		}
		if done {
			p.last.Store(true)
		}
		piece := data
		if x.framing == http1.Chunked {
			out = http1.AppendChunk(out[:0], data)
			if done {
				var err error
				if out, err = http1.AppendLastChunk(out, &x.trailers); err != nil {
					p.upErr = err
					return
				}
			}
			piece = out
		}
		if len(piece) > 0 {
			n, err := conn.Write(piece)
			p.sent += int64(n)
			if err != nil {
				p.upErr = err
				return
			}
			x.c.active()
		}
		if done {
			x.complete = true
			x.startResponseClock()
			return
		}
	}
}

// nextPiece reads some of the body from the client.
func (x *exchange) nextPiece(p *pump) (data []byte, done, ok bool) {
	for {
		if x.in.len() > 0 {
			data, n, done, err := x.body.Decode(x.in.bytes(), &x.trailers)
			if err != nil {
				p.refused, _ = err.(*http1.Error)
				return nil, false, false
			}
			x.in.consume(n)
			x.received += int64(len(data))
			if len(data) > 0 || done {
				x.remember(data)
				return data, done, true
			}
			if n > 0 {
				continue
			}
		}
		n, err := x.c.s.Read(x.in.space())
		if n == 0 {
			p.clientErr = err != nil
			return nil, false, false
		}
		x.in.w += n
		x.c.active()
	}
}

// remember keeps a piece for another attempt, as long as all of them fit.
func (x *exchange) remember(data []byte) {
	if !x.keep {
		return
	}
	if len(x.store)+len(data) > replayLimit {
		x.keep = false
		return
	}
	x.store = append(x.store, data...)
	x.payload = x.store
}

// startResponseClock: the route's timeout begins when the request has been received
// as a whole.
func (x *exchange) startResponseClock() {
	if t := x.sel.Route.Forward.Timeout; t > 0 {
		until := monotonic() + int64(t)
		x.c.hard.Store(until)
		x.c.timer.hasten(until)
	}
}

// settlePump gives a body that was read to its end the moment that its last write
// takes: the upstream often answers before the write has returned.
func (x *exchange) settlePump() {
	if p := x.pump; p != nil && p.last.Load() {
		<-p.done
	}
}

// stopPump ends the sending of a body that nobody needs any more.
func (x *exchange) stopPump() {
	p := x.pump
	if p == nil {
		return
	}
	if !p.ended() {
		_ = x.c.s.SetReadDeadline(past)
		if x.conn != nil {
			_ = x.conn.SetWriteDeadline(past)
		}
		<-p.done
		_ = x.c.s.SetReadDeadline(time.Time{})
	}
	x.upSent += p.sent
	p.sent = 0
	if !x.complete {
		x.closeAfter = true
	}
}
