package render

import (
	"fmt"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	aggregatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/hashicorp/consul/api"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog/opaque"
	"github.com/hauberk-mesh/hauberk/controlplane/compile"
	"github.com/hauberk-mesh/hauberk/xds/names"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// The circuit breakers where service-defaults says nothing: no bound that real
// traffic meets, but for retries, which are what a bound is for.
const (
	unlimited = 1 << 20
	// What was for an instance that is gone, and not yet known to be, is tried again: of
	// two instances that is every other request, and while the one drains for seconds. All
	// that is under way at a time must fit into it, on a busy host too.
	maxRetries = 1 << 10
	// Beyond that retries may be a fifth of the requests.
	retryPercent = 20

	upstreamIdleTimeout = time.Hour

	httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
)

// targetCluster renders one target of a chain.
func (b *chainBuilder) targetCluster(t *compile.Target) (*resource.Resource, error) {
	edsName := b.env.ClusterName(t.Subset, t.Service)
	name := b.clusterName(t)
	id, err := b.env.ServiceID(t.Service)
	if err != nil {
		return nil, err
	}
	speaks := meshProtocol(t.Protocol, b.client)
	socket, err := b.env.upstreamTLS(edsName, b.certificate, id, speaks)
	if err != nil {
		return nil, err
	}
	c := &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: adsSource(), ServiceName: edsName},
		ConnectTimeout:       duration(t.ConnectTimeout),
		CircuitBreakers:      breakers(b.client, t.Limits),
		CommonLbConfig:       noPanic(),
		TransportSocket:      socket,

		UpstreamConnectionOptions: probed(b.client),
	}
	b.loadBalancing(c, t)
	b.outlier(c, t)
	if c.TypedExtensionProtocolOptions, err = protocolOptions(speaks, b.client); err != nil {
		return nil, err
	}
	return resource.New(name, c, resource.Ref{Type: resource.EndpointType, Name: edsName})
}

// failoverCluster tries the target's cluster, then those of its failover
// targets, each while it has a healthy host.
func (b *chainBuilder) failoverCluster(r *compile.Resolver) (*resource.Resource, error) {
	members := []string{b.clusterName(b.chain.Targets[r.Target])}
	for _, id := range r.Failover {
		members = append(members, b.clusterName(b.chain.Targets[id]))
	}
	config, err := toAny(&aggregatev3.ClusterConfig{Clusters: members})
	if err != nil {
		return nil, err
	}
	c := &clusterv3.Cluster{
		Name: names.Failover(members[0]),
		ClusterDiscoveryType: &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
			Name: "envoy.clusters.aggregate", TypedConfig: config,
		}},
		ConnectTimeout: duration(r.ConnectTimeout),
		LbPolicy:       clusterv3.Cluster_CLUSTER_PROVIDED,
		// The router asks the aggregate's own breakers, not its members'.
		CircuitBreakers: breakers(b.client, nil),
	}
	var refs []resource.Ref
	for _, m := range members {
		refs = append(refs, resource.Ref{Type: resource.ClusterType, Name: m})
	}
	return resource.New(c.Name, c, refs...)
}

// probed has a sidecar's connections notice a peer that is gone without a word, in about two and a half
// minutes. Others have what is usual with them.
func probed(c Client) *clusterv3.UpstreamConnectionOptions {
	if c.Dialect != Mesh {
		return nil
	}
	return &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{
		KeepaliveTime: wrapperspb.UInt32(15), KeepaliveInterval: wrapperspb.UInt32(15), KeepaliveProbes: wrapperspb.UInt32(9),
	}}
}

func noPanic() *clusterv3.Cluster_CommonLbConfig {
	return &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{Value: 0}}
}

func breakers(client Client, l *api.UpstreamLimits) *clusterv3.CircuitBreakers {
	limit := func(set *int) *wrapperspb.UInt32Value {
		if set != nil && *set >= 0 {
			return u32(*set)
		}
		return u32(unlimited)
	}
	if l == nil {
		l = &api.UpstreamLimits{}
	}
	out := &clusterv3.CircuitBreakers_Thresholds{
		Priority:           corev3.RoutingPriority_DEFAULT,
		MaxConnections:     limit(l.MaxConnections),
		MaxPendingRequests: limit(l.MaxPendingRequests),
		MaxRequests:        limit(l.MaxConcurrentRequests),
	}
	if client.Can(names.CapRetries) {
		out.RetryBudget = &clusterv3.CircuitBreakers_Thresholds_RetryBudget{
			BudgetPercent:       &typev3.Percent{Value: retryPercent},
			MinRetryConcurrency: u32(maxRetries),
		}
	} else {
		out.MaxRetries = u32(maxRetries)
	}
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{out}}
}

