package validate

import (
	"fmt"
	"math"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog/opaque"
)

func (c *checker) proxyDefaults(e *api.ProxyConfigEntry) {
	if e.Name != "" && e.Name != api.ProxyConfigGlobal {
		c.add("Name", "%q: the one proxy-defaults entry is named %q", e.Name, api.ProxyConfigGlobal)
	}
	if p := c.proxyConfig("Config", e.Config); p.Tracing != nil {
		if problem := p.Tracing.Check(); problem != nil {
			c.opaque("Config", []opaque.Problem{*problem})
		}
	}
	c.shape("", e.Mode, e.TransparentProxy, e.MeshGateway, e.Expose, e.EnvoyExtensions)
	c.mutualTLS("MutualTLSMode", e.MutualTLSMode)
	c.accessLogs("AccessLogs", e.AccessLogs)
	c.failoverPolicy("FailoverPolicy", e.FailoverPolicy)
	c.locality("PrioritizeByLocality", e.PrioritizeByLocality)
}

func (c *checker) serviceDefaults(e *api.ServiceConfigEntry) {
	c.name("Name", e.Name)
	c.protocol("Protocol", e.Protocol)
	c.shape("", e.Mode, e.TransparentProxy, e.MeshGateway, e.Expose, e.EnvoyExtensions)
	c.mutualTLS("MutualTLSMode", e.MutualTLSMode)
	c.not(e.ExternalSNI != "", "ExternalSNI", "services outside the mesh are not supported; remove it")
	c.not(e.Destination != nil, "Destination", "destinations outside the mesh need a terminating gateway, which is not supported; remove it")
	c.oneOf("BalanceInboundConnections", e.BalanceInboundConnections, opaque.ExactBalance)
	c.rateLimits("RateLimits.InstanceLevel", e.RateLimits)
	c.notNegative("MaxInboundConnections", e.MaxInboundConnections)
	c.notNegative("LocalConnectTimeoutMs", e.LocalConnectTimeoutMs)
	c.notNegative("LocalRequestTimeoutMs", e.LocalRequestTimeoutMs)
	if kb := e.MaxRequestHeadersKB; kb != nil && *kb > 8192 {
		c.add("MaxRequestHeadersKB", "%d: at most 8192", *kb)
	}
	u := e.UpstreamConfig
	if u == nil {
		return
	}
	if u.Defaults != nil {
		c.not(u.Defaults.Name != "", "UpstreamConfig.Defaults.Name", "defaults apply to every upstream; remove it or use Overrides")
		c.upstreamConfig("UpstreamConfig.Defaults.", u.Defaults)
	}
	seen := map[string]bool{}
	for i, o := range u.Overrides {
		path := fmt.Sprintf("UpstreamConfig.Overrides[%d].", i)
		if o == nil {
			c.add(strings.TrimSuffix(path, "."), "empty")
			continue
		}
		c.name(path+"Name", o.Name)
		c.not(seen[o.Name], path+"Name", fmt.Sprintf("%q is overridden twice", o.Name))
		seen[o.Name] = true
		c.upstreamConfig(path, o)
	}
}

func (c *checker) upstreamConfig(path string, u *api.UpstreamConfig) {
	c.scope(path, u.Namespace, u.Partition)
	c.not(u.Peer != "", path+"Peer", "peers are not supported; remove it")
	c.not(u.EnvoyListenerJSON != "", path+"EnvoyListenerJSON", "escape hatches into Envoy's configuration are not supported; remove it")
	c.not(u.EnvoyClusterJSON != "", path+"EnvoyClusterJSON", "escape hatches into Envoy's configuration are not supported; remove it")
	c.not(u.Protocol != "", path+"Protocol", "the protocol of an upstream is that of its own service-defaults; set it there")
	c.not(u.BalanceOutboundConnections != "", path+"BalanceOutboundConnections", "connection balancing across worker threads has no meaning here; remove it")
	c.meshGateway(path+"MeshGateway.Mode", u.MeshGateway)
	c.notNegative(path+"ConnectTimeoutMs", u.ConnectTimeoutMs)
	c.limits(path+"Limits.", u.Limits)
	c.passive(path+"PassiveHealthCheck.", u.PassiveHealthCheck)
}

