package render

import (
	"fmt"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/compile"
	"github.com/hauberk-mesh/hauberk/xds/names"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// Upstream is one declared upstream of a workload.
type Upstream struct {
	Index int
	// Path names it in problems: "web-1-sidecar-proxy Proxy.Upstreams[0]".
	Path string
	// Name is the service it leads to.
	Name catalog.Name
	// Overrides are what the registration itself asks for, on top of the
	// UpstreamConfig of the caller's service-defaults.
	Overrides compile.Overrides
	spec      *api.Upstream
}

// Upstreams reads the upstreams of a workload. What cannot be rendered is left
// out and reported, and its listener does not exist.
func Upstreams(inst *catalog.Instance, datacenter string) ([]Upstream, []Problem) {
	if inst.Proxy == nil {
		return nil, nil
	}
	var out []Upstream
	var problems []Problem
	taken := map[string]int{}
	for i := range inst.Proxy.Upstreams {
		u := &inst.Proxy.Upstreams[i]
		up := Upstream{Index: i, Path: fmt.Sprintf("%s Proxy.Upstreams[%d]", inst.ID, i), spec: u}
		report := func(field, format string, args ...any) {
			problems = append(problems, Problem{Service: inst.Service.Service, Path: up.Path + "." + field, Reason: fmt.Sprintf(format, args...)})
		}
		if field, reason := refuseUpstream(u); field != "" {
			report(field, "%s", reason)
			continue
		}
		if first, dup := taken[up.bindKey()]; dup {
			report("LocalBindPort", "Upstreams[%d] has the same local address; it gets no listener; give it another", first)
			continue
		}
		taken[up.bindKey()] = i
		up.Name = inst.Service.Global().In(u.Datacenter)
		up.Name.Service = u.DestinationName
		if u.Datacenter == "" {
			up.Name.Datacenter = datacenter
		}
		if u.DestinationNamespace != "" {
			up.Name.Namespace = u.DestinationNamespace
		}
		if u.DestinationPartition != "" {
			up.Name.Partition = u.DestinationPartition
		}
		if u.MeshGateway.Mode != api.MeshGatewayModeDefault && u.MeshGateway.Mode != api.MeshGatewayModeNone {
			report("MeshGateway.Mode", "mesh gateways are not supported; instances of other datacenters are dialled directly")
		}
		up.Overrides = upstreamOverrides(u.Config, report)
		out = append(out, up)
	}
	return out, problems
}

// refuseUpstream names the field because of which an upstream gets no listener.
func refuseUpstream(u *api.Upstream) (field, reason string) {
	switch {
	case u.DestinationType != "" && u.DestinationType != api.UpstreamDestTypeService:
		return "DestinationType", fmt.Sprintf("%q is not supported, only services are; it gets no listener", u.DestinationType)
	case u.DestinationPeer != "":
		return "DestinationPeer", "peers are not supported; it gets no listener"
	case u.DestinationPort != "":
		return "DestinationPort", "named ports are not supported; it gets no listener"
	case u.DestinationName == "" || u.DestinationName == catalog.Wildcard:
		return "DestinationName", "must be the name of a service; it gets no listener"
	case u.LocalBindSocketPath != "":
		if !strings.HasPrefix(u.LocalBindSocketPath, "/") {
			return "LocalBindSocketPath", fmt.Sprintf("%q is not an absolute path; it gets no listener", u.LocalBindSocketPath)
		}
		if _, err := socketMode(u.LocalBindSocketMode); err != nil {
			return "LocalBindSocketMode", fmt.Sprintf("%v; it gets no listener", err)
		}
	default:
		if err := bindable(localHost(u), u.LocalBindPort); err != nil {
			return "LocalBindPort", fmt.Sprintf("the local address cannot be bound: %v; it gets no listener", err)
		}
	}
	return "", ""
}

func localHost(u *api.Upstream) string {
	if u.LocalBindAddress == "" {
		return "127.0.0.1"
	}
	return u.LocalBindAddress
}

// socketMode reads an octal file mode; zero leaves the umask to decide.
func socketMode(s string) (uint32, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 {
		return 0, fmt.Errorf("%q is not an octal file mode such as 0600", s)
	}
	return uint32(n), nil
}

func (u *Upstream) bindKey() string {
	if u.spec.LocalBindSocketPath != "" {
		return u.spec.LocalBindSocketPath
	}
	return localHost(u.spec) + " " + strconv.Itoa(u.spec.LocalBindPort)
}

// address is where the upstream listens. Our sidecar makes its sockets 0600 and
// takes no other mode.
func (u *Upstream) address(client Client) (*corev3.Address, []Problem) {
	path := u.spec.LocalBindSocketPath
	if path == "" {
		return socketAddress(localHost(u.spec), u.spec.LocalBindPort), nil
	}
	mode, _ := socketMode(u.spec.LocalBindSocketMode) // checked by refuseUpstream
	if client.Dialect == Envoy {
		return pipeAddress(path, mode), nil
	}
	if mode != 0 && mode != 0o600 {
		return pipeAddress(path, 0), []Problem{{Path: u.Path + ".LocalBindSocketMode",
			Reason: fmt.Sprintf("%s is refused by this sidecar: its sockets have mode 0600; run the application as the sidecar's user", u.spec.LocalBindSocketMode)}}
	}
	return pipeAddress(path, 0), nil
}

func (u *Upstream) listenerName(inst *catalog.Instance) string {
	if path := u.spec.LocalBindSocketPath; path != "" {
		return "outbound:" + inst.ID + ":" + u.spec.DestinationName + ":unix:" + path
	}
	return names.Outbound(inst.ID, u.spec.DestinationName, localHost(u.spec), u.spec.LocalBindPort)
}

// Outbound renders the loopback listener of a workload's upstream.
func Outbound(env *Environment, client Client, inst *catalog.Instance, u Upstream, chain *Chain) (*resource.Resource, []Problem, error) {
	id, err := env.ServiceID(inst.Service)
	if err != nil {
		return nil, nil, err
	}
	logs, problems := accessLogging(env, client, inst.ID, inst.Proxy.AccessLogs)
	stat := "outbound." + u.Name.Service
	var filter *listenerv3.Filter
	var refs []resource.Ref
	if compile.IsHTTP(chain.Protocol) {
		refs = append(refs, resource.Ref{Type: resource.RouteType, Name: chain.RouteName})
		filter, err = env.httpManager(manager{stat: stat, routeName: chain.RouteName, logs: logs.filter})
	} else {
		for _, l := range chain.Legs {
			refs = append(refs, resource.Ref{Type: resource.ClusterType, Name: l.Cluster})
		}
		filter, err = tcpProxy(stat, chain.Legs, logs.filter, tcpConnectTries, idleConnection)
	}
	if err != nil {
		return nil, problems, err
	}
	name := u.listenerName(inst)
	address, more := u.address(client)
	problems = append(problems, more...)
	r, err := resource.New(name, &listenerv3.Listener{
		Name:             name,
		Address:          address,
		TrafficDirection: corev3.TrafficDirection_OUTBOUND,
		AccessLog:        logs.listener,
		FilterChains:     []*listenerv3.FilterChain{{Name: u.Name.Service, Filters: []*listenerv3.Filter{filter}}},
		Metadata: hauberkMetadata(map[string]string{
			"workload": id, "service": inst.Service.Service, "direction": "outbound", "upstream": u.Name.Service,
		}),
	}, refs...)
	return r, problems, err
}
