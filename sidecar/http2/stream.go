package http2

import (
	"os"
	"sync"

	"github.com/hauberk-mesh/hauberk/sidecar/clock"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// Stream is one exchange. One goroutine reads from it and one writes to it, which may
// be the same; Reset, Interrupt and Resume may be called from anywhere while the
// stream is in use. It is a message.Body: that of the request on the server's side, of
// the response on the client's.
//
// On the server's side it is over when Handler.ServeStream returns, on the client's, and
// on the server's after Keep, with Close; after that it serves another exchange, and
// nothing of it may be used.
type Stream struct {
	streamState

	// What outlives the stream, for the next one.
	req      message.Request // the server's
	trailers message.Fields
	counts   *message.Meter     // the server's, where one was wanted
	heads    []responseHeadSlot // the client's
}

// streamState is what a stream begins without.
type streamState struct {
	c  *conn
	id uint32

	// All below is under the connection's lock, except what the exchange owns.
	rcond, wcond sync.Cond
	parked       *stream.Watch // waits in place of a reader
	listed       bool          // in the connection's table
	localEnd     bool          // we sent END_STREAM
	remoteEnd    bool          // the peer did, and all before it is here
	err          error
	dropped      bool // what was received is gone
	stopRead     bool
	stopWrite    bool
	unflushed    bool
	watcher      Watcher
	meter        *message.Meter // counts frames of the stream; nil where nobody wants to know

	// Receiving.
	window      int64 // how much may be here, or on its way
	recvWin     int64
	unacked     int64
	in          received
	held        int   // of the chunk that Next returned last
	lent        bool  // that is the body's last, and was given back to the connection
	declared    int64 // Content-Length, -1 for none
	got         int64
	gotHead     bool // the final head of a response, or the request
	bodiless    bool // what comes may have no content (HEAD, 204, 304)
	hasTrailers bool
	interim     int

	// Sending.
	sendWin      int64
	turn         int  // sent since it last waited
	noContent    bool // the response has none (HEAD, 204, 304)
	queue        *sendQueue
	qprev, qnext *Stream

	next   *Stream // in the server's list of streams to start
	wnext  *Stream // in the reader's list of streams to wake
	waking bool
	begun  bool // the handler was started
	kept   bool // it outlives its handler
	left   bool // the handler has returned

	// Pipe's: where to, what is under way there, and whether it was taken.
	pipeTo *Stream
	tap    Tap
	unread unread
	flight received
	piping bool // unread, flight, passed, poured and the list are the reader's
	passed bool

	// Pour's: where to, that it takes no more, and what it took.
	sink   stream.Sink
	sated  bool
	poured int

	orphan bool // over, and to be recycled by the reader

	// The server's.
	since    int64 // when it arrived, by the clock
	answered bool  // its final head was sent

	// The client's.
	nheads, firstHead int
	isHead            bool
	connect, upgrade  bool
	anySuccess        bool // accepts the upgrade: for a client of HTTP/2 it does (RFC 8441 5)
	upgradeTo         string
}

type responseHeadSlot struct {
	r   message.Response
	end bool
}

// Watcher is told that a request is of no use any more.
type Watcher interface {
	// StreamEnded is called at most once, when the peer reset the stream or broke the
	// protocol on it, or when the connection ended. It is called with the connection
	// locked: it must not block nor use the stream, but it may call Interrupt of a
	// stream of a ClientConn.
	StreamEnded(err error)
}

var streams sync.Pool

func newStream(c *conn) *Stream {
	s, _ := streams.Get().(*Stream)
	if s == nil {
		s = &Stream{}
	}
	s.c = c
	s.rcond.L, s.wcond.L = &c.mu, &c.mu
	s.window = int64(c.cfg.StreamWindow)
	s.sendWin, s.recvWin = c.peerWindow, s.window
	s.declared = -1
	return s
}

// recycle gives the stream's memory to the next one. The lock is not needed: nobody
// else knows the stream.
func (s *Stream) recycle() {
	s.in.clear()
	s.req.Reset()
	s.trailers.Reset()
	for i := range s.heads {
		s.heads[i].r.Reset()
	}
	if len(s.heads) > 2 {
		s.heads = s.heads[:1:1]
	}
	s.streamState = streamState{}
	streams.Put(s)
}

// ID is the stream's identifier.
func (s *Stream) ID() uint32 { return s.id }

// Info says between whom the connection runs.
func (s *Stream) Info() *stream.Info { return s.c.s.Info() }

// end takes the stream out of the connection; err is what its calls return. The lock is
// held.
func (s *Stream) end(err error, byPeer bool) {
	c := s.c
	s.settle()
	if s.err == nil {
		s.err = err
	}
	s.leaveQueue() // of senders: what is left to be read has a list of its own
	c.remove(s, byPeer)
	if c.server != nil || !byPeer && c.err == nil {
		// Nobody is to work on what is of no use. A response is still good as far as it
		// came.
		s.drop()
	}
	s.readable()
	s.wcond.Broadcast()
	if c.server != nil && !s.begun {
		c.server.stillborn++
	}
	if w := s.watcher; w != nil {
		s.watcher = nil
		w.StreamEnded(s.err)
	}
}

// drop frees what was received, and gives the connection's window back for all of it:
// nobody may come for it any more. The lock is held.
func (s *Stream) drop() {
	if s.dropped {
		return
	}
	s.dropped = true
	if s.queue == &s.c.unread {
		s.leaveQueue()
	}
	s.c.credit(s.untaken())
	s.dropInput()
}

// dropInput frees what was received, but for the block that the reader of the body may
// be looking at.
func (s *Stream) dropInput() {
	if s.held == 0 {
		s.in.clear()
		return
	}
	for b := s.in.head.next; b != nil; {
		next := b.next
		b.free()
		b = next
	}
	s.in.head.next, s.in.tail = nil, s.in.head
	s.in.n = s.held
	s.in.head.w = s.in.off + s.held
}

// Watch has w told when the peer leaves, on the server's side; nil ends that, and when
// Watch returns, no call is under way. The error is not nil when the stream has ended
// already.
func (s *Stream) Watch(w Watcher) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.watcher = w
	return s.err
}

