//go:build e2e

package files

import (
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// a flaw turns part of a text into what is refused.
type flaw struct {
	name, from, to string
	whole          bool
}

var flaws = map[string][]flaw{
	resource.ListenerType: {
		{"no stat_prefix", "stat_prefix: in", `stat_prefix: ""`, false},
		{"no address", "{address: HOST", "{address: nowhere", false},
		{"no such filter", "envoy.extensions.filters.http.router.v3.Router", "envoy.config.core.v3.Address", false},
		{"chain twice", "filter_chains: [", `filter_chains: [{filter_chain_match: {destination_port: 7}}, {filter_chain_match: {destination_port: 7}}, `, false},
		{"codec", "codec_type: AUTO", "codec_type: 77", false},
		{"certificate", "inline_string: CRT0", "inline_string: garbage", false},
		{"another's key", "inline_string: KEY0", "inline_string: KEY1", false},
		{"no source of routes", "config_source: " + eds + "}, http_filters", "config_source: {resource_api_version: V3}}, http_filters", false},
		{"negative time", "codec_type: AUTO", "codec_type: AUTO, stream_idle_timeout: -1s", false},
		{"port", "port_value: PORT", "port_value: 70PORT", true},
		{"domain twice", `domains: ["*"]`, `domains: ["*", "*"]`, false},
		{"names with a star within", "server_names: [first.example]", "server_names: [f*.example]", true},
		{"prefix", "server_names: [first.example]", "server_names: [first.example], prefix_ranges: [{address_prefix: nowhere, prefix_len: 8}]", true},
		{"length of a prefix", "server_names: [first.example]", "server_names: [first.example], prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 129}]", true},
		{"negative wait", "filter_chains: [", "listener_filters_timeout: -1s, filter_chains: [", true},
		{"ciphers", "common_tls_context: {tls_cert", "common_tls_context: {tls_params: {cipher_suites: [nothing]}, tls_cert", true},
		{"windows", "codec_type: AUTO", "codec_type: AUTO, http2_protocol_options: {initial_stream_window_size: 7}", true},
		{"hops", "codec_type: AUTO", "codec_type: AUTO, use_remote_address: true, original_ip_detection_extensions: [{name: a, typed_config: {\"@type\": type.googleapis.com/envoy.config.core.v3.Address}}]", true},
		{"router twice", "http_filters: [", `http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}, `, true},
		{"unnamed address", "address: {socket_address: {address: HOST, ", "address: {socket_address: {address: \"\", ", true},
		{"direct without body", "direct_response: {status: 404", "direct_response: {status: 600", true},
	},
	resource.ClusterType: {
		{"policy by number", "lb_policy: MAGLEV", "lb_policy: 99", true},
		{"interval", "connect_timeout: 1s", "connect_timeout: 1s, outlier_detection: {interval: 0s}", true},
		{"ejected for nothing", "connect_timeout: 1s", "connect_timeout: 1s, outlier_detection: {base_ejection_time: 10s, max_ejection_time: 5s}", true},
		{"priority of limits", "connect_timeout: 1s", "connect_timeout: 1s, circuit_breakers: {thresholds: [{priority: 7}]}", true},
		{"budget", "connect_timeout: 1s", "connect_timeout: 1s, circuit_breakers: {thresholds: [{retry_budget: {budget_percent: {value: 101}}}]}", true},
		{"check without kind", "connect_timeout: 1s", "connect_timeout: 1s, health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1}]", true},
		{"check without time", "connect_timeout: 1s", "connect_timeout: 1s, health_checks: [{interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}]", true},
		{"source address", "connect_timeout: 1s", "connect_timeout: 1s, upstream_bind_config: {source_address: {address: nowhere, port_value: 0}}", true},
		{"fallback", "fallback_policy: NO_FALLBACK", "fallback_policy: 9", true},
		{"selector's own keys", "subset_selectors: [{keys: [stage]}]", "subset_selectors: [{keys: [stage], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [other]}]", true},
		{"subsets of a provided policy", "lb_policy: RING_HASH", "lb_policy: CLUSTER_PROVIDED", true},
		{"streams", "http2_protocol_options: {}", "http2_protocol_options: {max_concurrent_streams: 0}", true},
		{"window", "http2_protocol_options: {}", "http2_protocol_options: {initial_connection_window_size: 7}", true},
		{"pinned to nothing", "trusted_ca: {inline_string: CA0}", "trusted_ca: {inline_string: CA0}, verify_certificate_spki: [x]", true},
		{"no file", "trusted_ca: {inline_string: CA0}", "trusted_ca: {filename: /nowhere}", true},
		{"kind of name", "san_type: DNS", "san_type: SAN_TYPE_UNSPECIFIED", true},
		{"names by", "connect_timeout: 1s", "connect_timeout: 1s, dns_lookup_family: 99", true},
		{"refreshed never", "connect_timeout: 1s", "connect_timeout: 1s, dns_refresh_rate: 0s", true},
		{"hosts of a priority", "type: STATIC, load_assignment: {", "type: STATIC, load_assignment: {policy: {overprovisioning_factor: 0}, ", true},
		{"dropped", "type: STATIC, load_assignment: {", "type: STATIC, load_assignment: {policy: {drop_overloads: [{category: \"\", drop_percentage: {numerator: 1}}]}, ", true},
		{"sort", "connect_timeout: 1s", "connect_timeout: 1s, least_request_lb_config: {choice_count: 1}", true},
		{"slow", "lb_policy: ROUND_ROBIN", "lb_policy: ROUND_ROBIN, round_robin_lb_config: {slow_start_config: {min_weight_percent: {value: 101}}}", true},
		{"hash of a bound", "lb_policy: RING_HASH", "lb_policy: RING_HASH, common_lb_config: {consistent_hashing_lb_config: {hash_balance_factor: 99}}", true},
		{"no time", "connect_timeout: 1s", "connect_timeout: 0s", true},
		{"great ring", "lb_policy: RING_HASH", "lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 8388609}", true},
		{"great table", "lb_policy: MAGLEV", "lb_policy: MAGLEV, maglev_lb_config: {table_size: 5000012}", true}, // of one that is no prime Envoy dies
		{"type", "type: EDS", "type: 99", true},
		{"policy", "lb_policy: ROUND_ROBIN", "lb_policy: CLUSTER_PROVIDED", false},
		{"socket", "connect_timeout: 1s", `connect_timeout: 1s, transport_socket: {name: nothing, typed_config: {"@type": type.googleapis.com/envoy.config.core.v3.Address}}`, false},
		{"panic", "connect_timeout: 1s", "connect_timeout: 1s, common_lb_config: {healthy_panic_threshold: {value: 101}}", true},
		{"name of a static host", "address: 127.0.0.1", "address: localhost.example", false},
		{"anchor", "inline_string: CA0", "inline_string: garbage", false},
		{"retries", "connect_timeout: 1s", "connect_timeout: 1s, outlier_detection: {max_ejection_percent: 101}", true},
		{"no source", "eds_config: " + eds + ", ", "", false},
	},
	resource.RouteType: {
		{"domain twice", `domains: ["*"]`, `domains: ["*", "*"]`, true},
		{"no domain", `domains: ["*"]`, `domains: []`, true},
		{"regex", "match: {prefix: /a}", `match: {safe_regex: {regex: "("}}`, true},
		{"no match", "match: {prefix: /b}", `match: {}`, true},
		{"weights", "weight: 1}", "weight: 0}", true},
		{"header", "key: x-mark", `key: ""`, true},
		{"missing cluster", ", virtual_hosts: [", ", validate_clusters: true, virtual_hosts: [{name: e, domains: [e], routes: [{match: {prefix: /}, route: {cluster: nobody}}]}, ", true},
		{"pseudo header", "key: x-mark", `key: ":path"`, true},
		{"status", "status: 200", "status: 99", true},
		{"status above", "status: 404", "status: 600", true},
		{"unnamed host", "{name: all,", "{name: \"\",", true},
		{"no action", "redirect: {path_redirect: /to/u}", "name: u", true},
		{"hash of nothing", "hash_policy: [{header: {header_name: x-key}}]", "hash_policy: [{}]", true},
		{"hash of no header", "hash_policy: [{header: {header_name: x-key}}]", "hash_policy: [{header: {header_name: \"\"}}]", true},
		{"negative time", "route: {cluster: c0", "route: {timeout: -1s, cluster: c0", true},
		{"operator", "value: m", "value: \"%NOTHING%\"}}, {header: {key: x-more, value: m", true},
		{"half an operator", "value: m", "value: \"%PROTOCOL\"}}, {header: {key: x-more, value: m", true},
		{"removed host", "virtual_hosts: [", "request_headers_to_remove: [host], virtual_hosts: [", true},
		{"removed path", "virtual_hosts: [", "request_headers_to_remove: [\":path\"], virtual_hosts: [", true},
		{"header with a break", "value: m", "value: \"a\\nb\"}}, {header: {key: x-more, value: m", true},
		{"name with a break", "key: x-mark", "key: \"x\\nmark\"", true},
		{"rewrites", "redirect: {path_redirect: /to/v}", "redirect: {path_redirect: /to/v, response_code: 9}", true},
		{"two rewrites", "route: {cluster: c1", "route: {prefix_rewrite: /p, regex_rewrite: {pattern: {regex: a}, substitution: b}, cluster: c1", true},
		{"retries", "route: {cluster: c", "route: {retry_policy: {retry_on: 5xx, retry_back_off: {base_interval: 0s}}, cluster: c", true},
		{"back-off", "route: {cluster: c", "route: {retry_policy: {retry_on: 5xx, retry_back_off: {base_interval: 2s, max_interval: 1s}}, cluster: c", true},
		{"mirror", "route: {cluster: c", "route: {request_mirror_policies: [{cluster: \"\"}], cluster: c", true},
		{"query", "match: {prefix: /c}", "match: {prefix: /c, query_parameters: [{name: \"\"}]}", true},
		{"fraction", "match: {prefix: /c}", "match: {prefix: /c, runtime_fraction: {default_value: {numerator: 1, denominator: 9}}}", true},
		{"separated", "match: {prefix: /c}", "match: {path_separated_prefix: /c/}", true},
		{"code of no cluster", "cluster_not_found_response_code: NOT_FOUND", "cluster_not_found_response_code: 7", true},
		{"priority", "priority: HIGH", "priority: 7", true},
		{"filter of nothing", "{name: all,", "{name: all, typed_per_filter_config: {nothing: {\"@type\": type.googleapis.com/envoy.config.core.v3.Address}},", true},
	},
	resource.EndpointType: {
		{"port", "port_value: ORIGIN", "port_value: 7ORIGIN", true},
		{"a name", "address: 127.0.0.1", "address: localhost", true},
		{"priority", "zone: z0}", "zone: z0}, priority: 200", true},
		{"weight", "{endpoint: {", "{load_balancing_weight: 0, endpoint: {", true},
		{"no address", "address: {socket_address: {address: 127.0.0.1, port_value: ORIGIN0}}", "address: {}", true},
		{"weight of a locality", "zone: z0}", "zone: z0}, load_balancing_weight: 0", true},
		{"stale", "cluster_name", "policy: {endpoint_stale_after: 0s}, cluster_name", true},
		{"dropped above", "cluster_name", "policy: {drop_overloads: [{category: a, drop_percentage: {numerator: 101}}]}, cluster_name", true},
		{"dropped twice", "cluster_name", "policy: {drop_overloads: [{category: a, drop_percentage: {numerator: 0}}, {category: b, drop_percentage: {numerator: 0}}]}, cluster_name", true},
		{"port of checks", "{endpoint: {", "{endpoint: {health_check_config: {port_value: 70000}, ", true},
		{"empty address", "address: 127.0.0.1", "address: \"\"", true},
		{"no port", "port_value: ORIGIN0", "protocol: TCP", true},
		{"further addresses", "{endpoint: {", "{endpoint: {additional_addresses: [{address: {socket_address: {address: nowhere, port_value: 7}}}], ", true},
		{"factor", "cluster_name", "policy: {overprovisioning_factor: 0}, cluster_name", true},
	},
}

// anywhere fills in what a text needs to be read.
var anywhere = strings.NewReplacer("HOST", "127.0.0.1", "PORT", "2", "ORIGIN", "3", "CA0", "x", "CA1", "x", "CRT0", "x", "CRT1", "x", "KEY0", "x", "KEY1", "x")

// parse reads a resource of a type.
func parse(url, text string) (proto.Message, error) {
	m := map[string]proto.Message{resource.ClusterType: &clusterv3.Cluster{}, resource.EndpointType: &endpointv3.ClusterLoadAssignment{},
		resource.ListenerType: &listenerv3.Listener{}, resource.RouteType: &routev3.RouteConfiguration{}}[url]
	b, err := yaml.YAMLToJSON([]byte(text))
	if err == nil {
		err = protojson.Unmarshal(b, m)
	}
	return m, err
}

// spoil makes a resource faulty, if it can.
func (w *world) spoil(t thing) (thing, bool) {
	for i := range 10 {
		list := flaws[w.kind(t)]
		if w.keen && i < 5 && w.kind(t) != resource.RouteType && w.kind(t) != resource.EndpointType {
			list = slices.Concat(tlsFlaws, checkFlaws)
		}
		f := one(w.r, list...)
		if t.fault == "" && strings.Contains(t.text, f.from) && !(strings.HasPrefix(f.to, f.from+",") && strings.Contains(t.text, firstField(f.to[len(f.from):]))) {
			bad := thing{text: strings.Replace(t.text, f.from, f.to, 1), fault: f.name, whole: f.whole}
			if _, err := parse(w.kind(t), anywhere.Replace(bad.text)); err == nil {
				return bad, true // else it says something twice
			}
		}
	}
	return t, false
}

// firstField is the name of the field that a text begins with.
func firstField(s string) string {
	name, _, _ := strings.Cut(strings.TrimLeft(s, ", "), ":")
	return name + ":"
}
