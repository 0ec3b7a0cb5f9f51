package listener

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hauberk-mesh/hauberk/sidecar/sockopt"
)

// listen opens a stream socket with its options.
func (sock *Socket) listen(network, address string) (streamListener, error) {
	o := &sock.options
	lc := net.ListenConfig{
		// Options of a listening socket are those of the connections it takes: set
		// here once, they cost no system calls for each connection.
		KeepAlive: -1,
		Control: func(network, _ string, c syscall.RawConn) error {
			family := unix.AF_INET6
			switch {
			case strings.HasPrefix(network, "unix"):
				family = unix.AF_UNIX
			case network == "tcp4":
				family = unix.AF_INET
			}
			return control(c, func(fd int) error {
				if family != unix.AF_UNIX {
					if err := o.keepAlive(fd); err != nil {
						return err
					}
				}
				return o.beforeBind(fd, family)
			})
		},
	}
	lc.SetMultipathTCP(o.MultipathTCP)
	if network == "tcp" {
		network = "tcp4"
		if ap, err := netip.ParseAddrPort(address); err == nil && !ap.Addr().Unmap().Is4() {
			network = "tcp6"
		}
	}
	l, err := lc.Listen(context.Background(), network, address)
	if err != nil {
		return nil, err
	}
	s := l.(streamListener)
	if err := sock.afterBind(s, network, address); err != nil {
		_ = l.Close()
		return nil, err
	}
	return s, nil
}

func control(c syscall.RawConn, set func(fd int) error) error {
	var failed error
	if err := c.Control(func(fd uintptr) { failed = set(int(fd)) }); err != nil {
		return err
	}
	return failed
}

// keepAlive notices peers that are gone without a word, which would hold a
// connection until an idle timeout of an hour.
func (o *SocketOptions) keepAlive(fd int) error {
	k := KeepAlive{Idle: 15 * time.Second, Interval: 15 * time.Second, Probes: 9}
	if o.KeepAlive != nil {
		k = *o.KeepAlive
	}
	if err := sockopt.Int(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1, "SO_KEEPALIVE"); err != nil {
		return err
	}
	for _, opt := range []struct {
		name, value int
		text        string
	}{
		{unix.TCP_KEEPIDLE, int(k.Idle / time.Second), "TCP_KEEPIDLE"},
		{unix.TCP_KEEPINTVL, int(k.Interval / time.Second), "TCP_KEEPINTVL"},
		{unix.TCP_KEEPCNT, k.Probes, "TCP_KEEPCNT"},
	} {
		if opt.value > 0 {
			if err := sockopt.Int(fd, unix.IPPROTO_TCP, opt.name, opt.value, opt.text); err != nil {
				return err
			}
		}
	}
	return nil
}

// beforeBind sets what decides where a socket may be bound.
func (o *SocketOptions) beforeBind(fd, family int) error {
	flags := []struct {
		on            bool
		level4, name4 int
		level6, name6 int
		text          string
	}{
		{o.FreeBind, unix.SOL_IP, unix.IP_FREEBIND, unix.SOL_IPV6, unix.IPV6_FREEBIND, "IP_FREEBIND"},
		{o.Transparent, unix.SOL_IP, unix.IP_TRANSPARENT, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, "IP_TRANSPARENT"},
		{o.ReusePort, unix.SOL_SOCKET, unix.SO_REUSEPORT, unix.SOL_SOCKET, unix.SO_REUSEPORT, "SO_REUSEPORT"},
	}
	for _, f := range flags {
		if !f.on || family == unix.AF_UNIX {
			continue
		}
		level, name := f.level4, f.name4
		if family == unix.AF_INET6 {
			level, name = f.level6, f.name6
		}
		if err := sockopt.Int(fd, level, name, 1, f.text); err != nil {
			return err
		}
	}
	if family == unix.AF_INET6 && o.IPv4Compat {
		if err := sockopt.Int(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 0, "IPV6_V6ONLY"); err != nil {
			return err
		}
	}
	return sockopt.Set(o.Options, fd, sockopt.BeforeBind, family)
}

// afterBind sets the rest on a socket that listens already: package net binds and
// listens in one step, and the kernel takes all of these then too.
func (sock *Socket) afterBind(l streamListener, network, address string) error {
	o := &sock.options
	if network == "unix" {
		if o.Mode != 0 && !strings.HasPrefix(address, "@") {
			if err := os.Chmod(address, o.Mode); err != nil {
				return err
			}
		}
		return nil
	}
	raw, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	family := unix.AF_INET
	if network == "tcp6" {
		family = unix.AF_INET6
	}
	return control(raw, func(fd int) error {
		if err := sockopt.Set(o.Options, fd, sockopt.AfterBind, family); err != nil {
			return err
		}
		if o.FastOpen > 0 {
			if err := sockopt.Int(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, o.FastOpen, "TCP_FASTOPEN"); err != nil {
				return err
			}
		}
		if o.Backlog > 0 {
			if err := unix.Listen(fd, o.Backlog); err != nil {
				return os.NewSyscallError("listen", err)
			}
		}
		return sockopt.Set(o.Options, fd, sockopt.Listening, family)
	})
}
