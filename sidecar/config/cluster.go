package config

import (
	"cmp"
	"math"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	aggregatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	dnscommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
)

func (d *decoder) cluster(m *clusterv3.Cluster) (*cluster.Config, error) {
	out := &cluster.Config{
		Name: m.GetName(), StatName: m.GetAltStatName(), Metadata: metadataOf(m.GetMetadata()), DropRemoved: m.GetIgnoreHealthOnHostRemoval(), CloseOnFailure: m.GetCloseConnectionsOnHostHealthFailure(),
		ServeUnresolved: m.GetWaitForWarmOnInit() != nil && !m.GetWaitForWarmOnInit().GetValue(),
	}
	//lint:ignore SA1019 deprecated, and still taken by Envoy
	out.TrackBudgets = m.GetTrackTimeoutBudgets() || m.GetTrackClusterStats().GetTimeoutBudgets()
	var err error
	if out.ConnectTimeout, err = duration(m.GetConnectTimeout(), "connect_timeout"); err != nil {
		return nil, err
	}
	for _, step := range []func(*clusterv3.Cluster, *cluster.Config) error{
		d.discovery, d.balancing, breakers, outlier, d.sockets, d.protocol, d.healthCheck, connection,
	} {
		if err := step(m, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// discovery reads where the endpoints come from.
func (d *decoder) discovery(m *clusterv3.Cluster, out *cluster.Config) error {
	if m.GetClusterType() != nil {
		if err := d.customType(m, out); err != nil || out.Type == cluster.Aggregate {
			return err
		}
	} else if err := discoveryType(m, out); err != nil {
		return err
	}
	if m.GetOriginalDstLbConfig() != nil && out.Type != cluster.OriginalDestination {
		return fail("original_dst_lb_config", "needs type ORIGINAL_DST")
	}
	if m.GetCleanupInterval() != nil && out.Type != cluster.OriginalDestination {
		return fail("cleanup_interval", "needs type ORIGINAL_DST")
	}
	switch out.Type {
	case cluster.EDS:
		if m.GetLoadAssignment() != nil {
			return fail("load_assignment", "an EDS cluster gets its endpoints by EDS")
		}
		return edsName(m, out)
	case cluster.OriginalDestination:
		return originalDst(m, out)
	}
	if m.GetEdsClusterConfig() != nil {
		return fail("eds_cluster_config", "needs type EDS")
	}
	dns := out.Type == cluster.StrictDNS || out.Type == cluster.LogicalDNS
	if dns && m.GetClusterType() == nil {
		if err := legacyDNS(m, out); err != nil {
			return err
		}
		if err := d.clusterResolver(m, out.DNS); err != nil {
			return err
		}
	}
	var err error
	out.Endpoints, err = d.assignment(m.GetLoadAssignment(), "load_assignment", dns)
	if err == nil && out.Type == cluster.LogicalDNS &&
		(len(out.Endpoints.Localities) != 1 || len(out.Endpoints.Localities[0].Endpoints) != 1) {
		return fail("load_assignment", "a logical DNS cluster has exactly one locality with one endpoint")
	}
	return err
}

func discoveryType(m *clusterv3.Cluster, out *cluster.Config) error {
	switch m.GetType() {
	case clusterv3.Cluster_STATIC:
		out.Type = cluster.Static
	case clusterv3.Cluster_STRICT_DNS:
		out.Type = cluster.StrictDNS
	case clusterv3.Cluster_LOGICAL_DNS:
		out.Type = cluster.LogicalDNS
	case clusterv3.Cluster_EDS:
		out.Type = cluster.EDS
	case clusterv3.Cluster_ORIGINAL_DST:
		out.Type = cluster.OriginalDestination
	default:
		return fail("type", "unknown value %d", m.GetType())
	}
	return nil
}

// customType reads a cluster type that is an extension.
func (d *decoder) customType(m *clusterv3.Cluster, out *cluster.Config) error {
	ct := m.GetClusterType()
	if agg, ok := extension[*aggregatev3.ClusterConfig](d, ct.GetTypedConfig()); ok {
		if m.GetTransportSocket() != nil || len(m.GetTransportSocketMatches()) > 0 {
			return fail("transport_socket", "an aggregate cluster opens no connections; put it on its clusters")
		}
		if m.GetLoadAssignment() != nil || m.GetEdsClusterConfig() != nil {
			return fail("load_assignment", "an aggregate cluster has no endpoints of its own")
		}
		if m.GetOriginalDstLbConfig() != nil || m.GetCleanupInterval() != nil {
			return fail("original_dst_lb_config", "needs type ORIGINAL_DST")
		}
		out.Type, out.Aggregate = cluster.Aggregate, agg.GetClusters()
		return nil
	}
	c, ok := extension[*dnsv3.DnsCluster](d, ct.GetTypedConfig())
	if !ok {
		return fail("cluster_type", "type %q has no typed_config", ct.GetName())
	}
	// The cluster's own fields say nothing beside these, as in Envoy: control planes set both.
	out.Type = cluster.StrictDNS
	if c.GetAllAddressesInSingleEndpoint() {
		out.Type = cluster.LogicalDNS
	}
	families := map[dnscommonv3.DnsLookupFamily]cluster.DNSFamily{
		dnscommonv3.DnsLookupFamily_UNSPECIFIED: cluster.IPv6First, dnscommonv3.DnsLookupFamily_AUTO: cluster.IPv6First,
		dnscommonv3.DnsLookupFamily_V4_ONLY: cluster.IPv4Only, dnscommonv3.DnsLookupFamily_V6_ONLY: cluster.IPv6Only,
		dnscommonv3.DnsLookupFamily_V4_PREFERRED: cluster.IPv4First, dnscommonv3.DnsLookupFamily_ALL: cluster.AllFamilies,
	}
	out.DNS = &cluster.DNS{Family: families[c.GetDnsLookupFamily()]}
	if err := d.typedResolver(c.GetTypedDnsResolverConfig(), out.DNS, "cluster_type.typed_config.typed_dns_resolver_config"); err != nil {
		return err
	}
	out.DNS.RespectTTL = c.GetRespectDnsTtl()
	return dnsTimes(out.DNS, c.GetDnsRefreshRate(), c.GetDnsMinRefreshRate(), c.GetDnsJitter(),
		c.GetDnsFailureRefreshRate().GetBaseInterval(), c.GetDnsFailureRefreshRate().GetMaxInterval(), "cluster_type.typed_config.")
}

// legacyDNS reads the cluster's own fields, which control planes still send.
func legacyDNS(m *clusterv3.Cluster, out *cluster.Config) error {
	families := map[clusterv3.Cluster_DnsLookupFamily]cluster.DNSFamily{
		clusterv3.Cluster_AUTO: cluster.IPv6First, clusterv3.Cluster_V4_ONLY: cluster.IPv4Only,
		clusterv3.Cluster_V6_ONLY: cluster.IPv6Only, clusterv3.Cluster_V4_PREFERRED: cluster.IPv4First,
		clusterv3.Cluster_ALL: cluster.AllFamilies,
	}
	//lint:ignore SA1019 deprecated, and in many bootstraps
	out.DNS = &cluster.DNS{Family: families[m.GetDnsLookupFamily()], RespectTTL: m.GetRespectDnsTtl()}
	//lint:ignore SA1019 deprecated, and in many bootstraps
	failure := m.GetDnsFailureRefreshRate()
	//lint:ignore SA1019 deprecated, and in many bootstraps
	return dnsTimes(out.DNS, m.GetDnsRefreshRate(), nil, m.GetDnsJitter(), failure.GetBaseInterval(), failure.GetMaxInterval(), "")
}

func dnsTimes(out *cluster.DNS, refresh, least, jitter, base, most *durationpb.Duration, path string) error {
	for _, f := range []struct {
		d    *durationpb.Duration
		to   *time.Duration
		name string
	}{
		{refresh, &out.Refresh, "dns_refresh_rate"}, {least, &out.MinRefresh, "dns_min_refresh_rate"}, {jitter, &out.Jitter, "dns_jitter"},
		{base, &out.FailureBase, "dns_failure_refresh_rate.base_interval"},
		{most, &out.FailureMax, "dns_failure_refresh_rate.max_interval"},
	} {
		var err error
		if *f.to, err = duration(f.d, path+f.name); err != nil {
			return err
		}
	}
	if out.FailureBase > 0 && out.FailureMax == 0 {
		out.FailureMax = 10 * out.FailureBase
	}
	if out.FailureMax < out.FailureBase {
		return fail(path+"dns_failure_refresh_rate.max_interval", "is below base_interval")
	}
	return nil
}

func originalDst(m *clusterv3.Cluster, out *cluster.Config) error {
	if m.GetLoadAssignment() != nil || m.GetEdsClusterConfig() != nil {
		return fail("load_assignment", "an ORIGINAL_DST cluster has no endpoints: each connection brings its own")
	}
	o := m.GetOriginalDstLbConfig()
	if !o.GetUseHttpHeader() && o.GetHttpHeaderName() != "" {
		return fail("original_dst_lb_config.http_header_name", "needs use_http_header")
	}
	out.OriginalDst = &cluster.OriginalDst{}
	if o.GetUseHttpHeader() {
		out.OriginalDst.Header = strings.ToLower(cmp.Or(o.GetHttpHeaderName(), cluster.DestinationHeader))
	}
	port := o.GetUpstreamPortOverride().GetValue()
	if port > 65535 {
		return fail("original_dst_lb_config.upstream_port_override", "%d is not a port", port)
	}
	out.OriginalDst.Port = uint16(port)
	var err error
	out.OriginalDst.Cleanup, err = duration(m.GetCleanupInterval(), "cleanup_interval")
	return err
}

// Envoy's limits where a cluster names none.
const (
	defaultConnections = 1024
	defaultPending     = 1024
	defaultRequests    = 1024
	defaultRetries     = 3
)

// defaultLimits are never changed: clusters that say nothing of a priority share them.
var defaultLimits = cluster.Limits{
	MaxConnections: defaultConnections, MaxPendingRequests: defaultPending,
	MaxRequests: defaultRequests, MaxRetries: defaultRetries,
}

func breakers(m *clusterv3.Cluster, out *cluster.Config) error {
	out.Limits, out.HighLimits = defaultLimits, &defaultLimits
	seen := map[corev3.RoutingPriority]bool{}
	for i, t := range m.GetCircuitBreakers().GetThresholds() {
		here := at("circuit_breakers.thresholds", i)
		to := &out.Limits
		if t.GetPriority() == corev3.RoutingPriority_HIGH {
			own := defaultLimits
			out.HighLimits, to = &own, &own
		}
		if seen[t.GetPriority()] {
			return fail(here, "there is one for this priority already")
		}
		seen[t.GetPriority()] = true
		to.TrackRemaining = t.GetTrackRemaining()
		for _, l := range []struct {
			v  *wrapperspb.UInt32Value
			to *int
		}{
			{t.GetMaxConnections(), &to.MaxConnections},
			{t.GetMaxPendingRequests(), &to.MaxPendingRequests},
			{t.GetMaxRequests(), &to.MaxRequests},
			{t.GetMaxRetries(), &to.MaxRetries},
			{t.GetMaxConnectionPools(), &to.MaxPools},
		} {
			if l.v != nil {
				*l.to = limit(l.v)
			}
		}
		var err error
		if to.RetryBudget, err = retryBudget(t.GetRetryBudget(), here+".retry_budget"); err != nil {
			return err
		}
	}
	return hostBreaker(m.GetCircuitBreakers(), out)
}

// limit reads one that is set: 0 allows nothing.
func limit(v *wrapperspb.UInt32Value) int {
	if v.GetValue() == 0 {
		return cluster.NoneAllowed
	}
	return int(min(v.GetValue(), math.MaxInt32))
}

// hostBreaker reads the limit of connections to each host.
func hostBreaker(m *clusterv3.CircuitBreakers, out *cluster.Config) error {
	const path = "circuit_breakers.per_host_thresholds"
	for i, t := range m.GetPerHostThresholds() {
		here := at(path, i)
		if err := only(t, here, "unsupported; a host's limit is max_connections", "max_connections", "priority"); err != nil {
			return err
		}
		switch {
		case i > 0:
			return fail(here, "there is one already")
		case t.GetPriority() != corev3.RoutingPriority_DEFAULT:
			return fail(here+".priority", "connections are shared by both priorities; use DEFAULT")
		case t.GetMaxConnections() != nil:
			out.Limits.MaxHostConnections = limit(t.GetMaxConnections())
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
	var err error
	out.Interval, err = duration(m.GetBudgetInterval(), path+".budget_interval")
	return out, err
}

// connection reads what the sockets of connections are like.
func connection(m *clusterv3.Cluster, out *cluster.Config) error {
	if k := m.GetUpstreamConnectionOptions().GetTcpKeepalive(); k != nil {
		seconds := func(v *wrapperspb.UInt32Value) time.Duration { return time.Duration(v.GetValue()) * time.Second }
		out.TCP = &cluster.TCPKeepAlive{
			Idle: seconds(k.GetKeepaliveTime()), Interval: seconds(k.GetKeepaliveInterval()),
			Probes: int(k.GetKeepaliveProbes().GetValue()),
		}
	}
	var err error
	if out.Eyeballs, err = eyeballs(m.GetUpstreamConnectionOptions().GetHappyEyeballsConfig(), "upstream_connection_options.happy_eyeballs_config"); err != nil {
		return err
	}
	out.Bind, err = upstreamBind(m.GetUpstreamBindConfig(), "upstream_bind_config")
	return err
}

// edsName reads what the endpoints are asked for by, where that is not the cluster's name.
func edsName(m *clusterv3.Cluster, out *cluster.Config) error {
	eds := m.GetEdsClusterConfig()
	name, from, err := discoveredName(cmp.Or(eds.GetServiceName(), m.GetName()), eds.GetEdsConfig(), "eds_cluster_config.eds_config")
	out.Discovery = from
	if name != m.GetName() {
		out.ServiceName = name
	}
	return err
}
