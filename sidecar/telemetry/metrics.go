package telemetry

import (
	"sync"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// requestBounds are the buckets of every duration histogram: a sidecar adds tens
// of microseconds, an application takes up to a minute.
var requestBounds = []time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second,
	10 * time.Second, 30 * time.Second, 60 * time.Second,
}

// connectionBounds are of connections, which may serve one request or last for days.
var connectionBounds = []time.Duration{
	10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second,
	time.Minute, 10 * time.Minute, time.Hour, 24 * time.Hour,
}

// Metrics is everything a sidecar counts. The families are fixed here so that
// one list documents them; handles are interned per service, peer and cluster.
type Metrics struct {
	Registry *Registry

	requests        *CounterVec
	requestDuration *HistogramVec
	connections     *CounterVec
	connectionsOpen *GaugeVec
	connectionTime  *HistogramVec
	bytes           *CounterVec

	authzDecisions, authzShadow *ruleCounters

	tlsHandshakes   *CounterVec
	tlsDuration     *HistogramVec
	refused         *CounterVec
	policyClosed    *CounterVec
	accepts         *CounterVec
	acceptErrors    *CounterVec
	expiredCertConn *CounterVec

	upstreamRequests     *CounterVec
	upstreamConnections  *CounterVec
	upstreamOpen         *GaugeVec
	upstreamConnect      *HistogramVec
	upstreamDuration     *HistogramVec
	upstreamBudget       *HistogramVec
	upstreamFailures     *CounterVec
	upstreamRetries      *CounterVec
	upstreamOverflow     *CounterVec
	upstreamBytes        *CounterVec
	upstreamEndpoints    *GaugeVec
	upstreamEjections    *CounterVec
	upstreamNoHealthy    *CounterVec
	upstreamTLSFailures  *CounterVec
	upstreamPoolReplaced *CounterVec
	upstreamOutliers     *CounterVec
	upstreamHealthChecks *CounterVec
	upstreamSubsetPicks  *CounterVec
	upstreamRedirects    *CounterVec
	upstreamAbandoned    *CounterVec
	upstreamEnds         *CounterVec
	downstreamEnds       *CounterVec
	upstreamPanicPicks   *CounterVec

	upstreamZonePicks          *CounterVec
	upstreamZoneStructures     *CounterVec
	upstreamInvalidDestination *CounterVec
	upstreamDropped            *CounterVec
	upstreamAssignments        *CounterVec

	// RequestsActive is what goes on now; the connections are asked at a scrape.
	RequestsActive *GaugeVec
	// UpstreamActive is what goes on now; the clusters fill it in at a scrape.
	UpstreamActive *GaugeVec
	// UpstreamRemaining is what is left of circuit breakers; the clusters fill it in
	// at a scrape.
	UpstreamRemaining *GaugeVec
	// UpstreamReached are the limits that are in use to the full; the clusters fill it in
	// at a scrape.
	UpstreamReached *GaugeVec

	// AccessLogLines counts lines by result: "written", "dropped" (the ring was
	// full) and "failed" (the file could not be written).
	AccessLogLines *CounterVec
	// LogRecords counts what became of records for collectors.
	LogRecords *CounterVec
	// ProtocolErrors counts messages refused by a codec, by side ("downstream",
	// "upstream") and reason.
	ProtocolErrors *CounterVec
	// Glitches counts what clients of HTTP/2 do at our cost, by class.
	Glitches *CounterVec
	// SlowClients counts clients that were not waited for any longer, by what was.
	SlowClients *CounterVec
	// HTTP2Events counts resets and the like, by side and event.
	HTTP2Events *CounterVec

	// FilterEvents counts what HTTP filters did, by the filter's name in the chain
	// and event ("delay", "rate_limited").
	FilterEvents *CounterVec

	// OverloadPressure, OverloadActions and OverloadDone are the overload manager's, which is
	// asked at a scrape.
	OverloadPressure, OverloadActions *GaugeVec
	OverloadDone                      *CounterVec

	// Mirrored counts copies of requests by result: "answered", "failed", and
	// "too_large" for those that were not made.
	Mirrored *CounterVec

	// TracedRequests counts requests by why they are traced, TraceSpans what became of
	// spans.
	TracedRequests, TraceSpans *CounterVec

	// For the assembly: configuration and identity.
	BuildInfo            *GaugeVec // version
	panics               *CounterVec
	XDSUpdates           *CounterVec
	XDSConnected         *GaugeVec
	ConfigTimestamp      *GaugeVec
	ConfigAge            *GaugeVec
	TrustAge             *GaugeVec
	SVIDNotAfter         *GaugeVec
	Rotations            *CounterVec
	ListenersActive      *GaugeVec
	ListenerFailures     *CounterVec
	Draining             *GaugeVec
	ProcessStart         *GaugeVec
	ConfigCacheOperation *CounterVec
	HostConnections      *GaugeVec
	HostRefused          *CounterVec
	MadeRoom             *CounterVec
	HostCalls            *CounterVec

	mu       sync.Mutex
	services map[serviceKey]*ServiceMetrics
	clusters map[string]*ClusterMetrics
	unused   *ClusterCounters // of clusters that nothing was counted of
	// byName are the clusters in order, nil when they have changed since they were asked
	// for. Immutable.
	byName []*ClusterMetrics
	// layout is which series a cluster has in a family, in order. It is made with unused,
	// and immutable.
	layout map[*family][]clusterSeries
}

