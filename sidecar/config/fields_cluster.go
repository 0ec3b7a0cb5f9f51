package config

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	selectorv3 "github.com/envoyproxy/go-control-plane/envoy/config/upstream/local_address_selector/v3"
	aggregatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	eventfilev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/health_check/event_sinks/file/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	getaddrinfov3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/getaddrinfo/v3"
	upstreamproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const questionReason = "each question has a socket of its own"

const answerOnly = "an answer is judged by its head, in Envoy too, where this never holds"

const extensionsOfV2 = "with V2 alone: headers of V1 have no extensions"

func init() {
	declare("Cluster", map[protoreflect.FullName]*rules{
		"envoy.config.cluster.v3.Cluster": {
			use: "name type cluster_type eds_cluster_config connect_timeout lb_policy load_assignment circuit_breakers " +
				"typed_extension_protocol_options outlier_detection round_robin_lb_config least_request_lb_config " +
				"ring_hash_lb_config maglev_lb_config original_dst_lb_config lb_subset_config load_balancing_policy " +
				"common_lb_config transport_socket transport_socket_matches http2_protocol_options http_protocol_options " +
				"common_http_protocol_options protocol_selection max_requests_per_connection health_checks " +
				"dns_refresh_rate dns_jitter dns_failure_refresh_rate dns_lookup_family cleanup_interval " +
				"connection_pool_per_downstream_connection upstream_bind_config upstream_connection_options ignore_health_on_host_removal " +
				"close_connections_on_host_health_failure dns_resolvers dns_resolution_config typed_dns_resolver_config use_tcp_for_dns_lookups " +
				"upstream_http_protocol_options respect_dns_ttl wait_for_warm_on_init alt_stat_name metadata " +
				"track_timeout_budgets track_cluster_stats",
			ignore: map[string]string{
				"stats_matcher":                     statsReason,
				"per_connection_buffer_limit_bytes": bufferReason,
			},
			but: map[string]string{
				"connection_pool_per_downstream_connection": "with more than 1,024 clients of a host those end that have had no request for 10 s",
			},
			instead: map[string]string{
				"transport_socket_matcher":                     "use transport_socket_matches",
				"preconnect_policy":                            "connections are opened when they are needed",
				"per_connection_buffer_high_watermark_timeout": bufferReason,
			},
		},
		"envoy.config.cluster.v3.TrackClusterStats": {
			use: "timeout_budgets", ignore: map[string]string{
				"request_response_sizes": "there are no such histograms: sizes of requests are in access logs, those of attempts too",
				"per_endpoint_stats":     "statistics are of clusters; /clusters of the admin listener tells of their endpoints",
			},
		},
		"envoy.config.cluster.v3.Cluster.CustomClusterType":    {use: "typed_config", ignore: nameOnly},
		"envoy.extensions.clusters.aggregate.v3.ClusterConfig": {use: "clusters"},
		"envoy.extensions.clusters.dns.v3.DnsCluster": {
			use: "dns_refresh_rate dns_failure_refresh_rate dns_jitter dns_lookup_family all_addresses_in_single_endpoint typed_dns_resolver_config " +
				"respect_dns_ttl dns_min_refresh_rate",
		},
		"envoy.config.core.v3.DnsResolutionConfig": {use: "resolvers dns_resolver_options"},
		"envoy.config.core.v3.DnsResolverOptions":  {use: "use_tcp_for_dns_lookups no_default_search_domain"},
		"envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig": {
			use: "resolvers dns_resolver_options rotate_nameservers filter_unroutable_families " +
				"query_timeout_seconds query_tries",
			ignore: map[string]string{
				"udp_max_queries": questionReason, "max_udp_channel_duration": questionReason, "reinit_channel_on_timeout": questionReason,
				"edns0_max_payload_size": "questions ask for 1,232 bytes, which pass everywhere; what is longer comes by TCP",
				"qcache_max_ttl":         "every lookup asks: nothing is older than that",
			},
			instead: map[string]string{
				"use_resolvers_as_fallback": "resolvers are asked in place of the host's, which are asked where there are none",
			},
			but: map[string]string{
				"query_timeout_seconds": "5 at most, and with resolvers alone; a lookup lasts 300 s at most", "query_tries": "16 at most, and with resolvers alone",
			},
		},
		"envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig": {
			use:    "num_retries",
			but:    map[string]string{"num_retries": "15 at most"},
			ignore: map[string]string{"num_resolver_threads": "each name is looked up by itself"},
		},
		"envoy.extensions.clusters.dns.v3.DnsCluster.RefreshRate": {use: "base_interval max_interval"},
		"envoy.config.cluster.v3.Cluster.RefreshRate":             {use: "base_interval max_interval"},
		"envoy.config.cluster.v3.Cluster.EdsClusterConfig":        {use: "eds_config service_name"},
		"envoy.config.cluster.v3.Cluster.OriginalDstLbConfig": {
			use:     "use_http_header http_header_name upstream_port_override",
			instead: map[string]string{"metadata_key": "there is no dynamic metadata; use use_http_header"},
		},
		"envoy.config.cluster.v3.Cluster.TransportSocketMatch":       {use: "name match transport_socket"},
		"envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer": {},
		"envoy.config.core.v3.BindConfig": {
			use: "source_address freebind socket_options extra_source_addresses additional_source_addresses local_address_selector",
			but: map[string]string{
				"socket_options":         "not those of STATE_LISTENING; those of STATE_BOUND are set before the socket is bound",
				"local_address_selector": "the default one alone",
			},
			instead: map[string]string{"validate_network_namespaces": "run a sidecar in that namespace"},
		},
		"envoy.config.core.v3.ExtraSourceAddress":                                     {use: "address socket_options"},
		"envoy.config.upstream.local_address_selector.v3.DefaultLocalAddressSelector": {},
		"envoy.config.cluster.v3.UpstreamConnectionOptions":                           {use: "tcp_keepalive happy_eyeballs_config", instead: map[string]string{"set_local_interface_name_on_upstream_connections": "nothing asks for it"}},
		"envoy.config.cluster.v3.UpstreamConnectionOptions.HappyEyeballsConfig": {
			use: "first_address_family_version first_address_family_count", but: map[string]string{"first_address_family_version": "not PIPE and INTERNAL"},
		},
		"envoy.config.core.v3.TcpKeepalive": {use: "keepalive_probes keepalive_time keepalive_interval"},
		"envoy.type.v3.Percent":             {use: "value"},
		"envoy.config.cluster.v3.CircuitBreakers": {
			use: "thresholds per_host_thresholds",
		},
		"envoy.config.cluster.v3.CircuitBreakers.Thresholds": {
			use: "priority max_connections max_pending_requests max_requests max_retries retry_budget track_remaining max_connection_pools",
			but: map[string]string{"max_connection_pools": "of HTTP, as in Envoy"},
		},
		"envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget": {use: "budget_percent min_retry_concurrency budget_interval"},
		"envoy.config.cluster.v3.OutlierDetection": {
			use: "consecutive_5xx interval base_ejection_time max_ejection_percent enforcing_consecutive_5xx " +
				"enforcing_success_rate success_rate_minimum_hosts success_rate_request_volume success_rate_stdev_factor " +
				"consecutive_gateway_failure enforcing_consecutive_gateway_failure split_external_local_origin_errors " +
				"consecutive_local_origin_failure enforcing_consecutive_local_origin_failure " +
				"enforcing_local_origin_success_rate failure_percentage_threshold enforcing_failure_percentage " +
				"enforcing_failure_percentage_local_origin failure_percentage_minimum_hosts " +
				"failure_percentage_request_volume max_ejection_time max_ejection_time_jitter " +
				"successful_active_health_check_uneject_host always_eject_one_host detect_degraded_hosts",
			instead: map[string]string{
				"monitors": "there are no extensions of outlier detection",
			},
		},
	})
	declareBalancing()
	declareHealthChecks()
	declareUpstreamHTTP()
	declareAnnouncements()
	declareEndpoints()
	extend("envoy.config.cluster.v3.Cluster.CustomClusterType.typed_config", "cluster type",
		&aggregatev3.ClusterConfig{}, &dnsv3.DnsCluster{})
	extend("envoy.config.cluster.v3.Cluster.typed_extension_protocol_options", "protocol options", &upstreamhttpv3.HttpProtocolOptions{})
	extend("envoy.config.core.v3.TypedExtensionConfig.typed_config", "extension", &caresv3.CaresDnsResolverConfig{}, &getaddrinfov3.GetAddrInfoDnsResolverConfig{},
		&selectorv3.DefaultLocalAddressSelector{}, &eventfilev3.HealthCheckEventFileSink{})
	extend("envoy.config.core.v3.Metadata.typed_filter_metadata", "metadata", &corev3.PerHostConfig{})
	extend("envoy.config.core.v3.TransportSocket.typed_config", "transport socket", &rawbufferv3.RawBuffer{}, &upstreamproxyv3.ProxyProtocolUpstreamTransport{})
}

