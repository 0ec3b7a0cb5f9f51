package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
)

// gate holds up connections that are being made.
type gate struct{ asked, goOn chan struct{} }

func newGate() *gate { return &gate{make(chan struct{}, 10), make(chan struct{}, 10)} }

func (g *gate) dial(ctx context.Context, network, address string) (net.Conn, error) {
	g.asked <- struct{}{}
	<-g.goOn
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// acquiring is a request that waits for its connection.
func acquiring(c *Cluster) (<-chan *Conn, <-chan error) {
	conn, failure := make(chan *Conn, 1), make(chan error, 1)
	go func() {
		got, err := acquireWeb(c)
		conn <- got
		failure <- err
	}()
	return conn, failure
}

var respoken = map[string][2]Protocol{
	"to HTTP/2": {SpeakHTTP1, SpeakHTTP2},
	"to HTTP/1": {SpeakHTTP2, SpeakHTTP1},
}

// TestRespokenWhileConnecting: a connection that is made while another protocol comes into force serves
// nobody, and whoever it was for asks for one of that.
func TestRespokenWhileConnecting(t *testing.T) {
	for name, protocols := range respoken {
		t.Run(name, func(t *testing.T) {
			g := newGate()
			m := newManager(t, Options{Dial: g.dial})
			at := hosts("c", newServer(t).addr)
			c := mustUpdate(t, m, &Config{Name: "c", Endpoints: at, HTTP: HTTP{Protocol: protocols[0]}})
			h := c.hosts()[0]
			conn, failure := acquiring(c)
			<-g.asked
			mustUpdate(t, m, &Config{Name: "c", Endpoints: at, HTTP: HTTP{Protocol: protocols[1]}})
			g.goOn <- struct{}{}
			if got := <-conn; got != nil {
				t.Errorf("it is used, over HTTP/2: %v", got.HTTP2 != nil)
				got.Release()
			}
			if err := <-failure; !IsOutdated(err) {
				t.Errorf("%v", err)
			}
			waitFor(t, func() bool { return c.conns.Load() == 0 && h.conns.Load() == 0 })
		})
	}
}

// TestRespokenWhileWaiting: requests that wait for room, as no more connections may be made, do not wait for
// what was spoken before.
func TestRespokenWhileWaiting(t *testing.T) {
	for name, protocols := range respoken {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, Options{})
			terms := *http2.Default()
			terms.MaxConcurrentStreams = 1
			cfg := Config{Name: "c", Endpoints: hosts("c", newServer(t).addr), HTTP: HTTP{Protocol: protocols[0], HTTP2: &terms}, Limits: Limits{MaxConnections: 1}}
			c := mustUpdate(t, m, &cfg)
			busy, err := acquireWeb(c)
			if err != nil {
				t.Fatal(err)
			}
			var failures []<-chan error
			for range 3 {
				_, failure := acquiring(c)
				failures = append(failures, failure)
			}
			waitFor(t, func() bool { return c.pending.Load() == 3 })
			next := cfg
			next.HTTP.Protocol = protocols[1]
			mustUpdate(t, m, &next)
			for _, failure := range failures {
				if err := <-failure; !IsOutdated(err) {
					t.Errorf("%v", err)
				}
			}
			busy.Release()
			waitFor(t, func() bool { return c.conns.Load() == 0 })
		})
	}
}

// TestDeclinedBefore: that a host declined HTTP/2 while it was asked what it speaks, or tunnels, has no request
// speak HTTP/1 to it where HTTP/2 is configured.
func TestDeclinedBefore(t *testing.T) {
	g := newGate()
	c := mustUpdate(t, newManager(t, Options{Dial: g.dial}), &Config{Name: "c", Endpoints: hosts("c", newServer(t).addr), HTTP: HTTP{Protocol: SpeakHTTP2}})
	p := c.hosts()[0].pool("web", DefaultPriority)
	p.multiplexed.declined.Store(true)
	first, _ := acquiring(c)
	<-g.asked
	other, _ := acquiring(c)
	waitFor(t, func() bool { return c.pending.Load() == 2 })
	p.roomFreed()
	waitFor(t, func() bool { return len(p.multiplexed.freed) == 0 })
	g.goOn <- struct{}{}
	g.goOn <- struct{}{}
	for _, conn := range []*Conn{<-first, <-other} {
		if conn == nil || conn.HTTP2 == nil {
			t.Errorf("a request has %+v", conn)
		}
		if conn != nil {
			defer conn.Close()
		}
	}
}

