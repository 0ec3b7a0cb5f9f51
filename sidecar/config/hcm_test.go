package config

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
)

// Each case changes one place of manager.yaml.
func TestManagerRefuses(t *testing.T) {
	text, err := os.ReadFile("testdata/manager.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, want string }{
		{"via: edge", "strip_matching_host_port: true", `strip_any_host_port: cannot be used together with strip_matching_host_port`},
		{"via: edge", "access_log_flush_interval: 1s", `access_log_options: the deprecated fields of the same meaning are set too`},
		{"via: edge", "proxy_status_config: {literal_proxy_name: a b}", `proxy_status_config: "a b" is no name of a proxy in Proxy-Status`},
		{"via: edge", "path_normalization_options: {}", `path_normalization_options: unsupported`},
		{"drain_timeout_jitter: {value: 20}", "drain_timeout_jitter: {value: 101}", `drain_timeout_jitter.value: value must be inside range`},
		{"via: edge", "upgrade_configs: [{upgrade_type: 'websocket, H2C'}]", `upgrade_configs[0].upgrade_type: h2c is never offered onward: what follows would be out of sight`},
		{"via: edge", "upgrade_configs: [{upgrade_type: x, filters: [{name: x}]}]", `upgrade_configs[0].filters[0]: filter "x" has no typed_config`},
		{"via: edge", "upgrade_configs: [{upgrade_type: x, filters: [{name: c, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}]}]", `upgrade_configs[0].filters: must end in the router filter`},
		{"via: edge", "upgrade_configs: [{upgrade_type: x, filters: [{name: r, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, suppress_envoy_headers: true, respect_expected_rq_timeout: true, start_child_span: true}}]}]", `upgrade_configs[0].filters[0].typed_config: must be the router of http_filters`},
		{"enable_trailers: true\n            allow_custom", "send_fully_qualified_url: true\n            allow_custom", `send_fully_qualified_url: is for requests to an upstream`},
		{"upgrade_type: CONNECT,", "upgrade_type: websocket,", `connect_config: is for CONNECT only`},
		{"not_health_check_filter: {}", "metadata_filter: {}", `metadata_filter.matcher: is missing`},
		{"not_health_check_filter: {}", "metadata_filter: {matcher: {filter: own, path: [{key: k}], value: {present_match: true}}}", `metadata_filter.matcher.filter: "own" says nothing here`},
		{"not_health_check_filter: {}", "extension_filter: {name: x}", `extension_filter: unsupported`},
		{"flags: [UF, DF]", "flags: [XX]", `response_flag_filter.flags[0]: value must be in list`},
		{"- status_code_filter: {comparison", "- {}\n                - status_code_filter: {comparison", `and_filter.filters[0].filter_specifier: value is required`},
		{"json_format: {code: \"%RESPONSE_CODE%\"}", "json_format: {code: \"%NOPE%\"}", `mappers[0].body_format_override.json_format: code: access log format`},
		{"body: {inline_string: gone}", "body: {filename: /no/such/file}", `mappers[0].body.filename: open /no/such/file: no such file`},
		{"omit_empty_values: true", "json_format_options: {}, text_format: x", ``},
		{"{remove: X-Old}", "{remove: ''}", `early_header_mutation_extensions[0].typed_config.mutations[0].remove: is empty`},
		{"{remove: X-Old}", "{remove: ':path'}", `early_header_mutation_extensions[0].typed_config.mutations[0].remove: ":path" cannot be changed`},
		{"key: X-New", "key: Host", `early_header_mutation_extensions[0].typed_config.mutations[1].append.header.key: "Host" cannot be changed`},
		{"key: X-New", "key: Content-Length", `early_header_mutation_extensions[0].typed_config.mutations[1].append.header.key: "Content-Length" frames the message`},
		{"%REQ(:path)%\"}, append_action: ADD_IF_ABSENT", "%NOPE%\"}, append_action: ADD_IF_ABSENT", `early_header_mutation_extensions[0].typed_config.mutations[1].append.header.value: `},
		{"{remove: X-Old}", "{}", `early_header_mutation_extensions[0].typed_config.mutations[0].action: value is required`},
		{"mutations: [{remove_on_match: {key_matcher: {prefix: x-debug-}}}]", "mutations: []", `early_header_mutation_extensions[1].typed_config.mutations: value must contain at least 1`},
		{"early_header_mutation.header_mutation.v3.HeaderMutation\n              mutations: [{remove_on_match: {key_matcher: {prefix: x-debug-}}}]", "header_formatters.preserve_case.v3.PreserveCaseFormatterConfig", `early_header_mutation_extensions[1].typed_config: is not that of header_mutation`},
		{"early_header_mutation.header_mutation.v3.HeaderMutation\n              mutations: [{remove_on_match: {key_matcher: {prefix: x-debug-}}}]", "early_header_mutation.other.v3.Other", `early_header_mutation_extensions[1]`},
		{"- name: another\n            typed_config:\n              \"@type\": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation\n              mutations: [{remove_on_match: {key_matcher: {prefix: x-debug-}}}]", "- name: another", `early_header_mutation_extensions[1]`},
		{"via: edge", "forward_client_cert_matcher: {on_no_match: {action: {name: a, typed_config: {'@type': type.googleapis.com/envoy.config.rbac.v3.Action, name: a}}}}", `forward_client_cert_matcher.on_no_match.action.typed_config: is no ForwardClientCertConfig`},
		{"via: edge", "forward_client_cert_matcher: {matcher_tree: {input: {name: a}}}", `forward_client_cert_matcher.matcher_tree`},
		{"via: edge", "forward_client_cert_matcher: {on_no_match: {action: {name: a, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.ForwardClientCertConfig, forward_client_cert_details: 7}}}}", `typed_config.forward_client_cert_details: `},
		{"format: JSON, uri", "format: 7, uri", `set_current_client_cert_details.format: unknown value 7`},
	} {
		if !strings.Contains(string(text), c.old) {
			t.Fatalf("%q is not in the file", c.old)
		}
		_, err := ParseBootstrap([]byte(strings.Replace(string(text), c.old, c.new, 1)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.new, err)
		}
	}
}

