package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newManager(t testing.TB, o Options) *Manager {
	o.Metrics = telemetry.NewMetrics()
	m := NewManager(o)
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// hosts makes an assignment: "10.0.0.1", "10.0.0.2 weight=3 priority=1 health=draining".
func hosts(name string, specs ...string) *Assignment {
	a := &Assignment{Cluster: name}
	for _, s := range specs {
		e, prio := Endpoint{Port: 80}, 0
		for i, part := range splitFields(s) {
			var v int
			switch {
			case i == 0:
				e.Host = part
				if h, p, err := net.SplitHostPort(part); err == nil {
					e.Host = h
					e.Port, _ = strconv.Atoi(p)
				}
			case scan(part, "weight=%d", &v):
				e.Weight = uint32(v)
			case scan(part, "priority=%d", &v):
				prio = v
			case part == "draining":
				e.Health = Draining
			case part == "unhealthy":
				e.Health = Unhealthy
			case part == "degraded":
				e.Health = Degraded
			}
		}
		a.Localities = append(a.Localities, Locality{Priority: prio, Endpoints: []Endpoint{e}})
	}
	return a
}

func scan(s, format string, v *int) bool { n, _ := fmt.Sscanf(s, format, v); return n == 1 }

func splitFields(s string) []string {
	var out []string
	for s != "" {
		i := slices.Index([]byte(s), ' ')
		if i < 0 {
			return append(out, s)
		}
		out, s = append(out, s[:i]), s[i+1:]
	}
	return out
}

func mustUpdate(t testing.TB, m *Manager, cfg *Config) *Cluster {
	t.Helper()
	if err := m.Update(cfg); err != nil {
		t.Fatal(err)
	}
	return m.Get(cfg.Name)
}

func count1(t testing.TB, c *Cluster, n int) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range n {
		h, err := c.Pick(nil)
		if err != nil {
			got["none"]++
			continue
		}
		got[h.Endpoint().Host]++
	}
	return got
}

func TestBalance(t *testing.T) {
	none := 0.0
	for _, tc := range []struct {
		name  string
		cfg   Config
		hosts []string
		// want is the share in percent, give or take 4.
		want map[string]int
	}{
		{"round robin", Config{}, []string{"10.0.0.1", "10.0.0.2"}, map[string]int{"10.0.0.1": 50, "10.0.0.2": 50}},
		{"weights", Config{}, []string{"10.0.0.1 weight=3", "10.0.0.2 weight=1"}, map[string]int{"10.0.0.1": 75, "10.0.0.2": 25}},
		{"far apart weights", Config{}, []string{"10.0.0.1 weight=99", "10.0.0.2 weight=1"}, map[string]int{"10.0.0.1": 99, "10.0.0.2": 1}},
		{"random", Config{LB: Random}, []string{"10.0.0.1", "10.0.0.2"}, map[string]int{"10.0.0.1": 50, "10.0.0.2": 50}},
		{"random has no weights, as in Envoy", Config{LB: Random}, []string{"10.0.0.1 weight=3", "10.0.0.2 weight=1"}, map[string]int{"10.0.0.1": 50, "10.0.0.2": 50}},
		{"least request, idle", Config{LB: LeastRequest}, []string{"10.0.0.1", "10.0.0.2"}, map[string]int{"10.0.0.1": 50, "10.0.0.2": 50}},
		{"unhealthy and draining get none", Config{PanicThreshold: &none}, []string{"10.0.0.1", "10.0.0.2 unhealthy", "10.0.0.3 draining"}, map[string]int{"10.0.0.1": 100}},
		{"none healthy", Config{PanicThreshold: &none}, []string{"10.0.0.1 unhealthy"}, map[string]int{"none": 100}},
		{"panic", Config{}, []string{"10.0.0.1 unhealthy", "10.0.0.2 draining"}, map[string]int{"10.0.0.1": 50, "10.0.0.2": 50}},
		{"empty", Config{}, nil, map[string]int{"none": 100}},
		{"first priority takes all", Config{}, []string{"10.0.0.1", "10.0.0.2 priority=1"}, map[string]int{"10.0.0.1": 100}},
		{"priority fails over", Config{PanicThreshold: &none}, []string{"10.0.0.1 unhealthy", "10.0.0.2 priority=1"}, map[string]int{"10.0.0.2": 100}},
		{"overprovisioning", Config{PanicThreshold: &none}, []string{"10.0.0.1", "10.0.0.2 unhealthy", "10.0.0.3 priority=1"}, map[string]int{"10.0.0.1": 70, "10.0.0.3": 30}},
		{"draining hosts are no part of what there should be", Config{}, []string{"10.0.0.1", "10.0.0.2 draining", "10.0.0.3 priority=1"}, map[string]int{"10.0.0.1": 100}},
		{"no panic for draining hosts", Config{}, []string{"10.0.0.1", "10.0.0.2 draining", "10.0.0.3 draining"}, map[string]int{"10.0.0.1": 100}},
		{"gap in the priorities", Config{}, []string{"10.0.0.1 priority=2"}, map[string]int{"10.0.0.1": 100}},
		{"degraded only when needed", Config{}, []string{"10.0.0.1", "10.0.0.2 degraded"}, map[string]int{"10.0.0.1": 70, "10.0.0.2": 30}},
		{"degraded only", Config{}, []string{"10.0.0.1 degraded"}, map[string]int{"10.0.0.1": 100}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.cfg.Name, tc.cfg.Endpoints = "c", hosts("c", tc.hosts...)
			c := mustUpdate(t, newManager(t, Options{}), &tc.cfg)
			const n = 4000
			got := count1(t, c, n)
			for host, share := range got {
				if diff := share*100/n - tc.want[host]; diff < -4 || diff > 4 {
					t.Errorf("got %v of %d, want %v percent", got, n, tc.want)
				}
			}
		})
	}
}

