package http2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/panics/panicstest"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/workers"
)

func answerOK(s *Stream) {
	_ = s.WriteHead(&message.Response{Status: 200}, true)
	_ = s.Flush()
}

func ask(c *ClientConn, path string) (int, error) {
	s, err := c.Open(&message.Request{Method: "GET", Scheme: "http", Authority: "h", Path: path}, true)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	if err := s.Flush(); err != nil {
		return 0, err
	}
	var r message.Response
	_, err = s.ReadHead(&r)
	return r.Status, err
}

// TestFaultInAHandler: it resets its stream, whether or not that was kept, and the others
// of the connection go on.
func TestFaultInAHandler(t *testing.T) {
	panicstest.Expect(t, panics.Stream, 4)
	for _, pool := range []bool{false, true} {
		cfg := Default()
		if pool {
			cfg.Workers = new(workers.Pool)
			t.Cleanup(cfg.Workers.Close)
		}
		srv := serve(t, cfg, func(s *Stream) {
			switch s.Request().Path {
			case "/keep":
				s.Keep()
				fallthrough
			case "/panic":
				panic("handler")
			}
			answerOK(s)
		})
		c := dialClient(t, srv.addr, nil)
		for _, path := range []string{"/panic", "/keep"} {
			if status, err := ask(c, path); err == nil {
				t.Errorf("%s was answered with %d", path, status)
			}
			if status, err := ask(c, "/"); status != 200 {
				t.Errorf("after %s: %d, %v", path, status, err)
			}
		}
	}
}

// faulty is a stream that panics in what armed names.
type faulty struct {
	stream.Stream
	armed atomic.Value
}

func (f *faulty) check(what string) {
	if f.armed.Load() == what {
		panic(what)
	}
}
func (f *faulty) Read(p []byte) (int, error) {
	n, err := f.Stream.Read(p)
	f.check("read")
	return n, err
}
func (f *faulty) Write(p []byte) (int, error) {
	f.check("write")
	return f.Stream.Write(p)
}

// trying is one that can be written to without waiting.
type trying struct{ *faulty }

func (f trying) TryWrite(p []byte) (int, bool, error) {
	f.check("try")
	return f.Stream.(stream.TryWriter).TryWrite(p)
}

// TestFaultInAConnection: it ends the connection and every stream on it, and leaves
// nobody waiting.
func TestFaultInAConnection(t *testing.T) {
	for what, place := range map[string]panics.Place{"read": panics.HTTP2Reader, "write": panics.HTTP2Writer, "try": panics.HTTP2Writer} {
		for _, side := range []string{"client", "server"} {
			t.Run(what+" of the "+side, func(t *testing.T) {
				panicstest.Expect(t, place, 1)
				near, far := sockets(t)
				f := &faulty{Stream: near}
				var s stream.Stream = f
				if what == "try" {
					s = trying{f}
				}
				serverEnd, clientEnd := far, s
				if side == "server" {
					serverEnd, clientEnd = s, far
				}
				cfg := Default()
				sc := NewServer(serverEnd, cfg, handlerFunc(func(s *Stream) {
					if s.Request().Path == "/wait" {
						f.armed.Store(what)
						_, _, _ = s.Next() // until the stream ends
						_ = s.WriteHead(&message.Response{Status: 200}, true)
						_ = s.Flush()
						return
					}
					answerOK(s)
				}))
				done := make(chan error, 2)
				go func() { done <- sc.Serve(t.Context()) }()
				c := NewClient(clientEnd, cfg)
				go func() { done <- c.Run() }()
				if status, err := ask(c, "/"); status != 200 {
					t.Fatalf("%d, %v", status, err)
				}
				st, err := c.Open(&message.Request{Method: "POST", Scheme: "http", Authority: "h", Path: "/wait", ContentLength: message.UnknownLength}, false)
				if err != nil {
					t.Fatal(err)
				}
				_ = st.Flush()
				eventually(t, "the request", func() bool { return f.armed.Load() != nil })
				_ = st.WriteData([]byte("x"), true)
				_ = st.Flush()
				var r message.Response
				if _, err := st.ReadHead(&r); err == nil {
					t.Errorf("the request was answered with %d", r.Status)
				}
				st.Close()
				for range 2 {
					select {
					case <-done:
					case <-time.After(5 * time.Second):
						t.Fatal("the connection goes on")
					}
				}
			})
		}
	}
}

func sockets(t *testing.T) (near, far stream.Stream) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var out [2]stream.Stream
	for i, c := range []net.Conn{a, b} {
		if out[i], err = stream.NewSocket(c.(*net.TCPConn), nil); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = out[i].(io.Closer).Close() })
	}
	return out[0], out[1]
}

