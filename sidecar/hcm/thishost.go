package hcm

import (
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// ownAddresses are those of this host. Where traffic is captured an application's connection
// comes from one of them, though the socket's other end is loopback; that alone tells nothing,
// as others may be redirected there too.
type ownAddresses struct {
	read  func() ([]net.Addr, error)
	known atomic.Pointer[knownAddresses]
}

type knownAddresses struct {
	at  int64
	all map[netip.Addr]struct{}
}

// addressesFor is how long what was read of addresses is believed to be all there are.
const addressesFor = int64(10 * time.Second)

var thisHost = ownAddresses{read: net.InterfaceAddrs}

// has tells whether an address is this host's. Where that cannot be told it is not.
func (o *ownAddresses) has(ip net.IP) bool {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return false
	}
	a = a.Unmap()
	k, now := o.known.Load(), monotonic()
	if k != nil {
		if _, own := k.all[a]; own || now-k.at < addressesFor {
			return own
		}
	}
	next := &knownAddresses{at: now, all: map[netip.Addr]struct{}{}}
	found, err := o.read()
	if err != nil && k != nil {
		next.all = k.all
	}
	for _, f := range found {
		if n, ok := f.(*net.IPNet); ok {
			if b, ok := netip.AddrFromSlice(n.IP); ok {
				next.all[b.Unmap()] = struct{}{}
			}
		}
	}
	o.known.Store(next)
	_, own := next.all[a]
	return own
}
