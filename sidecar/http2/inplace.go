package http2

// What is bulk is written from where it was read: a run of DATA for one connection lies in the
// input with the headers of its frames, which only want the numbers of other streams.

// leastInPlace is from how many bytes on that is done: what is less may join others in one write.
const leastInPlace = fullBytes

// stretch is the part of the input in which lies, frame behind frame, all that the streams at
// the beginning of list have for the connection of the first; it is empty where something else
// lies between, where something waits there to be written before it, or one of them may not send
// it. The destination's lock is held, and what c has is its reader's.
func (c *conn) stretch(list *Stream) (from, to int) {
	dst := list.pipeTo.c
	if c.in.buf == nil || dst.try == nil || dst.cut || dst.w.writing || dst.w.pending() > 0 {
		return 0, 0
	}
	content := 0
	for s := list; s != nil && s.pipeTo.c == dst; s = s.wnext {
		if s.flight.n > 0 || !s.pipeTo.admits(s.unread.n) {
			return 0, 0
		}
		for _, p := range s.unread.pieces[:s.unread.count] {
			begin := c.in.offset(p) - frameHeaderLen
			if begin < 0 || to > 0 && begin != to {
				return 0, 0
			}
			if to == 0 {
				from = begin
			}
			to = begin + frameHeaderLen + len(p)
		}
		content += s.unread.n
	}
	if to-from < leastInPlace || int64(content) > dst.sendWin {
		return 0, 0
	}
	return from, to
}

// offset is where in the input a piece of it begins, negative where it is none. What lies before
// a piece was consumed: at least the header of its frame, or where that was read before it the
// room that an input has before its first byte.
func (in *input) offset(p []byte) int {
	if off := inputSize - cap(p); off >= frameHeaderLen && off < inputSize && len(p) > 0 && &in.buf[off] == &p[0] {
		return off
	}
	return -1
}

// writeInPlace writes that stretch. The destination's lock is held, and given up meanwhile.
func (c *conn) writeInPlace(list *Stream, from, to int) {
	dst := list.pipeTo.c
	for s := list; s != nil && s.pipeTo.c == dst; s = s.wnext {
		for _, p := range s.unread.pieces[:s.unread.count] {
			at := c.in.offset(p) - frameHeaderLen
			appendFrameHeader(c.in.buf[at:at:at+frameHeaderLen], len(p), frameData, 0, s.pipeTo.id)
			s.pipeTo.sends(len(p))
		}
		s.passed = true
	}
	dst.write(c.in.buf[from:to])
}

// write writes frames that lie elsewhere, of which nothing is used any more when it returns. Nothing
// is being written nor waits for it. The lock is held, and given up meanwhile.
func (c *conn) write(p []byte) {
	w := &c.w
	w.writing = true
	w.flyingFrames, w.frames = w.frames, 0
	c.mu.Unlock()
	n, done, err := c.tryWrite(p)
	c.mu.Lock()
	switch {
	case err != nil:
		c.writeFailed(err)
	case !done:
		w.rest, w.restOff = outBuffers.Get().(*outBuffer), 0
		w.rest.b = append(w.rest.b, p[n:]...)
		go w.drain()
	default:
		w.flyingFrames = 0
		w.writing = false
		c.wakeSender()
		c.settled.Broadcast()
		c.flush(false) // what others had meanwhile
	}
}
