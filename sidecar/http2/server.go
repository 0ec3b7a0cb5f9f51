package http2

import (
	"context"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/clock"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// Handler serves requests.
type Handler interface {
	// ServeStream serves one request on a goroutine of its own. When it returns, what is
	// left of the stream is reset, unless it was kept.
	ServeStream(*Stream)
}

// ServerConn is the server's side of a connection.
type ServerConn struct {
	conn
	handler  Handler
	recorder Recorder // nil for none
	judge    Judge    // nil for none

	// Under the connection's lock.
	running   int     // handlers
	fresh     *Stream // opened by what is being read, the first first
	freshEnd  *Stream
	stillborn int // of fresh, those that were reset already
	lost      lostStreams
	tls       bool
	final     bool // the final GOAWAY was sent
	left      bool // the client has sent one
}

// NewServer makes the server's side of a connection on s; cfg nil means Default. cfg
// must have passed Validate.
func NewServer(s stream.Stream, cfg *Config, h Handler) *ServerConn {
	sc := &ServerConn{handler: h}
	sc.conn.server = sc
	sc.recorder, _ = h.(Recorder)
	sc.init(s, cfg)
	sc.preface = clientPreface
	if i := s.Info(); i != nil {
		sc.tls = i.TLS
	}
	settings := []Setting{{settingMaxConcurrentStreams, sc.cfg.MaxConcurrentStreams}}
	if sc.cfg.AllowConnect {
		settings = append(settings, Setting{settingEnableConnect, 1})
	}
	sc.announce(settings...)
	return sc
}

// GreetWithin bounds how long the client's preface and SETTINGS may take, where
// Config.HeaderTimeout does not bound it more; 0 does not. It comes before Serve.
func (sc *ServerConn) GreetWithin(d time.Duration) { sc.greetBy = d }

// Serve reads the connection on the caller's goroutine. It returns when the connection
// is over and every handler has returned: nil when it ended in peace, a *ConnError
// otherwise. It closes the stream. When ctx ends, the connection is cut.
func (sc *ServerConn) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		defer panics.Contain(panics.Timer, sc, nil)
		sc.abort(&ConnError{Code: Cancel, Reason: "canceled", Err: ctx.Err()})
	})
	defer stop()
	sc.mu.Lock()
	sc.keeper.start()
	sc.flush(false)
	sc.mu.Unlock()
	err := sc.finish(sc.read())
	sc.mu.Lock()
	for sc.running > 0 {
		sc.settled.Wait()
	}
	sc.mu.Unlock()
	sc.tell()
	return err
}

// Drain ends the connection without harm to any request: the peer is told to open no
// more streams; those that are on their way are served, and Serve returns when all are
// done (RFC 9113 6.8).
func (sc *ServerConn) Drain() {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if sc.err != nil || sc.goingAway {
		return
	}
	sc.goingAway = true
	o := sc.out()
	o.b = appendGoAway(o.b, maxStreamID, NoError, "")
	sc.w.frames++
	// The answer to a PING that follows tells that the peer has seen the GOAWAY.
	sc.keeper.pingForDrain()
	sc.flush(false)
}

// goAway sends the final GOAWAY. The lock is held.
func (sc *ServerConn) goAway() {
	if sc.final || sc.err != nil {
		return
	}
	sc.final = true
	o := sc.out()
	o.b = appendGoAway(o.b, sc.lastServed, NoError, "")
	sc.happened(EventGoAwaySent)
	sc.w.frames++
	sc.flush(false)
	sc.maybeDone()
}

// maybeDone ends a connection that drains, or whose client has said that it leaves, and that has
// nothing left to do. The lock is held.
func (sc *ServerConn) maybeDone() {
	if (sc.final || sc.left) && sc.running == 0 && len(sc.streams) == 0 && sc.err == nil {
		sc.fail(errDrained)
		sc.wakeReader()
	}
}

// requestBlock opens a stream. The lock is held.
func (sc *ServerConn) requestBlock(b []byte, id uint32, end bool) *ConnError {
	c := &sc.conn
	c.lastPeer = id
	if sc.final || len(c.streams) >= int(c.cfg.MaxConcurrentStreams) {
		if err := c.decode(b, discardedHead, nil); err != nil || sc.final {
			c.closed.add(id, false)
			c.resetByUs(int64(c.cfg.StreamWindow))
			return err
		}
		return c.streamError(id, nil, RefusedStream, GlitchRefusedStream, "too_many_streams")
	}
	s := newStream(c)
	s.id = id
	if err := c.decode(b, requestHead, &s.req.Fields); err != nil {
		s.recycle()
		return err
	}
	if c.cfg.Metered != nil && c.cfg.Metered() {
		if s.counts == nil {
			s.counts = new(message.Meter)
		}
		s.counts.Reset()
		s.meter = s.counts
		c.headReceived(s, len(b))
	}
	refusal := c.head.request(&s.req, end, sc.tls)
	switch {
	case c.dependsOnItself:
		s.recycle()
		return c.streamError(id, nil, ProtocolError, GlitchStreamError, "depends_on_itself")
	case c.head.malformed != "":
		err := c.badHead(id, nil)
		if err == nil {
			sc.refused(s, &StreamError{Code: ProtocolError, Reason: c.head.malformed})
		} else {
			sc.refused(s, err)
		}
		return err
	case refusal != nil:
		sc.refused(s, refusal)
		return sc.refuse(id, refusal.Status, end)
	}
	if c.now == 0 {
		c.now = clock.Now()
	}
	c.lastServed, s.since = id, c.now
	s.gotHead = true
	s.declared = c.head.length
	if !end {
		s.req.Body = s
	}
	c.streams[id] = s
	s.listed = true
	if end {
		s.remoteEnd = true
	}
	if sc.fresh == nil {
		sc.fresh = s
	} else {
		sc.freshEnd.next = s
	}
	sc.freshEnd = s
	return nil
}

