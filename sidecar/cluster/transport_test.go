package cluster

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestSourceAndKeepAlive(t *testing.T) {
	s := newServer(t)
	own := netip.MustParseAddr("127.0.0.77")
	c := mustUpdate(t, newManager(t, Options{}), &Config{
		Name: "c", Endpoints: hosts("c", s.addr), Bind: &Bind{From: []BindAddress{{Addr: own}}},
		TCP: &TCPKeepAlive{Idle: 33 * time.Second, Interval: 7 * time.Second, Probes: 4},
	})
	conn := acquire(t, c, "web")
	defer conn.Close()
	peer := s.accepted(t, 1)[0]
	if host, _, _ := net.SplitHostPort(peer.RemoteAddr().String()); host != "127.0.0.77" {
		t.Errorf("it came from %s", host)
	}
	nc, err := c.hosts()[0].connect(t.Context(), c.cfg.Load())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	raw, _ := nc.(syscall.Conn).SyscallConn()
	_ = raw.Control(func(fd uintptr) {
		for opt, want := range map[int]int{unix.TCP_KEEPIDLE: 33, unix.TCP_KEEPINTVL: 7, unix.TCP_KEEPCNT: 4} {
			if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, opt); err != nil || got != want {
				t.Errorf("option %d is %d (%v), not %d", opt, got, err, want)
			}
		}
	})
}

// TestSharedConnectionLifetime: the request that a shared connection is made for counts
// against how many it takes.
func TestSharedConnectionLifetime(t *testing.T) {
	for most := 1; most <= 3; most++ {
		s := newServer(t)
		c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", Endpoints: hosts("c", s.addr),
			HTTP: HTTP{Protocol: SpeakHTTP2, MaxRequestsPerConnection: most}})
		first := acquire(t, c, "web")
		for range most - 1 {
			if next := acquire(t, c, "web"); next != first {
				t.Errorf("a connection for %d requests takes fewer", most)
			} else {
				next.Release()
			}
		}
		if next := acquire(t, c, "web"); next == first {
			t.Errorf("a connection for %d requests takes another", most)
		}
		first.Release()
		waitFor(t, first.closed.Load)
	}
}

func TestConnectionLifetime(t *testing.T) {
	s := newServer(t)
	m := newManager(t, Options{})
	c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", s.addr), HTTP: HTTP{MaxRequestsPerConnection: 2}})
	a := acquire(t, c, "web")
	a.Release()
	if b := acquire(t, c, "web"); b != a {
		t.Fatal("not reused for its second request")
	}
	a.Release()
	if b := acquire(t, c, "web"); b == a {
		t.Error("reused for a third request of two")
	}
	ended(t, s.accepted(t, 2)[0])

	c = mustUpdate(t, m, &Config{Name: "d", Endpoints: hosts("d", s.addr), HTTP: HTTP{MaxConnectionDuration: 20 * time.Millisecond}})
	a = acquire(t, c, "web")
	waitFor(t, func() bool { return monotonic() > a.until })
	a.Release()
	ended(t, s.accepted(t, 3)[2])
	a = acquire(t, c, "web")
	a.Release()
	a.idleSince -= int64(3 * time.Second)
	waitFor(t, func() bool { return monotonic() > a.until })
	c.tick(monotonic())
	ended(t, s.accepted(t, 4)[3])
	for range 100 {
		if d := jittered(time.Second, 10); d < time.Second || d > 1100*time.Millisecond {
			t.Fatalf("%v is not a second and up to 10 %%", d)
		}
	}
}

func TestCloseOnChange(t *testing.T) {
	s := newServer(t)
	m := newManager(t, Options{})
	c := mustUpdate(t, m, &Config{Name: "c", Type: EDS, CloseOnChange: true})
	_ = m.SetEndpoints(hosts("c", s.addr))
	idle, busy := acquire(t, c, "web"), acquire(t, c, "web")
	idle.Release()
	conns := s.accepted(t, 2)
	_ = m.SetEndpoints(hosts("c", s.addr+" weight=2"))
	if _, err := idle.Write([]byte("x")); err != nil {
		t.Error("a change of weight closed a connection")
	}
	_ = m.SetEndpoints(hosts("c", s.addr, "127.0.0.1:1"))
	_, _ = conns[0].Read(make([]byte, 1))
	ended(t, conns[0])
	if _, err := busy.Write([]byte("x")); err != nil {
		t.Error("an exchange in flight was cut")
	}
	busy.Release()
	_, _ = conns[1].Read(make([]byte, 1))
	ended(t, conns[1])
}

