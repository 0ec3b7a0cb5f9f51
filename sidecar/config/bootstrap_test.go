package config

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

func golden(t *testing.T, file string, v any) {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("%s:\n%s", file, d)
	}
}

// withoutAbsent drops what JSON would show of fields that are not set, so that
// a golden file says what was read.
func withoutAbsent(t *testing.T, v any) any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(b, &tree); err != nil {
		t.Fatal(err)
	}
	return prune(tree)
}

func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			e = prune(e)
			if e == nil || e == "" || e == false || e == 0.0 {
				delete(v, k)
				continue
			}
			v[k] = e
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			v[i] = prune(v[i])
		}
	}
	return v
}

func TestBootstraps(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := LoadBootstrap(file)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden.json", withoutAbsent(t, b))

			// JSON is the same file.
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			j, err := yaml.YAMLToJSON(text)
			if err != nil {
				t.Fatal(err)
			}
			again, err := ParseBootstrap(j)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(withoutAbsent(t, b), withoutAbsent(t, again)); d != "" {
				t.Error(d)
			}
		})
	}
}

// Each case changes one place of static.yaml and gives the whole error.
func TestBootstrapRefuses(t *testing.T) {
	text, err := os.ReadFile("testdata/static.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"unknown field", "  - name: in\n", "  - name: in\n    adress: {}\n",
			`static_resources.listeners[0].adress: unknown field "adress"`},
		{"unsupported field", "  - name: in\n", "  - name: in\n    enable_mptcp: true\n    fcds_config: {}\n",
			`static_resources.listeners[0].fcds_config: unsupported; remove the field`},
		{"unsupported field with advice", "  - name: in\n", "  - name: in\n    filter_chain_matcher: {}\n",
			`static_resources.listeners[0].filter_chain_matcher: unsupported; remove the field: use filter_chain_match`},
		{"wrong type of value", "connect_timeout: 1s", "connect_timeout: soon",
			`static_resources.clusters[0].connect_timeout: invalid google.protobuf.Duration value; write seconds, as in 1.5s`},
		{"wrong enum", "lb_policy: LEAST_REQUEST", "lb_policy: MOST",
			`static_resources.clusters[1].lb_policy: invalid value for enum field lbPolicy`},
		{"unsupported enum", "lb_policy: LEAST_REQUEST", "lb_policy: LOAD_BALANCING_POLICY_CONFIG",
			`static_resources.clusters[1] ("app2"): lb_policy: is LOAD_BALANCING_POLICY_CONFIG; use load_balancing_policy, or another one`},
		{"duplicate key", "    connect_timeout: 1s\n", "    connect_timeout: 1s\n    connect_timeout: 2s\n",
			`line 115: key "connect_timeout" already set in map`},
		{"syntax", "node:\n", "node: [\n", `line 3: did not find expected`},
		{"unknown filter", `name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}`,
			`name: envoy.filters.http.lua
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua}`,
			`static_resources.listeners[0].filter_chains[0].filters[1].typed_config.http_filters[1]: unsupported extension "envoy.filters.http.lua" (type envoy.extensions.filters.http.lua.v3.Lua); remove it`},
		{"filter in the wrong place", `"@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC
          stat_prefix: net`, `"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
          rules_stat_prefix: net`,
			`static_resources.listeners[0].filter_chains[0].filters[0]: unsupported filter "rbac" (type envoy.extensions.filters.http.rbac.v3.RBAC); remove it`},
		{"validation", "num_retries: 2, retry_back_off: {base_interval: 0.025s}", "num_retries: 2, retry_back_off: {base_interval: 0s}",
			`route_config.virtual_hosts[0].retry_policy.retry_back_off.base_interval: value must be greater than 0s`},
		{"no such cluster", "cluster: db\n", "cluster: nodb\n", `static_resources.listeners ("db"): there is no cluster "nodb"`},
		{"no such secret", "sni: db.default.dc1.internal.td\n        common_tls_context:\n          tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}\n          tls_certificate_sds_secret_configs: [{name: own}]",
			"common_tls_context:\n          tls_certificate_sds_secret_configs: [{name: other}]",
			`tls_certificate_sds_secret_configs[0].name: there is no static secret "other"; name one, or add an sds_config`},
		{"names without an anchor", "trusted_ca: {filename: /certs/ca.crt}", "max_verify_depth: 1", `checks names without a trusted_ca, which anyone could satisfy`},
		{"runtime key that nothing reads", "node:\n", "layered_runtime: {layers: [{name: a, static_layer: {some: {other: 1}}}]}\nnode:\n",
			`layered_runtime.layers[0].static_layer["some"]["other"]: runtime key "some.other" is read by nothing in this bootstrap; remove it`},
		{"version of the build", "node:\n", "node:\n  user_agent_build_version: {version: {major_number: 1}}\n", `node.user_agent_build_version: unsupported; remove the field: control planes are told the sidecar's own version`},
		{"overload action", "node:\n", "overload_manager: {resource_monitors: [{name: x, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig, max_active_downstream_connections: 9}}], actions: [{name: envoy.overload_actions.shed_everything, triggers: [{name: x, threshold: {value: 1}}]}]}\nnode:\n",
			`unsupported action "envoy.overload_actions.shed_everything"; remove it`},
		{"load shed point", "node:\n", "overload_manager: {resource_monitors: [{name: x, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 9}}], loadshed_points: [{name: envoy.load_shed_points.http3_server_go_away_on_dispatch, triggers: [{name: x, threshold: {value: 1}}]}]}\nnode:\n",
			`overload_manager.loadshed_points[0].name: unsupported load shed point "envoy.load_shed_points.http3_server_go_away_on_dispatch"; remove it`},
		{"load shed point that is an action", "node:\n", "overload_manager: {resource_monitors: [{name: x, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 9}}], loadshed_points: [{name: envoy.overload_actions.shrink_heap, triggers: [{name: x, threshold: {value: 1}}]}]}\nnode:\n",
			`overload_manager.loadshed_points[0].name: unsupported load shed point "envoy.overload_actions.shrink_heap"; remove it`},
		{"a load shed point twice", "node:\n", "overload_manager: {resource_monitors: [{name: x, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 9}}], loadshed_points: [{name: envoy.load_shed_points.tcp_listener_accept, triggers: [{name: x, threshold: {value: 1}}]}, {name: envoy.load_shed_points.tcp_listener_accept, triggers: [{name: x, threshold: {value: 1}}]}]}\nnode:\n",
			`overload_manager.loadshed_points[1].name: there are two load shed points "envoy.load_shed_points.tcp_listener_accept"`},
		{"a trigger twice", "node:\n", "overload_manager: {resource_monitors: [{name: x, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 9}}], loadshed_points: [{name: envoy.load_shed_points.tcp_listener_accept, triggers: [{name: x, threshold: {value: 1}}, {name: x, threshold: {value: 0.5}}]}]}\nnode:\n",
			`overload_manager.loadshed_points[0].triggers[1].name: there are two triggers by "x"`},
		{"a kind of monitor twice", "node:\n", "overload_manager: {resource_monitors: [{name: x, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.resource_monitors.cgroup_memory.v3.CgroupMemoryConfig}}, {name: other, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.resource_monitors.cgroup_memory.v3.CgroupMemoryConfig, max_memory_bytes: 9}}]}\nnode:\n",
			`overload_manager.resource_monitors[1].typed_config: is of the kind that "x" is; one of them is enough`},
		{"two heaps", "node:\n", "overload_manager: {resource_monitors: [{name: x, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 9, max_heap_size_bytes_runtime: {default_value: 9, runtime_key: k}}}]}\nnode:\n",
			`overload_manager.resource_monitors[0].typed_config.max_heap_size_bytes: is set beside max_heap_size_bytes_runtime; use one of them`},
		{"no heap of the runtime", "node:\n", "overload_manager: {resource_monitors: [{name: x, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes_runtime: {runtime_key: k}}}]}\nnode:\n",
			`overload_manager.resource_monitors[0].typed_config.max_heap_size_bytes_runtime: must be greater than 0`},
		{"reset of streams of no size", "node:\n", "overload_manager: {resource_monitors: [{name: x, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 9}}], actions: [{name: envoy.overload_actions.reset_high_memory_stream, triggers: [{name: x, threshold: {value: 1}}]}]}\nnode:\n",
			`overload_manager.buffer_factory_config: is missing; the action "envoy.overload_actions.reset_high_memory_stream" needs it`},
		{"reset of small streams", "node:\n", "overload_manager: {resource_monitors: [{name: x, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 9}}], buffer_factory_config: {minimum_account_to_track_power_of_two: 9}, actions: [{name: envoy.overload_actions.reset_high_memory_stream, triggers: [{name: x, threshold: {value: 1}}]}]}\nnode:\n",
			`overload_manager.buffer_factory_config.minimum_account_to_track_power_of_two: value must be inside range [10, 56]`},
		{"an action twice", "node:\n", "overload_manager: {resource_monitors: [{name: x, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 9}}], actions: [{name: envoy.overload_actions.shrink_heap, triggers: [{name: x, threshold: {value: 1}}]}, {name: envoy.overload_actions.shrink_heap, triggers: [{name: x, threshold: {value: 1}}]}]}\nnode:\n",
			`overload_manager.actions[1].name: there are two actions "envoy.overload_actions.shrink_heap"`},
		{"a monitor twice", "node:\n", "overload_manager: {resource_monitors: [{name: x, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 9}}, {name: x, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 9}}], actions: [{name: envoy.overload_actions.shrink_heap, triggers: [{name: x, threshold: {value: 1}}]}]}\nnode:\n",
			`overload_manager.resource_monitors[1].name: there are two resource monitors "x"`},
		{"old TLS", "tls_minimum_protocol_version: TLSv1_3", "tls_minimum_protocol_version: TLSv1_1",
			`transport_socket.typed_config.common_tls_context.tls_params.tls_minimum_protocol_version: is TLSv1_1; use TLSv1_2 or TLSv1_3`},
		{"request rule in a network filter", "permissions: [{any: true}]\n                principals: [{authenticated", "permissions: [{url_path: {path: {exact: /}}}]\n                principals: [{authenticated",
			`static_resources.listeners[0] ("in"): filter_chains[0].filters[0].typed_config.rules.policies["no-evil"].permissions[0].url_path: a network filter sees no request; use the HTTP RBAC filter`},
		{"EDS without ADS", "  - name: app\n    connect_timeout", "  - name: eds\n    type: EDS\n    eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}}\n  - name: app\n    connect_timeout",
			`static_resources.clusters ("eds"): eds_cluster_config.eds_config: "eds" is to come by ads, but there is no dynamic_resources.ads_config`},
		{"framing header", "key: x-leg", "key: Transfer-Encoding", `"Transfer-Encoding" frames the message and cannot be changed`},
		{"HTTP/2", "explicit_http_config: {http_protocol_options: {}}", "explicit_http_config: {http2_protocol_options: {custom_settings_parameters: [{identifier: 1, value: 5}]}}",
			`explicit_http_config.http2_protocol_options: http2: CustomSettings holds 0x1`},
		{"HTTP/2 setting with two values", "explicit_http_config: {http_protocol_options: {}}", "explicit_http_config: {http2_protocol_options: {custom_settings_parameters: [{identifier: 10, value: 5}, {identifier: 10, value: 5}, {identifier: 10, value: 6}]}}",
			`http2_protocol_options.custom_settings_parameters[2]: identifier 0xa has another value before`},
		{"foreign workload on a chain", "      filter_chain_match: {server_names", "      metadata: {filter_metadata: {hauberk: {workload: spiffe://td/evil}}}\n      filter_chain_match: {server_names",
			`is "spiffe://td/evil", which is not the certificate that the chain presents`},
		{"names in a static cluster", "address: 127.0.0.1, port_value: 8080", "address: localhost, port_value: 8080",
			`static_resources.clusters[0] ("app"): load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: "localhost" is not an IP address; names need type STRICT_DNS or LOGICAL_DNS`},
		{"two directions", "direction: inbound", "direction: outbound", `is "outbound", but traffic_direction is INBOUND`},
		{"retry condition", "connect-failure,reset", "connect-failure,sometimes,reset", `retry_policy.retry_on: unsupported condition "sometimes"`},
		{"same name twice", "  - name: db\n    address", "  - name: in\n    address", `static_resources.listeners[1].name: "in" is the name of another listener`},
		{"alpn with a gap", "alpn_protocols: [http/1.1]", `alpn_protocols: ["h2,,http/1.1"]`, `alpn_protocols[0]: "h2,,http/1.1" names an empty protocol`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(string(text), c.old) {
				t.Fatalf("the file has no %q", c.old)
			}
			_, err := ParseBootstrap([]byte(strings.Replace(string(text), c.old, c.new, 1)))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a line: %q", err)
			}
		})
	}
}

func TestBootstrapIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "b.yaml")
	if err := os.WriteFile(file, []byte("nodes: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := LoadBootstrap(file)
	if want := regexp.MustCompile(`b\.yaml: nodes: unknown field "nodes"; remove it`); err == nil || !want.MatchString(err.Error()) {
		t.Error(err)
	}
	if _, err := LoadBootstrap(file + "x"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
	for _, empty := range []string{"", "null", "[]", "3", "# nothing\n"} {
		if _, err := ParseBootstrap([]byte(empty)); err == nil {
			t.Errorf("%q was accepted", empty)
		}
	}
}

func TestPathAt(t *testing.T) {
	j := []byte(`{"a":{"b":[1,{"c":2},[3,4]],"d":5},"e":6}`)
	for text, want := range map[string]string{
		`{"a"`: "", `"a"`: "a", `"b"`: "a.b", `1,`: "a.b[0]", `"c"`: "a.b[1].c", `2}`: "a.b[1].c", `4]`: "a.b[2][1]", `"d"`: "a.d", `5}`: "a.d", `"e"`: "e", `6}`: "e",
	} {
		if got := pathAt(j, bytes.Index(j, []byte(text))); got != want {
			t.Errorf("%s is at %q, want %q", text, got, want)
		}
	}
}

func FuzzParseBootstrap(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.yaml")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		if j, err := yaml.YAMLToJSON(b); err == nil {
			f.Add(j)
		}
	}
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte(`{"static_resources":{"listeners":[{"name":"x","address":{"pipe":{"path":"/x"}},"filter_chains":[{}]}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := ParseBootstrap(b)
		if (out == nil) == (err == nil) {
			t.Errorf("%v, %v", out, err)
		}
	})
}
