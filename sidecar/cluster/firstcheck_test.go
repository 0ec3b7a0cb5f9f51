package cluster

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

func chooses(c *Cluster) bool {
	_, err := c.Pick(nil)
	return err == nil
}

// TestClusterAwaitsFirstChecks: that each of the hosts of a new cluster was checked once is told,
// once; until then panic has them all.
func TestClusterAwaitsFirstChecks(t *testing.T) {
	for what, endpoints := range map[string]func(m *Manager, cfg *Config) error{
		"known at once": func(m *Manager, cfg *Config) error { return m.UpdateWith(cfg, hosts("c", "10.0.0.1", "10.0.0.2")) },
		"that come later": func(m *Manager, cfg *Config) error {
			return errors.Join(m.Update(cfg), m.SetEndpoints(hosts("c", "10.0.0.1", "10.0.0.2")))
		},
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
				var proven atomic.Int32
				m.opts.Proven = func() { proven.Add(1) }
				s.say("10.0.0.1:80", status(200))
				s.say("10.0.0.2:80", "hang")
				if err := endpoints(m, &Config{Name: "c", Type: EDS, HealthCheck: every(&HTTPCheck{Path: "/healthz"})}); err != nil {
					t.Fatal(err)
				}
				c := m.Get("c")
				wait(500 * time.Millisecond)
				if !chooses(c) || !c.AwaitsChecks() || proven.Load() != 0 {
					t.Errorf("one of two checked: serves %v, awaits %v, told %d times", chooses(c), c.AwaitsChecks(), proven.Load())
				}
				if got := len(c.Stats()); got != 2 {
					t.Errorf("%d hosts are shown", got)
				}
				wait(time.Second)
				h, err := c.Pick(nil)
				if err != nil || h.Address() != "10.0.0.1:80" || c.AwaitsChecks() || proven.Load() != 1 {
					t.Errorf("both checked: %v %v, awaits %v, told %d times", h, err, c.AwaitsChecks(), proven.Load())
				}
				if err := m.SetEndpoints(hosts("c", "10.0.0.3")); err != nil {
					t.Fatal(err)
				}
				if c.AwaitsChecks() || !chooses(c) {
					t.Error("what comes later is waited for, and not a matter of panic")
				}
			})
		})
	}
}

// TestSilentHostKeepsNoCluster: as many results as there are hosts are enough.
func TestSilentHostKeepsNoCluster(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
		s.say("10.0.0.1:80", status(200))
		s.say("10.0.0.2:80", "hang")
		check := every(&HTTPCheck{Path: "/healthz"})
		check.Timeout, check.NoTrafficHealthy = time.Minute, 2*time.Second
		c := mustUpdate(t, m, &Config{Name: "c", HealthCheck: check, Endpoints: hosts("c", "10.0.0.1", "10.0.0.2")})
		if wait(time.Second); !c.AwaitsChecks() || !chooses(c) {
			t.Errorf("after one result: awaits %v, serves %v", c.AwaitsChecks(), chooses(c))
		}
		if wait(2 * time.Second); c.AwaitsChecks() || !chooses(c) {
			t.Errorf("after two: awaits %v, serves %v", c.AwaitsChecks(), chooses(c))
		}
	})
}

// TestNoHostNoCheck: who has no host waits for none, and neither does one that is no
// longer checked.
func TestNoHostNoCheck(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
		s.say("10.0.0.1:80", "hang")
		check := every(&HTTPCheck{Path: "/healthz"})
		none := mustUpdate(t, m, &Config{Name: "none", HealthCheck: check, Endpoints: hosts("none")})
		off := mustUpdate(t, m, &Config{Name: "off", HealthCheck: check, Endpoints: hosts("off", "10.0.0.1")})
		if none.AwaitsChecks() || !off.AwaitsChecks() || !chooses(off) {
			t.Errorf("without hosts %v, with one %v that serves %v", none.AwaitsChecks(), off.AwaitsChecks(), chooses(off))
		}
		mustUpdate(t, m, &Config{Name: "off", Endpoints: hosts("off", "10.0.0.1")})
		if off.AwaitsChecks() || !chooses(off) {
			t.Error("waits for checks that it does not make")
		}
	})
}

// TestCheckThatCannotBeMade is not waited for: what it needs may wait for its cluster.
func TestCheckThatCannotBeMade(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
		m.openCheck = func(context.Context, *pool, *settings, protocol) (stream.Stream, Kind, error) {
			return nil, 0, unready{errors.New("no certificate yet")}
		}
		c := mustUpdate(t, m, &Config{Name: "c", HealthCheck: every(&HTTPCheck{Path: "/healthz"}), Endpoints: hosts("c", "10.0.0.1")})
		wait(time.Millisecond)
		if c.AwaitsChecks() || !chooses(c) {
			t.Errorf("awaits %v, serves %v", c.AwaitsChecks(), chooses(c))
		}
	})
}