func TestLeastRequest(t *testing.T) {
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", LB: LeastRequest, ChoiceCount: 10, Endpoints: hosts("c", "10.0.0.1", "10.0.0.2")})
	busy, _ := c.Pick(nil)
	for range 5 {
		busy.Begin()
	}
	if got := count1(t, c, 200); got[busy.Endpoint().Host] > 2 {
		t.Errorf("the busy host got %v", got)
	}
}

func TestPickAvoids(t *testing.T) {
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1", "10.0.0.2 weight=100", "10.0.0.3 weight=100")})
	var first *Host
	for _, h := range c.hosts() {
		if h.Endpoint().Host == "10.0.0.1" {
			first = h
		}
	}
	others := slices.DeleteFunc(slices.Clone(c.hosts()), func(h *Host) bool { return h == first })
	for range 50 {
		if h, _ := c.Pick(others); h != first {
			t.Fatalf("picked %s, which was tried", h.Address())
		}
	}
	if h, err := c.Pick(c.hosts()); h == nil {
		t.Errorf("all tried: %v", err)
	}
}

func TestAggregate(t *testing.T) {
	m := newManager(t, Options{})
	none := 0.0
	one := mustUpdate(t, m, &Config{Name: "one", PanicThreshold: &none, Endpoints: hosts("one", "10.0.0.1")})
	mustUpdate(t, m, &Config{Name: "two", PanicThreshold: &none, Endpoints: hosts("two", "10.0.0.2")})
	agg := mustUpdate(t, m, &Config{Name: "failover~x", Type: Aggregate, Aggregate: []string{"missing", "one", "two"}})
	h, _ := agg.Pick(nil)
	if h.Cluster() != one {
		t.Errorf("picked of %s", h.Cluster().Name())
	}
	if h, _ = agg.Pick([]*Host{h}); h.Cluster().Name() != "two" {
		t.Errorf("after the first was tried: %s", h.Cluster().Name())
	}
	mustUpdate(t, m, &Config{Name: "one", PanicThreshold: &none, Endpoints: hosts("one", "10.0.0.1 unhealthy")})
	if h, _ = agg.Pick(nil); h.Cluster().Name() != "two" {
		t.Errorf("after the first failed: %s", h.Cluster().Name())
	}
	m.Remove("two")
	var e *Error
	if _, err := agg.Pick(nil); !errors.As(err, &e) || e.Kind != NoHealthyHost || e.Flags() != telemetry.FlagNoHealthyUpstream {
		t.Errorf("got %v", err)
	}
	loop := mustUpdate(t, m, &Config{Name: "loop", Type: Aggregate, Aggregate: []string{"loop"}})
	if _, err := loop.Pick(nil); err == nil {
		t.Error("a loop has a host")
	}
}

