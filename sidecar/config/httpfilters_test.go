package config

import (
	"os"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
)

// What is read is what the connection manager takes.
func TestFiltersFit(t *testing.T) {
	b, err := LoadBootstrap("testdata/filters.yaml")
	if err != nil {
		t.Fatal(err)
	}
	clusters := cluster.NewManager(cluster.Options{})
	defer clusters.Close()
	m, err := hcm.New(b.Listeners[0].Chains[0].HTTP, hcm.Options{Clusters: clusters})
	if err != nil {
		t.Fatal(err)
	}
	_ = m.Close()
}

// Each case changes one place of filters.yaml and gives the error.
func TestFiltersRefuse(t *testing.T) {
	text, err := os.ReadFile("testdata/filters.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const filters = "filter_chains[0].filters[0].typed_config.http_filters"
	const vh = "route_config.virtual_hosts[0]"
	for _, c := range []struct{ name, old, new, want string }{
		{"downstream nodes", "upstream_cluster: app", "downstream_nodes: [a]", filters + "[3].typed_config.downstream_nodes: unsupported"},
		{"response rate", "limit_kbps: 5", "limit_kbps: 0", filters + "[3].typed_config.response_rate_limit.fixed_limit.limit_kbps: value must be greater than or equal to 1"},
		{"grpc status", "grpc_status: 14", "grpc_status: 17", filters + "[3].typed_config.abort.grpc_status: 17 is no status of gRPC"},
		{"descriptor without a bucket", ", token_bucket: {max_tokens: 3, fill_interval: 60s}}", "}", "typed_config.descriptors[0].token_bucket: value is required"},
		{"quick descriptor", "fill_interval: 0.05s}", "fill_interval: 0.04s}", filters + "[4].typed_config.descriptors[2].token_bucket.fill_interval: is 40ms; 50ms is the least"},
		{"descriptor twice", `[{key: a, value: "2"}]`, `[{key: a, value: "1"}, {key: b}]`, filters + `[4].typed_config.descriptors: descriptor a="1", b="" is there twice`},
		{"more dynamic descriptors than memory", "max_dynamic_descriptors: 100", "max_dynamic_descriptors: 1048577", filters + "[4].typed_config.max_dynamic_descriptors: is 1048577; 1048576 is the most"},
		{"stage in the filter", "rate_limits:\n              - {", "rate_limits:\n              - {stage: 1, ", filters + "[4].typed_config.rate_limits[0].stage: is for the rate limits of routes"},
		{"hits by a text", "hits_addend: {number: 2}", "hits_addend: {format: 'x'}", filters + "[4].typed_config.rate_limits[0].hits_addend.format: value does not have prefix"},
		{"hits by two operators", "hits_addend: {number: 2}", "hits_addend: {format: '%REQ(x)%%REQ(y)%'}", filters + "[4].typed_config.rate_limits[0].hits_addend.format: is not one operator"},
		{"hits by no operator", "hits_addend: {number: 2}", "hits_addend: {format: '%NOPE%'}", filters + "[4].typed_config.rate_limits[0].hits_addend.format: "},
		{"hits twice", "hits_addend: {number: 2}", "hits_addend: {number: 2, format: '%REQ(x)%'}", filters + "[4].typed_config.rate_limits[0].hits_addend.format: cannot be used together"},
		{"no hits", "hits_addend: {number: 2}", "hits_addend: {}", filters + "[4].typed_config.rate_limits[0].hits_addend.number: is missing or 0"},
		{"limits of a connection and the whole cluster", "stage: 2", "local_cluster_rate_limit: {}", filters + "[4].typed_config.local_cluster_rate_limit: cannot be used together with local_rate_limit_per_downstream_connection"},
		{"limits of no cluster", "local_rate_limit_per_downstream_connection: true", "local_cluster_rate_limit: {}", filters + "[4].typed_config.local_cluster_rate_limit: the bootstrap names no local cluster"},
		{"quick fill", "fill_interval: 1s", "fill_interval: 0.01s", filters + "[4].typed_config.token_bucket.fill_interval: is 10ms; 50ms is the least"},
		{"no bucket for a route", ", token_bucket: {max_tokens: 1, fill_interval: 60s}}", "}", vh + `.routes[0].typed_per_filter_config["limit"].token_bucket: is missing`},
		{"cache time", "pass_through_mode: true", "pass_through_mode: false", filters + "[1].typed_config: health check: a cache time needs pass_through_mode"},
		{"what is no trailer", "key: x-sum", "key: Content-Length", filters + "[6].typed_config.mutations.response_trailers_mutations[0].append.header.key: \"Content-Length\" is no trailer"},
		{"what no trailer may bring", "key: x-sum", "key: authorization", filters + "[6].typed_config.mutations.response_trailers_mutations[0].append.header.key: \"authorization\" is no trailer"},
		{"pseudo-header among trailers", "request_trailers_mutations: [{remove: X-A}]", "request_trailers_mutations: [{remove: ':path'}]", filters + "[6].typed_config.mutations.request_trailers_mutations[0].remove: \":path\" cannot be changed"},
		{"value that is no text", `{record: {key: b, value: "c"}`, `{record: {key: b, value: 1}`, "query_parameter_mutations[1].append.record: needs a key and a value that is a string"},
		{"operator", `value: "%REQ(x-a)%"`, `value: "%NOSUCH%"`, filters + "[6].typed_config.mutations.request_mutations[1].append.header.value: "},
		{"cors twice", "typed_per_filter_config:\n                fault", "typed_per_filter_config:\n                cors: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy}\n                fault", vh + ".cors: cannot be used together with typed_per_filter_config"},
		{"discovered filter", "          - name: cors\n            typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}", "          - name: cors\n            config_discovery: {config_source: {ads: {}}, type_urls: [x]}", filters + "[2].config_discovery: unsupported; remove the field: write the configuration into typed_config"},
		{"router off", "          - name: router\n", "          - name: router\n            disabled: true\n", filters + "[8].disabled: the router is always needed"},
		{"nothing in the wrapper", "FilterConfig, config: {}}", "FilterConfig}", `route_config.typed_per_filter_config["limit"].config: is missing`},
		{"a type that routes do not take", "HeaderMutationPerRoute, mutations: {request_mutations: [{remove: x}]}}", "HeaderMutation, mutations: {request_mutations: [{remove: x}]}}", "unsupported filter configuration"},
		{"rbac metadata", "permissions: [{uri_template", "permissions: [{metadata: {filter: a, path: [{key: b}]}}, {uri_template", "permissions[0].metadata.value: value is required"},
		{"rbac metadata of the mesh", "permissions: [{uri_template", "permissions: [{sourced_metadata: {metadata_source: ROUTE, metadata_matcher: {filter: hauberk, path: [{key: origin}], value: {present_match: true}}}}, {uri_template", "permissions[0].sourced_metadata.metadata_matcher.filter: "},
		{"rbac metadata without a key", "permissions: [{uri_template", "permissions: [{metadata: {filter: a, value: {present_match: true}}}, {uri_template", "permissions[0].metadata.path: value must contain"},
		{"rbac metadata of one or", "permissions: [{uri_template", "permissions: [{metadata: {filter: a, path: [{key: b}], value: {or_match: {value_matchers: [{present_match: true}]}}}}, {uri_template", "permissions[0].metadata.value.or_match.value_matchers: value must contain"},
		{"rbac template", `path_template: "/a/{b}"`, `path_template: "/a/{"`, "permissions[0].uri_template.typed_config.path_template: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(string(text), c.old) {
				t.Fatalf("the file has no %q", c.old)
			}
			_, err := ParseBootstrap([]byte(strings.Replace(string(text), c.old, c.new, 1)))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

// TestDocumentedRoutes reads the example of docs/routes.md.
func TestDocumentedRoutes(t *testing.T) {
	b, err := os.ReadFile("../../docs/routes.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "```yaml\n")
	example, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("the page has no example")
	}
	out, err := ParseBootstrap([]byte(`static_resources:
  clusters:
  - {name: app, load_assignment: {cluster_name: app}}
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 8000}}
    filter_chains:
    - filters:
      - ` + strings.ReplaceAll(example, "\n", "\n        ")))
	if err != nil {
		t.Fatal(err)
	}
	clusters := cluster.NewManager(cluster.Options{})
	defer clusters.Close()
	m, err := hcm.New(out.Listeners[0].Chains[0].HTTP, hcm.Options{Clusters: clusters})
	if err != nil {
		t.Fatal(err)
	}
	_ = m.Close()
}

// TestOptionalOverrides: of a file too an optional override of a filter that is not here is passed over, whatever
// its type; one that is not optional is refused, and so is one that says nothing.
func TestOptionalOverrides(t *testing.T) {
	for override, want := range map[string]string{
		`is_optional: true, config: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/foo.Bar, value: {a: 1}}`: "",
		`isOptional: true, config: {"@type": type.googleapis.com/google.protobuf.Struct, value: {a: 1}}`:                                          "",
		`is_optional: true, config: {"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: x}`:                                      "",
		`is_optional: false, config: {"@type": type.googleapis.com/google.protobuf.Struct, value: {a: 1}}`:                                        `.config: unsupported extension type "google.protobuf.Struct"`,
		`is_optional: true`: `.config: is missing`,
	} {
		_, err := ParseBootstrap([]byte(`
static_resources:
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: x
          route_config: {virtual_hosts: [{name: a, domains: ["*"], typed_per_filter_config: {x: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, ` + override + `}}, routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]}
          http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
`))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", override, err, want)
		}
	}
}

