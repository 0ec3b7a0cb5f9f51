package cluster

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
)

// TestSourceAddressProbesNothing: an address to connect from brings no keep-alive probes, which nobody asked for.
func TestSourceAddressProbesNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := NewManager(Options{})
	defer m.Close()
	from := netip.MustParseAddr("127.0.0.1")
	for want, probes := range map[int]*TCPKeepAlive{0: nil, 1: {Idle: 7e9}} {
		c, err := dialer(m, &Config{Source: &from, TCP: probes})(t.Context(), "tcp", l.Addr().String())
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
		if err != nil || got != want {
			t.Errorf("%+v: SO_KEEPALIVE is %d (%v), want %d", probes, got, err, want)
		}
	}
}
