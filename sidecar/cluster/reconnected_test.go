package cluster

import (
	"net/netip"
	"testing"
	"time"
)

// TestReconnected: a connection that was made otherwise than those to come are is not used again:
// from another address, with other probes, to an address that the host had.
func TestReconnected(t *testing.T) {
	server, other := newServer(t), netip.MustParseAddrPort("127.0.0.1:9")
	for name, tc := range map[string]struct {
		change func(*Config)
		again  bool
	}{
		"the same":       {func(*Config) {}, true},
		"from elsewhere": {func(c *Config) { c.Bind = &Bind{From: []BindAddress{{Addr: netip.MustParseAddr("127.0.0.9")}}} }, false},
		"probed":         {func(c *Config) { c.TCP = &TCPKeepAlive{Idle: time.Minute} }, false},
		"an address more": {func(c *Config) {
			at := hosts("c", server.addr)
			at.Localities[0].Endpoints[0].Also = []netip.AddrPort{other}
			c.Endpoints = at
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, Options{})
			cfg := Config{Name: "c", Endpoints: hosts("c", server.addr)}
			idle := acquire(t, mustUpdate(t, m, &cfg), "web")
			busy := acquire(t, m.Get("c"), "web")
			idle.Release()
			changed := cfg
			tc.change(&changed)
			c := mustUpdate(t, m, &changed)
			busy.Release()
			next := acquire(t, c, "web")
			defer next.Close()
			if again := next == idle || next == busy; again != tc.again {
				t.Errorf("one of before is used: %t", again)
			}
		})
	}
}
