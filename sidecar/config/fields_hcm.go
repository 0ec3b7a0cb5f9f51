package config

import (
	preservecasev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/header_formatters/preserve_case/v3"
	customheaderv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/original_ip_detection/custom_header/v3"
	xffv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/original_ip_detection/xff/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const valuesReason = "metadata that a log can ask for are texts and truth values"

const hcmPackage = "envoy.extensions.filters.network.http_connection_manager.v3."

func init() {
	declare("HTTP connection manager", map[protoreflect.FullName]*rules{
		hcmPackage + "HttpConnectionManager.HcmAccessLogOptions": {
			use: "access_log_flush_interval flush_access_log_on_new_request flush_log_on_tunnel_successfully_established",
		},
		hcmPackage + "HttpConnectionManager.InternalAddressConfig": {use: "unix_sockets cidr_ranges"},
		"envoy.extensions.http.original_ip_detection.xff.v3.XffConfig": {
			use: "xff_num_trusted_hops skip_xff_append xff_trusted_cidrs",
		},
		"envoy.extensions.http.original_ip_detection.xff.v3.XffTrustedCidrs": {use: "cidrs"},
		"envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig": {
			use: "header_name allow_extension_to_set_address_as_trusted reject_with_status",
		},
		hcmPackage + "LocalReplyConfig":                   {use: "mappers body_format"},
		hcmPackage + "ResponseMapper":                     {use: "filter status_code body body_format_override headers_to_add"},
		"envoy.config.core.v3.SchemeHeaderTransformation": {use: "scheme_to_overwrite match_upstream"},
		"envoy.config.core.v3.Http1ProtocolOptions.HeaderKeyFormat": {
			use: "proper_case_words stateful_formatter",
		},
		"envoy.config.core.v3.Http1ProtocolOptions.HeaderKeyFormat.ProperCaseWords": {},
		"envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig": {
			ignore: map[string]string{"forward_reason_phrase": "the upstream's phrase is always passed on"},
			instead: map[string]string{
				"formatter_type_on_envoy_headers": "names that are added are in lower case",
			},
		},
	})
	declare("Access logs", map[protoreflect.FullName]*rules{
		"envoy.config.accesslog.v3.AccessLogFilter": {
			use: "status_code_filter duration_filter not_health_check_filter traceable_filter runtime_filter and_filter or_filter header_filter " +
				"response_flag_filter grpc_status_filter log_type_filter metadata_filter",
			instead: map[string]string{
				"extension_filter": "there are no extensions of filters",
			},
		},
		"envoy.config.accesslog.v3.ComparisonFilter":        {use: "op value"},
		"envoy.config.accesslog.v3.StatusCodeFilter":        {use: "comparison"},
		"envoy.config.accesslog.v3.DurationFilter":          {use: "comparison"},
		"envoy.config.accesslog.v3.NotHealthCheckFilter":    {},
		"envoy.config.accesslog.v3.TraceableFilter":         {},
		"envoy.config.accesslog.v3.AndFilter":               {use: "filters"},
		"envoy.config.accesslog.v3.OrFilter":                {use: "filters"},
		"envoy.config.accesslog.v3.HeaderFilter":            {use: "header"},
		"envoy.config.accesslog.v3.ResponseFlagFilter":      {use: "flags"},
		"envoy.config.accesslog.v3.GrpcStatusFilter":        {use: "statuses exclude"},
		"envoy.config.accesslog.v3.MetadataFilter":          {use: "matcher match_if_key_not_found"},
		"envoy.type.matcher.v3.MetadataMatcher":             {use: "filter path value invert"},
		"envoy.type.matcher.v3.MetadataMatcher.PathSegment": {use: "key"},
		"envoy.type.matcher.v3.ValueMatcher":                {use: "null_match double_match string_match bool_match present_match list_match or_match"},
		"envoy.type.matcher.v3.ValueMatcher.NullMatch":      {},
		"envoy.type.matcher.v3.DoubleMatcher":               {use: "range exact"},
		"envoy.type.v3.DoubleRange":                         {use: "start end"},
		"envoy.type.matcher.v3.ListMatcher":                 {use: "one_of"},
		"envoy.type.matcher.v3.OrMatcher":                   {use: "value_matchers"},
		"envoy.config.accesslog.v3.LogTypeFilter":           {use: "types exclude"},
		"envoy.config.accesslog.v3.RuntimeFilter": {
			use: "percent_sampled use_independent_randomness runtime_key",
		},
		"envoy.config.core.v3.RuntimeUInt32": {use: "default_value runtime_key"},
	})
	extend("envoy.config.core.v3.TypedExtensionConfig.typed_config", "extension", &preservecasev3.PreserveCaseFormatterConfig{}, &xffv3.XffConfig{}, &customheaderv3.CustomHeaderConfig{})
}
