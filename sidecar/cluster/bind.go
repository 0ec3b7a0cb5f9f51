package cluster

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hauberk-mesh/hauberk/sidecar/sockopt"
)

// Bind is where connections come from, and with which options.
type Bind struct {
	// From has at most one address of each family. A host of a family that has none is
	// connected to from the first, which fails, as in Envoy; without any, from where the system says.
	From []BindAddress
	// FreeBind allows addresses that the host does not have.
	FreeBind bool `json:",omitempty"`
	// Options are those of connections from nowhere in particular.
	Options []sockopt.Option `json:",omitempty"`
}

// BindAddress is one to connect from, with the options of its connections.
type BindAddress struct {
	Addr    netip.Addr
	Options []sockopt.Option `json:",omitempty"`
}

// dial connects from where b says, which is not nil.
func (b *Bind) dial(ctx context.Context, d net.Dialer, network, address string) (net.Conn, error) {
	if !strings.HasPrefix(network, "tcp") {
		return d.DialContext(ctx, network, address) // a path has no source
	}
	options := b.Options
	if from := b.from(address); from != nil {
		options = from.Options
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from.Addr, 0))
	}
	if b.FreeBind || len(options) > 0 {
		before := d.Control
		d.Control = func(network, address string, c syscall.RawConn) error {
			if err := before(network, address, c); err != nil {
				return err
			}
			family := unix.AF_INET
			if network == "tcp6" {
				family = unix.AF_INET6
			}
			return b.control(c, options, family)
		}
	}
	return d.DialContext(ctx, network, address)
}

// control sets a socket's options before it is bound: package net binds and connects in one step, and
// the kernel takes those that are for afterwards then too.
func (b *Bind) control(c syscall.RawConn, options []sockopt.Option, family int) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		if b.FreeBind {
			failed = sockopt.FreeBind(int(fd), family)
		}
		for _, state := range []sockopt.State{sockopt.BeforeBind, sockopt.AfterBind} {
			if failed == nil {
				failed = sockopt.Set(options, int(fd), state, family)
			}
		}
	})
	if err != nil {
		return err
	}
	return failed
}

// from is the address for a host, nil for the system's choice.
func (b *Bind) from(address string) *BindAddress {
	if len(b.From) == 0 {
		return nil
	}
	host, err := netip.ParseAddrPort(address)
	if err != nil {
		return &b.From[0]
	}
	for i := range b.From {
		if b.From[i].Addr.Is4() == host.Addr().Unmap().Is4() {
			return &b.From[i]
		}
	}
	return &b.From[0]
}
