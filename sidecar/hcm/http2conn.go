package hcm

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/fair"
	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// http2Conn is one downstream connection that speaks HTTP/2. Each of its streams is
// an exchange on a goroutine of its own.
type http2Conn struct {
	m    *Manager
	d    *downstream.Conn
	ctx  context.Context
	sc   *http2.ServerConn
	xfcc string

	timer     timer
	active    atomic.Int64
	requests  atomic.Int64
	leaving   atomic.Bool // it drains
	judged    bool        // something has arrived; the reader's
	expires   int64       // when the connection is to take no more requests, 0 for never
	restsFrom atomic.Int64
	refused   fair.Common // the share of its streams that no host was asked for
}

// serveHTTP2 serves a connection on s until it is over. judged tells that it was let in with the
// first that arrived.
func (m *Manager) serveHTTP2(ctx context.Context, d *downstream.Conn, s stream.Stream, judged bool) {
	c := &http2Conn{m: m, d: d, ctx: ctx, xfcc: clientCertElement(m.cfg, d.Info)}
	c.sc = http2.NewServer(s, m.http2, c)
	if d.Overload.JudgesHTTP2() {
		c.judged = judged
		c.sc.Judge(c)
	}
	c.sc.GreetWithin(time.Duration(m.firstBy(d)))
	c.restsFrom.Store(monotonic())
	c.expires = m.expiry(d)
	c.timer.owner = c
	m.timers.add(&c.timer)
	_, next := c.due(monotonic())
	c.timer.arm(next)
	d.OnDrain(c)
	err := c.sc.Serve(ctx)
	byPeer, busy := c.sc.Ended()
	if d.EndedBy(byPeer); busy {
		d.CutOff()
	}
	d.OnDrain(nil)
	m.timers.remove(&c.timer)
	c.note(err)
}

// sniff tells whether a connection begins as HTTP/2 does without ALPN (RFC 9113 3.4):
// yes, no, or not yet known. No request of HTTP/1 can begin so.
func sniff(b []byte) (yes, known bool) {
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	n := min(len(b), len(preface))
	if string(b[:n]) != preface[:n] {
		return false, true
	}
	return n == len(preface), n == len(preface)
}

// speaksHTTP2 decides by configuration and ALPN, before a byte was read.
func (m *Manager) speaksHTTP2(info *stream.Info) bool {
	return m.cfg.Codec == CodecHTTP2 || m.cfg.Codec == CodecAuto && info.ALPN == "h2"
}

// http2Config is the codec's configuration with the manager's own limits.
func (m *Manager) http2Config() (*http2.Config, error) {
	c := http2.Default()
	if m.cfg.HTTP2 != nil {
		own := *m.cfg.HTTP2
		c = &own
	}
	c.Limits = m.limits
	c.Underscores = http1.Underscores(m.cfg.UnderscoreNames)
	c.HeaderTimeout, c.HeadIdle = time.Duration(m.headersTimeout), time.Duration(m.streamIdle)
	c.DrainTimeout, c.DrainJitter = time.Duration(m.drainGrace), m.cfg.DrainJitter/100
	c.Linger = time.Duration(m.delayedClose)
	c.Workers = &m.workers
	c.Metered = func() bool { return telemetry.Wanted()&telemetry.WantSizes != 0 }
	if mm := m.metrics; mm != nil {
		c.OnEvent = func(e http2.Event) { mm.HTTP2Events.With("downstream", e.String()).Inc(0) }
		c.OnGlitch = func(g http2.Glitch) { mm.Glitches.With(g.String()).Inc(0) }
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("hcm: %w", err)
	}
	return c, nil
}

// http2Fault is the word for what a peer did wrong.
func http2Fault(err error) (reason string, ok bool) {
	var e *http2.ConnError
	if errors.As(err, &e) && e.Err == nil && !e.Remote {
		return e.Reason, true
	}
	return "", false
}

// note counts a connection that broke the protocol.
func (c *http2Conn) note(err error) {
	if reason, ok := http2Fault(err); ok && c.m.metrics != nil {
		c.m.metrics.ProtocolErrors.With("downstream", reason).Inc(c.d.Shard)
	}
}

// ServeStream implements http2.Handler.
func (c *http2Conn) ServeStream(s *http2.Stream) {
	c.active.Add(1)
	defer func() {
		if c.active.Add(-1) == 0 {
			c.restsFrom.Store(monotonic())
		}
	}()
	c.refused.Turn()
	if most := int64(c.m.cfg.MaxRequests); most > 0 && c.requests.Add(1) == most {
		c.leave()
	}
	x := newExchange(c.m, c.d, c.ctx)
	defer panics.Contain(panics.Exchange, c.d, func() {
		s.Reset(http2.InternalError)
		x.wreck()
		x.h2.close()
	})
	x.begin()
	x.observed.sizes.Downstream = s.Meter()
	x.req, x.xfcc = s.Request(), c.xfcc
	x.dog, x.client = &x.h2.dog, &x.h2
	x.h2.open(c, s)
	x.noteIdle()
	x.serve()
	if x.attempt.firstAt == 0 {
		c.refused.Spend(fair.Request)
	}
	if x.lastHere || c.d.Overload != nil && !c.leaving.Load() && c.d.Overload.DisableKeepAlive() {
		c.leave()
	}
	x.h2.close()
	x.release()
}

// Drain implements downstream.Drainer.
func (c *http2Conn) Drain() { c.leave() }

// leave has the connection end with the streams that it has.
func (c *http2Conn) leave() {
	c.leaving.Store(true)
	c.sc.Drain()
}

// Arrived implements http2.Judge.
func (c *http2Conn) Arrived() http2.Verdict {
	o := c.d.Overload
	if !c.judged {
		if c.judged = true; o.RefuseCodec() {
			return http2.Cut
		}
	}
	if !o.WatchesHTTP2() {
		return http2.GoOn
	}
	if o.AbortHTTP2() {
		return http2.End
	}
	if !c.leaving.Load() && o.GoAway() {
		c.leaving.Store(true)
		return http2.Leave
	}
	return http2.GoOn
}

// due implements timed: the connection is idle when it has had no stream for long.
func (c *http2Conn) due(now int64) (bool, int64) {
	since := c.restsFrom.Load()
	if c.active.Load() > 0 {
		since = now
	}
	next := since + c.m.reduce(overload.ConnectionIdle, c.m.idle)
	if c.expires > 0 {
		next = min(next, c.m.reducedExpiry(c.d, c.expires))
	}
	return now >= next, next
}

// wake implements timed.
func (c *http2Conn) wake() { c.leave() }
