package http2

import "testing"

// TestHeldBack: a client may not send on a stream while others of its connection hold the
// window of that, nor when it has filled the stream's own.
func TestHeldBack(t *testing.T) {
	opened, release := make(chan *Stream, 2), make(chan struct{})
	s := serve(t, smallWindows(), func(s *Stream) {
		opened <- s
		<-release
		ok(s)
	})
	defer close(release)
	r := rawClient(t, s.addr)
	r.headers(1, false, post...)
	r.headers(3, false, post...)
	first, second := <-opened, <-opened
	if first.HeldBack() || second.HeldBack() {
		t.Error("before anything was sent")
	}
	for left := initialWindow; left > 0; {
		n := min(left, maxFrameSize)
		r.must(r.fr.WriteData(1, false, make([]byte, n)))
		left -= n
	}
	eventually(t, "neither may send", func() bool { return first.HeldBack() && second.HeldBack() })
}
