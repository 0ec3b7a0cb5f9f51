package http2

import (
	"context"
	"os"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// ClientConn is the client's side of a connection. All methods may be called from
// anywhere.
type ClientConn struct {
	conn

	// Under the connection's lock.
	nextID       uint32
	peerStreams  uint32 // SETTINGS_MAX_CONCURRENT_STREAMS
	peerConnect  bool   // SETTINGS_ENABLE_CONNECT_PROTOCOL
	haveSettings bool
	leaving      bool // no more streams: GOAWAY, Drain or ids used up
	lastAllowed  uint32
	peerCode     Code // of its GOAWAY
	onFree       func()
}

// NewClient makes the client's side of a connection on s; cfg nil means Default. cfg
// must have passed Validate. The first request's Flush sends the preface with it.
func NewClient(s stream.Stream, cfg *Config) *ClientConn {
	cc := &ClientConn{nextID: 1, peerStreams: unknownStreams, lastAllowed: maxStreamID}
	cc.conn.client = cc
	cc.init(s, cfg)
	o := cc.out()
	o.b = append(o.b, clientPreface...)
	cc.announce(Setting{settingEnablePush, 0})
	return cc
}

// unknownStreams is how many streams the peer is taken to admit until its SETTINGS tell.
// It may be any number (RFC 9113 6.5.2), but a peer that admits less than is opened has to
// refuse the rest; no less than this is recommended, and other clients assume the same.
const unknownStreams = 100

// OnFree has f called whenever a stream ends, or the limits change, so that there may
// be room for another one, and when the connection takes none any more. It is called
// with the connection locked: it must not block nor call the connection. Before Run
// nothing is missed.
func (cc *ClientConn) OnFree(f func()) {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	cc.onFree = f
}

// Run reads the connection on the caller's goroutine. It returns when the connection is
// over: nil when it ended in peace, a *ConnError otherwise. It closes the stream.
func (cc *ClientConn) Run() error {
	cc.mu.Lock()
	cc.keeper.start()
	cc.flush(false)
	cc.mu.Unlock()
	err := cc.finish(cc.read())
	cc.mu.Lock()
	cc.notify()
	cc.mu.Unlock()
	return err
}

// Open sends a request's head, into the connection's buffer; with end it is all there
// is. The Stream is the caller's until Close. An error that is ErrRefused or
// ErrFull leaves the request to be sent elsewhere. An upgrade has to AwaitSettings first.
func (cc *ClientConn) Open(r *message.Request, end bool) (*Stream, error) {
	return cc.OpenMetered(r, end, nil)
}

// OpenMetered is Open; m, where it is not nil, counts the stream's HEADERS, CONTINUATION and DATA.
func (cc *ClientConn) OpenMetered(r *message.Request, end bool, m *message.Meter) (*Stream, error) {
	if !writableRequest(r) {
		return nil, ErrUnwritable
	}
	c := &cc.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Upgrade != "" && c.err == nil && !cc.peerConnect {
		return nil, ErrNoConnect
	}
	if c.err != nil || cc.free() <= 0 {
		return nil, ErrRefused
	}
	if c.w.pending() > 4*c.cfg.BufferBytes+keepOut {
		return nil, ErrFull
	}
	c.keeper.beforeStream()
	s := newStream(c)
	s.id = cc.nextID
	cc.nextID += 2
	s.connect, s.upgrade = r.Method == "CONNECT", r.Upgrade != ""
	s.isHead = r.Method == "HEAD" && !s.upgrade
	if s.upgrade {
		s.upgradeTo = r.Upgrade
		s.anySuccess = r.Version == message.HTTP2
	}
	s.listed = true
	c.streams[s.id] = s
	c.opened++
	o := c.out()
	start := len(o.b)
	o.b = append(o.b, noHeader[:]...)
	o.b = c.enc.request(o.b, r)
	s.endHeaders(o, start, end)
	if s.meter = m; m != nil {
		s.headSent(len(o.b)-start, plainRequest(r))
	}
	return s, nil
}

// AwaitSettings waits for the peer's SETTINGS, which tell whether it takes upgrades. It
// returns nil too when the connection ends, and an error when ctx does.
func (cc *ClientConn) AwaitSettings(ctx context.Context) error {
	c := &cc.conn
	stop := context.AfterFunc(ctx, func() {
		defer panics.Contain(panics.Timer, nil, nil)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.settled.Broadcast()
	})
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flush(false)
	for !cc.haveSettings && c.err == nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.settled.Wait()
	}
	return nil
}

// free is how many streams may be opened now. The lock is held.
func (cc *ClientConn) free() int { return cc.capacity() - len(cc.streams) }

// capacity is how many streams may be open. The lock is held.
func (cc *ClientConn) capacity() int {
	if cc.leaving || cc.err != nil || cc.nextID > maxStreamID {
		return 0
	}
	return int(min(cc.peerStreams, cc.cfg.MaxConcurrentStreams))
}

// Capacity is how many streams may be open at a time; 0 for a connection that takes no
// more. Until the peer's SETTINGS have arrived it is an assumption, and settled is false.
func (cc *ClientConn) Capacity() (n int, settled bool) {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	return cc.capacity(), cc.haveSettings
}

// Free is how many streams may be opened now; 0 or less is none.
func (cc *ClientConn) Free() int {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	return cc.free()
}

