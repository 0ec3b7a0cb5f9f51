package cluster

import (
	"testing"
	"time"
)

// TestCheckedElsewhere: an endpoint whose checks begin, or go to another address, is healthy when they
// say so, as one that is new. What was found of another address says nothing of this one.
func TestCheckedElsewhere(t *testing.T) {
	for name, tc := range map[string]struct{ before, after *EndpointCheck }{
		"checks begin": {&EndpointCheck{Disabled: true}, nil}, "another port": {nil, &EndpointCheck{Port: 81}},
		"another address": {&EndpointCheck{Port: 81}, &EndpointCheck{Address: "10.0.0.9", Port: 81}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
				for _, addr := range []string{"10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:80"} {
					s.say(addr, status(200))
				}
				with := func(check *EndpointCheck, weight uint32) *Assignment {
					a := hosts("c", "10.0.0.1", "10.0.0.2")
					a.Localities[0].Endpoints[0].Check, a.Localities[0].Endpoints[0].Weight = check, weight
					return a
				}
				c := mustUpdate(t, m, &Config{Name: "c", Type: EDS, HealthCheck: every(&HTTPCheck{Path: "/"})})
				_ = m.SetEndpoints(with(tc.before, 1))
				wait(time.Second)
				state := func(when string, want hostState) {
					t.Helper()
					if got, _ := c.hosts()[0].state(); got != want {
						t.Errorf("%s: %d, not %d: %+v", when, got, want, c.Stats()[0])
					}
				}
				state("at first", hostUp)
				addr := "10.0.0.1:80"
				if k := tc.after; k != nil {
					addr = "10.0.0.1:81"
					if k.Address != "" {
						addr = k.Address + ":81"
					}
				}
				s.say(addr, "hang")
				_ = m.SetEndpoints(with(tc.after, 1))
				state("not checked there yet", hostDown)
				wait(2 * time.Second)
				state("no answer there", hostDown)
				s.say(addr, status(200))
				wait(4 * time.Minute)
				state("an answer there", hostUp)
				_ = m.SetEndpoints(with(tc.after, 2)) // which is not about checks
				state("of another weight", hostUp)
			})
		})
	}
}

// TestSocketOfWhoOutlivesDiscovery: a host that stays although nobody names it goes when it would be
// reached over another transport socket: it would be verified by that of before.
func TestSocketOfWhoOutlivesDiscovery(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
		m.opts.TLS = noTLS{}
		s.say("10.0.0.1:80", status(200))
		s.say("10.0.0.2:80", status(200))
		with := func(sni string) *Config {
			return &Config{Name: "c", Type: EDS, HealthCheck: every(&HTTPCheck{Path: "/"}),
				Sockets: []SocketMatch{{Name: "plain", Match: map[string]any{"tls": "off"}}, {Name: sni, Match: map[string]any{"tls": "on"}, TLS: &TLS{SNI: sni}}}}
		}
		a := hosts("c", "10.0.0.1", "10.0.0.2")
		a.Localities[0].Endpoints[0].Metadata = map[string]map[string]any{SocketNamespace: {"tls": "off"}}
		c := mustUpdate(t, m, with("one"))
		_ = m.SetEndpoints(a)
		wait(time.Second)
		_ = m.SetEndpoints(hosts("c", "10.0.0.2"))
		mustUpdate(t, m, with("two"))
		if got := c.Stats(); len(got) != 2 {
			t.Fatalf("it went for another host's socket: %+v", got)
		}
		next := with("two")
		next.Sockets[0].TLS = &TLS{SNI: "off no more"}
		mustUpdate(t, m, next)
		if got := c.Stats(); len(got) != 1 || got[0].Address != "10.0.0.2:80" {
			t.Errorf("it stays, over the socket of before: %+v", got)
		}
	})
}

// TestLastOfADepartedHost: connections end when a host goes, also one that only its checks had kept.
func TestLastOfADepartedHost(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Manager, s *checkedHosts) {
		s.say("10.0.0.1:80", status(200))
		s.say("10.0.0.2:80", status(200))
		c := mustUpdate(t, m, &Config{Name: "c", Type: EDS, CloseOnChange: true, HealthCheck: every(&HTTPCheck{Path: "/"})})
		c.trafficked.Store(true)
		_ = m.SetEndpoints(hosts("c", "10.0.0.1", "10.0.0.2"))
		wait(time.Second)
		_ = m.SetEndpoints(hosts("c", "10.0.0.2"))
		conn := kept(t, c.hosts()[0], SpeakHTTP1)
		s.say("10.0.0.1:80", status(500))
		wait(6 * time.Second)
		if len(c.hosts()) != 1 || !conn.closed.Load() {
			t.Errorf("%d hosts, and the connection's end is %v", len(c.hosts()), conn.closed.Load())
		}
	})
}
