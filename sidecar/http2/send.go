package http2

import (
	"os"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// The sending half of a stream. What is written is copied into the connection's
// buffer and goes out with Flush, with whoever else flushes, or before a call waits.

// Flush writes what the connection has buffered. It does not wait for the socket.
func (s *Stream) Flush() error { return s.flush(true) }

// flush is Flush; with gather it lets other exchanges of the connection go first.
func (s *Stream) flush(gather bool) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.unflushed = false
	c.flush(gather && len(c.streams) > 1)
	if c.err != nil && s.listed {
		return c.err
	}
	return nil
}

// sendError is why nothing can be sent any more; nil if it can.
func (s *Stream) sendError() error {
	switch {
	case s.err != nil:
		return s.err
	case s.stopWrite:
		return os.ErrDeadlineExceeded
	case s.localEnd || !s.listed:
		return ErrClosed
	}
	return nil
}

// turn is how many bytes a stream may send before others that wait for the same window
// or buffer go on.
const turn = 64 << 10

// mayAppend tells how many of size bytes of DATA the stream may append at once, or with
// size 0 whether a frame that flow control does not count. ok is false where it has to
// wait, with yield only for others that have waited longer.
func (s *Stream) mayAppend(size int) (n int, ok, yield bool, err error) {
	c := s.c
	for {
		if err := s.sendError(); err != nil {
			return 0, false, false, err
		}
		room := c.room()
		if size == 0 && room {
			return 0, true, false, nil
		}
		// Who has had a turn lets those go first that wait for one.
		yield = s.turn >= turn && c.senders.first != nil
		if room && s.sendWin > 0 && c.sendWin > 0 && !yield {
			n = int(min(int64(size), s.sendWin, c.sendWin, maxFrameSize))
			s.turn += n
			return n, true, false, nil
		}
		if c.w.pending() == 0 || c.w.writing || c.cut {
			return 0, false, yield, nil
		}
		s.unflushed = false
		c.flush(true)
	}
}

// waitToSend waits until the stream may append size bytes of DATA, or with size 0 a
// frame that flow control does not count. It returns how many.
func (s *Stream) waitToSend(size int) (n int, err error) {
	c := s.c
	waited := false
	defer func() {
		if waited {
			s.leaveQueue()
			c.wakeSender()
		}
	}()
	for {
		n, ok, yield, err := s.mayAppend(size)
		if ok || err != nil {
			return n, err
		}
		switch {
		case size == 0:
			c.others.push(s)
		case s.sendWin > 0:
			s.turn = 0
			c.senders.push(s)
			if yield {
				c.wakeSender()
			}
		case waited:
			c.wakeSender() // instead of this one
		}
		waited = true
		s.wcond.Wait()
	}
}

// WriteNow is WriteData for as much of p as can be sent without waiting: n bytes. The
// stream ends with end where that is all.
func (s *Stream) WriteNow(p []byte, end bool) (n int, err error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.noContent && len(p) > 0 {
		return 0, ErrUnwritable
	}
	for n < len(p) {
		k, ok, _, err := s.mayAppend(len(p) - n)
		if !ok {
			return n, err
		}
		s.appendData(p[n:n+k], end && n+k == len(p))
		n += k
	}
	return n, nil
}

// WriteData sends p, which is copied, and with end the end of the body. It waits for
// flow control and for room in the connection's buffer. After an error it is not known
// how much was sent.
func (s *Stream) WriteData(p []byte, end bool) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.noContent && len(p) > 0 {
		return ErrUnwritable
	}
	for len(p) > 0 {
		n, err := s.waitToSend(len(p))
		if err != nil {
			return err
		}
		last := end && n == len(p)
		s.appendData(p[:n], last)
		if p = p[n:]; last {
			return nil
		}
	}
	if !end {
		return nil
	}
	if _, err := s.waitToSend(0); err != nil {
		return err
	}
	s.appendData(nil, true)
	return nil
}

func (s *Stream) appendData(p []byte, end bool) {
	c := s.c
	var flags uint8
	if end {
		flags = flagEndStream
	}
	o := c.out()
	o.b = append(appendFrameHeader(o.b, len(p), frameData, flags, s.id), p...)
	s.sends(len(p))
	s.unflushed = true
	if end {
		s.endLocal()
	}
}

