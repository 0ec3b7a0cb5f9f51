package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// TestWaitersOfASharedDial: all that wait for the one connection fail with it; the end
// of the request that it was begun for is its own.
func TestWaitersOfASharedDial(t *testing.T) {
	testWaiters(t, &Config{HTTP: HTTP{Protocol: SpeakHTTP2}})
}

// TestWaitersOfADial: the same where each request has a connection to itself, and there
// may be no more of them.
func TestWaitersOfADial(t *testing.T) {
	cfg := &Config{}
	cfg.Limits.MaxConnections = 1
	testWaiters(t, cfg)
}

func testWaiters(t *testing.T, cfg *Config) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		dials := 0
		m := NewManager(Options{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			dials++
			<-ctx.Done() // nobody answers
			return nil, ctx.Err()
		}})
		defer m.Close()
		cfg.Name, cfg.ConnectTimeout, cfg.Endpoints = "c", 5*time.Second, hosts("c", "10.0.0.1")
		if err := m.Update(cfg); err != nil {
			t.Fatal(err)
		}
		h := m.Get("c").hosts()[0]
		acquire := func(ctx context.Context) <-chan error {
			done := make(chan error, 1)
			go func() {
				_, err := h.Acquire(func() (context.Context, context.CancelFunc) { return context.WithCancel(ctx) }, "", nil, true, DefaultPriority, monotonic(), 0)
				done <- err
			}()
			synctest.Wait()
			return done
		}
		leaving, leave := context.WithCancel(context.Background())
		first := acquire(leaving)
		var others []<-chan error
		for range 20 {
			others = append(others, acquire(context.Background()))
		}
		time.Sleep(2 * time.Second)
		leave()
		var e *Error
		if err := <-first; !errors.As(err, &e) || e.Kind != Canceled {
			t.Errorf("the one that left: %v", err)
		}
		began := time.Now()
		for _, done := range others {
			if err := <-done; !errors.As(err, &e) || e.Kind != ConnectTimeout {
				t.Errorf("%v", err)
			}
		}
		if took := time.Since(began); took != 3*time.Second || dials != 1 {
			t.Errorf("%v and %d dials", took, dials)
		}
	})
}

