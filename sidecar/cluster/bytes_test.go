package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
)

// fickle is a host that agrees on tunnels, or does not, as it is told.
type fickle struct {
	addr   string
	agrees atomic.Bool
}

func newFickle(t *testing.T) *fickle {
	t.Helper()
	srv := httptest.NewTLSServer(nil)
	t.Cleanup(srv.Close)
	f := &fickle{}
	declines := &tls.Config{Certificates: srv.TLS.Certificates}
	accepts := declines.Clone()
	accepts.NextProtos = []string{TunnelALPN}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if f.agrees.Load() {
			return accepts, nil
		}
		return declines, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	f.addr = l.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				if nc.(*tls.Conn).Handshake() != nil {
					return
				}
				if nc.(*tls.Conn).ConnectionState().NegotiatedProtocol == TunnelALPN {
					agrees(nc)
				} else {
					_, _ = nc.Read(make([]byte, 1))
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return f
}

func mustOpen(t *testing.T, c *Cluster) *Conn {
	t.Helper()
	conn, err := c.Open(t.Context(), "web", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestHostComesToCarryTunnels: to a host that declined, and agrees since, nobody says bytes which it
// would take for frames.
func TestHostComesToCarryTunnels(t *testing.T) {
	f := newFickle(t)
	m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
	c := mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{ALPN: []string{TunnelALPN}}, Endpoints: hosts("c", f.addr)})
	for range 2 {
		if conn := mustOpen(t, c); conn.carrier != nil {
			t.Fatal("a tunnel to a host that carries none")
		} else {
			_ = conn.Close()
		}
	}
	f.agrees.Store(true)
	for range 2 {
		conn := mustOpen(t, c)
		if conn.carrier == nil {
			t.Errorf("bytes are said on a connection that is for frames, by ALPN %q", conn.Info().ALPN)
		}
		defer conn.Close()
	}
	if n := c.conns.Load(); n != 2 {
		t.Errorf("%d connections are counted", n)
	}
}

// TestTunnelsOfASocket: whether a host is asked for tunnels its own transport socket says.
func TestTunnelsOfASocket(t *testing.T) {
	f := newFickle(t)
	f.agrees.Store(true)
	a := hosts("c", f.addr)
	a.Localities[0].Endpoints[0].Metadata = map[string]map[string]any{SocketNamespace: {"mesh": true}}
	tunnels := &TLS{ALPN: []string{TunnelALPN}}
	m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
	c := mustUpdate(t, m, &Config{Name: "c", Endpoints: a, Sockets: []SocketMatch{{Name: "mesh", Match: map[string]any{"mesh": true}, TLS: tunnels}}})
	conn := mustOpen(t, c)
	if conn.carrier == nil {
		t.Errorf("bytes are said on a connection that is for frames, by ALPN %q", conn.Info().ALPN)
	}
	_ = conn.Close()
}

// TestHostThatDeclinesHasItsLimit: a connection of its own counts against the limit of its host, also
// where a tunnel was asked for first.
func TestHostThatDeclinesHasItsLimit(t *testing.T) {
	f := newFickle(t)
	m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
	c := mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{ALPN: []string{TunnelALPN}}, Endpoints: hosts("c", f.addr), Limits: Limits{MaxHostConnections: 1}})
	defer mustOpen(t, c).Close()
	var e *Error
	if conn, err := c.Open(t.Context(), "web", nil, 0); !errors.As(err, &e) || e.Kind != OverflowConnections || e.Host != f.addr {
		t.Errorf("another one: %v", err)
		if err == nil {
			_ = conn.Close()
		}
	}
	if n := c.conns.Load(); n != 1 {
		t.Errorf("%d connections are counted", n)
	}
}

// TestByteStreamsAreActive: balancers know of byte streams as they know of requests.
func TestByteStreamsAreActive(t *testing.T) {
	one, other := newServer(t), newServer(t)
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", LB: LeastRequest, FullScan: true, Endpoints: hosts("c", one.addr, other.addr)})
	var open []*Conn
	for range 10 {
		open = append(open, mustOpen(t, c))
	}
	for _, s := range c.Stats() {
		if s.Active != 5 {
			t.Errorf("%s has %d of 10", s.Address, s.Active)
		}
	}
	if n := c.activeRequests(); n != 10 {
		t.Errorf("%d are active, of 10", n)
	}
	for _, conn := range open {
		_ = conn.Close()
		_ = conn.Close()
	}
	for _, s := range c.Stats() {
		if s.Active != 0 {
			t.Errorf("%s has %d in the end", s.Address, s.Active)
		}
	}
	if n := c.activeRequests(); n != 0 {
		t.Errorf("%d are active in the end", n)
	}
}

// TestByteStreamsArePending: a byte stream that waits for its connection counts as a request does.
func TestByteStreamsArePending(t *testing.T) {
	connect := make(chan struct{})
	m := newManager(t, Options{Dial: func(context.Context, string, string) (net.Conn, error) {
		<-connect
		return nil, errors.New("refused")
	}})
	c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1"), Limits: Limits{MaxPendingRequests: 1}})
	first := make(chan error)
	go func() {
		_, err := c.Open(t.Context(), "web", nil, 0)
		first <- err
	}()
	waitFor(t, func() bool { return c.pending.Load() == 1 && c.hosts()[0].connects.Load() == 1 })
	var e *Error
	if _, err := c.Open(t.Context(), "web", nil, 0); !errors.As(err, &e) || e.Kind != OverflowPending || e.Addr != c.hosts()[0].Addr() {
		t.Errorf("beyond the limit: %v", err)
	}
	close(connect)
	if err := <-first; !errors.As(err, &e) || e.Kind != ConnectRefused {
		t.Errorf("the first: %v", err)
	}
	if n, p := c.conns.Load(), c.pending.Load(); n != 0 || p != 0 {
		t.Errorf("%d connections and %d that wait are counted", n, p)
	}
}

// echoUnlessTunnelled is a host that agrees on tunnels, and sends back what comes on connections for which it
// did not. What it agreed on is sent to heard.
func echoUnlessTunnelled(t *testing.T, heard chan<- string) string {
	t.Helper()
	srv := httptest.NewTLSServer(nil)
	t.Cleanup(srv.Close)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: srv.TLS.Certificates, NextProtos: []string{TunnelALPN}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				if nc.(*tls.Conn).Handshake() != nil {
					return
				}
				agreed := nc.(*tls.Conn).ConnectionState().NegotiatedProtocol
				if heard <- agreed; agreed == "" {
					_, _ = io.Copy(nc, nc)
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().String()
}
