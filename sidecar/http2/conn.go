package http2

import (
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/clock"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// conn is what both sides of a connection share. One goroutine reads: it owns what is
// above the lock. Everything else is the lock's.
type conn struct {
	s      stream.Stream
	ready  stream.ReadyReader // nil where the stream cannot wait without a buffer
	each   stream.EachReader  // nil where each read waits for itself
	try    stream.TryWriter   // nil where it cannot write without waiting
	cfg    *Config
	server *ServerConn // exactly one of these two is set
	client *ClientConn

	// The reader's.
	in              input
	preface         string // of the client, as far as it has not arrived
	dec             decoder
	head            *head  // while a block is decoded
	block           []byte // a head's fragments, while CONTINUATION is expected
	blockOf         frameHeader
	dependsOnItself bool // the head's priority names its own stream (RFC 7540 5.3.1)
	pieces          int  // CONTINUATIONs
	skip            int  // bytes of a frame that is ignored
	data            dataFrame
	budget          budget
	now             int64          // the clock, once for what was read together; 0 before
	started         bool           // the peer's SETTINGS have arrived
	patience        bool           // a read deadline guards a head that is not whole
	anew            bool           // the one that is not whole began with what was read last
	due             time.Time      // the read deadline
	greetBy         time.Duration  // how long the peer's SETTINGS may take, besides HeaderTimeout; 0 for none
	leader          *stream.Leader // of the term in which it is read; nil in none
	stirs           bool           // what was read wakes goroutines
	toWake          *Stream
	yield           bool       // a stream has so much that its reader is to run
	stopped         *ConnError // why took has ended the reading
	untold          bool       // requests were lost, and nobody told

	mu      sync.Mutex
	settled sync.Cond // something that ending waits for has changed
	w       writer
	number  uint32 // tells connections apart
	gather  gatherer
	enc     encoder
	streams map[uint32]*Stream
	closed  closedStreams
	// idleSince is when the last stream ended, in the terms of package clock.
	idleSince atomic.Int64
	// opened counts streams whose head was answered or sent, sentData DATA frames: they
	// earn the peer WINDOW_UPDATE and PRIORITY frames.
	opened, sentData uint64

	sendWin int64 // what the peer lets us send on the connection
	recvWin int64 // what we let it send
	spare   int64 // by how much the windows of streams may still grow
	bulk    int   // how many large blocks bodies may still take
	unacked int64 // consumed and not yet given back

	// came are the bytes of bodies that clients sent, and lifted is when one was last let send
	// that had no credit left, in the terms of package clock: what a client may be reproached
	// with depends on both. Of a server's connection alone; anyone may read them.
	came   atomic.Uint64
	lifted atomic.Int64

	pipes *Stream // marked as piping by the reader, until that is over
	pours *Stream // as well, to sinks

	peerWindow int64     // initial window of new streams
	senders    sendQueue // DATA, waiting for the connection's window or for room
	others     sendQueue // anything else, waiting for room
	// unread are a client's streams that are over, whose answers are here and not all read.
	unread  sendQueue
	readAll bool // the reader has stopped

	lastPeer   uint32 // the peer's last stream
	lastServed uint32 // the last that got a handler
	err        *ConnError
	cutOff     bool // there were streams when the connection ended
	peerClosed bool // the peer closed it, once that was drained
	cut        bool // nothing more can be written
	goingAway  bool // GOAWAY was sent with the final stream id
	unackedSet int  // SETTINGS that the peer has not acknowledged
	keeper     keeper
}

// dataFrame is a DATA frame whose payload is arriving.
type dataFrame struct {
	active    bool
	s         *Stream // nil when the payload is dropped
	id        uint32
	left, pad int
	end       bool
}

func (c *conn) init(s stream.Stream, cfg *Config) {
	if cfg == nil {
		cfg = Default()
	}
	c.s, c.cfg = s, cfg
	c.ready, _ = s.(stream.ReadyReader)
	c.each, _ = s.(stream.EachReader)
	c.try, _ = s.(stream.TryWriter)
	c.settled.L = &c.mu
	c.number = numbers.Add(1)
	c.w.drain = c.drainOut
	c.dec.init(cfg.HeaderTableSize)
	c.dec.longest = cfg.MaxFieldBytes
	c.enc.init(cfg.HeaderTableSize, cfg.Huffman)
	c.streams = make(map[uint32]*Stream)
	c.closed.most = mostOurs(cfg.MaxConcurrentStreams)
	c.sendWin, c.peerWindow = initialWindow, initialWindow
	c.recvWin, c.spare = int64(cfg.ConnWindow), int64(cfg.SpareWindow)
	c.bulk = 1 + int(cfg.ConnWindow)/bulkBlock
	now := time.Now()
	c.idleSince.Store(clock.Of(now))
	c.keeper.c, c.keeper.lastRead = c, now
}

// announce appends our SETTINGS, and the connection's window beyond the default.
func (c *conn) announce(extra ...Setting) {
	cfg, o := c.cfg, c.out()
	start := len(o.b)
	o.b = appendFrameHeader(o.b, 0, frameSettings, 0, 0)
	if cfg.HeaderTableSize != initialTable {
		o.b = appendSetting(o.b, settingHeaderTableSize, cfg.HeaderTableSize)
	}
	if cfg.StreamWindow != initialWindow {
		o.b = appendSetting(o.b, settingInitialWindowSize, cfg.StreamWindow)
	}
	o.b = appendSetting(o.b, settingMaxHeaderListSize, uint32(cfg.Limits.HeadBytes))
	for _, s := range extra {
		o.b = appendSetting(o.b, s.ID, s.Value)
	}
	for _, s := range cfg.CustomSettings {
		o.b = appendSetting(o.b, s.ID, s.Value)
	}
	setLength(o.b[start:], len(o.b)-start-frameHeaderLen)
	c.w.frames++
	c.unackedSet++
	if n := cfg.ConnWindow - initialWindow; n > 0 {
		o.b = appendWindowUpdate(o.b, 0, n)
		c.w.frames++
	}
}

// fail ends the connection for everybody on it. The lock is held.
func (c *conn) fail(err *ConnError) {
	if c.err != nil {
		return
	}
	c.err, c.cutOff = err, len(c.streams) > 0
	for _, s := range c.streams {
		s.end(c.streamFate(s, err), false)
	}
	c.settled.Broadcast()
}

// Ended tells of a connection that is over whether its peer ended it, and whether streams were
// under way then.
func (c *conn) Ended() (byPeer, busy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.err
	return e != nil && (e == errDrained && c.peerClosed || e == errPeerLeft || e.Remote || e.Reason == connectionLost), c.cutOff
}

// streamFate is what a connection's end means for a stream on it.
func (c *conn) streamFate(s *Stream, err *ConnError) error {
	if err == errDrained {
		return ErrClosed
	}
	return err
}

// wakeReader makes the reader look up.
func (c *conn) wakeReader() { _ = c.s.SetReadDeadline(past) }

var past = time.Unix(1, 0)

// closedStreams remembers the latest streams that are over, those that we reset apart:
// a frame on one of these was on its way, one on a stream that the peer ended is an
// error (RFC 9113 5.1).
type closedStreams struct {
	ours    []uint32 // grows to most, then goes round
	oursAt  int
	most    int
	peers   [8]uint32
	peersAt uint8
}

// mostOurs is how many streams that we reset are remembered. Those that share a connection
// may all end at once, with the host that they went to or with the client that they came
// from, and as many again before the peer has heard of that: what it had sent of each is no
// offence, and must not end what goes on. A connection has the memory when it needs it.
func mostOurs(concurrent uint32) int { return int(min(max(2*uint64(concurrent), 256), 4096)) }

func (l *closedStreams) add(id uint32, byPeer bool) {
	switch {
	case byPeer:
		l.peers[l.peersAt&7] = id
		l.peersAt++
	case len(l.ours) < l.most:
		l.ours = append(l.ours, id)
	default:
		l.ours[l.oursAt%l.most] = id
		l.oursAt++
	}
}

// find tells how a stream ended; known is false for one that is forgotten, or that was
// skipped.
func (l *closedStreams) find(id uint32) (byPeer, known bool) {
	if slices.Contains(l.peers[:], id) {
		return true, true
	}
	return false, slices.Contains(l.ours, id)
}

// idle tells whether a stream has not begun (RFC 9113 5.1.1).
func (c *conn) idle(id uint32) bool {
	if c.server != nil {
		return id&1 == 0 || id > c.lastPeer
	}
	return id&1 == 0 || id >= c.client.nextID
}

// remove takes a stream out of the table.
func (c *conn) remove(s *Stream, byPeer bool) {
	if !s.listed {
		return
	}
	s.listed = false
	c.spare += s.window - int64(c.cfg.StreamWindow)
	delete(c.streams, s.id)
	c.closed.add(s.id, byPeer)
	if c.client != nil && !s.dropped && s.in.n+s.unread.n+s.flight.n > 0 {
		c.unread.push(s)
	}
	if len(c.streams) == 0 {
		c.idleSince.Store(clock.Now())
	}
	if c.client != nil {
		c.client.streamGone()
	}
}

// reset resets a stream from our side. The lock is held.
func (c *conn) reset(s *Stream, code Code, reason string) {
	if s.listed {
		c.resetFor(s, &StreamError{Code: code, Reason: reason})
	}
}

// resetFor is reset of a stream that is not over, whose calls return err.
func (c *conn) resetFor(s *Stream, err *StreamError) {
	o := c.out()
	o.b = appendRSTStream(o.b, s.id, err.Code)
	c.happened(EventResetSent)
	c.resetByUs(s.recvWin)
	if c.client != nil {
		// It was we who opened the stream. That many leave at once is no flood of the
		// server's, whose connection others share.
		c.w.frames++
		c.w.urgent = true
	} else {
		c.control()
	}
	s.end(err, false)
}

// credit gives back n bytes of the connection's window. The peer is told when that is as
// much as it has left: twice for each window where all of it is read, and in smaller
// pieces where some streams hold a part of it, so that the others have the rest.
func (c *conn) credit(n int) {
	c.unacked += int64(n)
	if c.unacked < c.recvWin || c.unacked < leastCredit || c.err != nil {
		return
	}
	o := c.out()
	o.b = appendWindowUpdate(o.b, 0, uint32(c.unacked))
	c.w.frames++
	c.w.urgent, c.w.credit = true, true
	if c.recvWin < leastCredit && c.server != nil {
		c.lifted.Store(clock.Now())
	}
	c.recvWin += c.unacked
	c.unacked = 0
}

// leastCredit keeps a window that is nearly used up from coming back byte by byte.
const leastCredit = 4 << 10

// sendQueue are streams that wait to send, or to be read, in the order in which they came.
type sendQueue struct{ first, last *Stream }

func (q *sendQueue) push(s *Stream) {
	if s.queue != nil {
		return
	}
	s.queue = q
	s.qprev, s.qnext = q.last, nil
	if q.last == nil {
		q.first = s
	} else {
		q.last.qnext = s
	}
	q.last = s
}

// leaveQueue takes a stream out of the queue it is in.
func (s *Stream) leaveQueue() {
	q := s.queue
	if q == nil {
		return
	}
	s.queue = nil
	if s.qprev == nil {
		q.first = s.qnext
	} else {
		s.qprev.qnext = s.qnext
	}
	if s.qnext == nil {
		q.last = s.qprev
	} else {
		s.qnext.qprev = s.qprev
	}
	s.qprev, s.qnext = nil, nil
}

// wakeSender lets those that have waited longest go on, if they can: one that needs
// nothing but room, and one that needs the connection's window too. They let the next
// go in turn, so that one small WINDOW_UPDATE does not wake a thousand.
func (c *conn) wakeSender() {
	if !c.room() {
		return
	}
	if s := c.others.first; s != nil {
		s.leaveQueue()
		s.wcond.Signal()
	}
	if s := c.senders.first; s != nil && c.sendWin > 0 {
		s.leaveQueue()
		s.wcond.Signal()
	}
}

// IdleSince is when the last stream ended, or the connection began, in the terms of package
// clock. It says nothing while a stream is open.
func (c *conn) IdleSince() int64 { return c.idleSince.Load() }

// LogValue implements slog.LogValuer.
func (c *conn) LogValue() slog.Value {
	i := c.s.Info()
	if i == nil {
		return slog.StringValue("connection")
	}
	return slog.GroupValue(slog.Any("local", i.Local), slog.Any("remote", i.Remote), slog.String("peer_id", i.PeerID))
}

// Active is how many streams are open.
func (c *conn) Active() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.streams)
}
