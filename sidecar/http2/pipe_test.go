package http2

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

type countTap struct{ n atomic.Int64 }

func (c *countTap) Passed(n int, _ int64) { c.n.Add(int64(n)) }

// copyAll passes a body on, piece by piece where Pipe leaves it to the caller.
func copyAll(from, to *Stream, tap Tap) (copied int, err error) {
	for {
		from.Pipe(to, tap)
		chunk, last, err := from.Next()
		if err != nil {
			return copied, err
		}
		copied += len(chunk)
		if err := to.WriteData(chunk, last); err != nil {
			return copied, err
		}
		if err := to.Flush(); err != nil || last {
			return copied, err
		}
	}
}

// relayTo serves streams by passing them on to a server, through a client of ours.
func relayTo(t *testing.T, cc *ClientConn, up, down *countTap, copied *atomic.Int64) handlerFunc {
	return func(s *Stream) {
		req := *s.Request()
		out, err := cc.Open(&req, false)
		if err != nil {
			t.Error(err)
			return
		}
		defer out.Close()
		_ = out.Flush()
		done := make(chan struct{})
		go func() {
			defer close(done)
			n, _ := copyAll(s, out, up)
			copied.Add(int64(n))
		}()
		defer func() { s.InterruptRead(); out.InterruptWrite(); <-done }()
		var resp message.Response
		if _, err := out.ReadHead(&resp); err != nil {
			return
		}
		if s.WriteHead(&resp, false) != nil || s.Flush() != nil {
			return
		}
		n, _ := copyAll(out, s, down)
		copied.Add(int64(n))
	}
}

// TestPipe: every byte arrives in order, whether it is passed on by the reader or,
// where a window or the buffer is full, by the caller.
func TestPipe(t *testing.T) {
	for name, cfg := range map[string]func(*Config){
		"roomy":        func(*Config) {},
		"small window": func(c *Config) { c.StreamWindow, c.ConnWindow = initialWindow, initialWindow },
		"small buffer": func(c *Config) { c.BufferBytes = 1 << 10 },
	} {
		t.Run(name, func(t *testing.T) {
			own := func() *Config {
				c := Default()
				cfg(c)
				return c
			}
			origin := serve(t, own(), echo)
			var up, down countTap
			var copied atomic.Int64
			relay := serve(t, own(), relayTo(t, dialClient(t, origin.addr, own()), &up, &down, &copied))
			const messages = 300
			piece := []byte(strings.Repeat("0123456789abcdef", 64))
			pr, pw := io.Pipe()
			req, _ := http.NewRequest("POST", "http://"+relay.addr+"/", pr)
			r, err := foreignClient(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			// One at a time, so that each finds Pipe waiting; then all at once.
			got := make([]byte, len(piece))
			for range messages {
				if _, err := pw.Write(piece); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(r.Body, got); err != nil || !bytes.Equal(got, piece) {
					t.Fatalf("%v, %q", err, got)
				}
			}
			go func() {
				for range messages {
					_, _ = pw.Write(piece)
				}
				_ = pw.Close()
			}()
			rest, err := io.ReadAll(r.Body)
			if err != nil || !bytes.Equal(rest, bytes.Repeat(piece, messages)) {
				t.Fatalf("%v, %d bytes", err, len(rest))
			}
			all := int64(2 * 2 * messages * len(piece))
			eventually(t, "the count", func() bool { return up.n.Load()+down.n.Load()+copied.Load() == all })
			if up.n.Load() < all/8 || down.n.Load() < all/8 {
				t.Errorf("the readers passed on %d and %d of %d bytes", up.n.Load(), down.n.Load(), all)
			}
		})
	}
}

// TestPipeEnds: an interruption, the peer's reset and the end of a connection end it.
func TestPipeEnds(t *testing.T) {
	for name, end := range map[string]func(s *Stream, origin *server){
		"interrupted": func(s *Stream, _ *server) { s.InterruptRead() },
		"reset":       func(s *Stream, _ *server) { s.Reset(Cancel) },
		"closed":      func(_ *Stream, origin *server) { origin.conn(0).abort(&ConnError{Code: Cancel, Err: ErrClosed}) },
	} {
		t.Run(name, func(t *testing.T) {
			hold := make(chan struct{})
			origin := serve(t, nil, func(s *Stream) {
				_ = s.WriteHead(&message.Response{Status: 200, ContentLength: message.UnknownLength}, false)
				_ = s.Flush()
				<-hold
			})
			defer close(hold)
			other := dialClient(t, serve(t, nil, echo).addr, nil)
			cc := dialClient(t, origin.addr, nil)
			from, err := cc.Open(newRequest("POST", "/"), false)
			if err != nil {
				t.Fatal(err)
			}
			defer from.Close()
			_ = from.Flush()
			to, err := other.Open(newRequest("POST", "/"), false)
			if err != nil {
				t.Fatal(err)
			}
			defer to.Close()
			var resp message.Response
			if _, err := from.ReadHead(&resp); err != nil {
				t.Fatal(err)
			}
			returned := make(chan struct{})
			go func() {
				defer close(returned)
				from.Pipe(to, &countTap{})
			}()
			select {
			case <-returned:
				t.Fatal("Pipe returned with nothing to do")
			case <-time.After(10 * time.Millisecond):
			}
			end(from, origin)
			select {
			case <-returned:
			case <-time.After(5 * time.Second):
				t.Fatal("Pipe goes on")
			}
			if _, _, err := from.Next(); err == nil || name == "interrupted" && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Next after it: %v", err)
			}
		})
	}
}