type serviceKey struct {
	direction Direction
	service   string
}

// NewMetrics returns the metrics of one sidecar process.
func NewMetrics() *Metrics {
	r := NewRegistry()
	m := &Metrics{
		Registry: r,
		services: map[serviceKey]*ServiceMetrics{},
		clusters: map[string]*ClusterMetrics{},

		requests:        r.Counter("hauberk_requests_total", "Requests answered, by verified peer service, status code and response flags.", "direction", "service", "peer", "code", "flags"),
		requestDuration: r.Histogram("hauberk_request_duration_seconds", "Time from the first byte of a request to the last byte of its response.", requestBounds, "direction", "service", "peer"),
		connections:     r.Counter("hauberk_connections_total", "Downstream connections that passed the handshake and authorization.", "direction", "service", "peer"),
		connectionsOpen: r.Gauge("hauberk_connections_open", "Downstream connections that are open now.", "direction", "service", "peer"),
		connectionTime:  r.Histogram("hauberk_connection_duration_seconds", "How long downstream connections that have ended were open, the handshake included.", connectionBounds, "direction", "service", "peer"),
		bytes:           r.Counter("hauberk_bytes_total", "Body bytes of requests and responses and all bytes of plain connections, by flow: received from or sent to the downstream.", "direction", "service", "peer", "flow"),

		authzDecisions: r.Counter("hauberk_authz_decisions_total", "Authorization decisions, by the rule that decided.", "decision", "rule").keepRules(),
		authzShadow:    r.Counter("hauberk_authz_shadow_decisions_total", "What shadow rules would have decided.", "decision", "rule").keepRules(),

		tlsHandshakes:   r.Counter("hauberk_tls_handshakes_total", "Downstream TLS handshakes, by result, the version that was agreed on and the reason of a failure.", "result", "reason", "version"),
		tlsDuration:     r.Histogram("hauberk_tls_handshake_duration_seconds", "Time of completed downstream TLS handshakes.", requestBounds),
		refused:         r.Counter("hauberk_connections_refused_total", "Downstream connections refused before any filter ran, by reason.", "listener", "reason"),
		policyClosed:    r.Counter("hauberk_connections_closed_total", "Established connections that the sidecar closed, by reason: that of a policy or a drain, and of plain connections idle_timeout, max_connection_duration or no_cluster (theirs does not exist).", "listener", "reason"),
		accepts:         r.Counter("hauberk_listener_accepts_total", "Connections accepted.", "listener"),
		acceptErrors:    r.Counter("hauberk_listener_accept_errors_total", "Failed accept calls, by reason.", "listener", "reason"),
		expiredCertConn: r.Counter("hauberk_peer_certificates_expired_total", "Open connections whose peer certificate expired, by what was done.", "listener", "action"),

		upstreamRequests:     r.Counter("hauberk_upstream_requests_total", "Attempts to send a request upstream, by status class (\"2xx\"), or \"none\" without an answer.", "cluster", "code_class"),
		upstreamConnections:  r.Counter("hauberk_upstream_connections_total", "Upstream connections attempted, by result: ok, refused, timeout, tls or error.", "cluster", "result"),
		upstreamOpen:         r.Gauge("hauberk_upstream_connections_open", "Upstream connections that are open now.", "cluster"),
		upstreamConnect:      r.Histogram("hauberk_upstream_connect_duration_seconds", "Time to connect upstream, TLS included.", requestBounds, "cluster"),
		upstreamDuration:     r.Histogram("hauberk_upstream_request_duration_seconds", "Time of attempts that were answered, from sending the request to the end of the exchange.", requestBounds, "cluster"),
		upstreamBudget:       r.Histogram("hauberk_upstream_timeout_budget_used_ratio", "How much of their time requests that were answered, or whose time was over, and attempts that were sent took: 1 is all of it, 0 also where there is no limit. Of clusters with timeout_budgets alone.", budgetBounds, "cluster", "of"),
		upstreamFailures:     r.Counter("hauberk_upstream_failures_total", "Attempts that were sent and not answered, or not as a whole, by reason: timeout, per_try_timeout, per_try_idle_timeout, termination (of the connection), reset (of the stream), refused or protocol_error.", "cluster", "reason"),
		upstreamRetries:      r.Counter("hauberk_upstream_retries_total", "Retries, by result: success, failure, overflow (no budget) or limit.", "cluster", "result"),
		upstreamOverflow:     r.Counter("hauberk_upstream_overflow_total", "What was beyond a circuit breaker, by limit: connections, pending, requests, retries or pools. It was refused or had to wait, but for the one connection that each host may have.", "cluster", "limit"),
		upstreamBytes:        r.Counter("hauberk_upstream_bytes_total", "Body bytes of requests and responses and all bytes of plain connections, by flow: received from or sent to upstreams.", "cluster", "flow"),
		upstreamEndpoints:    r.Gauge("hauberk_upstream_endpoints", "Endpoints of a cluster, by state: healthy, unhealthy, draining, degraded or ejected.", "cluster", "state"),
		upstreamEjections:    r.Counter("hauberk_upstream_ejections_total", "Endpoints ejected by outlier detection.", "cluster"),
		upstreamNoHealthy:    r.Counter("hauberk_upstream_no_healthy_total", "Requests and connections that found no healthy endpoint.", "cluster"),
		upstreamTLSFailures:  r.Counter("hauberk_upstream_tls_failures_total", "Failed upstream TLS handshakes, by reason.", "cluster", "reason"),
		upstreamPoolReplaced: r.Counter("hauberk_upstream_pools_replaced_total", "Connection pools replaced because the cluster's configuration changed.", "cluster"),
		upstreamOutliers:     r.Counter("hauberk_upstream_outliers_total", "Hosts that outlier detection found, by how and by result: ejected, observed (not enforced), overflow (too many are ejected) or marked (it calls itself degraded).", "cluster", "reason", "result"),
		upstreamHealthChecks: r.Counter("hauberk_upstream_health_checks_total", "Active health checks, by result: success, failure, network_failure, timeout or passive_failure (an answer with x-envoy-immediate-health-check-fail).", "cluster", "result"),
		upstreamRedirects:    r.Counter("hauberk_upstream_internal_redirects_total", "Redirects of hosts of whose route they are to be followed, by result: followed, or why they were passed on: bad_location, incomplete_request, no_route, predicate, scheme, too_many or updated (the listener, meanwhile).", "cluster", "result"),
		upstreamEnds:         r.Counter("hauberk_upstream_connections_closed_total", "Connections to hosts that are over, and those that could not be made, by how they ended: local (by the sidecar) or remote (by the host), and with_request where a request, or the bytes of a plain connection, were under way.", "cluster", "end"),
		downstreamEnds:       r.Counter("hauberk_connections_ended_total", "Connections of clients that are over, by how they ended: local (by the sidecar) or remote (by the client), and with_request where a request was under way. Those that carry others count, what they carry does not.", "listener", "end"),
		upstreamAbandoned:    r.Counter("hauberk_upstream_requests_abandoned_total", "Attempts, and openings of plain connections, that the sidecar gave up, by stage: pending (before they had a connection: their time was over, or the client had gone) or stream (their stream of HTTP/2 was reset, for these reasons or for what was wrong with the answer, or by the host with PROTOCOL_ERROR, or its request was not whole when the answer was).", "cluster", "stage"),
		upstreamSubsetPicks:  r.Counter("hauberk_upstream_subset_picks_total", "Choices among subsets, by result: selected, fallback or panic (among all hosts).", "cluster", "result"),

		upstreamPanicPicks: r.Counter("hauberk_upstream_panic_picks_total", "Choices of an endpoint among all, healthy or not, because too few are healthy; those that are refused for it too.", "cluster"),

		upstreamZonePicks:          r.Counter("hauberk_upstream_zone_picks_total", "Choices of a zone, by result: direct (all go to the sidecar's own), sampled (to its own, of which a share goes there), cross_zone, no_capacity (to any, where none has room) or local_cluster_panic (not by zone, because too few of its own cluster are healthy; those that are refused for it too).", "cluster", "result"),
		upstreamZoneStructures:     r.Counter("hauberk_upstream_zone_structures_total", "Times that routing by zone was worked out anew, by result: direct, residual (a share goes to other zones), one_zone, cluster_too_small or local_cluster_not_ok (it has no host in the sidecar's zone).", "cluster", "result"),
		upstreamInvalidDestination: r.Counter("hauberk_upstream_invalid_destinations_total", "Requests whose header named a destination that is no address and port.", "cluster"),
		upstreamDropped:            r.Counter("hauberk_upstream_dropped_total", "Requests that were answered in the place of the endpoints, because their assignment has a share of them dropped (drop_overloads); of clusters that drop any.", "cluster"),
		upstreamAssignments:        r.Counter("hauberk_upstream_assignments_total", "Assignments of endpoints that go stale (endpoint_stale_after), by result: ageing (it came) or stale (no update came in time, and its endpoints are in use no longer).", "cluster", "result"),
		RequestsActive:             r.Gauge("hauberk_requests_active", "Requests of downstream connections that are under way now, those too that wait for anything; of services that have any.", "direction", "service"),
		UpstreamActive:             r.Gauge("hauberk_upstream_requests_active", "Requests at upstreams now, and those that wait for a connection, by state: active or pending; of clusters that have any.", "cluster", "state"),
		UpstreamRemaining:          r.Gauge("hauberk_upstream_limit_remaining", "What is left of a circuit breaker, where the cluster tracks it.", "cluster", "priority", "limit"),

		UpstreamReached: r.Gauge("hauberk_upstream_limit_reached", "1 while what a circuit breaker limits is in use to the full; of those of which that is so.", "cluster", "priority", "limit"),

		AccessLogLines: r.Counter("hauberk_access_log_lines_total", "Access log lines, by result: written, dropped (the writer was behind) or failed.", "result"),
		LogRecords:     r.Counter("hauberk_access_log_records_total", "Access log records for OpenTelemetry's collectors, by the log's stat_prefix and result: written, dropped (the collector was behind), failed (they could not be sent, or were answered with an error) or rejected (it did not want them).", "log", "result"),
		ProtocolErrors: r.Counter("hauberk_protocol_errors_total", "Messages refused because they break the protocol, by side and reason.", "side", "reason"),

		Glitches: r.Counter("hauberk_http2_glitches_total", "What clients of HTTP/2 did at the sidecar's cost, which honest ones do seldom or never, by class: malformed (messages that are refused), stream_error, reset (of a stream, before anything was answered), refused_stream, closed_stream, header_size, continuation_flood, empty_frames_flood, settings, ping, priority_flood, window_update_flood, outbound_flood or slow_head.", "class"),

		SlowClients: r.Counter("hauberk_slow_clients_total", "Clients that were not waited for any longer, beside Envoy's timeouts, by what of them was waited for: first_byte (of a new connection's first request of HTTP/1; for the preface of HTTP/2 see slow_head of hauberk_http2_glitches_total) or body (of a request, below the least rate).", "what"),

		HTTP2Events: r.Counter("hauberk_http2_events_total", "Ends of streams and connections of HTTP/2, by side and event: tx_reset (RST_STREAM that the sidecar sent), rx_reset (those that it got, of streams that were not over) or goaway_sent (the GOAWAY of a connection that is drained or idle).", "side", "event"),

		Mirrored:     r.Counter("hauberk_mirrored_requests_total", "Copies of requests for mirrors, by result: answered, failed, dropped (by their cluster's drop_overloads), or too_large, where the body was longer than is kept and no copy was made.", "result"),
		FilterEvents: r.Counter("hauberk_http_filter_events_total", "What HTTP filters did, by the filter's name and event: delay, abort, rate (of answers that are slowed) and overflow of faults; enabled, ok, rate_limited, enforced and shadow_mode (over the limit of a descriptor in shadow mode alone, and let pass) of local rate limits; origin_valid and origin_invalid of CORS; health_check (also one that is passed on, and none of which is among the requests of other metrics).", "filter", "event"),

		OverloadPressure: r.Gauge("hauberk_overload_pressure", "How short the resources are that overload actions depend on, heap, connections, cgroup_memory and cpu, as a share of what there may be.", "resource"),
		OverloadActions:  r.Gauge("hauberk_overload_actions", "How much of each overload action and at each load shed point is done: 0 for nothing, 1 to all that it concerns.", "action"),
		OverloadDone:     r.Counter("hauberk_overload_actions_total", "What overload actions were done to, by action: reject_incoming_connections, disable_http_keepalive (connections that ended with a request, and of HTTP/2 requests with which a connection began to end), stop_accepting_requests (requests that were refused), reset_high_memory_stream, and the names of load shed points (how often load was shed there).", "action"),

		TracedRequests: r.Counter("hauberk_traced_requests_total", "Requests by why they are traced where tracing is configured: random_sampling, service_forced, client_enabled or not_traceable.", "reason"),
		TraceSpans:     r.Counter("hauberk_trace_spans_total", "Spans of sampled requests, by result: sent, dropped (the collector was behind), failed (they could not be sent, or were answered with an error) or rejected (it did not want them).", "result"),

		BuildInfo:            r.Gauge("hauberk_build_info", "Always 1; the labels say what is running.", "version", "go_version"),
		panics:               r.Counter("hauberk_panics_total", "Faults of the program that were contained, each of which ended what it occurred in and is in the log with its stack; by place.", "place"),
		XDSUpdates:           r.Counter("hauberk_xds_updates_total", "Discovery responses, by resource type and result: ack or nack.", "type", "result"),
		XDSConnected:         r.Gauge("hauberk_xds_connected", "1 while the stream to the control plane is up, and all of them where there are several."),
		ConfigTimestamp:      r.Gauge("hauberk_config_applied_timestamp_seconds", "When configuration of a type was last applied.", "type"),
		ConfigAge:            r.Gauge("hauberk_config_age_seconds", "Time since a control plane last confirmed the configuration in force; 0 while connected."),
		TrustAge:             r.Gauge("hauberk_trust_age_seconds", "Time since trust bundles were last confirmed, by where they come from: a control plane, or the name of a file.", "source"),
		SVIDNotAfter:         r.Gauge("hauberk_svid_not_after_timestamp_seconds", "When an own X.509 SVID expires.", "spiffe_id"),
		Rotations:            r.Counter("hauberk_rotations_total", "Renewals of SVIDs and trust bundles, by result: ok or failed.", "kind", "result"),
		ListenersActive:      r.Gauge("hauberk_listeners", "Listeners, by state: active, warming (also to take the place of one that is active), draining or failed (those that are not what was asked for last).", "state"),
		ListenerFailures:     r.Counter("hauberk_listener_failures_total", "Listeners that could not be put in force, for want of their address for one, those too that had been acknowledged; what was in force stays."),
		Draining:             r.Gauge("hauberk_draining", "1 while the process drains."),
		ProcessStart:         r.Gauge("hauberk_process_start_timestamp_seconds", "When the process started."),
		ConfigCacheOperation: r.Counter("hauberk_config_cache_operations_total", "Reads and writes of the on-disk configuration cache, by result: ok or failed.", "operation", "result"),
		HostConnections:      r.Gauge("hauberk_host_socket_connections_open", "Connections to the host socket that are open now."),
		HostRefused:          r.Counter("hauberk_host_socket_connections_refused_total", "Connections to the host socket whose caller could not be attested, or that were one too many."),
		MadeRoom:             r.Counter("hauberk_connections_made_room_total", "Connections that were ended to make room for others: listeners (those that were idle, before file descriptors are short) or admin (where metrics or readiness have as many as they may).", "where"),
		HostCalls:            r.Counter("hauberk_host_socket_calls_total", "Calls on the host socket that ended, by method and gRPC code.", "method", "code"),
	}
	m.panics.f.collect = panics.Collect
	return m
}

