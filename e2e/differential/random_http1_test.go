//go:build e2e

package differential

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestRandomHTTP1: bytes that are HTTP/1, or almost, of clients and origins.
func TestRandomHTTP1(t *testing.T) {
	j := &http1Judge{}
	random(t, domain{rounds: 4, group: randomHTTP1, look: j.look, known: j.known})
}

const (
	http1Configs = 5
	http1Cases   = 8
)

func randomHTTP1(r *rand.Rand) *Group {
	g := &Group{About: "HTTP/1 as bytes"}
	for i := range 3 {
		g.Clusters = append(g.Clusters, http1Cluster(r, fmt.Sprintf("own-%d", i)))
	}
	for i := range http1Configs {
		c := Config{Name: fmt.Sprintf("http1-%d", i), About: "random"}
		m := &http1Maker{Rand: r}
		c.HCM = http1Manager(m)
		to := func() map[string]any {
			return map[string]any{"cluster": one(r, "own-0", "own-1", "own-2")}
		}
		connect := map[string]any{"match": map[string]any{"connect_matcher": map[string]any{}}, "route": to()}
		c.Routes = []map[string]any{
			{"match": map[string]any{"path": "/local"}, "direct_response": map[string]any{"status": one(r, 200, 201, 404), "body": map[string]any{"inline_string": "here"}}},
			{"match": map[string]any{"path": "/move"}, "redirect": map[string]any{"path_redirect": "/to"}},
			{"match": map[string]any{"prefix": "/"}, "route": to()},
		}
		if chance(r, 2) {
			c.Routes = append(c.Routes, connect)
		}
		for n := range http1Cases {
			x := Case{Name: fmt.Sprintf("case-%d", n), Raw: m.conversation()}
			for range 3 {
				x.Respond = append(x.Respond, m.answer())
			}
			c.Cases = append(c.Cases, x)
		}
		g.Configs = append(g.Configs, c)
	}
	return g
}

// http1Manager is a connection manager's part, of which the maker notes what it is to know.
func http1Manager(m *http1Maker) map[string]any {
	r := m.Rand
	options, common := map[string]any{}, map[string]any{}
	h := map[string]any{"stream_idle_timeout": "0.7s", "request_headers_timeout": "0.5s"}
	some := func(into map[string]any, of map[string]any) {
		for _, k := range sortedKeys(of) {
			if chance(r, 5) {
				into[k] = of[k]
			}
		}
	}
	if chance(r, 3) {
		m.old = true
		options["accept_http_10"] = true
		some(options, map[string]any{"default_host_for_http_10": one(r, "test.example", "old.example:81")})
	}
	some(options, map[string]any{"enable_trailers": true, "allow_absolute_url": true, "override_stream_error_on_invalid_http_message": true, "allow_custom_methods": true,
		"header_key_format":      http1KeyFormat(r),
		"ignore_http_11_upgrade": []any{map[string]any{one(r, "exact", "prefix"): one(r, "websocket", "odd", "h2c", "Web")}}})
	some(common, map[string]any{"headers_with_underscores_action": one(r, "REJECT_REQUEST", "DROP_HEADER"), "max_requests_per_connection": 1 + r.IntN(3)})
	if chance(r, 5) {
		m.fields = one(r, 5, 8, 12, 100)
		common["max_headers_count"] = m.fields
	}
	if chance(r, 5) {
		m.kb = one(r, 1, 2, 4)
		h["max_request_headers_kb"] = m.kb
	}
	some(h, map[string]any{"stream_error_on_invalid_http_message": true, "server_header_transformation": one(r, "PASS_THROUGH", "APPEND_IF_ABSENT", "OVERWRITE"), "server_name": "ours", "via": "1.1 us",
		"normalize_path": true, "merge_slashes": true, "path_with_escaped_slashes_action": one(r, "KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_FORWARD", "UNESCAPE_AND_REDIRECT"),
		"strip_any_host_port": true, "strip_trailing_host_dot": true, "proxy_100_continue": true, "generate_request_id": false, "preserve_external_request_id": true, "add_user_agent": true,
		"always_set_request_id_in_response": true,
		"upgrade_configs":                   one(r, []any{map[string]any{"upgrade_type": "websocket"}}, []any{map[string]any{"upgrade_type": "CONNECT"}, map[string]any{"upgrade_type": "odd"}})})
	if len(options) > 0 {
		h["http_protocol_options"] = options
	}
	if len(common) > 0 {
		h["common_http_protocol_options"] = common
	}
	return h
}

func http1KeyFormat(r *rand.Rand) map[string]any {
	if chance(r, 2) {
		return map[string]any{"proper_case_words": map[string]any{}}
	}
	return map[string]any{"stateful_formatter": map[string]any{"name": "preserve_case", "typed_config": map[string]any{
		"@type": apiType + "extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"}}}
}

func http1Cluster(r *rand.Rand, name string) map[string]any {
	options, common := map[string]any{}, map[string]any{}
	if chance(r, 3) {
		options["enable_trailers"] = true
	}
	if chance(r, 4) {
		options["header_key_format"] = http1KeyFormat(r)
	}
	if chance(r, 6) {
		options["send_fully_qualified_url"] = true
	}
	if chance(r, 6) {
		options["override_stream_error_on_invalid_http_message"] = true
	}
	if chance(r, 5) {
		common["max_headers_count"] = one(r, 3, 5, 8)
	}
	if chance(r, 5) {
		common["max_response_headers_kb"] = one(r, 1, 5, 60)
	}
	if chance(r, 5) {
		common["max_requests_per_connection"] = 1 + r.IntN(3)
	}
	return map[string]any{"name": name, "endpoints": []any{"origin"}, "typed_extension_protocol_options": map[string]any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": map[string]any{
		"@type": apiType + "extensions.upstreams.http.v3.HttpProtocolOptions", "common_http_protocol_options": common,
		"explicit_http_config": map[string]any{"http_protocol_options": options}}}}
}

func sortedKeys(of map[string]any) []string { return slices.Sorted(maps.Keys(of)) }
