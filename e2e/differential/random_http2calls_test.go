//go:build e2e

package differential

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// randomHTTP2Calls are calls of gRPC, and answers of the sidecar's own and of hosts to them.
func randomHTTP2Calls(r *rand.Rand) *Group {
	g := &Group{About: "random calls of gRPC"}
	for i := range 2 {
		c := Config{Name: fmt.Sprintf("g%d", i), About: "random", Fresh: true, HCM: map[string]any{"codec_type": "HTTP2", "http2_protocol_options": map[string]any{"override_stream_error_on_invalid_http_message": true}}}
		c.LogFilters = map[string]any{
			"ok":    map[string]any{"grpc_status_filter": map[string]any{"statuses": []any{one(r, "OK", "UNKNOWN", "UNAVAILABLE", "NOT_FOUND", "CANCELED")}}},
			"other": map[string]any{"grpc_status_filter": map[string]any{"statuses": []any{"OK"}, "exclude": true}},
		}
		if chance(r, 2) {
			c.HCM["common_http_protocol_options"] = map[string]any{"max_headers_count": 20}
		}
		if chance(r, 3) {
			c.HCM["local_reply_config"] = map[string]any{"mappers": []any{map[string]any{
				"filter":      map[string]any{"status_code_filter": map[string]any{"comparison": map[string]any{"op": "GE", "value": map[string]any{"default_value": 500, "runtime_key": "x"}}}},
				"status_code": one(r, 429, 404, 200), "body": map[string]any{"inline_string": one(r, "mapped", "a b%é")}}}}
		}
		retry := map[string]any{"retry_on": one(r, "unavailable", "cancelled,deadline-exceeded", "resource-exhausted,internal", "reset", "5xx"), "num_retries": 1, "retry_back_off": map[string]any{"base_interval": "0.005s", "max_interval": "0.01s"}}
		c.Filters = []map[string]any{{"name": "rbac", "typed_config": map[string]any{"@type": apiType + "extensions.filters.http.rbac.v3.RBAC",
			"rules": map[string]any{"action": "DENY", "policies": map[string]any{"denied": map[string]any{"permissions": []any{map[string]any{"url_path": map[string]any{"path": map[string]any{"prefix": "/denied"}}}}, "principals": []any{map[string]any{"any": true}}}}}}}}
		direct := one(r, 200, 204, 400, 401, 403, 404, 418, 429, 500, 502, 503, 504, 599)
		c.Routes = []map[string]any{
			{"match": map[string]any{"prefix": "/refused"}, "route": map[string]any{"cluster": "refused"}},
			{"match": map[string]any{"prefix": "/direct"}, "direct_response": map[string]any{"status": direct, "body": map[string]any{"inline_string": one(r, "plain", "two\nlines", "é%", strings.Repeat("x", 100))}}},
			{"match": map[string]any{"prefix": "/redirect"}, "redirect": map[string]any{"path_redirect": "/x"}},
			{"match": map[string]any{"prefix": "/slow"}, "route": map[string]any{"cluster": "frames", "timeout": "0.2s"}},
			{"match": map[string]any{"prefix": "/brief"}, "route": map[string]any{"cluster": "frames", "timeout": "1s", "max_stream_duration": map[string]any{"grpc_timeout_header_max": one(r, "0s", "0.2s")}}},
			{"match": map[string]any{"prefix": "/retry"}, "route": map[string]any{"cluster": "frames", "retry_policy": retry}},
			{"match": map[string]any{"prefix": "/rpc", "grpc": map[string]any{}}, "route": map[string]any{"cluster": "frames"}},
			{"match": map[string]any{"prefix": "/here"}, "route": map[string]any{"cluster": "frames"}},
		}
		for n := range 6 {
			h := &http2Case{Rand: r}
			h.call(direct)
			for range 1 + h.IntN(2) {
				h.x.Respond = append(h.x.Respond, h.callAnswer())
			}
			c.Cases = append(c.Cases, h.done(n))
		}
		g.Configs = append(g.Configs, c)
	}
	return g
}

