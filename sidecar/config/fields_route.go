package config

import "google.golang.org/protobuf/reflect/protoreflect"

const headerMutations = " request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove"

func init() {
	declare("Routes", map[protoreflect.FullName]*rules{
		"envoy.config.route.v3.RouteConfiguration": {
			use: "name virtual_hosts",
			ignore: map[string]string{
				"validate_clusters": "a route to a cluster that is not there answers 503",
				"metadata":          metaReason,
			},
			instead: map[string]string{
				"request_headers_to_add":     "put it on the virtual host",
				"request_headers_to_remove":  "put it on the virtual host",
				"response_headers_to_add":    "put it on the virtual host",
				"response_headers_to_remove": "put it on the virtual host",
			},
		},
		"envoy.config.route.v3.VirtualHost": {
			use:    "name domains routes retry_policy" + headerMutations,
			ignore: map[string]string{"metadata": metaReason},
		},
		"envoy.config.route.v3.Route": {
			use: "name match route redirect direct_response metadata" + headerMutations,
			ignore: map[string]string{
				"decorator":   "it names spans; there is no tracing",
				"stat_prefix": statsReason,
			},
		},
		"envoy.config.route.v3.RouteMatch": {
			use: "prefix path path_separated_prefix safe_regex case_sensitive runtime_fraction headers query_parameters",
		},
		"envoy.config.core.v3.RuntimeFractionalPercent": {
			use:    "default_value",
			ignore: map[string]string{"runtime_key": "there is no runtime layer; the default value holds"},
		},
		"envoy.type.v3.FractionalPercent": {use: "numerator denominator"},
		"envoy.config.route.v3.HeaderMatcher": {
			use: "name exact_match safe_regex_match range_match present_match prefix_match suffix_match contains_match " +
				"string_match invert_match treat_missing_header_as_empty",
		},
		"envoy.type.v3.Int64Range":                    {use: "start end"},
		"envoy.type.v3.Int32Range":                    {use: "start end"},
		"envoy.config.route.v3.QueryParameterMatcher": {use: "name string_match present_match"},
		"envoy.type.matcher.v3.StringMatcher":         {use: "exact prefix suffix safe_regex contains ignore_case"},
		"envoy.type.matcher.v3.PathMatcher":           {use: "path"},
		"envoy.type.matcher.v3.RegexMatcher": {
			use:    "regex",
			ignore: map[string]string{"google_re2": "RE2 syntax is the only one"},
		},
		"envoy.config.route.v3.RouteAction": {
			use: "cluster weighted_clusters prefix_rewrite host_rewrite_literal timeout idle_timeout retry_policy " +
				"priority hash_policy cluster_not_found_response_code",
		},
		"envoy.config.route.v3.WeightedCluster": {
			use: "clusters",
			ignore: map[string]string{
				"runtime_key_prefix": "there is no runtime layer; the weights hold",
			},
			instead: map[string]string{"total_weight": "the weights are added up"},
		},
		"envoy.config.route.v3.WeightedCluster.ClusterWeight": {use: "name weight" + headerMutations},
		"envoy.config.route.v3.RetryPolicy": {
			use: "retry_on num_retries per_try_timeout retriable_status_codes retry_back_off retriable_request_headers",
		},
		"envoy.config.route.v3.RetryPolicy.RetryBackOff":                    {use: "base_interval max_interval"},
		"envoy.config.route.v3.RouteAction.HashPolicy":                      {use: "header cookie connection_properties query_parameter terminal"},
		"envoy.config.route.v3.RouteAction.HashPolicy.Header":               {use: "header_name"},
		"envoy.config.route.v3.RouteAction.HashPolicy.Cookie":               {use: "name ttl path"},
		"envoy.config.route.v3.RouteAction.HashPolicy.ConnectionProperties": {use: "source_ip"},
		"envoy.config.route.v3.RouteAction.HashPolicy.QueryParameter":       {use: "name"},
		"envoy.config.route.v3.RedirectAction": {
			use: "https_redirect scheme_redirect host_redirect port_redirect path_redirect prefix_rewrite response_code strip_query",
		},
		"envoy.config.route.v3.DirectResponseAction": {use: "status body"},
		"envoy.config.core.v3.HeaderValueOption":     {use: "header append append_action keep_empty_value"},
		"envoy.config.core.v3.HeaderValue":           {use: "key value"},
	})
}
