package cluster

import (
	"testing"
	"testing/synctest"
	"time"
)

// logical is a LogicalDNS cluster whose name has these addresses.
func logical(t *testing.T, dns *fakeDNS, cfg Config, addrs ...string) *Cluster {
	t.Helper()
	dns.set(nil, addrs...)
	m := NewManager(Options{Resolver: dns})
	t.Cleanup(func() { _ = m.Close() })
	cfg.Name, cfg.Type, cfg.Endpoints = "c", LogicalDNS, namesOn(80, "api.example")
	if cfg.DNS == nil {
		cfg.DNS = &DNS{}
	}
	cfg.DNS.Refresh = time.Second
	c := mustUpdate(t, m, &cfg)
	synctest.Wait()
	return c
}

// TestConnectionsOfTheLastAddress: when the name moves, connections to where it was take no
// request any more: idle ones end, those in use with their exchange.
func TestConnectionsOfTheLastAddress(t *testing.T) {
	for name, protocol := range map[string]Protocol{"HTTP/1": SpeakHTTP1, "HTTP/2": SpeakHTTP2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dns := &fakeDNS{}
				h := logical(t, dns, Config{HTTP: HTTP{Protocol: protocol}}, "10.0.0.1").hosts()[0]
				idle, busy := kept(t, h, protocol), kept(t, h, protocol)
				busy.takeUp()
				dns.set(nil, "10.0.0.1", "10.0.0.2") // it is the first that counts
				wait(time.Second)
				if idle.closed.Load() {
					t.Error("a connection ended though its address is the name's")
				}
				dns.set(nil, "10.0.0.2", "10.0.0.1")
				wait(time.Second)
				if !idle.closed.Load() {
					t.Error("an idle connection to the address before was left open")
				}
				if protocol == SpeakHTTP1 && busy.closed.Load() {
					t.Error("a connection in use was cut")
				}
				busy.Release()
				if synctest.Wait(); !busy.closed.Load() {
					t.Error("a connection to the address before was pooled")
				}
				then := kept(t, h, protocol)
				if c, err := h.Acquire(withTimeout(time.Second), "web", nil, true, DefaultPriority, monotonic(), 0); c != then {
					t.Errorf("a connection to the name's address is not used: %v", err)
				} else {
					c.Release()
				}
			})
		})
	}
}

// TestFirstAddress: of all families those of IPv4 come first, as in Envoy.
func TestFirstAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for family, want := range map[DNSFamily]string{AllFamilies: "10.0.0.1:80", IPv4First: "10.0.0.1:80", IPv6First: "[::1]:80"} {
			c := logical(t, &fakeDNS{}, Config{DNS: &DNS{Family: family}}, "::1", "10.0.0.1")
			if got := addresses(c); len(got) != 1 || got[0] != want {
				t.Errorf("%v: %v", family, got)
			}
		}
	})
}

// TestLastAddressOfAFamily: a name that has no address of the cluster's family any more keeps
// the last one that it had.
func TestLastAddressOfAFamily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dns := &fakeDNS{}
		c := logical(t, dns, Config{DNS: &DNS{Family: IPv6Only}}, "::1", "10.0.0.1")
		dns.set(nil, "10.0.0.1")
		wait(1100 * time.Millisecond)
		if got := addresses(c); len(got) != 1 || got[0] != "[::1]:80" {
			t.Errorf("%v", got)
		}
	})
}
