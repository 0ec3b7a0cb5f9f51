package server

import (
	"net"
	"net/netip"
)

// reachable is the address at which other hosts find a listener. One that is
// bound to every address of this host is found at the first that is neither
// loopback nor link-local; a host without one has nobody to be found by.
func reachable(bound net.Addr, own []net.Addr) string {
	addr, err := netip.ParseAddrPort(bound.String())
	if err != nil || !addr.Addr().IsUnspecified() {
		return bound.String()
	}
	best := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	for _, a := range own {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || !p.Addr().IsGlobalUnicast() || !best.IsLoopback() && (best.Is4() || p.Addr().Is6()) {
			continue
		}
		best = p.Addr()
	}
	return netip.AddrPortFrom(best, addr.Port()).String()
}
