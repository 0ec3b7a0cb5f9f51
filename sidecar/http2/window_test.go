package http2

import (
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// awaitWindow reads frames until left, of the connection's window, is n or more.
func (r *raw) awaitWindow(left *int, n int) {
	r.t.Helper()
	_ = r.c.SetReadDeadline(time.Now().Add(5 * time.Second))
	for *left < n {
		f, err := r.fr.ReadFrame()
		if err != nil {
			r.t.Fatalf("%d bytes of the connection's window are left, want %d: %v", *left, n, err)
		}
		if w, ok := f.(*xhttp2.WindowUpdateFrame); ok && w.StreamID == 0 {
			*left += int(w.Increment)
		}
	}
}

func smallWindows() *Config {
	cfg := Default()
	cfg.StreamWindow, cfg.ConnWindow = initialWindow, initialWindow
	return cfg
}

// TestWindowOfWaitingRequests: requests that were read whole, and are not answered yet,
// take nothing of the connection's window.
func TestWindowOfWaitingRequests(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	s := serve(t, smallWindows(), func(s *Stream) {
		for {
			if _, last, err := s.Next(); last || err != nil {
				break
			}
		}
		<-release
		ok(s)
	})
	r := rawClient(t, s.addr)
	const size = 16000
	left := initialWindow
	for i := range uint32(40) {
		r.awaitWindow(&left, size)
		r.headers(2*i+1, false, post...)
		r.must(r.fr.WriteData(2*i+1, true, make([]byte, size)))
		left -= size
	}
}

// TestWindowComesBackAtOnce: what is given back to the connection is sent although whoever
// read it goes on to something else.
func TestWindowComesBackAtOnce(t *testing.T) {
	release, arrived := make(chan struct{}), make(chan struct{})
	defer close(release)
	s := serve(t, smallWindows(), func(s *Stream) {
		<-arrived
		for n := 0; n < 3*initialWindow/4; {
			b, _, err := s.Next()
			if err != nil {
				return
			}
			n += len(b)
		}
		<-release // as in a write to a host that is slow
	})
	r := rawClient(t, s.addr)
	r.headers(1, false, post...)
	for left := initialWindow; left > 0; {
		n := min(left, maxFrameSize)
		r.must(r.fr.WriteData(1, false, make([]byte, n)))
		left -= n
	}
	sc := s.conn(0)
	eventually(t, "the body", func() bool {
		sc.mu.Lock()
		defer sc.mu.Unlock()
		return sc.recvWin == 0
	})
	close(arrived)
	left := 0
	r.awaitWindow(&left, 1)
}

// TestWindowBesideSlowStreams: what others hold of the connection's window does not keep
// the rest of it from coming back.
func TestWindowBesideSlowStreams(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	s := serve(t, smallWindows(), func(s *Stream) {
		if s.ID() == 1 {
			<-hold
			return
		}
		for {
			if _, last, err := s.Next(); last || err != nil {
				break
			}
		}
		ok(s)
	})
	r := rawClient(t, s.addr)
	r.headers(1, false, post...)
	for range 3 { // more than half of the window, which nobody reads
		r.must(r.fr.WriteData(1, false, make([]byte, maxFrameSize)))
	}
	const size = 8000
	left := initialWindow - 3*maxFrameSize
	for i := range uint32(20) {
		r.awaitWindow(&left, size)
		r.headers(2*i+3, false, post...)
		r.must(r.fr.WriteData(2*i+3, true, make([]byte, size)))
		left -= size
	}
}

// TestPaddingOfRefusedData: the padding of a frame that is refused is given back as its
// content is.
func TestPaddingOfRefusedData(t *testing.T) {
	cfg := smallWindows()
	s := serve(t, cfg, func(s *Stream) {
		for {
			if _, last, err := s.Next(); last || err != nil {
				return
			}
		}
	})
	r := rawClient(t, s.addr)
	for i := range uint32(10) {
		r.headers(2*i+1, false, append(append([]string(nil), post...), "content-length", "1")...)
		r.must(r.fr.WriteDataPadded(2*i+1, false, []byte("xx"), make([]byte, 255)))
	}
	sc := s.conn(0)
	eventually(t, "the window is whole again", func() bool {
		sc.mu.Lock()
		defer sc.mu.Unlock()
		return sc.lastPeer == 19 && len(sc.streams) == 0 && sc.recvWin+sc.unacked == initialWindow
	})
}