func (c *checker) limits(path string, l *api.UpstreamLimits) {
	if l == nil {
		return
	}
	for _, f := range []struct {
		name string
		v    *int
	}{
		{"MaxConnections", l.MaxConnections},
		{"MaxPendingRequests", l.MaxPendingRequests},
		{"MaxConcurrentRequests", l.MaxConcurrentRequests},
	} {
		if f.v != nil && (*f.v < 1 || *f.v > math.MaxInt32) {
			c.add(path+f.name, "%d: use 1 to %d; 0 would refuse everything", *f.v, math.MaxInt32)
		}
	}
	c.not(l.PassiveHealthCheck != nil, path+"PassiveHealthCheck", "set it beside Limits, not inside")
}

func (c *checker) passive(path string, p *api.PassiveHealthCheck) {
	if p == nil {
		return
	}
	c.duration(path+"Interval", p.Interval)
	if p.BaseEjectionTime != nil {
		c.duration(path+"BaseEjectionTime", *p.BaseEjectionTime)
	}
	for _, f := range []struct {
		name string
		v    *uint32
	}{
		{"EnforcingConsecutive5xx", p.EnforcingConsecutive5xx},
		{"EnforcingConsecutiveGatewayFailure", p.EnforcingConsecutiveGatewayFailure},
		{"MaxEjectionPercent", p.MaxEjectionPercent},
	} {
		if f.v != nil && *f.v > 100 {
			c.add(path+f.name, "%d: a percentage is at most 100", *f.v)
		}
	}
}

// shape checks what proxy-defaults, service-defaults and registrations share.
func (c *checker) shape(path string, mode api.ProxyMode, tp *api.TransparentProxyConfig, gw api.MeshGatewayConfig, expose api.ExposeConfig, ext []api.EnvoyExtension) {
	switch mode {
	case api.ProxyModeDefault, api.ProxyModeDirect:
	case api.ProxyModeTransparent:
		c.add(path+"Mode", "transparent proxies are not supported; use direct and declare upstreams")
	default:
		c.add(path+"Mode", "%q: use direct or leave it out", mode)
	}
	// Consul returns an empty struct where nothing was set.
	c.not(tp != nil && *tp != api.TransparentProxyConfig{}, path+"TransparentProxy", "transparent proxies are not supported; remove it and declare upstreams")
	c.meshGateway(path+"MeshGateway.Mode", gw)
	c.not(expose.Checks, path+"Expose.Checks", "exposed checks are not supported: no plaintext listener is opened; remove it")
	for i := range expose.Paths {
		c.add(fmt.Sprintf("%sExpose.Paths[%d]", path, i), "exposed paths are not supported: no plaintext listener is opened; remove it")
	}
	for i, x := range ext {
		c.add(fmt.Sprintf("%sEnvoyExtensions[%d]", path, i), "extension %q: Envoy extensions are not supported; remove it", x.Name)
	}
}

func (c *checker) meshGateway(path string, gw api.MeshGatewayConfig) {
	if gw.Mode != api.MeshGatewayModeDefault && gw.Mode != api.MeshGatewayModeNone {
		c.add(path, "%q: mesh gateways are not supported; use none or leave it out", gw.Mode)
	}
}

func (c *checker) mutualTLS(path string, m api.MutualTLSMode) {
	if m != api.MutualTLSModeDefault && m != api.MutualTLSModeStrict {
		c.add(path, "%q: a meshed port takes no plaintext; use strict or leave it out", m)
	}
}

// proxyConfig checks the keys of opaque configuration.
func (c *checker) proxyConfig(path string, config map[string]any) opaque.Proxy {
	p, problems := opaque.ReadProxy(config)
	c.opaque(path, problems)
	if t := p.Tracing; t != nil {
		c.collector(path+"."+opaque.TracingKey+".otlp", t.OTLP)
		c.collector(path+"."+opaque.TracingKey+".zipkin", t.Zipkin)
	}
	return p
}

func (c *checker) collector(path string, to *opaque.Collector) {
	if to != nil {
		c.optionalName(path+".service", to.Service)
	}
}

func (c *checker) opaque(path string, problems []opaque.Problem) {
	for _, p := range problems {
		c.add(path+"."+p.Key, "%s", p.Reason)
	}
}
