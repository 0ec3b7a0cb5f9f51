package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"math"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	connectionlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/local_ratelimit/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	sniclusterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_cluster/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"github.com/hauberk-mesh/hauberk/internal/tokenbucket"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/tcp"
)

// networkFilters reads filters that decide over a connection, and then one
// terminal filter.
func (d *decoder) networkFilters(out *listener.FilterChain, filters []*listenerv3.Filter, path string) error {
	if len(filters) == 0 {
		return fail(path, "is empty; a chain ends in an HTTP connection manager or a TCP proxy")
	}
	byName := false
	for i, f := range filters {
		here := at(path, i) + ".typed_config"
		terminal := false
		var err error
		switch c := d.unpacked[f.GetTypedConfig()].(type) {
		case *hcmv3.HttpConnectionManager:
			terminal = true
			out.HTTP, err = d.connectionManager(c, here)
		case *tcpproxyv3.TcpProxy:
			terminal = true
			out.TCP, err = d.tcpProxy(c, here)
		case *sniclusterv3.SniCluster:
			byName = true
		case *netrbacv3.RBAC, *connectionlimitv3.ConnectionLimit, *netratelimitv3.LocalRateLimit:
			err = d.decidingFilter(out, c, here)
		default:
			return fail(at(path, i), "filter %q has no typed_config", f.GetName())
		}
		if err != nil {
			return err
		}
		last := i == len(filters)-1
		if terminal && !last {
			return fail(at(path, i), "is a terminal filter, but is not the last")
		}
		if last && !terminal {
			return fail(at(path, i), "is last, but is not a terminal filter; end in an HTTP connection manager or a TCP proxy")
		}
	}
	switch {
	case byName && out.TCP == nil:
		return fail(path, "has an sni_cluster filter, which is for a TCP proxy")
	case byName:
		out.TCP.ServerNameCluster = true
	case out.TCP != nil && out.TCP.Cluster == "" && len(out.TCP.Weighted) == 0:
		return fail(at(path, len(filters)-1)+".typed_config", "names no cluster, and no sni_cluster filter does")
	}
	return nil
}

// decidingFilter reads a filter that lets a connection pass or not.
func (d *decoder) decidingFilter(out *listener.FilterChain, m any, path string) error {
	switch c := m.(type) {
	case *netrbacv3.RBAC:
		rbac, err := d.networkRBAC(c, path)
		if err != nil {
			return err
		}
		out.RBAC = append(out.RBAC, *rbac)
	case *connectionlimitv3.ConnectionLimit:
		if c.GetMaxConnections() == nil {
			return fail(path+".max_connections", "is missing")
		}
		delay, err := duration(c.GetDelay(), path+".delay")
		if err != nil {
			return err
		}
		if on, err := d.enabled(c.GetRuntimeEnabled(), path+".runtime_enabled"); err != nil || !on {
			return err
		}
		out.ConnectionLimits = append(out.ConnectionLimits, listener.ConnectionLimit{
			StatPrefix: c.GetStatPrefix(), Max: int64(min(c.GetMaxConnections().GetValue(), math.MaxInt64)), Delay: delay,
		})
	case *netratelimitv3.LocalRateLimit:
		limit, err := connectionRate(c, path)
		if err != nil {
			return err
		}
		if on, err := d.enabled(c.GetRuntimeEnabled(), path+".runtime_enabled"); err != nil || !on {
			return err
		}
		out.RateLimits = append(out.RateLimits, *limit)
	}
	return nil
}

func connectionRate(m *netratelimitv3.LocalRateLimit, path string) (*listener.RateLimit, error) {
	b := m.GetTokenBucket()
	out := &listener.RateLimit{StatPrefix: m.GetStatPrefix(), Share: m.GetShareKey(), Bucket: tokenbucket.Spec{Max: b.GetMaxTokens(), PerFill: 1}}
	if f := b.GetTokensPerFill(); f != nil {
		out.Bucket.PerFill = f.GetValue()
	}
	var err error
	if out.Bucket.Interval, err = duration(b.GetFillInterval(), path+".token_bucket.fill_interval"); err != nil {
		return nil, err
	}
	if out.Bucket.Interval < 50*time.Millisecond {
		return nil, fail(path+".token_bucket.fill_interval", "must be 50 ms at least")
	}
	return out, nil
}

func (d *decoder) tcpProxy(m *tcpproxyv3.TcpProxy, path string) (*tcp.Config, error) {
	out := &tcp.Config{
		StatPrefix:         m.GetStatPrefix(),
		Cluster:            m.GetCluster(),
		CloseDraining:      m.GetCheckDrainClose().GetValue(),
		MaxConnectAttempts: int(m.GetMaxConnectAttempts().GetValue()),
		MaxDurationJitter:  m.GetMaxDownstreamConnectionDurationJitterPercentage().GetValue(),
		HashSourceIP:       len(m.GetHashPolicy()) > 0 && m.GetHashPolicy()[0].GetSourceIp() != nil,
		Metadata:           lbMetadata(m.GetMetadataMatch()),
	}
	total := uint64(0)
	for _, w := range m.GetWeightedClusters().GetClusters() {
		out.Weighted = append(out.Weighted, tcp.WeightedCluster{Cluster: w.GetName(), Weight: w.GetWeight(), Metadata: lbMetadata(w.GetMetadataMatch())})
		total += uint64(w.GetWeight())
	}
	if len(out.Weighted) > 0 && total == 0 {
		return nil, fail(path+".weighted_clusters", "the weights add up to 0")
	}
	if total > 1<<32-1 {
		return nil, fail(path+".weighted_clusters", "the weights add up to more than 4294967295")
	}
	for _, step := range []func(*tcpproxyv3.TcpProxy, *tcp.Config, string) error{tcpTimes, tcpConnect, tcpLogging, tcpExtensions} {
		if err := step(m, out, path); err != nil {
			return nil, err
		}
	}
	var err error
	out.AccessLog, err = d.connectionLogs(m.GetAccessLog(), path+".access_log")
	return out, err
}

