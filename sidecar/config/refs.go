package config

import (
	"slices"

	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/tcp"
)

// Refs are the names of other resources, each once, sorted.
type Refs struct {
	Clusters, Routes []string
	// Wanted are the clusters without which a static configuration is refused, and
	// for which a listener waits.
	Wanted []string
}

// ListenerRefs returns what a listener names itself.
func ListenerRefs(l *listener.Config) Refs {
	var r Refs
	add := func(c *listener.FilterChain) {
		if c.TCP != nil {
			named := tcpClusters(c.TCP)
			r.Clusters, r.Wanted = append(r.Clusters, named...), append(r.Wanted, named...)
		}
		if c.HTTP != nil {
			if c.HTTP.Routes != nil {
				named := RouteClusters(c.HTTP.Routes)
				r.Clusters = append(r.Clusters, named...)
				if !c.HTTP.Routes.MayLackClusters {
					r.Wanted = append(r.Wanted, named...)
				}
			} else {
				r.Routes = append(r.Routes, c.HTTP.RouteName)
			}
		}
	}
	for i := range l.Chains {
		add(&l.Chains[i])
	}
	if l.Default != nil {
		add(l.Default)
	}
	return Refs{Clusters: unique(r.Clusters), Routes: unique(r.Routes), Wanted: unique(r.Wanted)}
}

func tcpClusters(c *tcp.Config) (out []string) {
	if c.Cluster != "" {
		return []string{c.Cluster}
	}
	for _, w := range c.Weighted {
		out = append(out, w.Cluster)
	}
	return out
}

// RouteClusters returns the clusters a route configuration names. What a request's
// header names is not among them.
func RouteClusters(c *route.Config) []string {
	var out []string
	add := func(name string) {
		if name != "" {
			out = append(out, name)
		}
	}
	mirrored := func(ms []route.Mirror) {
		for i := range ms {
			add(ms[i].Cluster)
		}
	}
	mirrored(c.Mirrors)
	for i := range c.VirtualHosts {
		mirrored(c.VirtualHosts[i].Mirrors)
		for j := range c.VirtualHosts[i].Routes {
			f := c.VirtualHosts[i].Routes[j].Forward
			if f == nil {
				continue
			}
			add(f.Cluster)
			for k := range f.Weighted {
				add(f.Weighted[k].Cluster)
			}
			mirrored(f.Mirrors)
		}
	}
	return unique(out)
}

func unique(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}
