package http2

import (
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// read reads until the connection ends, and says why.
func (c *conn) read() (cerr *ConnError) {
	defer panics.Contain(panics.HTTP2Reader, c, func() { cerr = errPanicked })
	c.enlist()
	c.guard()
	for {
		var err error
		if c.each != nil {
			err = c.each.ReadEach(&c.in, c.took)
		} else {
			var n int
			if n, err = c.fill(); n > 0 {
				c.took(n, nil)
				err = nil // it shows again
			} else if err == nil {
				err = io.ErrNoProgress
			}
		}
		if err == stream.ErrFault {
			return errPanicked
		}
		if c.stopped != nil {
			return c.stopped
		}
		if err != nil {
			if cerr := c.readFailed(err); cerr != nil {
				return cerr
			}
		}
	}
}

// took treats n bytes that were read; it is false when that ends the connection. With a leader
// it is another connection's reader, maybe, that runs it.
func (c *conn) took(n int, l *stream.Leader) (more bool) {
	c.leader, c.stirs = l, false
	if l == nil { // who leads must not wait, and leaves much to the connection's own reader
		c.in.share.Turn()
	}
	c.in.share.Spend(n)
	c.in.w += n
	c.now = 0
	if sc := c.server; sc != nil && sc.judge != nil {
		if c.stopped = sc.judged(); c.stopped != nil {
			return false
		}
	}
	c.stopped = c.consume()
	c.tellLost() // before what came with them is begun
	if ended := c.endBatch(); c.stopped == nil {
		c.stopped = ended
	}
	c.tellLost()
	if c.stopped != nil {
		return false
	}
	c.in.release()
	c.guard()
	if c.stirs && l != nil {
		l.Stir()
	}
	if c.yield {
		c.yield = false
		runtime.Gosched()
	}
	return true
}

// yieldAfter is how much waits for one stream's reader before it gets the CPU: a reader
// that went on for as long as bytes come would find its work in no cache. With the input
// that made it so much, it still lies in one block, and goes out with one call.
const yieldAfter = bulkBlock - inputSize

func (c *conn) fill() (int, error) {
	if c.ready != nil {
		return c.ready.ReadReady(&c.in)
	}
	return c.s.Read(c.in.TakeBuffer())
}

// readFailed says what an error of the transport means; nil is to read on.
func (c *conn) readFailed(err error) *ConnError {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return c.err
	case err == stream.ErrReadOn:
		_ = c.s.SetReadDeadline(c.due)
		return nil
	case stream.IsTimeout(err) && c.patience && time.Now().Before(c.due):
		_ = c.s.SetReadDeadline(c.due) // the head it was for came meanwhile
		return nil
	case stream.IsTimeout(err) && c.patience:
		c.note(GlitchSlowHead)
		return connError(EnhanceYourCalm, GlitchSlowHead.String())
	case stream.IsTimeout(err):
		// Woken for nothing that is left.
		c.due = time.Time{}
		_ = c.s.SetReadDeadline(c.due)
		return nil
	case errors.Is(err, io.EOF) && len(c.streams) == 0 && len(c.in.bytes()) == 0 && c.block == nil:
		return errPeerLeft
	}
	if c.client != nil && c.client.peerCode != NoError {
		return &ConnError{Code: c.client.peerCode, Remote: true}
	}
	return &ConnError{Code: NoError, Reason: connectionLost, Err: err}
}

const connectionLost = "connection_lost"

// Ends in peace: of a connection that had nothing left to do.
var (
	errDrained  = connError(NoError, "drained")
	errPeerLeft = connError(NoError, "peer_left")
)

// guard sets a deadline while a head, or anything but DATA, is incomplete: one for each.
func (c *conn) guard() {
	limit, other := c.cfg.HeaderTimeout, c.cfg.HeadIdle
	if !c.started {
		other = c.greetBy
	}
	if other > 0 && (limit <= 0 || other < limit) {
		limit = other
	}
	partial := limit > 0 && (!c.started || c.block != nil || !c.data.active && len(c.in.bytes()) > 0)
	if partial == c.patience && !(partial && c.anew) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return // whoever ended the connection has woken us, or will
	}
	c.patience, c.due = partial, time.Time{}
	if partial {
		c.due = time.Now().Add(limit)
	}
	_ = c.s.SetReadDeadline(c.due)
}

