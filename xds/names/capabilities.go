package names

// What a client says of itself in its xDS node. A sidecar lists the features it
// can honour in node.client_features; what it does not list is withheld from
// its resources and reported, and authorization that it cannot honour becomes a
// deny.
const (
	// UserAgent is node.user_agent_name of our own sidecar.
	UserAgent = "hauberk-sidecar"
	// EnvoyUserAgent is Envoy's. An Envoy announces nothing and can everything.
	EnvoyUserAgent = "envoy"

	// MetadataWorkloads and MetadataEntitled are keys of node.metadata, each a
	// list of strings that narrows the client's view: to workloads with these
	// registration ids, and to workloads with these SPIFFE IDs. They never
	// widen what the node's join record permits.
	MetadataWorkloads = "hauberk.workloads"
	MetadataEntitled  = "hauberk.entitled"

	// CapabilityPrefix starts the name of every capability.
	CapabilityPrefix = "hauberk.cap."

	// CapRBAC is the network and HTTP RBAC filters. Without it every inbound
	// filter chain denies.
	CapRBAC = "hauberk.cap.rbac"
	// CapHTTP2 is HTTP/2 on both sides, which http2 and grpc services need.
	CapHTTP2 = "hauberk.cap.http2"
	// CapTunnel is byte streams as CONNECT streams of one connection between
	// sidecars, agreed on by ALPN.
	CapTunnel = "hauberk.cap.tunnel"
	// TunnelALPN is that agreement.
	TunnelALPN = "hauberk-tcp"
	// CapRingHash and CapMaglev are the consistent-hash load balancers.
	CapRingHash = "hauberk.cap.ring_hash"
	CapMaglev   = "hauberk.cap.maglev"
	// CapConnectionHash is hash_policy in tcp_proxy: consistent hashing of
	// connections by their source address.
	CapConnectionHash = "hauberk.cap.connection_hash"
	// CapOutlierDetection is passive health checking.
	CapOutlierDetection = "hauberk.cap.outlier_detection"
	// CapConnectionLimit is the connection_limit network filter.
	CapConnectionLimit = "hauberk.cap.connection_limit"
	// CapListenerLog is access logging by the listener itself, of connections
	// that no filter chain matched.
	CapListenerLog = "hauberk.cap.listener_log"
	// CapRetries is retry budgets, and the condition RetryResetIdempotent.
	CapRetries = "hauberk.cap.retries"
	// CapRetryRateLimited is the condition envoy-ratelimited.
	CapRetryRateLimited = "hauberk.cap.retry_ratelimited"
	// CapGatewayFailure is passive health checking by gateway failures, apart from
	// other 5xx.
	CapGatewayFailure = "hauberk.cap.gateway_failure"
	// CapLocalRateLimit is the local_ratelimit HTTP filter, and that of a route.
	CapLocalRateLimit = "hauberk.cap.local_rate_limit"
	// CapValidateClusters is that routes to clusters that there are not are refused.
	CapValidateClusters = "hauberk.cap.validate_clusters"
	// CapGrowingWindows is that the windows of streams grow where the connection's holds them
	// all: each may begin with a small one.
	CapGrowingWindows = "hauberk.cap.growing_windows"
	// CapTracing is tracing in the connection manager, with OTLP and Zipkin.
	CapTracing = "hauberk.cap.tracing"

	// RetryResetIdempotent, in a route's retry_on, retries a request that was
	// sent and met a reset before any response, when its method is idempotent
	// (RFC 9110 9.2.2). Envoy has no such condition: its "reset" sends a POST
	// twice, too.
	RetryResetIdempotent = "reset-idempotent"
)
