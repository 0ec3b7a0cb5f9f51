package render

import (
	"cmp"
	"fmt"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog/opaque"
	"github.com/hauberk-mesh/hauberk/xds/names"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// exposedPaths are those of the registration, or else of the service's defaults, or else
// of everyone's, as a Consul agent merges them.
func (b *inboundBuilder) exposedPaths() []api.ExposePath {
	if p := b.w.Instance.Proxy.Expose.Paths; len(p) > 0 {
		return p
	}
	if d := b.w.Defaults; d != nil && len(d.Expose.Paths) > 0 {
		return d.Expose.Paths
	}
	if d := b.env.proxyDefaults; d != nil {
		return d.Expose.Paths
	}
	return nil
}

// expose renders the listeners, in plaintext and open to everyone, through which single
// paths of the application can be asked for, and the clusters behind them. One listener
// has all paths of its port; whatever else is asked of it is answered with 404.
func (b *inboundBuilder) expose() error {
	byPort := map[int][]api.ExposePath{}
	for i, p := range b.exposedPaths() {
		if p.ListenerPort == b.out.Port {
			b.problem(fmt.Sprintf("Expose.Paths[%d].ListenerPort", i), "%d is the port for peers; %s is not exposed; choose another", p.ListenerPort, p.Path)
			continue
		}
		byPort[p.ListenerPort] = append(byPort[p.ListenerPort], p)
	}
	ports := make([]int, 0, len(byPort))
	for p := range byPort {
		ports = append(ports, p)
	}
	slices.Sort(ports)
	for _, port := range ports {
		if err := b.exposePort(port, byPort[port]); err != nil {
			return err
		}
	}
	return nil
}

func (b *inboundBuilder) exposePort(port int, paths []api.ExposePath) error {
	name := fmt.Sprintf("exposed:%s:%d", b.out.Host, port)
	var refs []resource.Ref
	clusters := map[string]bool{}
	host := &routev3.VirtualHost{Name: b.out.Service, Domains: []string{"*"}}
	for _, p := range paths {
		protocol := cmp.Or(p.Protocol, "http")
		cluster := fmt.Sprintf("exposed_app:%s:%d:%s", b.out.Registration, p.LocalPathPort, protocol)
		if !clusters[cluster] {
			clusters[cluster] = true
			c, err := localApp(b.client, cluster, socketAddress(b.applicationHost(), p.LocalPathPort),
				opaque.Proxy{Protocol: protocol, ConnectTimeout: b.config.ConnectTimeout})
			if err != nil {
				return err
			}
			b.out.Exposed = append(b.out.Exposed, c)
			refs = append(refs, resource.Ref{Type: resource.ClusterType, Name: cluster})
		}
		origin := "exposed path " + p.Path + " of " + b.out.Service
		host.Routes = append(host.Routes, &routev3.Route{
			Name:  origin,
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: p.Path}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
				Timeout:          duration(requestTimeout),
				RetryPolicy:      localRetries(),
			}},
			Metadata: hauberkMetadata(map[string]string{"origin": origin}),
		})
	}
	filter, err := b.env.httpManager(manager{
		stat: "exposed." + b.out.Service, logs: b.out.logs.filter, maxHeadersKB: b.config.MaxHeadersKB, http2: b.client.Can(names.CapHTTP2),
		// Nobody has proved anything here: what a client says of a certificate is taken out.
		forward: hcmv3.HttpConnectionManager_SANITIZE,
		routes:  &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{host}},
	})
	if err != nil {
		return err
	}
	l, err := resource.New(name, &listenerv3.Listener{
		Name:             name,
		Address:          socketAddress(b.out.Host, port),
		TrafficDirection: corev3.TrafficDirection_INBOUND,
		AccessLog:        b.out.logs.listener,
		FilterChains:     []*listenerv3.FilterChain{{Name: name, Filters: []*listenerv3.Filter{filter}}},
		Metadata:         hauberkMetadata(map[string]string{"workload": b.out.ID, "service": b.out.Service, "direction": "inbound"}),
	}, refs...)
	b.out.Exposed = append(b.out.Exposed, l)
	return err
}
