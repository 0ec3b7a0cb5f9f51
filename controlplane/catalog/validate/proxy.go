package validate

import (
	"fmt"
	"net/netip"

	"github.com/hashicorp/consul/api"
)

// Proxy reports what the control plane cannot do of a connect-proxy
// registration, as an *Error. Paths begin at the registration's Proxy.
func Proxy(p *api.AgentServiceConnectProxyConfig) error {
	c := &checker{}
	c.name("DestinationServiceName", p.DestinationServiceName)
	c.proxyConfig("Config", p.Config)
	c.shape("", p.Mode, p.TransparentProxy, p.MeshGateway, p.Expose, p.EnvoyExtensions)
	c.accessLogs("AccessLogs", p.AccessLogs)
	c.not(p.LocalServiceSocketPath != "", "LocalServiceSocketPath", "local services on Unix sockets are not supported; use LocalServicePort")
	c.not(len(p.LocalServicePorts) > 0, "LocalServicePorts", "several ports are not supported; use LocalServicePort")
	if p.LocalServicePort < 0 || p.LocalServicePort > 65535 {
		c.add("LocalServicePort", "%d is not a port", p.LocalServicePort)
	}
	binds := map[string]bool{}
	for i := range p.Upstreams {
		u := &p.Upstreams[i]
		if u.CentrallyConfigured {
			continue
		}
		path := fmt.Sprintf("Upstreams[%d].", i)
		c.upstream(path, u)
		bind := fmt.Sprintf("%s:%d", orLoopback(u.LocalBindAddress), u.LocalBindPort)
		c.not(binds[bind], path+"LocalBindPort", bind+" is taken by an earlier upstream")
		binds[bind] = true
	}
	return c.err()
}

func orLoopback(addr string) string {
	if addr == "" {
		return "127.0.0.1"
	}
	return addr
}

func (c *checker) upstream(path string, u *api.Upstream) {
	c.name(path+"DestinationName", u.DestinationName)
	c.scope(path+"Destination", u.DestinationNamespace, u.DestinationPartition)
	c.not(u.DestinationType != "" && u.DestinationType != api.UpstreamDestTypeService,
		path+"DestinationType", fmt.Sprintf("%q is not supported; use service", u.DestinationType))
	c.not(u.DestinationPeer != "", path+"DestinationPeer", "peers are not supported; remove it")
	c.not(u.DestinationPort != "", path+"DestinationPort", "several ports of one service are not supported; remove it")
	c.not(u.LocalBindSocketPath != "" || u.LocalBindSocketMode != "", path+"LocalBindSocketPath", "upstreams on Unix sockets are not supported; use LocalBindPort")
	c.meshGateway(path+"MeshGateway.Mode", u.MeshGateway)
	if u.LocalBindPort < 1 || u.LocalBindPort > 65535 {
		c.add(path+"LocalBindPort", "%d is not a port", u.LocalBindPort)
	}
	if u.LocalBindAddress != "" {
		if _, err := netip.ParseAddr(u.LocalBindAddress); err != nil {
			c.add(path+"LocalBindAddress", "%q is not an IP address", u.LocalBindAddress)
		}
	}
	for _, k := range sortedKeys(u.Config) {
		c.add(path+"Config."+k, "settings of one upstream come from service-defaults UpstreamConfig.Overrides; move it there")
	}
}
