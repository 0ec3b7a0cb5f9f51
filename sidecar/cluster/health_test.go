package cluster

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// pipe is an end of a net.Pipe as a stream: it works on a bubble's own clock.
type pipe struct{ net.Conn }

func (p pipe) CloseWrite() error  { return errors.ErrUnsupported }
func (p pipe) Info() *stream.Info { return &stream.Info{} }

// checked is a host that answers health checks with what the test says.
type checkedHosts struct {
	mu     sync.Mutex
	answer map[string]string // by address: the response, "hang" or "refuse"
	asked  map[string][]time.Duration
	heads  map[string]string // the last request
	dials  map[string]int
	began  time.Time
	wg     sync.WaitGroup
}

func newCheckedHosts() *checkedHosts {
	return &checkedHosts{answer: map[string]string{}, asked: map[string][]time.Duration{}, heads: map[string]string{}, dials: map[string]int{}, began: time.Now()}
}

func (s *checkedHosts) say(addr, answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer[addr] = answer
}

func (s *checkedHosts) times(addr string) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[addr]
}

func (s *checkedHosts) open(_ context.Context, p *pool, _ *settings, _ protocol) (stream.Stream, Kind, error) {
	addr := p.host.target.Load().address
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials[addr]++
	if s.answer[addr] == "refuse" {
		s.asked[addr] = append(s.asked[addr], time.Since(s.began))
		return nil, ConnectRefused, errors.New("connection refused")
	}
	here, there := net.Pipe()
	s.wg.Go(func() { s.serve(addr, there) })
	return pipe{here}, 0, nil
}