// AuthzCounter is the counter of one rule's decisions; authz.Compile interns it. It is
// shown until nobody holds it any more.
func (m *Metrics) AuthzCounter(shadow, allowed bool, rule string) *Counter {
	decision := "deny"
	if allowed {
		decision = "allow"
	}
	if shadow {
		return m.authzShadow.with(decision, rule)
	}
	return m.authzDecisions.with(decision, rule)
}

// ForgetListener forgets what was counted of a listener that is gone, and its
// connections with it.
func (m *Metrics) ForgetListener(name string) {
	for _, v := range [...]*CounterVec{m.accepts, m.acceptErrors, m.refused, m.policyClosed, m.downstreamEnds, m.expiredCertConn} {
		v.f.deleteWhere(func(labels []string) bool { return labels[0] == name })
	}
}

// Accepted counts a connection that a listener took.
func (m *Metrics) Accepted(listener string) { m.accepts.With(listener).Add(NextShard(), 1) }

// Handshake counts a downstream TLS handshake; reason is empty for "ok".
//
// version is of package crypto/tls, 0 where none was agreed on; took is counted
// for completed handshakes.
func (m *Metrics) Handshake(result, reason string, version uint16, took time.Duration) {
	shard := NextShard()
	m.tlsHandshakes.With(result, reason, tlsVersion(version)).Add(shard, 1)
	if reason == "" {
		m.tlsDuration.With().Observe(shard, took)
	}
}

// Refused counts a downstream connection that no filter saw.
func (m *Metrics) Refused(listener, reason string) {
	m.refused.With(listener, reason).Add(NextShard(), 1)
}

// PolicyClosed counts an established connection that the sidecar closed.
func (m *Metrics) PolicyClosed(listener, reason string) {
	m.policyClosed.With(listener, reason).Add(NextShard(), 1)
}

// ConnectionEnded counts a connection of a listener that is over: whether its client ended it, and
// whether a request was under way then.
func (m *Metrics) ConnectionEnded(listener string, byPeer, busy bool) {
	i := 0
	if byPeer {
		i = 2
	}
	if busy {
		i++
	}
	m.downstreamEnds.With(listener, connectionEnds[i]).Add(NextShard(), 1)
}

// AcceptFailed counts a failed accept call; reason is one of a few fixed words.
func (m *Metrics) AcceptFailed(listener, reason string) {
	m.acceptErrors.With(listener, reason).Inc(0)
}

// PeerExpired counts an open connection whose peer certificate expired.
func (m *Metrics) PeerExpired(listener, action string) {
	m.expiredCertConn.With(listener, action).Inc(0)
}
