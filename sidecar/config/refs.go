package config

import (
	"fmt"
	"slices"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/discovery"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/otellog"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/tcp"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
)

// Refs are the names of other resources, each once, sorted.
type Refs struct {
	Clusters, Routes []string
	// Collectors are the clusters of spans and of records of access logs.
	Collectors []string
	// Sources are where routes come from, of those that have more to say than their names.
	Sources map[string]discovery.Source
	// Wanted are the clusters without which a static configuration is refused, and
	// for which a listener waits.
	Wanted []string
	// Secrets are the discovered ones of its TLS contexts.
	Secrets []tlscontext.SecretRef
}

// ListenerRefs returns what a listener names itself.
func ListenerRefs(l *listener.Config) Refs {
	var r Refs
	logs := func(configs []telemetry.AccessLogConfig) {
		r.Collectors = append(r.Collectors, LogClusters(configs)...)
	}
	logs(l.AccessLog)
	add := func(c *listener.FilterChain) {
		if c.TLS != nil && c.TLS.Context != nil {
			r.Secrets = append(r.Secrets, c.TLS.Context.SecretRefs()...)
		}
		if c.TCP != nil {
			logs(c.TCP.AccessLog)
			named := tcpClusters(c.TCP)
			r.Clusters, r.Wanted = append(r.Clusters, named...), append(r.Wanted, named...)
		}
		if c.HTTP != nil {
			logs(c.HTTP.AccessLog)
			if u := c.HTTP.UpstreamLog; u != nil {
				logs(u.Logs)
			}
			if t := c.HTTP.Tracing; t != nil && t.Provider.Collector != nil {
				name := t.Provider.Collector.Cluster
				r.Collectors, r.Wanted = append(r.Collectors, name), append(r.Wanted, name)
			}
			if c.HTTP.Routes != nil {
				named := RouteClusters(c.HTTP.Routes)
				r.Clusters = append(r.Clusters, named...)
				if v := c.HTTP.Routes.ValidateClusters; v == nil || *v {
					r.Wanted = append(r.Wanted, named...)
				}
			} else {
				r.Routes = append(r.Routes, c.HTTP.RouteName)
				if from := c.HTTP.Discovery; from != (discovery.Source{}) {
					if r.Sources == nil {
						r.Sources = map[string]discovery.Source{}
					}
					r.Sources[c.HTTP.RouteName] = from
				}
			}
		}
	}
	for i := range l.Chains {
		add(&l.Chains[i])
	}
	if l.Default != nil {
		add(l.Default)
	}
	return Refs{Clusters: unique(r.Clusters), Collectors: unique(r.Collectors), Routes: unique(r.Routes), Sources: r.Sources, Wanted: unique(r.Wanted), Secrets: r.Secrets}
}

// LogClusters returns the clusters that records of access logs are sent to. As in Envoy, no
// listener waits for them.
func LogClusters(configs []telemetry.AccessLogConfig) (out []string) {
	for i := range configs {
		if e, ok := configs[i].Export.(*otellog.Config); ok {
			out = append(out, e.Collector.Cluster)
		}
	}
	return out
}

// ClusterSecrets returns the discovered secrets of a cluster's TLS contexts.
func ClusterSecrets(c *cluster.Config) []tlscontext.SecretRef {
	var out []tlscontext.SecretRef
	add := func(t *cluster.TLS) {
		if t != nil && t.Context != nil {
			out = append(out, t.Context.SecretRefs()...)
		}
	}
	add(c.TLS)
	for i := range c.Sockets {
		add(c.Sockets[i].TLS)
	}
	return out
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
	eachCluster(c, func(_, _ int, name string) { out = append(out, name) })
	return unique(out)
}

// MissingCluster is the error of a route configuration that is to be validated
// (validate_clusters) and names a cluster which is not known; nil for all others.
func MissingCluster(c *route.Config, known func(cluster string) bool) error {
	if c.ValidateClusters == nil || !*c.ValidateClusters {
		return nil
	}
	var err error
	eachCluster(c, func(host, r int, name string) {
		if err != nil || known(name) {
			return
		}
		path := ""
		if host >= 0 {
			path = at("virtual_hosts", host)
		}
		if r >= 0 {
			path = at(under(path, "routes"), r)
			if called := c.VirtualHosts[host].Routes[r].Name; called != "" {
				path += fmt.Sprintf(" (%q)", called)
			}
		}
		err = fmt.Errorf("route configuration %q: %w", c.Name,
			fail(path, "there is no cluster %q, and validate_clusters asks for it; send the cluster first", name))
	})
	return err
}

// MissingOfListener is the same of the route configurations that a listener has itself. Where
// they do not say whether they are to be validated they are not, other than in Envoy: what the
// listener says besides may be a deny, which no cluster may hold up.
func MissingOfListener(l *listener.Config, known func(cluster string) bool) error {
	chains := l.Chains
	if l.Default != nil {
		chains = append(slices.Clone(chains), *l.Default)
	}
	for i := range chains {
		if h := chains[i].HTTP; h != nil && h.Routes != nil {
			if err := MissingCluster(h.Routes, known); err != nil {
				return fmt.Errorf("listener %q: %w", l.Name, err)
			}
		}
	}
	return nil
}

// eachCluster visits the clusters by the place of the virtual host and the route that
// name them, -1 where they are named above it.
func eachCluster(c *route.Config, visit func(host, route int, name string)) {
	mirrored := func(host, at int, ms []route.Mirror) {
		for i := range ms {
			if ms[i].Cluster != "" {
				visit(host, at, ms[i].Cluster)
			}
		}
	}
	mirrored(-1, -1, c.Mirrors)
	for i := range c.VirtualHosts {
		mirrored(i, -1, c.VirtualHosts[i].Mirrors)
		for j := range c.VirtualHosts[i].Routes {
			f := c.VirtualHosts[i].Routes[j].Forward
			if f == nil {
				continue
			}
			if f.Cluster != "" {
				visit(i, j, f.Cluster)
			}
			for k := range f.Weighted {
				if f.Weighted[k].Cluster != "" {
					visit(i, j, f.Weighted[k].Cluster)
				}
			}
			mirrored(i, j, f.Mirrors)
		}
	}
}

func unique(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}
