package listener

import "net/netip"

// handOff gives the connection to the listener that is configured for where it was
// going, and returns that.
func (a *arrival) handOff() *listener {
	next := a.l.m.listenerOf(a.match.destination)
	if next == nil || next == a.l {
		return nil
	}
	next.mu.Lock()
	if next.removed {
		next.mu.Unlock()
		return nil
	}
	next.open++
	next.wg.Add(1)
	next.arriving[a.conn] = a.generation
	snap := next.current
	snap.refs.Add(1)
	next.mu.Unlock()

	old, oldSnap := a.l, a.snap
	a.l, a.snap = next, snap
	old.mu.Lock()
	delete(old.arriving, a.conn)
	old.open--
	old.mu.Unlock()
	oldSnap.release()
	old.wg.Done()
	return next
}

// place is where a listener listens, or is said to.
type place struct {
	netip.AddrPort
	// both: it is of IPv6, and connections of IPv4 are meant too.
	both bool
}

// places are the addresses of TCP, those too that nothing is bound to.
func (c *Config) places() (out []place) {
	for _, a := range append([]Address{{c.Network, c.Address, c.Socket}}, c.Additional...) {
		if ap, err := netip.ParseAddrPort(a.Address); a.Network == "tcp" && err == nil {
			out = append(out, place{unmapped(ap), a.Socket.IPv4Compat})
		}
	}
	return out
}

// How well a listener fits a destination: not at all; as one of IPv6 that takes all IPv4 too; as one of
// all addresses of its family; as that of the very address.
const (
	fitsNot = iota
	fitsBoth
	fitsFamily
	fitsWholly
)

// fit is how well the listener fits a destination.
func (s *snapshot) fit(dst netip.AddrPort) (best int) {
	for _, p := range s.places {
		switch {
		case p.Port() != dst.Port():
		case p.Addr() == dst.Addr():
			return fitsWholly
		case !p.Addr().IsUnspecified():
		case p.Addr().Is4() == dst.Addr().Is4():
			best = fitsFamily
		case dst.Addr().Is4() && p.both:
			best = max(best, fitsBoth)
		}
	}
	return best
}

// listenerOf is the listener that is configured for a destination, as in Envoy: by its address, or by its
// port on all addresses of its family. nil when there is none. Of several that fit as well, which no other
// order tells apart, it is always the same.
func (m *Manager) listenerOf(dst netip.AddrPort) (found *listener) {
	m.mu.Lock()
	defer m.mu.Unlock()
	best := fitsNot
	for _, l := range m.listeners {
		l.mu.Lock()
		fit := l.current.fit(dst)
		l.mu.Unlock()
		if fit > best || fit == best && found != nil && l.name < found.name {
			found, best = l, fit
		}
	}
	return found
}
