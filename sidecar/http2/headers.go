package http2

import (
	"encoding/binary"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// headersFrame takes a HEADERS frame (RFC 9113 6.2).
func (c *conn) headersFrame(h *frameHeader, p []byte) *ConnError {
	if h.stream == 0 {
		return connError(ProtocolError, "headers_on_stream_0")
	}
	pad := 0
	if h.has(flagPadded) {
		if len(p) == 0 {
			return connError(FrameSizeError, "no_padding_length")
		}
		pad, p = int(p[0]), p[1:]
	}
	dependsOnItself := false
	if h.has(flagPriority) {
		if len(p) < 5 {
			return connError(FrameSizeError, "no_priority")
		}
		dependsOnItself = binary.BigEndian.Uint32(p)&maxStreamID == h.stream
		p = p[5:]
	}
	if pad > len(p) {
		return connError(ProtocolError, "padding_too_long")
	}
	p = p[:len(p)-pad]
	if err := c.emptyFrame(len(p), h.has(flagEndStream)); err != nil {
		return err
	}
	c.blockOf, c.dependsOnItself, c.pieces = *h, dependsOnItself, 0
	if h.has(flagEndHeaders) {
		return c.headerBlock(p)
	}
	c.block = append(make([]byte, 0, 2*len(p)+256), p...)
	return nil
}

// emptyFrame counts frames that carry and end nothing.
func (c *conn) emptyFrame(size int, end bool) *ConnError {
	if size > 0 || end {
		c.budget.empty = 0
	} else if c.budget.empty++; c.budget.empty > c.cfg.MaxEmptyFrames {
		return c.flood(GlitchEmptyFrame)
	}
	return nil
}

// continuationFrame takes a CONTINUATION. However a block is cut up, its bytes and its
// pieces are bounded: both cost us before anything is decoded.
func (c *conn) continuationFrame(h *frameHeader, p []byte) *ConnError {
	if c.block == nil {
		return connError(ProtocolError, "unexpected_continuation")
	}
	if err := c.emptyFrame(len(p), h.has(flagEndHeaders)); err != nil {
		return err
	}
	limit := 2 * c.cfg.Limits.HeadBytes
	if c.pieces++; c.pieces > max(8, limit/maxFrameSize) || len(c.block)+len(p) > limit {
		return c.flood(GlitchContinuation)
	}
	c.block = append(c.block, p...)
	if !h.has(flagEndHeaders) {
		return nil
	}
	b := c.block
	c.block = nil
	return c.headerBlock(b)
}

// headerBlock decodes a whole block and hands it to where it belongs.
func (c *conn) headerBlock(b []byte) *ConnError {
	id, end := c.blockOf.stream, c.blockOf.has(flagEndStream)
	c.head = headPool.Get().(*head)
	c.head.cfg, c.head.underscores = c.cfg, http1.AllowUnderscores
	if c.server != nil {
		c.head.underscores = c.cfg.Underscores
	}
	defer func() {
		c.head.cfg, c.head.fields = nil, nil
		headPool.Put(c.head)
		c.head = nil
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err // whoever ended the connection has ended its streams: there are no more
	}
	s := c.streams[id]
	if s == nil && (id&1 == 0 || c.client != nil && c.idle(id)) {
		return connError(ProtocolError, "headers_on_wrong_stream")
	}
	switch {
	case s != nil && s.gotHead:
		return c.trailerBlock(b, s, end)
	case c.server != nil && s == nil && id > c.lastPeer:
		return c.server.requestBlock(b, id, end)
	case c.client != nil && s != nil:
		return c.client.responseBlock(b, s, end)
	}
	if err := c.decode(b, discardedHead, nil); err != nil {
		return err
	}
	return c.lateFrame(id, false, 0)
}

func (c *conn) decode(b []byte, kind headKind, f *message.Fields) *ConnError {
	c.head.begin(kind, f)
	switch reason := c.dec.decode(b, c.head); reason {
	case "":
	case headBomb:
		return c.flood(GlitchHeaderSize)
	default:
		return connError(CompressionError, reason)
	}
	if c.head.over {
		c.note(GlitchHeaderSize)
	}
	return nil
}

// badHead treats the block that was decoded and is not taken. What is against our own
// limits never ends the connection, which others use. The lock is held.
func (c *conn) badHead(id uint32, s *Stream) *ConnError {
	if c.head.unwanted {
		return c.streamError(id, s, ProtocolError, GlitchMalformed, c.head.malformed)
	}
	return c.malformed(id, s, c.head.malformed)
}

// trailerBlock takes trailers. The lock is held.
func (c *conn) trailerBlock(b []byte, s *Stream, end bool) *ConnError {
	if s.remoteEnd {
		if err := c.decode(b, discardedHead, nil); err != nil {
			return err
		}
		return c.streamError(s.id, s, StreamClosed, GlitchStreamError, "headers_after_end")
	}
	s.trailers.Reset()
	if err := c.decode(b, trailerHead, &s.trailers); err != nil {
		return err
	}
	c.headReceived(s, len(b))
	switch c.head.trailer(); {
	case c.dependsOnItself:
		return c.streamError(s.id, s, ProtocolError, GlitchStreamError, "depends_on_itself")
	case !end:
		return c.malformed(s.id, s, "trailers_without_end")
	case c.head.length >= 0 && c.head.length != s.got:
		return c.malformed(s.id, s, c.head.malformed) // RFC 9113 8.1.1
	case c.head.malformed != "":
		return c.badHead(s.id, s)
	}
	if c.client != nil {
		s.trailers.JoinSingles(message.TrailerSingles)
	}
	s.hasTrailers = s.trailers.Len() > 0
	return c.remoteEnded(s)
}