// Usable tells whether the connection will ever take another stream.
func (cc *ClientConn) Usable() bool {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	return !cc.leaving && cc.err == nil && cc.nextID <= maxStreamID
}

// Drain lets the streams end that there are, opens no more, and then ends the
// connection.
func (cc *ClientConn) Drain() {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	cc.leaving = true
	cc.maybeDone()
}

// Close ends the connection and every stream on it at once.
func (cc *ClientConn) Close() {
	cc.abort(&ConnError{Code: Cancel, Reason: "closed", Err: ErrClosed})
}

// notify tells whoever waits for a free stream.
func (cc *ClientConn) notify() {
	if cc.onFree != nil {
		cc.onFree()
	}
}

// streamGone is called when a stream has left the table. The lock is held.
func (cc *ClientConn) streamGone() {
	cc.notify()
	cc.maybeDone()
}

// maybeDone ends a connection that takes no more streams and has none. The lock is held.
func (cc *ClientConn) maybeDone() {
	if cc.leaving && len(cc.streams) == 0 && cc.err == nil {
		cc.fail(errDrained)
		cc.wakeReader()
	}
}

// settingsArrived is called after the peer's SETTINGS. The lock is held.
func (cc *ClientConn) settingsArrived() {
	cc.haveSettings = true
	cc.settled.Broadcast()
	cc.notify()
}

// goneAway takes the peer's GOAWAY: streams above last were not processed. The lock is
// held.
func (cc *ClientConn) goneAway(last uint32, code Code) *ConnError {
	if last > cc.lastAllowed {
		return connError(ProtocolError, "goaway_takes_back")
	}
	cc.lastAllowed, cc.leaving = last, true
	for id, s := range cc.streams {
		if id > last {
			s.end(ErrRefused, true)
		}
	}
	cc.notify()
	if code != NoError {
		// What is still open fails with the peer's reason when it closes.
		cc.peerCode = code
	}
	cc.maybeDone()
	return nil
}

// responseBlock takes the head of a response. The lock is held.
func (cc *ClientConn) responseBlock(b []byte, s *Stream, end bool) *ConnError {
	c := &cc.conn
	if s.nheads == len(s.heads) {
		s.heads = append(s.heads, responseHeadSlot{})
	}
	slot := &s.heads[s.nheads]
	if err := c.decode(b, responseHead, &slot.r.Fields); err != nil {
		return err
	}
	c.headReceived(s, len(b))
	method := ""
	if s.isHead {
		method = "HEAD"
	} else if s.connect {
		method = "CONNECT"
	}
	c.head.response(&slot.r, method, s.upgrade, end)
	switch {
	case c.dependsOnItself:
		return c.streamError(s.id, s, ProtocolError, GlitchStreamError, "depends_on_itself")
	case c.head.malformed != "":
		return c.badHead(s.id, s)
	}
	slot.end = end
	s.nheads++
	c.wake(s)
	if slot.r.Status < 200 {
		if s.interim++; s.interim > maxInterim {
			return c.malformed(s.id, s, "too_many_interim_responses")
		}
		return nil
	}
	s.gotHead = true
	s.declared = c.head.length
	s.bodiless = s.isHead || slot.r.Status == 204 || slot.r.Status == 304
	if s.upgrade && (slot.r.Status == 200 || s.anySuccess && slot.r.Status < 300) {
		// The model's form of an upgrade is HTTP/1's. To a client of HTTP/1 that is only what
		// stands for it, and as in Envoy any other status is an answer without a tunnel.
		slot.r.Status, slot.r.Upgrade = 101, slot.r.Fields.Store(s.upgradeTo)
	}
	if !end {
		slot.r.Body = s
		return nil
	}
	return c.remoteEnded(s)
}

// maxInterim bounds the interim responses to one request.
const maxInterim = 16

// ReadHead waits for the next head of the response: interim ones (1xx), then the final
// one. end tells that nothing follows it. What r held is lost; on an error it is not
// changed. The head to an upgrade that the peer accepts has status 101 and is final.
func (s *Stream) ReadHead(r *message.Response) (end bool, err error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for s.firstHead == s.nheads {
		switch {
		case s.err != nil:
			return false, s.err
		case s.remoteEnd:
			return false, ErrClosed // the final head was read
		case s.stopRead:
			return false, os.ErrDeadlineExceeded
		}
		if s.flushBeforeWait() {
			continue
		}
		s.rcond.Wait()
	}
	slot := &s.heads[s.firstHead]
	if s.dropped {
		return false, s.err
	}
	s.firstHead++
	r.Reset()
	*r, slot.r = slot.r, *r
	if s.firstHead == s.nheads {
		s.firstHead, s.nheads = 0, 0
	}
	return slot.end, nil
}

// Close gives the stream back, on the client's side or after Keep, and resets it when it
// is not over. No other call may be under way, and none may follow. Any other stream of a
// server is given back when its handler returns.
func (s *Stream) Close() {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server != nil {
		if s.kept {
			c.server.closeKept(s)
		}
		return
	}
	s.release()
	if s.listed {
		c.reset(s, Cancel, "closed")
	}
	c.credit(s.in.clear())
	s.leaveQueue()
	c.delistRead()
	if c.w.urgent {
		c.flush(len(c.streams) > 0)
	}
	c.recycleOrLeave(s)
}
