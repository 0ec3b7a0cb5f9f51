package http2

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// tunnel opens a CONNECT or an upgrade and returns both ends; the server's stays open
// until hold is closed.
func tunnel(t testing.TB, cc *ClientConn, req *message.Request, ends chan *Tunnel) (client, server *Tunnel, s *Stream) {
	t.Helper()
	if err := cc.AwaitSettings(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := cc.Open(req, false)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Flush()
	var resp message.Response
	end, err := s.ReadHead(&resp)
	if err != nil || end {
		t.Fatal(end, err)
	}
	if want := map[bool]int{true: 101, false: 200}[req.Upgrade != ""]; resp.Status != want || resp.Upgrade != req.Upgrade {
		t.Errorf("status %d, upgrade %q", resp.Status, resp.Upgrade)
	}
	return NewTunnel(s, nil), <-ends, s
}

// tunnelServer accepts every tunnel and hands its end out.
func tunnelServer(ends chan *Tunnel, hold chan bool) handlerFunc {
	return func(s *Stream) {
		resp := message.Response{Status: 200}
		if s.Request().Upgrade != "" {
			resp.Status = 101
		}
		_ = s.WriteHead(&resp, false)
		_ = s.Flush()
		ends <- NewTunnel(s, nil)
		<-hold
	}
}

func requests() map[string]*message.Request {
	ws := newRequest("GET", "/chat")
	ws.Upgrade = "websocket"
	return map[string]*message.Request{
		"connect": {Method: "CONNECT", Authority: "example.com:443"},
		"upgrade": ws,
	}
}

func TestTunnel(t *testing.T) {
	for name, req := range requests() {
		t.Run(name, func(t *testing.T) {
			ends, hold := make(chan *Tunnel, 1), make(chan bool)
			cfg := Default()
			cfg.AllowConnect = true
			srv := serve(t, cfg, tunnelServer(ends, hold))
			defer close(hold)
			cc := dialClient(t, srv.addr, nil)
			client, server, s := tunnel(t, cc, req, ends)
			defer s.Close()
			// Both ways at once, more than the windows of the protocol's default.
			data := bytes.Repeat([]byte("0123456789abcdef"), 50_000)
			var wg sync.WaitGroup
			for _, w := range []*Tunnel{client, server} {
				wg.Go(func() {
					if n, err := w.Write(data); n != len(data) || err != nil {
						t.Errorf("wrote %d: %v", n, err)
					}
					if err := w.CloseWrite(); err != nil {
						t.Error(err)
					}
				})
			}
			for _, r := range []stream.Stream{client, server} {
				wg.Go(func() {
					if got, err := io.ReadAll(r); !bytes.Equal(got, data) || err != nil {
						t.Errorf("read %d bytes: %v", len(got), err)
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestUpgradeNeedsThePeersConsent(t *testing.T) {
	srv := serve(t, nil, ok)
	cc := dialClient(t, srv.addr, nil)
	if _, err := cc.Open(requests()["upgrade"], false); !errors.Is(err, ErrNoConnect) {
		t.Errorf("Open: %v", err)
	}
}

func TestTunnelDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends, hold := make(chan *Tunnel, 1), make(chan bool)
		cc, _ := pipe(t, nil, nil, tunnelServer(ends, hold))
		defer close(hold)
		client, server, s := tunnel(t, cc, requests()["connect"], ends)
		defer s.Close()
		start := time.Now()
		_ = client.SetReadDeadline(start.Add(time.Second))
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("Read: %v after %v", err, time.Since(start))
		}
		_ = client.SetReadDeadline(time.Time{})
		// The writing side has a deadline of its own, and none now.
		if _, err := client.Write([]byte("hello")); err != nil {
			t.Error(err)
		}
		_ = server.SetDeadline(time.Now().Add(time.Second))
		buf := make([]byte, 10)
		if n, err := server.Read(buf); string(buf[:n]) != "hello" {
			t.Errorf("%q, %v", buf[:n], err)
		}
		_ = client.SetWriteDeadline(time.Unix(1, 0))
		if _, err := client.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write: %v", err)
		}
		// Close ends both sides.
		if err := client.Close(); err != nil || client.Close() != nil {
			t.Error(err)
		}
		if _, err := client.Read(buf); err == nil {
			t.Error("Read after Close")
		}
		var se *StreamError
		if _, err := server.Read(buf); !errors.As(err, &se) || se.Code != Cancel {
			t.Errorf("the other side: %v", err)
		}
	})
}

// TestTunnelAbort: what lies behind a tunnel was lost (RFC 9113 8.5). Its client still gets
// what came before.
func TestTunnelAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends, hold := make(chan *Tunnel, 1), make(chan bool)
		cc, _ := pipe(t, nil, nil, tunnelServer(ends, hold))
		defer close(hold)
		client, server, s := tunnel(t, cc, requests()["connect"], ends)
		defer s.Close()
		_, _ = server.Write([]byte("half"))
		server.Abort()
		_ = server.Close()
		got, err := io.ReadAll(client)
		var se *StreamError
		if string(got) != "half" || !errors.As(err, &se) || !se.Remote || se.Code != ConnectError {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// lease is memory for ReadReady that counts what is held.
type lease struct {
	buf  []byte
	held bool
}

func (l *lease) TakeBuffer() []byte { l.held = true; return l.buf }
func (l *lease) DropBuffer()        { l.held = false }

func TestTunnelWaitsWithoutBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends, hold := make(chan *Tunnel, 1), make(chan bool)
		cc, _ := pipe(t, nil, nil, tunnelServer(ends, hold))
		defer close(hold)
		client, server, s := tunnel(t, cc, requests()["connect"], ends)
		defer s.Close()
		l := &lease{buf: make([]byte, 4), held: true}
		got := make(chan int, 1)
		go func() {
			n, _ := client.ReadReady(l)
			got <- n
		}()
		synctest.Wait()
		if l.held {
			t.Error("the waiting reader holds a buffer")
		}
		_, _ = server.Write([]byte("abcdef"))
		if n := <-got; n != 4 {
			t.Errorf("%d bytes", n)
		}
		if n, err := client.ReadReady(l); n != 2 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}

type woken chan *stream.Watch

func (w woken) Woken(x *stream.Watch) { w <- x }

// TestTunnelParked: nobody reads a tunnel, and whoever is to is told when there is
// something to read, or the end.
func TestTunnelParked(t *testing.T) {
	poller, err := stream.NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer poller.Close()
	for name, act := range map[string]func(near, far *Tunnel, cc *ClientConn){
		"a byte":          func(_, far *Tunnel, _ *ClientConn) { _, _ = far.Write([]byte("x")) },
		"its end":         func(_, far *Tunnel, _ *ClientConn) { _ = far.CloseWrite() },
		"a reset":         func(_, far *Tunnel, _ *ClientConn) { _ = far.Close() },
		"our close":       func(near, _ *Tunnel, _ *ClientConn) { _ = near.Close() },
		"connection lost": func(_, _ *Tunnel, cc *ClientConn) { cc.Close() },
	} {
		for _, side := range []string{"client", "server"} {
			t.Run(name+" at the "+side, func(t *testing.T) {
				ends, hold := make(chan *Tunnel, 1), make(chan bool)
				srv := serve(t, nil, tunnelServer(ends, hold))
				defer close(hold)
				cc := dialClient(t, srv.addr, nil)
				near, far, s := tunnel(t, cc, requests()["connect"], ends)
				defer s.Close()
				if side == "server" {
					near, far = far, near
				}
				told := make(woken, 2)
				w := &stream.Watch{Owner: told}
				if !poller.Watch(w, near) {
					t.Fatal("not waiting")
				}
				act(near, far, cc)
				select {
				case <-told:
				case <-time.After(5 * time.Second):
					t.Fatal("not woken")
				}
				if poller.Watch(w, near) || poller.Waiting() != 0 {
					t.Error("waiting for what can be read")
				}
				if n, err := near.Read(make([]byte, 1)); n == 1 != (name == "a byte") || n == 0 && err == nil {
					t.Errorf("%d bytes, %v", n, err)
				}
			})
		}
	}
}

// A window that was used is given back before a tunnel is parked.
func TestTunnelParkedOwesNoWindow(t *testing.T) {
	poller, err := stream.NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer poller.Close()
	ends, hold := make(chan *Tunnel, 1), make(chan bool)
	srv := serve(t, nil, tunnelServer(ends, hold))
	defer close(hold)
	near, far, s := tunnel(t, dialClient(t, srv.addr, nil), requests()["connect"], ends)
	defer s.Close()
	defer far.Close()
	// Windows are given back by halves.
	buf := make([]byte, Default().StreamWindow/2)
	for range 8 {
		_ = far.SetWriteDeadline(time.Now().Add(5 * time.Second))
		if _, err := far.Write(buf); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(near, buf); err != nil {
			t.Fatal(err)
		}
		if !poller.Watch(&stream.Watch{Owner: make(woken, 1)}, near) {
			t.Fatal("not waiting")
		}
	}
}

// TestKeep: a stream that was kept outlives its handler, and its connection waits for it.
func TestKeep(t *testing.T) {
	for name, early := range map[string]bool{"closed later": false, "closed in the handler": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kept, left := make(chan *Tunnel, 1), make(chan bool, 1)
				cc, _ := pipe(t, nil, nil, func(s *Stream) {
					s.Keep()
					_ = s.WriteHead(&message.Response{Status: 200}, false)
					_ = s.Flush()
					kept <- NewTunnel(s, nil)
					if early {
						<-left
					}
				})
				s, err := cc.Open(requests()["connect"], false)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				_ = s.Flush()
				var resp message.Response
				if _, err := s.ReadHead(&resp); err != nil {
					t.Fatal(err)
				}
				near, far := NewTunnel(s, nil), <-kept
				synctest.Wait() // the handler has returned
				sc := far.s.c.server
				running := func() int {
					sc.mu.Lock()
					defer sc.mu.Unlock()
					return sc.running
				}
				for _, ends := range [][2]*Tunnel{{near, far}, {far, near}} {
					b := make([]byte, 4)
					_, _ = ends[0].Write([]byte("ping"))
					if n, err := ends[1].Read(b); string(b[:n]) != "ping" {
						t.Errorf("%q, %v", b[:n], err)
					}
				}
				if n := running(); n != 1 {
					t.Errorf("%d streams are served", n)
				}
				far.Release()
				if early {
					left <- true
				}
				if _, err := near.Read(make([]byte, 1)); err == nil {
					t.Error("the stream lives")
				}
				synctest.Wait()
				if n := running(); n != 0 {
					t.Errorf("%d streams are served", n)
				}
			})
		})
	}
}

// TestTunnelWithALength: a length in the answer that opens a tunnel means nothing (RFC
// 9110 9.3.6).
func TestTunnelWithALength(t *testing.T) {
	for name, req := range requests() {
		for _, length := range []string{"0", "5"} {
			r, cc := rawServer(t, nil)
			r.must(r.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingEnableConnectProtocol, Val: 1}))
			eventually(t, "the settings", func() bool {
				cc.mu.Lock()
				defer cc.mu.Unlock()
				return cc.peerConnect
			})
			st, err := cc.Open(req, false)
			if err != nil {
				t.Fatal(err)
			}
			_ = st.Flush()
			r.next(xhttp2.FrameHeaders)
			r.headers(1, false, ":status", "200", "content-length", length)
			r.must(r.fr.WriteData(1, false, []byte("hello, tunnel")))
			var resp message.Response
			if _, err := st.ReadHead(&resp); err != nil || resp.ContentLength != message.UnknownLength {
				t.Errorf("%s with length %s: length %d, %v", name, length, resp.ContentLength, err)
			}
			if b, _, err := st.Next(); string(b) != "hello, tunnel" {
				t.Errorf("%s with length %s: %q, %v", name, length, b, err)
			}
			st.Close()
		}
	}
}
