package config

import (
	aggregatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func init() {
	declare("Cluster", map[protoreflect.FullName]*rules{
		"envoy.config.cluster.v3.Cluster": {
			use: "name type cluster_type eds_cluster_config connect_timeout lb_policy load_assignment circuit_breakers " +
				"typed_extension_protocol_options outlier_detection round_robin_lb_config least_request_lb_config " +
				"common_lb_config transport_socket http2_protocol_options",
			ignore: map[string]string{
				"alt_stat_name":                     statsReason,
				"per_connection_buffer_limit_bytes": bufferReason,
				"metadata":                          metaReason,
				"ignore_health_on_host_removal":     "an endpoint that is removed goes at once: there are no active health checks",
			},
			instead: map[string]string{
				"health_checks":                "the control plane reports health by EDS; use outlier_detection for passive checks",
				"load_balancing_policy":        "use lb_policy",
				"http_protocol_options":        "use typed_extension_protocol_options",
				"common_http_protocol_options": "use typed_extension_protocol_options",
			},
		},
		"envoy.config.cluster.v3.Cluster.CustomClusterType":    {use: "typed_config", ignore: nameOnly},
		"envoy.extensions.clusters.aggregate.v3.ClusterConfig": {use: "clusters"},
		"envoy.config.cluster.v3.Cluster.EdsClusterConfig":     {use: "eds_config service_name"},
		"envoy.config.cluster.v3.Cluster.RoundRobinLbConfig":   {},
		"envoy.config.cluster.v3.Cluster.LeastRequestLbConfig": {use: "choice_count"},
		"envoy.config.cluster.v3.Cluster.CommonLbConfig":       {use: "healthy_panic_threshold", ignore: map[string]string{"update_merge_window": "updates of endpoints are applied at once"}},
		"envoy.type.v3.Percent":                                {use: "value"},
		"envoy.config.cluster.v3.CircuitBreakers":              {use: "thresholds"},
		"envoy.config.cluster.v3.CircuitBreakers.Thresholds": {
			use: "priority max_connections max_pending_requests max_requests max_retries retry_budget",
			ignore: map[string]string{
				"track_remaining": "admin shows what is in use",
			},
		},
		"envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget": {use: "budget_percent min_retry_concurrency"},
		"envoy.config.cluster.v3.OutlierDetection": {
			use: "consecutive_5xx interval base_ejection_time max_ejection_percent enforcing_consecutive_5xx " +
				"enforcing_success_rate enforcing_consecutive_gateway_failure enforcing_failure_percentage",
		},
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
			use: "common_http_protocol_options explicit_http_config auto_config use_downstream_protocol_config",
		},
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig": {
			use: "http_protocol_options http2_protocol_options",
		},
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.AutoHttpConfig": {
			use: "http_protocol_options http2_protocol_options",
		},
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig": {
			use: "http_protocol_options http2_protocol_options",
		},
	})
	declare("Endpoints", map[protoreflect.FullName]*rules{
		"envoy.config.endpoint.v3.ClusterLoadAssignment":        {use: "cluster_name endpoints policy"},
		"envoy.config.endpoint.v3.ClusterLoadAssignment.Policy": {use: "overprovisioning_factor"},
		"envoy.config.endpoint.v3.LocalityLbEndpoints": {
			use:    "locality lb_endpoints load_balancing_weight priority",
			ignore: map[string]string{"metadata": metaReason},
		},
		"envoy.config.core.v3.Locality": {use: "region zone sub_zone"},
		"envoy.config.endpoint.v3.LbEndpoint": {
			use:    "endpoint health_status load_balancing_weight",
			ignore: map[string]string{"metadata": metaReason},
		},
		"envoy.config.endpoint.v3.Endpoint": {
			use: "address hostname",
			ignore: map[string]string{
				"observability_name": "endpoints are shown by address",
			},
		},
	})
	extend("envoy.config.cluster.v3.Cluster.CustomClusterType.typed_config", "cluster type", &aggregatev3.ClusterConfig{})
	extend("envoy.config.cluster.v3.Cluster.typed_extension_protocol_options", "protocol options", &upstreamhttpv3.HttpProtocolOptions{})
}
