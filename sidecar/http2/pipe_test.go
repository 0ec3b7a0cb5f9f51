package http2

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
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
	taken := s.take(&in)
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
