package cluster

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"time"
)

// startDNS resolves a StrictDNS cluster's names until the cluster changes or
// ends. c.mu is held.
func (c *Cluster) startDNS(s *settings) {
	ctx, cancel := context.WithCancel(c.m.ctx)
	c.stopDNS = cancel
	every := s.DNSRefresh
	if every <= 0 {
		every = 5 * time.Second
	}
	known := map[string][]netip.Addr{}
	c.m.wg.Go(func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			c.resolve(ctx, s, known)
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
		}
	})
}

// resolve looks every name up once. A name that fails keeps what it last
// resolved to: addresses that are known beat none.
func (c *Cluster) resolve(ctx context.Context, s *settings, known map[string][]netip.Addr) {
	out := &Assignment{Cluster: s.Name}
	for _, l := range s.Endpoints.Localities {
		next := l
		next.Endpoints = nil
		for _, e := range l.Endpoints {
			if e.Pipe != "" {
				next.Endpoints = append(next.Endpoints, e)
				continue
			}
			for _, addr := range c.lookup(ctx, e.Host, known) {
				resolved := e
				resolved.Host = addr.String()
				if resolved.Hostname == "" {
					resolved.Hostname = e.Host
				}
				next.Endpoints = append(next.Endpoints, resolved)
			}
		}
		out.Localities = append(out.Localities, next)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if ctx.Err() == nil && !c.removed && !reflect.DeepEqual(out, c.assignment) {
		c.replace(out)
	}
}

func (c *Cluster) lookup(ctx context.Context, host string, known map[string][]netip.Addr) []netip.Addr {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	addrs, err := c.m.opts.Resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		if ctx.Err() == nil {
			c.m.log.Warn("name not resolved, keeping its last addresses",
				"cluster", c.name, "host", host, "addresses", len(known[host]), "err", err)
		}
		return known[host]
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	known[host] = slices.Compact(addrs)
	return known[host]
}