// Next implements message.Body. It waits for the peer's DATA; taking a chunk is what
// lets the peer send more, so whoever does not call Next holds it back. The last chunk
// holds back nobody: it is often kept until the exchange is over.
func (s *Stream) Next() (chunk []byte, last bool, err error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.release()
	defer func() {
		if c.w.credit { // others may wait for it, and the caller has more to do
			c.flush(false)
		}
	}()
	for {
		if s.err != nil && (s.dropped || !s.remoteEnd && s.in.n == 0) {
			return nil, false, s.err
		}
		if chunk = s.in.peek(); len(chunk) > 0 {
			s.held = len(chunk)
			if last = s.remoteEnd && s.held == s.in.n; last {
				s.lent = true
				c.credit(s.held)
			}
			return chunk, last, nil
		}
		if s.remoteEnd {
			return nil, true, nil
		}
		if s.stopRead {
			return nil, false, os.ErrDeadlineExceeded
		}
		if s.flushBeforeWait() {
			continue
		}
		s.rcond.Wait()
	}
}

// readable has whoever waits for the stream look again. The lock is held.
func (s *Stream) readable() {
	s.rcond.Broadcast()
	if w := s.parked; w != nil {
		s.parked = nil
		w.Wake()
	}
}

// park has w woken, once, when there is something to read or the stream has ended; it
// reports false when that is so now. No reader is active.
func (s *Stream) park(w *stream.Watch) bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.release()
	for s.flushBeforeWait() {
	}
	if s.in.n > 0 || s.remoteEnd || s.err != nil {
		return false
	}
	s.parked = w
	return true
}

