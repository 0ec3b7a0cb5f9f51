package cluster

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// startDNS resolves the names of a DNS cluster until the cluster changes or ends: each by
// itself, so that none waits for another. c.mu is held.
func (c *Cluster) startDNS(s *settings) {
	ctx, cancel := context.WithCancel(c.m.ctx)
	c.stopDNS = cancel
	for _, name := range s.names() {
		c.m.wg.Go(func() { c.follow(ctx, s, name) })
	}
}

// awaitsName tells whether there is a name whose first lookup is waited for: where an address is
// known without, it is not.
func (c *Config) awaitsName() bool {
	if c.Type != StrictDNS && c.Type != LogicalDNS || c.ServeUnresolved {
		return false
	}
	known := slices.ContainsFunc(c.Endpoints.Localities, func(l Locality) bool {
		return slices.ContainsFunc(l.Endpoints, func(e Endpoint) bool { return !e.named() })
	})
	return !known && len(c.names()) > 0
}

// named tells that an endpoint's host is to be looked up.
func (e *Endpoint) named() bool {
	_, err := netip.ParseAddr(e.Host)
	return err != nil && e.Pipe == ""
}

// expected is the assignment of a DNS cluster until its names have been resolved again: they stand
// for what they did. c.mu is held.
func (c *Cluster) expected(s *settings) *Assignment {
	known := map[string][]netip.Addr{}
	for _, name := range s.names() {
		known[name] = c.known[name]
		if addrs := c.tried.known[name]; len(addrs) > 0 {
			known[name] = addrs
		}
	}
	c.known = known
	return c.resolution(s)
}