// TestCloseOnFailure: with a host that is found to fail its byte streams end, those in tunnels too.
// Its requests are answered, as behind Envoy: the answer that tells of the failure is one of theirs.
func TestCloseOnFailure(t *testing.T) {
	terms := func(c *Config) *Config {
		out := *c
		out.CloseOnFailure = true
		out.Outlier = &Outlier{Consecutive5xx: 1, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 100}
		return &out
	}
	s := newServer(t)
	m := newManager(t, Options{})
	c := mustUpdate(t, m, terms(&Config{Name: "c", Endpoints: hosts("c", s.addr)}))
	plain, err := c.Open(t.Context(), "web", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	busy, idle := acquire(t, c, "web"), acquire(t, c, "web")
	idle.Release()
	busy.Host().Report(500)
	if !plain.closed.Load() {
		t.Error("a byte stream went on")
	}
	waitFor(t, idle.closed.Load)
	if _, err := busy.Write([]byte("x")); err != nil {
		t.Errorf("an exchange in flight was cut: %v", err)
	}
	if busy.Release(); !busy.closed.Load() {
		t.Error("another exchange may have its connection")
	}

	tunnels := tunnelHost(t, time.Second, agrees)
	mustUpdate(t, tunnels.m, terms(tunnels.Config()))
	tunnel, err := tunnels.Open(t.Context(), "web", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tunnel.Close()
	tunnel.Host().Report(500)
	if _, err := tunnel.Read(make([]byte, 1)); err == nil || !tunnel.carrier.closed.Load() {
		t.Errorf("a tunnel went on: %v", err)
	}
}

// TestSocketOfALocality: where an endpoint's metadata choose no transport socket, those of its locality
// do: what is to be told over TLS is not told without.
func TestSocketOfALocality(t *testing.T) {
	own := func(mode string) map[string]map[string]any {
		return map[string]map[string]any{SocketNamespace: {"tls": mode}}
	}
	secured := map[string]any{"tls": "on"}
	m := newManager(t, Options{TLS: noTLS{}})
	for name, tc := range map[string]struct {
		metadata map[string]map[string]any
		locality map[string]any
		check    map[string]any // what a check has in place of metadata
		want     string         // of requests, "" for the cluster's own
		checks   string
	}{
		"nothing":                       {nil, nil, nil, "", ""},
		"the locality's":                {nil, secured, nil, "on", "on"},
		"the endpoint's before":         {own("off"), secured, nil, "off", "off"},
		"the endpoint's choose none":    {own("other"), secured, nil, "on", "on"},
		"the locality's choose none":    {nil, map[string]any{"tls": "other"}, nil, "", ""},
		"a check's own":                 {nil, secured, map[string]any{"tls": "off"}, "on", "off"},
		"a check's own that chose none": {own("off"), secured, map[string]any{"tls": "other"}, "off", "on"},
	} {
		t.Run(name, func(t *testing.T) {
			a := hosts("c", "10.0.0.1")
			e := &a.Localities[0].Endpoints[0]
			e.Metadata, e.OfLocality = tc.metadata, tc.locality
			c := mustUpdate(t, m, &Config{Name: "c", Endpoints: a, Sockets: []SocketMatch{
				{Name: "off", Match: map[string]any{"tls": "off"}}, {Name: "on", Match: secured, TLS: &TLS{SNI: "on"}},
			}})
			name := func(s *SocketMatch) string {
				if s == nil {
					return ""
				}
				return s.Name
			}
			h := c.hosts()[0]
			if got := name(h.socket); got != tc.want || (h.tls(c.cfg.Load()) != nil) != (got == "on") {
				t.Errorf("requests have socket %q", got)
			}
			have := tc.check
			if have == nil {
				have = e.Metadata[SocketNamespace]
			}
			if got := name(c.Config().socketMatching(have, e)); got != tc.checks {
				t.Errorf("checks have socket %q", got)
			}
		})
	}
}

// TestSocketMatches: an endpoint's metadata chooses its transport socket, and a
// host with another socket is another host.
func TestSocketMatches(t *testing.T) {
	m := newManager(t, Options{TLS: noTLS{}})
	with := func(mode string) *Assignment {
		a := hosts("c", "10.0.0.1")
		if mode != "" {
			a.Localities[0].Endpoints[0].Metadata = map[string]map[string]any{"envoy.transport_socket_match": {"tls": mode, "other": 1.0}}
		}
		return a
	}
	base, one := &TLS{SNI: "base"}, &TLS{SNI: "one"}
	cfg := func() *Config {
		return &Config{Name: "c", Type: EDS, TLS: base, Sockets: []SocketMatch{
			{Name: "plain", Match: map[string]any{"tls": "off"}}, {Name: "one", Match: map[string]any{"tls": "one"}, TLS: one},
		}}
	}
	c := mustUpdate(t, m, cfg())
	var last *Host
	for _, tc := range []struct {
		mode, name string
		want       *TLS
	}{{"", "", base}, {"off", "plain", nil}, {"one", "one", one}, {"none", "", base}} {
		if err := m.SetEndpoints(with(tc.mode)); err != nil {
			t.Fatal(err)
		}
		h := c.hosts()[0]
		if got := h.tls(c.cfg.Load()); got != tc.want || c.Stats()[0].Socket != tc.name {
			t.Errorf("%q: %+v, socket %q", tc.mode, got, c.Stats()[0].Socket)
		}
		if last != nil && (h == last || !last.gone.Load()) {
			t.Errorf("%q: the host kept the connections of another socket", tc.mode)
		}
		last = h
	}
	// The same sockets, decoded again, change nothing.
	_ = m.SetEndpoints(with("one"))
	last = c.hosts()[0]
	if mustUpdate(t, m, cfg()); c.hosts()[0] != last {
		t.Error("an equal configuration lost the host")
	}
	changed := cfg()
	changed.Sockets[1].TLS = &TLS{SNI: "two"}
	generation := c.cfg.Load().tlsGeneration
	if mustUpdate(t, m, changed); c.hosts()[0] == last || c.cfg.Load().tlsGeneration == generation {
		t.Error("a changed socket kept the host and its connections")
	}
	if err := newManager(t, Options{}).Update(cfg()); err == nil {
		t.Error("TLS was taken without a source of certificates")
	}
}

func TestPrioritiesOfLimits(t *testing.T) {
	c := mustUpdate(t, newManager(t, Options{}), &Config{
		Name: "c", Limits: Limits{MaxRequests: 1, MaxRetries: 1, TrackRemaining: true}, HighLimits: &Limits{MaxRequests: 2, MaxRetries: 2, TrackRemaining: true},
	})
	remaining := func() map[string]float64 {
		out := map[string]float64{}
		c.remaining(func(v float64, labels ...string) { out[labels[1]+" "+labels[2]] = v })
		return out
	}
	if !c.StartRequest(0) || c.StartRequest(0) || !c.StartRequestAt(HighPriority, 0) || !c.StartRequestAt(HighPriority, 0) || c.StartRequestAt(HighPriority, 0) {
		t.Error("the priorities share a limit")
	}
	if !c.StartRetry(0) || c.StartRetry(0) || !c.StartRetryAt(HighPriority, 0, 0) {
		t.Error("the priorities share retries")
	}
	got := remaining()
	want := map[string]float64{"default requests": 0, "default retries": 0, "high requests": 0, "high retries": 1}
	for k, v := range want {
		if got[k] != v || len(got) != len(want) {
			t.Errorf("%s: %v of %v", k, got[k], got)
		}
	}
	c.EndRequestAt(HighPriority)
	c.EndRetryAt(HighPriority)
	if got = remaining(); got["high requests"] != 1 || got["high retries"] != 2 {
		t.Errorf("%v", got)
	}
}

// TestHostLimit: the connections to a host are limited, beside those of the cluster.
func TestHostLimit(t *testing.T) {
	s := newServer(t)
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", Endpoints: hosts("c", s.addr), Limits: Limits{MaxConnections: 10, MaxHostConnections: 2}})
	a, b := acquire(t, c, "web"), acquire(t, c, "web")
	if _, err := a.Host().Acquire(withTimeout(30*time.Millisecond), "web", nil, false, DefaultPriority, monotonic(), 0); err == nil {
		t.Error("a third connection was opened where two may be")
	}
	// A byte stream gets one where no other has any, as in Envoy.
	stream, err := c.Open(t.Context(), "web", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Open(t.Context(), "web", nil, 0); err == nil {
		t.Error("so was a second byte stream's")
	}
	_ = stream.Close()
	// A workload that has none to the host always gets one, as in Envoy.
	other := acquire(t, c, "api")
	_ = other.Close()
	_ = b.Close()
	again := acquire(t, c, "web")
	_ = again.Close()
	_ = a.Close()
	if c.conns.Load() != 0 || a.Host().conns.Load() != 0 {
		t.Errorf("%d and %d connections are counted", c.conns.Load(), a.Host().conns.Load())
	}
}

func TestDNSFamilies(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	both := []netip.Addr{v4, v6}
	for f, want := range map[DNSFamily][]netip.Addr{
		IPv6First: {v6}, IPv4First: {v4}, IPv4Only: {v4}, IPv6Only: {v6}, AllFamilies: both,
	} {
		got := f.filter(both)
		if len(got) != len(want) || got[0] != want[0] {
			t.Errorf("family %d of both: %v", f, got)
		}
	}
	if got := IPv6First.filter([]netip.Addr{v4}); len(got) != 1 {
		t.Error("IPv4 alone is not used where IPv6 is preferred")
	}
	if got := IPv4First.filter([]netip.Addr{v6}); len(got) != 1 {
		t.Error("IPv6 alone is not used where IPv4 is preferred")
	}
	if got := IPv4Only.filter([]netip.Addr{v6}); len(got) != 0 {
		t.Error("IPv6 is used where only IPv4 may be")
	}
}

func TestDNSTimes(t *testing.T) {
	d := DNS{Refresh: 10 * time.Second, Jitter: 2 * time.Second, FailureBase: time.Second, FailureMax: 4 * time.Second}
	for range 500 {
		if w := d.wait(0, 0); w < 10*time.Second || w >= 12*time.Second {
			t.Fatalf("refreshed after %v", w)
		}
		for failures, most := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 60: 4 * time.Second} {
			if w := d.wait(failures, 0); w < time.Millisecond || w >= most {
				t.Fatalf("after %d failures %v", failures, w)
			}
		}
	}
	if w := (&DNS{}).wait(3, 0); w != 5*time.Second {
		t.Errorf("without a rate of failures %v", w)
	}
}

// TestLogicalDNS: connections go where the name resolved to last.
func TestLogicalDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dns := &fakeDNS{}
		dns.set(nil, "10.0.0.2", "10.0.0.1")
		var dialled []string
		m := NewManager(Options{Resolver: dns, Dial: func(_ context.Context, _, addr string) (net.Conn, error) {
			dialled = append(dialled, addr)
			return nil, context.Canceled
		}})
		defer m.Close()
		a := &Assignment{Localities: []Locality{{Endpoints: []Endpoint{{Host: "api.example", Port: 80}}}}}
		c := mustUpdate(t, m, &Config{Name: "c", Type: LogicalDNS, Endpoints: a, DNS: &DNS{Refresh: time.Second}})
		synctest.Wait()
		h := c.hosts()[0]
		if len(c.hosts()) != 1 || h.Address() != "api.example:80" || h.Hostname() != "api.example" || h.Addr().String() != "10.0.0.2:80" {
			t.Fatalf("%+v at %v", c.Stats(), h.Addr())
		}
		dns.set(nil, "10.0.0.3")
		wait(1100 * time.Millisecond)
		if c.hosts()[0] != h || h.gone.Load() || h.Addr().String() != "10.0.0.3:80" {
			t.Errorf("after a change it is %v at %v", c.hosts()[0].Address(), h.Addr())
		}
		_, _ = h.connect(t.Context(), c.cfg.Load())
		if len(dialled) != 1 || dialled[0] != "10.0.0.3:80" {
			t.Errorf("dialled %v", dialled)
		}
		for _, bad := range []*Config{
			{Name: "x", Type: LogicalDNS}, {Name: "x", Type: LogicalDNS, Endpoints: &Assignment{}},
			{Name: "x", Type: LogicalDNS, Endpoints: hosts("x", "10.0.0.1", "10.0.0.2")},
		} {
			if m.Update(bad) == nil {
				t.Errorf("%+v was taken", bad.Endpoints)
			}
		}
	})
}

