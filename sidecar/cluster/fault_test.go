package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/handshake"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/panics/panicstest"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// faultyTLS panics where a handshake is made.
type faultyTLS struct{}

func (faultyTLS) ClientTLS(string, string, *TLS) (*tls.Config, *handshake.Own, error) { panic("TLS") }

func connTo(h *Host) (*Conn, error) {
	return h.Acquire(func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), 5*time.Second)
	}, "", nil, true, DefaultPriority, monotonic(), 0)
}

// TestFaultOfADial: it is that of a connection that cannot be made, and who else waits
// for one may make it.
func TestFaultOfADial(t *testing.T) {
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) { panic("dial") }
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, tc := range map[string]struct {
		opts Options
		cfg  Config
	}{
		"HTTP/1":    {Options{Dial: dial}, Config{}},
		"HTTP/2":    {Options{Dial: dial}, Config{HTTP: HTTP{Protocol: SpeakHTTP2}}},
		"handshake": {Options{TLS: faultyTLS{}}, Config{TLS: &TLS{SNI: "example.com"}}},
	} {
		t.Run(name, func(t *testing.T) {
			panicstest.Expect(t, panics.Dial, 2)
			tc.cfg.Name, tc.cfg.ConnectTimeout, tc.cfg.Endpoints = "c", time.Second, hosts("c", l.Addr().String())
			tc.cfg.Limits.MaxConnections = 1
			c := mustUpdate(t, newManager(t, tc.opts), &tc.cfg)
			for range 2 {
				var e *Error
				if _, err := connTo(c.hosts()[0]); !errors.As(err, &e) || e.Kind != ConnectRefused && e.Kind != TLSFailure {
					t.Errorf("%v", err)
				}
			}
			if b, _ := c.breakerOf(DefaultPriority); b.conns.Load() != 0 || b.pending.Load() != 0 {
				t.Errorf("%d connections and %d waiting", b.conns.Load(), b.pending.Load())
			}
		})
	}
}

// TestFaultOfASharedConnection: its requests fail, and the next one gets another.
func TestFaultOfASharedConnection(t *testing.T) {
	panicstest.Expect(t, panics.HTTP2Reader, 1)
	addr, _ := settingsHost(t, 100, nil)
	c := mustUpdate(t, newManager(t, Options{}), &Config{
		Name: "c", ConnectTimeout: time.Second, HTTP: HTTP{Protocol: SpeakHTTP2}, Endpoints: hosts("c", addr),
	})
	first, err := connTo(c.hosts()[0])
	if err != nil {
		t.Fatal(err)
	}
	fault := true
	first.HTTP2.OnFree(func() { // on the connection's reader, which holds its lock
		if fault {
			fault = false
			panic("free")
		}
	})
	s, err := first.HTTP2.Open(&message.Request{Method: "GET", Scheme: "http", Authority: "h", Path: "/"}, true)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Flush()
	var r message.Response
	_, err = s.ReadHead(&r)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if !first.HTTP2.Usable() && err != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	next, err := connTo(c.hosts()[0])
	if err != nil || next == first {
		t.Fatalf("the next request: the same connection, or %v", err)
	}
	next.Release()
}

// TestFaultOfAHealthCheck: it is a check that was not answered; others are made.
func TestFaultOfAHealthCheck(t *testing.T) {
	panicstest.Expect(t, panics.HealthCheck, 2)
	synctest.Test(t, func(t *testing.T) {
		m := NewManager(Options{})
		defer m.Close()
		checks := 0
		m.openCheck = func(context.Context, *pool, *settings, protocol) (stream.Stream, Kind, error) {
			if checks++; checks <= 2 {
				panic("check")
			}
			return nil, ConnectRefused, errors.New("refused")
		}
		mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1"), HealthCheck: every(&HTTPCheck{Path: "/"})})
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if h := m.Get("c").hosts()[0]; checks < 3 || h.check.state.Load()&checkFailed == 0 {
			t.Errorf("%d checks; the host passes", checks)
		}
	})
}
