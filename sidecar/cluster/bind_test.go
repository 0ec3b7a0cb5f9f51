package cluster

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hauberk-mesh/hauberk/sidecar/sockopt"
)

// TestBind: a host is connected to from the address of its family, and the socket has the options of
// that address.
func TestBind(t *testing.T) {
	m := NewManager(Options{})
	defer m.Close()
	priority := func(n int) []sockopt.Option {
		return []sockopt.Option{{Level: unix.SOL_SOCKET, Name: unix.SO_PRIORITY, Int: n, State: sockopt.AfterBind}, {Level: 99, Name: 99, Family: 6}}
	}
	v4, v6 := BindAddress{netip.MustParseAddr("127.0.0.9"), priority(3)}, BindAddress{Addr: netip.MustParseAddr("::1")}
	for name, tc := range map[string]struct {
		bind           Bind
		at, from       string
		priority, free int
	}{
		"IPv4":          {Bind{From: []BindAddress{v4, v6}, Options: priority(5)}, "127.0.0.1:0", "127.0.0.9", 3, 0},
		"IPv6":          {Bind{From: []BindAddress{v4, v6}, Options: priority(5)}, "[::1]:0", "::1", 0, 0},
		"the other":     {Bind{From: []BindAddress{v6, v4}}, "127.0.0.1:0", "127.0.0.9", 3, 0},
		"any":           {Bind{Options: priority(5)}, "127.0.0.1:0", "127.0.0.1", 5, 0},
		"bound freely":  {Bind{FreeBind: true, From: []BindAddress{v4}}, "127.0.0.1:0", "127.0.0.9", 3, 1},
		"freely to any": {Bind{FreeBind: true}, "127.0.0.1:0", "127.0.0.1", 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", tc.at)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			c, err := dialer(m, &Config{Bind: &tc.bind})(t.Context(), "tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if from := c.LocalAddr().(*net.TCPAddr).IP.String(); from != tc.from {
				t.Errorf("it comes from %s, want %s", from, tc.from)
			}
			raw, err := c.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			var got, free int
			_ = raw.Control(func(fd uintptr) {
				got, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY)
				free, _ = unix.GetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND)
			})
			if got != tc.priority || free != tc.free {
				t.Errorf("priority %d, free %d; want %d and %d", got, free, tc.priority, tc.free)
			}
		})
	}
	t.Run("another family", func(t *testing.T) {
		d := dialer(m, &Config{Bind: &Bind{From: []BindAddress{v6}}})
		if c, err := d(t.Context(), "tcp", "127.0.0.1:1"); err == nil {
			_ = c.Close()
			t.Error("it is connected from an address of another family")
		}
	})
	t.Run("a refused option", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		d := dialer(m, &Config{Bind: &Bind{Options: []sockopt.Option{{Level: 99, Name: 99}}}})
		if c, err := d(t.Context(), "tcp", l.Addr().String()); err == nil {
			_ = c.Close()
			t.Error("it is connected without its option")
		}
	})
}