func (s *checkedHosts) serve(addr string, c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		h, _ := textproto.NewReader(r).ReadMIMEHeader()
		if n, _ := strconv.Atoi(h.Get("Content-Length")); n > 0 {
			body := make([]byte, n)
			_, _ = io.ReadFull(r, body)
			line += string(body)
		}
		s.mu.Lock()
		answer := s.answer[addr]
		s.asked[addr] = append(s.asked[addr], time.Since(s.began))
		s.heads[addr] = line + h.Get("Host") + " " + h.Get("User-Agent") + " " + h.Get("X-A")
		s.mu.Unlock()
		if answer == "hang" {
			_, _ = io.Copy(io.Discard, r)
			return
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

func status(code int, more ...string) string {
	return "HTTP/1.1 " + strconv.Itoa(code) + " X\r\ncontent-length: 0\r\n" + strings.Join(append(more, "\r\n"), "")
}

// every is a check each second, five where nothing is different.
func every(h *HTTPCheck) *HealthCheck {
	return &HealthCheck{
		Timeout: time.Second, Interval: 5 * time.Second, NoTraffic: 60 * time.Second, NoTrafficHealthy: 50 * time.Second,
		Unhealthy: 7 * time.Second, UnhealthyEdge: 2 * time.Second, HealthyEdge: 3 * time.Second,
		UnhealthyThreshold: 2, HealthyThreshold: 2, HTTP: h,
	}
}

// inBubble runs a test with a manager whose checks go to s.
func inBubble(t *testing.T, test func(t *testing.T, m *Manager, s *checkedHosts)) {
	synctest.Test(t, func(t *testing.T) {
		m := NewManager(Options{})
		s := newCheckedHosts()
		m.openCheck = s.open
		defer s.wg.Wait()
		defer m.Close()
		test(t, m, s)
	})
}

// used is a cluster that has carried a request before its first check is made: that
// decides when the next one is.
func used(t *testing.T, m *Manager, cfg *Config) *Cluster {
	t.Helper()
	empty := *cfg
	empty.Endpoints = hosts(cfg.Name)
	mustUpdate(t, m, &empty).trafficked.Store(true)
	return mustUpdate(t, m, cfg)
}

func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestHealthCheckStates(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
		const a = "10.0.0.1:80"
		none := 0.0
		s.say(a, status(200))
		s.mu.Lock() // the check waits for its connection
		c := used(t, m, &Config{Name: "c", PanicThreshold: &none, HealthCheck: every(&HTTPCheck{Path: "/healthz"}), Endpoints: hosts("c", "10.0.0.1")})
		h := c.hosts()[0]
		if served(c) {
			t.Error("a host that was not checked is healthy")
		}
		s.mu.Unlock()
		wait(time.Millisecond)
		// The first result counts at once.
		if !served(c) || c.Stats()[0].Check != "passing" {
			t.Fatalf("%+v", c.Stats()[0])
		}
		// A failure that is no answer counts up to the threshold.
		s.say(a, "hang")
		wait(6 * time.Second)
		if !served(c) {
			t.Error("unhealthy after one timeout of two")
		}
		wait(4 * time.Second)
		if served(c) || c.Stats()[0].Check != "timeout" {
			t.Errorf("healthy after two timeouts: %+v", c.Stats()[0])
		}
		// Two that pass bring it back.
		s.say(a, status(200))
		wait(7 * time.Second)
		if served(c) {
			t.Error("healthy after one of two")
		}
		wait(3 * time.Second)
		if !served(c) {
			t.Error("unhealthy after two that passed")
		}
		// A wrong status counts at once.
		s.say(a, status(503, "x-envoy-immediate-health-check-fail: true\r\n"))
		wait(5 * time.Second)
		if state, excluded := h.state(); state != hostDown || !excluded || c.Stats()[0].CheckError != "status 503" {
			t.Errorf("after a 503: %v %v %+v", state, excluded, c.Stats()[0])
		}
		// Degraded is a state of hosts that pass.
		s.say(a, status(200, "x-envoy-degraded: true\r\n"))
		wait(11 * time.Second)
		if state, excluded := h.state(); state != hostDegraded || excluded {
			t.Errorf("state %v", state)
		}
		s.say(a, status(200))
		wait(6 * time.Second)
		if state, _ := h.state(); state != hostUp {
			t.Errorf("state %v", state)
		}
		// A connection serves all checks, but for those that failed without an answer.
		if s.dials[a] > 4 {
			t.Errorf("%d connections", s.dials[a])
		}
		if got := s.heads[a]; got != "GET /healthz HTTP/1.1\r\nc Hauberk/HC " {
			t.Errorf("asked %q", got)
		}
		// An unhealthy EDS state wins over checks that pass.
		_ = m.Update(&Config{Name: "c", PanicThreshold: &none, HealthCheck: every(&HTTPCheck{Path: "/healthz"}), Endpoints: hosts("c", "10.0.0.1 unhealthy")})
		wait(time.Second)
		if served(c) {
			t.Error("healthy though the control plane says no")
		}
	})
}

// TestHealthCheckIntervals: which interval comes after which result.
func TestHealthCheckIntervals(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
		const a = "10.0.0.1:80"
		s.say(a, status(200))
		c := mustUpdate(t, m, &Config{Name: "c", HealthCheck: every(&HTTPCheck{Path: "/"}), Endpoints: hosts("c", "10.0.0.1")})
		expect := func(what string, want ...float64) {
			t.Helper()
			got := s.times(a)
			if len(got) < len(want)+1 {
				t.Fatalf("%s: only %d checks", what, len(got))
			}
			for i, w := range want {
				at := len(got) - len(want) + i
				if d := (got[at] - got[at-1]).Seconds(); d != w {
					t.Errorf("%s: check %d came after %vs, not %v", what, at, d, w)
				}
			}
		}
		wait(101 * time.Second)
		expect("no traffic", 50, 50)
		c.trafficked.Store(true)
		wait(56 * time.Second) // the last of the old intervals, and one more
		expect("healthy", 50, 5)
		s.say(a, status(500))
		wait(5 * time.Second)
		expect("the wrong answer", 5, 5)
		wait(7 * time.Second)
		expect("unhealthy", 7)
		s.say(a, status(200))
		wait(10 * time.Second)
		expect("towards healthy", 7, 3)
		s.say(a, "hang")
		wait(5 * time.Second)
		expect("healthy again", 3, 5)
		wait(3 * time.Second)
		expect("towards unhealthy, timeout included", 3)
	})
}

