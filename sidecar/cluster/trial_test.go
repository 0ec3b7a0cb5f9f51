package cluster

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestTrial: what is to take the place of a cluster has its hosts checked beside it, and
// takes with it what was found: none of them is unknown then, and none that fails is chosen.
func TestTrial(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
		var proven atomic.Int32
		m.opts.Proven = func() { proven.Add(1) }
		for addr, says := range map[string]string{"10.0.0.1:80": status(200), "10.0.0.2:80": status(200), "10.0.0.3:80": status(503), "10.0.0.4:80": status(200)} {
			s.say(addr, says)
		}
		none := 0.0
		cfg := func(service string) *Config {
			return &Config{Name: "c", Type: EDS, ServiceName: service, PanicThreshold: &none, HealthCheck: every(&HTTPCheck{Path: "/healthz"})}
		}
		if err := m.UpdateWith(cfg("old"), hosts("old", "10.0.0.1")); err != nil {
			t.Fatal(err)
		}
		wait(time.Second)
		proven.Store(0)
		c := m.Get("c")
		s.mu.Lock() // the checks wait for their connections
		release := sync.OnceFunc(s.mu.Unlock)
		defer release()
		trial, err := m.Try(cfg("new"), hosts("new", "10.0.0.2", "10.0.0.3"))
		if err != nil {
			t.Fatal(err)
		}
		if !trial.AwaitsChecks() || c.Stats()[0].Address != "10.0.0.1:80" || !chooses(c) {
			t.Errorf("at first: awaits %v, %+v", trial.AwaitsChecks(), c.Stats())
		}
		if err := trial.SetEndpoints(hosts("new", "10.0.0.2", "10.0.0.3", "10.0.0.4")); err != nil {
			t.Fatal(err)
		}
		release()
		wait(time.Second)
		if trial.AwaitsChecks() || proven.Load() != 1 || len(m.All()) != 1 || !chooses(c) {
			t.Errorf("checked: awaits %v, told %d times, clusters %d", trial.AwaitsChecks(), proven.Load(), len(m.All()))
		}
		// One check that passes is not enough, and the first is made when the cluster is updated.
		before := len(s.times("10.0.0.3:80"))
		s.say("10.0.0.3:80", status(200))
		if err := m.UpdateTried(cfg("new"), hosts("new", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"), trial); err != nil {
			t.Fatal(err)
		}
		trial.Close()
		for range 20 { // before anything is checked again
			if h, err := c.Pick(nil); err != nil || h.Address() != "10.0.0.2:80" && h.Address() != "10.0.0.4:80" {
				t.Fatalf("chosen: %v, %v", h, err)
			}
		}
		if m.Get("c") != c {
			t.Error("it is another cluster")
		}
		wait(time.Minute)
		checks := map[string]string{}
		for _, h := range c.Stats() {
			checks[h.Address] = h.Check
		}
		if checks["10.0.0.3:80"] != "passing" || len(s.times("10.0.0.3:80")) == before {
			t.Errorf("the checks do not go on: %v", checks)
		}
		trial, err = m.Try(cfg("next"), hosts("next", "10.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		trial.Close()
		asked := len(s.times("10.0.0.1:80"))
		if wait(time.Minute); len(s.times("10.0.0.1:80")) > asked+1 {
			t.Error("a trial that ended goes on checking")
		}
	})
}

// TestTrialOfOtherHosts: what was found of hosts that have gone proves nothing of those that came,
// whether they failed, and are away, or passed, and are checked until they fail.
func TestTrialOfOtherHosts(t *testing.T) {
	for what, says := range map[string]string{"failing": status(503), "passing": status(200)} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
				for addr, says := range map[string]string{"10.0.0.1:80": says, "10.0.0.2:80": says, "10.0.0.3:80": "hang", "10.0.0.4:80": "hang", "10.0.0.5:80": "hang"} {
					s.say(addr, says)
				}
				check := every(&HTTPCheck{Path: "/healthz"})
				check.NoTraffic, check.NoTrafficHealthy, check.Timeout = 1500*time.Millisecond, 1500*time.Millisecond, 3*time.Second
				trial, err := m.Try(&Config{Name: "c", Type: EDS, HealthCheck: check}, hosts("c", "10.0.0.1", "10.0.0.2", "10.0.0.3"))
				if err != nil {
					t.Fatal(err)
				}
				defer trial.Close()
				wait(time.Second)
				if !trial.AwaitsChecks() {
					t.Fatal("does not wait for the third")
				}
				if err := trial.SetEndpoints(hosts("c", "10.0.0.4", "10.0.0.5")); err != nil {
					t.Fatal(err)
				}
				if wait(2 * time.Second); !trial.AwaitsChecks() {
					t.Error("nobody knows of the hosts that came")
				}
				if wait(2 * time.Second); trial.AwaitsChecks() {
					t.Error("goes on waiting")
				}
			})
		})
	}
}

// TestTrialOfWhatCannotBe: it is refused as the cluster would be.
func TestTrialOfWhatCannotBe(t *testing.T) {
	m := newManager(t, Options{})
	if _, err := m.Try(&Config{Name: "c", Endpoints: hosts("c", "nowhere")}, nil); err == nil {
		t.Error("taken")
	}
}

// TestWithdrawalsReachTrials: the connections of a trial's checks present an identity too.
func TestWithdrawalsReachTrials(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}, Source: func(string) string { return "web" }})
	trial, err := m.Try(&Config{Name: "c", TLS: &TLS{SNI: "x"}, HealthCheck: every(&HTTPCheck{Path: "/"}), Endpoints: hosts("c", srv.Listener.Addr().String())}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer trial.Close()
	waitFor(t, func() bool { return !trial.AwaitsChecks() })
	if n := m.CloseConns(ofWeb); n != 1 {
		t.Errorf("%d connections were closed", n)
	}
}