// release gives back the chunk that Next returned last.
func (s *Stream) release() {
	n := s.held
	if n == 0 {
		return
	}
	given := s.dropped || s.lent
	s.held, s.lent = 0, false
	s.in.consume(n)
	if !given && s.consumed(n) {
		s.unflushed = true
	}
}

// consumed gives n bytes of the windows back; it tells whether the stream's part of
// that is to be flushed.
func (s *Stream) consumed(n int) bool {
	c := s.c
	c.credit(n)
	if s.remoteEnd || !s.listed {
		return false
	}
	s.unacked += int64(n)
	if s.unacked < s.window/2 {
		return false
	}
	s.grow()
	o := c.out()
	o.b = appendWindowUpdate(o.b, s.id, uint32(s.unacked))
	c.w.frames++
	if s.recvWin <= 0 && c.server != nil {
		c.lifted.Store(clock.Now())
	}
	s.recvWin += s.unacked
	s.unacked = 0
	return true
}

// grow widens the window of a stream that is read: the sender has as much on its way as
// the reader takes until it hears of that. The more streams have grown, the less does the
// next.
func (s *Stream) grow() {
	c := s.c
	n := min(s.window, int64(c.cfg.MaxStreamWindow)-s.window, c.spare/4)
	if n <= 0 {
		return
	}
	c.spare -= n
	s.window += n
	s.unacked += n
}

// flushBeforeWait sends what the peer may be waiting for; it tells whether the lock was
// given up.
func (s *Stream) flushBeforeWait() bool {
	if !s.unflushed && !s.c.w.urgent {
		return false
	}
	s.unflushed = false
	if s.c.w.writing || s.c.w.pending() == 0 || s.c.cut {
		s.c.w.urgent = false
		return false
	}
	s.c.flush(true)
	return true
}

// Ready implements message.Body.
func (s *Stream) Ready() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.in.n > s.held || s.remoteEnd || s.err != nil
}

// Trailers implements message.Body.
func (s *Stream) Trailers() *message.Fields {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if !s.hasTrailers {
		return nil
	}
	return &s.trailers
}

// Interrupt ends every blocked call, and those to come, with os.ErrDeadlineExceeded,
// until Resume.
func (s *Stream) Interrupt() { s.stop(true, true, true) }

// Resume ends what Interrupt, InterruptRead and InterruptWrite began.
func (s *Stream) Resume() { s.stop(true, true, false) }

// InterruptRead is Interrupt for the calls that receive, InterruptWrite for those that
// send.
func (s *Stream) InterruptRead() { s.stop(true, false, true) }

// InterruptWrite interrupts the calls that send.
func (s *Stream) InterruptWrite() { s.stop(false, true, true) }

func (s *Stream) stop(read, write, on bool) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if read {
		s.stopRead = on
		s.rcond.Broadcast()
	}
	if write {
		s.stopWrite = on
		s.wcond.Broadcast()
	}
}

// HeldBack tells whether the peer may send nothing on the stream, or hardly anything: what was received of it, or
// of others of its connection, has yet to be taken. It may be called beside any other method.
func (s *Stream) HeldBack() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.recvWin <= 0 || s.c.recvWin < leastCredit
}

// Inflow is what may excuse a client that sends nothing on the stream: how many bytes of bodies
// came on its connection, and when the connection, or a stream of it, was last let send that had
// hardly any credit left, in the terms of package clock, 0 for never. It takes no lock, and may
// be called by whoever a Tap is.
func (s *Stream) Inflow() (bytes uint64, lifted int64) { return s.c.came.Load(), s.c.lifted.Load() }

// Reset ends the stream at once: the peer gets RST_STREAM with the code, and blocked
// calls return. It does nothing to a stream that is over.
func (s *Stream) Reset(code Code) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.listed {
		if s.err == nil {
			s.err = &StreamError{Code: code, Reason: "reset"}
		}
		s.drop()
		s.readable()
		s.wcond.Broadcast()
		if c.w.urgent {
			c.flush(false)
		}
		return
	}
	s.watcher = nil // who resets knows
	c.reset(s, code, "reset")
	c.flush(false)
}
