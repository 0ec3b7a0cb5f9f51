package cluster

import (
	"errors"
	"testing"
	"time"
)

// TestAnotherSocketKeepsFindings: a host that is reached over another transport socket is known
// for what its checks and outlier detection last found.
func TestAnotherSocketKeepsFindings(t *testing.T) {
	matched := func(mode string) *Assignment {
		a := hosts("c", "10.0.0.1", "10.0.0.2", "10.0.0.3")
		for i := range a.Localities {
			a.Localities[i].Endpoints[0].Metadata = map[string]map[string]any{SocketNamespace: {"mode": mode}}
		}
		return a
	}
	none := 0.0
	with := func(first string) *Config {
		check := every(&HTTPCheck{Path: "/"})
		check.InitialJitter = 10 * time.Second
		return &Config{
			Name: "c", Type: EDS, PanicThreshold: &none, HealthCheck: check,
			Sockets: []SocketMatch{{Name: first, Match: map[string]any{"mode": "one"}}, {Name: "other", Match: map[string]any{"mode": "two"}}},
			Outlier: &Outlier{
				Consecutive5xx: 3, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 50, Interval: time.Second,
				BaseEjectionTime: 100 * time.Second, KeepOnCheck: true,
			},
		}
	}
	for name, change := range map[string]func(*Manager) error{
		"of the cluster":   func(m *Manager) error { return m.Update(with("changed")) },
		"of the endpoints": func(m *Manager) error { return m.SetEndpoints(matched("two")) },
		"of both":          func(m *Manager) error { return m.UpdateWith(with("changed"), matched("two")) },
		"then of the cluster": func(m *Manager) error {
			return errors.Join(m.SetEndpoints(matched("two")), m.Update(with("x")), m.SetEndpoints(matched("one")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
				for i, code := range []int{200, 200, 503} {
					s.say([]string{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"}[i], status(code))
				}
				c := mustUpdate(t, m, with("first"))
				if err := m.SetEndpoints(matched("one")); err != nil {
					t.Fatal(err)
				}
				wait(20 * time.Second)
				before := c.hosts()
				for range 3 {
					before[1].Report(500)
				}
				before[0].Report(500)
				before[0].Report(500)
				if err := change(m); err != nil {
					t.Fatal(err)
				}
				if c.hosts()[0] == before[0] {
					t.Fatal("the socket changed, and the host is the same")
				}
				for i, want := range []HostStats{{Check: "passing"}, {Check: "passing", Ejected: true}, {Check: "failing", CheckError: "status 503"}} {
					got := c.Stats()[i]
					if got.Check != want.Check || got.Ejected != want.Ejected || got.CheckError != want.CheckError || got.CheckAttempts == 0 {
						t.Errorf("host %d: %+v", i, got)
					}
				}
				if c.hosts()[0].outlier.failures5xx.Load() != 2 {
					t.Error("failures in a row are forgotten")
				}
				if h, _ := c.Pick(nil); h != c.hosts()[0] || ejected(c) != 1 {
					t.Errorf("picked %v; %d are ejected", h, ejected(c))
				}
				wait(30 * time.Second)
				if !c.hosts()[1].ejected() || ejected(c) != 1 {
					t.Errorf("%d are ejected before its time", ejected(c))
				}
				wait(80 * time.Second)
				if c.hosts()[1].ejected() || ejected(c) != 0 {
					t.Errorf("%d are still ejected", ejected(c))
				}
			})
		})
	}
}

func ejected(c *Cluster) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ejected
}

// TestAnotherSocketUnchecked: what checks found of a host is not kept where they are gone.
func TestAnotherSocketUnchecked(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
		none := 0.0
		s.say("10.0.0.1:80", status(503))
		at := hosts("c", "10.0.0.1")
		at.Localities[0].Endpoints[0].Metadata = map[string]map[string]any{SocketNamespace: {"mode": "one"}}
		cfg := Config{Name: "c", PanicThreshold: &none, HealthCheck: every(&HTTPCheck{Path: "/"}), Endpoints: at,
			Sockets: []SocketMatch{{Name: "first", Match: map[string]any{"mode": "one"}}}}
		was := mustUpdate(t, m, &cfg).hosts()[0]
		wait(time.Second)
		cfg.HealthCheck, cfg.Sockets = nil, []SocketMatch{{Name: "second", Match: map[string]any{"mode": "one"}}}
		c := mustUpdate(t, m, &cfg)
		if got := c.Stats()[0]; c.hosts()[0] == was || !served(c) || got.Check != "" || got.CheckAttempts != 0 {
			t.Errorf("%+v", got)
		}
	})
}