func (b *chainBuilder) loadBalancing(c *clusterv3.Cluster, t *compile.Target) {
	lb := t.LoadBalancer
	if lb == nil {
		return
	}
	where := fmt.Sprintf("service-resolver/%s LoadBalancer.Policy", t.Service.Service)
	switch lb.Policy {
	case "", "round_robin":
	case "random":
		c.LbPolicy = clusterv3.Cluster_RANDOM
	case "least_request":
		c.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
		if cfg := lb.LeastRequestConfig; cfg != nil && cfg.ChoiceCount >= 2 {
			c.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{
				ChoiceCount: wrapperspb.UInt32(cfg.ChoiceCount),
			}}
		}
	case "ring_hash":
		if b.lacks(names.CapRingHash, where, "ring_hash: this sidecar cannot, so round_robin applies and nothing is sticky; upgrade it") {
			return
		}
		c.LbPolicy = clusterv3.Cluster_RING_HASH
		if cfg := lb.RingHashConfig; cfg != nil {
			ring := &clusterv3.Cluster_RingHashLbConfig{}
			if cfg.MinimumRingSize > 0 {
				ring.MinimumRingSize = wrapperspb.UInt64(cfg.MinimumRingSize)
			}
			if cfg.MaximumRingSize > 0 {
				ring.MaximumRingSize = wrapperspb.UInt64(cfg.MaximumRingSize)
			}
			c.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: ring}
		}
	case "maglev":
		if b.lacks(names.CapMaglev, where, "maglev: this sidecar cannot, so round_robin applies and nothing is sticky; upgrade it") {
			return
		}
		c.LbPolicy = clusterv3.Cluster_MAGLEV
	default:
		b.problem(where, "%q is not a policy; round_robin applies; use random, round_robin, least_request, ring_hash or maglev", lb.Policy)
	}
}

// outlier renders passive health checking only where it is asked for, and then
// by consecutive failures only: Envoy's success-rate ejection, for which Consul
// has no setting, is written off.
func (b *chainBuilder) outlier(c *clusterv3.Cluster, t *compile.Target) {
	p := t.PassiveHealthCheck
	if p == nil {
		return
	}
	where := fmt.Sprintf("UpstreamConfig for %s PassiveHealthCheck", t.Service.Service)
	if b.lacks(names.CapOutlierDetection, where, "this sidecar cannot eject hosts by what they answer; upgrade it") {
		return
	}
	o := &clusterv3.OutlierDetection{EnforcingSuccessRate: u32(0)}
	if p.Interval > 0 {
		o.Interval = duration(p.Interval)
	}
	if p.MaxFailures > 0 {
		o.Consecutive_5Xx = wrapperspb.UInt32(p.MaxFailures)
	}
	if p.Consecutive5xx != nil {
		o.Consecutive_5Xx = wrapperspb.UInt32(*p.Consecutive5xx)
	}
	if p.EnforcingConsecutive5xx != nil {
		o.EnforcingConsecutive_5Xx = wrapperspb.UInt32(min(*p.EnforcingConsecutive5xx, 100))
	}
	if p.MaxEjectionPercent != nil {
		o.MaxEjectionPercent = wrapperspb.UInt32(min(*p.MaxEjectionPercent, 100))
	}
	if p.BaseEjectionTime != nil && *p.BaseEjectionTime > 0 {
		o.BaseEjectionTime = duration(*p.BaseEjectionTime)
	}
	if (p.ConsecutiveGatewayFailure != nil || p.EnforcingConsecutiveGatewayFailure != nil) && !b.lacks(names.CapGatewayFailure,
		where+".ConsecutiveGatewayFailure", "this sidecar does not count gateway failures apart; use Consecutive5xx, or upgrade it") {
		if n := p.ConsecutiveGatewayFailure; n != nil {
			o.ConsecutiveGatewayFailure = wrapperspb.UInt32(*n)
			if p.EnforcingConsecutiveGatewayFailure == nil {
				b.problem(where+".ConsecutiveGatewayFailure", "they are counted and eject nobody, as EnforcingConsecutiveGatewayFailure is 0 where it is not set; set it, to 100 for always")
			}
		}
		if n := p.EnforcingConsecutiveGatewayFailure; n != nil {
			o.EnforcingConsecutiveGatewayFailure = wrapperspb.UInt32(min(*n, 100))
		}
	}
	c.OutlierDetection = o
}