// TestPipeFrameSize: blocks of bulk are larger than a frame may be.
func TestPipeFrameSize(t *testing.T) {
	r, cc := rawServer(t, nil)
	s, err := cc.Open(newRequest("POST", "/"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	r.next(xhttp2.FrameHeaders)
	sent := bytes.Repeat([]byte("0123456789abcde"), 3500) // less than the first window
	in := received{bulk: true, n: 2 * largeBlock}
	left := 1
	in.append(sent, &left)
	in.n = len(sent)
	if in.head.w != len(sent) {
		t.Fatalf("%d bytes in the first block, want all", in.head.w)
	}
	s.c.mu.Lock()
	taken := s.take(&in, &unread{})
	s.c.mu.Unlock()
	if !taken || s.Flush() != nil {
		t.Fatal("not taken")
	}
	var got []byte
	for len(got) < len(sent) {
		data := r.next(xhttp2.FrameData).(*xhttp2.DataFrame).Data()
		if len(data) > maxFrameSize {
			t.Fatalf("a frame of %d bytes", len(data))
		}
		got = append(got, data...)
	}
	if !bytes.Equal(got, sent) {
		t.Error("the bytes differ")
	}
}

// TestPipeOfPieces: whatever of a body comes together, in however many frames and with its
// end, arrives whole and in order, also where Pipe is interrupted in between. Streams
// that are reset meanwhile keep nothing of the connection's window.
func TestPipeOfPieces(t *testing.T) {
	origin := serve(t, nil, echo)
	up := dialClient(t, origin.addr, nil)
	pass := func(from, to *Stream) (err error) {
		for {
			from.Pipe(to, new(countTap))
			chunk, last, err := from.Next()
			switch {
			case errors.Is(err, os.ErrDeadlineExceeded):
				from.Resume()
				continue
			case err != nil:
				return err
			}
			if err := to.WriteData(chunk, last); err != nil {
				return err
			}
			if err := to.Flush(); err != nil || last {
				return err
			}
		}
	}
	relay := serve(t, nil, handlerFunc(func(s *Stream) {
		req := *s.Request()
		out, err := up.Open(&req, false)
		if err != nil {
			return
		}
		defer out.Close()
		_ = out.Flush()
		var wg sync.WaitGroup
		wg.Go(func() {
			if pass(s, out) != nil {
				out.Reset(Cancel)
			}
		})
		wg.Go(func() {
			for range 20 {
				s.InterruptRead()
				out.InterruptRead()
				runtime.Gosched()
			}
		})
		var resp message.Response
		for {
			if _, err = out.ReadHead(&resp); !errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			out.Resume()
		}
		if err == nil && s.WriteHead(&resp, false) == nil && s.Flush() == nil {
			err = pass(out, s)
		}
		if err != nil {
			s.Reset(InternalError)
			out.Reset(InternalError)
		}
		wg.Wait()
	}))
	cc := dialClient(t, relay.addr, nil)
	var wg sync.WaitGroup
	for seed := range uint64(4) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, seed))
			for range 60 {
				exchangePieces(t, cc, r)
			}
		})
	}
	wg.Wait()
	for _, c := range []*conn{&cc.conn, &up.conn} {
		eventually(t, "windows are as they were", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return len(c.streams) == 0 && c.recvWin+c.unacked == int64(c.cfg.ConnWindow)
		})
	}
}

