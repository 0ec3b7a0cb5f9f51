package config

import (
	earlydatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/early_data/v3"
	allowlistedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/internal_redirect/allow_listed_routes/v3"
	previousroutesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/internal_redirect/previous_routes/v3"
	safeschemev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/internal_redirect/safe_cross_scheme/v3"
	urimatchv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	urirewritev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/rewrite/uri_template/v3"
	omitcanaryv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/omit_canary_hosts/v3"
	omitmetadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/omit_host_metadata/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	headerMutations = " request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove"
	bufferLimits    = " per_request_buffer_limit_bytes request_body_buffer_limit"
)

const (
	metadataHint  = "use request_headers, query_parameters or generic_key"
	literalReason = "values are literal, as Envoy's are unless a runtime flag says otherwise"
	pluginHint    = "use cluster, cluster_header or weighted_clusters"
)

func init() {
	declare("Routes", map[protoreflect.FullName]*rules{
		"envoy.config.route.v3.RouteConfiguration": {
			use: "name virtual_hosts most_specific_header_mutations_wins ignore_port_in_host_matching " +
				"ignore_path_parameters_in_path_matching validate_clusters request_mirror_policies max_direct_response_body_size_bytes " +
				"typed_per_filter_config internal_only_headers vhost_header" + headerMutations,
			but: map[string]string{"max_direct_response_body_size_bytes": "1 MiB at most: a longer body is refused"},
			ignore: map[string]string{
				"metadata": metaReason,
			},
			instead: map[string]string{
				"vhds":                      "send the virtual hosts with the route configuration",
				"cluster_specifier_plugins": pluginHint,
			},
		},
		"envoy.config.route.v3.VirtualHost": {
			use: "name domains routes require_tls retry_policy include_request_attempt_count include_attempt_count_in_response " +
				"include_is_timeout_retry_header metadata hedge_policy request_mirror_policies cors typed_per_filter_config rate_limits" + headerMutations + bufferLimits,
			ignore: map[string]string{
				"virtual_clusters": "metrics have no label for them",
			},
			instead: map[string]string{"matcher": "use routes"},
		},
		"envoy.config.route.v3.Route": {
			use: "name match route redirect direct_response metadata typed_per_filter_config tracing decorator" + headerMutations + bufferLimits,
			ignore: map[string]string{
				"stat_prefix": statsReason,
			},
			instead: map[string]string{"non_forwarding_action": "it is for clients that route themselves; use direct_response"},
		},
		"envoy.config.route.v3.RouteMatch": {
			use: "prefix path path_separated_prefix safe_regex connect_matcher path_match_policy case_sensitive runtime_fraction " +
				"headers query_parameters cookies grpc tls_context",
		},
		"envoy.config.route.v3.RouteMatch.GrpcRouteMatchOptions":                          {},
		"envoy.config.route.v3.RouteMatch.ConnectMatcher":                                 {},
		"envoy.config.route.v3.RouteMatch.TlsContextMatchOptions":                         {use: "presented validated"},
		"envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig":              {use: "path_template"},
		"envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig":          {use: "path_template_rewrite"},
		"envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig": {use: "update_frequency"},
		"envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate":            {},
		"envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate":       {},
		"envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig":        {use: "metadata_match"},
		"envoy.config.core.v3.RuntimeFractionalPercent":                                   {use: "default_value runtime_key"},
		"envoy.type.v3.FractionalPercent":                                                 {use: "numerator denominator"},
		"envoy.config.route.v3.HeaderMatcher": {
			use: "name exact_match safe_regex_match range_match present_match prefix_match suffix_match contains_match " +
				"string_match invert_match treat_missing_header_as_empty",
		},
		"envoy.type.v3.Int64Range":                    {use: "start end"},
		"envoy.type.v3.Int32Range":                    {use: "start end"},
		"envoy.config.route.v3.QueryParameterMatcher": {use: "name string_match present_match"},
		"envoy.config.route.v3.CookieMatcher":         {use: "name string_match invert_match"},
		"envoy.type.matcher.v3.StringMatcher":         {use: "exact prefix suffix safe_regex contains ignore_case"},
		"envoy.type.matcher.v3.PathMatcher":           {use: "path"},
		"envoy.type.matcher.v3.RegexMatcher": {
			use: "regex google_re2",
		},
		"envoy.type.matcher.v3.RegexMatcher.GoogleRE2":  {use: "max_program_size"},
		"envoy.type.matcher.v3.RegexMatchAndSubstitute": {use: "pattern substitution"},
		"envoy.config.route.v3.RouteAction": {
			use: "cluster cluster_header weighted_clusters cluster_not_found_response_code prefix_rewrite regex_rewrite " +
				"path_rewrite_policy path_rewrite host_rewrite_literal auto_host_rewrite host_rewrite_header host_rewrite_path_regex " +
				"host_rewrite append_x_forwarded_host metadata_match timeout idle_timeout flush_timeout retry_policy request_mirror_policies priority hash_policy " +
				"max_grpc_timeout grpc_timeout_offset max_stream_duration upgrade_configs hedge_policy cors rate_limits include_vh_rate_limits " +
				"internal_redirect_policy internal_redirect_action max_internal_redirects",
			ignore: map[string]string{"early_data_policy": "no connection to a host sends early data (RFC 8446 2.3)"},
			instead: map[string]string{
				"cluster_specifier_plugin":        pluginHint,
				"inline_cluster_specifier_plugin": pluginHint,
			},
		},
		"envoy.extensions.early_data.v3.DefaultEarlyDataPolicy": {},
		"envoy.config.route.v3.InternalRedirectPolicy": {
			use: "max_internal_redirects redirect_response_codes predicates allow_cross_scheme_redirect response_headers_to_copy",
		},
		"envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig":        {},
		"envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig": {use: "allowed_route_names"},
		"envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig":     {},
		"envoy.config.route.v3.RateLimit": {
			use: "stage actions x_ratelimit_option hits_addend",
			but: map[string]string{"hits_addend": "in the rate_limits of a filter alone, as in Envoy"},
			instead: map[string]string{
				"disable_key":          "it is for rate limit services",
				"limit":                "it is for rate limit services; write the token bucket of a descriptor",
				"apply_on_stream_done": "it is for rate limit services",
			},
		},
		"envoy.config.route.v3.RateLimit.HitsAddend": {
			use: "number format is_negative_hits",
		},
		"envoy.config.route.v3.RateLimit.Action": {
			use: "source_cluster destination_cluster request_headers query_parameters remote_address masked_remote_address generic_key " +
				"header_value_match query_parameter_value_match remote_address_match",
			instead: map[string]string{
				"dynamic_metadata": metadataHint, "metadata": metadataHint, "extension": metadataHint,
			},
		},
		"envoy.config.route.v3.RateLimit.Action.SourceCluster":       {},
		"envoy.config.route.v3.RateLimit.Action.DestinationCluster":  {},
		"envoy.config.route.v3.RateLimit.Action.RemoteAddress":       {},
		"envoy.config.route.v3.RateLimit.Action.MaskedRemoteAddress": {use: "v4_prefix_mask_len v6_prefix_mask_len"},
		"envoy.config.route.v3.RateLimit.Action.RemoteAddressMatch": {
			use: "descriptor_key descriptor_value address_matcher", ignore: map[string]string{"default_value": "it is for a value that is empty, and this one is not"},
		},
		"envoy.type.matcher.v3.AddressMatcher":                   {use: "ranges invert_match"},
		"envoy.config.route.v3.RateLimit.Action.RequestHeaders":  {use: "header_name descriptor_key skip_if_absent"},
		"envoy.config.route.v3.RateLimit.Action.QueryParameters": {use: "query_parameter_name descriptor_key skip_if_absent"},
		"envoy.config.route.v3.RateLimit.Action.GenericKey": {
			use: "descriptor_key descriptor_value", ignore: map[string]string{"default_value": literalReason},
		},
		"envoy.config.route.v3.RateLimit.Action.HeaderValueMatch": {
			use: "descriptor_key descriptor_value expect_match headers", ignore: map[string]string{"default_value": literalReason},
		},
		"envoy.config.route.v3.RateLimit.Action.QueryParameterValueMatch": {
			use: "descriptor_key descriptor_value expect_match query_parameters", ignore: map[string]string{"default_value": literalReason},
		},
		"envoy.config.route.v3.RouteAction.RequestMirrorPolicy": {
			use: "cluster cluster_header runtime_fraction trace_sampled disable_shadow_host_suffix_append request_headers_mutations host_rewrite_literal",
		},
		"envoy.config.route.v3.HedgePolicy": {
			use: "hedge_on_per_try_timeout",
			instead: map[string]string{
				"initial_requests": "a request is hedged when its attempt takes long, not before", "additional_request_chance": "a request is hedged when its attempt takes long, not by chance",
			},
		},
		"envoy.config.route.v3.RouteAction.UpgradeConfig": {
			use: "upgrade_type enabled connect_config",
		},
		"envoy.config.route.v3.RouteAction.UpgradeConfig.ConnectConfig": {
			use: "allow_post",
			instead: map[string]string{
				"proxy_protocol_config": "put a ProxyProtocolUpstreamTransport on the cluster",
			},
		},
		"envoy.config.route.v3.RouteAction.MaxStreamDuration": {
			use: "max_stream_duration grpc_timeout_header_max grpc_timeout_header_offset",
		},
		"envoy.config.route.v3.WeightedCluster": {
			use:    "clusters header_name use_hash_policy runtime_key_prefix",
			ignore: map[string]string{"total_weight": "the weights are added up, as in Envoy"},
		},
		"envoy.config.route.v3.WeightedCluster.ClusterWeight": {use: "name cluster_header weight metadata_match host_rewrite_literal typed_per_filter_config" + headerMutations},
		"envoy.config.route.v3.RetryPolicy": {
			use: "retry_on num_retries per_try_timeout per_try_idle_timeout retriable_status_codes retriable_headers " +
				"retriable_request_headers retry_back_off rate_limited_retry_back_off retry_host_predicate host_selection_retry_max_attempts retry_priority",
			instead: map[string]string{
				"retry_options_predicates": "there are none",
				"refresh_cluster_on_retry": "a retry goes to the cluster that the request was routed to",
			},
		},
		"envoy.config.route.v3.RetryPolicy.RetryHostPredicate":              {use: "typed_config", ignore: nameOnly},
		"envoy.config.route.v3.RetryPolicy.RetryPriority":                   {use: "typed_config", ignore: nameOnly},
		"envoy.config.route.v3.RetryPolicy.RetryBackOff":                    {use: "base_interval max_interval"},
		"envoy.config.route.v3.RetryPolicy.RateLimitedRetryBackOff":         {use: "reset_headers max_interval"},
		"envoy.config.route.v3.RetryPolicy.ResetHeader":                     {use: "name format"},
		"envoy.config.route.v3.RouteAction.HashPolicy":                      {use: "header cookie connection_properties query_parameter terminal"},
		"envoy.config.route.v3.RouteAction.HashPolicy.Header":               {use: "header_name regex_rewrite"},
		"envoy.config.route.v3.RouteAction.HashPolicy.Cookie":               {use: "name ttl path attributes"},
		"envoy.config.route.v3.RouteAction.HashPolicy.CookieAttribute":      {use: "name value"},
		"envoy.config.route.v3.RouteAction.HashPolicy.ConnectionProperties": {use: "source_ip"},
		"envoy.config.route.v3.RouteAction.HashPolicy.QueryParameter":       {use: "name"},
		"envoy.config.route.v3.RedirectAction": {
			use: "https_redirect scheme_redirect host_redirect port_redirect path_redirect prefix_rewrite regex_rewrite " +
				"path_rewrite response_code strip_query",
		},
		"envoy.config.route.v3.DirectResponseAction": {use: "status body body_format"},
		"envoy.config.core.v3.HeaderValueOption":     {use: "header append append_action keep_empty_value"},
		"envoy.config.core.v3.HeaderValue": {
			use: "key value", instead: map[string]string{"raw_value": "Envoy adds nothing of it either, where the configuration says it; use value"},
		},
		"envoy.config.common.mutation_rules.v3.HeaderMutation":               {use: "remove append remove_on_match"},
		"envoy.config.common.mutation_rules.v3.HeaderMutation.RemoveOnMatch": {use: "key_matcher"},
	})
	extend("envoy.config.core.v3.TypedExtensionConfig.typed_config", "extension",
		&urimatchv3.UriTemplateMatchConfig{}, &urirewritev3.UriTemplateRewriteConfig{},
		&earlydatav3.DefaultEarlyDataPolicy{}, &previousroutesv3.PreviousRoutesConfig{}, &allowlistedv3.AllowListedRoutesConfig{}, &safeschemev3.SafeCrossSchemeConfig{})
	extend("envoy.config.route.v3.RetryPolicy.RetryHostPredicate.typed_config", "retry host predicate",
		&previoushostsv3.PreviousHostsPredicate{}, &omitcanaryv3.OmitCanaryHostsPredicate{}, &omitmetadatav3.OmitHostMetadataConfig{})
	extend("envoy.config.route.v3.RetryPolicy.RetryPriority.typed_config", "retry priority", &previousprioritiesv3.PreviousPrioritiesConfig{})
}