// call is one call, or what looks like one.
func (h *http2Case) call(direct int) {
	h.logs = 1
	path := one(h.Rand, "/refused", "/direct", "/redirect", "/slow", "/brief", "/retry", "/rpc", "/here", "/here", "/denied", "/nowhere")
	h.odd(1, path)
	if path == "/direct" && direct == 204 {
		h.odd(1, "204-direct")
	}
	kind := one(h.Rand, "application/grpc", "application/grpc", "application/grpc+proto", "application/grpc;a=b", "application/grpc-web", "application/grpcx", "Application/GRPC", "text/plain", "application/grpc ;a=b")
	h.odd(1, strings.ReplaceAll(kind, " ", "_"))
	method := one(h.Rand, "POST", "POST", "POST", "GET")
	h.odd(1, method)
	head := fmt.Sprintf("content-type: %s", kind)
	if chance(h.Rand, 2) {
		head += "\nte: trailers"
	}
	if path == "/brief" || chance(h.Rand, 4) {
		head += "\ngrpc-timeout: " + one(h.Rand, "100m", "20000u", "1S", "99999999H", "999999999S", "x", "5", "")
	}
	if chance(h.Rand, 8) {
		h.odd(1, "fields-20")
		head += "\n" + manyFields(20)
	}
	if method != "POST" || chance(h.Rand, 6) {
		h.step("%s 1 END %s/M\n%s", method, path, head)
	} else {
		h.step("%s 1 %s/M\n%s", method, path, head)
		h.step("settle")
		if chance(h.Rand, 4) {
			h.step("RST_STREAM 1 %s", one(h.Rand, "CANCEL", "NO_ERROR", "PROTOCOL_ERROR"))
		} else {
			h.step("DATA 1 END\n\x00\x00\x00\x00\x05hello")
		}
	}
	h.step("wait 250ms")
	h.step("settle")
}

// callAnswer is what a host says to a call.
func (h *http2Case) callAnswer() Answer {
	var a Answer
	say := func(format string, args ...any) { a.Frames = append(a.Frames, fmt.Sprintf(format, args...)) }
	status := func() string {
		return "grpc-status: " + one(h.Rand, "0", "0", "1", "4", "5", "8", "13", "14", "16", "17", "-1", "007", "x", "", "99999999999", "2\ngrpc-status: 3") + one(h.Rand, "", "\ngrpc-message: gone%20away", "\ngrpc-message:", "\ngrpc-message: é", "\ngrpc-status-details-bin: AAA")
	}
	code := one(h.Rand, "200", "200", "200", "200", "204", "404", "429", "500", "503", "504")
	if code == "204" {
		h.odd(1, "204")
	}
	kind := one(h.Rand, "\ncontent-type: application/grpc", "\ncontent-type: application/grpc", "\ncontent-type: application/grpc+json", "\ncontent-type: text/html", "")
	switch h.IntN(7) {
	case 0: // trailers only
		h.odd(1, "only")
		say("HEADERS * END\n:status: %s%s\n%s", code, kind, status())
	case 1:
		say("HEADERS *\n:status: %s%s", code, kind)
		say("wait 20ms")
		say("DATA *\n\x00\x00\x00\x00\x02ok")
		say("wait 20ms")
		say("HEADERS * END\n%s", status())
	case 2: // no status
		say("HEADERS *\n:status: %s%s", code, kind)
		say("wait 20ms")
		say("DATA * END\n\x00\x00\x00\x00\x02ok")
	case 3: // both
		say("HEADERS *\n:status: %s%s\n%s", code, kind, status())
		say("wait 20ms")
		say("HEADERS * END\n%s", status())
	case 4:
		c := one(h.Rand, resetCodes...)
		h.odd(1, "r-"+c)
		say("RST_STREAM * %s", c)
	case 5:
		say("HEADERS *\n:status: %s%s", code, kind)
		say("wait 20ms")
		say("DATA *\n\x00\x00\x00\x00\x02ok")
		say("wait 50ms")
		c := one(h.Rand, resetCodes...)
		h.odd(1, "late-"+c)
		say("RST_STREAM * %s", c)
	case 6:
		h.odd(1, "hangs")
		say("HEADERS *\n:status: %s%s", code, kind)
	}
	return a
}