// TestPrioritiesHaveTheirOwnConnections: requests of high priority are limited by their
// own numbers, and wait for nobody else's connections.
func TestPrioritiesHaveTheirOwnConnections(t *testing.T) {
	m := newManager(t, Options{})
	mustUpdate(t, m, &Config{
		Name: "c", Endpoints: hosts("c", newServer(t).addr),
		Limits: Limits{MaxConnections: 1, MaxPendingRequests: 1}, HighLimits: &Limits{MaxConnections: 2},
	})
	h, err := m.Get("c").Pick(nil)
	if err != nil {
		t.Fatal(err)
	}
	low, err := h.Acquire(withTimeout(time.Second), "web", nil, false, DefaultPriority, monotonic(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Acquire(withTimeout(20*time.Millisecond), "web", nil, false, DefaultPriority, monotonic(), 0); err == nil {
		t.Error("a second connection at the limit")
	}
	for range 2 {
		c, err := h.Acquire(withTimeout(time.Second), "web", nil, false, HighPriority, monotonic(), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if _, err := h.Acquire(withTimeout(20*time.Millisecond), "web", nil, false, HighPriority, monotonic(), 0); err == nil {
		t.Error("a third connection at the limit of two")
	}
	// What one priority gives back is not the other's.
	low.Release()
	if _, err := h.Acquire(withTimeout(20*time.Millisecond), "web", nil, false, HighPriority, monotonic(), 0); err == nil {
		t.Error("a connection of the other priority")
	}
}
