package hcm

import (
	"context"
	"errors"
	"io"
	"math"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// conn is one downstream connection. One goroutine owns it; while it waits for a
// request it holds no exchange and so no buffer.
type conn struct {
	m      *Manager
	d      *downstream.Conn
	s      stream.Stream
	ready  stream.ReadyReader // nil for a stream that cannot wait without a buffer
	prober stream.Prober
	ctx    context.Context

	x    *exchange
	xfcc string // this hop's element of x-forwarded-client-cert

	idleBy int64 // until when the next request must begin
	parked bool

	timer timer
	// The timer's view: what to look for, and what it found.
	up         atomic.Pointer[cluster.Conn] // the stream of the attempt, to be woken too
	hard       atomic.Int64                 // absolute, MaxInt64 for none
	idleAfter  atomic.Int64                 // without progress, 0 for none
	lastActive atomic.Int64
	watch      atomic.Bool // look whether the client has gone
	cause      atomic.Uint32
	waiting    atomic.Bool  // for a request
	parkBy     atomic.Int64 // when waiting gives up its goroutine, 0 for never
	drainBy    atomic.Int64 // when waiting ends because of a drain, 0 without one
}

const noDeadline = math.MaxInt64

// causes of a wake.
const (
	causeNone uint32 = iota
	causeHard
	causeIdle
	causeGone
	causePark
)

// parkAfter is how long a connection waits for a request before it gives up its
// goroutine, and with it the stack of the last one.
const parkAfter = int64(time.Second)

// watchEvery is how often a client is looked at that waits for an answer: cheap,
// and only slow requests pay.
const watchEvery = int64(100 * time.Millisecond)

// drainGrace is how long a connection may be idle once a drain has begun: a request
// that is on its way already is still answered, with Connection: close.
const drainGrace = int64(time.Second)

func newConn(ctx context.Context, m *Manager, d *downstream.Conn) *conn {
	c := &conn{m: m, d: d, s: d.Stream, ctx: ctx}
	c.ready, _ = d.Stream.(stream.ReadyReader)
	c.prober, _ = d.Stream.(stream.Prober)
	c.timer.owner = c
	c.hard.Store(noDeadline)
	c.xfcc = clientCertElement(m.cfg, d.Info)
	m.timers.add(&c.timer)
	return c
}

// end gives everything back. The listener closes the stream.
func (c *conn) end() {
	c.m.timers.remove(&c.timer)
	if c.x != nil {
		c.x.release()
		c.x = nil
	}
}

// serve reads requests and answers them until the connection is to end.
func (c *conn) serve() {
	for {
		framing, ok := c.readHead()
		if !ok {
			c.park()
			return
		}
		if !c.handle(framing) {
			return
		}
		c.x.next()
		if c.x.in.len() == 0 {
			continue
		}
		// A pipelined request is there already.
	}
}

// park leaves an idle connection to the listener, where that is why waiting ended.
// The timer goes on.
func (c *conn) park() {
	if !c.waiting.Load() || c.cause.Load() != causePark {
		return
	}
	if c.x != nil {
		c.x.release()
		c.x = nil
	}
	c.parkBy.Store(0)
	c.await(monotonic(), c.idleBy, 0, false)
	c.parked = true
	c.d.Park(c.s)
}

// readHead waits for a request and reads its head into c.x.
func (c *conn) readHead() (http1.Framing, bool) {
	now := monotonic()
	if !c.parked {
		c.idleBy = c.requestWait(now)
	}
	c.parked = false
	c.waiting.Store(true)
	c.parkBy.Store(now + parkAfter)
	c.await(now, c.idleBy, 0, false)
	if c.x != nil && c.x.in.len() > 0 {
		c.begin()
	}
	for {
		if c.x != nil && c.x.in.len() > 0 {
			n, framing, err := c.x.parser.Parse(c.x.in.bytes(), &c.x.req)
			if err != nil {
				c.begin()
				c.refuse(err)
				return 0, false
			}
			if n > 0 {
				c.x.in.consume(n)
				return framing, true
			}
		}
		if !c.read() {
			return 0, false
		}
		if c.waiting.Load() {
			c.begin()
		}
	}
}

// requestWait is until when the next request must begin.
func (c *conn) requestWait(now int64) int64 {
	if c.d.Draining() {
		c.drainBy.CompareAndSwap(0, now+drainGrace)
	}
	return now + c.m.idle
}

// begin notes the first byte of a request.
func (c *conn) begin() {
	if !c.waiting.Swap(false) {
		return
	}
	x := c.x
	x.used = true
	x.start = time.Now()
	x.startMono = monotonicOf(x.start)
	limit := int64(noDeadline)
	if c.m.headersTimeout > 0 {
		limit = x.startMono + c.m.headersTimeout
	}
	if c.m.requestTimeout > 0 {
		limit = min(limit, x.startMono+c.m.requestTimeout)
	}
	c.await(x.startMono, limit, c.m.streamIdle, false)
}

// read gets more of a request's head. It answers when the time is up.
func (c *conn) read() bool {
	var n int
	var err error
	if c.ready != nil {
		n, err = c.ready.ReadReady(c)
	} else {
		n, err = c.s.Read(c.TakeBuffer())
	}
	if n > 0 {
		c.x.in.w += n
		return true
	}
	if c.waiting.Load() {
		return false // idle: nothing was asked, nothing is answered
	}
	if c.timedOut(err) {
		c.x.resetRequest()
		c.localReply(&reply{status: 408, body: "request headers timeout", details: "request_header_timeout", close: true})
		c.x.finish()
	}
	return false
}

// TakeBuffer implements stream.Buffers for reading requests.
func (c *conn) TakeBuffer() []byte {
	if c.x == nil {
		c.x = newExchange(c)
	}
	return c.x.in.space()
}

// DropBuffer implements stream.Buffers.
func (c *conn) DropBuffer() {
	if c.x != nil && c.waiting.Load() && c.x.in.len() == 0 {
		c.x.release()
		c.x = nil
	}
}

// refuse answers what the parser refused, and ends the connection.
func (c *conn) refuse(err error) {
	var e *http1.Error
	if !errors.As(err, &e) {
		e = http1.ErrRequestLine
	}
	if c.m.metrics != nil {
		c.m.metrics.ProtocolErrors.With("downstream", e.Reason).Inc(c.d.Shard)
	}
	c.x.resetRequest()
	c.x.flags |= flagDownstreamProtocol
	c.localReply(&reply{status: e.Status, details: e.Reason, close: true})
	c.x.finish()
	c.linger()
}

// linger lets the client read the answer before the close: with bytes of it
// unread, the kernel would reset the connection and the answer with it.
func (c *conn) linger() {
	const limit, patience = 256 << 10, int64(time.Second)
	if c.s.CloseWrite() != nil {
		return
	}
	now := monotonic()
	c.await(now, now+patience, 0, false)
	for n := 0; n < limit; {
		c.x.in.r, c.x.in.w = 0, 0
		k, err := c.s.Read(c.x.in.space())
		if err != nil {
			return
		}
		n += k
	}
}

// await arms the timer: hard is when waiting ends whatever happens, idle after how
// long without progress. watch looks for a client that has gone.
func (c *conn) await(now, hard, idle int64, watch bool) {
	c.cause.Store(causeNone)
	c.hard.Store(hard)
	c.idleAfter.Store(idle)
	c.lastActive.Store(now)
	c.watch.Store(watch && c.prober != nil)
	if c.timer.set(c.nextLook(now)) {
		c.unpoke()
	}
}

func (c *conn) nextLook(now int64) int64 {
	next := c.hard.Load()
	if idle := c.idleAfter.Load(); idle > 0 {
		next = min(next, c.lastActive.Load()+idle)
	}
	if c.watch.Load() {
		next = min(next, now+watchEvery)
	}
	if c.waiting.Load() {
		if by := c.drainBy.Load(); by > 0 {
			next = min(next, by)
		}
		if by := c.parkBy.Load(); by > 0 {
			next = min(next, by)
		}
	}
	if next == noDeadline {
		return 0
	}
	return max(next, 1)
}

// calm disarms the timer.
func (c *conn) calm() {
	if c.timer.set(0) {
		c.unpoke()
	}
}

// active notes progress, for the idle timeout. It reads the clock, so it is for
// bodies that come in pieces.
func (c *conn) active() { c.lastActive.Store(monotonic()) }

// due implements timed.
func (c *conn) due(now int64) (bool, int64) {
	switch idle := c.idleAfter.Load(); {
	case now >= c.hard.Load():
		c.cause.Store(causeHard)
	case idle > 0 && now >= c.lastActive.Load()+idle:
		c.cause.Store(causeIdle)
	case c.waiting.Load() && c.drainBy.Load() > 0 && now >= c.drainBy.Load():
		c.cause.Store(causeIdle)
	case c.waiting.Load() && c.parkBy.Load() > 0 && now >= c.parkBy.Load():
		c.cause.Store(causePark)
	case c.watch.Load() && c.prober.Gone():
		c.cause.Store(causeGone)
	default:
		return false, c.nextLook(now)
	}
	return true, 0
}

var past = time.Unix(1, 0)

// wake implements timed: whatever the owner waits for ends with a timeout.
func (c *conn) wake() {
	_ = c.s.SetDeadline(past)
	if up := c.up.Load(); up != nil {
		_ = up.SetDeadline(past)
	}
	if c.cause.Load() != causePark {
		c.d.Wake()
	}
}

// unpoke undoes a wake.
func (c *conn) unpoke() {
	_ = c.s.SetDeadline(time.Time{})
	if up := c.up.Load(); up != nil {
		_ = up.SetDeadline(time.Time{})
	}
}

// timedOut tells whether an error is our timer's doing.
func (c *conn) timedOut(err error) bool {
	if err == nil || err == io.EOF || !stream.IsTimeout(err) {
		return false
	}
	c.calm()
	return true
}

// Drain implements downstream.Drainer. A connection that waits is given a moment,
// so that a request on its way is not lost.
func (c *conn) Drain() {
	by := monotonic() + drainGrace
	c.drainBy.Store(by)
	c.timer.hasten(by)
}
