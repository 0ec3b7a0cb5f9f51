package cluster

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

// routable leaves out addresses of a family of which no interface has one.
type routable struct {
	Resolver
	family DNSFamily
}

// errUnroutable is why a lookup failed that brought addresses which cannot be reached.
var errUnroutable = errors.New("no interface has an address of the family that the name's addresses are of")

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
	return r.of(addrs, own)
}

// of are the addresses of a family that own has an address of which is no loopback. Where none of
// them is, the question for the one family that is wanted failed, as in Envoy, which then keeps what
// the name last resolved to; with all families the name has no addresses.
func (r routable) of(addrs []netip.Addr, own []net.Addr) (out []netip.Addr, err error) {
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
	if len(out) == 0 && len(addrs) > 0 && r.family != AllFamilies {
		return nil, errUnroutable
	}
	return out, nil
}
