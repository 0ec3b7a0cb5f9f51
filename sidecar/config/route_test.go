package config

import (
	"os"
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

func readRoutes(t *testing.T, text string) (*route.Config, error) {
	t.Helper()
	j, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m := &routev3.RouteConfiguration{}
	if err := (protojson.UnmarshalOptions{Resolver: resolver{}}).Unmarshal(j, m); err != nil {
		return nil, err
	}
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return Route(b)
}

func TestRoutes(t *testing.T) {
	text, err := os.ReadFile("testdata/routes/all.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := readRoutes(t, string(text))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/routes/all.golden.json", withoutAbsent(t, c))
	if _, err := route.Compile(c); err != nil {
		t.Error(err)
	}
	if got := strings.Join(RouteClusters(c), " "); got != "everything one other own" {
		t.Errorf("clusters: %s", got)
	}
}

// Each case is one route action, or a route, and the error that it gives.
func TestRoutesRefused(t *testing.T) {
	const matchAll, at = "match: {prefix: /}", "virtual_hosts[0].routes[0]"
	for _, c := range []struct{ name, route, want string }{
		{"no cluster", matchAll + "\n    route: {}", "virtual_hosts[0].routes[0].route.cluster_specifier: value is required"},
		{"leg without a name", matchAll + "\n    route: {weighted_clusters: {clusters: [{weight: 1}]}}", at + ".route.weighted_clusters.clusters[0].name: exactly one"},
		{"leg with two", matchAll + "\n    route: {weighted_clusters: {clusters: [{weight: 1, name: a, cluster_header: b}]}}", "exactly one of name and cluster_header"},
		{"weights", matchAll + "\n    route: {weighted_clusters: {clusters: [{name: a, weight: 0}]}}", "the weights must add up"},
		{"leg without a weight", matchAll + "\n    route: {weighted_clusters: {clusters: [{name: a}, {name: b, weight: 1}]}}", at + ".route.weighted_clusters.clusters[0].weight: is missing"},
		{"predicate without a type", matchAll + "\n    route: {cluster: a, retry_policy: {retry_host_predicate: [{name: envoy.retry_host_predicates.omit_canary_hosts}]}}", at + ".route.retry_policy.retry_host_predicate[0].typed_config: is missing"},
		{"two rewrites", matchAll + "\n    route: {cluster: a, prefix_rewrite: /x, path_rewrite: /y}", at + ".route: only one of prefix_rewrite"},
		{"regex", matchAll + "\n    route: {cluster: a, regex_rewrite: {pattern: {regex: '('}}}", at + ".route.regex_rewrite: regex"},
		{"no such group", matchAll + "\n    route: {cluster: a, regex_rewrite: {pattern: {regex: 'a'}, substitution: '\\1'}}", "the pattern has no group 1"},
		{"operator in a path", matchAll + "\n    route: {cluster: a, path_rewrite: '/%NOSUCH%'}", at + ".route.path_rewrite: "},
		{"operator in a header", matchAll + "\n    request_headers_to_add: [{header: {key: a, value: '%NOSUCH%'}}]\n    route: {cluster: a}", at + ".request_headers_to_add[0].header.value: "},
		{"append twice", matchAll + "\n    request_headers_to_add: [{header: {key: a, value: b}, append: true, append_action: ADD_IF_ABSENT}]\n    route: {cluster: a}", at + ".request_headers_to_add[0].append: cannot be used together"},
		{"host header", matchAll + "\n    request_headers_to_remove: [Host]\n    route: {cluster: a}", at + `.request_headers_to_remove[0]: "Host" cannot be changed here`},
		{"both buffer limits", matchAll + "\n    per_request_buffer_limit_bytes: 1\n    request_body_buffer_limit: 1\n    route: {cluster: a}", at + ".per_request_buffer_limit_bytes: cannot be used together"},
		{"template rewrite without a template", matchAll + "\n    route: {cluster: a, path_rewrite_policy: {name: x, typed_config: {'@type': type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig, path_template_rewrite: /x}}}", "needs a match by path_match_policy"},
		{"redirect of a template's prefix", "match: {path_match_policy: {name: x, typed_config: {'@type': type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: '/{a}'}}}\n    redirect: {prefix_rewrite: /x}", at + ".redirect.prefix_rewrite: "},
		{"template", "match: {path_match_policy: {name: x, typed_config: {'@type': type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: '/{'}}}\n    route: {cluster: a}", at + ".match.path_match_policy.typed_config.path_template: "},
		{"metadata", "match: {prefix: /, dynamic_metadata: [{filter: a}]}\n    route: {cluster: a}", at + ".match.dynamic_metadata: unsupported"},
		{"filter state", "match: {prefix: /, filter_state: [{key: a}]}\n    route: {cluster: a}", at + ".match.filter_state: unsupported"},
		{"cookie attribute", matchAll + "\n    route: {cluster: a, hash_policy: [{cookie: {name: c, attributes: [{name: 'a; b'}]}}]}", at + ".route.hash_policy[0].cookie.attributes[0]: "},
		{"filter state in a hash", matchAll + "\n    route: {cluster: a, hash_policy: [{filter_state: {key: a}}]}", at + ".route.hash_policy[0].filter_state: unsupported"},
		{"mirror to nowhere", matchAll + "\n    route: {cluster: a, request_mirror_policies: [{}]}", at + ".route.request_mirror_policies[0]: exactly one of cluster"},
		{"redirect predicate without a type", matchAll + "\n    route: {cluster: a, internal_redirect_policy: {predicates: [{name: p}]}}", at + ".route.internal_redirect_policy.predicates[0].typed_config: value is required"},
		{"redirect predicate that is none", matchAll + "\n    route: {cluster: a, internal_redirect_policy: {predicates: [{name: p, typed_config: {'@type': type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig, path_template_rewrite: /x}}]}}", at + `.route.internal_redirect_policy.predicates[0].typed_config: "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig" is no predicate of redirects`},
		{"host of a redirect", matchAll + "\n    route: {cluster: a, internal_redirect_policy: {response_headers_to_copy: [Host]}}", at + `.route.internal_redirect_policy.response_headers_to_copy[0]: "Host" cannot be changed here`},
		{"length of a redirect", matchAll + "\n    route: {cluster: a, internal_redirect_policy: {response_headers_to_copy: [content-length]}}", at + `.route.internal_redirect_policy.response_headers_to_copy[0]: "content-length" frames the message`},
		{"no action", matchAll + "\n    route: {cluster: a, rate_limits: [{actions: [{}]}]}", "rate_limits[0].actions[0].action_specifier: value is required"},
		{"metadata in a rate limit", matchAll + "\n    route: {cluster: a, rate_limits: [{actions: [{metadata: {descriptor_key: a, metadata_key: {key: a, path: [{key: b}]}}}]}]}", at + ".route.rate_limits[0].actions[0].metadata: unsupported; remove the field: use request_headers"},
		{"dynamic metadata in a rate limit", matchAll + "\n    route: {cluster: a, rate_limits: [{actions: [{dynamic_metadata: {descriptor_key: a, metadata_key: {key: a, path: [{key: b}]}}}]}]}", at + ".route.rate_limits[0].actions[0].dynamic_metadata: unsupported"},
		{"extension in a rate limit", matchAll + "\n    route: {cluster: a, rate_limits: [{actions: [{extension: {name: a}}]}]}", at + ".route.rate_limits[0].actions[0].extension: unsupported"},
		{"operators of an address's value", matchAll + "\n    route: {cluster: a, rate_limits: [{actions: [{remote_address_match: {descriptor_value: '%PROTOCOL%', address_matcher: {ranges: [{address_prefix: 10.0.0.0}]}}}]}]}", at + ".route.rate_limits[0].actions[0].remote_address_match.descriptor_value: operators are not supported"},
		{"no address to match", matchAll + "\n    route: {cluster: a, rate_limits: [{actions: [{remote_address_match: {descriptor_value: x, address_matcher: {ranges: [{address_prefix: here}]}}}]}]}", at + ".route.rate_limits[0].actions[0].remote_address_match.address_matcher.ranges[0].address_prefix: \"here\" is not an IP address"},
		{"hits", matchAll + "\n    route: {cluster: a, rate_limits: [{hits_addend: {number: 2}, actions: [{remote_address: {}}]}]}", at + ".route.rate_limits[0].hits_addend: is for the rate limits of filters"},
		{"rate limit by key", matchAll + "\n    route: {cluster: a, rate_limits: [{disable_key: a, actions: [{remote_address: {}}]}]}", at + ".route.rate_limits[0].disable_key: unsupported"},
		{"limit of a service", matchAll + "\n    route: {cluster: a, rate_limits: [{limit: {rate_limit: {requests_per_unit: 1}}, actions: [{remote_address: {}}]}]}", at + ".route.rate_limits[0].limit: unsupported"},
		{"at the end of the stream", matchAll + "\n    route: {cluster: a, rate_limits: [{apply_on_stream_done: true, actions: [{remote_address: {}}]}]}", at + ".route.rate_limits[0].apply_on_stream_done: unsupported"},
		{"back-off", matchAll + "\n    route: {cluster: a, retry_policy: {retry_back_off: {base_interval: 2s, max_interval: 1s}}}", at + ".route.retry_policy.retry_back_off.max_interval: is less than base_interval"},
		{"host selection", matchAll + "\n    route: {cluster: a, retry_policy: {host_selection_retry_max_attempts: -1}}", at + ".route.retry_policy.host_selection_retry_max_attempts: is -1"},
		{"retry priority", matchAll + "\n    route: {cluster: a, retry_policy: {retry_priority: {name: x}}}", at + ".route.retry_policy.retry_priority.typed_config: is missing"},
		{"retry priority never", matchAll + "\n    route: {cluster: a, retry_policy: {retry_priority: {name: x, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig}}}}", "update_frequency"},
		{"refreshed cluster", matchAll + "\n    route: {cluster: a, retry_policy: {refresh_cluster_on_retry: true}}", "refresh_cluster_on_retry"},
		{"file from a control plane", matchAll + "\n    direct_response: {status: 200, body: {filename: /etc/passwd}}", at + ".direct_response.body.filename: files are read for a bootstrap only"},
		{"long body", matchAll + "\n    direct_response: {status: 200, body: {inline_string: " + strings.Repeat("x", maxDirectBody+1) + "}}", at + ".direct_response.body: has 4097 bytes; 4096 are allowed"},
		{"non-forwarding action", matchAll + "\n    non_forwarding_action: {}", at + ".non_forwarding_action: unsupported"},
		{"predicate of another name", matchAll + "\n    route: {cluster: a, retry_policy: {retry_host_predicate: [{name: other, typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]}}", ""},
	} {
		_, err := readRoutes(t, "name: r\nvirtual_hosts:\n- name: v\n  domains: ['*']\n  routes:\n  - "+c.route+"\n")
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v\nwant %s", c.name, err, c.want)
		}
	}
}

