package listener

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// Available says why cfg's address could not be listened on: someone else has it,
// or this host does not. A listener that still waits for what it names has no
// socket yet; this is how it is refused at once, while its sender listens, and
// not when the wait is over. An address that a listener has here is available:
// which of the two gets it is decided when they are applied.
func (m *Manager) Available(cfg *Config) error {
	for _, a := range cfg.addresses() {
		if err := m.opts.Sockets.available(a); err != nil {
			return fmt.Errorf("listener %s: %w", cfg.Name, err)
		}
	}
	return nil
}

// Bound is an address that one listener at a time can be bound to.
type Bound struct{ Network, Address string }

// Bound are the addresses that no other listener can have together with this one. Port 0 is
// another one for each.
func (c *Config) Bound() []Bound {
	var out []Bound
	for _, a := range c.addresses() {
		if ap, err := netip.ParseAddrPort(a.Address); err != nil || ap.Port() != 0 {
			out = append(out, Bound{a.Network, a.Address})
		}
	}
	return out
}

func (s *Sockets) available(a Address) error {
	network, address := a.Network, a.Address
	if network != "tcp" {
		return nil // tried when it is applied
	}
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("listen %s %s: %w", network, address, err)
	}
	want := &Socket{key: socketKey{network: network, address: address}}
	s.mu.Lock()
	_, open := s.open[want.key]
	inherited := slices.ContainsFunc(s.inherited, func(in Inherited) bool { return in.is(want) })
	s.mu.Unlock()
	if open || inherited || addr.Port() == 0 {
		return nil
	}
	switch err := tryBind(addr, &a.Socket); {
	case errors.Is(err, syscall.EADDRINUSE):
		return &AddressInUseError{network, address, holderOf(network, address)}
	case err != nil:
		return fmt.Errorf("listen %s %s: %w", network, address, err)
	}
	return nil
}

// tryBind binds a socket that never listens, so that nobody can connect to it.
func tryBind(addr netip.AddrPort, o *SocketOptions) error {
	family, to := syscall.AF_INET6, syscall.Sockaddr(&syscall.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()})
	if addr.Addr().Unmap().Is4() {
		family, to = syscall.AF_INET, &syscall.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().Unmap().As4()}
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	// As package net does: connections of before in TIME_WAIT are no obstacle, and who listens for IPv4 is none
	// to who does for IPv6 alone.
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if family == syscall.AF_INET6 {
		if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 1); err != nil {
			return err
		}
	}
	if err := o.beforeBind(fd, family); err != nil {
		return err
	}
	return syscall.Bind(fd, to)
}