func declareHealthChecks() {
	declare("Health checks", map[protoreflect.FullName]*rules{
		"envoy.config.core.v3.HealthCheck": {
			use: "timeout interval initial_jitter interval_jitter interval_jitter_percent unhealthy_threshold " +
				"healthy_threshold reuse_connection http_health_check tcp_health_check grpc_health_check no_traffic_interval " +
				"no_traffic_healthy_interval unhealthy_interval unhealthy_edge_interval healthy_edge_interval " +
				"always_log_health_check_failures always_log_health_check_success tls_options " +
				"transport_socket_match_criteria event_log_path event_logger",
			ignore: map[string]string{"name": "the log names the cluster"},
			instead: map[string]string{
				"alt_port":            "use an endpoint's health_check_config.port_value",
				"custom_health_check": "use http_health_check, tcp_health_check or grpc_health_check",
				"event_service":       "use event_logger, which writes events to a file",
			},
		},
		"envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink": {use: "event_log_path"},
		"envoy.config.core.v3.HealthCheck.HttpHealthCheck": {
			use: "host path send receive response_buffer_size request_headers_to_add request_headers_to_remove " +
				"expected_statuses retriable_statuses codec_client_type service_name_matcher method use_alpn_protocol",
		},
		"envoy.config.core.v3.HealthCheck.TcpHealthCheck": {
			use: "send receive proxy_protocol_config", but: map[string]string{"proxy_protocol_config": "its version alone: a check is nobody's"},
		},
		"envoy.config.core.v3.HealthCheck.GrpcHealthCheck": {use: "service_name authority initial_metadata"},
		"envoy.config.core.v3.HealthCheck.Payload":         {use: "text binary"},
		"envoy.config.core.v3.HealthCheck.TlsOptions":      {use: "alpn_protocols"},
	})
}