// TestDocumentedManager reads the examples of docs/connection-manager.md.
func TestDocumentedManager(t *testing.T) {
	page, err := os.ReadFile("../../docs/connection-manager.md")
	if err != nil {
		t.Fatal(err)
	}
	rest, both := string(page), ""
	for {
		var found bool
		if _, rest, found = strings.Cut(rest, "```yaml\n"); !found {
			break
		}
		text, _, _ := strings.Cut(rest, "```")
		both += "          " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n          ") + "\n"
	}
	b, err := ParseBootstrap([]byte(`static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 8000}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
` + both))
	if err != nil {
		t.Fatalf("%v\n%s", err, both)
	}
	if c := b.Listeners[0].Chains[0].HTTP; len(c.Routes.InternalOnly) != 2 || len(c.EarlyMutations) != 2 {
		t.Errorf("%+v", c)
	}
}

// TestBufferLimit: what a listener allows a connection is the limit of its managers, also of
// the default chain's; one that says nothing leaves it to them.
func TestBufferLimit(t *testing.T) {
	const chain = `{filters: [{name: h, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: s, route_config: {}, http_filters: [{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]`
	five, none := uint32(5), uint32(0)
	for field, want := range map[string]*uint32{"": nil, "per_connection_buffer_limit_bytes: 5, ": &five, "per_connection_buffer_limit_bytes: 0, ": &none} {
		b, err := ParseBootstrap([]byte(`static_resources: {listeners: [{name: l, ` + field + `address: {socket_address: {address: 127.0.0.1, port_value: 1}}, filter_chains: [` +
			chain + `, filter_chain_match: {destination_port: 2}}], default_filter_chain: ` + chain + `}}]}`))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []*hcm.Config{b.Listeners[0].Chains[0].HTTP, b.Listeners[0].Default.HTTP} {
			if got := c.BufferLimit; (got == nil) != (want == nil) || got != nil && *got != *want {
				t.Errorf("%q: %v", field, got)
			}
		}
	}
}

// TestMalformedMessages: whose setting says whether a malformed message ends the connection: the
// codec's new one, the manager's, or HTTP/2's deprecated one.
func TestMalformedMessages(t *testing.T) {
	for fields, want := range map[string]struct{ http1, http2 bool }{
		"": {true, true},
		"http2_protocol_options: {stream_error_on_invalid_http_messaging: true}, ":                                                       {true, false},
		"stream_error_on_invalid_http_message: true, ":                                                                                   {false, false},
		"stream_error_on_invalid_http_message: false, http2_protocol_options: {stream_error_on_invalid_http_messaging: true}, ":          {true, true},
		"stream_error_on_invalid_http_message: true, http2_protocol_options: {override_stream_error_on_invalid_http_message: false}, ":   {false, true},
		"http2_protocol_options: {stream_error_on_invalid_http_messaging: false, override_stream_error_on_invalid_http_message: true}, ": {true, false},
		"http_protocol_options: {override_stream_error_on_invalid_http_message: true}, ":                                                 {false, true},
		"stream_error_on_invalid_http_message: true, http_protocol_options: {override_stream_error_on_invalid_http_message: false}, ":    {true, false},
	} {
		b, err := ParseBootstrap([]byte(`static_resources: {listeners: [{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, filter_chains: [
			{filters: [{name: h, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: s, ` + fields +
			`route_config: {}, http_filters: [{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}]}`))
		if err != nil {
			t.Fatal(err)
		}
		c := b.Listeners[0].Chains[0].HTTP
		if c.HTTP2.MalformedEndsConnection != want.http2 || c.KeepAfterBadRequest == want.http1 {
			t.Errorf("%s: HTTP/1 goes on %v, HTTP/2 ends %v", fields, c.KeepAfterBadRequest, c.HTTP2.MalformedEndsConnection)
		}
	}
}

