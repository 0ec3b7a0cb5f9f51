package http2

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type handlerFunc func(*Stream)

func (f handlerFunc) ServeStream(s *Stream) { f(s) }

// server listens on loopback and serves every connection with h.
type server struct {
	t     testing.TB
	addr  string
	cfg   *Config
	h     Handler
	l     net.Listener
	wg    sync.WaitGroup
	mu    sync.Mutex
	conns []*ServerConn
	errs  []error
}

func serve(t testing.TB, cfg *Config, h handlerFunc) *server {
	t.Helper()
	return serveWith(t, cfg, h)
}

func serveWith(t testing.TB, cfg *Config, h Handler) *server {
	t.Helper()
	if cfg == nil {
		cfg = Default()
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, addr: l.Addr().String(), cfg: cfg, h: h, l: l}
	ctx, cancel := context.WithCancel(context.Background())
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			sock, err := stream.NewSocket(c.(*net.TCPConn), nil)
			if err != nil {
				t.Error(err)
				return
			}
			sc := NewServer(sock, cfg, s.h)
			s.mu.Lock()
			s.conns = append(s.conns, sc)
			s.mu.Unlock()
			s.wg.Go(func() {
				err := sc.Serve(ctx)
				s.mu.Lock()
				s.errs = append(s.errs, err)
				s.mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		cancel()
		s.wg.Wait()
	})
	return s
}

// conn is the i-th connection that was accepted.
func (s *server) conn(i int) *ServerConn {
	eventually(s.t, "a connection", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.conns) > i
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns[i]
}

// ended is how the connection ended that ended first.
func (s *server) ended() error {
	eventually(s.t, "the connection's end", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.errs) > 0
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.errs[0]
}

// dialClient connects our client to an address.
func dialClient(t testing.TB, addr string, cfg *Config) *ClientConn {
	t.Helper()
	if cfg == nil {
		cfg = Default()
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	sock, err := stream.NewSocket(c.(*net.TCPConn), nil)
	if err != nil {
		t.Fatal(err)
	}
	cc := NewClient(sock, cfg)
	var wg sync.WaitGroup
	wg.Go(func() { _ = cc.Run() })
	t.Cleanup(func() { cc.Close(); wg.Wait() })
	return cc
}

// echo answers with the request's method, path and body.
func echo(s *Stream) {
	req := s.Request()
	var resp message.Response
	resp.Status = 200
	resp.ContentLength = message.UnknownLength
	resp.Fields.Add("x-method", req.Method)
	resp.Fields.Add("x-path", req.Path)
	if err := s.WriteHead(&resp, false); err != nil {
		return
	}
	if req.Body != nil {
		for {
			chunk, last, err := req.Body.Next()
			if err != nil {
				return
			}
			if s.WriteData(chunk, false) != nil || s.Flush() != nil {
				return
			}
			if last {
				break
			}
		}
	}
	if t := s.Trailers(); t != nil {
		_ = s.WriteTrailers(t)
	} else {
		_ = s.WriteData(nil, true)
	}
	_ = s.Flush()
}

// ok answers 200 with a short body.
func ok(s *Stream) {
	var resp message.Response
	resp.Status = 200
	resp.ContentLength = 5
	if s.WriteHead(&resp, false) == nil && s.WriteData([]byte("fine\n"), true) == nil {
		_ = s.Flush()
	}
}

func newRequest(method, path string) *message.Request {
	return &message.Request{Method: method, Scheme: "http", Authority: "example.com", Path: path}
}

// exchange sends a request through our client and reads the whole response.
func exchange(cc *ClientConn, req *message.Request, body string) (resp message.Response, got string, err error) {
	s, err := cc.Open(req, body == "")
	if err != nil {
		return resp, "", err
	}
	defer s.Close()
	if body != "" {
		if err := s.WriteData([]byte(body), true); err != nil {
			return resp, "", err
		}
	}
	if err := s.Flush(); err != nil {
		return resp, "", err
	}
	end := false
	for resp.Status < 200 {
		if end, err = s.ReadHead(&resp); err != nil {
			return resp, "", err
		}
		if resp.Status == 101 {
			break
		}
	}
	var b strings.Builder
	for !end {
		chunk, last, err := s.Next()
		if err != nil {
			return resp, b.String(), err
		}
		b.Write(chunk)
		end = last
	}
	return resp, b.String(), nil
}

func readAll(t testing.TB, r *http.Response) string {
	t.Helper()
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// eventually waits for what another goroutine does.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within 20 s", what)
		case <-tick.C:
		}
	}
}

// selfSigned is a certificate for 127.0.0.1.
func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serveTLS is serve over TLS, with h2 negotiated.
func serveTLS(t testing.TB, cfg *Config, h Handler) (addr string) {
	t.Helper()
	tcfg := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}, NextProtos: []string{"h2"}, SessionTicketsDisabled: true}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				s, err := stream.ServerTLS(c.(*net.TCPConn), nil, tcfg)
				if err != nil || s.Handshake(ctx) != nil {
					_ = c.Close()
					return
				}
				_ = NewServer(s, cfg, h).Serve(ctx)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		cancel()
		wg.Wait()
	})
	return l.Addr().String()
}
