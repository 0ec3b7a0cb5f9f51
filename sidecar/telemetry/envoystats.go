package telemetry

// EnvoyStat is one row of the table that leads from Envoy's statistics to ours.
type EnvoyStat struct {
	// Envoy is a name, or several that share a row; a prefix is left out.
	Envoy string
	// Ours is a metric with the labels that select it, in Prometheus' form; empty where
	// there is none, and then Note says why.
	Ours, Note string
}

// EnvoyStatGroup is the statistics of one part of Envoy.
type EnvoyStatGroup struct {
	Title string
	Stats []EnvoyStat
}

// EnvoyStats leads from Envoy's statistics to ours.
func EnvoyStats() []EnvoyStatGroup { return envoyStats }

const (
	errorsSeen = `hauberk_protocol_errors_total{side="downstream"}`
	noPool     = "connections are counted where they are attempted"
	kernel     = "the kernel's socket statistics have it"
)

var envoyStats = []EnvoyStatGroup{
	{"http.PREFIX (connection manager)", []EnvoyStat{
		{"downstream_cx_total", "hauberk_connections_total", "that passed the handshake and authorization; Envoy's begin before"},
		{"downstream_cx_active", "hauberk_connections_open", ""},
		{"downstream_cx_destroy", "hauberk_connections_ended_total", ""},
		{"downstream_cx_destroy_local", `hauberk_connections_ended_total{end="local"}`, "and local_with_request; hauberk_connections_closed_total has reasons"},
		{"downstream_cx_destroy_remote", `hauberk_connections_ended_total{end="remote"}`, "and remote_with_request"},
		{"downstream_cx_destroy_active_rq", `hauberk_connections_ended_total{end="local_with_request"}`, "and remote_with_request"},
		{"downstream_cx_destroy_local_active_rq", `hauberk_connections_ended_total{end="local_with_request"}`, ""},
		{"downstream_cx_destroy_remote_active_rq", `hauberk_connections_ended_total{end="remote_with_request"}`, ""},
		{"downstream_cx_ssl_total", "hauberk_tls_handshakes_total", ""},
		{"downstream_cx_protocol_error", errorsSeen, "and messages that are refused on a connection that goes on"},
		{"downstream_cx_drain_close", "hauberk_connections_closed_total", "with the drain's reasons"},
		{"downstream_cx_rx_bytes_total, downstream_cx_tx_bytes_total", "hauberk_bytes_total", "bodies of requests, and plain connections, each second; what TLS and heads add is not counted"},
		{"downstream_cx_http1_total, downstream_cx_http2_total", "", "requests tell their protocol in the access log"},
		{"downstream_cx_length_ms", "hauberk_connection_duration_seconds", ""},
		{"downstream_rq_total, downstream_rq_completed", "hauberk_requests_total", "when they have ended; code 0 are those without an answer, which Envoy does not complete"},
		{"downstream_rq_1xx to downstream_rq_5xx", `hauberk_requests_total{code="200"}`, "by code; interim responses are not counted, answers of the health check filter are"},
		{"downstream_rq_time", "hauberk_request_duration_seconds", ""},
		{"downstream_rq_active", "hauberk_requests_active", "by service"},
		{"downstream_rq_rx_reset", `hauberk_requests_total{flags="DR"}`, "and DC where the connection ended; Envoy counts answers before the end of a request too"},
		{"downstream_rq_idle_timeout", `hauberk_requests_total{flags="SI"}`, ""},
		{"downstream_rq_max_duration_reached", `hauberk_requests_total{flags="DT"}`, ""},
		{"downstream_rq_timeout, downstream_rq_header_timeout", `hauberk_requests_total{code="408"}`, "and those that were idle"},
		{"downstream_rq_overload_close", `hauberk_overload_actions_total{action="stop_accepting_requests"}`, ""},
		{"downstream_cx_overload_disable_keepalive", `hauberk_overload_actions_total{action="disable_http_keepalive"}`, ""},
		{"downstream_rq_too_large", `hauberk_requests_total{code="413"}`, "and answers of hosts with this code"},
		{"downstream_rq_non_relative_path, downstream_rq_ws_on_non_ws_route, downstream_rq_failed_path_normalization", "hauberk_requests_total", "by code; the access log's RESPONSE_CODE_DETAILS say why"},
		{"no_route", `hauberk_requests_total{flags="NR"}`, ""},
		{"no_cluster", `hauberk_requests_total{flags="NC"}`, ""},
		{"rq_direct_response, rq_redirect", "hauberk_requests_total", "RESPONSE_CODE_DETAILS is direct_response"},
		{"rbac.allowed, rbac.denied", "hauberk_authz_decisions_total", "once a request, by the rule that decided; a filter that only logs decides nothing"},
		{"rbac.shadow_allowed, rbac.shadow_denied", "hauberk_authz_shadow_decisions_total", ""},
		{"fault.delays_injected, fault.aborts_injected, fault.faults_overflow", "hauberk_http_filter_events_total", ""},
		{"http_local_rate_limit.enabled, .ok, .rate_limited, .enforced, .shadow_mode", "hauberk_http_filter_events_total", ""},
		{"cors.origin_valid, cors.origin_invalid", "hauberk_http_filter_events_total", ""},
		{"tracing.random_sampling", `hauberk_traced_requests_total{reason="random_sampling"}`, ""},
		{"tracing.service_forced", `hauberk_traced_requests_total{reason="service_forced"}`, ""},
		{"tracing.client_enabled", `hauberk_traced_requests_total{reason="client_enabled"}`, ""},
		{"tracing.not_traceable", `hauberk_traced_requests_total{reason="not_traceable"}`, ""},
		{"tracing.health_check", "", "requests that the health check filter answers are traced like others"},
	}},
	{"tracing.opentelemetry, tracing.zipkin", []EnvoyStat{
		{"spans_sent", `hauberk_trace_spans_total{result="sent"}`, ""},
		{"spans_dropped", `hauberk_trace_spans_total{result="dropped"}`, ""},
		{"reports_dropped, reports_skipped_no_cluster", `hauberk_trace_spans_total{result="failed"}`, "spans, not reports"},
		{"timer_flushed", "", "spans are sent a second after the first of them at the latest"},
	}},
	{"access_logs.open_telemetry_access_log.STAT_PREFIX", []EnvoyStat{
		{"logs_written", `hauberk_access_log_records_total{result="written"}`, ""},
		{"logs_dropped", "hauberk_access_log_records_total", "the other results; Envoy does not count what a collector rejects over HTTP"},
		{"grpc_entries_flushed, grpc_entries_flush_failed", "hauberk_access_log_records_total", "a record is counted when the collector has answered"},
	}},
	{"tcp.PREFIX, and other network filters", []EnvoyStat{
		{"downstream_cx_total", "hauberk_connections_total", ""},
		{"downstream_cx_rx_bytes_total, downstream_cx_tx_bytes_total", "hauberk_bytes_total", ""},
		{"idle_timeout", `hauberk_connections_closed_total{reason="idle_timeout"}`, ""},
		{"max_downstream_connection_duration", `hauberk_connections_closed_total{reason="max_connection_duration"}`, ""},
		{"downstream_cx_no_route", `hauberk_connections_closed_total{reason="no_cluster"}`, ""},
		{"PREFIX.rbac.allowed, .denied", "hauberk_authz_decisions_total", ""},
		{"PREFIX.rbac.shadow_allowed, .shadow_denied", "hauberk_authz_shadow_decisions_total", ""},
		{"connection_limit.PREFIX.limited_connections, local_rate_limit.PREFIX.rate_limited", "hauberk_connections_refused_total", "by reason"},
	}},
	{"listener.ADDRESS", []EnvoyStat{
		{"downstream_cx_total", "hauberk_listener_accepts_total", "those that no filter chain matches too"},
		{"downstream_cx_overflow, downstream_global_cx_overflow, downstream_cx_overload_reject", "hauberk_connections_refused_total", "by reason"},
		{"no_filter_chain_match", `hauberk_connections_refused_total{reason="no_filter_chain"}`, ""},
		{"ssl.handshake", `hauberk_tls_handshakes_total{result="ok"}`, ""},
		{"ssl.fail_verify_no_cert", `hauberk_tls_handshakes_total{reason="no_certificate"}`, ""},
		{"ssl.connection_error, ssl.fail_verify_san, ssl.fail_verify_error", "hauberk_tls_handshakes_total", "by reason"},
		{"ssl.versions.VERSION", `hauberk_tls_handshakes_total{version="TLSv1.3"}`, ""},
		{"listener_manager.total_listeners_active, .total_listeners_warming, .total_listeners_draining", "hauberk_listeners", ""},
		{"listener_manager.listener_create_failure", "hauberk_listener_failures_total", ""},
	}},
	{"http1, http2 (codecs)", []EnvoyStat{
		{"http1.response_flood, http1.dropped_headers_with_underscores, http1.requests_rejected_with_underscores_in_headers", errorsSeen, "by reason; dropped fields are not counted"},
		{"http2.rx_messaging_error, http2.inbound_empty_frames_flood, http2.inbound_priority_frames_flood, http2.inbound_window_update_frames_flood, http2.outbound_flood, http2.outbound_control_flood, http2.header_overflow, http2.trailers", errorsSeen, "by reason"},
		{"http2.rx_reset", `hauberk_http2_events_total{event="rx_reset"}`, "those before an answer are in hauberk_http2_glitches_total too"},
		{"http2.tx_reset", `hauberk_http2_events_total{event="tx_reset"}`, ""},
		{"http2.goaway_sent", `hauberk_http2_events_total{event="goaway_sent"}`, "that of a fault is counted by the fault"},
		{"http2.streams_active, http2.pending_send_bytes", "", "buffers are bounded"},
	}},
	{"cluster.NAME", []EnvoyStat{
		{"upstream_cx_total", "hauberk_upstream_connections_total", "when they are there, or have failed"},
		{"upstream_cx_active", "hauberk_upstream_connections_open", "that are there"},
		{"upstream_cx_connect_ms", "hauberk_upstream_connect_duration_seconds", ""},
		{"upstream_cx_connect_fail", `hauberk_upstream_connections_total{result="refused"}`, "and tls and error"},
		{"upstream_cx_connect_timeout", `hauberk_upstream_connections_total{result="timeout"}`, ""},
		{"upstream_cx_overflow", `hauberk_upstream_overflow_total{limit="connections"}`, "how often one request is counted depends on how often room is looked for"},
		{"upstream_cx_rx_bytes_total", `hauberk_upstream_bytes_total{flow="received"}`, "bodies of requests, and plain connections, each second"},
		{"upstream_cx_tx_bytes_total", `hauberk_upstream_bytes_total{flow="sent"}`, "bodies of requests, and plain connections, each second"},
		{"upstream_cx_destroy", "hauberk_upstream_connections_closed_total", ""},
		{"upstream_cx_destroy_local", `hauberk_upstream_connections_closed_total{end="local"}`, "and local_with_request"},
		{"upstream_cx_destroy_remote", `hauberk_upstream_connections_closed_total{end="remote"}`, "and remote_with_request"},
		{"upstream_cx_destroy_local_with_active_rq", `hauberk_upstream_connections_closed_total{end="local_with_request"}`, ""},
		{"upstream_cx_destroy_remote_with_active_rq", `hauberk_upstream_connections_closed_total{end="remote_with_request"}`, ""},
		{"upstream_cx_destroy_with_active_rq", `hauberk_upstream_connections_closed_total{end="local_with_request"}`, "and remote_with_request"},
		{"upstream_cx_idle_timeout, upstream_cx_max_requests", "", noPool},
		{"upstream_cx_protocol_error", `hauberk_protocol_errors_total{side="upstream"}`, ""},
		{"upstream_cx_rx_bytes_buffered, upstream_cx_tx_bytes_buffered", "", kernel},
		{"upstream_rq_total, upstream_rq_completed", "hauberk_upstream_requests_total", "attempts, when they have ended; plain connections are none, interim responses neither"},
		{"upstream_rq_1xx to upstream_rq_5xx", `hauberk_upstream_requests_total{code_class="2xx"}`, "answers of hosts, also those that are retried; Envoy adds the 503 and 504 that are its own"},
		{"retry.upstream_rq_1xx to retry.upstream_rq_5xx", "hauberk_upstream_requests_total", "not apart from the others"},
		{"upstream_rq_active", `hauberk_upstream_requests_active{state="active"}`, ""},
		{"upstream_rq_pending_active", `hauberk_upstream_requests_active{state="pending"}`, ""},
		{"upstream_rq_pending_overflow", `hauberk_upstream_overflow_total{limit="pending"}`, ""},
		{"upstream_rq_active_overflow", `hauberk_upstream_overflow_total{limit="requests"}`, ""},
		{"upstream_rq_pending_failure_eject", "hauberk_upstream_connections_total", "the results other than ok"},
		{"upstream_rq_time", "hauberk_upstream_request_duration_seconds", ""},
		{"upstream_rq_timeout", `hauberk_upstream_failures_total{reason="timeout"}`, ""},
		{"upstream_rq_per_try_timeout", `hauberk_upstream_failures_total{reason="per_try_timeout"}`, ""},
		{"upstream_rq_per_try_idle_timeout", `hauberk_upstream_failures_total{reason="per_try_idle_timeout"}`, ""},
		{"upstream_rq_max_duration_reached", `hauberk_upstream_failures_total{reason="max_stream_duration"}`, ""},
		{"upstream_rq_rx_reset", `hauberk_upstream_failures_total{reason="reset"}`, ""},
		{"upstream_rq_cancelled", `hauberk_upstream_requests_abandoned_total{stage="pending"}`, ""},
		{"upstream_rq_tx_reset", `hauberk_upstream_requests_abandoned_total{stage="stream"}`, ""},
		{"upstream_rq_retry", "hauberk_upstream_retries_total", ""},
		{"upstream_rq_retry_success", `hauberk_upstream_retries_total{result="success"}`, ""},
		{"upstream_rq_retry_overflow", `hauberk_upstream_retries_total{result="overflow"}`, ""},
		{"upstream_rq_retry_limit_exceeded", `hauberk_upstream_retries_total{result="limit"}`, ""},
		{"upstream_internal_redirect_succeeded_total", `hauberk_upstream_internal_redirects_total{result="followed"}`, ""},
		{"upstream_internal_redirect_failed_total, http.PREFIX.passthrough_internal_redirect_*", "hauberk_upstream_internal_redirects_total", "the results other than followed"},
		{"membership_total, membership_healthy, membership_degraded, membership_excluded", "hauberk_upstream_endpoints", ""},
		{"upstream_cx_none_healthy", "hauberk_upstream_no_healthy_total", ""},
		{"lb_healthy_panic", "hauberk_upstream_panic_picks_total", "not where there is no endpoint at all"},
		{"outlier_detection.ejections_active", `hauberk_upstream_endpoints{state="ejected"}`, ""},
		{"outlier_detection.ejections_enforced_total", "hauberk_upstream_ejections_total", ""},
		{"outlier_detection.ejections_detected_REASON, .ejections_overflow", "hauberk_upstream_outliers_total", ""},
		{"health_check.success, .failure, .network_failure, .passive_failure", "hauberk_upstream_health_checks_total", "by result; Envoy's .failure is the sum of all but success"},
		{"lb_subsets_selected, lb_subsets_fallback", "hauberk_upstream_subset_picks_total", ""},
		{"lb_zone_routing_all_directly", `hauberk_upstream_zone_picks_total{result="direct"}`, ""},
		{"lb_zone_routing_sampled", `hauberk_upstream_zone_picks_total{result="sampled"}`, ""},
		{"lb_zone_routing_cross_zone", `hauberk_upstream_zone_picks_total{result="cross_zone"}`, "and no_capacity"},
		{"lb_zone_no_capacity_left", `hauberk_upstream_zone_picks_total{result="no_capacity"}`, ""},
		{"lb_local_cluster_not_ok", `hauberk_upstream_zone_picks_total{result="local_cluster_panic"}`, "and hauberk_upstream_zone_structures_total{result=\"local_cluster_not_ok\"}, once where Envoy counts one for each worker"},
		{"lb_zone_cluster_too_small", `hauberk_upstream_zone_structures_total{result="cluster_too_small"}`, "once where Envoy counts one for each worker"},
		{"lb_recalculate_zone_structures", "hauberk_upstream_zone_structures_total", "once where Envoy counts one for each worker"},
		{"assignment_timeout_received", `hauberk_upstream_assignments_total{result="ageing"}`, ""},
		{"assignment_stale", `hauberk_upstream_assignments_total{result="stale"}`, ""},
		{"upstream_rq_drop_overload, upstream_rq_dropped", "hauberk_upstream_dropped_total", "Envoy has them in reports of load alone, and among its own 503 of upstream_rq_5xx; the latter has other reasons too"},
		{"circuit_breakers.PRIORITY.cx_open, .rq_open, .rq_pending_open, .rq_retry_open", "hauberk_upstream_limit_reached", "of retry budgets too"},
		{"circuit_breakers.PRIORITY.remaining_*", "hauberk_upstream_limit_remaining", "of retry budgets too"},
		{"original_dst_host_invalid", "hauberk_upstream_invalid_destinations_total", ""},
		{"ssl.handshake, ssl.fail_verify_error", "hauberk_upstream_tls_failures_total", "failures"},
	}},
	{"The process", []EnvoyStat{
		{"server.live, server.version", "hauberk_build_info", ""},
		{"server.uptime", "hauberk_process_start_timestamp_seconds", ""},
		{"server.state", "hauberk_draining", ""},
		{"overload.MONITOR.pressure", "hauberk_overload_pressure", "a share, not a percentage"},
		{"overload.ACTION.active, overload.ACTION.scale_percent", "hauberk_overload_actions", "1 is active"},
		{"overload.envoy.overload_actions.reset_high_memory_stream.count", `hauberk_overload_actions_total{action="reset_high_memory_stream"}`, ""},
		{"control_plane.connected_state", "hauberk_xds_connected", ""},
		{"cluster_manager.cds.update_success, listener_manager.lds.update_rejected, …", "hauberk_xds_updates_total", ""},
		{"access_logs.grpc_access_log.logs_dropped, filesystem.write_failed", "hauberk_access_log_lines_total", ""},
	}},
}