// TestSchemePorts: ports that tell of a client's connection.
func TestSchemePorts(t *testing.T) {
	read := func(fields string) (*hcm.Config, error) {
		b, err := ParseBootstrap([]byte(`static_resources: {listeners: [{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, filter_chains: [
			{filters: [{name: h, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: s, forward_proto_config: ` + fields +
			`, route_config: {}, http_filters: [{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}]}`))
		if err != nil {
			return nil, err
		}
		return b.Listeners[0].Chains[0].HTTP, nil
	}
	c, err := read("{https_destination_ports: [443, 8443], http_destination_ports: [80]}")
	if err != nil || !slices.Equal(c.HTTPSPorts, []uint16{443, 8443}) || !slices.Equal(c.HTTPPorts, []uint16{80}) {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := read("{http_destination_ports: [80, 65536]}"); err == nil || !strings.Contains(err.Error(), "forward_proto_config.http_destination_ports[1]: 65536 is no port") {
		t.Error(err)
	}
}

// TestHTTP2Options: what is said of resets, of codes and of single fields.
func TestHTTP2Options(t *testing.T) {
	read := func(fields string) (*http2.Config, error) {
		b, err := ParseBootstrap([]byte(`static_resources: {listeners: [{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, filter_chains: [
			{filters: [{name: h, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: s, ` + fields +
			`, route_config: {}, http_filters: [{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}]}`))
		if err != nil {
			return nil, err
		}
		return b.Listeners[0].Chains[0].HTTP.HTTP2, nil
	}
	c, err := read(`max_request_headers_kb: 100, http2_protocol_options: {stream_reset_burst: 0, stream_reset_rate: 99999999999, enable_huffman_encoding: true, disallow_obs_text: true, max_header_field_size_kb: 100}`)
	if err != nil || c.ResetBurst != 0 || c.ResetRate != math.MaxInt32 || !c.Huffman || !c.RejectObsText || c.MaxFieldBytes != 100<<10 {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err = read(`http2_protocol_options: {}`); err != nil || c.ResetBurst != 1000 || c.ResetRate != 33 || c.Huffman || c.RejectObsText || c.MaxFieldBytes != 0 {
		t.Errorf("%+v, %v", c, err)
	}
	for fields, refused := range map[string]string{
		`http2_protocol_options: {max_header_field_size_kb: 64}`:                              "max_header_field_size_kb: is more than the 60 KB of max_request_headers_kb",
		`max_request_headers_kb: 99, http2_protocol_options: {max_header_field_size_kb: 100}`: "max_header_field_size_kb: is more than the 99 KB of max_request_headers_kb",
		`max_request_headers_kb: 99, http2_protocol_options: {max_header_field_size_kb: 63}`:  "max_header_field_size_kb",
	} {
		if _, err := read(fields); err == nil || !strings.Contains(err.Error(), refused) {
			t.Errorf("%s: %v", fields, err)
		}
	}
	_, err = clusterOf(t, oneEndpoint+"common_http_protocol_options: {max_response_headers_kb: 80}\nhttp2_protocol_options: {max_header_field_size_kb: 90}\n")
	if err == nil || !strings.Contains(err.Error(), "http2_protocol_options.max_header_field_size_kb: is more than the 80 KB of max_response_headers_kb") {
		t.Error(err)
	}
}

// TestGrowingWindows: the windows of streams grow where the connection's, as configured, is
// never what is short.
func TestGrowingWindows(t *testing.T) {
	for fields, want := range map[string]struct{ most, spare uint32 }{
		"": {},
		"max_concurrent_streams: 100, initial_stream_window_size: 65536":                                                 {}, // whose connection's is the default
		"initial_stream_window_size: 65536, initial_connection_window_size: 100000000":                                   {},
		"max_concurrent_streams: 100, initial_connection_window_size: 2147483647":                                        {},
		"max_concurrent_streams: 100, initial_stream_window_size: 65536, initial_connection_window_size: 7602176":        {}, // just as much as they and a MiB
		"max_concurrent_streams: 100, initial_stream_window_size: 65536, initial_connection_window_size: 7602177":        {1 << 20, 1},
		"max_concurrent_streams: 10, initial_stream_window_size: 1048576, initial_connection_window_size: 100000000":     {}, // which is wide enough
		"max_concurrent_streams: 1024, initial_stream_window_size: 65536, initial_connection_window_size: 76546048":      {1 << 20, 8 << 20},
		"max_concurrent_streams: 2147483647, initial_stream_window_size: 65535, initial_connection_window_size: 1048576": {},
	} {
		c, err := clusterOf(t, oneEndpoint+"http2_protocol_options: {"+fields+"}\n")
		if err != nil {
			t.Fatal(err)
		}
		if h := c.HTTP.HTTP2; h.MaxStreamWindow != want.most || h.SpareWindow != want.spare {
			t.Errorf("%q: to %d, %d together", fields, h.MaxStreamWindow, h.SpareWindow)
		}
	}
}

// TestReplyFiles: the body of a local reply may be in a file where the bootstrap says so. A
// control plane must not have the sidecar's files read out to whoever asks.
func TestReplyFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gone.txt")
	if err := os.WriteFile(file, []byte("gone"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := &bootstrapv3.Bootstrap{}
	text := `{"staticResources": {"listeners": [{"name": "l", "address": {"socketAddress": {"address": "127.0.0.1", "portValue": 1}}, "filterChains": [
		{"filters": [{"name": "h", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "statPrefix": "s",
		"localReplyConfig": {"mappers": [{"filter": {"notHealthCheckFilter": {}}, "body": {"filename": "` + file + `"}}]},
		"routeConfig": {}, "httpFilters": [{"name": "r", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}]}]}}`
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
	b, err := ParseBootstrap([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := b.Listeners[0].Chains[0].HTTP.LocalReplies.Mappers[0].Body; got == nil || *got != "gone" {
		t.Errorf("the body is %v", got)
	}
	wire, err := proto.Marshal(m.GetStaticResources().GetListeners()[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listener(wire); err == nil || !strings.Contains(err.Error(), "mappers[0].body.filename: files are read for a bootstrap only") {
		t.Errorf("from a control plane: %v", err)
	}
}

// TestDetection: the extension that reads x-forwarded-for says how many hops are believed,
// alone, as in Envoy.
func TestDetection(t *testing.T) {
	const xff = `{name: x, typed_config: {"@type": type.googleapis.com/envoy.extensions.http.original_ip_detection.xff.v3.XffConfig, `
	const custom = `{name: x, typed_config: {"@type": type.googleapis.com/envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig, `
	for fields, want := range map[string]string{
		"original_ip_detection_extensions: [" + xff + `xff_num_trusted_hops: 2}}], `:                                                                          "",
		"original_ip_detection_extensions: [" + xff + `xff_num_trusted_hops: 2, skip_xff_append: true}}], `:                                                   "",
		"original_ip_detection_extensions: [" + xff + `xff_trusted_cidrs: {}}}], `:                                                                            "[0].typed_config.xff_trusted_cidrs.cidrs: is empty",
		"original_ip_detection_extensions: [" + xff + `xff_num_trusted_hops: 1, xff_trusted_cidrs: {cidrs: [{address_prefix: 10.0.0.0, prefix_len: 8}]}}}], `: "[0].typed_config.xff_trusted_cidrs: cannot be used together with xff_num_trusted_hops",
		"original_ip_detection_extensions: [" + xff + `xff_trusted_cidrs: {cidrs: [{address_prefix: x}]}}}], `:                                                "[0].typed_config.xff_trusted_cidrs.cidrs[0].address_prefix: ",
		"original_ip_detection_extensions: [" + custom + `header_name: "x y"}}], `:                                                                            "[0].typed_config.header_name: ",
		"use_remote_address: true, original_ip_detection_extensions: [" + xff + "}}], ":                                                                       ": cannot be used together with use_remote_address",
		"xff_num_trusted_hops: 1, original_ip_detection_extensions: [" + xff + "}}], ":                                                                        ": cannot be used together with xff_num_trusted_hops",
		`original_ip_detection_extensions: [{name: x, typed_config: {"@type": type.googleapis.com/` +
			`envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig}}], `: "[0].typed_config: is that of neither xff nor custom_header",
	} {
		b, err := ParseBootstrap([]byte(`static_resources: {listeners: [{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, filter_chains: [
			{filters: [{name: h, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: s, ` + fields +
			`route_config: {}, http_filters: [{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}]}`))
		switch {
		case want != "" && (err == nil || !strings.Contains(err.Error(), "original_ip_detection_extensions"+want)):
			t.Errorf("%s: %v", fields, err)
		case want == "" && err != nil:
			t.Errorf("%s: %v", fields, err)
		case want == "":
			if c := b.Listeners[0].Chains[0].HTTP; c.XFFTrustedHops != 2 || c.Detections != nil || c.UseRemoteAddress || !c.NamesClients() {
				t.Errorf("%s: %+v", fields, c.Trust)
			}
		}
	}
}
