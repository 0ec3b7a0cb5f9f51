package http2

// dataStart judges a DATA frame by its header and the padding's length, and keeps what has
// arrived for its stream. It returns how many bytes of the payload that is.
func (c *conn) dataStart(h *frameHeader, p []byte) (n int, err *ConnError) {
	size, pad := h.length, 0
	if h.has(flagPadded) {
		if size == 0 {
			return 0, connError(FrameSizeError, "no_padding_length")
		}
		n, pad = 1, int(p[0])
		if pad >= size {
			return 0, connError(ProtocolError, "padding_too_long")
		}
		size -= 1 + pad
	}
	if h.stream == 0 {
		return 0, connError(ProtocolError, "data_on_stream_0")
	}
	end := h.has(flagEndStream)
	if size > 0 || end {
		c.budget.empty = 0
	} else if c.budget.empty++; c.budget.empty > c.cfg.MaxEmptyFrames {
		return 0, c.flood(GlitchEmptyFrame)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if int64(h.length) > c.recvWin {
		return 0, connError(FlowControlError, "connection_window")
	}
	c.recvWin -= int64(h.length)
	c.credit(h.length - size) // padding is consumed, whatever becomes of the rest
	c.data = dataFrame{active: true, id: h.stream, left: size, pad: pad, end: end}
	s := c.streams[h.stream]
	switch {
	case s == nil && c.idle(h.stream):
		return 0, connError(ProtocolError, "data_on_idle_stream")
	case s == nil:
		return n, c.lateFrame(h.stream, true, h.length)
	case s.remoteEnd:
		return n, c.streamError(s.id, s, StreamClosed, GlitchStreamError, "data_after_end")
	case int64(h.length) > s.recvWin:
		return n, c.streamError(s.id, s, FlowControlError, GlitchStreamError, "stream_window")
	case !s.gotHead && s.interim == 0:
		return n, c.malformed(s.id, s, "data_before_head")
	case !s.gotHead:
		return n, c.badContent(s, "data_before_head")
	case s.bodiless && size > 0, s.declared >= 0 && s.got+int64(size) > s.declared:
		return n, c.badContent(s, "content_length_mismatch")
	}
	s.recvWin -= int64(h.length)
	s.got += int64(size)
	s.unacked += int64(h.length - size)
	c.data.s = s
	s.meter.Received(frameHeaderLen + h.length)
	if k := min(size, len(p)-n); k > 0 {
		s.keep(p[n : n+k])
		c.data.left -= k
		n += k
	}
	return n, nil
}

// lateFrame treats DATA of so many bytes, or a head, on a stream that is over (RFC 9113 5.1).
// The lock is held.
func (c *conn) lateFrame(id uint32, data bool, bytes int) *ConnError {
	byPeer, known := c.closed.find(id)
	switch {
	case known && !byPeer:
		return c.behindReset(bytes)
	case known && c.client != nil && len(c.streams) > 0:
		// It may end the connection (RFC 9113 5.1), but the requests that are under way there
		// have no part in it.
		return c.glitch(GlitchClosedStream)
	case known:
		return connError(StreamClosed, "frame_after_end")
	case c.server != nil && !data:
		return connError(ProtocolError, "stream_id_not_rising") // RFC 9113 5.1.1
	}
	return c.glitch(GlitchClosedStream)
}

// dataPayload takes what has arrived of a DATA frame and returns how much that was.
func (c *conn) dataPayload(b []byte) (n int, err *ConnError) {
	d := &c.data
	if n = min(d.left, len(b)); n > 0 {
		c.keepPayload(b[:n])
		d.left -= n
	}
	if d.left > 0 {
		return n, nil
	}
	k := min(d.pad, len(b)-n)
	if d.pad -= k; d.pad > 0 {
		return n + k, nil
	}
	return n + k, c.dataEnd()
}

// keepPayload leaves a piece of DATA to the reader of its stream, where there is one.
func (c *conn) keepPayload(b []byte) {
	d := &c.data
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.s != nil && c.streams[d.id] == d.s {
		d.s.keep(b)
		return
	}
	d.s = nil
	c.credit(len(b))
}

func (c *conn) dataEnd() *ConnError {
	d := c.data
	c.data = dataFrame{}
	if !d.end {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.s == nil || c.streams[d.id] != d.s {
		return nil
	}
	return c.remoteEnded(d.s)
}

// remoteEnded notes the peer's END_STREAM. The lock is held.
func (c *conn) remoteEnded(s *Stream) *ConnError {
	if s.declared >= 0 && s.got != s.declared && !s.bodiless {
		return c.badContent(s, "content_length_mismatch")
	}
	s.remoteEnd = true
	c.wake(s)
	if s.localEnd {
		c.remove(s, true)
	}
	return nil
}