// refuse answers a request that is well-formed but will not do, without a handler.
func (sc *ServerConn) refuse(id uint32, status int, end bool) *ConnError {
	var r message.Response
	r.ContentLength = 0
	o := sc.out()
	start := len(o.b)
	o.b = append(o.b, noHeader[:]...)
	o.b = finishHeaders(sc.enc.response(o.b, status, &r, false), start, id, true)
	sc.control()
	sc.closed.add(id, end)
	if end {
		return sc.resetBy(GlitchMalformed)
	}
	return sc.streamError(id, nil, NoError, GlitchMalformed, "refused")
}

// start starts the handlers of streams that were opened, as long as there may be more:
// a stream that was reset counts until its handler has returned, or else a client
// could have any number of them at work (CVE-2023-44487). The lock is held.
func (sc *ServerConn) start() {
	for s := sc.fresh; s != nil; s = sc.fresh {
		if sc.running >= int(sc.cfg.MaxConcurrentStreams) {
			sc.bury()
			return
		}
		sc.fresh = s.next
		s.next = nil
		if s.err != nil {
			sc.stillborn--
			sc.lose(s)
			continue
		}
		sc.cfg.Workers.Run((*handling)(s))
		// It needs the lock to end. One that could not be started is not waited for.
		s.begun = true
		sc.running++
	}
	sc.freshEnd = nil
}

// bury takes streams that were reset before anything began out of those that wait for
// a handler, once there are some.
func (sc *ServerConn) bury() {
	if sc.stillborn < 32 {
		return
	}
	sc.stillborn, sc.freshEnd = 0, nil
	for at := &sc.fresh; *at != nil; {
		s := *at
		if s.err == nil {
			sc.freshEnd = s
			at = &s.next
			continue
		}
		*at = s.next
		s.next = nil
		sc.lose(s)
	}
}

// handling is a stream as what a worker does.
type handling Stream

// Run implements workers.Task.
func (s *handling) Run() { (*Stream)(s).run() }

// run is a handler's goroutine.
func (s *Stream) run() {
	defer panics.Contain(panics.HTTP2Reader, s.c, func() { s.c.abort(errPanicked) })
	sc := s.c.server
	defer sc.returned(s)
	defer panics.Contain(panics.Stream, s.c, s.abandon)
	sc.handler.ServeStream(s)
}

// abandon resets a stream whose handler panicked.
func (s *Stream) abandon() {
	s.Reset(InternalError)
	s.Close() // it may have been kept
}

// Keep has the stream outlive its handler, which calls it: it is over with Close, and the
// connection waits for that as for a handler.
func (s *Stream) Keep() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.kept = true
}

// returned is called when a handler has returned.
func (sc *ServerConn) returned(s *Stream) {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if s.left = true; !s.kept {
		sc.served(s)
	}
}

// closeKept is Close of a stream that was kept. The lock is held.
func (sc *ServerConn) closeKept(s *Stream) {
	if s.kept = false; s.left {
		sc.served(s)
	}
}

// served ends a stream that nobody works on any more. The lock is held.
func (sc *ServerConn) served(s *Stream) {
	c := &sc.conn
	s.watcher = nil
	s.release()
	switch {
	case !s.listed:
	case !s.localEnd:
		c.reset(s, InternalError, "unfinished")
	case !s.remoteEnd:
		// The response is whole; the rest of the request is of no use (RFC 9113 8.1).
		c.reset(s, NoError, "unread")
	}
	c.credit(s.in.clear())
	sc.running--
	sc.start()
	c.flush(len(c.streams) > 0)
	sc.maybeDone()
	sc.recycleOrLeave(s)
	if sc.running == 0 {
		c.settled.Broadcast()
	}
}

// recycleOrLeave recycles a stream, or lets the reader do it where it is in its list.
func (c *conn) recycleOrLeave(s *Stream) {
	if s.waking {
		s.orphan = true
		return
	}
	s.recycle()
}

// Request is the request that a handler serves. It is the handler's until it returns.
func (s *Stream) Request() *message.Request { return &s.req }