// exchangePieces sends a body in pieces that leave together, and expects it back; or resets
// its stream.
func exchangePieces(t *testing.T, cc *ClientConn, r *rand.Rand) {
	s, err := cc.Open(newRequest("POST", "/"), false)
	if err != nil {
		t.Error(err)
		return
	}
	defer s.Close()
	if err := s.Flush(); err != nil {
		t.Error(err)
	}
	var sent []byte
	for range 1 + r.IntN(12) {
		piece := make([]byte, 1+r.IntN(4<<10))
		for i := range piece {
			piece[i] = byte(r.Uint32())
		}
		sent = append(sent, piece...)
		if err := s.WriteData(piece, false); err != nil {
			t.Error(err)
			return
		}
	}
	if r.IntN(8) == 0 {
		s.Reset(Cancel)
		return
	}
	if err := errors.Join(s.WriteData([]byte("end"), true), s.Flush()); err != nil {
		t.Error(err)
		return
	}
	sent = append(sent, "end"...)
	var resp message.Response
	if _, err := s.ReadHead(&resp); err != nil {
		t.Error(err)
		return
	}
	var got []byte
	for {
		chunk, last, err := s.Next()
		if err != nil {
			t.Error(err)
			return
		}
		if got = append(got, chunk...); last {
			break
		}
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back of %d, or others", len(got), len(sent))
	}
}

// TestUnreadPieces: what lies in the input while more of the batch is looked at is there
// for whoever comes for it before the batch ends, or is given back where nobody may.
func TestUnreadPieces(t *testing.T) {
	// Nothing is answered: the reader would wake the stream for a head, and pass on what lies there.
	origin := serve(t, nil, func(s *Stream) {
		for last, err := false, error(nil); err == nil && !last; {
			_, last, err = s.Next()
		}
	})
	for name, tc := range map[string]struct {
		then func(s *Stream) // the lock is held
		want string          // empty for an error
		last bool
	}{
		"the body ends":   {then: func(s *Stream) { _ = s.c.remoteEnded(s) }, want: "abc", last: true},
		"the peer resets": {then: func(s *Stream) { s.end(&StreamError{Code: Cancel, Remote: true}, true) }, want: "abc"},
		"an interruption": {then: func(s *Stream) { s.stopRead = true }, want: "abc"},
		"many pieces": {then: func(s *Stream) {
			for range len(s.unread.pieces) {
				s.keep([]byte("!"))
			}
		}, want: "abc!!!!"},
		"we reset": {then: func(s *Stream) { s.c.reset(s, Cancel, "") }},
	} {
		t.Run(name, func(t *testing.T) {
			open := func() *Stream {
				cc := dialClient(t, origin.addr, nil)
				eventually(t, "the reader has nothing to do", func() bool {
					cc.mu.Lock()
					defer cc.mu.Unlock()
					return cc.haveSettings && cc.unackedSet == 0
				})
				s, err := cc.Open(newRequest("POST", "/"), false)
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			s, dst := open(), open()
			defer s.Close()
			defer dst.Close()
			piped := make(chan struct{})
			go func() {
				defer close(piped)
				s.Pipe(dst, new(countTap))
			}()
			c := s.c
			eventually(t, "Pipe waits", func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				return s.pipeTo != nil
			})
			c.mu.Lock()
			s.keep([]byte("abc"))
			if s.in.n != 0 || s.unread.n != 3 {
				t.Errorf("%d bytes were copied", s.in.n)
			}
			s.piping = true
			if s.settle(); s.in.n != 0 {
				t.Error("what is being passed on is copied")
			}
			s.piping = false
			tc.then(s)
			// They come before the batch ends: the reader, should it read just now, must not
			// end it for them.
			c.toWake, s.waking = nil, false
			s.rcond.Broadcast()
			given := c.unacked
			c.mu.Unlock()
			<-piped
			s.Resume()
			got, last, err := s.Next()
			if string(got) != tc.want || last != tc.last || (err != nil) != (tc.want == "") {
				t.Errorf("%q, %t, %v", got, last, err)
			}
			if tc.want == "" && given != 3 {
				t.Errorf("%d bytes of the window were given back", given)
			}
		})
	}
}