func declareAnnouncements() {
	declare("Transport sockets", map[protoreflect.FullName]*rules{
		"envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport": {
			use: "config transport_socket",
			instead: map[string]string{
				"allow_unspecified_address": "a client without an IP address is announced as nobody",
				"tlv_as_pool_key":           notInEnvoy + "; connections are for clients with the same extensions alone",
			},
		},
		"envoy.config.core.v3.ProxyProtocolConfig": {
			use: "version pass_through_tlvs added_tlvs",
			but: map[string]string{"pass_through_tlvs": extensionsOfV2, "added_tlvs": extensionsOfV2 + ", 4,044 bytes at most, what a listener takes"},
		},
		"envoy.config.core.v3.ProxyProtocolPassThroughTLVs": {
			use: "match_type tlv_type", but: map[string]string{"tlv_type": "with INCLUDE alone"},
		},
		"envoy.config.core.v3.PerHostConfig": {use: "added_tlvs"},
		"envoy.config.core.v3.TlvEntry": {
			use: "type value", instead: map[string]string{"format_string": "write a value"},
		},
	})
}

func declareUpstreamHTTP() {
	declare("Cluster", map[protoreflect.FullName]*rules{
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
			use: "common_http_protocol_options explicit_http_config use_downstream_protocol_config auto_config upstream_http_protocol_options " +
				"retry_policy hash_policy request_mirror_policies outlier_detection",
		},
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.OutlierDetection": {use: "error_matcher"},
		"envoy.config.common.matcher.v3.MatchPredicate": {
			use: "or_match and_match not_match http_response_headers_match",
			instead: map[string]string{
				"any_match":                        answerOnly,
				"http_request_headers_match":       answerOnly,
				"http_request_trailers_match":      answerOnly,
				"http_response_trailers_match":     answerOnly,
				"http_request_generic_body_match":  answerOnly,
				"http_response_generic_body_match": answerOnly,
			},
		},
		"envoy.config.common.matcher.v3.MatchPredicate.MatchSet": {use: "rules"},
		"envoy.config.common.matcher.v3.HttpHeadersMatch":        {use: "headers"},
		"envoy.config.core.v3.UpstreamHttpProtocolOptions":       {use: "auto_sni auto_san_validation override_auto_sni_header"},
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig": {
			use: "http_protocol_options http2_protocol_options",
		},
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig": {
			use: "http_protocol_options http2_protocol_options",
		},
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.AutoHttpConfig": {
			use: "http_protocol_options http2_protocol_options",
		},
	})
}

func declareEndpoints() {
	declare("Endpoints", map[protoreflect.FullName]*rules{
		"envoy.config.endpoint.v3.ClusterLoadAssignment": {use: "cluster_name endpoints policy"},
		"envoy.config.endpoint.v3.ClusterLoadAssignment.Policy": {
			use: "overprovisioning_factor weighted_priority_health drop_overloads endpoint_stale_after",
		},
		"envoy.config.endpoint.v3.ClusterLoadAssignment.Policy.DropOverload": {
			use:    "drop_percentage",
			ignore: map[string]string{"category": "it names the requests in reports of load, of which there are none"},
		},
		"envoy.config.endpoint.v3.LocalityLbEndpoints": {
			use: "locality metadata lb_endpoints load_balancing_weight priority",
		},
		"envoy.config.core.v3.Locality": {use: "region zone sub_zone"},
		"envoy.config.endpoint.v3.LbEndpoint": {
			use: "endpoint health_status load_balancing_weight metadata",
		},
		"envoy.config.endpoint.v3.Endpoint": {
			use: "address hostname health_check_config additional_addresses",
			but: map[string]string{"additional_addresses": "IP addresses of hosts with one, of types STATIC and EDS"},
			ignore: map[string]string{
				"observability_name": "endpoints are shown by address",
			},
		},
		"envoy.config.endpoint.v3.Endpoint.AdditionalAddress": {use: "address"},
		"envoy.config.endpoint.v3.Endpoint.HealthCheckConfig": {use: "port_value hostname address disable_active_health_check"},
	})
}
