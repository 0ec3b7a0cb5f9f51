package hcm

import (
	"io"
	"time"
	"unique"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/fair"
	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// http1Conn is one downstream connection that speaks HTTP/1. One goroutine owns it;
// while it waits for a request it holds no exchange and so no buffer.
type http1Conn struct {
	m *Manager
	d *downstream.Conn

	x    *exchange
	xfcc unique.Handle[string] // this hop's element of x-forwarded-client-cert, shared
	dog  watchdog

	expires  int64  // when the connection is to take no more requests, 0 for never
	idleBy   int64  // until when the next request must begin, 0 before it is waited for
	requests uint32 // how many were begun
	sniffs   bool   // nothing has told yet that the client does not speak HTTP/2
	http2    bool   // it does: what x has read is the beginning of that
	parked   bool
	returns  bool       // the client spoke soon after it was parked
	share    fair.Share // of requests that took no upstream's time
}

func newHTTP1Conn(m *Manager, d *downstream.Conn) *http1Conn {
	c := &http1Conn{m: m, d: d, sniffs: m.cfg.Codec == CodecAuto && d.Info.ALPN == ""}
	c.xfcc = unique.Make(clientCertElement(m.cfg, d.Info))
	c.expires = m.expiry(d)
	if c.expires > 0 && !m.cfg.SafeMaxDuration {
		c.dog.endBy(c.expires + m.drainWait())
	}
	c.dog.parked = d
	c.dog.start(m.timers, c)
	return c
}

// end gives everything back. The listener closes the stream.
func (c *http1Conn) end() {
	c.dog.stop()
	if c.x != nil {
		c.x.release()
		c.x = nil
	}
}

// serveGuarded is serve. After a panic the connection is to be ended.
func (c *http1Conn) serveGuarded() {
	defer panics.Contain(panics.Connection, c.d, func() {
		c.parked, c.http2, c.x = false, false, nil
		c.d.Finish()
	})
	c.serve()
}

// serve reads requests and answers them until the connection is to end.
func (c *http1Conn) serve() {
	for {
		framing, ok := c.readHead()
		if !ok {
			c.park()
			return
		}
		if !c.handle(framing) {
			return
		}
		c.stepBack()
	}
}

// stepBack lets others go on before the connection is read again: a client whose requests are
// refused as fast as it sends them waits for nothing of its own, and takes its turns with who
// does. One whose request was forwarded has waited for its host.
func (c *http1Conn) stepBack() {
	if c.x.attempt.firstAt == 0 {
		c.share.Spend(fair.Request)
		c.share.Turn()
	}
}

// parkFirst is what parkAfter is for a client that is not known to speak again soon. Of
// many that connect at once most are not served at the same time, and the runtime keeps
// what the most goroutines that there ever were have needed.
const parkFirst = int64(50 * time.Millisecond)

// park leaves an idle connection to the listener, where that is why waiting ended.
// The watchdog goes on.
func (c *http1Conn) park() {
	if !c.dog.waiting || c.dog.cause.Load() != causePark || c.http2 {
		return
	}
	if c.x != nil {
		c.x.release()
		c.x = nil
	}
	c.awaitRequest(0)
	c.parked = true
	c.d.Park(c.d.Stream)
}

// readHead waits for a request and reads its head into c.x.
func (c *http1Conn) readHead() (http1.Framing, bool) {
	c.dog.rest()
	if c.parked {
		c.returns = monotonic() < c.idleBy-c.restFor()+parkAfter
	} else {
		c.idleBy = 0
	}
	c.parked = false // also where it has ended, and is not waited for any more
	first := 1       // how many reads there are once a request has begun
	if c.x != nil && c.x.h1.in.len() > 0 {
		c.begin() // a pipelined request is there already
		first = 0
	}
	for reads := 0; ; reads++ {
		if c.x != nil && c.x.h1.in.len() > 0 && !c.undecided() {
			h := &c.x.h1
			if c.d.Overload.AbortHTTP1() {
				c.begin()
				c.refuse(errShed)
				return 0, false
			}
			n, framing, err := h.reader.parser.Parse(h.in.bytes(), c.x.req)
			if err != nil {
				c.begin()
				c.refuse(err)
				return 0, false
			}
			if n > 0 {
				headReceived(h.meter, h.in.bytes()[:n])
				h.in.consume(n)
				if h.in.len() == 0 {
					h.giveBack()
				}
				if reads > first {
					c.x.admittedAt = monotonic()
				}
				return framing, true
			}
		}
		if c.http2 || !c.read() {
			return 0, false
		}
		c.begin()
	}
}

// undecided looks at a connection's first bytes and tells whether they may still be, or
// are, those of HTTP/2.
func (c *http1Conn) undecided() bool {
	if !c.sniffs {
		return false
	}
	yes, known := sniff(c.x.h1.in.bytes())
	if yes {
		c.http2 = true
		c.dog.calm()
	}
	c.sniffs = !known
	if known && c.dog.armed() {
		c.dog.calm() // a head has longer than the first bytes
	}
	return yes || !known
}

// requestWait is until when the next request must begin.
func (c *http1Conn) requestWait(now int64) int64 {
	if c.d.Draining() {
		c.dog.endBy(now + c.m.drainWait())
	}
	return now + c.restFor()
}

// restFor is how long a request may be waited for: the first of a connection perhaps not as
// long as others.
func (c *http1Conn) restFor() int64 {
	if c.requests == 0 {
		if first := c.m.firstBy(c.d); first > 0 {
			return min(first, c.m.idle)
		}
	}
	return c.m.idle
}

// begin notes the first byte of a request.
func (c *http1Conn) begin() {
	if !c.dog.waiting {
		return
	}
	c.dog.calm()
	c.dog.waiting = false
	c.requests++
	c.x.next()
	c.x.begin()
	c.x.noteIdle()
}

// arm has the watchdog look after a read that is about to wait, unless it does so since
// an earlier one.
func (c *http1Conn) arm() {
	if c.dog.armed() {
		return
	}
	if !c.dog.waiting {
		c.dog.await(c.x.startMono, c.headBy(), c.m.streamIdle, false)
		return
	}
	now := monotonic()
	if c.idleBy == 0 {
		c.idleBy = c.requestWait(now)
	}
	patience := parkFirst
	if c.returns {
		patience = parkAfter
	}
	c.awaitRequest(now + patience)
}

// headBy is until when the head has to be here.
func (c *http1Conn) headBy() int64 {
	by := int64(noDeadline)
	if first := c.m.firstBy(c.d); c.sniffs && first > 0 {
		by = c.x.startMono + first // nobody knows yet what has begun
	}
	if c.m.headersTimeout > 0 {
		by = min(by, c.x.startMono+c.m.headersTimeout)
	}
	if c.m.requestTimeout > 0 {
		by = min(by, c.x.startMono+c.m.requestTimeout)
	}
	return by
}

// headLate is the answer to a head that is not here in time. It names what was over first.
func (c *http1Conn) headLate() *reply {
	r, m := tooSlowReply, c.m
	switch {
	case c.dog.cause.Load() == causeIdle:
		r.body, r.details = "stream timeout", "stream_idle_timeout"
		c.x.flags |= telemetry.FlagStreamIdleTimeout
	case m.headersTimeout > 0 && (m.requestTimeout == 0 || m.headersTimeout < m.requestTimeout):
		r.body, r.details = "request header timeout", "request_header_timeout"
	}
	return &r
}

// read gets more of a request's head. It answers when the time is up.
func (c *http1Conn) read() bool {
	var n int
	var err error
	if ready, ok := c.d.Stream.(stream.ReadyReader); ok {
		if c.d.Info.TLS {
			c.arm() // it may also wait to write: the answer to a key update
		}
		n, err = ready.ReadReady(c)
	} else { // it cannot wait without a buffer
		c.arm()
		n, err = c.d.Stream.Read(c.TakeBuffer())
	}
	if n > 0 {
		c.x.h1.in.w += n
		return c.requests > 0 || !c.d.Overload.RefuseCodec() || c.turnedAway()
	}
	if c.dog.waiting { // idle: nothing was asked, nothing is answered
		if c.requests == 0 && c.dog.cause.Load() == causeHard && c.restFor() < c.m.idle {
			c.m.countSlow(c.d, "first_byte")
		}
		return false
	}
	if c.x.timedOut(err) {
		c.refuseLate()
	}
	return false
}

// refuseLate answers a head that is not here in time.
//
//go:noinline
func (c *http1Conn) refuseLate() {
	if c.sniffs && c.dog.cause.Load() == causeHard && c.m.firstBy(c.d) > 0 {
		c.m.countSlow(c.d, "first_byte")
	}
	c.x.resetRequest()
	c.x.localReply(c.headLate())
	c.x.finish()
}

// turnedAway ends a connection with the first that its client has sent, of which nothing is
// looked at: nobody is told. It is false.
func (c *http1Conn) turnedAway() bool {
	c.dog.calm()
	c.dog.waiting = false
	c.linger()
	return false
}

// TakeBuffer implements stream.Buffers for reading requests.
func (c *http1Conn) TakeBuffer() []byte {
	if c.x == nil {
		c.x = newExchange(c.m, c.d, c.d.Server().Context)
		c.x.dog, c.x.xfcc = &c.dog, c.xfcc.Value()
		c.x.h1.attach(c)
		c.x.client = &c.x.h1
	}
	return c.x.h1.space()
}

// DropBuffer implements stream.Buffers: the read is about to wait.
func (c *http1Conn) DropBuffer() {
	c.arm()
	c.share.Renew()
	if c.x != nil && c.dog.waiting && c.x.h1.in.len() == 0 {
		c.x.release()
		c.x = nil
	}
}

// handle answers the request in c.x. The result tells whether the connection goes
// on.
func (c *http1Conn) handle(framing http1.Framing) bool {
	x := c.x
	x.h1.start(framing, x.req)
	if c.d.Info.TLS {
		c.dog.noteWhole(framing == http1.NoBody)
	}
	x.closeAfter = x.req.Close
	c.answer()
	if !x.complete && !x.closeAfter {
		c.discardBody()
	}
	if x.closeAfter && x.responded && (!x.complete || x.h1.in.len() > 0 || !x.req.Close && c.unread()) {
		c.linger()
	}
	return !x.closeAfter
}

// unread tells whether the client has sent more: it did not know that this was the last answer.
func (c *http1Conn) unread() bool {
	p, ok := c.d.Stream.(stream.Prober)
	c.dog.calm() // it may be looking too
	return ok && !p.Quiet()
}

// answer serves the exchange; a panic ends the connection with it.
func (c *http1Conn) answer() {
	defer panics.Contain(panics.Exchange, c.d, func() {
		c.x.h1.cut() // nobody knows what it was about to write
		c.x.wreck()
	})
	c.x.serve()
}

// refuse answers what the parser refused, and ends the connection.
func (c *http1Conn) refuse(err error) {
	if _, ok := refusal(err); !ok {
		err = http1.ErrRequestLine
	}
	c.x.h1.meter.Received(c.x.h1.in.len())
	head := c.x.req.Method == "HEAD"
	c.x.resetRequest()
	if head {
		c.x.req.Method = "HEAD" // the refusal has no content then
	}
	c.x.refuseMessage(err)
	c.x.finish()
	c.linger()
}

// discardBody reads the rest of a body that was answered without being read.
func (c *http1Conn) discardBody() {
	x := c.x
	left := x.req.ContentLength - x.received
	now := monotonic()
	c.dog.await(now, now+c.m.streamIdle, 0, false)
	x.h1.in.r, x.h1.in.w = 0, 0
	for left > 0 {
		space := x.h1.space()
		n, err := c.d.Stream.Read(space[:min(int64(len(space)), left)])
		left -= int64(n)
		x.received += int64(n)
		if err != nil {
			_ = x.timedOut(err)
			x.closeAfter, x.responded = true, false
			return
		}
		if c.d.Overload.AbortHTTP1() {
			x.closeAfter = true
			return
		}
	}
	x.complete = true
}

// linger lets the client read the answer before the close: with bytes of it
// unread, the kernel would reset the connection and the answer with it.
func (c *http1Conn) linger() {
	const limit = 256 << 10
	if c.m.delayedClose <= 0 || c.d.Stream.CloseWrite() != nil {
		return
	}
	now := monotonic()
	c.dog.calm()
	c.dog.over = true
	c.dog.await(now, now+c.m.delayedClose, 0, false)
	for n := 0; n < limit; {
		c.x.h1.in.r, c.x.h1.in.w = 0, 0
		k, err := c.d.Stream.Read(c.x.h1.space())
		if err != nil {
			return
		}
		n += k
	}
}

// Drain implements downstream.Drainer.
func (c *http1Conn) Drain() { c.dog.drain(monotonic() + c.m.drainWait()) }

// last tells whether the connection takes no request after this one.
func (c *http1Conn) last() bool {
	return c.d.Draining() || c.dog.hasYielded() || c.d.Overload.DisableKeepAlive() || c.m.cfg.MaxRequests > 0 && int(c.requests) >= c.m.cfg.MaxRequests ||
		c.expires > 0 && monotonic() >= c.m.reducedExpiry(c.d, c.expires)
}

var past = time.Unix(1, 0)

// interrupt and resume implement side.
func (c *http1Conn) interrupt() { _ = c.d.Stream.SetDeadline(past) }
func (c *http1Conn) resume()    { _ = c.d.Stream.SetDeadline(time.Time{}) }

// gone implements asker. Who says over TLS that nothing more follows has left, as one whose FIN is here: where
// somebody reads, that is found by reading.
func (c *http1Conn) gone() bool {
	if e, ok := c.d.Stream.(stream.Ender); ok && c.dog.whole() {
		return e.Ended()
	}
	prober, ok := c.d.Stream.(stream.Prober)
	return ok && prober.Gone()
}

// polled implements asker: while an answer is waited for, nobody reads.
func (c *http1Conn) polled() bool {
	_, ok := c.d.Stream.(stream.Prober)
	return ok
}

// isEOF tells a stream's own end from an error that has an end as its cause: what carried it
// was lost.
func isEOF(err error) bool { return err == io.EOF }