// TestOptionalElsewhere: what is no override of a filter has an effect, and is not passed over.
func TestOptionalElsewhere(t *testing.T) {
	const optional = `{"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, is_optional: true, config: {"@type": type.googleapis.com/foo.Bar}}`
	const router = `http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]`
	for where, tc := range map[string]struct{ cluster, manager string }{
		"a cluster's transport socket": {`transport_socket: {name: envoy.transport_sockets.tls, typed_config: ` + optional + `}`, router},
		"a cluster's protocol options": {`typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: ` + optional + `}`, router},
		"an access log":                {"", `access_log: [{name: envoy.access_loggers.file, typed_config: ` + optional + `}], ` + router},
		"the identity of requests":     {"", `request_id_extension: {typed_config: ` + optional + `}, ` + router},
		"a filter":                     {"", `http_filters: [{name: envoy.filters.http.rbac, typed_config: ` + optional + `}, ` + router[len("http_filters: ["):]},
	} {
		_, err := ParseBootstrap([]byte(`
static_resources:
  clusters:
  - name: c
    type: STATIC
    load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]}
    ` + tc.cluster + `
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: x, ` + tc.manager + `,
          route_config: {virtual_hosts: [{name: a, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]}}
`))
		if err == nil || !strings.Contains(err.Error(), "foo.Bar") {
			t.Errorf("%s: %v", where, err)
		}
	}
}
