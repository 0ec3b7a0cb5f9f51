package cluster

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
)

// TestProbes: connections are probed where that is configured, and else not, as in Envoy.
func TestProbes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := NewManager(Options{})
	defer m.Close()
	from := netip.MustParseAddr("127.0.0.1")
	for name, tc := range map[string]struct {
		dial dialFunc
		want int
	}{
		"nothing":               {m.dial, 0},
		"an address":            {dialer(m, &Config{Bind: &Bind{From: []BindAddress{{Addr: from}}}}), 0},
		"an address and probes": {dialer(m, &Config{Bind: &Bind{From: []BindAddress{{Addr: from}}}, TCP: &TCPKeepAlive{Idle: 7e9}}), 1},
		"probes":                {dialer(m, &Config{TCP: &TCPKeepAlive{Idle: 7e9}}), 1},
	} {
		c, err := tc.dial(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var got int
		if err := raw.Control(func(fd uintptr) { got, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE) }); err != nil {
			t.Fatal(err)
		}
		if err != nil || got != tc.want {
			t.Errorf("%s: SO_KEEPALIVE is %d (%v), want %d", name, got, err, tc.want)
		}
	}
}
