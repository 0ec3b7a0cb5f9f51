package cluster

import (
	"context"
	"net"
	"net/netip"
)

// routable leaves out addresses of a family of which no interface has one.
type routable struct{ Resolver }

// LookupNetIP implements Resolver.
func (r routable) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	addrs, err := r.Resolver.LookupNetIP(ctx, network, host)
	if err != nil {
		return nil, err
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return addrs, nil // as in Envoy
	}
	return ofFamilies(addrs, own), nil
}

// ofFamilies are the addresses of a family that own has an address of which is no loopback.
func ofFamilies(addrs []netip.Addr, own []net.Addr) (out []netip.Addr) {
	var v4, v6 bool
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLoopback() {
			v4, v6 = v4 || p.Addr().Is4(), v6 || p.Addr().Is6()
		}
	}
	for _, a := range addrs {
		if is4 := a.Unmap().Is4(); is4 && v4 || !is4 && v6 {
			out = append(out, a)
		}
	}
	return out
}
