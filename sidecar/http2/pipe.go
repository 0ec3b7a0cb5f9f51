package http2

import (
	"runtime"

	"github.com/hauberk-mesh/hauberk/sidecar/clock"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// Tap is told what Pipe passes on.
type Tap interface {
	// Passed is called after each piece with its length, by the reader of the source's
	// connection, which is locked, while the caller of Pipe waits: it must not block
	// nor use either stream. now is clock.Now, read once for all that came together.
	Passed(n int, now int64)
}

// Pipe passes what the stream receives on to dst, a stream of another connection, and
// waits. No goroutine is woken for a piece: the connection's reader appends what it has
// read to dst's connection, and flushes that once for all of it. Pipe returns for
// whatever needs more: the end of the body, an error, an interruption, or a dst that
// does not take a piece at once. Next has what was not passed on.
//
// Nobody else may write to dst meanwhile, and what was written before is flushed.
func (s *Stream) Pipe(dst *Stream, tap Tap) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.release()
	s.pipeTo, s.tap = dst, tap
	for s.piping || s.err == nil && s.in.n == 0 && !s.remoteEnd && !s.stopRead {
		if s.piping || !s.flushBeforeWait() {
			s.rcond.Wait()
		}
	}
	s.settle()
	s.pipeTo, s.tap = nil, nil
}

// unread are pieces of a stream's body that lie in the connection's input, where they were
// read: what the reader is about to pass on need not be copied for that. At the end of the
// batch, before the input is used again, nothing is left of them.
type unread struct {
	pieces [4][]byte
	count  int
	n      int // bytes
}

func (u *unread) add(p []byte) bool {
	if u.count == len(u.pieces) {
		return false
	}
	u.pieces[u.count] = p
	u.count++
	u.n += len(p)
	return true
}

func (u *unread) clear() {
	clear(u.pieces[:u.count])
	u.count, u.n = 0, 0
}

// keep takes a piece of the body that lies in the input. It is the reader's; the lock is
// held.
func (s *Stream) keep(p []byte) {
	if s.c.server != nil {
		s.c.came.Add(uint64(len(p)))
	}
	if s.pipeTo == nil && s.sink == nil || s.in.n > 0 || !s.unread.add(p) {
		s.settle()
		s.in.append(p, &s.c.bulk)
	}
	s.c.wake(s)
}

// settle copies what lies in the input, for who is to read it as it comes. While the reader
// passes it on it stays where it is. The lock is held.
func (s *Stream) settle() {
	if s.piping {
		return
	}
	for _, p := range s.unread.pieces[:s.unread.count] {
		s.in.append(p, &s.c.bulk)
	}
	s.unread.clear()
}

// pipeable tells whether the reader may pass on what has arrived. The lock is held.
func (s *Stream) pipeable() bool {
	return s.pipeTo != nil && s.in.n+s.unread.n > 0 && s.err == nil && !s.remoteEnd && !s.stopRead
}

// pass passes on what arrived for the streams of c.pipes, which are marked as piping:
// until that is over, Pipe does not return, so both ends of each stay what they are.
// The lock is given up meanwhile, because the reader at the other end may be passing
// the other way.
func (c *conn) pass() {
	if !c.passOn(c.pipes) {
		c.fail(errPanicked)
	}
	if c.now == 0 {
		c.now = clock.Now()
	}
	for s := c.pipes; s != nil; s = c.pipes {
		c.pipes = s.wnext // a fault of a tap leaves the others to finish
		n := s.flight.n + s.unread.n
		s.land()
		if s.passed {
			s.tap.Passed(n, c.now)
			if s.consumed(n) {
				c.w.urgent = true
			}
		}
		if !s.passed || s.err != nil || s.stopRead {
			s.rcond.Broadcast()
			c.stirs = true
		}
	}
}

// land ends the passing on of what a stream has. What was not taken is the stream's again.
// The lock is held.
func (s *Stream) land() {
	n := s.flight.n + s.unread.n
	s.wnext, s.waking, s.piping = nil, false, false
	switch {
	case s.passed:
		s.flight.clear()
		s.unread.clear()
	case s.dropped:
		s.flight.clear()
		s.unread.clear()
		s.c.credit(n)
	default:
		s.in, s.flight = s.flight, received{}
		s.settle()
	}
}

// passOn is the part of pass that is done without the lock; it is false after a panic,
// when nobody knows what was passed on.
func (c *conn) passOn(list *Stream) (ok bool) {
	c.mu.Unlock()
	defer c.mu.Lock()
	defer panics.Contain(panics.HTTP2Reader, c, nil)
	gather := false
	for s := list; s != nil; {
		var shared bool
		s, shared = c.takeRun(s)
		gather = gather || shared
	}
	if c.leader != nil {
		return true
	}
	if gather {
		runtime.Gosched() // other readers may be about to append to the same connections
	}
	var flushed *conn
	for s := list; s != nil; s = s.wnext {
		if s.passed && s.pipeTo.c != flushed {
			flushed = s.pipeTo.c
			_ = s.pipeTo.flush(false) // who writes next learns of an error
		}
	}
	return true
}

// takeRun has the first of a list taken, and those after it that go to the same connection;
// rest are the others. shared tells whether the connection has more streams than one. The
// caller flushes it, but where c has a leader, who does at the end of the round.
func (c *conn) takeRun(list *Stream) (rest *Stream, shared bool) {
	to := list.pipeTo.c
	to.mu.Lock()
	defer to.mu.Unlock()
	if from, end := c.stretch(list); end > 0 {
		c.writeInPlace(list, from, end)
		if c.leader != nil && to.w.writing {
			c.stirs = true // a goroutine goes on with it
		}
		for rest = list; rest != nil && rest.pipeTo.c == to; rest = rest.wnext {
		}
		return rest, false
	}
	some := false
	for rest = list; rest != nil && rest.pipeTo.c == to; rest = rest.wnext {
		rest.passed = rest.pipeTo.take(&rest.flight, &rest.unread)
		some = some || rest.passed
	}
	if !some {
		return rest, false
	}
	to.w.batches++
	to.gather.batch(c.number)
	switch {
	case c.leader == nil:
	case to.w.pending() >= fullBytes:
		to.flush(false)
		if to.w.writing {
			c.stirs = true // a goroutine goes on with it
		}
	case !to.gather.held:
		to.gather.held = true
		c.leader.Hold(to)
	}
	return rest, len(to.streams) > 1
}

// take appends all of r and then u as DATA, or nothing where that would have to wait. The
// lock is held.
func (s *Stream) take(r *received, u *unread) bool {
	if !s.admits(r.n + u.n) {
		return false
	}
	for b, off := r.head, r.off; b != nil; b, off = b.next, 0 {
		for ; off < b.w; off += maxFrameSize {
			s.appendData(b.b[off:min(off+maxFrameSize, b.w)], false)
		}
	}
	for _, p := range u.pieces[:u.count] {
		s.appendData(p, false) // it came in one frame
	}
	return true
}

// admits tells whether so many bytes of DATA may be sent at once. The lock is held.
func (s *Stream) admits(n int) bool {
	c := s.c
	return s.sendError() == nil && !s.noContent && c.room() && int64(n) <= s.sendWin && int64(n) <= c.sendWin &&
		c.senders.first == nil && c.others.first == nil
}
