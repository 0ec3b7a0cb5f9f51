package cluster

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// TestDestinationsAreCounted: the hosts that clients' destinations make are the cluster's
// endpoints, and those of before are not.
func TestDestinationsAreCounted(t *testing.T) {
	metrics := telemetry.NewMetrics()
	m := NewManager(Options{Metrics: metrics})
	defer m.Close()
	healthy := func(when string, want int) {
		t.Helper()
		var b strings.Builder
		if err := metrics.Registry.WritePrometheus(&b); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), `hauberk_upstream_endpoints{cluster="c",state="healthy"} `+strconv.Itoa(want)+"\n") {
			t.Errorf("%s: not %d in\n%s", when, want, b.String())
		}
	}
	c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1", "10.0.0.2", "10.0.0.3")})
	healthy("static", 3)
	mustUpdate(t, m, &Config{Name: "c", Type: OriginalDestination})
	healthy("before the first", 0)
	for _, to := range []string{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:80"} {
		if _, err := c.PickFor(&PickContext{Destination: netip.MustParseAddrPort(to)}); err != nil {
			t.Fatal(err)
		}
	}
	healthy("two destinations", 2)
	c.destinations.drop(func(h *Host) bool { return h.Address() == "10.0.0.1:80" })
	healthy("one is forgotten", 1)
}

// TestDestinationOfTheTypeBefore: a host that a request chose while its cluster was turned into one of
// another type is known to withdrawals, and keeps no connection.
func TestDestinationOfTheTypeBefore(t *testing.T) {
	s := newServer(t)
	m := newManager(t, Options{})
	c := mustUpdate(t, m, &Config{Name: "c", Type: OriginalDestination})
	before := c.cfg.Load()
	mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1")})
	h := c.destinations.pick(before, &PickContext{Destination: netip.MustParseAddrPort(s.addr)})
	if h == nil {
		t.Fatal("the request has no host")
	}
	acquire := func() *Conn {
		t.Helper()
		conn, err := h.Acquire(withTimeout(5*time.Second), "web", nil, false, DefaultPriority, monotonic(), 0)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	conn := acquire()
	if conn.Release(); !conn.closed.Load() {
		t.Error("a connection is kept for nobody")
	}
	conn = acquire()
	defer conn.Close()
	if n := m.CloseConns(func(string, *stream.Info) bool { return true }); n != 1 {
		t.Errorf("a withdrawal found %d connections", n)
	}
}

// TestSocketOfDestinations: a destination that is known is reached over the transport socket that there
// is now.
func TestSocketOfDestinations(t *testing.T) {
	m := newManager(t, Options{TLS: noTLS{}})
	with := func(sni string) *Config {
		return &Config{Name: "c", Type: OriginalDestination, Sockets: []SocketMatch{{Name: sni, TLS: &TLS{SNI: sni}}}}
	}
	c := mustUpdate(t, m, with("one"))
	pick := func() *Host {
		t.Helper()
		h, err := c.PickFor(&PickContext{Destination: netip.MustParseAddrPort("10.0.0.1:80")})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	h := pick()
	if mustUpdate(t, m, with("one")); pick() != h {
		t.Error("an equal configuration lost the host")
	}
	before := c.cfg.Load()
	mustUpdate(t, m, with("two"))
	late := c.destinations.pick(before, &PickContext{Destination: netip.MustParseAddrPort("10.0.0.2:80")})
	for _, now := range []*Host{pick(), late} {
		if got := now.tls(c.cfg.Load()).SNI; got != "two" {
			t.Errorf("%s is asked for %q", now.key, got)
		}
	}
	if !h.gone.Load() {
		t.Error("the host keeps its connections")
	}
}

// TestConnectionsOfDestinations: what ends the idle connections of a cluster ends those to clients'
// destinations too.
func TestConnectionsOfDestinations(t *testing.T) {
	bind := &Bind{Options: nil, From: []BindAddress{{Addr: netip.MustParseAddr("127.0.0.1")}}}
	for name, next := range map[string]*Config{
		"another protocol":       {Name: "c", Type: OriginalDestination, HTTP: HTTP{Protocol: SpeakHTTP2}},
		"another source address": {Name: "c", Type: OriginalDestination, Bind: bind},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			m := newManager(t, Options{})
			c := mustUpdate(t, m, &Config{Name: "c", Type: OriginalDestination})
			h, err := c.PickFor(&PickContext{Destination: netip.MustParseAddrPort(s.addr)})
			if err != nil {
				t.Fatal(err)
			}
			conn, err := h.Acquire(withTimeout(5*time.Second), "web", nil, false, DefaultPriority, monotonic(), 0)
			if err != nil {
				t.Fatal(err)
			}
			conn.Release()
			if mustUpdate(t, m, next); !conn.closed.Load() {
				t.Error("it goes on, and nobody can have it")
			}
		})
	}
}