// TestVhostHeader: a header that no request has when it is looked for finds no virtual host.
func TestVhostHeader(t *testing.T) {
	for name, want := range map[string]string{
		"x site": "is no name of a header", "x-site:": "is no name of a header", ":": "is no name of a header",
		"X-Envoy-Original-Path": "removed from what clients send", "x-envoy-fault-abort-request": "removed from what clients send",
	} {
		if _, err := readRoutes(t, `{name: r, vhost_header: "`+name+`"}`); err == nil || !strings.Contains(err.Error(), "vhost_header: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for name, want := range map[string]string{"X-Site": "x-site", ":authority": ":authority", ":path": ":path", "": ""} {
		if c, err := readRoutes(t, `{name: r, vhost_header: "`+name+`"}`); err != nil || c.HostHeader != want {
			t.Errorf("%q: %v %v", name, c, err)
		}
	}
}

// Each case is one of the internal_only_headers and the error that it gives.
func TestInternalOnlyHeadersRefused(t *testing.T) {
	for name, want := range map[string]string{
		"":                  "is empty",
		":path":             `":path" is a part of every request`,
		":Authority":        `":Authority" is a part of every request`,
		"Host":              `"Host" is a part of every request`,
		"Content-Length":    `"Content-Length" frames the message`,
		"X-Forwarded-Proto": "Envoy finds no route",
		"te":                `"te" frames the message`,
		"x-user ":           "is no name of a header",
		"x user":            "is no name of a header",
		"x-user:":           "is no name of a header",
		"x-üser":            "is no name of a header",
		`x-\u007f`:          "is no name of a header",
	} {
		_, err := readRoutes(t, `{name: r, internal_only_headers: [x-a, "`+name+`"]}`)
		if err == nil || !strings.Contains(err.Error(), "internal_only_headers[1]: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v\nwant %s", name, err, want)
		}
	}
	if c, err := readRoutes(t, "{name: r, internal_only_headers: [X_User, \"!#$%&'*+-.^_`|~\"]}"); err != nil || c.InternalOnly[0] != "x_user" {
		t.Errorf("%v: %v", c, err)
	}
}

