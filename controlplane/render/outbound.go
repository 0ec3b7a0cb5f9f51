package render

import (
	"cmp"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/catalog/opaque"
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
	protocol  string // what the registration takes the service's to be; or empty
	spec      *api.Upstream
}

// Upstreams reads the upstreams of a workload, whose registration package
// validate let through.
func Upstreams(inst *catalog.Instance, datacenter string) ([]Upstream, []Problem) {
	if inst.Proxy == nil {
		return nil, nil
	}
	var out []Upstream
	var problems []Problem
	for i := range inst.Proxy.Upstreams {
		u := &inst.Proxy.Upstreams[i]
		if u.CentrallyConfigured {
			continue // settings without a listener, for transparent proxies
		}
		up := Upstream{Index: i, Path: fmt.Sprintf("%s Proxy.Upstreams[%d]", inst.ID, i), spec: u}
		up.Name = inst.Service.Global().In(cmp.Or(u.Datacenter, datacenter))
		up.Name.Service = u.DestinationName
		up.Name.Namespace = cmp.Or(u.DestinationNamespace, up.Name.Namespace)
		up.Name.Partition = cmp.Or(u.DestinationPartition, up.Name.Partition)
		own, bad := opaque.ReadUpstream(u.Config)
		up.protocol = own.Protocol
		up.Overrides = compile.Overrides{ConnectTimeout: own.ConnectTimeout, Limits: own.Limits, PassiveHealthCheck: own.PassiveHealthCheck}
		for _, p := range opaqueProblems(up.Path+".Config", bad) {
			p.Service = inst.Service.Service
			problems = append(problems, p)
		}
		out = append(out, up)
	}
	return out, problems
}

// CheckProtocol reports a registration that takes its upstream for something
// else than the upstream is. A Consul agent writes the upstream's own protocol
// there, so that it cannot be refused wherever it stands.
func (u *Upstream) CheckProtocol(actual string) []Problem {
	if u.protocol == "" || u.protocol == actual {
		return nil
	}
	return []Problem{{Path: u.Path + ".Config.protocol", Reason: fmt.Sprintf("%q has no effect: %s is %s; set Protocol in service-defaults/%s, which its callers and its own sidecar follow",
		u.protocol, u.Name.Service, actual, u.Name.Service)}}
}

func localHost(u *api.Upstream) string {
	if u.LocalBindAddress == "" {
		return "127.0.0.1"
	}
	return u.LocalBindAddress
}

// ownerOnly is the mode of the sockets that upstreams listen on. Our sidecar
// makes no others, and is told none.
const ownerOnly = 0o600

// address is where the upstream listens.
func (u *Upstream) address(client Client) *corev3.Address {
	path := u.spec.LocalBindSocketPath
	switch {
	case path == "":
		return socketAddress(localHost(u.spec), u.spec.LocalBindPort)
	case client.Dialect == Envoy:
		return pipeAddress(path, ownerOnly)
	}
	return pipeAddress(path, 0)
}

func (u *Upstream) listenerName(inst *catalog.Instance) string {
	if path := u.spec.LocalBindSocketPath; path != "" {
		return "outbound:" + inst.ID + ":" + u.spec.DestinationName + ":unix:" + path
	}
	return names.Outbound(inst.ID, u.spec.DestinationName, localHost(u.spec), u.spec.LocalBindPort)
}

// Outbound renders the loopback listener of a workload's upstream.
func Outbound(env *Environment, client Client, inst *catalog.Instance, u Upstream, chain *Chain, tracing Tracing) (*resource.Resource, []Problem, error) {
	id, err := env.ServiceID(inst.Service)
	if err != nil {
		return nil, nil, err
	}
	logs, problems := accessLogging(env, client, inst.ID, inst.Proxy.AccessLogs)
	stat := "outbound." + u.Name.Service
	var filter *listenerv3.Filter
	var refs []resource.Ref
	if compile.IsHTTP(chain.Protocol) {
		routes := env.routeName(inst.Service, chain.Service)
		refs = append(refs, resource.Ref{Type: resource.RouteType, Name: routes})
		refs = append(refs, tracing.refs()...)
		m := manager{stat: stat, routeName: routes, logs: logs.filter, http2: managerHTTP2(client)}
		if m.tracing, err = tracing.outbound(inst.Service.Service, id, u.Name.Service); err == nil {
			filter, err = env.httpManager(m)
		}
	} else {
		for _, l := range chain.Legs {
			refs = append(refs, resource.Ref{Type: resource.ClusterType, Name: l.Cluster})
		}
		filter, err = tcpProxy(relay{stat: stat, legs: chain.Legs, logs: logs.filter, tries: tcpConnectTries, idle: idleConnection, hashSource: chain.HashSource})
	}
	if err != nil {
		return nil, problems, err
	}
	name := u.listenerName(inst)
	r, err := resource.New(name, &listenerv3.Listener{
		Name:             name,
		Address:          u.address(client),
		TrafficDirection: corev3.TrafficDirection_OUTBOUND,
		AccessLog:        logs.listener,
		FilterChains:     []*listenerv3.FilterChain{{Name: u.Name.Service, Filters: []*listenerv3.Filter{filter}}},
		Metadata: hauberkMetadata(map[string]string{
			"workload": id, "service": inst.Service.Service, "direction": "outbound", "upstream": u.Name.Service,
		}),
	}, refs...)
	return r, problems, err
}
