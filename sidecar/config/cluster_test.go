package config

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// dropping is an assignment's with these categories.
func dropping(categories string) string {
	return "load_assignment: {cluster_name: c, policy: {drop_overloads: [" + categories + "]}}\n"
}

// clusterOf reads one cluster of a static bootstrap; lines are indented by four.
func clusterOf(t testing.TB, text string) (*cluster.Config, error) {
	t.Helper()
	var b strings.Builder
	b.WriteString("static_resources:\n  clusters:\n  - name: c\n")
	for line := range strings.Lines(text) {
		b.WriteString("    " + line)
	}
	out, err := ParseBootstrap([]byte(b.String()))
	if err != nil {
		return nil, err
	}
	return out.Clusters[0], nil
}

const oneEndpoint = "load_assignment:\n  cluster_name: c\n  endpoints:\n  - lb_endpoints:\n    - endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 80}}}\n"

const namedEndpoint = "load_assignment:\n  cluster_name: c\n  endpoints:\n  - lb_endpoints:\n    - endpoint: {address: {socket_address: {address: api.example, port_value: 80}}}\n"

const typed = "load_balancing_policy:\n  policies:\n  - typed_extension_config:\n      name: p\n      typed_config:\n        \"@type\": type.googleapis.com/envoy.extensions.load_balancing_policies."

const httpOptions = "typed_extension_protocol_options:\n  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n    \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n"

const announcing = "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"

const aCheck = "health_checks:\n- timeout: 1s\n  interval: 5s\n  unhealthy_threshold: 3\n  healthy_threshold: 2\n"

const aggregateType = "lb_policy: CLUSTER_PROVIDED\ncluster_type:\n  name: envoy.clusters.aggregate\n  typed_config: {\"@type\": type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig, clusters: [c]}\n"

const nameservers = "resolvers: [{socket_address: {address: 10.0.0.53, port_value: 53}}, {socket_address: {address: \"2001:db8::53\", port_value: 8600}}]"

// cares is a cluster's resolver with the fields.
func cares(fields string) string {
	return "typed_dns_resolver_config: {name: r, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig, " + fields + "}}\n"
}