// sends counts a frame of DATA. The lock is held.
func (s *Stream) sends(n int) {
	c := s.c
	s.meter.Sent(frameHeaderLen + n)
	c.w.frames++
	c.sentData++
	s.sendWin -= int64(n)
	c.sendWin -= int64(n)
}

// endLocal notes our END_STREAM.
func (s *Stream) endLocal() {
	s.localEnd = true
	if s.remoteEnd {
		s.c.remove(s, true)
	}
}

// WriteHead sends the head of a response: interim ones (1xx), then the final one, which
// with end is all there is. It is the server's.
func (s *Stream) WriteHead(r *message.Response, end bool) error {
	if !writableResponse(r) || r.Status < 200 && end {
		return ErrUnwritable
	}
	status := r.Status
	if status == 101 {
		// An upgrade succeeds with 200 (RFC 8441 5).
		if s.req.Upgrade == "" {
			return ErrUnwritable
		}
		status = 200
	}
	connect := s.req.Method == "CONNECT" || s.req.Upgrade != ""
	length := status >= 200 && status != 204 && (!connect || status >= 300)
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := s.waitToSend(0); err != nil {
		return err
	}
	o := c.out()
	start := len(o.b)
	o.b = append(o.b, noHeader[:]...)
	o.b = c.enc.response(o.b, status, r, length)
	s.endHeaders(o, start, end)
	if s.meter != nil {
		s.headSent(len(o.b)-start, plainResponse(r, length))
	}
	if status >= 200 {
		c.opened++
		s.answered = true
		s.noContent = s.req.Method == "HEAD" || status == 204 || status == 304
	}
	return nil
}

// WriteTrailers sends trailers and ends the stream; nil or no fields only end it.
func (s *Stream) WriteTrailers(f *message.Fields) error {
	if f == nil || f.Len() == 0 {
		return s.WriteData(nil, true)
	}
	for i := range f.Slots() {
		if name, _, ok := f.At(i); ok && !f.Checked(i) {
			if keep, _ := http1.KeepTrailer(f.IDAt(i)); !keep || name == "" {
				return ErrUnwritable
			}
		}
	}
	if !writableFields(f) {
		return ErrUnwritable
	}
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := s.waitToSend(0); err != nil {
		return err
	}
	o := c.out()
	start := len(o.b)
	o.b = append(o.b, noHeader[:]...)
	o.b = c.enc.fields(c.enc.begin(o.b), f)
	s.endHeaders(o, start, true)
	if s.meter != nil {
		s.headSent(len(o.b)-start, plainFields(f))
	}
	return nil
}

var noHeader [frameHeaderLen]byte

// endHeaders completes the HEADERS frame that begins at start, and ends the stream's
// sending half if told to. A block that is too long for one frame goes on in
// CONTINUATIONs.
func (s *Stream) endHeaders(o *outBuffer, start int, end bool) {
	o.b = finishHeaders(o.b, start, s.id, end)
	s.c.w.frames++
	s.unflushed = true
	if end {
		s.endLocal()
	}
}

func finishHeaders(b []byte, start int, id uint32, end bool) []byte {
	var flags uint8
	if end {
		flags = flagEndStream
	}
	n := len(b) - start - frameHeaderLen
	if n <= maxFrameSize {
		appendFrameHeader(b[:start], n, frameHeaders, flags|flagEndHeaders, id)
		return b
	}
	rest := append([]byte(nil), b[start+frameHeaderLen+maxFrameSize:]...)
	b = b[:start+frameHeaderLen+maxFrameSize]
	appendFrameHeader(b[:start], maxFrameSize, frameHeaders, flags, id)
	for len(rest) > 0 {
		k := min(len(rest), maxFrameSize)
		flags = 0
		if k == len(rest) {
			flags = flagEndHeaders
		}
		b = append(appendFrameHeader(b, k, frameContinuation, flags, id), rest[:k]...)
		rest = rest[k:]
	}
	return b
}
