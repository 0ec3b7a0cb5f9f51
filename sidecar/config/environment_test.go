package config

import (
	"cmp"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// readingListener has ROUTE, MANAGER and LOG to be filled in.
const readingListener = `
name: l
address: {socket_address: {address: 127.0.0.1, port_value: 0}}
filter_chains:
- filters:
  - name: hcm
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: x
      http_filters: [{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
      MANAGER
      access_log: [{name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog, log_format: {text_format: "LOG"}}}]
      route_config: {name: r, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, ROUTE}]}]}
`

// TestEnvironment: what a control plane sends does not have the process's environment told
// to others; a bootstrap may, of what is set.
func TestEnvironment(t *testing.T) {
	const set, unset = "HAUBERK_TEST_SECRET", "HAUBERK_TEST_NO_SUCH"
	t.Setenv(set, "hidden")
	const manager, route = "filter_chains[0].filters[0].typed_config.", "filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0]."
	plain := "direct_response: {status: 200}"
	for _, tc := range []struct{ name, manager, route, log, path string }{
		{"nothing", "", plain, "%ROUTE_NAME%", ""},
		{"a log of this host", "", plain, "%ENVIRONMENT(" + set + ")%", ""},
		{"body", "", "direct_response: {status: 200, body: {environment_variable: " + set + "}}", "x", route + "direct_response.body.environment_variable"},
		{"response header", "", plain + `, response_headers_to_add: [{header: {key: a, value: "x%ENVIRONMENT(` + set + `)%"}}]`, "x", route + "response_headers_to_add[0].header.value"},
		{"one of several", "", plain + `, request_headers_to_add: [{header: {key: a, value: '%COALESCE({"operators": ["HOSTNAME", {"command": "ENVIRONMENT", "param": "` + set + `"}]})%'}}]`, "x", route + "request_headers_to_add[0].header.value"},
		{"local reply", `local_reply_config: {body_format: {text_format: "%ENVIRONMENT(` + set + `)%"}}`, plain, "x", manager + "local_reply_config.body_format.text_format"},
		{"local reply in JSON", `local_reply_config: {body_format: {json_format: {a: ["%ENVIRONMENT(` + set + `)%"]}}}`, plain, "x", manager + "local_reply_config.body_format.json_format.a[0]"},
		{"local reply's format", `local_reply_config: {body_format: {text_format_source: {environment_variable: ` + set + `}}}`, plain, "x", manager + "local_reply_config.body_format.text_format_source.environment_variable"},
		{"tag", "tracing: {custom_tags: [{tag: a, environment: {name: " + set + "}}]}", plain, "x", manager + "tracing.custom_tags[0].environment"},
		{"tag's value", `tracing: {custom_tags: [{tag: a, value: "%ENVIRONMENT(` + set + `)%"}]}`, plain, "x", manager + "tracing.custom_tags[0].value"},
		{"operation", `tracing: {operation: "%ENVIRONMENT(` + set + `)%"}`, plain, "x", manager + "tracing.operation"},
	} {
		text := strings.NewReplacer("MANAGER", tc.manager, "ROUTE", tc.route, "LOG", tc.log).Replace(readingListener)
		_, err := Listener(asListener(t, text))
		if tc.path == "" && err != nil || tc.path != "" && (err == nil || !strings.Contains(err.Error(), tc.path+": ") || !strings.Contains(err.Error(), "for a bootstrap only")) {
			t.Errorf("%s, by discovery: %v", tc.name, err)
		}
		if err != nil && strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: the refusal tells it: %v", tc.name, err)
		}
		boot := "static_resources:\n  listeners:\n  -" + strings.ReplaceAll(text, "\n", "\n    ")
		if _, err := ParseBootstrap([]byte(boot)); err != nil {
			t.Errorf("%s, in a bootstrap: %v", tc.name, err)
		}
		if !strings.Contains(tc.path, "environment_variable") {
			continue
		}
		if _, err := ParseBootstrap([]byte(strings.ReplaceAll(boot, set, unset))); err == nil || !strings.Contains(err.Error(), tc.path+": "+unset+" is not set") {
			t.Errorf("%s, in a bootstrap, of what is not set: %v", tc.name, err)
		}
	}
}