// TestClusterFields reads each field and compares what changed, in JSON, with
// what the field means.
func TestClusterFields(t *testing.T) {
	for name, tc := range map[string]struct{ base, text, want string }{
		"logical DNS": {"-", "type: LOGICAL_DNS\n" + namedEndpoint, `{"Type":4,"DNS":{"Refresh":0,"Jitter":0,"FailureBase":0,"FailureMax":0,"Family":0}}`},
		"strict DNS": {"-", "type: STRICT_DNS\ndns_lookup_family: V4_PREFERRED\ndns_refresh_rate: 2s\ndns_jitter: 0.5s\ndns_failure_refresh_rate: {base_interval: 0.1s}\n" + namedEndpoint,
			`{"Type":1,"DNS":{"Refresh":2000000000,"Jitter":500000000,"FailureBase":100000000,"FailureMax":1000000000,"Family":1}}`},
		"ttl": {"-", "type: STRICT_DNS\nrespect_dns_ttl: true\n" + namedEndpoint, `{"Type":1,"DNS":{"Refresh":0,"Jitter":0,"FailureBase":0,"FailureMax":0,"Family":0,"RespectTTL":true}}`},
		"ttl of a dns cluster": {"-", "cluster_type:\n  name: dns\n  typed_config: {\"@type\": type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster, respect_dns_ttl: true, dns_min_refresh_rate: 3s}\n" + namedEndpoint,
			`{"Type":1,"DNS":{"Refresh":0,"Jitter":0,"FailureBase":0,"FailureMax":0,"Family":0,"RespectTTL":true,"MinRefresh":3000000000}}`},
		"least ttl without end": {"-", "cluster_type:\n  name: dns\n  typed_config: {\"@type\": type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster, respect_dns_ttl: true, dns_min_refresh_rate: 315576000000s}\n" + namedEndpoint,
			`{"Type":1,"DNS":{"Refresh":0,"Jitter":0,"FailureBase":0,"FailureMax":0,"Family":0,"RespectTTL":true,"MinRefresh":315360000000000000}}`},
		"dns cluster": {"-", "cluster_type:\n  name: dns\n  typed_config: {\"@type\": type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster, all_addresses_in_single_endpoint: true, dns_lookup_family: ALL, dns_refresh_rate: 9s}\n" + namedEndpoint,
			`{"Type":4,"DNS":{"Refresh":9000000000,"Jitter":0,"FailureBase":0,"FailureMax":0,"Family":4}}`},
		"dns cluster with the cluster's own fields": {"-", "dns_refresh_rate: 2s\ndns_lookup_family: V6_ONLY\nrespect_dns_ttl: true\ndns_resolvers: [{socket_address: {address: 10.0.0.53, port_value: 53}}]\n" +
			"cluster_type:\n  name: dns\n  typed_config: {\"@type\": type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster, dns_lookup_family: V4_ONLY, dns_refresh_rate: 9s}\n" + namedEndpoint,
			`{"Type":1,"DNS":{"Refresh":9000000000,"Jitter":0,"FailureBase":0,"FailureMax":0,"Family":2}}`},
		"nameservers": {"-", "type: STRICT_DNS\n" + cares(nameservers+", rotate_nameservers: true, dns_resolver_options: {use_tcp_for_dns_lookups: true, no_default_search_domain: true}, udp_max_queries: 100") + namedEndpoint,
			`{"Type":1,"DNS":{"Refresh":0,"Jitter":0,"FailureBase":0,"FailureMax":0,"Family":0,"Servers":["10.0.0.53:53","[2001:db8::53]:8600"],"OwnResolver":true,"Rotate":true,"OverTCP":true,"WholeNames":true}}`},
		"per connection": {"", "connection_pool_per_downstream_connection: true\n", `{"HTTP":{"MaxConnectionDuration":0,"MaxConnectionJitter":0,"MaxRequestsPerConnection":0,"PerClient":true,"Protocol":0}}`},
		"tries": {"-", "type: STRICT_DNS\n" + cares(nameservers+", query_tries: 2, filter_unroutable_families: true, edns0_max_payload_size: 4096, qcache_max_ttl: 5") + namedEndpoint,
			`{"Type":1,"DNS":{"Refresh":0,"Jitter":0,"FailureBase":0,"FailureMax":0,"Family":0,"Servers":["10.0.0.53:53","[2001:db8::53]:8600"],"Tries":2,"QueryTimeout":5000000000,"Routable":true,"OwnResolver":true}}`},
		"time of a try": {"-", "type: STRICT_DNS\n" + cares(nameservers+", query_timeout_seconds: 2") + namedEndpoint,
			`{"Type":1,"DNS":{"Refresh":0,"Jitter":0,"FailureBase":0,"FailureMax":0,"Family":0,"Servers":["10.0.0.53:53","[2001:db8::53]:8600"],"Tries":4,"QueryTimeout":2000000000,"OwnResolver":true}}`},
		"retries of the host's resolver": {"-", "type: STRICT_DNS\ntyped_dns_resolver_config: {name: r, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig, num_retries: 2}}\n" + namedEndpoint,
			`{"Type":1,"DNS":{"Refresh":0,"Jitter":0,"FailureBase":0,"FailureMax":0,"Family":0,"Tries":3,"OwnResolver":true}}`},
		"nameservers before": {"-", "type: STRICT_DNS\nuse_tcp_for_dns_lookups: true\ndns_resolvers: [{socket_address: {address: 10.0.0.1, port_value: 1}}]\ndns_resolution_config: {" + nameservers + "}\n" + namedEndpoint,
			`{"Type":1,"DNS":{"Refresh":0,"Jitter":0,"FailureBase":0,"FailureMax":0,"Family":0,"Servers":["10.0.0.53:53","[2001:db8::53]:8600"],"OwnResolver":true}}`},
		"nameservers, oldest": {"-", "type: LOGICAL_DNS\nuse_tcp_for_dns_lookups: true\ndns_" + nameservers + "\n" + namedEndpoint,
			`{"Type":4,"DNS":{"Refresh":0,"Jitter":0,"FailureBase":0,"FailureMax":0,"Family":0,"Servers":["10.0.0.53:53","[2001:db8::53]:8600"],"OwnResolver":true,"OverTCP":true}}`},
		"tcp alone": {"-", "type: STRICT_DNS\nuse_tcp_for_dns_lookups: true\n" + namedEndpoint,
			`{"Type":1,"DNS":{"Refresh":0,"Jitter":0,"FailureBase":0,"FailureMax":0,"Family":0,"OverTCP":true}}`},
		"the host's resolver": {"-", "type: STRICT_DNS\ntyped_dns_resolver_config: {name: r, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig}}\n" + namedEndpoint,
			`{"Type":1,"DNS":{"Refresh":0,"Jitter":0,"FailureBase":0,"FailureMax":0,"Family":0,"OwnResolver":true}}`},
		"nameservers of a dns cluster": {"-", "cluster_type:\n  name: dns\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster\n    " + cares(nameservers) + namedEndpoint,
			`{"Type":1,"DNS":{"Refresh":0,"Jitter":0,"FailureBase":0,"FailureMax":0,"Family":0,"Servers":["10.0.0.53:53","[2001:db8::53]:8600"],"OwnResolver":true}}`},
		"connections from any address": {"", "upstream_bind_config: {}\n", `{"Bind":{"From":null}}`},
		"original destination": {"-", "type: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\ncleanup_interval: 7s\noriginal_dst_lb_config: {use_http_header: true, upstream_port_override: 9}\n",
			`{"Type":5,"Endpoints":null,"OriginalDst":{"Header":"x-envoy-original-dst-host","Port":9,"Cleanup":7000000000}}`},
		"aggregate": {"-", aggregateType, `{"Type":3,"Endpoints":null,"Aggregate":["c"]}`},
		"ring hash": {"-", "type: STRICT_DNS\n" + namedEndpoint + "lb_policy: RING_HASH\nring_hash_lb_config: {minimum_ring_size: 10, maximum_ring_size: 20, hash_function: MURMUR_HASH_2}\ncommon_lb_config: {consistent_hashing_lb_config: {use_hostname_for_hashing: true, hash_balance_factor: 120}}\n",
			`{"Type":1,"LB":3,"Hash":{"MinRing":10,"MaxRing":20,"Murmur2":true,"TableSize":0,"UseHostname":true,"BalanceFactor":120},"DNS":{"Refresh":0,"Jitter":0,"FailureBase":0,"FailureMax":0,"Family":0}}`},
		"ring hash, typed": {"", typed + "ring_hash.v3.RingHash\n        minimum_ring_size: 10\n        consistent_hashing_lb_config: {hash_balance_factor: 110}\n        locality_weighted_lb_config: {}\n",
			`{"LB":3,"LocalityWeighted":true,"Hash":{"MinRing":10,"MaxRing":8388608,"Murmur2":false,"TableSize":0,"UseHostname":false,"BalanceFactor":110}}`},
		"maglev": {"", "lb_policy: MAGLEV\nmaglev_lb_config: {table_size: 103}\n",
			`{"LB":4,"Hash":{"MinRing":0,"MaxRing":0,"Murmur2":false,"TableSize":103,"UseHostname":false,"BalanceFactor":0}}`},
		"balancer's own hash": {"", typed + "maglev.v3.Maglev\n        table_size: 103\n        consistent_hashing_lb_config: {hash_policy: [{header: {header_name: X-H}, terminal: true}]}\n",
			`{"LB":4,"Hash":{"MinRing":0,"MaxRing":0,"Murmur2":false,"TableSize":103,"UseHostname":false,"BalanceFactor":0,"Policies":[{"Header":"x-h","HeaderRewrite":null,"Query":"","Cookie":null,"SourceIP":false,"Terminal":true}]}}`},
		"maglev, typed": {"", typed + "maglev.v3.Maglev\n        table_size: 103\n",
			`{"LB":4,"Hash":{"MinRing":0,"MaxRing":0,"Murmur2":false,"TableSize":103,"UseHostname":false,"BalanceFactor":0}}`},
		"least request without end": {"", "lb_policy: LEAST_REQUEST\nleast_request_lb_config: {active_request_bias: {default_value: Infinity, runtime_key: k}, slow_start_config: {slow_start_window: 10s, aggression: {default_value: Infinity, runtime_key: k}}}\n",
			`{"LB":1,"ActiveRequestBias":1.7976931348623157e+308,"SlowStart":{"Window":10000000000,"Aggression":1.7976931348623157e+308,"MinPercent":10}}`},
		"least request": {"", "lb_policy: LEAST_REQUEST\nleast_request_lb_config: {choice_count: 3, active_request_bias: {default_value: 0.5, runtime_key: k}, slow_start_config: {slow_start_window: 10s, aggression: {default_value: 2, runtime_key: k}, min_weight_percent: {value: 5}}}\n",
			`{"LB":1,"ChoiceCount":3,"ActiveRequestBias":0.5,"SlowStart":{"Window":10000000000,"Aggression":2,"MinPercent":5}}`},
		"least request, typed": {"", typed + "least_request.v3.LeastRequest\n        selection_method: FULL_SCAN\n        slow_start_config: {slow_start_window: 10s}\n",
			`{"LB":1,"FullScan":true,"SlowStart":{"Window":10000000000,"Aggression":1,"MinPercent":10}}`},
		"round robin": {"", "round_robin_lb_config: {slow_start_config: {slow_start_window: 1s}}\n", `{"SlowStart":{"Window":1000000000,"Aggression":1,"MinPercent":10}}`},
		"round robin, typed": {"", typed + "round_robin.v3.RoundRobin\n        locality_lb_config: {zone_aware_lb_config: {fail_traffic_on_panic: true}}\n",
			`{"FailOnPanic":true}`},
		"random, typed": {"", typed + "random.v3.Random\n        locality_lb_config: {locality_weighted_lb_config: {}}\n", `{"LB":2,"LocalityWeighted":true}`},
		"localities, typed": {"", typed + "wrr_locality.v3.WrrLocality\n        endpoint_picking_policy: {policies: [{typed_extension_config: {name: r, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.load_balancing_policies.random.v3.Random}}}]}\n",
			`{"LB":2,"LocalityWeighted":true}`},
		"common": {"", "common_lb_config: {healthy_panic_threshold: {value: 30}, locality_weighted_lb_config: {}, ignore_new_hosts_until_first_hc: true, close_connections_on_host_set_change: true, update_merge_window: 1s}\n",
			`{"PanicThreshold":30,"LocalityWeighted":true,"ExcludeUnchecked":true,"CloseOnChange":true}`},
		"zone":               {"", "common_lb_config: {zone_aware_lb_config: {fail_traffic_on_panic: true, min_cluster_size: 3}}\n", `{"FailOnPanic":true,"Zones":{"Percent":100,"MinHosts":3}}`},
		"zone, the defaults": {"", "common_lb_config: {zone_aware_lb_config: {routing_enabled: {value: 100}, min_cluster_size: 6}}\n", `{}`},
		"zone, rounded":      {"", "common_lb_config: {zone_aware_lb_config: {routing_enabled: {value: 99.9}}}\n", `{"Zones":{"Percent":99,"MinHosts":6}}`},
		"zone, typed": {"", typed + "round_robin.v3.RoundRobin\n        locality_lb_config: {zone_aware_lb_config: {min_cluster_size: 0, force_local_zone: {min_size: 3}, locality_basis: HEALTHY_HOSTS_WEIGHT}}\n",
			`{"Zones":{"Percent":100,"MinHosts":0,"Force":3,"ByWeight":true}}`},
		"zone, as Envoy counts": {"", "common_lb_config: {zone_aware_lb_config: {routing_enabled: {value: 29}}}\n", `{"Zones":{"Percent":28,"MinHosts":6}}`},
		"zone, forced": {"", typed + "random.v3.Random\n        locality_lb_config: {zone_aware_lb_config: {force_local_zone: {}, routing_enabled: {value: 50}}}\n",
			`{"LB":2,"Zones":{"Percent":50,"MinHosts":6,"Force":1}}`},
		"zone, forced before": {"", typed + "least_request.v3.LeastRequest\n        locality_lb_config: {zone_aware_lb_config: {force_locality_direct_routing: true}}\n",
			`{"LB":1,"Zones":{"Percent":100,"MinHosts":6,"Force":1}}`},
		"zone, forced both ways": {"", typed + "least_request.v3.LeastRequest\n        locality_lb_config: {zone_aware_lb_config: {force_locality_direct_routing: true, force_local_zone: {min_size: 0}}}\n",
			`{"LB":1,"Zones":{"Percent":100,"MinHosts":6,"Force":0}}`},
		"subsets": {"", "lb_subset_config: {fallback_policy: DEFAULT_SUBSET, default_subset: {stage: prod}, panic_mode_any: true, list_as_any: true, metadata_fallback_policy: FALLBACK_LIST, subset_selectors: [{keys: [b, a], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [a]}, {keys: [id], single_host_per_subset: true}]}\n",
			`{"Subsets":{"Selectors":[{"Keys":["a","b"],"SingleHost":false,"Fallback":4,"FallbackKeys":["a"]},{"Keys":["id"],"SingleHost":true,"Fallback":0,"FallbackKeys":null}],"Fallback":3,"Default":{"stage":"prod"},"LocalityWeighted":false,"ScaleLocality":false,"PanicAny":true,"ListAsAny":true,"FallbackList":true,"AllowRedundant":false}}`},
		"subsets, typed": {"", typed + "subset.v3.Subset\n        fallback_policy: ANY_ENDPOINT\n        allow_redundant_keys: true\n        subset_selectors: [{keys: [v]}]\n        subset_lb_policy: {policies: [{typed_extension_config: {name: r, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.load_balancing_policies.random.v3.Random}}}]}\n",
			`{"LB":2,"Subsets":{"Selectors":[{"Keys":["v"],"SingleHost":false,"Fallback":0,"FallbackKeys":null}],"Fallback":2,"Default":{},"LocalityWeighted":false,"ScaleLocality":false,"PanicAny":false,"ListAsAny":false,"FallbackList":false,"AllowRedundant":true}}`},
		"of another policy": {"", "maglev_lb_config: {table_size: 7}\n", `{}`},
		"breakers": {"", "circuit_breakers: {thresholds: [{max_connections: 5, track_remaining: true}, {priority: HIGH, max_requests: 6, retry_budget: {min_retry_concurrency: 1}}]}\n",
			`{"Limits":{"MaxConnections":5,"MaxPendingRequests":1024,"MaxRequests":1024,"MaxRetries":3,"RetryBudget":null,"TrackRemaining":true,"MaxHostConnections":0},"HighLimits":{"MaxConnections":1024,"MaxPendingRequests":1024,"MaxRequests":6,"MaxRetries":3,"RetryBudget":{"Percent":20,"MinConcurrency":1},"TrackRemaining":false,"MaxHostConnections":0}}`},
		"host breaker": {"", "circuit_breakers: {per_host_thresholds: [{max_connections: 5}]}\n",
			`{"Limits":{"MaxConnections":1024,"MaxPendingRequests":1024,"MaxRequests":1024,"MaxRetries":3,"RetryBudget":null,"TrackRemaining":false,"MaxHostConnections":5}}`},
		"pool breaker": {"", "circuit_breakers: {thresholds: [{max_connection_pools: 7}, {priority: HIGH, max_connection_pools: 0}]}\n",
			`{"Limits":{"MaxConnections":1024,"MaxPendingRequests":1024,"MaxRequests":1024,"MaxRetries":3,"MaxPools":7,"RetryBudget":null,"TrackRemaining":false,"MaxHostConnections":0},"HighLimits":{"MaxConnections":1024,"MaxPendingRequests":1024,"MaxRequests":1024,"MaxRetries":3,"MaxPools":-1,"RetryBudget":null,"TrackRemaining":false,"MaxHostConnections":0}}`},
		"host health": {"", "ignore_health_on_host_removal: true\nclose_connections_on_host_health_failure: true\n", `{"DropRemoved":true,"CloseOnFailure":true}`},
		"connections": {"", "upstream_bind_config: {source_address: {address: 127.0.0.9, port_value: 0}}\nupstream_connection_options: {tcp_keepalive: {keepalive_probes: 3, keepalive_time: 20, keepalive_interval: 4}}\nmax_requests_per_connection: 7\ncommon_http_protocol_options: {idle_timeout: 9s, max_connection_duration: 60s, max_connection_duration_jitter: {value: 10}}\n",
			`{"Bind":{"From":[{"Addr":"127.0.0.9"}]},"TCP":{"Idle":20000000000,"Interval":4000000000,"Probes":3},"IdleTimeout":9000000000,"HTTP":{"Protocol":0,"MaxConnectionDuration":60000000000,"MaxConnectionJitter":10,"MaxRequestsPerConnection":7}}`},
		"typed HTTP": {"", httpOptions + "    common_http_protocol_options: {max_requests_per_connection: 8}\n    explicit_http_config: {http_protocol_options: {}}\n",
			`{"HTTP":{"Protocol":0,"MaxConnectionDuration":0,"MaxConnectionJitter":0,"MaxRequestsPerConnection":8}}`},
		"server names": {"", httpOptions + "    upstream_http_protocol_options: {auto_sni: true, auto_san_validation: true, override_auto_sni_header: X-Name}\n    explicit_http_config: {http_protocol_options: {}}\n",
			`{"HTTP":{"Protocol":0,"Names":{"SNI":true,"Verify":true,"Header":"x-name"},"MaxConnectionDuration":0,"MaxConnectionJitter":0,"MaxRequestsPerConnection":0}}`},
		"old server names": {"", "upstream_http_protocol_options: {auto_sni: true}\n",
			`{"HTTP":{"Protocol":0,"Names":{"SNI":true,"Verify":false,"Header":""},"MaxConnectionDuration":0,"MaxConnectionJitter":0,"MaxRequestsPerConnection":0}}`},
		"no server names": {"", "upstream_http_protocol_options: {override_auto_sni_header: x}\n", `{}`},
		"response heads": {"", "common_http_protocol_options: {max_headers_count: 7, max_response_headers_kb: 9}\n",
			`{"HTTP":{"Protocol":0,"MaxConnectionDuration":0,"MaxConnectionJitter":0,"MaxRequestsPerConnection":0,"MaxResponseHeaders":7,"MaxResponseHeaderKB":9}}`},
		"streams": {"", httpOptions + "    common_http_protocol_options: {max_stream_duration: 2.0001s, headers_with_underscores_action: REJECT_REQUEST}\n    explicit_http_config: {http_protocol_options: {}}\n",
			`{"HTTP":{"Protocol":0,"MaxConnectionDuration":0,"MaxConnectionJitter":0,"MaxRequestsPerConnection":0,"MaxStreamDuration":2000000000}}`},
		"old HTTP/2":       {"", "http2_protocol_options: {}\n", `{"HTTP":{"Protocol":1,"MaxConnectionDuration":0,"MaxConnectionJitter":0,"MaxRequestsPerConnection":0}}`},
		"old downstream":   {"", "protocol_selection: USE_DOWNSTREAM_PROTOCOL\nhttp_protocol_options: {}\nhttp2_protocol_options: {}\n", `{"HTTP":{"Protocol":3,"MaxConnectionDuration":0,"MaxConnectionJitter":0,"MaxRequestsPerConnection":0}}`},
		"typed downstream": {"", httpOptions + "    use_downstream_protocol_config: {}\n", `{"HTTP":{"Protocol":3,"MaxConnectionDuration":0,"MaxConnectionJitter":0,"MaxRequestsPerConnection":0}}`},
		"announced": {"", "transport_socket: {name: p, typed_config: {\"@type\": " + announcing + ", config: {version: V2}, transport_socket: {name: raw, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}\ntransport_socket_matches: [{name: m, match: {a: b}, transport_socket: {name: p, typed_config: {\"@type\": " + announcing + ", transport_socket: {name: raw, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}}]\n",
			`{"Announce":2,"Sockets":[{"Name":"m","Match":{"a":"b"},"TLS":null,"Announce":1}]}`},
		"several addresses": {"-", "upstream_connection_options: {happy_eyeballs_config: {first_address_family_version: V6, first_address_family_count: 2}}\nload_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {additional_addresses: [{address: {socket_address: {address: \"::1\", port_value: 81}}}], address: {socket_address: {address: 10.0.0.1, port_value: 80}}}}]}]}\n",
			`{"Eyeballs":{"Family":3,"First":2},"Endpoints":{"Cluster":"c","Localities":[{"Region":"","Zone":"","SubZone":"","Priority":0,"Weight":0,"Endpoints":[{"Host":"10.0.0.1","Port":80,"Pipe":"","Hostname":"","Also":["[::1]:81"],"Health":0,"Weight":0,"Metadata":null,"Check":null}]}],"Overprovisioning":0,"WeightedHealth":false}}`},
		"two sources": {"", "upstream_bind_config: {freebind: true, source_address: {address: 127.0.0.9, port_value: 0}, socket_options: [{level: 1, name: 36, int_value: 7}], extra_source_addresses: [{address: {address: \"::1\", port_value: 0}, socket_options: {}}]}\n",
			`{"Bind":{"From":[{"Addr":"127.0.0.9","Options":[{"Level":1,"Name":36,"Int":7,"Bytes":null,"State":0}]},{"Addr":"::1"}],"FreeBind":true,"Options":[{"Level":1,"Name":36,"Int":7,"Bytes":null,"State":0}]}}`},
		"two sources, older": {"", "upstream_bind_config: {source_address: {address: 127.0.0.9, port_value: 0}, additional_source_addresses: [{address: \"::1\", port_value: 0}], local_address_selector: {name: d, typed_config: {\"@type\": type.googleapis.com/envoy.config.upstream.local_address_selector.v3.DefaultLocalAddressSelector}}}\n",
			`{"Bind":{"From":[{"Addr":"127.0.0.9"},{"Addr":"::1"}]}}`},
		"announced with more": {"", "transport_socket: {name: p, typed_config: {\"@type\": " + announcing + ", config: {version: V2, pass_through_tlvs: {match_type: INCLUDE, tlv_type: [5]}, added_tlvs: [{type: 65, value: aGk=}]}, transport_socket: {name: raw, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}\n",
			`{"Announce":2,"Extensions":{"Passed":{"All":false,"Types":"\u0005"},"Added":"A\u0000\u0002hi"}}`},
		"raw buffer": {"", "transport_socket: {name: raw, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}\ntransport_socket_matches: [{name: plain, match: {tls: \"no\"}, transport_socket: {name: raw, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}]\n",
			`{"Sockets":[{"Name":"plain","Match":{"tls":"no"},"TLS":null}]}`},
		"locality": {"-", "load_assignment: {cluster_name: c, endpoints: [{metadata: {filter_metadata: {envoy.transport_socket_match: {tls: \"on\"}, other: {x: \"y\"}}}, lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 80}}}}]}]}\n",
			`{"Endpoints":{"Cluster":"c","Localities":[{"Region":"","Zone":"","SubZone":"","Priority":0,"Weight":0,"Endpoints":[{"Host":"10.0.0.1","Port":80,"Pipe":"","Hostname":"","Health":0,"Weight":0,"Metadata":null,"OfLocality":{"tls":"on"},"Check":null}]}],"Overprovisioning":0,"WeightedHealth":false}}`},
		"endpoint": {"-", "load_assignment: {cluster_name: c, policy: {weighted_priority_health: true}, endpoints: [{lb_endpoints: [{metadata: {filter_metadata: {envoy.lb: {v: 1}, other: {x: y}}}, endpoint: {health_check_config: {port_value: 81, hostname: h}, address: {socket_address: {address: 10.0.0.1, port_value: 80}}}}]}]}\n",
			`{"Endpoints":{"Cluster":"c","Localities":[{"Region":"","Zone":"","SubZone":"","Priority":0,"Weight":0,"Endpoints":[{"Host":"10.0.0.1","Port":80,"Pipe":"","Hostname":"","Health":0,"Weight":0,"Metadata":{"envoy.lb":{"v":1},"other":{"x":true}},"Check":{"Disabled":false,"Address":"","Port":81,"Hostname":"h"}}]}],"Overprovisioning":0,"WeightedHealth":true}}`},
	} {
		t.Run(name, func(t *testing.T) {
			base, err := clusterOf(t, oneEndpoint)
			if err != nil {
				t.Fatal(err)
			}
			text := tc.text
			if tc.base != "-" {
				text = oneEndpoint + text
			}
			got, err := clusterOf(t, text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(parseJSON(t, tc.want), changes(t, base, got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func parseJSON(t *testing.T, text string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// changes are the fields of got that differ from base's.
func changes(t *testing.T, base, got *cluster.Config) map[string]any {
	t.Helper()
	asMap := func(c *cluster.Config) map[string]any {
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		m := parseJSON(t, string(b))
		if h, ok := m["HTTP"].(map[string]any); ok {
			delete(h, "HTTP2")
		}
		return m
	}
	before, after := asMap(base), asMap(got)
	for k, v := range after {
		if cmp.Equal(v, before[k]) || k == "Endpoints" && cmp.Equal(v, before[k]) {
			delete(after, k)
		}
	}
	if e, ok := after["Endpoints"].(map[string]any); ok && strings.Contains(string(mustJSON(t, e)), "api.example") {
		delete(after, "Endpoints")
	}
	return after
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHealthCheckFields(t *testing.T) {
	got, err := clusterOf(t, oneEndpoint+aCheck+`  interval_jitter: 1s
  interval_jitter_percent: 10
  initial_jitter: 2s
  unhealthy_interval: 3s
  reuse_connection: false
  always_log_health_check_failures: true
  transport_socket_match_criteria: {check: "yes"}
  tls_options: {alpn_protocols: [http/1.1]}
  http_health_check:
    host: api
    path: /healthz
    method: POST
    send: {text: "6869"}
    receive: [{binary: b2s=}]
    expected_statuses: [{start: 200, end: 300}]
    retriable_statuses: [{start: 500, end: 501}]
    request_headers_to_add: [{header: {key: X-A, value: 100%%}}, {header: {key: user-agent, value: x}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]
    request_headers_to_remove: [X-B]
    service_name_matcher: {prefix: api}
`)
	if err != nil {
		t.Fatal(err)
	}
	prefix := "api"
	want := &cluster.HealthCheck{
		Timeout: time.Second, Interval: 5 * time.Second, NoTraffic: time.Minute, NoTrafficHealthy: time.Minute,
		Unhealthy: 3 * time.Second, UnhealthyEdge: 3 * time.Second, HealthyEdge: 5 * time.Second,
		InitialJitter: 2 * time.Second, Jitter: time.Second, JitterPercent: 10, UnhealthyThreshold: 3, HealthyThreshold: 2,
		NoReuse: true, AlwaysLogFailures: true, ALPN: []string{"http/1.1"}, SocketMatch: map[string]any{"check": "yes"},
		HTTP: &cluster.HTTPCheck{
			Host: "api", Path: "/healthz", Method: "POST", Body: []byte("hi"), Receive: [][]byte{[]byte("ok")}, BodyLimit: 1024,
			Expected: []cluster.StatusRange{{From: 200, To: 300}}, Retriable: []cluster.StatusRange{{From: 500, To: 501}},
			Headers: []route.HeaderAdd{{Name: "X-A", Value: "100%%"}, {Name: "user-agent", Value: "x", Action: route.OverwriteIfExistsOrAdd}},
			Remove:  []string{"x-b"}, ServiceName: &cluster.NameMatch{Prefix: &prefix},
		},
	}
	if diff := cmp.Diff(want, got.HealthCheck); diff != "" {
		t.Error(diff)
	}
	got, err = clusterOf(t, oneEndpoint+aCheck+"  tcp_health_check: {send: {text: \"00ff\"}, receive: [{text: \"01\"}], proxy_protocol_config: {version: V2}}\n")
	if err != nil {
		t.Fatal(err)
	}
	grpc, err := clusterOf(t, oneEndpoint+"http2_protocol_options: {}\n"+aCheck+"  grpc_health_check: {service_name: echo, authority: api, initial_metadata: [{header: {key: x-a, value: b}}]}\n")
	if err != nil {
		t.Fatal(err)
	}
	wantGRPC := &cluster.GRPCCheck{Service: "echo", Authority: "api", Metadata: []route.HeaderAdd{{Name: "x-a", Value: "b"}}}
	if diff := cmp.Diff(wantGRPC, grpc.HealthCheck.GRPC); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(&cluster.TCPCheck{Send: []byte{0, 255}, Receive: [][]byte{{1}}, Announce: 2}, got.HealthCheck.TCP); diff != "" {
		t.Error(diff)
	}
}

func TestPoliciesInPlaceOfRoutes(t *testing.T) {
	got, err := clusterOf(t, oneEndpoint+httpOptions+"    retry_policy: {retry_on: refused-stream, num_retries: 3}\n    hash_policy: [{header: {header_name: X-H}}]\n    explicit_http_config: {http_protocol_options: {}}\n")
	if err != nil {
		t.Fatal(err)
	}
	if r, h := got.HTTP.Retry, got.HTTP.Hash; r == nil || r.On != route.RetryRefusedStream || r.NumRetries != 3 || len(h) != 1 || h[0].Header != "x-h" {
		t.Errorf("%+v", got.HTTP)
	}
}

// TestCopiesAndErrorsOfACluster: what a cluster has copies made for, and which answers it takes for
// errors.
func TestCopiesAndErrorsOfACluster(t *testing.T) {
	const matcher = "    outlier_detection: {error_matcher: "
	got, err := clusterOf(t, oneEndpoint+httpOptions+"    explicit_http_config: {http_protocol_options: {}}\n"+
		"    request_mirror_policies: [{cluster: a, runtime_fraction: {default_value: {numerator: 50}}}, {cluster_header: X-C}]\n"+
		matcher+`{or_match: {rules: [{not_match: {http_response_headers_match: {headers: [{name: X-A}]}}}, {and_match: {rules: [{http_response_headers_match: {headers: [{name: b}]}}, {http_response_headers_match: {headers: [{name: c}]}}]}}]}}}`+"\n")
	if err != nil {
		t.Fatal(err)
	}
	if m := got.HTTP.Mirrors; m == nil || len(m.Policies) != 2 || m.Policies[0].Share != route.All/2 || m.Policies[1].ClusterHeader != "x-c" {
		t.Errorf("%+v", m)
	}
	if names := got.HTTP.Copies(); len(names) != 1 || names[0] != "a" {
		t.Errorf("copies go to %q", names)
	}
	yes := true
	header := func(name string) route.AnswerMatch {
		return route.AnswerMatch{Headers: []route.HeaderMatch{{Name: name, Present: &yes}}}
	}
	not := header("x-a")
	want := &route.AnswerMatch{Any: []route.AnswerMatch{{Not: &not}, {All: []route.AnswerMatch{header("b"), header("c")}}}}
	if diff := cmp.Diff(want, got.HTTP.Errors); diff != "" {
		t.Error(diff)
	}
	for fields, refused := range map[string]string{
		"    request_mirror_policies: [{runtime_fraction: {default_value: {numerator: 50}}}]\n": ".request_mirror_policies[0]: exactly one of cluster and cluster_header",
		matcher + "{any_match: true}}\n":                                                                               ".error_matcher.any_match: unsupported",
		matcher + "{http_request_headers_match: {headers: [{name: a}]}}}\n":                                            ".error_matcher.http_request_headers_match: unsupported",
		matcher + "{http_response_headers_match: {}}}\n":                                                               ".http_response_headers_match.headers: is missing",
		matcher + "{or_match: {rules: [{http_response_headers_match: {headers: [{name: a}]}}]}}}\n":                    "or_match",
		matcher + "{not_match: {http_response_headers_match: {headers: [{name: a, range_match: {}}, {name: ''}]}}}}\n": "headers[1].name",
	} {
		_, err := clusterOf(t, oneEndpoint+httpOptions+"    explicit_http_config: {http_protocol_options: {}}\n"+fields)
		if err == nil || !strings.Contains(err.Error(), refused) {
			t.Errorf("%s: %v", fields, err)
		}
	}
}

func TestOutlierFields(t *testing.T) {
	got, err := clusterOf(t, oneEndpoint+`outlier_detection:
  consecutive_gateway_failure: 7
  enforcing_consecutive_gateway_failure: 50
  split_external_local_origin_errors: true
  success_rate_stdev_factor: 1500
  failure_percentage_threshold: 60
  enforcing_failure_percentage: 90
  base_ejection_time: 400s
  max_ejection_time_jitter: 1s
  successful_active_health_check_uneject_host: false
  always_eject_one_host: true
`)
	if err != nil {
		t.Fatal(err)
	}
	want := &cluster.Outlier{
		Consecutive5xx: 5, EnforcingConsecutive5xx: 100, ConsecutiveGateway: 7, EnforcingConsecutiveGateway: 50,
		SplitLocalOrigin: true, ConsecutiveLocalOrigin: 5, EnforcingConsecutiveLocalOrigin: 100,
		EnforcingSuccessRate: 100, EnforcingLocalSuccessRate: 100, RateMinHosts: 5, RateVolume: 100, StdevFactor: 1500,
		EnforcingFailurePercent: 90, FailurePercent: 60, FailureMinHosts: 5, FailureVolume: 50,
		Interval: 10 * time.Second, BaseEjectionTime: 400 * time.Second, MaxEjectionTime: 400 * time.Second,
		EjectionJitter: time.Second, MaxEjectionPercent: 10, AlwaysEjectOne: true, KeepOnCheck: true,
	}
	if diff := cmp.Diff(want, got.Outlier); diff != "" {
		t.Error(diff)
	}
}

// TestClusterRefused: what cannot be honoured is refused where it is written.
func TestClusterRefused(t *testing.T) {
	http := func(s string) string {
		return oneEndpoint + aCheck + "  http_health_check: {path: /, " + s + "}\n"
	}
	for name, tc := range map[string]struct{ text, want string }{
		"least ttl":                 {"cluster_type:\n  name: dns\n  typed_config: {\"@type\": type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster, dns_min_refresh_rate: 0.5s}\n" + namedEndpoint, "dns_min_refresh_rate: value must be greater than or equal to 1s"},
		"resolver":                  {"type: STRICT_DNS\ntyped_dns_resolver_config: {name: r}\n" + namedEndpoint, "typed_dns_resolver_config.typed_config: value is required"},
		"another resolver":          {"type: STRICT_DNS\ntyped_dns_resolver_config: {name: r, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig}}\n" + namedEndpoint, "typed_dns_resolver_config: has no resolver of type CaresDnsResolverConfig"},
		"rotation of none":          {"type: STRICT_DNS\n" + cares("rotate_nameservers: true") + namedEndpoint, "typed_dns_resolver_config.typed_config.rotate_nameservers: needs resolvers"},
		"resolver's port":           {"type: STRICT_DNS\ndns_resolvers: [{socket_address: {address: 10.0.0.53, port_value: 0}}]\n" + namedEndpoint, "dns_resolvers[0]: a nameserver is an IP address with a port"},
		"resolver's name":           {"type: STRICT_DNS\ndns_resolution_config: {resolvers: [{socket_address: {address: dns.test, port_value: 53}}]}\n" + namedEndpoint, "dns_resolution_config.resolvers[0].socket_address.address: \"dns.test\" is not an IP address"},
		"resolver's socket":         {"type: STRICT_DNS\ndns_resolvers: [{pipe: {path: /dns}}]\n" + namedEndpoint, "dns_resolvers[0]: a nameserver is an IP address"},
		"many resolvers":            {"type: STRICT_DNS\ndns_resolvers: [" + strings.Repeat("{socket_address: {address: 10.0.0.53, port_value: 53}}, ", 9) + "]\n" + namedEndpoint, "dns_resolvers: has more than 8 servers"},
		"logical endpoints":         {"type: LOGICAL_DNS\nload_assignment: {cluster_name: c, endpoints: []}\n", "load_assignment: a logical DNS cluster has exactly one"},
		"dns back-off":              {"type: STRICT_DNS\ndns_failure_refresh_rate: {base_interval: 2s, max_interval: 1s}\n" + namedEndpoint, "dns_failure_refresh_rate.max_interval: is below base_interval"},
		"dst policy":                {"type: ORIGINAL_DST\n", "lb_policy: is ROUND_ROBIN"},
		"dst endpoints":             {"type: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\n" + oneEndpoint, "load_assignment: an ORIGINAL_DST cluster has no endpoints"},
		"dst header":                {"type: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\noriginal_dst_lb_config: {http_header_name: x}\n", "original_dst_lb_config.http_header_name: needs use_http_header"},
		"dst metadata":              {"type: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\noriginal_dst_lb_config: {metadata_key: {key: x}}\n", "original_dst_lb_config.metadata_key: unsupported"},
		"dst elsewhere":             {oneEndpoint + "original_dst_lb_config: {}\n", "original_dst_lb_config: needs type ORIGINAL_DST"},
		"cleanup":                   {oneEndpoint + "cleanup_interval: 1s\n", "cleanup_interval: needs type ORIGINAL_DST"},
		"provided":                  {oneEndpoint + "lb_policy: CLUSTER_PROVIDED\n", "lb_policy: is CLUSTER_PROVIDED"},
		"ring":                      {oneEndpoint + "lb_policy: RING_HASH\nring_hash_lb_config: {minimum_ring_size: 9, maximum_ring_size: 8}\n", "ring_hash_lb_config.maximum_ring_size: 8"},
		"hostnames of addresses":    {oneEndpoint + "lb_policy: RING_HASH\ncommon_lb_config: {consistent_hashing_lb_config: {use_hostname_for_hashing: true}}\n", "common_lb_config.consistent_hashing_lb_config.use_hostname_for_hashing: needs type STRICT_DNS"},
		"hostnames of no hash":      {oneEndpoint + "common_lb_config: {consistent_hashing_lb_config: {use_hostname_for_hashing: true}}\n", "common_lb_config.consistent_hashing_lb_config.use_hostname_for_hashing: needs type STRICT_DNS"},
		"unknown zone":              {strings.Replace(oneEndpoint, "10.0.0.1", "'fe80::1%nothing'", 1), "\"fe80::1%nothing\" is not an IP address"},
		"zone of no link":           {strings.Replace(oneEndpoint, "10.0.0.1", "'2001:db8::1%lo'", 1), "\"2001:db8::1%lo\" is not an IP address"},
		"zone beyond 32 bits":       {strings.Replace(oneEndpoint, "10.0.0.1", "'fe80::1%4294967296'", 1), "\"fe80::1%4294967296\" is not an IP address"},
		"prime":                     {oneEndpoint + "lb_policy: MAGLEV\nmaglev_lb_config: {table_size: 100}\n", "maglev_lb_config.table_size: 100 is not a prime"},
		"two policies":              {oneEndpoint + "lb_subset_config: {}\n" + typed + "random.v3.Random\n", "lb_subset_config: cannot be combined"},
		"two localities":            {oneEndpoint + "common_lb_config: {locality_weighted_lb_config: {}}\n" + typed + "random.v3.Random\n", "common_lb_config: zone_aware_lb_config, "},
		"zone percentage":           {oneEndpoint + "common_lb_config: {zone_aware_lb_config: {routing_enabled: {value: 101}}}\n", "common_lb_config.zone_aware_lb_config.routing_enabled"},
		"typed percentage":          {oneEndpoint + typed + "random.v3.Random\n        locality_lb_config: {zone_aware_lb_config: {routing_enabled: {value: -1}}}\n", "locality_lb_config.zone_aware_lb_config.routing_enabled"},
		"zone basis":                {oneEndpoint + typed + "random.v3.Random\n        locality_lb_config: {zone_aware_lb_config: {locality_basis: 7}}\n", "locality_lb_config.zone_aware_lb_config.locality_basis"},
		"unknown policy":            {oneEndpoint + typed + "pick_first.v3.PickFirst\n", "unsupported extension"},
		"hash policy":               {oneEndpoint + typed + "maglev.v3.Maglev\n        consistent_hashing_lb_config: {hash_policy: [{}]}\n", "consistent_hashing_lb_config.hash_policy[0]"},
		"typed provided":            {oneEndpoint + typed + "cluster_provided.v3.ClusterProvided\n", "need the cluster_provided policy, others cannot have it"},
		"subset keys":               {oneEndpoint + "lb_subset_config: {subset_selectors: [{keys: [a], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [a]}]}\n", "subset_selectors[0].fallback_keys_subset: must be fewer"},
		"subset other key":          {oneEndpoint + "lb_subset_config: {subset_selectors: [{keys: [a, b], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [c]}]}\n", `"c" is not among keys`},
		"single host":               {oneEndpoint + "lb_subset_config: {subset_selectors: [{keys: [a, b], single_host_per_subset: true}]}\n", "single_host_per_subset: needs exactly one key"},
		"subset locality":           {oneEndpoint + "lb_subset_config: {locality_weight_aware: true, subset_selectors: [{keys: [a]}]}\n", "locality_weight_aware: needs common_lb_config"},
		"override":                  {oneEndpoint + "common_lb_config: {override_host_status: {}}\n", "common_lb_config.override_host_status: unsupported"},
		"breaker twice":             {oneEndpoint + "circuit_breakers: {thresholds: [{priority: HIGH}, {priority: HIGH}]}\n", "thresholds[1]: there is one for this priority already"},
		"outlier times":             {oneEndpoint + "outlier_detection: {max_ejection_time: 1s}\n", "outlier_detection.max_ejection_time: is below base_ejection_time"},
		"monitors":                  {oneEndpoint + "outlier_detection: {monitors: [{name: x}]}\n", "monitors: unsupported"},
		"two checks":                {oneEndpoint + "health_checks:\n- {timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}\n- {timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}\n", "health_checks[1]: a cluster has one health check"},
		"no threshold":              {oneEndpoint + "health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 0, healthy_threshold: 1, tcp_health_check: {}}]\n", "health_checks[0]: thresholds must be at least 1"},
		"aggregate check":           {aggregateType + aCheck + "  tcp_health_check: {}\n", "health_checks[0]: the cluster has no endpoints of its own"},
		"check codec":               {http("codec_client_type: HTTP3"), "codec_client_type: is HTTP3"},
		"grpc check":                {oneEndpoint + aCheck + "  grpc_health_check: {}\n", "grpc_health_check: needs a cluster that speaks HTTP/2"},
		"host pending":              {oneEndpoint + "circuit_breakers: {per_host_thresholds: [{max_pending_requests: 1}]}\n", "per_host_thresholds[0].max_pending_requests: unsupported"},
		"host priority":             {oneEndpoint + "circuit_breakers: {per_host_thresholds: [{priority: HIGH, max_connections: 1}]}\n", "per_host_thresholds[0].priority: connections are shared"},
		"check body":                {http("send: {text: \"00\"}"), "http_health_check.send: method METHOD_UNSPECIFIED has no body"},
		"check receive":             {http("response_buffer_size: 1, receive: [{text: \"0000\"}]"), "response_buffer_size: is less"},
		"check status":              {http("expected_statuses: [{start: 200, end: 700}]"), "expected_statuses[0]: [200, 700)"},
		"check header":              {http("request_headers_to_add: [{header: {key: x, value: \"%NOTHING%\"}}]"), "operator %NOTHING% is unknown"},
		"check host":                {http("request_headers_to_add: [{header: {key: Host, value: x}}]"), `"Host" cannot be set here`},
		"check hex":                 {oneEndpoint + aCheck + "  tcp_health_check: {send: {text: zz}}\n", "is not hexadecimal"},
		"bind port":                 {oneEndpoint + "upstream_bind_config: {source_address: {address: 127.0.0.1, port_value: 5}}\n", "source_address.port_value: one port"},
		"addresses of a name":       {"type: STRICT_DNS\n" + "load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {additional_addresses: [{address: {socket_address: {address: 10.0.0.1, port_value: 80}}}], address: {socket_address: {address: a.example, port_value: 80}}}}]}]}\n", "additional_addresses: are for types STATIC and EDS"},
		"addresses of a path":       {"load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {additional_addresses: [{address: {socket_address: {address: 10.0.0.1, port_value: 80}}}], address: {pipe: {path: /x}}}}]}]}\n", "additional_addresses: are for hosts with an IP address"},
		"a path beside an address":  {"load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {additional_addresses: [{address: {pipe: {path: /x}}}], address: {socket_address: {address: 10.0.0.1, port_value: 80}}}}]}]}\n", "additional_addresses[0].address.pipe: use an IP address"},
		"a name beside an address":  {"load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {additional_addresses: [{address: {socket_address: {address: a.example, port_value: 80}}}], address: {socket_address: {address: 10.0.0.1, port_value: 80}}}}]}]}\n", "additional_addresses[0].address.socket_address.address: "},
		"no port beside an address": {"load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {additional_addresses: [{address: {socket_address: {address: 10.0.0.2, port_value: 0}}}], address: {socket_address: {address: 10.0.0.1, port_value: 80}}}}]}]}\n", "additional_addresses[0].address.socket_address.port_value: 0 cannot be"},
		"paths first":               {oneEndpoint + "upstream_connection_options: {happy_eyeballs_config: {first_address_family_version: PIPE}}\n", "happy_eyeballs_config.first_address_family_version: is PIPE"},
		"sources of one family":     {oneEndpoint + "upstream_bind_config: {source_address: {address: 127.0.0.1, port_value: 0}, extra_source_addresses: [{address: {address: 127.0.0.2, port_value: 0}}]}\n", "upstream_bind_config.extra_source_addresses: is of the same family"},
		"an extra source alone":     {oneEndpoint + "upstream_bind_config: {extra_source_addresses: [{address: {address: 127.0.0.2, port_value: 0}}]}\n", "upstream_bind_config.extra_source_addresses: needs a source_address"},
		"three sources":             {oneEndpoint + "upstream_bind_config: {source_address: {address: 127.0.0.1, port_value: 0}, additional_source_addresses: [{address: \"::1\", port_value: 0}, {address: \"::2\", port_value: 0}]}\n", "upstream_bind_config.additional_source_addresses: has 2 addresses"},
		"both extra sources":        {oneEndpoint + "upstream_bind_config: {source_address: {address: 127.0.0.1, port_value: 0}, additional_source_addresses: [{address: \"::1\", port_value: 0}], extra_source_addresses: [{address: {address: \"::1\", port_value: 0}}]}\n", "upstream_bind_config.additional_source_addresses: is beside"},
		"a listening option":        {oneEndpoint + "upstream_bind_config: {socket_options: [{level: 1, name: 36, int_value: 7, state: STATE_LISTENING}]}\n", "upstream_bind_config.socket_options[0].state: is STATE_LISTENING"},
		"auto":                      {oneEndpoint + httpOptions + "    auto_config: {}\n", "auto_config: needs a transport_socket with TLS"},
		"both protocols":            {oneEndpoint + "http_protocol_options: {}\nhttp2_protocol_options: {}\n", "protocol_selection: HTTP/1 and HTTP/2 options together"},
		"old and typed":             {oneEndpoint + "common_http_protocol_options: {}\n" + httpOptions + "    explicit_http_config: {http_protocol_options: {}}\n", "typed_extension_protocol_options: the cluster's own HTTP options are set too"},
		"stream duration":           {oneEndpoint + "common_http_protocol_options: {max_stream_duration: -1s}\n", "common_http_protocol_options.max_stream_duration: must not be negative"},
		"HTTP/1.0":                  {oneEndpoint + "http_protocol_options: {accept_http_10: true}\n", "http_protocol_options.accept_http_10: has no meaning"},
		"names of the mesh":         {oneEndpoint + "transport_socket: {name: tls, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {tls_certificate_sds_secret_configs: [{name: default, sds_config: {resource_api_version: V3, api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: hauberk_agent}}]}}}], validation_context_sds_secret_config: {name: ROOTCA, sds_config: {resource_api_version: V3, api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: hauberk_agent}}]}}}}}}\nupstream_http_protocol_options: {auto_sni: true}\n", "upstream_http_protocol_options: is not for the mesh"},
		"name's header":             {oneEndpoint + "upstream_http_protocol_options: {auto_sni: true, override_auto_sni_header: 'a b'}\n", "upstream_http_protocol_options.override_auto_sni_header: value does not match regex"},
		"pseudo-header":             {oneEndpoint + "upstream_http_protocol_options: {auto_sni: true, override_auto_sni_header: ':path'}\n", "upstream_http_protocol_options.override_auto_sni_header: \":path\" is not the name of a header field"},
		"names of several":          {aggregateType + "upstream_http_protocol_options: {auto_sni: true}\n", "upstream_http_protocol_options: an aggregate cluster opens no connections"},
		"names in two":              {oneEndpoint + "upstream_http_protocol_options: {auto_sni: true}\n" + httpOptions + "    explicit_http_config: {http_protocol_options: {}}\n", "typed_extension_protocol_options: the cluster's own HTTP options are set too"},
		"announced over":            {oneEndpoint + "transport_socket: {name: p, typed_config: {\"@type\": " + announcing + "}}\n", "transport_socket.typed_config.transport_socket: "},
		"announced twice":           {oneEndpoint + "transport_socket: {name: p, typed_config: {\"@type\": " + announcing + ", transport_socket: {name: p, typed_config: {\"@type\": " + announcing + ", transport_socket: {name: p}}}}}\n", "transport_socket.typed_config.transport_socket: a cluster takes"},
		"passed in V1":              {oneEndpoint + "transport_socket: {name: p, typed_config: {\"@type\": " + announcing + ", config: {pass_through_tlvs: {}}, transport_socket: {name: p}}}\n", "transport_socket.typed_config.config.pass_through_tlvs: is for headers of V2"},
		"added in V1":               {oneEndpoint + "transport_socket: {name: p, typed_config: {\"@type\": " + announcing + ", config: {added_tlvs: [{type: 1, value: aGk=}]}, transport_socket: {name: p}}}\n", "transport_socket.typed_config.config.added_tlvs: is for headers of V2"},
		"types of all":              {oneEndpoint + "transport_socket: {name: p, typed_config: {\"@type\": " + announcing + ", config: {version: V2, pass_through_tlvs: {tlv_type: [1]}}, transport_socket: {name: p}}}\n", "transport_socket.typed_config.config.pass_through_tlvs.tlv_type: is for match_type INCLUDE"},
		"an empty one added":        {oneEndpoint + "transport_socket: {name: p, typed_config: {\"@type\": " + announcing + ", config: {version: V2, added_tlvs: [{type: 1}]}, transport_socket: {name: p}}}\n", "transport_socket.typed_config.config.added_tlvs[0].value: is missing"},
		"more than a header has":    {oneEndpoint + "transport_socket: {name: p, typed_config: {\"@type\": " + announcing + ", config: {version: V2, added_tlvs: [{type: 1, value: " + strings.Repeat("aGlq", 1348) + "}]}, transport_socket: {name: p}}}\n", "added_tlvs: have 4047 bytes, and a header has room for 4044"},
		"a formatted one":           {oneEndpoint + "transport_socket: {name: p, typed_config: {\"@type\": " + announcing + ", config: {version: V2, added_tlvs: [{type: 1, format_string: {}}]}, transport_socket: {name: p}}}\n", "transport_socket.typed_config.config.added_tlvs[0].format_string: unsupported"},
		"announced nobody":          {oneEndpoint + "transport_socket: {name: p, typed_config: {\"@type\": " + announcing + ", allow_unspecified_address: true, transport_socket: {name: p}}}\n", "transport_socket.typed_config.allow_unspecified_address: unsupported"},
		"socket":                    {oneEndpoint + "transport_socket_matches: [{name: x, transport_socket: {name: t, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext}}}]\n", "transport_socket_matches[0].transport_socket: a cluster takes"},
		"drop twice":                {dropping("{category: x}, {category: z}"), "load_assignment.policy.drop_overloads: has 2 categories"},
		"drop nothing":              {dropping("{drop_percentage: {numerator: 1}}"), "load_assignment.policy.drop_overloads[0].category: value length must be at least 1"},
		"drop too much":             {dropping("{category: x, drop_percentage: {numerator: 10001, denominator: TEN_THOUSAND}}"), "load_assignment.policy.drop_overloads[0].drop_percentage.numerator: 10001 is more than the denominator, 10000"},
		"drop of what":              {dropping("{category: x, drop_percentage: {numerator: 1, denominator: 7}}"), "load_assignment.policy.drop_overloads[0].drop_percentage.denominator: value must be one of the defined enum values"},
		"stale at once":             {"load_assignment: {cluster_name: c, policy: {endpoint_stale_after: 0s}}\n", "load_assignment.policy.endpoint_stale_after: value must be greater than 0s"},
		"stale before":              {"load_assignment: {cluster_name: c, policy: {endpoint_stale_after: -1s}}\n", "load_assignment.policy.endpoint_stale_after: value must be greater than 0s"},
		"check port twice":          {"load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {health_check_config: {port_value: 1, address: {socket_address: {address: 10.0.0.2, port_value: 2}}}, address: {socket_address: {address: 10.0.0.1, port_value: 80}}}}]}]}\n", "health_check_config.port_value: the address has a port too"},
		"a retry's condition":       {oneEndpoint + httpOptions + "    explicit_http_config: {http_protocol_options: {}}\n    retry_policy: {retry_on: always}\n", ".retry_policy.retry_on: unsupported condition"},
		"a hash of nothing":         {oneEndpoint + httpOptions + "    explicit_http_config: {http_protocol_options: {}}\n    hash_policy: [{filter_state: {key: a}}]\n", ".hash_policy[0].filter_state: unsupported"},
		"resolvers as fallback":     {"type: STRICT_DNS\n" + cares(nameservers+", use_resolvers_as_fallback: true") + namedEndpoint, "typed_dns_resolver_config.typed_config.use_resolvers_as_fallback: unsupported; remove the field: resolvers are asked in place"},
		"too many tries":            {"type: STRICT_DNS\n" + cares(nameservers+", query_tries: 17") + namedEndpoint, "typed_dns_resolver_config.typed_config.query_tries: is not from 1 to 16"},
		"too long a try":            {"type: STRICT_DNS\n" + cares(nameservers+", query_timeout_seconds: 6") + namedEndpoint, "typed_dns_resolver_config.typed_config.query_timeout_seconds: is not from 1 to 5"},
		"tries of nobody":           {"type: STRICT_DNS\n" + cares("query_tries: 2") + namedEndpoint, "typed_dns_resolver_config.typed_config.query_tries: needs resolvers"},
		"times of nobody":           {"type: STRICT_DNS\n" + cares("query_timeout_seconds: 2") + namedEndpoint, "typed_dns_resolver_config.typed_config.query_timeout_seconds: needs resolvers"},
		"too many retries":          {"type: STRICT_DNS\ntyped_dns_resolver_config: {name: r, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig, num_retries: 16}}\n" + namedEndpoint, "typed_dns_resolver_config.typed_config.num_retries: is not from 0 to 15"},
		"no try":                    {"type: STRICT_DNS\n" + cares("query_tries: 0") + namedEndpoint, "query_tries: value must be greater than or equal to 1"},
		"check by ALPN":             {oneEndpoint + aCheck + "  http_health_check: {path: /, use_alpn_protocol: true}\n", "http_health_check.use_alpn_protocol: needs a transport_socket with TLS"},
		"extensions of a check":     {oneEndpoint + aCheck + "  tcp_health_check: {proxy_protocol_config: {version: V2, pass_through_tlvs: {}}}\n", "tcp_health_check.proxy_protocol_config.pass_through_tlvs: is for clients"},
		"event service":             {oneEndpoint + aCheck + "  event_service: {}\n  tcp_health_check: {}\n", "event_service: unsupported"},
		"event sink":                {oneEndpoint + aCheck + "  event_logger: [{name: x, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig}}]\n  tcp_health_check: {}\n", "event_logger[0]: is no HealthCheckEventFileSink"},
		"event file":                {oneEndpoint + aCheck + "  event_logger: [{name: x, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink}}]\n  tcp_health_check: {}\n", "event_log_path"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := clusterOf(t, tc.text)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v\nwant %s", err, tc.want)
			}
		})
	}
}

// TestDocumentedCluster reads the examples of docs/clusters.md.
func TestDocumentedCluster(t *testing.T) {
	b, err := os.ReadFile("../../docs/clusters.md")
	if err != nil {
		t.Fatal(err)
	}
	read := map[string]*cluster.Config{}
	for _, rest := range strings.Split(string(b), "```yaml\n")[1:] {
		example, _, _ := strings.Cut(rest, "```")
		if strings.HasPrefix(example, "clusters:") {
			example = "static_resources:\n  " + strings.ReplaceAll(example, "\n", "\n  ")
		}
		out, err := ParseBootstrap([]byte(example))
		if err != nil {
			t.Fatal(err)
		}
		if out.Own != nil && (out.Own.Cluster != out.Clusters[0].Name || out.Own.Zone.Zone != "eu-a" || out.Clusters[1].Zones.MinHosts != 2) {
			t.Errorf("its own cluster is %+v", out.Own)
		}
		read[out.Clusters[0].Name] = out.Clusters[0]
	}
	api, outside, mail, overloaded := read["api"], read["outside"], read["mail"], read["overloaded"]
	if len(read) != 7 || api == nil || outside == nil || mail == nil || overloaded == nil || read["shop"] == nil || read["levels"] == nil || read["watched"] == nil {
		t.Fatalf("%d examples: %v", len(read), read)
	}
	if events := read["watched"].HealthCheck.Events; len(events) != 1 || events[0].Path != "/var/log/hauberk/checks.json" || events[0].Field != "health_checks[0].event_logger[0].typed_config.event_log_path" {
		t.Errorf("the events of %v", events)
	}
	if api.Type != cluster.StrictDNS || api.LB != cluster.LeastRequest || api.HealthCheck.HTTP.Path != "/healthz" || !api.Limits.TrackRemaining {
		t.Errorf("%+v", api)
	}
	if n := outside.HTTP.Names; n == nil || !n.SNI || !n.Verify || outside.TLS == nil {
		t.Errorf("%+v", outside)
	}
	if overloaded.Endpoints.DropPerMillion != 25_000 {
		t.Errorf("%+v", overloaded.Endpoints)
	}
	if mail.Announce != 2 || mail.TLS != nil {
		t.Errorf("%+v", mail)
	}
}
