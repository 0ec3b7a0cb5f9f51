package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

func ofWeb(source string, _ *stream.Info) bool { return source == "web" }

// TestCloseConnsOfTheDeparted: a withdrawal ends the connections to hosts and of clusters
// that have gone; nothing is known of those without connections.
func TestCloseConnsOfTheDeparted(t *testing.T) {
	s := newServer(t)
	eds := Config{Name: "c", Type: EDS, Endpoints: hosts("c", s.addr)}
	for name, tc := range map[string]struct {
		cfg    Config
		depart func(m *Manager) error
	}{
		"its host left EDS":       {eds, func(m *Manager) error { return m.SetEndpoints(&Assignment{Cluster: "c"}) }},
		"its cluster was removed": {eds, func(m *Manager) error { m.Remove("c"); return nil }},
		"its cluster is another":  {eds, func(m *Manager) error { return m.Update(&Config{Name: "c", Type: OriginalDestination}) }},
		"its host is another": {eds, func(m *Manager) error {
			return m.Update(&Config{Name: "c", Type: EDS, Sockets: []SocketMatch{{Name: "another"}}})
		}},
		"its destination was lost": {Config{Name: "c", Type: OriginalDestination}, func(m *Manager) error { m.Remove("c"); return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, Options{})
			c := mustUpdate(t, m, &tc.cfg)
			h, err := c.PickFor(&PickContext{Destination: netip.MustParseAddrPort(s.addr)})
			if err != nil {
				t.Fatal(err)
			}
			take := func(source string) *Conn {
				conn, err := h.Acquire(withTimeout(5*time.Second), source, nil, false, DefaultPriority, monotonic(), 0)
				if err != nil {
					t.Fatal(err)
				}
				return conn
			}
			web, other := take("web"), take("api")
			if err := tc.depart(m); err != nil {
				t.Fatal(err)
			}
			late := take("web") // whoever chose the host before it went
			if n := m.CloseConns(ofWeb); n != 2 || !web.closed.Load() || !late.closed.Load() || other.closed.Load() {
				t.Errorf("%d connections were closed", n)
			}
			if n := len(m.departed.all(nil)); n != 1 {
				t.Errorf("%d hosts are known that have gone and have connections", n)
			}
			other.Release()
			if n := len(m.departed.all(nil)); n != 0 {
				t.Errorf("%d hosts are known that have gone and have no connection", n)
			}
		})
	}
}

// handshakes are TLS handshakes that a host holds up: each tells the server's name that it
// asks for, and goes on when it is let.
type handshakes struct {
	addr  string
	asked chan string
	goOn  chan struct{}
}

func newHandshakes(t *testing.T, protocols ...string) *handshakes {
	source := httptest.NewTLSServer(nil)
	t.Cleanup(source.Close)
	hs := &handshakes{asked: make(chan string), goOn: make(chan struct{})}
	var wg sync.WaitGroup
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: source.TLS.Certificates, NextProtos: protocols,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			hs.asked <- hello.ServerName
			<-hs.goOn
			return nil, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	hs.addr = l.Addr().String()
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				_, _ = io.Copy(io.Discard, nc)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return hs
}

// overtaken are the ways to a connection that has to be made.
var overtaken = map[string]struct {
	http Protocol
	open func(c *Cluster) (*Conn, error)
}{
	"HTTP/1": {SpeakHTTP1, acquireWeb},
	"HTTP/2": {SpeakHTTP2, acquireWeb},
	"ALPN":   {SpeakAuto, acquireWeb},
	"bytes": {SpeakHTTP1, func(c *Cluster) (*Conn, error) {
		return c.Open(context.Background(), "web", nil, 0)
	}},
}

func acquireWeb(c *Cluster) (*Conn, error) {
	return c.hosts()[0].Acquire(withTimeout(5*time.Second), "web", nil, true, DefaultPriority, monotonic(), 0)
}

// TestWithdrawnWhileConnecting: a connection that a withdrawal overtook is never used.
func TestWithdrawnWhileConnecting(t *testing.T) {
	for name, tc := range overtaken {
		t.Run(name, func(t *testing.T) {
			hs := newHandshakes(t, "h2", "http/1.1")
			m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
			c := mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{SNI: "one"}, HTTP: HTTP{Protocol: tc.http}, Endpoints: hosts("c", hs.addr),
				Outlier: &Outlier{Consecutive5xx: 1, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 100}})
			failure := make(chan error, 1)
			go func() {
				conn, err := tc.open(c)
				if err == nil {
					_ = conn.Close()
				}
				failure <- err
			}()
			<-hs.asked
			_ = m.CloseConns(ofWeb)
			hs.goOn <- struct{}{}
			var e *Error
			if err := <-failure; !errors.As(err, &e) || e.Kind != TLSFailure || e.Err != errWithdrawn || e.OfHost() || c.hosts()[0].ejected() {
				t.Errorf("%v", err)
			}
			if n := c.conns.Load(); n != 0 || c.Stats()[0].Connections != 0 {
				t.Errorf("%d connections are counted", n)
			}
		})
	}
}

