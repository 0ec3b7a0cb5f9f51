package config

import (
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	aggregatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
)

// protocolOptionsKey is the name Envoy gives the HTTP options of a cluster.
const protocolOptionsKey = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

func (d *decoder) cluster(m *clusterv3.Cluster) (*cluster.Config, error) {
	out := &cluster.Config{Name: m.GetName()}
	var err error
	if out.ConnectTimeout, err = duration(m.GetConnectTimeout(), "connect_timeout"); err != nil {
		return nil, err
	}
	for _, step := range []func(*clusterv3.Cluster, *cluster.Config) error{
		d.discovery, balancing, breakers, outlier, d.upstreamSocket, d.protocol,
	} {
		if err := step(m, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// discovery reads where the endpoints come from.
func (d *decoder) discovery(m *clusterv3.Cluster, out *cluster.Config) error {
	if ct := m.GetClusterType(); ct != nil {
		agg, ok := extension[*aggregatev3.ClusterConfig](d, ct.GetTypedConfig())
		if !ok {
			return fail("cluster_type", "type %q has no typed_config", ct.GetName())
		}
		if m.GetLbPolicy() != clusterv3.Cluster_CLUSTER_PROVIDED {
			return fail("lb_policy", "is %s; an aggregate cluster needs CLUSTER_PROVIDED", m.GetLbPolicy())
		}
		if m.GetTransportSocket() != nil {
			return fail("transport_socket", "an aggregate cluster opens no connections; put it on its clusters")
		}
		out.Type, out.Aggregate = cluster.Aggregate, agg.GetClusters()
		return nil
	}
	switch m.GetType() {
	case clusterv3.Cluster_STATIC:
		out.Type = cluster.Static
	case clusterv3.Cluster_STRICT_DNS:
		out.Type = cluster.StrictDNS
	case clusterv3.Cluster_EDS:
		out.Type = cluster.EDS
		if m.GetLoadAssignment() != nil {
			return fail("load_assignment", "an EDS cluster gets its endpoints by EDS")
		}
		out.ServiceName = m.GetEdsClusterConfig().GetServiceName()
		return ads(m.GetEdsClusterConfig().GetEdsConfig(), "eds_cluster_config.eds_config")
	default:
		return fail("type", "is %s; use STATIC, STRICT_DNS or EDS", m.GetType())
	}
	if m.GetEdsClusterConfig() != nil {
		return fail("eds_cluster_config", "needs type EDS")
	}
	if m.GetLoadAssignment() == nil {
		return fail("load_assignment", "is missing")
	}
	var err error
	out.Endpoints, err = d.assignment(m.GetLoadAssignment(), "load_assignment", out.Type == cluster.StrictDNS)
	return err
}

func balancing(m *clusterv3.Cluster, out *cluster.Config) error {
	switch m.GetLbPolicy() {
	case clusterv3.Cluster_ROUND_ROBIN:
		out.LB = cluster.RoundRobin
	case clusterv3.Cluster_LEAST_REQUEST:
		out.LB = cluster.LeastRequest
	case clusterv3.Cluster_RANDOM:
		out.LB = cluster.Random
	case clusterv3.Cluster_CLUSTER_PROVIDED:
		if out.Type != cluster.Aggregate {
			return fail("lb_policy", "CLUSTER_PROVIDED is for aggregate clusters")
		}
	default:
		return fail("lb_policy", "is %s; use ROUND_ROBIN, LEAST_REQUEST or RANDOM", m.GetLbPolicy())
	}
	if lr := m.GetLeastRequestLbConfig(); lr != nil {
		if out.LB != cluster.LeastRequest {
			return fail("least_request_lb_config", "lb_policy is %s", m.GetLbPolicy())
		}
		out.ChoiceCount = int(lr.GetChoiceCount().GetValue())
	}
	if m.GetRoundRobinLbConfig() != nil && out.LB != cluster.RoundRobin {
		return fail("round_robin_lb_config", "lb_policy is %s", m.GetLbPolicy())
	}
	if p := m.GetCommonLbConfig().GetHealthyPanicThreshold(); p != nil {
		v := p.GetValue()
		out.PanicThreshold = &v
	}
	return nil
}

// Envoy's limits where a cluster names none.
const (
	defaultConnections = 1024
	defaultPending     = 1024
	defaultRequests    = 1024
	defaultRetries     = 3
)

func breakers(m *clusterv3.Cluster, out *cluster.Config) error {
	out.Limits = cluster.Limits{
		MaxConnections: defaultConnections, MaxPendingRequests: defaultPending,
		MaxRequests: defaultRequests, MaxRetries: defaultRetries,
	}
	seen := false
	for i, t := range m.GetCircuitBreakers().GetThresholds() {
		here := at("circuit_breakers.thresholds", i)
		if t.GetPriority() != corev3.RoutingPriority_DEFAULT {
			return fail(here+".priority", "only DEFAULT is supported; no route can have another")
		}
		if seen {
			return fail(here, "there is one for this priority already")
		}
		seen = true
		for _, l := range []struct {
			v    *wrapperspb.UInt32Value
			to   *int
			name string
		}{
			{t.GetMaxConnections(), &out.Limits.MaxConnections, "max_connections"},
			{t.GetMaxPendingRequests(), &out.Limits.MaxPendingRequests, "max_pending_requests"},
			{t.GetMaxRequests(), &out.Limits.MaxRequests, "max_requests"},
			{t.GetMaxRetries(), &out.Limits.MaxRetries, "max_retries"},
		} {
			if l.v == nil {
				continue
			}
			if l.v.GetValue() == 0 {
				return fail(under(here, l.name), "0 would refuse everything; use at least 1")
			}
			*l.to = int(l.v.GetValue())
		}
		var err error
		if out.Limits.RetryBudget, err = retryBudget(t.GetRetryBudget(), here+".retry_budget"); err != nil {
			return err
		}
	}
	return nil
}

// retryBudget has Envoy's defaults: 20 %, and 3 at least.
func retryBudget(m *clusterv3.CircuitBreakers_Thresholds_RetryBudget, path string) (*cluster.RetryBudget, error) {
	if m == nil {
		return nil, nil
	}
	out := &cluster.RetryBudget{Percent: 20, MinConcurrency: 3}
	if p := m.GetBudgetPercent(); p != nil {
		if v := p.GetValue(); !(v >= 0 && v <= 100) {
			return nil, fail(path+".budget_percent", "%v is not a percentage", v)
		}
		out.Percent = p.GetValue()
	}
	if n := m.GetMinRetryConcurrency(); n != nil {
		out.MinConcurrency = int(n.GetValue())
	}
	return out, nil
}

func outlier(m *clusterv3.Cluster, out *cluster.Config) error {
	o := m.GetOutlierDetection()
	if o == nil {
		return nil
	}
	for _, f := range []struct {
		v    *wrapperspb.UInt32Value
		name string
	}{
		{o.GetEnforcingSuccessRate(), "enforcing_success_rate"},
		{o.GetEnforcingConsecutiveGatewayFailure(), "enforcing_consecutive_gateway_failure"},
		{o.GetEnforcingFailurePercentage(), "enforcing_failure_percentage"},
	} {
		if f.v.GetValue() != 0 {
			return fail("outlier_detection."+f.name, "only consecutive_5xx is implemented; use 0")
		}
	}
	value := func(v *wrapperspb.UInt32Value, absent int) int {
		if v == nil {
			return absent
		}
		return int(v.GetValue())
	}
	out.Outlier = &cluster.Outlier{
		Consecutive5xx:          value(o.GetConsecutive_5Xx(), 5),
		EnforcingConsecutive5xx: value(o.GetEnforcingConsecutive_5Xx(), 100),
		MaxEjectionPercent:      value(o.GetMaxEjectionPercent(), 10),
		Interval:                defaultInterval,
		BaseEjectionTime:        defaultEjection,
	}
	var err error
	if o.GetInterval() != nil {
		if out.Outlier.Interval, err = duration(o.GetInterval(), "outlier_detection.interval"); err != nil {
			return err
		}
	}
	if o.GetBaseEjectionTime() != nil {
		out.Outlier.BaseEjectionTime, err = duration(o.GetBaseEjectionTime(), "outlier_detection.base_ejection_time")
	}
	return err
}

func (d *decoder) upstreamSocket(m *clusterv3.Cluster, out *cluster.Config) error {
	ts := m.GetTransportSocket()
	if ts == nil {
		return nil
	}
	ctx, ok := extension[*tlsv3.UpstreamTlsContext](d, ts.GetTypedConfig())
	if !ok {
		return fail("transport_socket", "a cluster takes an UpstreamTlsContext")
	}
	var err error
	out.TLS, err = d.upstreamTLS(ctx, "transport_socket.typed_config")
	return err
}

// assignment reads endpoints; names says whether host names are allowed.
func (d *decoder) assignment(m *endpointv3.ClusterLoadAssignment, path string, names bool) (*cluster.Assignment, error) {
	out := &cluster.Assignment{
		Cluster: m.GetClusterName(), Overprovisioning: int(m.GetPolicy().GetOverprovisioningFactor().GetValue()),
	}
	for i, l := range m.GetEndpoints() {
		here := at(under(path, "endpoints"), i)
		loc := cluster.Locality{
			Region: l.GetLocality().GetRegion(), Zone: l.GetLocality().GetZone(), SubZone: l.GetLocality().GetSubZone(),
			Priority: int(l.GetPriority()), Weight: l.GetLoadBalancingWeight().GetValue(),
		}
		for j, e := range l.GetLbEndpoints() {
			ep, err := d.endpoint(e, at(here+".lb_endpoints", j), names)
			if err != nil {
				return nil, err
			}
			loc.Endpoints = append(loc.Endpoints, *ep)
		}
		out.Localities = append(out.Localities, loc)
	}
	return out, nil
}

func (d *decoder) endpoint(m *endpointv3.LbEndpoint, path string, names bool) (*cluster.Endpoint, error) {
	out := &cluster.Endpoint{
		Hostname: m.GetEndpoint().GetHostname(),
		Weight:   m.GetLoadBalancingWeight().GetValue(),
	}
	switch m.GetHealthStatus() {
	case corev3.HealthStatus_UNKNOWN, corev3.HealthStatus_HEALTHY:
		out.Health = cluster.Healthy
	case corev3.HealthStatus_UNHEALTHY, corev3.HealthStatus_TIMEOUT:
		out.Health = cluster.Unhealthy
	case corev3.HealthStatus_DRAINING:
		out.Health = cluster.Draining
	case corev3.HealthStatus_DEGRADED:
		out.Health = cluster.Degraded
	default:
		return nil, fail(path+".health_status", "unknown value %d", m.GetHealthStatus())
	}
	if m.GetEndpoint() == nil {
		return nil, fail(path+".endpoint", "is missing")
	}
	a := m.GetEndpoint().GetAddress()
	here := path + ".endpoint.address"
	if p := a.GetPipe(); p != nil {
		_, path, err := d.address(a, here)
		out.Pipe = path
		return out, err
	}
	var err error
	if out.Host, out.Port, err = d.hostPort(a, here); err != nil {
		return nil, err
	}
	if out.Port == 0 {
		return nil, fail(here+".socket_address.port_value", "0 cannot be connected to")
	}
	if _, err := netip.ParseAddr(out.Host); err != nil && !names {
		return nil, fail(here+".socket_address.address", "%q is not an IP address; names need type STRICT_DNS", out.Host)
	}
	return out, nil
}

// Envoy's times of outlier detection.
const (
	defaultInterval = 10 * time.Second
	defaultEjection = 30 * time.Second
)
