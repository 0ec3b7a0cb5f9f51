package names

// SpanTags are the tags that a sidecar gives to every span, under Envoy's names. A tag
// that is configured has another.
var SpanTags = []string{
	"node_id", "zone", "guid:x-request-id", "http.url", "http.method", "downstream_cluster", "user_agent", "http.protocol",
	"peer.address", "guid:x-client-trace-id", "grpc.path", "grpc.authority", "grpc.content_type", "grpc.timeout",
	"grpc.status_code", "grpc.message", "request_size", "response_size", "component", "upstream_cluster",
	"upstream_cluster.name", "upstream_address", "http.status_code", "response_flags", "error", "retry.count",
}