func TestRefused(t *testing.T) {
	m := newManager(t, Options{})
	for _, cfg := range []*Config{
		{}, {Name: "a", Type: Aggregate}, {Name: "a", Aggregate: []string{"b"}}, {Name: "a", Type: StrictDNS},
		{Name: "a", TLS: &TLS{}}, {Name: "a", LB: 9}, {Name: "a", Type: 9}, {Name: "a", Endpoints: hosts("a", "name.example")},
		{Name: "a", Endpoints: hosts("a", "10.0.0.1:0")}, {Name: "a", LB: Maglev, Hash: &HashTable{TableSize: 100}},
		{Name: "a", HealthCheck: &HealthCheck{}}, {Name: "a", HealthCheck: every(nil)},
		{Name: "a", Type: OriginalDestination, HealthCheck: every(&HTTPCheck{Path: "/"})},
		{Name: "a", HealthCheck: every(&HTTPCheck{Path: "/", Headers: []route.HeaderAdd{{Name: "x", Value: "%NOTHING%"}}})},
	} {
		if err := m.Update(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
	if err := m.SetEndpoints(hosts("a", "name.example")); err == nil {
		t.Error("a name was taken as an address")
	}
}

func TestEDS(t *testing.T) {
	m := newManager(t, Options{})
	c := mustUpdate(t, m, &Config{Name: "c", Type: EDS})
	other := mustUpdate(t, m, &Config{Name: "d", Type: EDS, ServiceName: "c"})
	if err := m.SetEndpoints(hosts("c", "10.0.0.1", "10.0.0.2")); err != nil {
		t.Fatal(err)
	}
	h, _ := c.Pick(nil)
	if !served(other) {
		t.Error("the cluster that names the service got no endpoints")
	}
	// The identity of a host survives what happens around it.
	if err := m.SetEndpoints(hosts("c", "10.0.0.3", h.Endpoint().Host+" weight=7")); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(c.hosts(), h) || h.Weight() != 7 || len(c.hosts()) != 2 {
		t.Errorf("the host changed: %v", c.Stats())
	}
	if mustUpdate(t, m, &Config{Name: "c", Type: EDS, LB: Random}) != c || !slices.Contains(c.hosts(), h) {
		t.Error("an update lost the cluster or its host")
	}
	if err := m.SetEndpoints(&Assignment{Cluster: "c"}); err != nil {
		t.Fatal(err)
	}
	if served(c) || !h.gone.Load() {
		t.Error("an empty assignment left hosts")
	}
}

// server accepts connections and counts them.
type server struct {
	addr  string
	mu    sync.Mutex
	conns []net.Conn
}

func newServer(t testing.TB) *server {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
		for _, c := range s.conns {
			_ = c.Close()
		}
	})
	return s
}

