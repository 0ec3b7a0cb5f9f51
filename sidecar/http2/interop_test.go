package http2

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// foreignClient is net/http's client.
func foreignClient(t testing.TB) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// foreignServer is net/http's server.
func foreignServer(t testing.TB, h http.HandlerFunc) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { _ = s.Serve(l); close(done) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return l.Addr().String()
}

func TestForeignClient(t *testing.T) {
	srv := serve(t, nil, echo)
	c := foreignClient(t)
	for _, body := range []string{"", "x", strings.Repeat("0123456789", 100_000)} {
		req, _ := http.NewRequest("POST", "http://"+srv.addr+"/a?b=c", strings.NewReader(body))
		r, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, r); got != body || r.StatusCode != 200 || r.Header.Get("X-Path") != "/a?b=c" {
			t.Errorf("status %d, path %q, %d bytes of %d", r.StatusCode, r.Header.Get("X-Path"), len(got), len(body))
		}
	}
}

func TestForeignClientTrailersAndConcurrency(t *testing.T) {
	srv := serve(t, nil, echo)
	c := foreignClient(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			body := bytes.Repeat([]byte{byte(i)}, 1000*i)
			req, _ := http.NewRequest("PUT", "http://"+srv.addr+"/", io.NopCloser(bytes.NewReader(body)))
			req.Trailer = http.Header{"X-Sum": {fmt.Sprint(i)}}
			r, err := c.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			if got := readAll(t, r); got != string(body) || r.Trailer.Get("X-Sum") != fmt.Sprint(i) {
				t.Errorf("%d: %d bytes of %d, trailer %q", i, len(got), len(body), r.Trailer.Get("X-Sum"))
			}
		})
	}
	wg.Wait()
}

func TestForeignServer(t *testing.T) {
	addr := foreignServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("X-Host", r.Host)
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write(b)
		w.Header().Set("X-Sum", fmt.Sprint(len(b)))
	})
	cc := dialClient(t, addr, nil)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			body := strings.Repeat("y", i*3001)
			req := newRequest("POST", "/p")
			req.ContentLength = message.UnknownLength
			resp, got, err := exchange(cc, req, body)
			if err != nil {
				t.Error(err)
				return
			}
			host, _ := resp.Header("x-host")
			if got != body || resp.Status != 200 || host != "example.com" {
				t.Errorf("status %d, host %q, %d bytes of %d", resp.Status, host, len(got), len(body))
			}
		})
	}
	wg.Wait()
}

func TestBothOurs(t *testing.T) {
	srv := serve(t, nil, echo)
	cc := dialClient(t, srv.addr, nil)
	for range 3 {
		req := newRequest("POST", "/x")
		req.ContentLength = message.UnknownLength
		body := strings.Repeat("z", 3<<20)
		resp, got, err := exchange(cc, req, body)
		if err != nil || resp.Status != 200 || got != body {
			t.Fatalf("%v, status %d, %d bytes", err, resp.Status, len(got))
		}
	}
}

// TestOverTLS moves much in both directions at once, so that writes do not fit the
// socket: what a record did not get rid of goes out before the next.
func TestOverTLS(t *testing.T) {
	addr := serveTLS(t, Default(), handlerFunc(echo))
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s, err := stream.ClientTLS(c.(*net.TCPConn), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Handshake(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Info().ALPN != "h2" {
		t.Errorf("ALPN %q", s.Info().ALPN)
	}
	cc := NewClient(s, nil)
	done := make(chan error, 1)
	go func() { done <- cc.Run() }()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			req := newRequest("POST", "/")
			req.Scheme, req.ContentLength = "https", message.UnknownLength
			body := strings.Repeat(fmt.Sprint(i), 4<<20)
			resp, got, err := exchange(cc, req, body)
			if err != nil || resp.Status != 200 || got != body {
				t.Errorf("%v, status %d, %d bytes", err, resp.Status, len(got))
			}
		})
	}
	wg.Wait()
	cc.Close()
	<-done
}

// TestIdleMemory: what a connection costs that has served and waits.
func TestIdleMemory(t *testing.T) {
	const n = 200
	srv := serve(t, nil, ok)
	before := heap()
	for range n {
		c, err := net.Dial("tcp", srv.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Write(idleClient)
	}
	eventually(t, "all requests' end", func() bool {
		srv.mu.Lock()
		defer srv.mu.Unlock()
		for _, sc := range srv.conns {
			if sc.Active() > 0 || sc.lastServedStream() == 0 {
				return false
			}
		}
		return len(srv.conns) == n
	})
	each := (heap() - before) / n
	t.Logf("%d bytes of heap for each connection, with this test's sockets", each)
	if each > 5<<10 {
		t.Errorf("an idle connection holds %d bytes", each)
	}
}

func (sc *ServerConn) lastServedStream() uint32 {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	return sc.lastServed
}

// idleClient is all that a client says that sends one request.
var idleClient = func() []byte {
	r := &raw{}
	r.enc = hpack.NewEncoder(&r.buf)
	block := r.block(append(append([]string(nil), get...), "user-agent", "test", "x-request-id", "0123456789")...)
	return append([]byte(clientPreface), r.frames(func(fr *xhttp2.Framer) {
		_ = fr.WriteSettings()
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true, EndHeaders: true})
	})...)
}()
