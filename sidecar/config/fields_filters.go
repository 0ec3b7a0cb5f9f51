package config

import (
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	bufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	bridgev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_http1_bridge/v3"
	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	mutationfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	healthcheckv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	earlymutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	uuidv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const callReason = "calls are counted as other requests are; their methods and statuses are in access logs (REQ(:PATH), GRPC_STATUS)"

func init() {
	declare("HTTP filters", map[protoreflect.FullName]*rules{
		"envoy.config.route.v3.FilterConfig": {use: "config is_optional disabled"},
		"envoy.extensions.filters.http.fault.v3.HTTPFault": {
			use: "delay abort upstream_cluster headers max_active_faults delay_percent_runtime abort_percent_runtime " +
				"delay_duration_runtime abort_http_status_runtime max_active_faults_runtime abort_grpc_status_runtime " +
				"response_rate_limit response_rate_limit_percent_runtime",
			ignore: map[string]string{"disable_downstream_cluster_stats": statsReason},
			but:    map[string]string{"response_rate_limit": "of the answers of hosts that are no tunnels"},
			instead: map[string]string{
				"downstream_nodes": "nobody's word for x-envoy-downstream-service-node is taken; use headers",
				"filter_metadata":  "rules and logs know no metadata of faults; the flags DI and FI tell of them",
			},
		},
		"envoy.extensions.filters.http.fault.v3.FaultAbort":                   {use: "http_status grpc_status header_abort percentage response_body"},
		"envoy.extensions.filters.http.fault.v3.FaultAbort.HeaderAbort":       {},
		"envoy.extensions.filters.common.fault.v3.FaultDelay":                 {use: "fixed_delay header_delay percentage"},
		"envoy.extensions.filters.common.fault.v3.FaultDelay.HeaderDelay":     {},
		"envoy.extensions.filters.common.fault.v3.FaultRateLimit":             {use: "fixed_limit header_limit percentage"},
		"envoy.extensions.filters.common.fault.v3.FaultRateLimit.FixedLimit":  {use: "limit_kbps"},
		"envoy.extensions.filters.common.fault.v3.FaultRateLimit.HeaderLimit": {},
		"envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit": {
			use: "stat_prefix status token_bucket filter_enabled filter_enforced request_headers_to_add_when_not_enforced " +
				"response_headers_to_add local_rate_limit_per_downstream_connection enable_x_ratelimit_headers " +
				"rate_limited_as_resource_exhausted enable_retry_after_header descriptors rate_limits stage vh_rate_limits " +
				"max_dynamic_descriptors always_consume_default_token_bucket local_cluster_rate_limit",
			but: map[string]string{"local_cluster_rate_limit": "where the bootstrap names a local cluster"},
		},
		"envoy.extensions.common.ratelimit.v3.LocalClusterRateLimit":     {},
		"envoy.extensions.common.ratelimit.v3.LocalRateLimitDescriptor":  {use: "entries token_bucket shadow_mode"},
		"envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.Entry": {use: "key value"},
		"envoy.type.v3.HttpStatus":                                       {use: "code"},
		"envoy.type.v3.TokenBucket":                                      {use: "max_tokens tokens_per_fill fill_interval"},
		"envoy.extensions.filters.http.cors.v3.Cors":                     {},
		"envoy.extensions.filters.http.cors.v3.CorsPolicy": {
			use: "allow_origin_string_match allow_methods allow_headers expose_headers max_age allow_credentials filter_enabled " +
				"shadow_enabled allow_private_network_access forward_not_matching_preflights",
		},
		"envoy.config.route.v3.CorsPolicy": {
			use: "allow_origin_string_match allow_methods allow_headers expose_headers max_age allow_credentials filter_enabled " +
				"shadow_enabled allow_private_network_access forward_not_matching_preflights",
		},
		"envoy.extensions.filters.http.header_mutation.v3.HeaderMutation":         {use: "mutations most_specific_header_mutations_wins"},
		"envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute": {use: "mutations"},
		"envoy.extensions.filters.http.header_mutation.v3.Mutations": {
			use: "request_mutations query_parameter_mutations response_mutations request_trailers_mutations response_trailers_mutations formatters",
			but: map[string]string{"formatters": formattersKnown},
		},
		"envoy.config.core.v3.KeyValueMutation": {use: "append remove"},
		"envoy.config.core.v3.KeyValueAppend":   {use: "record action"},
		"envoy.config.core.v3.KeyValuePair":     {use: "key value"},
		"envoy.extensions.filters.http.grpc_stats.v3.FilterConfig": {
			ignore: map[string]string{
				"stats_for_all_methods":             callReason,
				"individual_method_stats_allowlist": callReason,
				"enable_upstream_stats":             callReason,
				"replace_dots_in_grpc_service_name": callReason,
				"emit_filter_state":                 "nothing reads filter state: access logs that name it are refused",
			},
		},
		"envoy.extensions.filters.http.grpc_http1_bridge.v3.Config": {
			use:     "ignore_query_parameters",
			instead: map[string]string{"upgrade_protobuf_to_grpc": "messages are passed on as they come"},
		},
		"envoy.extensions.filters.http.health_check.v3.HealthCheck": {
			use: "pass_through_mode cache_time cluster_min_healthy_percentages headers",
		},
		"envoy.extensions.filters.http.buffer.v3.Buffer":         {use: "max_request_bytes"},
		"envoy.extensions.filters.http.buffer.v3.BufferPerRoute": {use: "disabled buffer"},
		"envoy.extensions.filters.http.rbac.v3.RBACPerRoute":     {use: "rbac"},
	})
	extend("envoy.extensions.filters.network.http_connection_manager.v3.RequestIDExtension.typed_config", "request id extension", &uuidv3.UuidRequestIdConfig{})
	extend("envoy.config.core.v3.TypedExtensionConfig.typed_config", "extension", &earlymutationv3.HeaderMutation{})
	extend("envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter.typed_config", "filter",
		&httprbacv3.RBAC{}, &faultv3.HTTPFault{}, &ratelimitv3.LocalRateLimit{}, &corsv3.Cors{}, &mutationfilterv3.HeaderMutation{},
		&healthcheckv3.HealthCheck{}, &grpcstatsv3.FilterConfig{}, &bridgev3.Config{}, &bufferv3.Buffer{}, &routerv3.Router{})
	perRoute := []proto.Message{
		&httprbacv3.RBACPerRoute{}, &faultv3.HTTPFault{}, &ratelimitv3.LocalRateLimit{}, &corsv3.CorsPolicy{},
		&mutationfilterv3.HeaderMutationPerRoute{}, &bufferv3.BufferPerRoute{},
	}
	extend("envoy.config.route.v3.FilterConfig.config", "filter configuration", perRoute...)
	for _, m := range []protoreflect.FullName{"RouteConfiguration", "VirtualHost", "Route", "WeightedCluster.ClusterWeight"} {
		extend("envoy.config.route.v3."+m+".typed_per_filter_config", "filter configuration", append(perRoute, &routev3.FilterConfig{})...)
	}
}
