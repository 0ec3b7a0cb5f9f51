package render

import (
	"fmt"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
)

// CheckInstance reports what a registration asks for and its workload does not
// get, apart from its upstreams.
func CheckInstance(inst *catalog.Instance, defaults *api.ServiceConfigEntry) []Problem {
	if inst.Proxy == nil {
		return nil
	}
	p := inst.Proxy
	out := unsupportedMode(inst.ID+" Proxy", p.Mode, "", p.MeshGateway, p.Expose)
	for i, x := range p.EnvoyExtensions {
		out = append(out, Problem{Path: fmt.Sprintf("%s Proxy.EnvoyExtensions[%d]", inst.ID, i),
			Reason: fmt.Sprintf("extension %q is not supported; remove it", x.Name)})
	}
	if len(p.LocalServicePorts) > 0 {
		out = append(out, Problem{Path: inst.ID + " Proxy.LocalServicePorts", Reason: "named ports are not supported; set LocalServicePort"})
	}
	out = append(out, checkServiceDefaults(defaults)...)
	for i := range out {
		out[i].Service = inst.Service.Service
	}
	return out
}

func checkServiceDefaults(d *api.ServiceConfigEntry) []Problem {
	if d == nil {
		return nil
	}
	where := "service-defaults/" + d.Name
	out := unsupportedMode(where, d.Mode, d.MutualTLSMode, d.MeshGateway, d.Expose)
	add := func(path, reason string) { out = append(out, Problem{Path: where + " " + path, Reason: reason}) }
	if d.ExternalSNI != "" {
		add("ExternalSNI", "services outside the mesh are not supported; the service is dialled as a mesh service")
	}
	if d.Destination != nil {
		add("Destination", "destinations outside the mesh are not supported; nothing is rendered for it")
	}
	if d.RateLimits != nil {
		add("RateLimits", "rate limits from service-defaults are not supported; no request is limited")
	}
	if d.BalanceInboundConnections != "" {
		add("BalanceInboundConnections", "has no effect; the kernel balances accepted connections")
	}
	for i, x := range d.EnvoyExtensions {
		add(fmt.Sprintf("EnvoyExtensions[%d]", i), fmt.Sprintf("extension %q is not supported; remove it", x.Name))
	}
	if u := d.UpstreamConfig; u != nil {
		if u.Defaults != nil {
			out = append(out, checkUpstreamConfig(where+" UpstreamConfig.Defaults", u.Defaults)...)
		}
		for i, o := range u.Overrides {
			out = append(out, checkUpstreamConfig(fmt.Sprintf("%s UpstreamConfig.Overrides[%d]", where, i), o)...)
		}
	}
	return out
}

func checkUpstreamConfig(where string, u *api.UpstreamConfig) []Problem {
	var out []Problem
	add := func(field, reason string) { out = append(out, Problem{Path: where + "." + field, Reason: reason}) }
	if u.EnvoyListenerJSON != "" {
		add("EnvoyListenerJSON", "escape hatches into Envoy's configuration are not supported; remove it")
	}
	if u.EnvoyClusterJSON != "" {
		add("EnvoyClusterJSON", "escape hatches into Envoy's configuration are not supported; remove it")
	}
	if u.Protocol != "" {
		add("Protocol", "has no effect: a service's protocol is its own; set it in the service-defaults of the upstream")
	}
	if u.Peer != "" {
		add("Peer", "peers are not supported; the override has no effect")
	}
	if u.MeshGateway.Mode != api.MeshGatewayModeDefault && u.MeshGateway.Mode != api.MeshGatewayModeNone {
		add("MeshGateway.Mode", "mesh gateways are not supported; instances of other datacenters are dialled directly")
	}
	if u.BalanceOutboundConnections != "" {
		add("BalanceOutboundConnections", "has no effect; the kernel balances accepted connections")
	}
	return out
}