// A body in a file is for those who can put files there.
func TestDirectResponseFile(t *testing.T) {
	name := t.TempDir() + "/body"
	if err := os.WriteFile(name, []byte("from a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	const template = `
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
          http_filters: [{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
          route_config: {name: r, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200, body: {filename: FILE}}}]}]}
`
	b, err := ParseBootstrap([]byte(strings.ReplaceAll(template, "FILE", name)))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(b.Listeners[0].Chains[0].HTTP.Routes.VirtualHosts[0].Routes[0].Direct.Body); got != "from a file" {
		t.Errorf("the body is %q", got)
	}
	if _, err := ParseBootstrap([]byte(strings.ReplaceAll(template, "FILE", name+"x"))); err == nil || !strings.Contains(err.Error(), "direct_response.body.filename") {
		t.Errorf("a missing file: %v", err)
	}
}

// TestFieldsOfHops: which fields between two hops a route may name, and where.
func TestFieldsOfHops(t *testing.T) {
	for list, refused := range map[string]string{
		"request_headers_to_add":     "connection te upgrade transfer-encoding content-length host",
		"request_headers_to_remove":  "connection te upgrade transfer-encoding content-length host",
		"response_headers_to_add":    "content-length host",
		"response_headers_to_remove": "content-length host",
	} {
		for _, name := range strings.Fields("connection te upgrade transfer-encoding trailer keep-alive proxy-connection content-length host") {
			entry := name
			if strings.HasSuffix(list, "add") {
				entry = "{header: {key: " + name + ", value: x}}"
			}
			_, err := readRoutes(t, "{name: r, "+list+": ["+entry+"]}")
			if want := slices.Contains(strings.Fields(refused), name); (err != nil) != want {
				t.Errorf("%s of %s: %v, refused %v", name, list, err, want)
			}
		}
	}
}

// TestHashOfNothing: a policy that hashes nothing is none, and ends nothing.
func TestHashOfNothing(t *testing.T) {
	c, err := readRoutes(t, `{name: r, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: c, hash_policy: [
		{connection_properties: {source_ip: false}, terminal: true}, {header: {header_name: x-user}}]}}]}]}`)
	if err != nil || len(c.VirtualHosts[0].Routes[0].Forward.Hash) != 1 || c.VirtualHosts[0].Routes[0].Forward.Hash[0].Header != "x-user" {
		t.Errorf("%+v, %v", c, err)
	}
}