func TestHealthCheckJitter(t *testing.T) {
	k := &checker{cfg: every(nil)}
	k.cfg.Jitter, k.cfg.JitterPercent = time.Second, 20
	least, most := time.Hour, time.Duration(0)
	for range 2000 {
		d := k.interval(true, unchanged, true)
		least, most = min(least, d), max(most, d)
	}
	if least < 5*time.Second || most > 7*time.Second || most-least < time.Second {
		t.Errorf("intervals from %v to %v", least, most)
	}
}

func TestHTTPCheckVerdicts(t *testing.T) {
	name := "api"
	chunked := "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
	for what, tc := range map[string]struct {
		check  HTTPCheck
		answer string
		want   string
	}{
		"passes":            {HTTPCheck{}, status(200), "passing"},
		"201":               {HTTPCheck{}, status(201), "failing"},
		"expected":          {HTTPCheck{Expected: []StatusRange{{200, 300}}}, status(299), "passing"},
		"service":           {HTTPCheck{ServiceName: &NameMatch{Prefix: &name}}, status(200, "x-envoy-upstream-healthchecked-cluster: api-1\r\n"), "passing"},
		"another service":   {HTTPCheck{ServiceName: &NameMatch{Exact: &name}}, status(200, "x-envoy-upstream-healthchecked-cluster: web\r\n"), "failing"},
		"no service":        {HTTPCheck{ServiceName: &NameMatch{Exact: &name}}, status(200), "failing"},
		"body":              {HTTPCheck{Receive: [][]byte{[]byte("he"), []byte("lo")}}, chunked, "passing"},
		"body, other order": {HTTPCheck{Receive: [][]byte{[]byte("lo"), []byte("he")}}, chunked, "failing"},
		"body beyond limit": {HTTPCheck{Receive: [][]byte{[]byte("lo")}, BodyLimit: 3}, chunked, "failing"},
		"until close":       {HTTPCheck{Receive: [][]byte{[]byte("ok")}}, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok", "passing"},
		"no HTTP":           {HTTPCheck{}, "SSH-2.0-x\r\n", "failing"},
		"head":              {HTTPCheck{Method: "HEAD"}, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", "passing"},
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
				s.say("10.0.0.1:80", tc.answer)
				tc.check.Path = "/"
				c := mustUpdate(t, m, &Config{Name: "c", HealthCheck: every(&tc.check), Endpoints: hosts("c", "10.0.0.1")})
				wait(time.Millisecond)
				if got := c.Stats()[0]; got.Check != tc.want || (got.CheckError == "") != (tc.want == "passing") {
					t.Errorf("%s: %s", got.Check, got.CheckError)
				}
			})
		})
	}
}

// A retriable status counts up to the threshold, any other at once.
func TestRetriableStatus(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
		const a = "10.0.0.1:80"
		s.say(a, status(200))
		c := used(t, m, &Config{Name: "c", HealthCheck: every(&HTTPCheck{Path: "/", Retriable: []StatusRange{{500, 501}}}), Endpoints: hosts("c", "10.0.0.1")})
		wait(time.Second)
		s.say(a, status(500))
		wait(5 * time.Second)
		if got := c.Stats()[0].Check; got != "passing" {
			t.Errorf("after one: %s", got)
		}
		wait(2 * time.Second)
		if got := c.Stats()[0].Check; got != "failing" {
			t.Errorf("after two: %s", got)
		}
	})
}

