package cluster

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// startDNS resolves the names of a DNS cluster until the cluster changes or ends.
// c.mu is held.
func (c *Cluster) startDNS(s *settings) {
	ctx, cancel := context.WithCancel(c.m.ctx)
	c.stopDNS = cancel
	known := map[string][]netip.Addr{}
	c.m.wg.Go(func() {
		defer panics.Contain(panics.Housekeeper, nil, nil)
		t := time.NewTimer(0)
		defer t.Stop()
		failures := 0
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			failures++
			panics.Guard(panics.Housekeeper, func() {
				if c.resolve(ctx, s, known) {
					failures = 0
				}
			})
			t.Reset(s.dns().wait(failures))
		}
	})
}

var plainDNS DNS

// dns says how the cluster's names are looked up.
func (c *Config) dns() *DNS {
	if c.DNS == nil {
		return &plainDNS
	}
	return c.DNS
}

// wait is the time until the next lookup after so many failures in a row.
func (d *DNS) wait(failures int) time.Duration {
	if failures > 0 && d.FailureBase > 0 {
		// Fully jittered, as Envoy's back-off is; never a busy loop.
		most := max(d.FailureBase, min(d.FailureMax, d.FailureBase<<min(failures-1, 16)))
		return max(time.Millisecond, rand.N(most))
	}
	every := d.Refresh
	if every <= 0 {
		every = 5 * time.Second
	}
	if d.Jitter > 0 {
		every += rand.N(d.Jitter)
	}
	return every
}

// jittered adds up to percent of d.
func jittered(d time.Duration, percent float64) time.Duration {
	if most := time.Duration(float64(d) * percent / 100); most > 0 {
		d += rand.N(most)
	}
	return d
}

// resolve looks every name up once; false if one failed. A name that fails keeps
// what it last resolved to: addresses that are known beat none.
func (c *Cluster) resolve(ctx context.Context, s *settings, known map[string][]netip.Addr) (ok bool) {
	ok = true
	out := &Assignment{Cluster: s.Name, Overprovisioning: s.Endpoints.Overprovisioning, WeightedHealth: s.Endpoints.WeightedHealth}
	var first netip.Addr
	for _, l := range s.Endpoints.Localities {
		next := l
		next.Endpoints = nil
		for _, e := range l.Endpoints {
			if e.Pipe != "" {
				next.Endpoints = append(next.Endpoints, e)
				continue
			}
			addrs, found := c.lookup(ctx, e.Host, s, known)
			ok = ok && found
			if s.Type == LogicalDNS {
				if len(addrs) > 0 {
					first = addrs[0]
					next.Endpoints = append(next.Endpoints, named(e))
				}
				continue
			}
			for _, addr := range slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare) {
				resolved := named(e)
				resolved.Host = addr.String()
				next.Endpoints = append(next.Endpoints, resolved)
			}
		}
		out.Localities = append(out.Localities, next)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if ctx.Err() != nil || c.removed {
		return ok
	}
	c.resolved = nil
	if first.IsValid() {
		c.resolved = &first
	}
	if !reflect.DeepEqual(out, c.assignment) {
		c.replace(out)
	} else if s.Type == LogicalDNS {
		for _, h := range c.order {
			c.aim(h)
		}
	}
	return ok
}

// named gives an endpoint its DNS name, where it has no other.
func named(e Endpoint) Endpoint {
	if e.Hostname == "" {
		e.Hostname = e.Host
	}
	return e
}

// aim makes new connections to the host of a LogicalDNS cluster go where its name
// resolved to last; those that are open stay. c.mu is held.
func (c *Cluster) aim(h *Host) {
	e := h.Endpoint()
	if e.Pipe != "" || c.resolved == nil {
		return
	}
	to := netip.AddrPortFrom(*c.resolved, uint16(e.Port))
	if t := h.target.Load(); t.addr == nil || t.address != to.String() {
		h.target.Store(&target{"tcp", net.JoinHostPort(c.resolved.String(), strconv.Itoa(e.Port)), net.TCPAddrFromAddrPort(to)})
	}
}

// lookup returns a name's addresses in the resolver's order, the last known ones
// when it fails.
func (c *Cluster) lookup(ctx context.Context, host string, s *settings, known map[string][]netip.Addr) (addrs []netip.Addr, ok bool) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, true
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	addrs, err := c.m.opts.Resolver.LookupNetIP(ctx, s.dns().Family.network(), host)
	if err != nil {
		if ctx.Err() == nil {
			c.m.log.Warn("name not resolved, keeping its last addresses",
				"cluster", c.name, "host", host, "addresses", len(known[host]), "err", err)
		}
		return known[host], false
	}
	seen := map[netip.Addr]bool{}
	var unique []netip.Addr
	for _, a := range addrs {
		if a = a.Unmap(); !seen[a] {
			seen[a] = true
			unique = append(unique, a)
		}
	}
	known[host] = s.dns().Family.filter(unique)
	return known[host], true
}

func (f DNSFamily) network() string {
	switch f {
	case IPv4Only:
		return "ip4"
	case IPv6Only:
		return "ip6"
	}
	return "ip"
}

// filter keeps the addresses of the family, or of the preferred one if there are
// any.
func (f DNSFamily) filter(addrs []netip.Addr) []netip.Addr {
	var v4, v6 []netip.Addr
	for _, a := range addrs {
		if a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	switch {
	case f == AllFamilies:
		return addrs
	case f == IPv4Only, f == IPv4First && len(v4) > 0, f == IPv6First && len(v6) == 0:
		return v4
	}
	return v6
}
