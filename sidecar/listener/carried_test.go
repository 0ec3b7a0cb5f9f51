package listener

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/tokenbucket"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tunnel"
)

// tunnelTLS is a provider that offers tunnels and verifies nothing.
type tunnelTLS struct{ cert tls.Certificate }

func (p tunnelTLS) ServerTLS(string, string, *TLS) (*tls.Config, string, error) {
	return &tls.Config{Certificates: []tls.Certificate{p.cert}, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{cluster.TunnelALPN}}, apiID, nil
}

// greeter says at once which cluster its chain leads to, and then sends back what comes.
type greeter struct {
	echo
	says string
}

func (h greeter) ServeStream(ctx context.Context, c *downstream.Conn) {
	if _, err := io.WriteString(c.Stream, h.says); err == nil {
		h.echo.ServeStream(ctx, c)
	}
	_ = c.Stream.CloseWrite()
	c.Received, c.Sent = 1, 2
}

func newTunnelManager(t *testing.T, with func(*Options)) *Manager {
	return newTestManager(t, func(o *Options) {
		o.TLS = tunnelTLS{selfSigned(t, apiID)}
		o.NewHandler = func(_ *Config, c *FilterChain) (downstream.Handler, error) {
			return tunnel.New(greeter{says: c.TCP.Cluster}, nil), nil
		}
		if with != nil {
			with(o)
		}
	})
}

func tunnelConfig(says string, with ...func(*FilterChain)) *Config {
	cfg := mtlsConfig()
	cfg.Chains[0].Match.ServerNames = nil
	cfg.Chains[0].TCP.Cluster = says
	for _, f := range with {
		f(&cfg.Chains[0])
	}
	return cfg
}

