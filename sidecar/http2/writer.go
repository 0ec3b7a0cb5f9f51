package http2

import (
	"errors"
	"runtime"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// writer is a connection's outgoing side: whoever has a frame appends it, under the
// connection's lock, and whoever flushes while nobody writes, writes for all. It
// never waits for the socket: what the socket does not take at once is left to a
// goroutine that lives until it did.
type writer struct {
	cur *outBuffer // what is appended to; nil when empty

	// frames and controls count what is in cur, the flying ones what is being written.
	frames, controls             int
	flyingFrames, flyingControls int

	batches int // of what connections' readers passed on at a time, in cur

	writing bool
	urgent  bool // the reader appended something that nobody else will flush
	credit  bool // the peer may need what cur says of the connection's window
	rest    *outBuffer
	restOff int
	drain   func()
}

// append returns the buffer to append frames to, for the owner of the lock.
func (c *conn) out() *outBuffer {
	if c.w.cur == nil {
		c.w.cur = outBuffers.Get().(*outBuffer)
	}
	return c.w.cur
}

// pending is how many bytes wait to be written.
func (w *writer) pending() int {
	if w.cur == nil {
		return 0
	}
	return len(w.cur.b)
}

// room tells whether who writes data may append; control frames always may, within
// their own bound.
func (c *conn) room() bool {
	return c.w.pending() < c.cfg.BufferBytes && c.w.frames+c.w.flyingFrames < c.cfg.MaxOutboundFrames
}

// control counts a frame that the peer made us send.
func (c *conn) control() {
	c.w.frames++
	c.w.controls++
	c.w.urgent = true
}

// flooded tells whether more waits to be written than a peer that reads leaves.
func (c *conn) flooded() bool {
	return c.w.controls+c.w.flyingControls > c.cfg.MaxOutboundControlFrames ||
		c.w.controls > 0 && c.w.frames+c.w.flyingFrames > c.cfg.MaxOutboundFrames
}

// take removes what is to be written.
func (w *writer) take() *outBuffer {
	o := w.cur
	w.cur = nil
	w.batches = 0
	w.flyingFrames, w.flyingControls = w.frames, w.controls
	w.frames, w.controls, w.urgent, w.credit = 0, 0, false, false
	return o
}

// written ends the flight of a buffer.
func (c *conn) written(o *outBuffer) {
	o.free()
	c.w.flyingFrames, c.w.flyingControls = 0, 0
	c.wakeSender()
}

// maxRounds bounds how often one exchange writes what others appended meanwhile.
const maxRounds = 4

// flush writes what waits, unless somebody is at it. The caller holds the lock, which is
// given up meanwhile. With gather, other exchanges that are about to append are let
// go first, so that one call carries what all of them have.
func (c *conn) flush(gather bool) {
	w := &c.w
	if w.writing || w.pending() == 0 || c.cut {
		return
	}
	w.writing = true
	if c.try == nil {
		go w.drain()
		return
	}
	if gather {
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	for range maxRounds {
		o := w.take()
		c.mu.Unlock()
		n, done, err := c.tryWrite(o.b)
		c.mu.Lock()
		if err != nil {
			o.free()
			c.writeFailed(err)
			return
		}
		if !done {
			w.rest, w.restOff = o, n
			go w.drain()
			return
		}
		c.written(o)
		if w.pending() == 0 || c.cut {
			w.writing = false
			c.settled.Broadcast()
			return
		}
	}
	go w.drain()
}

// tryWrite is TryWrite. The lock is not held, so that a panic must not reach who is to
// give it up.
func (c *conn) tryWrite(p []byte) (n int, done bool, err error) {
	defer panics.Contain(panics.HTTP2Writer, c, func() { err = errPanicked })
	return c.try.TryWrite(p)
}

// drainOut is the goroutine that waits for the socket.
func (c *conn) drainOut() {
	defer panics.Contain(panics.HTTP2Writer, c, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.writeFailed(errPanicked)
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &c.w
	for !c.cut {
		o, off := w.rest, w.restOff
		w.rest, w.restOff = nil, 0
		if o == nil {
			if w.pending() == 0 {
				break
			}
			o = w.take()
		}
		c.mu.Unlock()
		err := c.writeWaiting(o.b[off:])
		c.mu.Lock()
		if err != nil {
			o.free()
			c.writeFailed(err)
			return
		}
		c.written(o)
	}
	w.writing = false
	c.settled.Broadcast()
}

// writeWaiting writes with the timeout for each piece, so that a peer that reads
// slowly is not taken for one that does not.
func (c *conn) writeWaiting(p []byte) (err error) {
	defer panics.Contain(panics.HTTP2Writer, c, func() { err = errPanicked })
	const piece = 64 << 10
	limit := c.cfg.WriteTimeout
	for {
		if limit > 0 {
			if err := c.s.SetWriteDeadline(time.Now().Add(limit)); err != nil {
				return err
			}
		}
		n, err := c.s.Write(p[:min(len(p), piece)])
		if err != nil {
			return err
		}
		if p = p[n:]; len(p) == 0 {
			break
		}
	}
	if limit > 0 {
		return c.s.SetWriteDeadline(time.Time{})
	}
	return nil
}

// errUnread is WriteTimeout's end. It is no deadline to those whose streams the connection has:
// theirs is another, and a host is not to blame for what a client does not read.
var errUnread = errors.New("the peer took nothing in time")

// writeFailed ends the connection whose transport did.
func (c *conn) writeFailed(err error) {
	if stream.IsTimeout(err) {
		err = errUnread
	}
	c.w.writing = false
	c.cut = true
	c.fail(&ConnError{Code: InternalError, Reason: "write_failed", Err: err})
	c.wakeReader()
	c.settled.Broadcast()
}
