package config

import (
	"os"
	"strings"
	"testing"
)

// Each case changes one place of tracing.yaml.
func TestTracingRefuses(t *testing.T) {
	text, err := os.ReadFile("testdata/tracing.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, want string }{
		{"max_cache_size: 64", "max_cache_size: 0", `max_cache_size: is not from 1 to`},
		{"max_cache_size: 64", "max_cache_size: 4000000000", `max_cache_size: is not from 1 to`},
		{"max_cache_size: 64", "sampler: {name: x, typed_config: {\"@type\": type.googleapis.com/google.protobuf.Struct, value: {}}}", `sampler: unsupported extension "x"`},
		{"max_cache_size: 64", "sampler: {name: x, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.regex_engines.v3.GoogleRE2}}", `sampler: "x" is no sampler that is implemented`},
		{"max_cache_size: 64", "resource_detectors: [{name: x, typed_config: {\"@type\": type.googleapis.com/google.protobuf.Struct, value: {}}}]", `resource_detectors[0]: unsupported extension "x"`},
		{"cluster_name: c, authority", "cluster_name: nowhere, authority", `nowhere`},
		{"authority: collector.test", "retry_policy: {}", `retry_policy: unsupported`},
		{"initial_metadata: [{key: x-token", "initial_metadata: [{key: ':path'", `initial_metadata[0].key`},
		{"http://collector.test:4318/v1/traces", "http://me:hunter2@collector.test/", `http_uri.uri: names a user; use request_headers_to_add`},
		{"http://collector.test:4318/v1/traces", "http://me:hunter2@collector.test:port/", `http_uri.uri: is no URI with a host and a path`},
		{"- {tag: lit, literal: {value: \"5\"}", "- {tag: component, literal: {value: \"5\"}", `tracing: custom tag component: every span has a tag of this name`},
		{"- {tag: fmt, value: \"%RESPONSE_CODE%\"}", "- {tag: fmt, value: \"x%NOPE%\"}", `tracing: custom tag fmt: access log format, byte 2: operator %NOPE% is unknown`},
		{"- {tag: fmt, value: \"%RESPONSE_CODE%\"}", "- {tag: fmt, metadata: {kind: {request: {}}, metadata_key: {key: nowhere, path: [{key: k}]}}}", `custom_tags[3].metadata.metadata_key.key: requests have metadata of envoy.filters.http.rbac alone`},
		{"- {tag: fmt, value: \"%RESPONSE_CODE%\"}", "- {tag: fmt, metadata: {kind: {request: {}}, metadata_key: {key: envoy.filters.listener.proxy_protocol, path: [{key: k}]}}}", `custom_tags[3].metadata.metadata_key.key: `},
		{"- {tag: fmt, value: \"%RESPONSE_CODE%\"}", "- {tag: fmt, metadata: {metadata_key: {key: a, path: [{key: k}]}}}", `custom_tags[3].metadata.kind: is missing`},
		{"- {tag: fmt, value: \"%RESPONSE_CODE%\"}", "- {tag: fmt, metadata: {kind: {route: {}}, metadata_key: {key: 'a:b', path: [{key: k}]}}}", `custom_tags[3].metadata.metadata_key: "a:b" has one of the characters`},
		{"- {tag: fmt, value: \"%RESPONSE_CODE%\"}", "- {tag: fmt, metadata: {kind: {route: {}}, metadata_key: {key: hauberk, path: [{key: k}]}}}", `custom_tags[3].metadata: "hauberk" is the mesh's own`},
		{"operation: \"%REQ(:METHOD)%\"", "operation: \"%\"", `tracing: operation: `},
		{"uri: \"http://collector.test:4318/v1/traces\"", "uri: \"collector.test\"", `http_uri.uri: has no scheme`},
		{"http_service:\n", "grpc_service: {envoy_grpc: {cluster_name: c}}\n                http_service:\n", `http_service: cannot be used together with grpc_service`},
		{"collector_endpoint_version: HTTP_JSON", "collector_endpoint_version: HTTP_PROTO", `collector_endpoint_version: is HTTP_PROTO; use HTTP_JSON`},
		{"collector_endpoint: /api/v2/spans", "collector_endpoint: api", `collector_endpoint: "api" is no path`},
		{"collector_cluster: c\n", "collector_cluster: ''\n", `collector_cluster: is missing`},
		{"envoy.config.trace.v3.ZipkinConfig", "envoy.config.trace.v3.XRayConfig", `unsupported extension "zipkin" (type envoy.config.trace.v3.XRayConfig)`},
		{"operation: \"route %REQ(:METHOD)%\"", "operation: \"%NOPE%\"", `routes[0].tracing: operation: access log format`},
		{"upstream_operation: \"to %UPSTREAM_CLUSTER%\"", "upstream_operation: \"%NOPE%\"", `routes[0].tracing: upstream_operation: access log format`},
		{"custom_tags: [{tag: r, request_header: {name: X-R}}]", "custom_tags: [{tag: zone, request_header: {name: X-R}}]", `routes[0].tracing: custom tag zone: every span`},
		{"custom_tags: [{tag: r, request_header: {name: X-R}}]", "custom_tags: [{tag: r, metadata: {metadata_key: {key: a, path: [{key: k}]}}}]", `routes[0].tracing.custom_tags[0].metadata.kind: is missing`},
		{"global_enabled: 50", "global_enabled: 0.5", `is no whole percentage`},
		{"global_enabled: 50", "global_enabled: lots", `is not a number`},
		{"\"%SPAN_ID%\", 1", "\"%SPAN%\", 1", `log_format.json_format: nested: list: [0]: access log format, byte 1: operator %SPAN% is unknown`},
	} {
		if !strings.Contains(string(text), c.old) {
			t.Fatalf("%q is not in the file", c.old)
		}
		_, err := ParseBootstrap([]byte(strings.Replace(string(text), c.old, c.new, 1)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.new, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("a password is in %v", err)
		}
	}
}