// connectTunnels opens a connection that tunnels go through.
func connectTunnels(t *testing.T, m *Manager, until time.Time) *http2.ClientConn {
	t.Helper()
	s, err := stream.ClientTLS(dial(t, m, "in").(*net.TCPConn), &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{cluster.TunnelALPN}, Certificates: []tls.Certificate{validUntil(t, webID, until)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Handshake(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = s.SetDeadline(time.Time{})
	cc := http2.NewClient(s, http2.ForTunnels())
	done := make(chan struct{})
	go func() { defer close(done); _ = cc.Run() }()
	t.Cleanup(func() { cc.Close(); <-done })
	return cc
}

func validUntil(t *testing.T, id string, until time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(id)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: until.Add(-2 * time.Hour), NotAfter: until, URIs: []*url.URL{u}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// through opens a connection in a tunnel: what its handler says first, or the status or
// error that it is refused with.
func through(cc *http2.ClientConn) (says string, status int, end func(), err error) {
	s, err := cc.Open(&message.Request{Method: "CONNECT", Authority: "a:1", ContentLength: message.UnknownLength}, false)
	if err != nil {
		return "", 0, func() {}, err
	}
	var head message.Response
	if err = s.Flush(); err == nil {
		_, err = s.ReadHead(&head)
	}
	if err != nil || head.Status != 200 {
		s.Close()
		return "", head.Status, func() {}, err
	}
	tun := http2.NewTunnel(s, nil)
	b := make([]byte, 16)
	n, err := tun.Read(b)
	return string(b[:n]), 200, func() { tun.Release() }, err
}

// TestTunnelGetsTheUpdate: a connection that begins after an update is served as it says,
// over a connection of before too; those of before go on.
func TestTunnelGetsTheUpdate(t *testing.T) {
	m := newTunnelManager(t, nil)
	mustApply(t, m, tunnelConfig("old"))
	cc := connectTunnels(t, m, time.Now().Add(time.Hour))
	says, _, end, err := through(cc)
	if err != nil || says != "old" {
		t.Fatal(says, err)
	}
	defer end()
	mustApply(t, m, tunnelConfig("new", func(c *FilterChain) { c.Name = "other" }))
	says, _, endNew, err := through(cc)
	defer endNew()
	if err != nil || says != "new" {
		t.Errorf("after the update: %q %v", says, err)
	}
	m.Remove("in")
	if _, _, _, err := through(cc); !errors.Is(err, http2.ErrRefused) {
		t.Errorf("after the removal: %v", err)
	}
}

// TestTunnelLimits: a tunnelled connection has a place in its chain's limits, and what
// carries it has none besides.
func TestTunnelLimits(t *testing.T) {
	for name, limit := range map[string]func(*FilterChain){
		"connection_limit": func(c *FilterChain) { c.ConnectionLimits = []ConnectionLimit{{Max: 2}} },
		"rate_limit": func(c *FilterChain) {
			c.RateLimits = []RateLimit{{Bucket: tokenbucket.Spec{Max: 2, PerFill: 1, Interval: time.Hour}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTunnelManager(t, nil)
			mustApply(t, m, tunnelConfig("x", limit))
			cc := connectTunnels(t, m, time.Now().Add(time.Hour))
			for range 2 {
				says, status, end, err := through(cc)
				if err != nil || says != "x" {
					t.Fatal(says, status, err)
				}
				defer end()
			}
			if says, status, _, err := through(cc); err != nil || status != 503 {
				t.Errorf("one too many: %q %d %v", says, status, err)
			}
		})
	}
}

// TestTunnelLimitsOfAnUpdate: a limit that came after the connections which carry tunnels
// holds for the first tunnel of each too; where it was there before, that has the place of
// the handshake. None costs a token of a rate again.
func TestTunnelLimitsOfAnUpdate(t *testing.T) {
	limit := func(of int64) func(*FilterChain) {
		return func(c *FilterChain) { c.ConnectionLimits = []ConnectionLimit{{Max: of}} }
	}
	rate := func(c *FilterChain) {
		c.RateLimits = []RateLimit{{Bucket: tokenbucket.Spec{Max: 2, PerFill: 1, Interval: time.Hour}}}
	}
	for name, c := range map[string]struct {
		before, after []func(*FilterChain)
		want          int
	}{
		"none before":    {nil, []func(*FilterChain){limit(1)}, 1},
		"another before": {[]func(*FilterChain){limit(2)}, []func(*FilterChain){limit(1)}, 1},
		"the same":       {[]func(*FilterChain){limit(2), rate}, []func(*FilterChain){limit(2), rate}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTunnelManager(t, nil)
			mustApply(t, m, tunnelConfig("old", c.before...))
			one, two := connectTunnels(t, m, time.Now().Add(time.Hour)), connectTunnels(t, m, time.Now().Add(time.Hour))
			waitFor(t, func() bool { return len(m.Conns()) == 2 })
			mustApply(t, m, tunnelConfig("new", c.after...))
			got := 0
			for _, cc := range []*http2.ClientConn{one, two, one, two} {
				says, status, end, err := through(cc)
				defer end()
				if says == "new" {
					got++
				} else if err != nil || status != 503 {
					t.Errorf("%q %d %v", says, status, err)
				}
			}
			if got != c.want {
				t.Errorf("%d get through, want %d", got, c.want)
			}
		})
	}
}

// TestTunnelPlaceComesBack: a place is free again when its connection has ended.
func TestTunnelPlaceComesBack(t *testing.T) {
	m := newTunnelManager(t, nil)
	mustApply(t, m, tunnelConfig("x", func(c *FilterChain) { c.ConnectionLimits = []ConnectionLimit{{Max: 1}} }))
	cc := connectTunnels(t, m, time.Now().Add(time.Hour))
	for range 3 {
		waitFor(t, func() bool {
			says, _, end, err := through(cc)
			end()
			return err == nil && says == "x"
		})
	}
	cc.Close()
	waitFor(t, func() bool { return m.Serving() == 0 })
}

// TestTunnelOverload: the bounds of the process hold for tunnelled connections too.
func TestTunnelOverload(t *testing.T) {
	ov := overload.New(&overload.Config{MaxConnections: 3}, overload.Options{})
	path := filepath.Join(t.TempDir(), "log")
	logs := telemetry.NewLogs(nil)
	defer logs.Close()
	m := newTunnelManager(t, func(o *Options) { o.Overload, o.Logs = ov, logs })
	cfg := tunnelConfig("x")
	cfg.AccessLog = []telemetry.AccessLogConfig{{Path: path, Format: "%CONNECTION_TERMINATION_DETAILS% %HAUBERK_SRC_ID%"}}
	mustApply(t, m, cfg)
	cc := connectTunnels(t, m, time.Now().Add(time.Hour))
	for range 2 { // and what carries them
		if says, status, end, err := through(cc); err != nil || says != "x" {
			t.Fatal(says, status, err)
		} else {
			defer end()
		}
	}
	if says, status, _, err := through(cc); err != nil || status != 503 {
		t.Errorf("one too many: %q %d %v", says, status, err)
	}
	logs.Flush()
	if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), " spiffe://") || strings.Count(string(b), "\n") != 1 || strings.HasPrefix(string(b), "-") {
		t.Errorf("the listener's log: %q %v", b, err)
	}
}

// TestTunnelOfAnExpiredCertificate: it brings no new connections, and keeps those that it
// has, as connections do.
func TestTunnelOfAnExpiredCertificate(t *testing.T) {
	m := newTunnelManager(t, nil)
	mustApply(t, m, tunnelConfig("x"))
	late := connectTunnels(t, m, time.Now().Add(-time.Minute))
	if says, _, _, err := through(late); !errors.Is(err, http2.ErrRefused) {
		t.Errorf("%q %v", says, err)
	}
	cc := connectTunnels(t, m, time.Now().Add(time.Hour))
	says, _, end, err := through(cc)
	if err != nil || says != "x" {
		t.Fatal(says, err)
	}
	defer end()
	m.expire(time.Now().Add(2*time.Hour), map[uint64]bool{})
	waitFor(t, func() bool { return !cc.Usable() })
	for _, c := range m.Conns() {
		if !c.Draining() {
			t.Error("a connection that carries tunnels outlives its certificate")
		}
	}
}

// TestTunnelsAreCounted: the listener logs and counts the connections, and not what
// carries them.
func TestTunnelsAreCounted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	logs := telemetry.NewLogs(nil)
	defer logs.Close()
	m := newTunnelManager(t, func(o *Options) { o.Logs = logs })
	cfg := tunnelConfig("x")
	cfg.AccessLog = []telemetry.AccessLogConfig{{Path: path, Format: "%BYTES_RECEIVED% %BYTES_SENT%"}}
	mustApply(t, m, cfg)
	cc := connectTunnels(t, m, time.Now().Add(time.Hour))
	for range 3 {
		_, _, end, err := through(cc)
		if err != nil {
			t.Fatal(err)
		}
		end()
	}
	waitFor(t, func() bool { return m.Serving() == 1 })
	var text strings.Builder
	if err := m.opts.Metrics.Registry.WriteUsed(&text); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"hauberk_connections_total": "3", "hauberk_connections_open": "0", "hauberk_connection_duration_seconds_count": "3"} {
		found := ""
		for line := range strings.Lines(text.String()) {
			if strings.HasPrefix(line, name+"{") {
				found += line
			}
		}
		if strings.Count(found, "\n") != 1 || !strings.HasSuffix(found, "} "+want+"\n") {
			t.Errorf("%s: %q, want %s", name, found, want)
		}
	}
	cc.Close()
	waitFor(t, func() bool { return m.Serving() == 0 })
	logs.Flush()
	b, err := os.ReadFile(path)
	if lines := strings.Fields(strings.ReplaceAll(string(b), "1 2", "x")); err != nil || strings.Join(lines, "") != "xxx" {
		t.Errorf("the listener's log: %q %v", b, err)
	}
}

