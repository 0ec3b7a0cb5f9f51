package cluster

import (
	"testing"
	"time"
)

// TestFailCheck: a host that asks for no further requests is down at once, and up when
// its checks pass as often as after any failure.
func TestFailCheck(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
		const a = "10.0.0.1:80"
		none := 0.0
		s.say(a, status(200))
		c := used(t, m, &Config{Name: "c", PanicThreshold: &none, HealthCheck: every(&HTTPCheck{Path: "/healthz"}), Endpoints: hosts("c", "10.0.0.1")})
		h := c.hosts()[0]
		wait(time.Millisecond)
		if !served(c) {
			t.Fatalf("%+v", c.Stats()[0])
		}
		h.FailCheck()
		if state, excluded := h.state(); state != hostDown || !excluded || c.Stats()[0].Check != "failing" {
			t.Errorf("asked out: %v %v %+v", state, excluded, c.Stats()[0])
		}
		wait(6 * time.Second)
		if served(c) {
			t.Error("healthy after one of two")
		}
		h.FailCheck() // again: what passed before does not count
		wait(3 * time.Second)
		if served(c) {
			t.Error("healthy after one of two since it asked again")
		}
		wait(3 * time.Second)
		if state, excluded := h.state(); state != hostUp || excluded {
			t.Errorf("after two that passed: %v %v", state, excluded)
		}
		unchecked := mustUpdate(t, m, &Config{Name: "unchecked", Endpoints: hosts("unchecked", "10.0.0.2")})
		unchecked.hosts()[0].FailCheck()
		if !served(unchecked) {
			t.Error("a host that is never checked is down for ever")
		}
	})
}

// served tells whether a request would find a host now.
func served(c *Cluster) bool {
	h, _ := c.Pick(nil)
	return h != nil
}
