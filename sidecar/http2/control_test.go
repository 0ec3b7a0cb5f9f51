package http2

import (
	"encoding/binary"
	"net"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// TestSettingsCost: a frame of SETTINGS costs about what it weighs, however often it says
// the same and however many streams there are.
func TestSettingsCost(t *testing.T) {
	a, _ := net.Pipe()
	sc := NewServer(&pipeStream{Conn: a}, nil, nil) // nobody reads: it is the test's
	for i := range uint32(10_000) {
		s := newStream(&sc.conn)
		s.id, s.listed = 2*i+1, true
		sc.streams[s.id] = s
	}
	fastest := func(entries int) time.Duration {
		best := time.Hour
		for round := range 10 {
			var p []byte
			for i := range entries {
				p = binary.BigEndian.AppendUint16(p, settingInitialWindowSize)
				p = binary.BigEndian.AppendUint32(p, uint32(initialWindow+1+3*round+i%2))
			}
			began := time.Now()
			if err := sc.settingsFrame(&frameHeader{length: len(p), kind: frameSettings}, p); err != nil {
				t.Fatal(err)
			}
			best = min(best, time.Since(began))
		}
		return best
	}
	one, many := fastest(1), fastest(maxFrameSize/6)
	if many > 20*one {
		t.Errorf("a full frame takes %v, one of a single entry %v", many, one)
	}
}

// TestInitialWindows: of several values in a frame the last counts, and each is checked as
// if it were the last (RFC 9113 6.5.3, 6.9.2).
func TestInitialWindows(t *testing.T) {
	initial := func(v uint32) xhttp2.Setting {
		return xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: v}
	}
	for name, c := range map[string]struct {
		settings []xhttp2.Setting
		update   uint32 // of the stream's window, ahead of them
		bad      bool
	}{
		"higher, then lower":        {[]xhttp2.Setting{initial(90000), initial(70000)}, 1, false},
		"lower, then higher":        {[]xhttp2.Setting{initial(0), initial(70000)}, 1, false},
		"too high in between":       {[]xhttp2.Setting{initial(maxWindow), initial(70000)}, 1, true},
		"too high before":           {[]xhttp2.Setting{initial(maxWindow + 1), initial(70000)}, 1, true},
		"too high at last":          {[]xhttp2.Setting{initial(70000), initial(maxWindow)}, 1, true},
		"as high as a stream bears": {[]xhttp2.Setting{initial(maxWindow - 1), initial(70000)}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			hold := make(chan struct{})
			defer close(hold)
			s := serve(t, nil, func(*Stream) { <-hold })
			r := rawClient(t, s.addr)
			r.headers(1, false, post...)
			r.must(r.fr.WriteWindowUpdate(1, c.update))
			r.must(r.fr.WriteSettings(c.settings...))
			if c.bad {
				r.wantGoAway(FlowControlError)
				return
			}
			sc := s.conn(0)
			eventually(t, "the windows are as told", func() bool {
				sc.mu.Lock()
				defer sc.mu.Unlock()
				return sc.peerWindow == 70000 && sc.streams[1].sendWin == 70000+int64(c.update)
			})
		})
	}
}

// TestDrainAnsweredAtTheLastMoment: the answer to a drain's PING and the timer that waits
// for it may come together. The timer that is too late does nothing.
func TestDrainAnsweredAtTheLastMoment(t *testing.T) {
	hold := make(chan struct{})
	s := serve(t, nil, func(s *Stream) { <-hold; ok(s) })
	release := sync.OnceFunc(func() { close(hold) })
	defer release()
	r := rawClient(t, s.addr)
	r.get(1)
	sc := s.conn(0)
	eventually(t, "the stream", func() bool { return sc.Active() == 1 })
	sc.mu.Lock()
	sc.keeper.pingForDrain()
	sc.keeper.acknowledged(sc.keeper.token)
	sc.mu.Unlock()
	for range 2 { // the timer had fired, and waited for the lock
		sc.keeper.fire()
	}
	sc.mu.Lock()
	if sc.err != nil || sc.keeper.waiting {
		t.Errorf("the connection ended with %v, or waits for another answer", sc.err)
	}
	sc.mu.Unlock()
	release()
	for { // as it drains
		f, err := r.fr.ReadFrame()
		r.must(err)
		if f, ok := f.(*xhttp2.HeadersFrame); ok && f.StreamID == 1 {
			return
		}
	}
}