// TestTunnelCountsForItsService: after an update that has the listener belong to another
// service, what comes through a connection of before counts for that one.
func TestTunnelCountsForItsService(t *testing.T) {
	m := newTunnelManager(t, nil)
	of := func(service string) *Config {
		cfg := tunnelConfig("x")
		cfg.Service, cfg.Workload = service, apiID
		return cfg
	}
	mustApply(t, m, of("old"))
	cc := connectTunnels(t, m, time.Now().Add(time.Hour))
	for _, service := range []string{"old", "new"} {
		mustApply(t, m, of(service))
		_, _, end, err := through(cc)
		if err != nil {
			t.Fatal(err)
		}
		end()
	}
	waitFor(t, func() bool { return m.Serving() == 1 })
	var text strings.Builder
	if err := m.opts.Metrics.Registry.WriteUsed(&text); err != nil {
		t.Fatal(err)
	}
	for _, service := range []string{"old", "new"} {
		for name, want := range map[string]string{"hauberk_connections_total": "1", "hauberk_connections_open": "0"} {
			line := name + `{direction="unspecified",service="` + service + `",peer="web"} ` + want + "\n"
			if !strings.Contains(text.String(), line) {
				t.Errorf("not counted: %s", line)
			}
		}
	}
	if t.Failed() {
		t.Log(text.String())
	}
}