// Routes by discovery are no bootstrap's either.
func TestEnvironmentOfRoutes(t *testing.T) {
	t.Setenv("HAUBERK_TEST_SECRET", "hidden")
	const mutation = `"@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute`
	for route, path := range map[string]string{
		`direct_response: {status: 200, body: {environment_variable: HAUBERK_TEST_SECRET}}`:                                                                                                          "direct_response.body.environment_variable",
		`route: {cluster: c, path_rewrite: "/%ENVIRONMENT(HAUBERK_TEST_SECRET)%"}`:                                                                                                                   "route.path_rewrite",
		`redirect: {path_rewrite: "/%ENVIRONMENT(HAUBERK_TEST_SECRET)%"}`:                                                                                                                            "redirect.path_rewrite",
		`direct_response: {status: 200, body_format: {text_format: "%ENVIRONMENT(HAUBERK_TEST_SECRET)%"}}`:                                                                                           "direct_response.body_format.text_format",
		`route: {cluster: c, host_rewrite: "%ENVIRONMENT(HAUBERK_TEST_SECRET)%"}`:                                                                                                                    "route.host_rewrite",
		`route: {cluster: c}, typed_per_filter_config: {m: {` + mutation + `, mutations: {query_parameter_mutations: [{append: {record: {key: k, value: "%ENVIRONMENT(HAUBERK_TEST_SECRET)%"}}}]}}}`: "typed_per_filter_config[m].mutations.query_parameter_mutations[0].append.record.value",
	} {
		_, err := readRoutes(t, `{name: r, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, `+route+`}]}]}`)
		if err == nil || !strings.Contains(err.Error(), "virtual_hosts[0].routes[0]."+path+": ") || !strings.Contains(err.Error(), "for a bootstrap only") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// What goes along with the calls to a collector is a format too.
func TestEnvironmentOfACollector(t *testing.T) {
	t.Setenv("HAUBERK_TEST_SECRET", "hidden")
	const head = `tracing: {provider: {name: o, typed_config: {"@type": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig, grpc_service: {envoy_grpc: {cluster_name: c}, initial_metadata: [{key: k, value: "VALUE"}]}}}}`
	for value, refused := range map[string]bool{"x": false, "%ENVIRONMENT(HAUBERK_TEST_SECRET)%": true} {
		text := strings.NewReplacer("MANAGER", strings.Replace(head, "VALUE", value, 1), "ROUTE", "direct_response: {status: 200}", "LOG", "x").Replace(readingListener)
		_, err := Listener(asListener(t, text))
		if refused != (err != nil && strings.Contains(err.Error(), "grpc_service.initial_metadata[0].value: ") && strings.Contains(err.Error(), "for a bootstrap only")) || !refused && err != nil {
			t.Errorf("%s: %v", value, err)
		}
	}
}

// A log that is sent away is no log of this host: neither a record, nor what goes along with
// it, tells the environment.
func TestEnvironmentOfAnExportedLog(t *testing.T) {
	t.Setenv("HAUBERK_TEST_SECRET", "hidden")
	const text = `access_log: [{name: o, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig, http_service: {http_uri: {uri: "http://c/", cluster: c, timeout: 1s}, request_headers_to_add: [{header: {key: k, value: "HEADER"}}]}, body: {string_value: "BODY"}, attributes: {values: [{key: a, value: {array_value: {values: [{string_value: "ATTRIBUTE"}]}}}]}, custom_tags: [{tag: t, TAG}]}}]`
	const secret, here = "x%ENVIRONMENT(HAUBERK_TEST_SECRET)%", "filter_chains[0].filters[0].typed_config.access_log[0].typed_config."
	plain := []string{"BODY", "x", "ATTRIBUTE", "x", "HEADER", "x", "TAG", "literal: {value: x}"}
	for place, path := range map[string]string{
		"":          "",
		"BODY":      "body.string_value",
		"ATTRIBUTE": "attributes.values[0].value.array_value.values[0].string_value",
		"HEADER":    "http_service.request_headers_to_add[0].header.value",
		"TAG":       "custom_tags[0].environment",
	} {
		with := secret
		if place == "TAG" {
			with = "environment: {name: HAUBERK_TEST_SECRET}"
		}
		log := strings.NewReplacer(plain...).Replace(strings.Replace(text, cmp.Or(place, "\x00"), with, 1))
		listener := strings.NewReplacer("MANAGER", "", "access_log: [{name: a", strings.TrimSuffix(log, "]")+", {name: a", "ROUTE", "direct_response: {status: 200}", "LOG", secret).Replace(readingListener)
		_, err := Listener(asListener(t, listener))
		if path == "" && err != nil || path != "" && (err == nil || !strings.Contains(err.Error(), here+path+": ") || !strings.Contains(err.Error(), "for a bootstrap only")) {
			t.Errorf("%s, by discovery: %v", path, err)
		}
		if _, err := ParseBootstrap([]byte("static_resources:\n  listeners:\n  -" + strings.ReplaceAll(listener, "\n", "\n    "))); err != nil {
			t.Errorf("%s, in a bootstrap: %v", path, err)
		}
	}
}

// asListener is a listener in YAML as a control plane sends it.
func asListener(t *testing.T, text string) []byte {
	t.Helper()
	j, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m := &listenerv3.Listener{}
	if err := (protojson.UnmarshalOptions{Resolver: resolver{}}).Unmarshal(j, m); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestChecksTellNoEnvironment: what a control plane has sent to hosts is not this process's environment.
func TestChecksTellNoEnvironment(t *testing.T) {
	m := &clusterv3.Cluster{}
	if err := protojson.Unmarshal([]byte(`{"name": "c", "connect_timeout": "1s", "load_assignment": {"cluster_name": "c"}, "health_checks": [{"timeout": "1s", "interval": "1s", "healthy_threshold": 1, "unhealthy_threshold": 1,
 "http_health_check": {"path": "/", "request_headers_to_add": [{"header": {"key": "x", "value": "%ENVIRONMENT(HOME)%"}}]}}]}`), m); err != nil {
		t.Fatal(err)
	}
	b, _ := proto.Marshal(m)
	if _, err := Cluster(b); err == nil || !strings.Contains(err.Error(), "request_headers_to_add[0].header.value: %ENVIRONMENT%") {
		t.Error(err)
	}
}
