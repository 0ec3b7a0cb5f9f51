package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	getaddrinfov3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/getaddrinfo/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
)

// clusterResolver reads whom a cluster asks for names. Of the three ways to say it the
// newer one stands, as in Envoy, and whether to ask by TCP is not one that makes a resolver its own.
func (d *decoder) clusterResolver(m *clusterv3.Cluster, out *cluster.DNS) error {
	out.OwnResolver = m.GetTypedDnsResolverConfig() != nil || len(m.GetDnsResolutionConfig().GetResolvers()) > 0 || len(m.GetDnsResolvers()) > 0
	switch {
	case m.GetTypedDnsResolverConfig() != nil:
		return d.typedResolver(m.GetTypedDnsResolverConfig(), out, "typed_dns_resolver_config")
	case m.GetDnsResolutionConfig() != nil:
		c := m.GetDnsResolutionConfig()
		return d.nameservers(c.GetResolvers(), c.GetDnsResolverOptions(), out, "dns_resolution_config.resolvers")
	}
	out.OverTCP = m.GetUseTcpForDnsLookups()
	return d.nameservers(m.GetDnsResolvers(), nil, out, "dns_resolvers")
}

// bootstrapResolver reads whom the clusters ask that do not say it themselves; nil for the host's.
func (d *decoder) bootstrapResolver(m *bootstrapv3.Bootstrap) (*cluster.DNS, error) {
	out := &cluster.DNS{}
	var err error
	switch c := m.GetDnsResolutionConfig(); {
	case m.GetTypedDnsResolverConfig() != nil:
		err = d.typedResolver(m.GetTypedDnsResolverConfig(), out, "typed_dns_resolver_config")
	case c != nil:
		err = d.nameservers(c.GetResolvers(), c.GetDnsResolverOptions(), out, "dns_resolution_config.resolvers")
	case m.GetUseTcpForDnsLookups():
		out.OverTCP = true
	default:
		return nil, nil
	}
	return out, err
}

// typedResolver reads an extension that resolves names: c-ares as it is configured, and
// getaddrinfo, which is the host's own way.
func (d *decoder) typedResolver(m *corev3.TypedExtensionConfig, out *cluster.DNS, path string) error {
	if m == nil {
		return nil
	}
	out.OwnResolver = true
	if c, ok := extension[*caresv3.CaresDnsResolverConfig](d, m.GetTypedConfig()); ok {
		if out.Rotate = c.GetRotateNameservers(); out.Rotate && len(c.GetResolvers()) == 0 {
			return fail(path+".typed_config.rotate_nameservers", "needs resolvers: the host's are asked in its own order")
		}
		out.Routable = c.GetFilterUnroutableFamilies()
		if err := queries(c, out, path+".typed_config"); err != nil {
			return err
		}
		return d.nameservers(c.GetResolvers(), c.GetDnsResolverOptions(), out, path+".typed_config.resolvers")
	}
	if c, ok := extension[*getaddrinfov3.GetAddrInfoDnsResolverConfig](d, m.GetTypedConfig()); ok {
		if n := c.GetNumRetries(); n != nil {
			if n.GetValue() >= mostTries {
				return fail(path+".typed_config.num_retries", "is not from 0 to %d", mostTries-1)
			}
			out.Tries = int(n.GetValue()) + 1
		}
		return nil
	}
	return fail(path, "has no resolver of type CaresDnsResolverConfig or GetAddrInfoDnsResolverConfig")
}

// What c-ares has in Envoy where one of the two is not set.
const (
	defaultTries        = 4
	defaultQueryTimeout = 5 * time.Second
)

// The bounds of both. What a lookup lasts grows with each try, and a question is not waited for longer
// before the resolver repeats it.
const (
	mostTries        = 16
	longestQueryTime = 5 * time.Second
)

// queries reads how often a server is asked, and how long it has to answer.
func queries(c *caresv3.CaresDnsResolverConfig, out *cluster.DNS, path string) error {
	seconds, tries := c.GetQueryTimeoutSeconds(), c.GetQueryTries()
	if seconds == nil && tries == nil {
		return nil
	}
	if len(c.GetResolvers()) == 0 {
		field := ".query_tries"
		if seconds != nil {
			field = ".query_timeout_seconds"
		}
		return fail(path+field, "needs resolvers: the host's are asked as its own configuration says")
	}
	out.Tries, out.QueryTimeout = defaultTries, defaultQueryTimeout
	if tries != nil {
		if out.Tries = int(tries.GetValue()); tries.GetValue() < 1 || tries.GetValue() > mostTries {
			return fail(path+".query_tries", "is not from 1 to %d", mostTries)
		}
	}
	if seconds != nil {
		if most := uint64(longestQueryTime / time.Second); seconds.GetValue() < 1 || seconds.GetValue() > most {
			return fail(path+".query_timeout_seconds", "is not from 1 to %d", most)
		}
		out.QueryTimeout = time.Duration(seconds.GetValue()) * time.Second
	}
	return nil
}

func (d *decoder) nameservers(ms []*corev3.Address, o *corev3.DnsResolverOptions, out *cluster.DNS, path string) error {
	if o != nil {
		out.OverTCP, out.WholeNames = o.GetUseTcpForDnsLookups(), o.GetNoDefaultSearchDomain()
	}
	for i, m := range ms {
		network, addr, err := d.address(m, at(path, i))
		switch {
		case err != nil:
			return err
		case network != "tcp" || m.GetSocketAddress().GetPortValue() == 0:
			return fail(at(path, i), "a nameserver is an IP address with a port, such as 53")
		}
		out.Servers = append(out.Servers, addr)
	}
	if len(out.Servers) > maxNameservers {
		return fail(path, "has more than %d servers, which share the time of a lookup", maxNameservers)
	}
	return nil
}

// maxNameservers leaves each server of a cluster enough of the 5 s that a lookup has.
const maxNameservers = 8