func (s *server) accepted(t testing.TB, n int) []net.Conn {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		s.mu.Lock()
		conns := slices.Clone(s.conns)
		s.mu.Unlock()
		if len(conns) >= n {
			return conns
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("fewer than %d connections", n)
	return nil
}

func withTimeout(d time.Duration) func() (context.Context, context.CancelFunc) {
	return func() (context.Context, context.CancelFunc) { return context.WithTimeout(context.Background(), d) }
}

func acquire(t testing.TB, c *Cluster, source string) *Conn {
	t.Helper()
	h, err := c.Pick(nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := h.Acquire(withTimeout(time.Second), source, nil, false, DefaultPriority, monotonic(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestPool(t *testing.T) {
	s := newServer(t)
	m := newManager(t, Options{})
	c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", s.addr)})
	a := acquire(t, c, "web")
	b := acquire(t, c, "web")
	if a.Reused() {
		t.Error("a new connection says it is reused")
	}
	a.Release()
	b.Release()
	if got := acquire(t, c, "web"); got != b || !got.Reused() {
		t.Error("the pool is not last in, first out")
	}
	// Another identity never gets this one's connections.
	if got := acquire(t, c, "api"); got == a {
		t.Error("a connection was shared between identities")
	}
	// A connection that the peer closed, or spoke on, is not used again.
	conns := s.accepted(t, 3)
	a2 := acquire(t, c, "web")
	if a2 != a {
		t.Fatal("not the idle one")
	}
	a2.Release()
	_ = conns[0].Close()
	waitFor(t, func() bool { return a.Gone() })
	if got := acquire(t, c, "web"); got == a && got.Sure() {
		t.Error("a closed connection was used")
	}
	b.Release()
	_, _ = conns[1].Write([]byte("unasked"))
	waitFor(t, func() bool { return !b.quiet() })
	if got := acquire(t, c, "web"); got == b && got.Sure() {
		t.Error("a connection with bytes nobody asked for was used")
	}
}

func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("it did not come about")
}

// ended fails unless our side closed the connection.
func ended(t testing.TB, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the connection is open: %v", err)
	}
}

func TestHostsThatGo(t *testing.T) {
	for name, change := range map[string]func(m *Manager, addr string){
		"removed":   func(m *Manager, addr string) { _ = m.SetEndpoints(&Assignment{Cluster: "c"}) },
		"draining":  func(m *Manager, addr string) { _ = m.SetEndpoints(hosts("c", addr+" draining")) },
		"unhealthy": func(m *Manager, addr string) { _ = m.SetEndpoints(hosts("c", addr+" unhealthy")) },
		"cluster":   func(m *Manager, addr string) { m.Remove("c") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			m := newManager(t, Options{})
			none := 0.0
			c := mustUpdate(t, m, &Config{Name: "c", Type: EDS, PanicThreshold: &none})
			_ = m.SetEndpoints(hosts("c", s.addr))
			idle, busy := acquire(t, c, "web"), acquire(t, c, "web")
			conns := s.accepted(t, 2)
			idle.Release()
			change(m, s.addr)
			ended(t, conns[0])
			if served(c) {
				t.Error("it still gets requests")
			}
			if _, err := busy.Write([]byte("x")); err != nil {
				t.Errorf("an exchange in flight was cut: %v", err)
			}
			busy.Release()
			_, _ = conns[1].Read(make([]byte, 1))
			ended(t, conns[1])
		})
	}
}

func TestLimits(t *testing.T) {
	s := newServer(t)
	m := newManager(t, Options{})
	c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", s.addr), Limits: Limits{MaxConnections: 1, MaxPendingRequests: 1, MaxRequests: 2}})
	if first, second, third := c.StartRequest(0), c.StartRequest(0), c.StartRequest(0); !first || !second || third {
		t.Error("the request limit is not 2")
	}
	c.EndRequest()
	if !c.StartRequest(0) {
		t.Error("an ended request still counts")
	}
	conn := acquire(t, c, "web")
	h := conn.Host()
	got := make(chan *Conn, 1)
	go func() {
		w, _ := h.Acquire(withTimeout(5*time.Second), "web", nil, false, DefaultPriority, monotonic(), 0)
		got <- w
	}()
	waitFor(t, func() bool { return c.pending.Load() == 1 })
	var e *Error
	if _, err := h.Acquire(withTimeout(time.Second), "web", nil, false, DefaultPriority, monotonic(), 0); !errors.As(err, &e) || e.Kind != OverflowPending || e.Flags() != telemetry.FlagUpstreamOverflow {
		t.Errorf("beyond the pending limit: %v", err)
	}
	conn.Release()
	if w := <-got; w != conn {
		t.Error("the waiter did not get the connection")
	}
	if _, err := h.Acquire(withTimeout(30*time.Millisecond), "web", nil, false, DefaultPriority, monotonic(), 0); !errors.As(err, &e) || e.Kind != Canceled {
		t.Errorf("a waiter whose time is up: %v", err)
	}
	go func() {
		w, _ := h.Acquire(withTimeout(5*time.Second), "web", nil, false, DefaultPriority, monotonic(), 0)
		got <- w
	}()
	waitFor(t, func() bool { return c.pending.Load() == 1 })
	_ = conn.Close()
	if w := <-got; w == nil || w == conn {
		t.Error("a closed connection made no room")
	}
	if _, err := c.Open(t.Context(), "web", nil, 0); !errors.As(err, &e) || e.Kind != OverflowConnections {
		t.Errorf("a byte stream beyond the limit: %v", err)
	}
}

func TestNoneAllowed(t *testing.T) {
	s := newServer(t)
	m := newManager(t, Options{})
	update := func(l Limits) *Cluster {
		return mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", s.addr), Limits: l})
	}
	c := update(Limits{MaxConnections: NoneAllowed, MaxRetries: NoneAllowed, MaxRequests: NoneAllowed})
	if c.StartRequest(0) || c.StartRetry(0) {
		t.Error("a request and a retry where none is allowed")
	}
	conn := acquire(t, c, "web") // a host may always have one
	h := conn.Host()
	_ = conn.Close()
	update(Limits{MaxPendingRequests: NoneAllowed})
	var e *Error
	if _, err := h.Acquire(withTimeout(time.Second), "web", nil, false, DefaultPriority, monotonic(), 0); !errors.As(err, &e) || e.Kind != OverflowPending {
		t.Errorf("a request may wait where none may: %v", err)
	}
}

func TestRetryBudget(t *testing.T) {
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", Limits: Limits{MaxRetries: 1, RetryBudget: &RetryBudget{Percent: 20, MinConcurrency: 3}}})
	take := func() (n int) {
		for c.StartRetry(0) {
			n++
		}
		return n
	}
	if n := take(); n != 3 {
		t.Errorf("%d retries without traffic", n)
	}
	for range 100 {
		c.StartRequest(0)
	}
	if n := take() + 3; n != 20 {
		t.Errorf("%d retries of 100 requests", n)
	}
	mustUpdate(t, c.m, &Config{Name: "c", Limits: Limits{MaxRetries: 2}})
	for range 19 {
		c.EndRetry()
	}
	if !c.StartRetry(0) || c.StartRetry(0) {
		t.Error("the limit is not 2")
	}
}

func TestCloseConns(t *testing.T) {
	s := newServer(t)
	m := newManager(t, Options{})
	c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", s.addr)})
	idle, busy, other := acquire(t, c, "web"), acquire(t, c, "web"), acquire(t, c, "api")
	idle.Release()
	conns := s.accepted(t, 3)
	if n := m.CloseConns(func(source string, _ *stream.Info) bool { return source == "web" }); n != 2 {
		t.Errorf("%d closed", n)
	}
	for _, nc := range conns[:2] {
		ended(t, nc)
	}
	busy.Release()
	if _, err := other.Write([]byte("x")); err != nil {
		t.Errorf("another identity's connection was closed: %v", err)
	}
	if c.conns.Load() != 1 {
		t.Errorf("%d connections counted", c.conns.Load())
	}
}

func TestOpenAndConnectFailure(t *testing.T) {
	s := newServer(t)
	m := newManager(t, Options{})
	c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", s.addr)})
	conn, err := c.Open(t.Context(), "web", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	peer := s.accepted(t, 1)[0]
	conn.Release() // a byte stream is never pooled
	ended(t, peer)

	l, _ := net.Listen("tcp", "127.0.0.1:0")
	dead := l.Addr().String()
	_ = l.Close()
	c = mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", dead)})
	var e *Error
	if _, err = c.Open(t.Context(), "web", nil, 0); !errors.As(err, &e) || e.Kind != ConnectRefused || e.Host != dead || e.Flags() != telemetry.FlagUpstreamConnectFailure {
		t.Errorf("got %v", err)
	}
	if c.conns.Load() != 0 {
		t.Errorf("%d connections counted", c.conns.Load())
	}
	blackhole := newManager(t, Options{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }})
	c = mustUpdate(t, blackhole, &Config{Name: "c", ConnectTimeout: 20 * time.Millisecond, Endpoints: hosts("c", "10.0.0.1")})
	if _, err = c.Open(t.Context(), "web", nil, 0); !errors.As(err, &e) || e.Kind != ConnectTimeout {
		t.Errorf("got %v", err)
	}
}

func TestUnixSocket(t *testing.T) {
	path := t.TempDir() + "/s"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := newManager(t, Options{})
	c := mustUpdate(t, m, &Config{Name: "c", Endpoints: &Assignment{Localities: []Locality{{Endpoints: []Endpoint{{Pipe: path}}}}}})
	conn := acquire(t, c, "")
	defer conn.Close()
	if conn.Host().Address() != "unix:"+path {
		t.Error(conn.Host().Address())
	}
}

type fakeDNS struct {
	mu    sync.Mutex
	addrs []netip.Addr
	err   error
}

// TestMembers: hosts are found by their keys whether they are few or many.
func TestMembers(t *testing.T) {
	var m members
	all := make([]*Host, 3*scanned)
	for i := range all {
		all[i] = &Host{key: fmt.Sprint("host-", i)}
		if m.member(all[i].key, 0) != nil {
			t.Fatalf("%s is there before it joined", all[i].key)
		}
		m.join(all[i])
		for _, h := range all[:i+1] {
			if m.member(h.key, 0) != h {
				t.Fatalf("of %d hosts %s is not found", i+1, h.key)
			}
		}
	}
	for i, h := range all {
		m.leave(h)
		if m.member(h.key, 0) != nil || len(m.order) != len(all)-i-1 {
			t.Fatalf("%s left, and is found or counted", h.key)
		}
		for _, h := range all[i+1:] {
			if m.member(h.key, 0) != h {
				t.Fatalf("%s is not found when %d have left", h.key, i+1)
			}
		}
	}
}
