package http2

import (
	"errors"
	"net"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// finish ends a connection whose reader has stopped with err, closes the stream, and
// returns what the connection's owner is told.
func (c *conn) finish(err *ConnError) error {
	c.mu.Lock()
	c.fail(err)
	// A panic kept these from the end of their batch. Of those that are over, fail tells
	// nobody, and what lies in the input does not stay there.
	for s := c.toWake; s != nil; s = s.wnext {
		s.settle()
		s.readable()
	}
	for _, list := range []**Stream{&c.pipes, &c.pours} {
		for s := *list; s != nil; s = *list {
			*list = s.wnext
			s.land()
			s.readable()
		}
	}
	err = c.err // the first counts
	c.keeper.stop()
	gone := err.Err != nil && err != errSilent && err != errShed || err == errPeerLeft || c.cut
	if !gone && (c.server == nil || !c.server.final) {
		o := c.out()
		o.b = appendGoAway(o.b, c.lastServed, err.Code, err.Reason)
		c.w.frames++
	}
	if !gone {
		c.lastWords()
	}
	c.cut = true
	c.mu.Unlock()
	_ = stream.CloseNow(c.s) // the last words have had their time
	c.mu.Lock()
	for c.w.writing {
		c.settled.Wait()
	}
	if c.w.cur != nil {
		c.w.cur.free()
		c.w.cur = nil
	}
	for s := c.toWake; s != nil; s = s.wnext {
		s.waking = false
		if s.orphan {
			s.orphan = false // left to the collector
		}
	}
	c.toWake = nil
	c.block = nil
	c.readAll = true
	c.delistRead()
	c.mu.Unlock()
	c.in.r = c.in.w
	c.in.release()
	if err == errDrained || err == errPeerLeft || errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}

// lastWrite bounds what is still written on a connection that does not linger.
const lastWrite = time.Second

// lastWords writes what waits and gives the peer time to read it. The lock is held, and
// given up meanwhile.
func (c *conn) lastWords() {
	linger := c.cfg.Linger
	if linger <= 0 {
		linger = lastWrite
	}
	_ = c.s.SetDeadline(time.Now().Add(linger))
	stop := time.AfterFunc(linger, func() {
		defer panics.Contain(panics.Timer, c, nil)
		// Whoever is writing may be about to set another deadline.
		c.mu.Lock()
		c.cut = true
		c.settled.Broadcast()
		c.mu.Unlock()
		_ = c.s.SetDeadline(past)
	})
	defer stop.Stop()
	for !c.cut && (c.w.writing || c.w.pending() > 0) {
		if c.w.writing {
			c.settled.Wait()
			continue
		}
		c.flush(false)
	}
	if c.cut || c.cfg.Linger <= 0 {
		return
	}
	c.mu.Unlock()
	err := c.awaitClose()
	c.mu.Lock()
	c.peerClosed = err != nil && !stream.IsTimeout(err) && !errors.Is(err, net.ErrClosed)
}

// awaitClose drops what comes until the peer closes the connection; its time is bounded.
func (c *conn) awaitClose() error {
	if c.s.CloseWrite() != nil {
		return nil
	}
	c.in.r = c.in.w
	for {
		c.in.share.Turn()
		n, err := c.fill()
		if n == 0 || err != nil {
			return err
		}
		c.in.share.Spend(n)
	}
}

// abort ends a connection at once.
func (c *conn) abort(err *ConnError) {
	c.mu.Lock()
	c.fail(err)
	c.cut = true
	c.settled.Broadcast()
	c.mu.Unlock()
	_ = stream.CloseNow(c.s)
}
