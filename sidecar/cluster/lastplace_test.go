package cluster

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// TestPlaceOnAConnectionThatEnds: whoever has a place on a shared connection has it, also
// where it takes no other, and another request has just left it.
func TestPlaceOnAConnectionThatEnds(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, m *Manager, cfg *Config){
		"it has served long enough": func(*testing.T, *Manager, *Config) {},
		"its host has gone": func(t *testing.T, m *Manager, cfg *Config) {
			if err := m.SetEndpoints(&Assignment{Cluster: "c"}); err != nil {
				t.Error(err)
			}
		},
		"its TLS context is another": func(t *testing.T, m *Manager, cfg *Config) {
			other := *cfg
			other.Sockets = []SocketMatch{{Name: "another", Match: map[string]any{"x": "y"}}}
			mustUpdate(t, m, &other)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			m := newManager(t, Options{})
			cfg := &Config{Name: "c", Type: EDS, Endpoints: hosts("c", s.addr), HTTP: HTTP{Protocol: SpeakHTTP2, MaxRequestsPerConnection: 2}}
			h := mustUpdate(t, m, cfg).hosts()[0]
			first, err := connTo(h)
			if err != nil {
				t.Fatal(err)
			}
			last, err := connTo(h)
			if err != nil || last != first {
				t.Fatal(err)
			}
			end(t, m, cfg)
			first.Release()
			stream, err := last.HTTP2.Open(&message.Request{Method: "GET", Scheme: "http", Authority: "a", Path: "/"}, true)
			if err != nil {
				t.Fatal(err)
			}
			stream.Close()
			last.Release()
			waitFor(t, func() bool { return h.conns.Load() == 0 })
		})
	}
}