// lbMetadata is what is asked of the hosts; other namespaces are for others, as in
// Envoy.
func lbMetadata(m *corev3.Metadata) map[string]any {
	s := m.GetFilterMetadata()[lbNamespace]
	if s == nil {
		return nil
	}
	return s.AsMap()
}

func tcpTimes(m *tcpproxyv3.TcpProxy, out *tcp.Config, path string) (err error) {
	if out.IdleTimeout, err = optional(m.GetIdleTimeout(), path+".idle_timeout"); err != nil {
		return err
	}
	out.MaxDuration, err = duration(m.GetMaxDownstreamConnectionDuration(), path+".max_downstream_connection_duration")
	if d := m.GetMaxDownstreamConnectionDuration(); err == nil && d != nil && out.MaxDuration < time.Millisecond {
		return fail(path+".max_downstream_connection_duration", "must be 1 ms at least")
	}
	return err
}

// tcpConnect reads when and how the upstream is connected to. The handshake with
// the client is always over by then.
func tcpConnect(m *tcpproxyv3.TcpProxy, out *tcp.Config, path string) error {
	early := m.GetMaxEarlyDataBytes()
	switch m.GetUpstreamConnectMode() {
	case tcpproxyv3.UpstreamConnectMode_IMMEDIATE, tcpproxyv3.UpstreamConnectMode_ON_DOWNSTREAM_TLS_HANDSHAKE:
	case tcpproxyv3.UpstreamConnectMode_ON_DOWNSTREAM_DATA:
		if early == nil {
			return fail(path+".max_early_data_bytes", "is needed with ON_DOWNSTREAM_DATA")
		}
		out.AwaitData, out.MaxEarlyData = true, int(min(early.GetValue(), 64<<10))
	default:
		return fail(path+".upstream_connect_mode", "unknown value %d", m.GetUpstreamConnectMode())
	}
	b := m.GetBackoffOptions()
	if b == nil {
		return nil
	}
	out.Backoff = &tcp.Backoff{}
	var err error
	if out.Backoff.Base, err = duration(b.GetBaseInterval(), path+".backoff_options.base_interval"); err != nil {
		return err
	}
	if out.Backoff.Base < time.Millisecond {
		return fail(path+".backoff_options.base_interval", "must be 1 ms at least")
	}
	out.Backoff.Max = 10 * min(out.Backoff.Base, never/10)
	if b.GetMaxInterval() != nil {
		if out.Backoff.Max, err = duration(b.GetMaxInterval(), path+".backoff_options.max_interval"); err != nil {
			return err
		}
		if out.Backoff.Max < out.Backoff.Base {
			return fail(path+".backoff_options.max_interval", "is shorter than the base interval")
		}
	}
	return nil
}

func tcpExtensions(m *tcpproxyv3.TcpProxy, out *tcp.Config, path string) (err error) {
	merges := map[tcpproxyv3.ProxyProtocolTlvMergePolicy]tcp.Merge{
		tcpproxyv3.ProxyProtocolTlvMergePolicy_ADD_IF_ABSENT:                      tcp.IfAbsent,
		tcpproxyv3.ProxyProtocolTlvMergePolicy_OVERWRITE_BY_TYPE_IF_EXISTS_OR_ADD: tcp.Overwrite,
		tcpproxyv3.ProxyProtocolTlvMergePolicy_APPEND_IF_EXISTS_OR_ADD:            tcp.Append,
	}
	var ok bool
	if out.Merge, ok = merges[m.GetProxyProtocolTlvMergePolicy()]; !ok {
		return fail(path+".proxy_protocol_tlv_merge_policy", "unknown value %d", m.GetProxyProtocolTlvMergePolicy())
	}
	out.Extensions, err = addedExtensions(m.GetProxyProtocolTlvs(), path+".proxy_protocol_tlvs")
	return err
}

// tcpLogging reads when else than at its end a connection is logged. The older
// fields are refused beside those that replaced them, as in Envoy.
func tcpLogging(m *tcpproxyv3.TcpProxy, out *tcp.Config, path string) (err error) {
	o := m.GetAccessLogOptions()
	interval, here := m.GetAccessLogFlushInterval(), path+".access_log_flush_interval"
	out.LogOnConnect, out.LogOnStart = m.GetFlushAccessLogOnConnected(), o.GetFlushAccessLogOnStart()
	if o != nil {
		if interval != nil || out.LogOnConnect {
			return fail(path+".access_log_options", "is beside the fields that it replaced; remove them")
		}
		interval, here = o.GetAccessLogFlushInterval(), path+".access_log_options.access_log_flush_interval"
		out.LogOnConnect = o.GetFlushAccessLogOnConnected()
	}
	if out.LogInterval, err = duration(interval, here); err != nil {
		return err
	}
	if interval != nil && out.LogInterval < time.Millisecond {
		return fail(here, "must be 1 ms at least")
	}
	return nil
}