// TestStreamThatIsNoTunnel: what asks for something else over a connection that carries tunnels is
// refused, logged and counted.
func TestStreamThatIsNoTunnel(t *testing.T) {
	metrics := telemetry.NewMetrics()
	logs := telemetry.NewLogs(metrics)
	t.Cleanup(logs.Close)
	m := newTunnelManager(t, func(o *Options) { o.Metrics, o.Logs = metrics, logs })
	path := filepath.Join(t.TempDir(), "log")
	cfg := tunnelConfig("x")
	cfg.AccessLog = []telemetry.AccessLogConfig{{Path: path, Format: "%CONNECTION_TERMINATION_DETAILS%\n"}}
	mustApply(t, m, cfg)
	cc := connectTunnels(t, m, time.Now().Add(time.Hour))
	s, err := cc.Open(&message.Request{Method: "GET", Scheme: "https", Authority: "a:1", Path: "/"}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var head message.Response
	if _, err := s.ReadHead(&head); err != nil || head.Status != 405 {
		t.Errorf("%d %v, want 405", head.Status, err)
	}
	logs.Flush()
	if line, err := os.ReadFile(path); string(line) != "no_tunnel\n" {
		t.Errorf("logged %q %v", line, err)
	}
	var text strings.Builder
	_ = metrics.Registry.WritePrometheus(&text)
	if want := `hauberk_connections_refused_total{listener="in",reason="no_tunnel"} 1`; !strings.Contains(text.String(), want) {
		t.Errorf("no %s", want)
	}
}

// logging has refusals logged to a file, and tells how many lines it has.
func logging(t *testing.T) (m *Manager, with func(says string) *Config, lines func() int) {
	logs := telemetry.NewLogs(nil)
	t.Cleanup(logs.Close)
	m = newTunnelManager(t, func(o *Options) { o.Logs = logs })
	path := filepath.Join(t.TempDir(), "log")
	with = func(says string) *Config {
		cfg := tunnelConfig(says)
		cfg.Chains[0].ConnectionLimits = []ConnectionLimit{{Max: 1}}
		cfg.AccessLog = []telemetry.AccessLogConfig{{Path: path, Format: "%CONNECTION_TERMINATION_DETAILS%\n"}}
		return cfg
	}
	return m, with, func() int {
		logs.Flush()
		b, _ := os.ReadFile(path)
		return strings.Count(string(b), "\n")
	}
}

// tracks is the only connection.
func tracks(t *testing.T, m *Manager) *tracked {
	t.Helper()
	waitFor(t, func() bool { return len(m.listeners["in"].established()) == 1 })
	return m.listeners["in"].established()[0]
}

// TestStreamThatIsNoTunnelOfARemovedChain: it is logged though the chain that took the place of the
// connection's is gone too.
func TestStreamThatIsNoTunnelOfARemovedChain(t *testing.T) {
	m, with, lines := logging(t)
	mustApply(t, m, with("first"))
	connectTunnels(t, m, time.Now().Add(time.Hour))
	carrier := tracks(t, m)
	carrier.snap.refs.Add(1) // the connection, which the update ends, waits for its streams
	defer carrier.snap.release()
	mustApply(t, m, with("second"))
	none := with("third")
	none.Chains[0].Match.ServerNames = []string{"another"}
	mustApply(t, m, none)
	carrier.Refuse("no_tunnel")
	if n := lines(); n != 1 {
		t.Errorf("%d lines, want 1", n)
	}
}

// TestRefusalsDuringUpdates: what a limit refuses is logged, whatever becomes of the limit's chain
// meanwhile.
func TestRefusalsDuringUpdates(t *testing.T) {
	m, with, lines := logging(t)
	mustApply(t, m, with("x"))
	connectTunnels(t, m, time.Now().Add(time.Hour))
	carrier := tracks(t, m)
	first, _ := carrier.Carry()
	defer first.Owner.Finished(nil)
	refused := make(chan int)
	go func() {
		n := 0
		for range 5000 {
			if _, why := carrier.Carry(); why == downstream.Busy {
				n++
			}
		}
		refused <- n
	}()
	for {
		select {
		case want := <-refused:
			if n := lines(); n != want || want == 0 {
				t.Errorf("%d lines of %d refusals", n, want)
			}
			return
		default:
			mustApply(t, m, with("x"))
			mustApply(t, m, with("y"))
		}
	}
}