// TestTrustChangedWhileConnecting: a connection whose peer was verified under a TLS context
// that is no longer in force is made again.
func TestTrustChangedWhileConnecting(t *testing.T) {
	for name, tc := range overtaken {
		t.Run(name, func(t *testing.T) {
			hs := newHandshakes(t, "h2", "http/1.1")
			m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
			with := func(sni string) *Cluster {
				return mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{SNI: sni}, HTTP: HTTP{Protocol: tc.http}, Endpoints: hosts("c", hs.addr)})
			}
			c := with("one")
			got := make(chan *Conn, 1)
			go func() {
				conn, err := tc.open(c)
				if err != nil {
					t.Error(err)
				}
				got <- conn
			}()
			<-hs.asked
			with("two")
			hs.goOn <- struct{}{}
			if name := <-hs.asked; name != "two" {
				t.Errorf("made again for %q", name)
			}
			hs.goOn <- struct{}{}
			conn := <-got
			if !conn.current() {
				t.Error("the connection is the one before")
			}
			waitFor(t, func() bool { return c.conns.Load() == 1 }) // a shared one ends on its reader's goroutine
			_ = conn.Close()
			if n := c.conns.Load(); n != 0 {
				t.Errorf("%d connections are counted", n)
			}
		})
	}
}

// TestWithdrawalsReachChecks: a check's connection presents an identity too. The next check
// makes another.
func TestWithdrawalsReachChecks(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			var made, ended atomic.Int64
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			srv.EnableHTTP2 = true
			srv.Config.ConnState = func(_ net.Conn, st http.ConnState) {
				switch st {
				case http.StateNew:
					made.Add(1)
				case http.StateClosed:
					ended.Add(1)
				}
			}
			srv.StartTLS()
			defer srv.Close()
			m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}, Source: func(string) string { return "web" }})
			check := every(&HTTPCheck{Path: "/", HTTP2: http2})
			check.Interval, check.NoTrafficHealthy = 100*time.Millisecond, 100*time.Millisecond
			c := mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{SNI: "x"}, HealthCheck: check, Endpoints: hosts("c", srv.Listener.Addr().String())})
			waitFor(t, func() bool { return c.Stats()[0].CheckAttempts > 1 })
			if n := made.Load(); n != 1 {
				t.Errorf("%d connections for checks that share one", n)
			}
			if n := m.CloseConns(func(source string, _ *stream.Info) bool { return source == "api" }); n != 0 {
				t.Errorf("%d connections were closed, of another identity", n)
			}
			if n := m.CloseConns(ofWeb); n != 1 {
				t.Errorf("%d connections were closed", n)
			}
			waitFor(t, func() bool { return ended.Load() == 1 })
			before := c.Stats()[0].CheckAttempts
			waitFor(t, func() bool { return c.Stats()[0].CheckAttempts > before+1 })
			if st := c.Stats()[0]; st.Check != "passing" || made.Load() != 2 {
				t.Errorf("%d connections were made; the check is %s: %s", made.Load(), st.Check, st.CheckError)
			}
		})
	}
}

// TestWithdrawnWhileChecking: a check's connection that a withdrawal overtook is not used, and
// says nothing of the host.
func TestWithdrawnWhileChecking(t *testing.T) {
	hs := newHandshakes(t, "h2", "http/1.1")
	m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}, Source: func(string) string { return "web" }})
	c := mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{SNI: "x"}, HealthCheck: every(&HTTPCheck{Path: "/"}), Endpoints: hosts("c", hs.addr)})
	<-hs.asked
	_ = m.CloseConns(ofWeb)
	hs.goOn <- struct{}{}
	waitFor(t, func() bool { return c.Stats()[0].CheckError != "" })
	if st := c.Stats()[0]; st.CheckError != errWithdrawn.Error() || st.CheckAttempts != 0 {
		t.Errorf("%+v", st)
	}
	m.Remove("c")
}