// consume takes the whole frames, and pieces of DATA, off the input.
func (c *conn) consume() *ConnError {
	b := c.in.bytes()
	all := len(b)
	defer func() { c.in.r += all - len(b) }()
	c.anew = false
	if c.preface != "" {
		n := min(len(b), len(c.preface))
		if string(b[:n]) != c.preface[:n] {
			return connError(ProtocolError, "bad_preface")
		}
		c.preface = c.preface[n:]
		b = b[n:]
	}
	for len(b) > 0 {
		switch {
		case c.skip > 0:
			n := min(c.skip, len(b))
			c.skip -= n
			b = b[n:]
			continue
		case c.data.active:
			n, err := c.dataPayload(b)
			if err != nil {
				return err
			}
			b = b[n:]
			continue
		case len(b) < frameHeaderLen:
			return nil
		}
		h := parseFrameHeader(b)
		if err := c.checkHeader(&h); err != nil {
			return err
		}
		payload := b[frameHeaderLen:]
		switch {
		case h.kind == frameData:
			if h.has(flagPadded) && h.length > 0 && len(payload) == 0 {
				return nil // the padding's length decides
			}
			n, err := c.dataStart(&h, payload)
			if err != nil {
				return err
			}
			b = payload[n:]
			if c.data.left == 0 && c.data.pad == 0 {
				if err := c.dataEnd(); err != nil {
					return err
				}
			}
		case h.kind > frameContinuation:
			// Unknown frames are ignored (RFC 9113 5.5).
			c.skip = h.length
			b = payload
		case len(payload) < h.length:
			return nil
		default:
			if err := c.frame(&h, payload[:h.length]); err != nil {
				return err
			}
			b = payload[h.length:]
		}
		if c.block == nil {
			c.anew = true // whatever follows
		}
	}
	return nil
}

// checkHeader judges what a frame's header alone can be wrong in.
func (c *conn) checkHeader(h *frameHeader) *ConnError {
	switch {
	case h.length > maxFrameSize:
		return connError(FrameSizeError, "frame_too_large")
	case !c.started && (h.kind != frameSettings || h.has(flagAck)):
		return connError(ProtocolError, "settings_not_first")
	case c.block != nil && (h.kind != frameContinuation || h.stream != c.blockOf.stream):
		return connError(ProtocolError, "continuation_expected")
	}
	if h.kind <= frameHeaders {
		c.budget.pings = 0
	}
	return nil
}

func (c *conn) frame(h *frameHeader, p []byte) *ConnError {
	c.stirs = c.stirs || h.kind != frameWindowUpdate && h.kind != framePing
	switch h.kind {
	case frameHeaders:
		return c.headersFrame(h, p)
	case frameContinuation:
		return c.continuationFrame(h, p)
	case framePriority:
		return c.priorityFrame(h, p)
	case frameRSTStream:
		return c.rstFrame(h, p)
	case frameSettings:
		return c.settingsFrame(h, p)
	case framePing:
		return c.pingFrame(h, p)
	case frameGoAway:
		return c.goAwayFrame(h, p)
	case frameWindowUpdate:
		return c.windowUpdateFrame(h, p)
	}
	return connError(ProtocolError, "push_promise") // RFC 9113 6.6, 8.4: push is off
}

// endBatch is called when the input is used up: what came together is there together
// for whoever is started or woken now.
func (c *conn) endBatch() *ConnError {
	c.mu.Lock()
	defer c.mu.Unlock()
	alone := c.toWake != nil && c.toWake.wnext == nil
	for s := c.toWake; s != nil; s = c.toWake {
		c.toWake = s.wnext // a fault here leaves the others to finish
		switch {
		case s.pourable(alone):
			s.piping, s.passed, s.poured = true, false, 0
			s.wnext, c.pours = c.pours, s
		case s.pipeable():
			s.piping, s.passed, s.flight, s.in = true, false, s.in, received{}
			s.wnext, c.pipes = c.pipes, s
		case s.orphan:
			s.recycle()
		default:
			s.wnext, s.waking = nil, false
			s.settle()
			s.readable()
			c.stirs = true
			c.yield = c.yield || s.in.n >= yieldAfter
		}
	}
	if c.server != nil {
		c.server.start()
		c.untold = c.server.lost.first != nil
		if c.server.left && len(c.streams) == 0 && c.server.fresh == nil {
			c.fail(errDrained) // a client that leaves has no use for it (RFC 9113 6.8)
		}
	}
	if c.keeper.watching {
		c.keeper.lastRead = time.Now()
	}
	if c.pipes != nil {
		c.pass()
	}
	if c.pours != nil {
		c.pour()
	}
	if c.w.urgent {
		c.flush(false)
		c.stirs = c.stirs || c.w.writing
		if c.flooded() {
			return c.flood(GlitchOutboundFrames)
		}
	}
	return c.err
}

// wake has the stream's reader woken at the end of the batch. The lock is held.
func (c *conn) wake(s *Stream) {
	if !s.waking {
		s.waking = true
		s.wnext = c.toWake
		c.toWake = s
	}
}

