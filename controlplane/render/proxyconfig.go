package render

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/catalog/opaque"
	"github.com/hauberk-mesh/hauberk/controlplane/compile"
)

// defaultConnectTimeout bounds connecting to a workload on its own host.
const defaultConnectTimeout = 5 * time.Second

// readWorkloadConfig reads what shapes a workload's inbound side, merged from
// proxy-defaults, service-defaults and the registration; the later ones win.
// Each was checked alone by package validate; what is wrong nevertheless counts
// as unset and is reported.
func readWorkloadConfig(env *Environment, inst *catalog.Instance, defaults *api.ServiceConfigEntry, protocol string) (opaque.Proxy, []Problem) {
	var central map[string]any
	if env.proxyDefaults != nil {
		central = opaque.Merge(env.proxyDefaults.Config)
		// The protocol of proxy-defaults was considered when the service's was
		// determined; a service-defaults entry without one means tcp.
		delete(central, opaque.Protocol)
	}
	service := map[string]any{}
	if defaults != nil {
		set := func(key string, n int) {
			if n != 0 {
				service[key] = n
			}
		}
		set(opaque.LocalConnectTimeout, defaults.LocalConnectTimeoutMs)
		set(opaque.LocalRequestTimeout, defaults.LocalRequestTimeoutMs)
		set(opaque.MaxConnections, defaults.MaxInboundConnections)
		if b := defaults.BalanceInboundConnections; b != "" {
			service[opaque.BalanceConnections] = b
		}
		if defaults.MaxRequestHeadersKB != nil {
			set(opaque.MaxHeadersKB, int(*defaults.MaxRequestHeadersKB))
		}
	}
	out, bad := opaque.ReadProxy(opaque.Merge(central, service, inst.Proxy.Config))
	if out.Protocol == "" {
		out.Protocol = protocol
	}
	if out.BindAddress == "" {
		out.BindAddress = inst.Address
	}
	if out.BindPort == 0 {
		out.BindPort = inst.Port
	}
	if out.ConnectTimeout == 0 {
		out.ConnectTimeout = defaultConnectTimeout
	}
	problems := opaqueProblems(inst.ID+" Proxy.Config", bad)
	if defaults != nil && !compile.IsHTTP(out.Protocol) {
		problems = append(problems, onlyHTTP(defaults)...)
	}
	return out, problems
}

// onlyHTTP reports what a tcp service's own entry says of requests. The same in
// proxy-defaults is for services of every protocol.
func onlyHTTP(e *api.ServiceConfigEntry) []Problem {
	var out []Problem
	report := func(field string, set bool) {
		if set {
			out = append(out, Problem{Path: "service-defaults/" + e.Name + " " + field,
				Reason: "a tcp service has no requests, so it has no effect; remove it, or set Protocol"})
		}
	}
	report("LocalRequestTimeoutMs", e.LocalRequestTimeoutMs > 0)
	report("RateLimits", e.RateLimits != nil)
	report("MaxRequestHeadersKB", e.MaxRequestHeadersKB != nil)
	return out
}

func opaqueProblems(where string, bad []opaque.Problem) []Problem {
	var out []Problem
	for _, p := range bad {
		out = append(out, Problem{Path: where + "." + p.Key, Reason: p.Reason + "; it has no effect"})
	}
	return out
}

// bindable says why an address cannot be listened on.
func bindable(host string, port int) error {
	if _, err := netip.ParseAddr(host); err != nil {
		return fmt.Errorf("%q is not an IP address", host)
	}
	if port < 1 || port > 65535 {
		return fmt.Errorf("%d is not a port", port)
	}
	return nil
}
