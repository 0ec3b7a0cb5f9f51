package http2

import (
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/processors"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// mostPoured is how much of a stream the connection's reader passes on at a time, a whole frame: where more
// comes at once it is bulk, of which the stream's own reader passes on larger pieces, beside this one.
const mostPoured = maxFrameSize

// Pour implements stream.Pourer for the bytes of a stream: the connection's reader gives the sink what it has
// read where that lies, which is neither copied for that nor costs a goroutine's switch.
func (s *Stream) Pour(to stream.Sink) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.release()
	s.sink, s.sated = to, false
	for s.piping || s.err == nil && s.in.n == 0 && !s.remoteEnd && !s.stopRead && !s.sated {
		if s.piping || !s.flushBeforeWait() {
			s.rcond.Wait()
		}
	}
	s.settle()
	s.sink = nil
}

// pourable tells whether the reader may give the sink what has arrived. On several processors it does so for a
// stream that is alone: the readers of several can go on at the same time. The lock is held.
func (s *Stream) pourable(alone bool) bool {
	return s.sink != nil && s.in.n == 0 && s.unread.n > 0 && s.unread.n <= mostPoured && s.err == nil && !s.remoteEnd &&
		!s.stopRead && (alone || processors.One())
}

// pour gives the sinks of c.pours what arrived for their streams, which are marked as piping: until that is
// over, Pour does not return. The lock is given up meanwhile.
func (c *conn) pour() {
	if !c.pourOut(c.pours) {
		c.fail(errPanicked)
	}
	for s := c.pours; s != nil; s = c.pours {
		c.pours = s.wnext
		taken := s.poured
		s.unread.skip(taken)
		s.passed = s.unread.n == 0
		s.land()
		if taken > 0 && s.consumed(taken) {
			c.w.urgent = true
		}
		if !s.passed || s.sated || s.err != nil || s.stopRead {
			s.rcond.Broadcast()
			c.stirs = true
		}
	}
}

// pourOut is the part of pour that is done without the lock; it is false after a panic. What a sink had then
// counts as taken: nobody knows how much it took, and no byte may come twice.
func (c *conn) pourOut(list *Stream) (ok bool) {
	c.mu.Unlock()
	defer c.mu.Lock()
	defer panics.Contain(panics.HTTP2Reader, c, nil)
	for s := list; s != nil; s = s.wnext {
		s.poured = s.unread.n
		s.unread.join(&c.in)
		n, more := s.sink.Take(s.unread.pieces[:s.unread.count])
		s.poured, s.sated = n, !more
	}
	return true
}

// mostMoved bounds what is moved to save a call of the kernel.
const mostMoved = 4 << 10

// join moves what is small behind the piece before it, over its frame's header: a message that is as long as a
// record, or longer, has a few bytes in a frame of their own.
func (u *unread) join(in *input) {
	for i := u.count - 1; i > 0; i-- {
		p, tail := u.pieces[i-1], u.pieces[i]
		at := in.offset(p)
		end := at + len(p)
		if at < 0 || len(tail) > mostMoved || in.offset(tail) != end+frameHeaderLen {
			continue
		}
		end += copy(in.buf[end:], tail)
		u.pieces[i-1] = in.buf[at:end]
		u.count--
		copy(u.pieces[i:], u.pieces[i+1:u.count+1])
		u.pieces[u.count] = nil
	}
}

// skip takes n bytes off the front.
func (u *unread) skip(n int) {
	u.n -= n
	for i := range u.pieces[:u.count] {
		k := min(n, len(u.pieces[i]))
		u.pieces[i] = u.pieces[i][k:]
		n -= k
	}
}

// Pour implements stream.Pourer.
func (t *Tunnel) Pour(to stream.Sink) {
	if len(t.chunk) == 0 && !t.last {
		t.s.Pour(to)
	}
}
