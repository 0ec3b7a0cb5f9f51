package config

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	accesslogfilev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	accesslogstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

const (
	statsReason  = "metrics are labelled by listener, service and peer"
	bufferReason = "buffers have a fixed bound and apply back-pressure"
	metaReason   = "metadata of other namespaces is for other readers"
	ticketReason = "sessions are never resumed"
)

func init() {
	declare("Listener", map[protoreflect.FullName]*rules{
		"envoy.config.listener.v3.Listener": {
			use: "name address filter_chains default_filter_chain metadata listener_filters " +
				"listener_filters_timeout traffic_direction access_log bind_to_port",
			ignore: map[string]string{
				"stat_prefix":                       statsReason,
				"per_connection_buffer_limit_bytes": bufferReason,
				"enable_reuse_port":                 "one socket serves all threads",
				"ignore_global_conn_limit":          "there is no global connection limit",
			},
			instead: map[string]string{
				"use_original_dst":     "use the listener filter envoy.filters.listener.original_dst",
				"additional_addresses": "use one listener for each address",
				"udp_listener_config":  "only TCP and Unix sockets are listened on",
			},
		},
		"envoy.config.core.v3.Metadata": {
			use: "filter_metadata",
			ignore: map[string]string{
				"typed_filter_metadata": metaReason,
			},
		},
		"envoy.config.listener.v3.ListenerFilter": {use: "typed_config", ignore: nameOnly},
		"envoy.config.listener.v3.FilterChain": {
			use:     "filter_chain_match filters transport_socket name metadata",
			instead: map[string]string{"use_proxy_proto": "the PROXY protocol is not implemented"},
		},
		"envoy.config.listener.v3.FilterChainMatch": {
			use: "destination_port prefix_ranges direct_source_prefix_ranges source_type source_prefix_ranges " +
				"source_ports server_names transport_protocol application_protocols",
		},
		"envoy.config.core.v3.CidrRange":  {use: "address_prefix prefix_len"},
		"envoy.config.listener.v3.Filter": {use: "typed_config", ignore: nameOnly},
		"envoy.config.core.v3.TransportSocket": {
			use: "typed_config", ignore: nameOnly,
		},
		"envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector": {},
		"envoy.extensions.filters.listener.original_dst.v3.OriginalDst":   {},
		"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy": {
			use: "stat_prefix cluster weighted_clusters idle_timeout access_log max_connect_attempts",
		},
		"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster":               {use: "clusters"},
		"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight": {use: "name weight"},
	})
	declare("Addresses", map[protoreflect.FullName]*rules{
		"envoy.config.core.v3.Address":       {use: "socket_address pipe"},
		"envoy.config.core.v3.SocketAddress": {use: "protocol address port_value"},
		"envoy.config.core.v3.Pipe":          {use: "path", instead: map[string]string{"mode": "Unix sockets are made with mode 0600"}},
	})
	declare("HTTP connection manager", map[protoreflect.FullName]*rules{
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager": {
			use: "codec_type stat_prefix rds route_config http_filters common_http_protocol_options http_protocol_options " +
				"server_name server_header_transformation max_request_headers_kb stream_idle_timeout request_timeout " +
				"request_headers_timeout access_log use_remote_address skip_xff_append generate_request_id " +
				"forward_client_cert_details set_current_client_cert_details normalize_path merge_slashes " +
				"path_with_escaped_slashes_action upgrade_configs http2_protocol_options stream_error_on_invalid_http_message",
			instead: map[string]string{
				"http3_protocol_options": "HTTP/3 is not implemented",
				"scoped_routes":          "use rds or route_config",
			},
		},
		"envoy.extensions.filters.network.http_connection_manager.v3.Rds": {use: "config_source route_config_name"},
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter": {
			use:     "name typed_config disabled",
			ignore:  map[string]string{"is_optional": "a filter either runs or the configuration is refused"},
			instead: map[string]string{"config_discovery": "write the configuration into typed_config"},
		},
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.SetCurrentClientCertDetails": {
			use: "uri",
		},
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig": {
			use:     "upgrade_type enabled",
			instead: map[string]string{"filters": "upgrades pass the connection manager's filters"},
		},
		"envoy.config.core.v3.Http2ProtocolOptions": {
			use: "hpack_table_size max_concurrent_streams initial_stream_window_size initial_connection_window_size " +
				"allow_connect max_outbound_frames max_outbound_control_frames " +
				"max_consecutive_inbound_frames_with_empty_payload max_inbound_priority_frames_per_stream " +
				"max_inbound_window_update_frames_per_data_frame_sent stream_error_on_invalid_http_messaging " +
				"override_stream_error_on_invalid_http_message custom_settings_parameters connection_keepalive",
			instead: map[string]string{
				"allow_metadata": "METADATA frames are Envoy's own and are not implemented",
			},
		},
		"envoy.config.core.v3.Http2ProtocolOptions.SettingsParameter": {use: "identifier value"},
		"envoy.config.core.v3.KeepaliveSettings":                      {use: "interval timeout interval_jitter connection_idle_interval"},
		"envoy.config.core.v3.HttpProtocolOptions": {
			use: "idle_timeout max_headers_count headers_with_underscores_action max_stream_duration max_connection_duration " +
				"max_connection_duration_jitter max_requests_per_connection",
		},
		"envoy.config.core.v3.Http1ProtocolOptions": {
			use: "accept_http_10 allow_absolute_url",
			instead: map[string]string{
				"allow_chunked_length": "a message with both Content-Length and Transfer-Encoding is always refused (RFC 9112 6.3)",
			},
		},
		"envoy.extensions.filters.http.router.v3.Router": {
			use: "suppress_envoy_headers respect_expected_rq_timeout",
			ignore: map[string]string{
				"dynamic_stats":    statsReason,
				"start_child_span": "there is no tracing",
			},
			instead: map[string]string{
				"strict_check_headers":  "the headers it is about are never taken from a client",
				"upstream_http_filters": "filters run before the router",
				"upstream_log":          "the access log tells of the upstream",
			},
		},
	})
	declare("Authorization", map[protoreflect.FullName]*rules{
		"envoy.extensions.filters.http.rbac.v3.RBAC": {
			use: "rules rules_stat_prefix shadow_rules",
			ignore: map[string]string{
				"shadow_rules_stat_prefix": statsReason,
				"track_per_rule_stats":     "decisions are always counted by rule",
			},
		},
		"envoy.extensions.filters.network.rbac.v3.RBAC": {
			use: "rules shadow_rules stat_prefix",
			ignore: map[string]string{
				"shadow_rules_stat_prefix": statsReason,
			},
		},
		"envoy.config.rbac.v3.RBAC":   {use: "action policies"},
		"envoy.config.rbac.v3.Policy": {use: "permissions principals"},
		"envoy.config.rbac.v3.Permission": {
			use: "and_rules or_rules any header url_path destination_ip destination_port destination_port_range not_rule requested_server_name uri_template",
		},
		"envoy.config.rbac.v3.Permission.Set": {use: "rules"},
		"envoy.config.rbac.v3.Principal": {
			use: "and_ids or_ids any authenticated source_ip direct_remote_ip remote_ip header url_path not_id",
		},
		"envoy.config.rbac.v3.Principal.Set":           {use: "ids"},
		"envoy.config.rbac.v3.Principal.Authenticated": {use: "principal_name"},
	})
	declare("Access logs", map[protoreflect.FullName]*rules{
		"envoy.config.accesslog.v3.AccessLog": {
			use: "typed_config", ignore: nameOnly,
			instead: map[string]string{"filter": "every request is logged"},
		},
		"envoy.extensions.access_loggers.file.v3.FileAccessLog":     {use: "path format log_format"},
		"envoy.extensions.access_loggers.stream.v3.StdoutAccessLog": {use: "log_format"},
		"envoy.extensions.access_loggers.stream.v3.StderrAccessLog": {use: "log_format"},
		"envoy.config.core.v3.SubstitutionFormatString": {
			use: "text_format text_format_source json_format omit_empty_values json_format_options",
			instead: map[string]string{
				"content_type": "a log has none", "formatters": "Envoy's own operators are all there is; REQ_WITHOUT_QUERY is one of them",
			},
		},
		"envoy.config.core.v3.JsonFormatOptions": {
			ignore: map[string]string{"sort_properties": "members are always sorted"},
		},
	})

	extend("envoy.config.listener.v3.ListenerFilter.typed_config", "listener filter",
		&tlsinspectorv3.TlsInspector{}, &originaldstv3.OriginalDst{})
	extend("envoy.config.listener.v3.Filter.typed_config", "filter",
		&hcmv3.HttpConnectionManager{}, &tcpproxyv3.TcpProxy{}, &netrbacv3.RBAC{})
	extend("envoy.config.core.v3.TransportSocket.typed_config", "transport socket",
		&tlsv3.DownstreamTlsContext{}, &tlsv3.UpstreamTlsContext{})
	extend("envoy.config.accesslog.v3.AccessLog.typed_config", "access log",
		&accesslogfilev3.FileAccessLog{}, &accesslogstreamv3.StdoutAccessLog{}, &accesslogstreamv3.StderrAccessLog{})
}

// nameOnly is for extensions: the type of the configuration decides, as in Envoy.
var nameOnly = map[string]string{"name": "the type of the configuration decides"}