// TestHostsOutliveDiscovery: a host whose checks pass stays until they fail.
func TestHostsOutliveDiscovery(t *testing.T) {
	for _, drop := range []bool{false, true} {
		inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
			s.say("10.0.0.1:80", status(200))
			s.say("10.0.0.2:80", status(500))
			c := mustUpdate(t, m, &Config{Name: "c", Type: EDS, DropRemoved: drop, HealthCheck: every(&HTTPCheck{Path: "/"})})
			c.trafficked.Store(true)
			_ = m.SetEndpoints(hosts("c", "10.0.0.1", "10.0.0.2"))
			wait(time.Second)
			h := c.hosts()[0]
			_ = m.SetEndpoints(hosts("c", "10.0.0.3"))
			want := 2
			if drop {
				want = 1
			}
			if got := c.Stats(); len(got) != want || !drop && !got[1].Removed || h.gone.Load() != drop {
				t.Fatalf("dropping %v: %+v", drop, got)
			}
			// Named again, it is as before.
			_ = m.SetEndpoints(hosts("c", "10.0.0.3", "10.0.0.1"))
			if !drop && (c.hosts()[1] != h || c.Stats()[1].Removed) {
				t.Error("it came back as another")
			}
			_ = m.SetEndpoints(hosts("c", "10.0.0.3"))
			s.say("10.0.0.1:80", status(500))
			wait(6 * time.Second)
			if got := c.Stats(); len(got) != 1 || !h.gone.Load() || len(c.checks) != 1 {
				t.Errorf("after its check failed: %+v", got)
			}
		})
	}
}

// TestWeightOfWhoOutlivesDiscovery: between localities that have weights, a host that stays although nobody
// names it has that which its place has now. Where that is named no more it is none, as in Envoy.
func TestWeightOfWhoOutlivesDiscovery(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
		s.say("10.0.0.1:80", status(200))
		s.say("10.0.0.2:80", status(200))
		c := mustUpdate(t, m, &Config{Name: "c", Type: EDS, LB: RingHash, LocalityWeighted: true, HealthCheck: every(&HTTPCheck{Path: "/"})})
		c.trafficked.Store(true)
		_ = m.SetEndpoints(localities(map[string]uint32{"a": 3}, []Endpoint{ep("10.0.0.1", Healthy)}))
		wait(time.Second)
		h := c.hosts()[0]
		for _, after := range []struct {
			name     string
			now      *Assignment
			priority int // of what is named
			served   bool
		}{
			{"nothing", &Assignment{Cluster: "c"}, 0, false},
			{"the place, empty", localities(map[string]uint32{"a": 3}, nil), 0, true},
			{"the place without a weight", localities(nil, nil), 0, false},
			{"it elsewhere", localities(map[string]uint32{"a": 3}, nil), 1, false},
			{"another host in its place", localities(map[string]uint32{"a": 3}, []Endpoint{ep("10.0.0.2", Healthy)}), 0, true},
		} {
			for i := range after.now.Localities {
				after.now.Localities[i].Priority = after.priority
			}
			_ = m.SetEndpoints(after.now)
			wait(time.Second)
			served := false
			for i := range uint64(64) {
				got, err := c.PickFor(&PickContext{HasHash: true, Hash: i << 58})
				served = served || err == nil && got == h
			}
			if h.gone.Load() || served != after.served {
				t.Errorf("%s: it is gone: %v, it is served: %v", after.name, h.gone.Load(), served)
			}
		}
	})
}

// TestChangesShareASet: where a set costs much, many changes of health make one.
func TestChangesShareASet(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
		s.mu.Lock() // the checks wait for their connections
		s.answer["10.0.0.1:80"], s.answer["10.0.0.2:80"] = status(200), status(200)
		c := mustUpdate(t, m, &Config{Name: "c", HealthCheck: every(&HTTPCheck{Path: "/"}), Endpoints: hosts("c", "10.0.0.1", "10.0.0.2")})
		c.mu.Lock()
		c.restUntil = monotonic() + int64(time.Second)
		c.mu.Unlock()
		before := c.set.Load()
		s.mu.Unlock()
		if wait(500 * time.Millisecond); c.set.Load() != before {
			t.Error("the set was made within the rest")
		}
		if wait(time.Second); c.set.Load() == before || c.set.Load().whole.levels[0].panic {
			t.Error("the set was not made after it")
		}
	})
}

