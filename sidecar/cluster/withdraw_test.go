package cluster

import (
	"net/netip"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

func ofWeb(source string, _ *stream.Info) bool { return source == "web" }

// TestCloseConnsOfTheDeparted: a withdrawal ends the connections to hosts and of clusters
// that have gone; nothing is known of those without connections.
func TestCloseConnsOfTheDeparted(t *testing.T) {
	s := newServer(t)
	eds := Config{Name: "c", Type: EDS, Endpoints: hosts("c", s.addr)}
	for name, tc := range map[string]struct {
		cfg    Config
		depart func(m *Manager) error
	}{
		"its host left EDS":       {eds, func(m *Manager) error { return m.SetEndpoints(&Assignment{Cluster: "c"}) }},
		"its cluster was removed": {eds, func(m *Manager) error { m.Remove("c"); return nil }},
		"its cluster is another":  {eds, func(m *Manager) error { return m.Update(&Config{Name: "c", Type: OriginalDestination}) }},
		"its host is another": {eds, func(m *Manager) error {
			return m.Update(&Config{Name: "c", Type: EDS, Sockets: []SocketMatch{{Name: "another"}}})
		}},
		"its destination was lost": {Config{Name: "c", Type: OriginalDestination}, func(m *Manager) error { m.Remove("c"); return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, Options{})
			c := mustUpdate(t, m, &tc.cfg)
			h, err := c.PickFor(&PickContext{Destination: netip.MustParseAddrPort(s.addr)})
			if err != nil {
				t.Fatal(err)
			}
			take := func(source string) *Conn {
				conn, err := h.Acquire(withTimeout(5*time.Second), source, false, DefaultPriority, 0)
				if err != nil {
					t.Fatal(err)
				}
				return conn
			}
			web, other := take("web"), take("api")
			if err := tc.depart(m); err != nil {
				t.Fatal(err)
			}
			late := take("web") // whoever chose the host before it went
			if n := m.CloseConns(ofWeb); n != 2 || !web.closed.Load() || !late.closed.Load() || other.closed.Load() {
				t.Errorf("%d connections were closed", n)
			}
			if n := len(m.departed.all(nil)); n != 1 {
				t.Errorf("%d hosts are known that have gone and have connections", n)
			}
			other.Release()
			if n := len(m.departed.all(nil)); n != 0 {
				t.Errorf("%d hosts are known that have gone and have no connection", n)
			}
		})
	}
}