// tunnelHost agrees on tunnels with each connection, and has serve do the rest.
func tunnelHost(t *testing.T, timeout time.Duration, serve func(net.Conn)) *Cluster {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
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
				if nc.(*tls.Conn).Handshake() == nil {
					serve(nc)
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return mustUpdate(t, newManager(t, Options{TLS: pooled{&tls.Config{RootCAs: roots}}}), &Config{
		Name: "c", ConnectTimeout: timeout, TLS: &TLS{SNI: "example.com", ALPN: []string{TunnelALPN}}, Endpoints: hosts("c", l.Addr().String()),
	})
}

// TestLostCarriersAreNotCounted: a connection for tunnels counts for nothing, also where
// the host ends it as soon as it is there.
func TestLostCarriersAreNotCounted(t *testing.T) {
	c := tunnelHost(t, time.Second, func(net.Conn) {})
	for range 100 {
		if conn, err := c.Open(t.Context(), "web", nil, 0); err == nil {
			_ = conn.Close()
			t.Fatal("a tunnel was opened")
		}
	}
	waitFor(t, func() bool { return c.Stats()[0].Connections == 0 })
	if n := c.conns.Load(); n != 0 {
		t.Errorf("%d connections are counted", n)
	}
}

// TestCountedBeforeItIsKnown: whoever finds a connection among the pool's and closes it
// finds its counts settled.
func TestCountedBeforeItIsKnown(t *testing.T) {
	c := tunnelHost(t, time.Second, func(nc net.Conn) { _, _ = io.Copy(io.Discard, nc) })
	p := c.hosts()[0].pool("web", DefaultPriority)
	p.dialing++
	c.conns.Add(1)
	dialled := make(chan *Conn, 1)
	p.mu.Lock()
	go func() {
		conn, err := p.dialReserved(t.Context(), 0, protocolTunnel)
		if err != nil {
			t.Error(err)
		}
		dialled <- conn
	}()
	func() {
		defer p.mu.Unlock()
		waitFor(t, func() bool { return c.conns.Load() == 0 && p.host.conns.Load() == 1 })
	}()
	_ = (<-dialled).Close()
	if n := c.conns.Load(); n != 0 {
		t.Errorf("%d connections are counted", n)
	}
}

// TestSharedConnectionIsLeft: whom a shared connection is not for leaves it to the others.
func TestSharedConnectionIsLeft(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", HTTP: HTTP{Protocol: SpeakHTTP2}, Endpoints: hosts("c", s.Listener.Addr().String())})
	h := c.hosts()[0]
	one, err := connTo(h)
	if err != nil {
		t.Fatal(err)
	}
	other, err := connTo(h)
	if err != nil {
		t.Fatal(err)
	}
	if one != other {
		t.Fatal("they share no connection")
	}
	one.leave()
	if n := len(*h.pool("", DefaultPriority).multiplexed.conns.Load()); n != 0 {
		t.Errorf("%d connections are shared", n)
	}
	st, err := other.HTTP2.Open(&message.Request{Method: "GET", Scheme: "http", Authority: "a", Path: "/"}, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.ReadHead(&message.Response{}); err != nil {
		t.Error(err)
	}
	st.Close()
	other.Release()
	waitFor(t, func() bool { return c.conns.Load() == 0 })
}

// TestWaiterOfAConnectionThatIsShared: a request that waits for one that another left, to use it
// alone, is told when it comes to be shared.
func TestWaiterOfAConnectionThatIsShared(t *testing.T) {
	s := newServer(t)
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", HTTP: HTTP{Protocol: SpeakHTTP2}, Endpoints: hosts("c", s.addr)})
	h := c.hosts()[0]
	conn, err := connTo(h)
	if err != nil {
		t.Fatal(err)
	}
	p := h.pool("", DefaultPriority)
	p.unclaimed = 1
	_, w := p.tryReserve(0, 0, nil)
	if w == nil {
		t.Fatal("it does not wait")
	}
	p.inherit(conn, nil, protocolHTTP1)
	select {
	case <-w.ready:
	default:
		t.Error("it waits on")
	}
}

// TestClosedBeforeItIsShared: a connection that has ended is nobody's.
func TestClosedBeforeItIsShared(t *testing.T) {
	s := newServer(t)
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", HTTP: HTTP{Protocol: SpeakHTTP2}, Endpoints: hosts("c", s.addr)})
	p := c.hosts()[0].pool("web", DefaultPriority)
	conn, err := p.dial(t.Context(), 0, protocolHTTP2)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	p.share(conn)
	if n := len(*p.multiplexed.conns.Load()); n != 0 {
		t.Errorf("%d connections are shared", n)
	}
}

// TestTunnelTimeout: a host that does not agree to a tunnel in time is one that could not
// be connected to in time.
func TestTunnelTimeout(t *testing.T) {
	c := tunnelHost(t, 200*time.Millisecond, func(nc net.Conn) { _, _ = io.Copy(io.Discard, nc) })
	var e *Error
	if _, err := c.Open(t.Context(), "web", nil, 0); !errors.As(err, &e) || e.Kind != ConnectTimeout {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Open(ctx, "web", nil, 0); !errors.As(err, &e) || e.Kind != Canceled {
		t.Errorf("%v", err)
	}
}

// TestVersionsDoNotWaitForEachOther: where the client's version decides, a request waits for
// no connection that its host is to be spoken to on in the other, as in Envoy, whose pools are
// of one version each.
func TestVersionsDoNotWaitForEachOther(t *testing.T) {
	s, first := newServer(t), make(chan struct{})
	var dials atomic.Int32
	m := newManager(t, Options{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if dials.Add(1) == 1 {
			<-first
			return nil, errors.New("refused")
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}})
	cfg := &Config{Name: "c", HTTP: HTTP{Protocol: SpeakDownstream}, Endpoints: hosts("c", s.addr)}
	cfg.Limits.MaxConnections = 1
	c := mustUpdate(t, m, cfg)
	h := c.hosts()[0]
	p, failure := h.pool("", DefaultPriority), make(chan error, 1)
	go func() {
		_, err := h.Acquire(withTimeout(5*time.Second), "", nil, false, DefaultPriority, monotonic(), 0)
		failure <- err
	}()
	waitFor(t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.dialing == 1
	})
	if _, err := connTo(h); err != nil { // for HTTP/2
		t.Error(err)
	}
	close(first)
	if err := <-failure; err == nil {
		t.Error("the first connection was made")
	}
}

// TestRoomOfAConnectionThatEnds: whoever waits for a shared connection learns that there
// is room for one when another has ended, and is not counted.
func TestRoomOfAConnectionThatEnds(t *testing.T) {
	s := newServer(t)
	cfg := &Config{Name: "c", HTTP: HTTP{Protocol: SpeakHTTP2, MaxRequestsPerConnection: 1}, Endpoints: hosts("c", s.addr)}
	cfg.Limits.MaxConnections = 1
	c := mustUpdate(t, newManager(t, Options{}), cfg)
	h := c.hosts()[0]
	conn, err := connTo(h)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := connTo(h)
		done <- err
	}()
	p := h.pool("", DefaultPriority)
	waitFor(t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.multiplexed.began != nil // it waits
	})
	_ = conn.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
