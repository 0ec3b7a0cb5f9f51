package config

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	accesslogfilev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	otelv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	accesslogstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	connectionlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/local_ratelimit/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	sniclusterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_cluster/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	metadataformatterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/formatter/metadata/v3"
	withoutqueryv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/formatter/req_without_query/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

const (
	statsReason  = "metrics are labelled by listener, service and peer"
	bufferReason = "buffers have a fixed bound and apply back-pressure"
	metaReason   = "no filter or log asks for it"
	ticketReason = "sessions are never resumed"

	formattersKnown = "req_without_query and metadata alone, whose operators are there without them too"

	notInEnvoy = "Envoy does not implement it either"

	balanceReason = "each connection has a goroutine of its own, which runs wherever there is room"
)

// notDiscovered is said of filters whose configuration would come by ECDS.
var notDiscovered = map[string]string{"config_discovery": "write the configuration into typed_config"}

func init() {
	declare("Listener", map[protoreflect.FullName]*rules{
		"envoy.config.listener.v3.Listener": {
			use: "name address additional_addresses filter_chains default_filter_chain metadata listener_filters " +
				"listener_filters_timeout continue_on_listener_filters_timeout use_original_dst traffic_direction access_log " +
				"drain_type bind_to_port deprecated_v1 reuse_port enable_reuse_port freebind transparent socket_options " +
				"tcp_fast_open_queue_length tcp_backlog_size tcp_keepalive enable_mptcp ignore_global_conn_limit bypass_overload_manager " +
				"per_connection_buffer_limit_bytes",
			but: map[string]string{
				"per_connection_buffer_limit_bytes": "for what is kept of requests and answers, and for the buffers of a TCP proxy, which have 4 KiB at least; a record of TLS is held whole",
				"default_filter_chain":              "without a filter_chain_match, which Envoy passes over",
			},
			ignore: map[string]string{
				"stat_prefix":                                statsReason,
				"connection_balance_config":                  balanceReason,
				"max_connections_to_accept_per_socket_event": balanceReason,
			},
			instead: map[string]string{
				"udp_listener_config":  "only TCP and Unix sockets are listened on",
				"filter_chain_matcher": "use filter_chain_match",
				"internal_listener":    "name the upstream directly",
				"api_listener":         "only sockets are listened on",
				"stats_matcher":        statsReason,

				"per_connection_buffer_high_watermark_timeout": bufferReason + "; what moves no byte ends by idle timeouts",
				"fcds_config": "write the chains into filter_chains",
			},
		},
		"envoy.config.listener.v3.Listener.DeprecatedV1": {use: "bind_to_port"},
		"envoy.config.listener.v3.AdditionalAddress":     {use: "address socket_options tcp_keepalive"},
		"envoy.config.core.v3.SocketOptionsOverride":     {use: "socket_options"},
		"envoy.config.core.v3.SocketOption": {
			use: "level name int_value buf_value state type ip_version", ignore: map[string]string{"description": "is for people"},
		},
		"envoy.config.core.v3.SocketOption.SocketType":          {use: "stream datagram"},
		"envoy.config.core.v3.SocketOption.SocketType.Stream":   {},
		"envoy.config.core.v3.SocketOption.SocketType.Datagram": {},
		"envoy.config.core.v3.Metadata": {
			use: "filter_metadata",
			ignore: map[string]string{
				"typed_filter_metadata": metaReason + ", but for `envoy.transport_sockets.proxy_protocol` of endpoints",
			},
		},
		"envoy.config.listener.v3.ListenerFilter": {
			use: "typed_config filter_disabled", ignore: nameOnly, instead: notDiscovered,
		},
		"envoy.config.listener.v3.ListenerFilterChainMatchPredicate": {
			use: "or_match and_match not_match any_match destination_port_range",
		},
		"envoy.config.listener.v3.ListenerFilterChainMatchPredicate.MatchSet": {use: "rules"},
		"envoy.config.listener.v3.FilterChain": {
			use: "filter_chain_match filters transport_socket transport_socket_connect_timeout name metadata use_proxy_proto",
		},
		"envoy.config.listener.v3.FilterChainMatch": {
			use: "destination_port prefix_ranges direct_source_prefix_ranges source_type source_prefix_ranges " +
				"source_ports server_names transport_protocol application_protocols",
			but:     map[string]string{"transport_protocol": "tls and raw_buffer alone: nothing would ever match another"},
			instead: map[string]string{"address_suffix": notInEnvoy, "suffix_len": notInEnvoy},
		},
		"envoy.config.core.v3.CidrRange": {
			use: "address_prefix prefix_len", but: map[string]string{"prefix_len": "no more than the address has bits"},
		},
		"envoy.config.listener.v3.Filter": {use: "typed_config", ignore: nameOnly, instead: notDiscovered},
		"envoy.config.core.v3.TransportSocket": {
			use: "typed_config", ignore: nameOnly,
		},
		"envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector": {
			use: "enable_ja3_fingerprinting enable_ja4_fingerprinting max_client_hello_size close_connection_on_client_hello_parsing_errors",
			ignore: map[string]string{
				"initial_read_buffer_size": "the first bytes are looked at in the socket",
			},
		},
		"envoy.extensions.filters.listener.original_dst.v3.OriginalDst":     {},
		"envoy.extensions.filters.listener.http_inspector.v3.HttpInspector": {},
		"envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol": {
			use:    "allow_requests_without_proxy_protocol disallowed_versions rules pass_through_tlvs tlv_location",
			but:    map[string]string{"tlv_location": "not FILTER_STATE, which nothing has"},
			ignore: map[string]string{"stat_prefix": statsReason},
		},
		"envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol.Rule": {use: "tlv_type on_tlv_present"},
		"envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol.KeyValuePair": {use: "metadata_namespace key value_string_encoding",
			but: map[string]string{"metadata_namespace": "not envoy.lb: what a client's header says does not choose among hosts"}},
		"envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit": {use: "stat_prefix max_connections delay runtime_enabled"},
		"envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit": {
			use: "stat_prefix token_bucket runtime_enabled share_key",
		},
		"envoy.extensions.filters.network.sni_cluster.v3.SniCluster": {},
		"envoy.config.core.v3.RuntimeFeatureFlag":                    {use: "default_value runtime_key"},
		"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy": {
			use: "stat_prefix cluster weighted_clusters idle_timeout access_log max_connect_attempts backoff_options " +
				"max_downstream_connection_duration max_downstream_connection_duration_jitter_percentage access_log_options " +
				"access_log_flush_interval flush_access_log_on_connected upstream_connect_mode max_early_data_bytes metadata_match hash_policy " +
				"proxy_protocol_tlvs proxy_protocol_tlv_merge_policy check_drain_close",
			instead: map[string]string{
				"tunneling_config":        "bytes are passed on as they are",
				"downstream_idle_timeout": notInEnvoy + "; use idle_timeout",
				"upstream_idle_timeout":   notInEnvoy + "; use idle_timeout",
				"on_demand":               "clusters are asked for with everything else",
			},
		},
		"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.TcpAccessLogOptions": {
			use: "access_log_flush_interval flush_access_log_on_connected flush_access_log_on_start",
		},
		"envoy.config.core.v3.BackoffStrategy":                                                 {use: "base_interval max_interval"},
		"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster":               {use: "clusters"},
		"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight": {use: "name weight metadata_match"},
		"envoy.type.v3.HashPolicy":                                                             {use: "source_ip"},
		"envoy.type.v3.HashPolicy.SourceIp":                                                    {},
	})
	declare("Addresses", map[protoreflect.FullName]*rules{
		"envoy.config.core.v3.Address": {
			use: "socket_address pipe", instead: map[string]string{"envoy_internal_address": "name the upstream directly"},
		},
		"envoy.config.core.v3.SocketAddress": {
			use: "protocol address port_value ipv4_compat",
			instead: map[string]string{
				"named_port":                 "use port_value",
				"resolver_name":              "names are resolved by DNS alone",
				"network_namespace_filepath": "run a sidecar in that namespace",
			},
		},
		"envoy.config.core.v3.Pipe": {use: "path mode"},
	})
	declare("HTTP connection manager", map[protoreflect.FullName]*rules{
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager": {
			use: "codec_type stat_prefix rds route_config http_filters common_http_protocol_options http_protocol_options " +
				"server_name server_header_transformation max_request_headers_kb stream_idle_timeout request_timeout " +
				"request_headers_timeout access_log use_remote_address skip_xff_append generate_request_id " +
				"forward_client_cert_details set_current_client_cert_details normalize_path merge_slashes " +
				"path_with_escaped_slashes_action tracing upgrade_configs http2_protocol_options stream_error_on_invalid_http_message " +
				"stream_flush_timeout drain_timeout delayed_close_timeout http1_safe_max_connection_duration access_log_options " +
				"access_log_flush_interval flush_access_log_on_new_request xff_num_trusted_hops internal_address_config via " +
				"preserve_external_request_id always_set_request_id_in_response proxy_100_continue add_user_agent " +
				"represent_ipv4_remote_address_as_ipv4_mapped_ipv6 append_x_forwarded_port scheme_header_transformation " +
				"strip_matching_host_port strip_any_host_port strip_trailing_host_dot local_reply_config append_local_overload request_id_extension " +
				"early_header_mutation_extensions original_ip_detection_extensions drain_timeout_jitter forward_client_cert_matcher forward_proto_config proxy_status_config",
			ignore: map[string]string{
				"add_proxy_protocol_connection_state": "no filter reads it",
				"record_route_resolution_stats":       statsReason,
			},
			instead: map[string]string{
				"http3_protocol_options":         "HTTP/3 is not implemented",
				"scoped_routes":                  "use rds or route_config",
				"path_normalization_options":     "use normalize_path and merge_slashes",
				"typed_header_validation_config": "messages are always validated",
			},
		},
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.ProxyStatusConfig": {
			use: "remove_details remove_connection_termination_details remove_response_flags set_recommended_response_code use_node_id literal_proxy_name",
		},
		"envoy.extensions.filters.network.http_connection_manager.v3.ForwardProtoConfig": {use: "https_destination_ports http_destination_ports"},
		"envoy.extensions.filters.network.http_connection_manager.v3.RequestIDExtension": {use: "typed_config"},
		"envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig": {
			use: "pack_trace_reason use_request_id_for_trace_sampling",
			but: map[string]string{
				"use_request_id_for_trace_sampling": "not false: requests are always sampled by their id",
			},
		},
		"envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation": {use: "mutations"},
		"envoy.extensions.filters.network.http_connection_manager.v3.Rds":               {use: "config_source route_config_name"},
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter": {
			use:     "name typed_config disabled",
			ignore:  map[string]string{"is_optional": "a filter either runs or the configuration is refused"},
			instead: map[string]string{"config_discovery": "write the configuration into typed_config"},
		},
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.SetCurrentClientCertDetails": {
			use: "subject cert chain dns uri issuer format",
		},
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.ForwardClientCertConfig": {
			use: "forward_client_cert_details set_current_client_cert_details",
		},
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig": {
			use: "upgrade_type filters enabled",
		},
		"envoy.config.core.v3.Http2ProtocolOptions": {
			use: "hpack_table_size max_concurrent_streams initial_stream_window_size initial_connection_window_size " +
				"allow_connect max_outbound_frames max_outbound_control_frames " +
				"max_consecutive_inbound_frames_with_empty_payload max_inbound_priority_frames_per_stream " +
				"max_inbound_window_update_frames_per_data_frame_sent stream_error_on_invalid_http_messaging " +
				"override_stream_error_on_invalid_http_message custom_settings_parameters connection_keepalive " +
				"enable_huffman_encoding disallow_obs_text max_header_field_size_kb stream_reset_burst stream_reset_rate",
			instead: map[string]string{
				"allow_metadata":    "METADATA frames are Envoy's own and are not implemented",
				"max_metadata_size": "METADATA frames are Envoy's own and are not implemented",
				"use_oghttp2_codec": "there is one codec",
			},
		},
		"envoy.config.core.v3.Http2ProtocolOptions.SettingsParameter": {use: "identifier value"},
		"envoy.config.core.v3.KeepaliveSettings":                      {use: "interval timeout interval_jitter connection_idle_interval"},
		"envoy.config.core.v3.HttpProtocolOptions": {
			use: "idle_timeout max_headers_count headers_with_underscores_action max_stream_duration max_connection_duration " +
				"max_connection_duration_jitter max_requests_per_connection max_response_headers_kb",
		},
		"envoy.config.core.v3.Http1ProtocolOptions": {
			use: "accept_http_10 allow_absolute_url default_host_for_http_10 header_key_format enable_trailers " +
				"send_fully_qualified_url allow_custom_methods ignore_http_11_upgrade override_stream_error_on_invalid_http_message",
			but: map[string]string{
				"allow_absolute_url":       "not false: targets in absolute form are always understood (RFC 9112 3.2.2)",
				"send_fully_qualified_url": "in clusters alone: a listener sends no requests",
			},
			ignore: map[string]string{
				"use_balsa_parser": "there is one parser",
			},
			instead: map[string]string{
				"allow_chunked_length": "a message with both Content-Length and Transfer-Encoding is always refused (RFC 9112 6.3)",
			},
		},
		"envoy.extensions.filters.http.router.v3.Router": {
			use: "suppress_envoy_headers respect_expected_rq_timeout start_child_span reject_connect_request_early_data " +
				"upstream_log upstream_log_options",
			ignore: map[string]string{
				"dynamic_stats": statsReason,
				"suppress_grpc_request_failure_code_stats": "requests are counted by their code, whatever they are",
			},
			instead: map[string]string{
				"strict_check_headers":  "the headers it is about are never taken from a client",
				"upstream_http_filters": "filters run before the router",
			},
		},
		"envoy.extensions.filters.http.router.v3.Router.UpstreamAccessLogOptions": {
			use: "flush_upstream_log_on_upstream_stream upstream_log_flush_interval",
		},
	})
	declare("Authorization", map[protoreflect.FullName]*rules{
		"envoy.extensions.filters.http.rbac.v3.RBAC": {
			use: "rules rules_stat_prefix shadow_rules matcher shadow_matcher shadow_rules_stat_prefix",
			ignore: map[string]string{
				"track_per_rule_stats": "decisions are always counted by rule",
			},
		},
		"envoy.extensions.filters.network.rbac.v3.RBAC": {
			use: "rules shadow_rules stat_prefix matcher shadow_matcher shadow_rules_stat_prefix enforcement_type delay_deny",
			but: map[string]string{
				"enforcement_type": "not CONTINUOUS where rules ask for metadata of envoy.filters.network.rbac; all else that rules of connections ask for stays as it is",
			},
		},
		"envoy.config.rbac.v3.RBAC":   {use: "action policies"},
		"envoy.config.rbac.v3.Policy": {use: "permissions principals"},
		"envoy.config.rbac.v3.Permission": {
			use: "and_rules or_rules any header url_path destination_ip destination_port destination_port_range not_rule requested_server_name uri_template metadata sourced_metadata",
		},
		"envoy.config.rbac.v3.Permission.Set": {use: "rules"},
		"envoy.config.rbac.v3.Principal": {
			use: "and_ids or_ids any authenticated source_ip direct_remote_ip remote_ip header url_path not_id metadata sourced_metadata",
		},
		"envoy.config.rbac.v3.SourcedMetadata":         {use: "metadata_matcher metadata_source"},
		"envoy.config.rbac.v3.Principal.Set":           {use: "ids"},
		"envoy.config.rbac.v3.Principal.Authenticated": {use: "principal_name"},
	})
	declare("Access logs", map[protoreflect.FullName]*rules{
		"envoy.config.accesslog.v3.AccessLog": {
			use: "typed_config filter", ignore: nameOnly,
		},
		"envoy.extensions.access_loggers.file.v3.FileAccessLog":     {use: "path format json_format typed_json_format log_format"},
		"envoy.extensions.access_loggers.stream.v3.StdoutAccessLog": {use: "log_format"},
		"envoy.extensions.access_loggers.stream.v3.StderrAccessLog": {use: "log_format"},
		"envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig": {
			use: "common_config http_service grpc_service disable_builtin_labels resource_attributes body attributes stat_prefix log_name " +
				"buffer_flush_interval buffer_size_bytes custom_tags formatters",
			but: map[string]string{"formatters": formattersKnown},
			instead: map[string]string{
				"filter_state_objects_to_log": "nothing has filter state; use attributes",
				"resource_detectors":          "use resource_attributes",
			},
		},
		"envoy.extensions.access_loggers.grpc.v3.CommonGrpcAccessLogConfig": {
			use: "log_name grpc_service transport_api_version buffer_flush_interval buffer_size_bytes",
			instead: map[string]string{
				"filter_state_objects_to_log": "nothing has filter state, and Envoy's log takes none from here",
				"custom_tags":                 "Envoy's log takes none from here; use those of the log",
				"grpc_stream_retry_policy":    "what cannot be sent is counted",
			},
		},
		"opentelemetry.proto.common.v1.KeyValueList": {use: "values"},
		"opentelemetry.proto.common.v1.ArrayValue":   {use: "values"},
		"opentelemetry.proto.common.v1.KeyValue":     {use: "key value"},
		"opentelemetry.proto.common.v1.AnyValue": {
			use: "string_value bool_value int_value double_value array_value kvlist_value bytes_value",
		},
		"envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery": {},
		"envoy.extensions.formatter.metadata.v3.Metadata":                 {},
		"envoy.config.core.v3.SubstitutionFormatString": {
			use: "text_format text_format_source json_format content_type omit_empty_values formatters",
			but: map[string]string{
				"formatters":         formattersKnown,
				"text_format_source": "a filename in what a bootstrap says alone",
				"content_type":       "of local replies; that of an access log changes nothing, as in Envoy",
			},
			ignore: map[string]string{"json_format_options": "the members of an object are always sorted"},
		},
	})

	extend("envoy.config.listener.v3.ListenerFilter.typed_config", "listener filter",
		&tlsinspectorv3.TlsInspector{}, &originaldstv3.OriginalDst{}, &httpinspectorv3.HttpInspector{}, &proxyprotocolv3.ProxyProtocol{})
	extend("envoy.config.listener.v3.Filter.typed_config", "filter",
		&hcmv3.HttpConnectionManager{}, &tcpproxyv3.TcpProxy{}, &netrbacv3.RBAC{}, &connectionlimitv3.ConnectionLimit{},
		&netratelimitv3.LocalRateLimit{}, &sniclusterv3.SniCluster{})
	extend("envoy.config.core.v3.TransportSocket.typed_config", "transport socket",
		&tlsv3.DownstreamTlsContext{}, &tlsv3.UpstreamTlsContext{})
	extend("envoy.config.accesslog.v3.AccessLog.typed_config", "access log",
		&accesslogfilev3.FileAccessLog{}, &accesslogstreamv3.StdoutAccessLog{}, &accesslogstreamv3.StderrAccessLog{},
		&otelv3.OpenTelemetryAccessLogConfig{})
	extend("envoy.config.core.v3.TypedExtensionConfig.typed_config", "extension", &withoutqueryv3.ReqWithoutQuery{}, &metadataformatterv3.Metadata{})
}

// nameOnly is for extensions: the type of the configuration decides, as in Envoy.
var nameOnly = map[string]string{"name": "the type of the configuration decides"}