// TestStaticHostsGo: an endpoint that the configuration drops goes, whatever its
// checks say.
func TestStaticHostsGo(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
		s.say("10.0.0.1:80", status(200))
		cfg := func(hostNames ...string) *Config {
			return &Config{Name: "c", HealthCheck: every(&HTTPCheck{Path: "/"}), Endpoints: hosts("c", hostNames...)}
		}
		c := mustUpdate(t, m, cfg("10.0.0.1"))
		wait(time.Second)
		h := c.hosts()[0]
		if mustUpdate(t, m, cfg("10.0.0.2")); !h.gone.Load() || len(c.hosts()) != 1 {
			t.Errorf("%+v", c.Stats())
		}
		next := cfg()
		next.Type = EDS
		if mustUpdate(t, m, next); len(c.hosts()) != 0 {
			t.Errorf("another type kept %+v", c.Stats())
		}
	})
}

// TestExcludedHosts: hosts that were not checked yet do not bring panic about.
func TestExcludedHosts(t *testing.T) {
	for _, exclude := range []bool{false, true} {
		inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
			s.say("10.0.0.1:80", status(200))
			for _, a := range []string{"10.0.0.2:80", "10.0.0.3:80"} {
				s.say(a, "hang")
			}
			c := used(t, m, &Config{Name: "c", ExcludeUnchecked: exclude, HealthCheck: every(&HTTPCheck{Path: "/"}), Endpoints: hosts("c", "10.0.0.1", "10.0.0.2", "10.0.0.3")})
			wait(time.Millisecond)
			if got := c.set.Load().whole.levels[0].panic; got == exclude {
				t.Errorf("excluding %v: panic %v", exclude, got)
			}
			wait(2 * time.Second)
			if !c.set.Load().whole.levels[0].panic {
				t.Error("no panic, though two of three failed")
			}
		})
	}
}

// A check that passes ends an ejection, unless it must not.
func TestCheckEndsEjection(t *testing.T) {
	for _, keep := range []bool{false, true} {
		inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
			s.say("10.0.0.1:80", status(200))
			c := used(t, m, &Config{
				Name: "c", HealthCheck: every(&HTTPCheck{Path: "/"}), Endpoints: hosts("c", "10.0.0.1"),
				Outlier: &Outlier{Consecutive5xx: 1, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 100, KeepOnCheck: keep},
			})
			wait(time.Second)
			h := c.hosts()[0]
			if h.Report(500); !h.ejected() {
				t.Fatal("not ejected")
			}
			if wait(5 * time.Second); h.ejected() != keep {
				t.Errorf("keeping %v: ejected %v", keep, h.ejected())
			}
		})
	}
}

func TestChecksAreReconfigured(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
		s.say("10.0.0.1:80", status(500))
		cfg := func(path string) *Config {
			out := &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1")}
			if path != "" {
				out.HealthCheck = every(&HTTPCheck{Path: path})
			}
			return out
		}
		c := mustUpdate(t, m, cfg("/a"))
		wait(time.Second)
		first := c.checks[c.hosts()[0]]
		if mustUpdate(t, m, cfg("/a")); c.checks[c.hosts()[0]] != first {
			t.Error("the same configuration started the checks anew")
		}
		mustUpdate(t, m, cfg("/b"))
		wait(time.Second)
		if got := s.heads["10.0.0.1:80"]; !strings.HasPrefix(got, "GET /b ") {
			t.Errorf("asked %q", got)
		}
		mustUpdate(t, m, cfg(""))
		if st, _ := c.hosts()[0].state(); st != hostUp || len(c.checks) != 0 {
			t.Error("without checks the host still fails them")
		}
		// A cluster without checks that gets some keeps its hosts until they fail.
		s.say("10.0.0.1:80", "hang")
		mustUpdate(t, m, cfg("/c"))
		if st, _ := c.hosts()[0].state(); st != hostUp {
			t.Error("hosts in use were lost when checks were switched on")
		}
	})
}

