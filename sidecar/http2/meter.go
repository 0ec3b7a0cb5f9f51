package http2

import "github.com/hauberk-mesh/hauberk/sidecar/message"

// A Meter counts the frames of one stream that carry a message: HEADERS, CONTINUATION and DATA, with
// their headers and padding. Those that only govern it are the connection's.

// Meter is what counts the stream's frames, nil where that is not wanted. A server's is
// the next stream's when the handler has returned.
func (s *Stream) Meter() *message.Meter { return s.meter }

// headSent counts a header block of so many bytes in its frames. The lock is held.
func (s *Stream) headSent(n, plain int) {
	s.meter.Sent(n)
	s.meter.HeadSent(n, plain)
}

// headReceived counts the block of size bytes that was decoded last. The lock is held.
func (c *conn) headReceived(s *Stream, size int) {
	if s.meter == nil {
		return
	}
	n := frameHeaderLen*(1+c.pieces) + size
	if c.pieces == 0 {
		n = frameHeaderLen + c.blockOf.length // with padding
	}
	s.meter.Received(n)
	s.meter.HeadReceived(n, c.head.size)
}

// plainRequest is how many bytes the names and values have that encoder.request writes.
func plainRequest(r *message.Request) int {
	connect := r.Method == "CONNECT"
	method := r.Method
	if r.Upgrade != "" {
		method = "CONNECT"
	}
	n := len(":method") + len(method) + len(":authority") + len(r.Authority) + plainFields(&r.Fields)
	if !connect {
		scheme := "http"
		if r.Scheme == "https" {
			scheme = r.Scheme
		}
		n += len(":scheme") + len(scheme) + len(":path") + len(r.Path)
	}
	if r.Upgrade != "" {
		n += len(":protocol") + len(r.Upgrade)
	}
	if !connect && r.Upgrade == "" {
		n += plainLength(&r.Fields, r.ContentLength)
	}
	if r.AcceptTrailers {
		n += len("te") + len("trailers")
	}
	if r.ExpectContinue {
		n += len("expect") + len("100-continue")
	}
	return n
}

// plainResponse is the same of encoder.response.
func plainResponse(r *message.Response, length bool) int {
	n := len(":status") + 3 + plainFields(&r.Fields)
	if length {
		n += plainLength(&r.Fields, r.ContentLength)
	}
	return n
}

func plainLength(f *message.Fields, length int64) int {
	if length < 0 || length == 0 && !f.Has(message.ContentLength) {
		return 0
	}
	n := len("content-length") + 1
	for ; length > 9; length /= 10 {
		n++
	}
	return n
}

func plainFields(f *message.Fields) (n int) {
	for i := range f.Slots() {
		if name, value, ok := f.At(i); ok && !notSent.has(f.IDAt(i)) {
			n += len(name) + len(value)
		}
	}
	return n
}