// names are the DNS names among the endpoints, each once.
func (c *Config) names() []string {
	var out []string
	for _, l := range c.Endpoints.Localities {
		for _, e := range l.Endpoints {
			if e.named() {
				out = append(out, e.Host)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// follow resolves a name again and again until ctx ends.
func (c *Cluster) follow(ctx context.Context, s *settings, name string) {
	defer panics.Contain(panics.Housekeeper, nil, nil)
	t := time.NewTimer(0)
	defer t.Stop()
	failures, r := 0, s.dns().orElse(c.m.opts.Nameservers).resolver(c.m.opts.Resolver)
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		failures++
		var good time.Duration
		panics.Guard(panics.Housekeeper, func() {
			var ok bool
			if good, ok = c.resolve(ctx, s, r, name); ok {
				failures = 0
			}
		})
		t.Reset(s.dns().wait(failures, good))
	}
}

var plainDNS DNS

// dns says how the cluster's names are looked up.
func (c *Config) dns() *DNS {
	if c.DNS == nil {
		return &plainDNS
	}
	return c.DNS
}

// wait is the time until the next lookup after so many failures in a row, or after one
// whose answer is good for so long, where it is known.
func (d *DNS) wait(failures int, good time.Duration) time.Duration {
	if failures > 0 && d.FailureBase > 0 {
		// Fully jittered, as Envoy's back-off is; never a busy loop.
		most := max(d.FailureBase, min(d.FailureMax, d.FailureBase<<min(failures-1, 16)))
		return max(time.Millisecond, rand.N(most))
	}
	every := d.Refresh
	if every <= 0 {
		every = 5 * time.Second
	}
	if failures == 0 && good > 0 {
		every = max(good, d.MinRefresh)
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

// resolve looks a name up once, and tells how long the answer is good; false if that failed. A
// name that does not exist, or has no address, has none from then on, but the last one in a
// LogicalDNS cluster, where that is a failure, both as in Envoy; one that fails otherwise keeps
// what it last resolved to: addresses that are known beat none.
func (c *Cluster) resolve(ctx context.Context, s *settings, r Resolver, name string) (good time.Duration, ok bool) {
	within, cancel := context.WithTimeout(ctx, s.dns().orElse(c.m.opts.Nameservers).patience())
	defer cancel()
	addrs, good, err := s.dns().lookup(within, r, name)
	c.mu.Lock()
	defer c.mu.Unlock()
	if ctx.Err() != nil || c.removed {
		return 0, true
	}
	c.nameless = false
	defer c.resulted()
	last := c.known[name]
	switch {
	case err != nil && !notFound(err):
		c.m.log.Warn("name not resolved, keeping its last addresses", "cluster", c.name, "host", name, "addresses", len(last), "err", err)
		return 0, false // no answer that a trial could end with
	case err != nil:
		addrs = nil
		if len(last) > 0 {
			c.m.log.Warn("name has no addresses any more", "cluster", c.name, "host", name, "had", len(last), "kept", s.Type == LogicalDNS, "err", err)
		}
	}
	delete(c.unanswered, name)
	ok = true
	if addrs = unmapped(addrs); s.Type == LogicalDNS && len(s.dns().Family.filter(addrs)) == 0 {
		addrs, good, ok = last, 0, false
	}
	c.known[name] = addrs
	if out := c.resolution(s); !reflect.DeepEqual(out, c.assignment) {
		c.replace(out)
	} else if s.Type == LogicalDNS {
		for _, h := range c.order {
			c.aim(h)
		}
	}
	return good, ok
}

// notFound tells whether the answer is that there is nothing, or none came.
func notFound(err error) bool {
	var e *net.DNSError
	return errors.As(err, &e) && e.IsNotFound
}

// unmapped are the addresses as they are dialled, each once, in the resolver's order.
func unmapped(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if a = a.Unmap(); !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// resolution is the assignment that the known addresses of the names make. c.mu is held.
func (c *Cluster) resolution(s *settings) *Assignment {
	out := &Assignment{Cluster: s.Name, Overprovisioning: s.Endpoints.Overprovisioning, WeightedHealth: s.Endpoints.WeightedHealth, DropPerMillion: s.Endpoints.DropPerMillion}
	c.resolved = nil
	for _, l := range s.Endpoints.Localities {
		next := l
		next.Endpoints = nil
		for _, e := range l.Endpoints {
			if e.Pipe != "" {
				next.Endpoints = append(next.Endpoints, e)
				continue
			}
			addrs := s.dns().Family.filter(c.known[e.Host])
			if ip, err := netip.ParseAddr(e.Host); err == nil {
				addrs = []netip.Addr{ip.Unmap()}
			}
			if s.Type == LogicalDNS {
				if len(addrs) > 0 {
					c.resolved = interleaved(addrs)
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
	return out
}

// named gives an endpoint its DNS name, where it has no other.
func named(e Endpoint) Endpoint {
	if e.Hostname == "" {
		e.Hostname = e.Host
	}
	return e
}

// aim makes connections to the host of a LogicalDNS cluster go where its name resolved to
// last. Those to where it was before end, with the exchange that uses them. c.mu is held.
func (c *Cluster) aim(h *Host) {
	e := h.Endpoint()
	if e.Pipe != "" || len(c.resolved) == 0 {
		return
	}
	var others []string
	for _, addr := range c.resolved[1:] {
		others = append(others, netip.AddrPortFrom(addr, uint16(e.Port)).String())
	}
	h.others.Store(&others)
	to := netip.AddrPortFrom(c.resolved[0], uint16(e.Port))
	if t := h.target.Load(); t.addr == nil || t.address != to.String() {
		h.target.Store(&target{"tcp", to.String(), net.TCPAddrFromAddrPort(to)})
		h.closeIdle()
	}
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

// systemResolver asks as the system is configured to.
type systemResolver struct{ lenient, strict *net.Resolver }

var system = systemResolver{net.DefaultResolver, &net.Resolver{StrictErrors: true}}

// LookupNetIP implements Resolver. A lookup asks several questions: for addresses of both
// families, in each search domain. Where some have no answer and another has the answer that
// there is nothing, the lenient resolver tells of one of them only, so the strict one, which
// tells of the failure, has the last word.
func (r systemResolver) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	addrs, err := r.lenient.LookupNetIP(ctx, network, host)
	if notFound(err) {
		return r.strict.LookupNetIP(ctx, network, host)
	}
	return addrs, err
}