func TestTCPCheck(t *testing.T) {
	for what, tc := range map[string]struct {
		check  TCPCheck
		answer string
		want   string
	}{
		"connects":           {TCPCheck{}, "", "passing"},
		"answers":            {TCPCheck{Send: []byte("PING x\r\n\r\n"), Receive: [][]byte{[]byte("+PO"), []byte("NG")}}, "+PONG\r\n", "passing"},
		"says another thing": {TCPCheck{Send: []byte("PING x\r\n\r\n"), Receive: [][]byte{[]byte("+PONG")}}, "-ERR\r\n", "timeout"},
		"refuses":            {TCPCheck{}, "refuse", "failing"},
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
				s.say("10.0.0.1:80", tc.answer)
				check := every(nil)
				check.TCP = &tc.check
				c := mustUpdate(t, m, &Config{Name: "c", HealthCheck: check, Endpoints: hosts("c", "10.0.0.1")})
				wait(2 * time.Second)
				if got := c.Stats()[0]; got.Check != tc.want {
					t.Errorf("%s: %s", got.Check, got.CheckError)
				}
			})
		})
	}
}

// A check goes over the socket and with the identity that requests would use.
func TestCheckSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewManager(Options{TLS: &someTLS{}, Source: func(cluster string) string { return "spiffe://td/" + cluster }})
		defer m.Close()
		type seen struct {
			source string
			tls    *TLS
		}
		got := make(chan seen, 10)
		m.openCheck = func(_ context.Context, p *pool, s *settings, _ protocol) (stream.Stream, Kind, error) {
			got <- seen{p.source, p.host.tls(s)}
			return nil, ConnectRefused, errors.New("no")
		}
		plain, strict := &TLS{SNI: "cluster"}, &TLS{SNI: "check"}
		check := every(&HTTPCheck{Path: "/"})
		cfg := &Config{
			Name: "c", TLS: plain, Sockets: []SocketMatch{{Match: map[string]any{"for": "check"}, TLS: strict}},
			HealthCheck: check, Endpoints: hosts("c", "10.0.0.1"),
		}
		mustUpdate(t, m, cfg)
		if s := <-got; s.source != "spiffe://td/c" || s.tls.SNI != "cluster" || !slices.Equal(s.tls.ALPN, []string{"http/1.1"}) {
			t.Errorf("%+v", s)
		}
		other := *check
		other.SocketMatch, other.ALPN = map[string]any{"for": "check"}, []string{"a", "b"}
		next := *cfg
		next.HealthCheck = &other
		mustUpdate(t, m, &next)
		if s := <-got; s.tls.SNI != "check" || len(s.tls.ALPN) != 2 || len(strict.ALPN) != 0 {
			t.Errorf("%+v", s.tls)
		}
	})
}

// A check that cannot be made says nothing of the host.
func TestCheckWaitsForIdentity(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
		p, none := &someTLS{}, errors.New("no SVID yet")
		p.err.Store(&none)
		m.opts.TLS = p
		s.say("10.0.0.1:80", status(200))
		c := mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{SNI: "x"}, HealthCheck: every(&HTTPCheck{Path: "/"}), Endpoints: hosts("c", "10.0.0.1")})
		wait(3500 * time.Millisecond)
		if got := c.Stats()[0]; got.Check != "pending" || got.CheckAttempts != 0 || got.CheckError != "no SVID yet" {
			t.Errorf("without identity: %+v", got)
		}
		p.err.Store(nil)
		if wait(time.Second); c.Stats()[0].Check != "passing" {
			t.Errorf("with identity: %+v", c.Stats()[0])
		}
	})
}

func FuzzCheckResponse(f *testing.F) {
	f.Add([]byte(status(200)), 10)
	f.Add([]byte("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 3)
	f.Add([]byte("HTTP/1.1 100 C\r\n\r\nHTTP/1.0 200 OK\r\n\r\nrest"), 100)
	f.Fuzz(func(t *testing.T, b []byte, keep int) {
		r := responseReader{conn: strings.NewReader(string(b)), method: "GET", keep: max(0, keep), limit: 1 << 16}
		if err := r.read(); err == nil && (r.resp.Status < 200 || len(r.body) > max(0, keep)) {
			t.Errorf("status %d with %d bytes", r.resp.Status, len(r.body))
		}
	})
}