// negotiated is the protocol of an http service between proxies: HTTP/2 where ALPN
// agrees on it, so that one connection carries all requests, HTTP/1.1 otherwise.
const negotiated = "negotiated"

// tunnelled is the protocol of a tcp service between sidecars: where both announce it,
// one connection carries all byte streams; otherwise each has its own.
const tunnelled = "tunnelled"

// meshProtocol is what proxies speak to each other for a service of a protocol.
func meshProtocol(protocol string, c Client) string {
	switch {
	case protocol == "http" && c.Can(names.CapHTTP2):
		return negotiated
	case protocol == "tcp" && c.Dialect == Mesh && c.Can(names.CapTunnel):
		return tunnelled
	}
	return protocol
}

// http2Terms bound what a connection may hold, which carries the requests of many: those whose
// readers stand still must not hold up the others. A sidecar's streams begin with 64 KiB each,
// and the connection's window holds all of them, so that it is never what is short; those that
// are read grow into what it has besides, up to 1 MiB each, which fills 280 Mbit/s over 30 ms.
// An Envoy's do not grow: each has 1 MiB at once, and 24 of them fill the connection's window.
// Extended CONNECT carries WebSocket (RFC 8441).
func http2Terms(c Client) *corev3.Http2ProtocolOptions {
	const streams = 1024
	stream, conn := 1<<20, 24<<20
	if c.Dialect == Mesh && c.Can(names.CapGrowingWindows) {
		stream, conn = 64<<10, streams*64<<10+9<<20
	}
	return &corev3.Http2ProtocolOptions{
		MaxConcurrentStreams:        u32(streams),
		InitialStreamWindowSize:     u32(stream),
		InitialConnectionWindowSize: u32(conn),
		AllowConnect:                true,
	}
}

// managerHTTP2 are the terms of a connection manager, nil for a client that does not speak HTTP/2.
func managerHTTP2(c Client) *corev3.Http2ProtocolOptions {
	if !c.Can(names.CapHTTP2) {
		return nil
	}
	return http2Terms(c)
}

// protocolOptions says what an upstream of a protocol speaks; nothing for tcp.
func protocolOptions(protocol string, c Client) (map[string]*anypb.Any, error) {
	options := &upstreamhttpv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: duration(upstreamIdleTimeout)},
	}
	explicit := &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig{}
	options.UpstreamProtocolOptions = &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit}
	switch protocol {
	case "http":
		explicit.ProtocolConfig = &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{EnableTrailers: c.Can(names.CapHTTP2)},
		}
	case "http2", "grpc":
		explicit.ProtocolConfig = &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
			Http2ProtocolOptions: http2Terms(c),
		}
	case negotiated:
		options.UpstreamProtocolOptions = &upstreamhttpv3.HttpProtocolOptions_AutoConfig{
			AutoConfig: &upstreamhttpv3.HttpProtocolOptions_AutoHttpConfig{
				HttpProtocolOptions: &corev3.Http1ProtocolOptions{EnableTrailers: c.Can(names.CapHTTP2)}, Http2ProtocolOptions: http2Terms(c),
			},
		}
	default:
		return nil, nil
	}
	any, err := toAny(options)
	if err != nil {
		return nil, err
	}
	return map[string]*anypb.Any{httpOptions: any}, nil
}

// localApp renders the cluster of a workload's own application.
func localApp(client Client, name string, address *corev3.Address, c opaque.Proxy) (*resource.Resource, error) {
	options, err := protocolOptions(c.Protocol, client)
	if err != nil {
		return nil, err
	}
	var limits api.UpstreamLimits
	if c.MaxConnections > 0 {
		limits.MaxConnections = &c.MaxConnections
	}
	return resource.New(name, &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       duration(c.ConnectTimeout),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: name,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address}},
			}}}},
		},
		CircuitBreakers:               breakers(client, &limits),
		UpstreamConnectionOptions:     probed(client),
		CommonLbConfig:                noPanic(),
		TypedExtensionProtocolOptions: options,
	})
}