// TestLastPlaceIsTaken: a connection that has served as many requests as it may, of which the last is about to
// say so, serves none more, and ends when they have left; so it does where there were to be more of them.
func TestLastPlaceIsTaken(t *testing.T) {
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", Endpoints: hosts("c", newServer(t).addr), HTTP: HTTP{Protocol: SpeakHTTP2, MaxRequestsPerConnection: 2}})
	conn, err := acquireWeb(c)
	if err != nil {
		t.Fatal(err)
	}
	conn.uses.Store(2)
	if got := conn.pool.takeShared(monotonic()); got != nil {
		t.Fatalf("it serves request %d of 2", got.uses.Load())
	}
	if n := conn.carries.Load(); n != 1 || !conn.condemned.Load() {
		t.Errorf("%d have a place; retired: %v", n, conn.condemned.Load())
	}
	conn.Release()
	waitFor(t, func() bool { return c.conns.Load() == 0 })
}

// TestFailedWhileConnecting: a byte stream to a host that was found to fail while it was made is not opened, where
// those that there are end. One that is opened later is.
func TestFailedWhileConnecting(t *testing.T) {
	g := newGate()
	c := mustUpdate(t, newManager(t, Options{Dial: g.dial}), &Config{Name: "c", Endpoints: hosts("c", newServer(t).addr), CloseOnFailure: true,
		Outlier: &Outlier{Consecutive5xx: 1, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 100}})
	failure := make(chan error, 1)
	go func() {
		conn, err := c.Open(t.Context(), "web", nil, 0)
		if err == nil {
			_ = conn.Close()
		}
		failure <- err
	}()
	<-g.asked
	c.hosts()[0].Report(500)
	g.goOn <- struct{}{}
	var e *Error
	if err := <-failure; !errors.As(err, &e) || e.Kind != ConnectRefused || e.Err != errFailing {
		t.Errorf("%v", err)
	}
	if n := c.conns.Load(); n != 0 {
		t.Errorf("%d connections are counted", n)
	}
	g.goOn <- struct{}{}
	_ = mustOpen(t, c).Close() // in panic
}

// TestTunnelsAreForByteStreams: no request is sent on a connection that carries tunnels, and no tunnel opened on
// one for requests; and only byte streams offer tunnels.
func TestTunnelsAreForByteStreams(t *testing.T) {
	f := newFickle(t)
	f.agrees.Store(true)
	m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
	c := mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{ALPN: []string{TunnelALPN}}, HTTP: HTTP{Protocol: SpeakHTTP2}, Endpoints: hosts("c", f.addr)})
	stream := mustOpen(t, c)
	defer stream.Close()
	p := c.hosts()[0].pool("web", DefaultPriority)
	if conn := p.takeShared(monotonic()); conn != nil {
		t.Errorf("a request is sent by ALPN %q", conn.Info().ALPN)
	}
	p.mu.Lock()
	if !p.alone(true) {
		t.Error("a request may wait for what it cannot have")
	}
	p.mu.Unlock()
	stream.carrier.uncounted = false
	if conn := p.takeSharedBut(nil, true, monotonic()); conn != nil {
		t.Error("a tunnel is opened among requests")
	}
	both := []string{TunnelALPN, "h2"}
	for want, offers := range map[protocol][]string{protocolHTTP1: {"h2"}, protocolHTTP2: {"h2"}, protocolCheck: {"h2"}, protocolBytes: both, protocolTunnel: both} {
		if got := want.offered(both); !slices.Equal(got, offers) {
			t.Errorf("%d offers %q", want, got)
		}
	}
	stream.carrier.uncounted = true
}

// TestChecksOpenNoTunnels: a check by TCP of a host that carries tunnels, over a foreign context which asks for
// them, says its bytes as they are.
func TestChecksOpenNoTunnels(t *testing.T) {
	heard := make(chan string, 10)
	addr := echoUnlessTunnelled(t, heard)
	m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
	check := &HealthCheck{
		Timeout: 5 * time.Second, Interval: time.Hour, NoTraffic: time.Hour, NoTrafficHealthy: time.Hour, Unhealthy: time.Hour,
		UnhealthyEdge: time.Hour, HealthyEdge: time.Hour, UnhealthyThreshold: 1, HealthyThreshold: 1,
		TCP: &TCPCheck{Send: []byte("ping"), Receive: [][]byte{[]byte("ping")}},
	}
	c := mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{ALPN: []string{TunnelALPN}, Context: &tlscontext.Client{}}, Endpoints: hosts("c", addr), HealthCheck: check})
	waitFor(t, func() bool { return c.Stats()[0].CheckAttempts > 0 })
	if got := c.Stats()[0]; got.Check != "passing" {
		t.Errorf("%s: %s", got.Check, got.CheckError)
	}
	if got := <-heard; got != "" {
		t.Errorf("the host agreed on %q", got)
	}
}