// streamError resets a stream for the peer's fault. The lock is held. s is nil where we
// keep nothing of the stream.
func (c *conn) streamError(id uint32, s *Stream, code Code, g Glitch, reason string) *ConnError {
	c.stirs = true
	if s != nil {
		c.reset(s, code, reason)
	} else {
		o := c.out()
		o.b = appendRSTStream(o.b, id, code)
		c.happened(EventResetSent)
		c.control()
		c.closed.add(id, false)
		c.resetByUs(int64(c.cfg.StreamWindow))
	}
	if c.flooded() {
		return c.flood(GlitchOutboundFrames)
	}
	if c.client != nil && s != nil {
		c.note(g) // it was we who opened the stream
		return nil
	}
	return c.resetBy(g)
}

// malformed treats a message that breaks RFC 9113 8.1.1.
func (c *conn) malformed(id uint32, s *Stream, reason string) *ConnError {
	if c.cfg.MalformedEndsConnection {
		c.note(GlitchMalformed)
		return connError(ProtocolError, reason)
	}
	return c.streamError(id, s, ProtocolError, GlitchMalformed, reason)
}

// badContent treats content that is not what its message has announced. The frames are as
// they should be, so that this is the one message's fault, whatever is to be done about
// malformed heads (RFC 9113 8.1.1): others share the connection.
func (c *conn) badContent(s *Stream, reason string) *ConnError {
	return c.streamError(s.id, s, ProtocolError, GlitchMalformed, reason)
}

func (c *conn) priorityFrame(h *frameHeader, p []byte) *ConnError {
	if h.stream == 0 {
		return connError(ProtocolError, "priority_on_stream_0")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.budget.priorities++; c.budget.priorities > uint64(c.cfg.MaxPriorityPerStream)*(1+c.opened) {
		return c.flood(GlitchPriority)
	}
	if len(p) != 5 {
		return c.streamError(h.stream, c.streams[h.stream], FrameSizeError, GlitchStreamError, "priority_size")
	}
	if binary.BigEndian.Uint32(p)&maxStreamID == h.stream {
		return c.streamError(h.stream, c.streams[h.stream], ProtocolError, GlitchStreamError, "depends_on_itself")
	}
	return nil
}

func (c *conn) rstFrame(h *frameHeader, p []byte) *ConnError {
	switch {
	case h.stream == 0:
		return connError(ProtocolError, "rst_stream_on_stream_0")
	case len(p) != 4:
		return connError(FrameSizeError, "rst_stream_size")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[h.stream]
	if s == nil {
		if c.idle(h.stream) {
			return connError(ProtocolError, "rst_stream_on_idle_stream")
		}
		return c.lateReset()
	}
	c.happened(EventResetReceived)
	abuse := s.prematureReset()
	s.end(&StreamError{Code: Code(binary.BigEndian.Uint32(p)), Remote: true}, true)
	if abuse {
		return c.resetBy(GlitchReset)
	}
	return nil
}

func (c *conn) windowUpdateFrame(h *frameHeader, p []byte) *ConnError {
	if len(p) != 4 {
		return connError(FrameSizeError, "window_update_size")
	}
	n := int64(binary.BigEndian.Uint32(p) & maxStreamID)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budget.windowUpdates++
	if c.budget.windowUpdates > 5+2*(c.opened+uint64(len(c.streams))+uint64(c.cfg.MaxWindowUpdatesPerData)*c.sentData) {
		return c.flood(GlitchWindowUpdate)
	}
	if h.stream == 0 {
		if n == 0 {
			return connError(ProtocolError, "window_update_of_0")
		}
		if c.sendWin += n; c.sendWin > maxWindow {
			return connError(FlowControlError, "window_overflow")
		}
		c.stirs = c.stirs || c.others.first != nil || c.senders.first != nil
		c.wakeSender()
		return nil
	}
	s := c.streams[h.stream]
	switch {
	case s == nil && c.idle(h.stream):
		return connError(ProtocolError, "window_update_on_idle_stream")
	case s == nil:
		return nil
	case n == 0:
		return c.streamError(s.id, s, ProtocolError, GlitchStreamError, "window_update_of_0")
	}
	if s.sendWin += n; s.sendWin > maxWindow {
		return c.streamError(s.id, s, FlowControlError, GlitchStreamError, "window_overflow")
	}
	c.stirs = c.stirs || s.sendWin <= n || c.others.first != nil || c.senders.first != nil
	s.wcond.Signal()
	return nil
}

func (c *conn) pingFrame(h *frameHeader, p []byte) *ConnError {
	switch {
	case h.stream != 0:
		return connError(ProtocolError, "ping_on_stream")
	case len(p) != 8:
		return connError(FrameSizeError, "ping_size")
	}
	data := binary.BigEndian.Uint64(p)
	if h.has(flagAck) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.keeper.acknowledged(data) {
			return c.glitch(GlitchPing)
		}
		return nil
	}
	if c.budget.pings++; c.budget.pings > idlePings {
		if err := c.glitch(GlitchPing); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.out()
	o.b = appendPing(o.b, true, data)
	c.control()
	if c.flooded() {
		return c.flood(GlitchOutboundFrames)
	}
	return nil
}