// TestFaultInABatch: whoever waits for what came before the fault, together with it, gets
// it, also where that was a stream's end and lies in the input still.
func TestFaultInABatch(t *testing.T) {
	for _, piped := range []bool{false, true} {
		t.Run(fmt.Sprintf("piped %t", piped), func(t *testing.T) {
			panicstest.Expect(t, panics.HTTP2Reader, 1)
			cfg := Default()
			cfg.OnGlitch = func(Glitch) { panic("glitch") }
			r, cc := rawServer(t, cfg)
			dst, err := dialClient(t, serve(t, nil, echo).addr, nil).Open(newRequest("POST", "/"), false)
			if err != nil {
				t.Fatal(err)
			}
			defer dst.Close()
			s, err := cc.Open(newRequest("GET", "/"), true)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			_ = s.Flush()
			r.next(xhttp2.FrameHeaders)
			r.headers(1, false, ":status", "200")
			var resp message.Response
			if _, err := s.ReadHead(&resp); err != nil {
				t.Fatal(err)
			}
			read := make(chan string, 1)
			go func() {
				if piped {
					s.Pipe(dst, new(countTap))
				}
				var body []byte
				var last bool
				var err error
				for !last && err == nil { // the end may be seen after what came with it
					var chunk []byte
					chunk, last, err = s.Next()
					body = append(body, chunk...)
				}
				read <- fmt.Sprintf("%s %t %v", body, last, err)
			}()
			if piped {
				piping(t, s)
			}
			var batch bytes.Buffer
			fr := xhttp2.NewFramer(&batch, nil)
			r.must(errors.Join(fr.WriteData(1, true, []byte("tail")), fr.WritePing(true, [8]byte{1})))
			_, _ = r.c.Write(batch.Bytes())
			select {
			case got := <-read:
				if got != "tail true <nil>" {
					t.Errorf("%q was read", got)
				}
			case <-time.After(5 * time.Second):
				t.Error("whoever reads the body waits for ever")
				s.InterruptRead()
				<-read
			}
		})
	}
}

// faultyTap panics when it is told that something was passed on.
type faultyTap struct{}

func (faultyTap) Passed(int, int64) { panic("tap") }

// TestFaultBesideAPipe: where a batch faults at another stream, after what is to be passed on
// was marked, Pipe returns, and what was not passed on can be read.
func TestFaultBesideAPipe(t *testing.T) {
	for name, tc := range map[string]struct {
		other func(s, to *Stream, all *sync.WaitGroup) // is about to fault
		want  string
	}{
		"that is woken": {func(s, _ *Stream, _ *sync.WaitGroup) {
			s.park(new(stream.Watch)) // of no poller
		}, "tail"},
		"that is passed on": {func(s, to *Stream, all *sync.WaitGroup) {
			all.Go(func() { s.Pipe(to, faultyTap{}) })
			piping(t, s)
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			panicstest.Expect(t, panics.HTTP2Reader, 1)
			r, cc := rawServer(t, nil)
			far := dialClient(t, serve(t, nil, echo).addr, nil)
			var from, to [2]*Stream
			for i := range from {
				for side, c := range map[*[2]*Stream]*ClientConn{&from: cc, &to: far} {
					s, err := c.Open(newRequest("POST", "/"), false)
					if err != nil {
						t.Fatal(err)
					}
					defer s.Close()
					_ = s.Flush()
					side[i] = s
				}
				r.next(xhttp2.FrameHeaders)
				r.headers(from[i].ID(), false, ":status", "200")
				if _, err := from[i].ReadHead(new(message.Response)); err != nil {
					t.Fatal(err)
				}
			}
			var all sync.WaitGroup
			defer all.Wait() // a stream is not closed before who uses it has returned
			tc.other(from[0], to[0], &all)
			read := make(chan string, 1)
			go func() {
				from[1].Pipe(to[1], new(countTap))
				chunk, _, err := from[1].Next()
				read <- string(chunk)
				for err == nil {
					_, _, err = from[1].Next()
				}
				close(read)
			}()
			piping(t, from[1])
			var batch bytes.Buffer
			fr := xhttp2.NewFramer(&batch, nil)
			r.must(errors.Join(fr.WriteData(1, false, []byte("other")), fr.WriteData(3, false, []byte("tail"))))
			_, _ = r.c.Write(batch.Bytes())
			select {
			case got := <-read:
				if got != tc.want {
					t.Errorf("%q was left, want %q", got, tc.want)
				}
				<-read // the error
			case <-time.After(5 * time.Second):
				t.Error("Pipe waits for ever")
			}
		})
	}
}

// TestFaultBesideAPipeOfARequest: it ends the connection, which waits for its handlers.
func TestFaultBesideAPipeOfARequest(t *testing.T) {
	panicstest.Expect(t, panics.HTTP2Reader, 1)
	to, err := dialClient(t, serve(t, nil, echo).addr, nil).Open(newRequest("POST", "/"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	_ = to.Flush()
	waits, piped := make(chan *Stream, 2), make(chan struct{})
	srv := serve(t, nil, func(s *Stream) {
		waits <- s
		if s.Request().Path == "/piped" {
			defer close(piped)
			s.Pipe(to, new(countTap))
			return
		}
		s.park(new(stream.Watch)) // of no poller: to wake it faults
		<-piped
	})
	r := rawClient(t, srv.addr)
	r.headers(1, false, ":method", "POST", ":scheme", "http", ":authority", "h", ":path", "/")
	parked := <-waits
	eventually(t, "the stream is parked", func() bool {
		parked.c.mu.Lock()
		defer parked.c.mu.Unlock()
		return parked.parked != nil
	})
	r.headers(3, false, ":method", "POST", ":scheme", "http", ":authority", "h", ":path", "/piped")
	piping(t, <-waits)
	var batch bytes.Buffer
	fr := xhttp2.NewFramer(&batch, nil)
	r.must(errors.Join(fr.WriteData(1, false, []byte("other")), fr.WriteData(3, false, []byte("piped"))))
	_, _ = r.c.Write(batch.Bytes())
	if err := srv.ended(); !errors.Is(err, errPanicked) {
		t.Errorf("the connection ended with %v", err)
	}
}

// piping waits until Pipe does.
func piping(t *testing.T, s *Stream) {
	eventually(t, "Pipe waits", func() bool {
		s.c.mu.Lock()
		defer s.c.mu.Unlock()
		return s.pipeTo != nil
	})
}
