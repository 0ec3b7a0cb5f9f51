//go:build e2e

package differential

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestRandomHTTP2: random connections of HTTP/2, frame by frame, on either side.
func TestRandomHTTP2(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]domain{
		"clients": {rounds: 1, group: randomHTTP2Clients, known: knownOfHTTP2, look: lookHTTP2},
		"grpc":    {rounds: 1, group: randomHTTP2Calls, known: knownOfHTTP2, look: lookHTTP2},
		"hosts":   {rounds: 1, group: randomHTTP2Hosts, known: knownOfHTTP2, look: lookHTTP2},
	} {
		t.Run(name, func(t *testing.T) { random(t, m) })
	}
}

// http2Case is one made connection. Its name tells for each stream what is odd of it.
type http2Case struct {
	*rand.Rand
	x    Case
	said []string
	logs int
}

func (h *http2Case) step(format string, args ...any) {
	h.x.Frames = append(h.x.Frames, fmt.Sprintf(format, args...))
}

// odd notes a construct by name, of a stream.
func (h *http2Case) odd(stream int, name string) {
	h.said = append(h.said, fmt.Sprintf("%d:%s", stream, name))
}

func (h *http2Case) done(n int) Case {
	h.x.Name = fmt.Sprintf("%d %s", n, strings.Join(h.said, " "))
	h.x.ByStream = true
	h.x.Logs = &h.logs
	return h.x
}

// http2Options are options of HTTP/2 that matter to who sends these frames.
func http2Options(r *rand.Rand) map[string]any {
	o := map[string]any{}
	maybe := func(name string, of ...any) {
		if chance(r, 4) {
			o[name] = one(r, of...)
		}
	}
	if chance(r, 2) {
		o["override_stream_error_on_invalid_http_message"] = true
	}
	maybe("max_concurrent_streams", 5, 100)
	maybe("initial_stream_window_size", 65535, 65536, 1<<20)
	maybe("initial_connection_window_size", 65535, 65536, 1<<20)
	maybe("allow_connect", true)
	maybe("hpack_table_size", 0, 64, 4096)
	maybe("max_consecutive_inbound_frames_with_empty_payload", 1, 2, 10)
	maybe("max_inbound_priority_frames_per_stream", 1, 100)
	maybe("max_inbound_window_update_frames_per_data_frame_sent", 1, 10)
	maybe("max_outbound_control_frames", 100)
	return o
}

// http2Cluster leads to the origin that speaks frame by frame.
func http2Cluster(r *rand.Rand, name string) map[string]any {
	return map[string]any{"name": name, "endpoints": []any{"frames"}, "typed_extension_protocol_options": map[string]any{
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": map[string]any{
			"@type":                        apiType + "extensions.upstreams.http.v3.HttpProtocolOptions",
			"common_http_protocol_options": http2Common(r),
			"explicit_http_config":         map[string]any{"http2_protocol_options": http2Options(r)}}}}
}

// http2Common are the limits of heads.
func http2Common(r *rand.Rand) map[string]any {
	c := map[string]any{}
	if chance(r, 3) {
		c["max_headers_count"] = one(r, 12, 16, 100)
	}
	if chance(r, 3) {
		c["headers_with_underscores_action"] = one(r, "ALLOW", "REJECT_REQUEST", "DROP_HEADER")
	}
	return c
}

// http2Listener is a listener of HTTP/2, or of HTTP/1 and HTTP/2.
func http2Listener(r *rand.Rand, name string) Config {
	c := Config{Name: name, About: "random", Fresh: true, HCM: map[string]any{
		"codec_type": one(r, "HTTP2", "AUTO"), "http2_protocol_options": http2Options(r), "common_http_protocol_options": http2Common(r)}}
	if chance(r, 3) {
		c.HCM["upgrade_configs"] = []any{map[string]any{"upgrade_type": one(r, "websocket", "CONNECT", "other")}}
	}
	if chance(r, 4) {
		c.HCM["max_request_headers_kb"] = one(r, 1, 8, 96)
	}
	return c
}

func randomHTTP2Clients(r *rand.Rand) *Group {
	g := &Group{About: "random clients of HTTP/2"}
	for i := range 3 {
		c := http2Listener(r, fmt.Sprintf("c%d", i))
		cluster := "origin"
		if chance(r, 2) {
			cluster = "h" + c.Name
			g.Clusters = append(g.Clusters, http2Cluster(r, cluster))
		}
		c.Routes = []map[string]any{{"match": map[string]any{"prefix": "/"}, "route": map[string]any{"cluster": cluster}}}
		if chance(r, 3) {
			c.Routes = append([]map[string]any{{"match": map[string]any{"connect_matcher": map[string]any{}}, "route": map[string]any{"cluster": cluster}}}, c.Routes...)
		}
		for n := range 6 {
			h := &http2Case{Rand: r}
			h.client()
			h.answers(cluster)
			c.Cases = append(c.Cases, h.done(n))
		}
		g.Configs = append(g.Configs, c)
	}
	return g
}

// client sends some streams with a few odd things.
func (h *http2Case) client() {
	streams := one(h.Rand, 1, 1, 2, 3)
	faults := one(h.Rand, 0, 1, 1, 1, 2)
	id := 1
	for range streams {
		odd := faults > 0 && !chance(h.Rand, 3)
		if odd {
			faults--
		}
		h.request(id, odd)
		if faults > 0 && chance(h.Rand, 3) {
			faults--
			h.between(id)
		}
		id += one(h.Rand, 2, 2, 2, 4)
	}
	h.step("settle")
}

// named is text for a case and what stands for it in the case's name.
type named struct{ name, text string }

// oddFields are those of a request.
var oddFields = []named{
	{"te", "te: trailers"}, {"te-gzip", "te: gzip"}, {"te-upper", "te: Trailers"}, {"te-list", "te: trailers, deflate"}, {"te-two", "te: trailers\nte: trailers"}, {"te-empty", "te:"},
	{"connection", "connection: close"}, {"connection-te", "connection: te"}, {"keep-alive", "keep-alive: timeout=5"}, {"proxy-connection", "proxy-connection: keep-alive"},
	{"transfer-encoding", "transfer-encoding: chunked"}, {"te-identity", "transfer-encoding: identity"}, {"upgrade", "upgrade: websocket"}, {"http2-settings", "http2-settings: AAMAAABkAAQAAP__"},
	{"upper", "X-Upper: 1"}, {"space-before", "x-a:  v"}, {"space-after", "x-a: v "}, {"tab-after", "x-a: v\t"}, {"tab", "x-a: a\tb"}, {"control", "x-a: a\x01b"}, {"cr", "x-a: a\rb"}, {"nul", "x-a: a\x00b"}, {"del", "x-a: a\x7fb"},
	{"utf8", "x-a: é"}, {"bytes", "x-a: a\xffb"}, {"name-space", "x a: v"}, {"name-parenthesis", "x(a): v"}, {"name-utf8", "xé: v"}, {"underscore", "a_b: 1"}, {"underscores", "a_b: 1\na-b: 2\na_b: 3"},
	{"crumbs", "cookie: a=1\ncookie: b=2"}, {"crumbs-apart", "cookie: a=1\nx-a: 1\ncookie: b=2\ncookie: c"}, {"crumbs-empty", "cookie:\ncookie: a=1\ncookie:"}, {"crumb-semicolon", "cookie: a=1;\ncookie: b=2"},
	{"length-0", "content-length: 0"}, {"length-5", "content-length: 5"}, {"length-two", "content-length: 5\ncontent-length: 5"}, {"length-differ", "content-length: 5\ncontent-length: 6"}, {"length-list", "content-length: 5, 5"},
	{"length-plus", "content-length: +5"}, {"length-zeros", "content-length: 005"}, {"length-empty", "content-length:"}, {"length-negative", "content-length: -1"}, {"length-hex", "content-length: 0x5"}, {"length-huge", "content-length: 99999999999999999999"}, {"length-max", "content-length: 9223372036854775807"},
	{"host", "host: test.example"}, {"host-upper", "host: TEST.example"}, {"host-other", "host: other.example"}, {"host-two", "host: test.example\nhost: test.example"}, {"host-empty", "host:"},
	{"expect", "expect: 100-continue"}, {"expect-upper", "expect: 100-Continue"}, {"expect-other", "expect: 200-ok"}, {"expect-empty", "expect:"},
	{"empty", "x-a:"}, {"empties", "x-a:\nx-a:\nx-b:"}, {"repeated", "x-a: 1\nx-b: 2\nx-a: 3"}, {"trailer", "trailer: x-sum"}, {"range", "range: bytes=0-1\nrange: bytes=2-3"},
	{"pseudo-late", ":path: /late"}, {"pseudo-unknown", ":foo: bar"}, {"pseudo-status", ":status: 200"}, {"pseudo-protocol", ":protocol: websocket"},
	{"fields-10", "f1: 1\nf2: 2\nf3: 3\nf4: 4\nf5: 5\nf6: 6\nf7: 7\nf8: 8\nf9: 9\nf10: 10"}, {"long", "x-long: " + strings.Repeat("l", 900)}, {"longer", "x-long: " + strings.Repeat("l", 7000)}, {"longest", "x-long: " + strings.Repeat("l", 15000)},
	{"max-forwards", "max-forwards: 0"}, {"date", "date: x"}, {"grpc-timeout", "grpc-timeout: 1S"}, {"ws", "sec-websocket-version: 13\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="},
}

// oddHeads are whole heads of requests; $ is the stream.
var oddHeads = []named{
	{"no-method", ":scheme: http\n:authority: test.example\n:path: /s$"}, {"no-scheme", ":method: GET\n:authority: test.example\n:path: /s$"}, {"no-authority", ":method: GET\n:scheme: http\n:path: /s$"}, {"no-path", ":method: GET\n:scheme: http\n:authority: test.example"},
	{"nothing", "x-a: 1"}, {"host-alone", ":method: GET\n:scheme: http\n:path: /s$\nhost: test.example"}, {"host-alone-empty", ":method: GET\n:scheme: http\n:path: /s$\nhost:"},
	{"two-methods", ":method: GET\n:method: GET\n:scheme: http\n:authority: test.example\n:path: /s$"}, {"two-authorities", ":method: GET\n:scheme: http\n:authority: test.example\n:authority: test.example\n:path: /s$"},
	{"late", ":method: GET\n:scheme: http\nx-a: 1\n:authority: test.example\n:path: /s$"}, {"order", ":path: /s$\n:authority: test.example\n:scheme: http\n:method: GET"},
	{"path-empty", ":method: GET\n:scheme: http\n:authority: test.example\n:path:"}, {"path-star", ":method: GET\n:scheme: http\n:authority: test.example\n:path: *"}, {"options-star", ":method: OPTIONS\n:scheme: http\n:authority: test.example\n:path: *"},
	{"path-relative", ":method: GET\n:scheme: http\n:authority: test.example\n:path: s$"}, {"path-absolute", ":method: GET\n:scheme: http\n:authority: test.example\n:path: http://test.example/s$"}, {"path-space", ":method: GET\n:scheme: http\n:authority: test.example\n:path: /s$ x"}, {"path-utf8", ":method: GET\n:scheme: http\n:authority: test.example\n:path: /s$é"}, {"path-query", ":method: GET\n:scheme: http\n:authority: test.example\n:path: /s$?"}, {"path-fragment", ":method: GET\n:scheme: http\n:authority: test.example\n:path: /s$#x"},
	{"authority-port", ":method: GET\n:scheme: http\n:authority: test.example:80\n:path: /s$"}, {"authority-empty", ":method: GET\n:scheme: http\n:authority:\n:path: /s$"}, {"authority-user", ":method: GET\n:scheme: http\n:authority: a@test.example\n:path: /s$"}, {"authority-space", ":method: GET\n:scheme: http\n:authority: a b\n:path: /s$"}, {"authority-upper", ":method: GET\n:scheme: http\n:authority: TEST.Example\n:path: /s$"}, {"authority-port-large", ":method: GET\n:scheme: http\n:authority: test.example:99999\n:path: /s$"}, {"authority-6", ":method: GET\n:scheme: http\n:authority: [::1]:80\n:path: /s$"}, {"authority-path", ":method: GET\n:scheme: http\n:authority: test.example/x\n:path: /s$"}, {"authority-utf8", ":method: GET\n:scheme: http\n:authority: tést\n:path: /s$"},
	{"scheme-https", ":method: GET\n:scheme: https\n:authority: test.example\n:path: /s$"}, {"scheme-upper", ":method: GET\n:scheme: HTTP\n:authority: test.example\n:path: /s$"}, {"scheme-ftp", ":method: GET\n:scheme: ftp\n:authority: test.example\n:path: /s$"}, {"scheme-empty", ":method: GET\n:scheme:\n:authority: test.example\n:path: /s$"},
	{"method-empty", ":method:\n:scheme: http\n:authority: test.example\n:path: /s$"}, {"method-lower", ":method: get\n:scheme: http\n:authority: test.example\n:path: /s$"}, {"method-space", ":method: G T\n:scheme: http\n:authority: test.example\n:path: /s$"}, {"method-own", ":method: A.B!\n:scheme: http\n:authority: test.example\n:path: /s$"}, {"method-trace", ":method: TRACE\n:scheme: http\n:authority: test.example\n:path: /s$"}, {"method-pri", ":method: PRI\n:scheme: http\n:authority: test.example\n:path: /s$"},
	{"connect", ":method: CONNECT\n:authority: test.example:80"}, {"connect-no-port", ":method: CONNECT\n:authority: test.example"}, {"connect-path", ":method: CONNECT\n:scheme: http\n:authority: test.example:80\n:path: /s$"}, {"connect-nothing", ":method: CONNECT"}, {"connect-host", ":method: CONNECT\nhost: test.example:80"},
	{"extended", ":method: CONNECT\n:protocol: websocket\n:scheme: http\n:authority: test.example\n:path: /s$\nsec-websocket-version: 13"}, {"extended-other", ":method: CONNECT\n:protocol: other\n:scheme: http\n:authority: test.example\n:path: /s$"}, {"extended-empty", ":method: CONNECT\n:protocol:\n:scheme: http\n:authority: test.example\n:path: /s$"}, {"extended-no-path", ":method: CONNECT\n:protocol: websocket\n:authority: test.example"}, {"protocol-get", ":method: GET\n:protocol: websocket\n:scheme: http\n:authority: test.example\n:path: /s$"}, {"extended-length", ":method: CONNECT\n:protocol: websocket\n:scheme: http\n:authority: test.example\n:path: /s$\ncontent-length: 5"}, {"extended-upgrade", ":method: CONNECT\n:protocol: websocket\n:scheme: http\n:authority: test.example\n:path: /s$\nupgrade: websocket\nconnection: upgrade"},
}

// oddTrailers of a request or an answer.
var oddTrailers = []named{
	{"t-pseudo", ":path: /"}, {"t-status", ":status: 200"}, {"t-host", "host: a"}, {"t-length", "content-length: 5"}, {"t-te", "te: trailers"}, {"t-connection", "connection: close"}, {"t-upper", "X-T: 1"}, {"t-transfer-encoding", "transfer-encoding: chunked"},
	{"t-empty-value", "x-t:"}, {"t-two", "x-t: 1\nx-t: 2"}, {"t-underscore", "a_b: 1"}, {"t-cookie", "cookie: a=1\ncookie: b=2"}, {"t-authorization", "authorization: x"}, {"t-nul", "x-t: a\x00b"}, {"t-utf8", "x-t: é"}, {"t-none", ""}, {"t-trailer", "trailer: x"}, {"t-type", "content-type: text/plain"}, {"t-grpc", "grpc-status: 5\ngrpc-message: a%20b"}, {"t-20", manyFields(20)},
}

func manyFields(n int) string {
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf("m%d: %d", i, i))
	}
	return strings.Join(lines, "\n")
}

// request is one stream.
func (h *http2Case) request(id int, odd bool) {
	h.logs++
	head := fmt.Sprintf(":method: %s\n:scheme: http\n:authority: test.example\n:path: /s%d", one(h.Rand, "GET", "POST", "PUT", "DELETE", "OPTIONS"), id)
	end := chance(h.Rand, 2)
	kind := h.IntN(10)
	switch {
	case !odd:
	case kind < 3:
		f := one(h.Rand, oddHeads...)
		h.odd(id, f.name)
		head = strings.ReplaceAll(f.text, "$", fmt.Sprint(id))
		end = end && !strings.Contains(f.name, "extended") && !strings.Contains(f.name, "connect")
	case kind < 7:
		f := one(h.Rand, oddFields...)
		h.odd(id, f.name)
		head += "\n" + f.text
	}
	flag := ""
	if end {
		flag = " END"
	}
	if chance(h.Rand, 8) {
		flag += " PAD"
	}
	if chance(h.Rand, 6) { // in pieces
		lines := strings.Split(head, "\n")
		at := h.IntN(len(lines) + 1)
		h.step("HEADERS %d%s MORE\n%s", id, flag, strings.Join(lines[:at], "\n"))
		if odd && chance(h.Rand, 6) {
			h.odd(id, "continuation-broken")
			h.step("%s", one(h.Rand, "PING 0", "DATA 1\nx", "CONTINUATION 7\nx-a: 1", "SETTINGS 3 5"))
		}
		h.step("CONTINUATION %d\n%s", id, strings.Join(lines[at:], "\n"))
	} else {
		h.step("HEADERS %d%s\n%s", id, flag, head)
	}
	h.step("settle")
	if odd && kind >= 7 || chance(h.Rand, 6) {
		if h.abrupt(id) {
			return
		}
	}
	if !end {
		h.body(id, odd)
	}
}

// body sends the rest of a request.
func (h *http2Case) body(id int, odd bool) {
	for range h.IntN(3) {
		h.step("DATA %d%s\n%s", id, one(h.Rand, "", " PAD"), one(h.Rand, "hello", "{3000}"))
	}
	h.step("settle")
	switch h.IntN(5) {
	case 0, 1:
		h.step("DATA %d END%s\n%s", id, one(h.Rand, "", " PAD"), one(h.Rand, "hello", ""))
	case 2:
		h.step("HEADERS %d END\nx-sum: 1", id)
	case 3:
		if odd && chance(h.Rand, 4) {
			h.odd(id, "t-open")
			h.step("HEADERS %d\nx-sum: 1", id)
			break
		}
		f := one(h.Rand, oddTrailers...)
		h.odd(id, f.name)
		h.step("HEADERS %d END\n%s", id, f.text)
	case 4: // without end
		h.odd(id, "open")
	}
	h.step("settle")
}

var resetCodes = []string{"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED", "OTHER"}

// abrupt does something to a stream that is open or over; it tells whether nothing more is to
// be sent on it.
func (h *http2Case) abrupt(id int) (over bool) {
	switch h.IntN(8) {
	case 0, 1, 2:
		code := one(h.Rand, resetCodes...)
		h.odd(id, "reset")
		h.step("RST_STREAM %d %s", id, code)
		if chance(h.Rand, 4) {
			h.odd(id, "behind-reset")
			h.step("%s", one(h.Rand, fmt.Sprintf("DATA %d END\nmore", id), fmt.Sprintf("HEADERS %d END\nx-t: 1", id), fmt.Sprintf("RST_STREAM %d CANCEL", id), fmt.Sprintf("WINDOW_UPDATE %d 5", id)))
		}
		h.step("settle")
		return true
	case 3:
		by := one(h.Rand, 0, 1, 1<<30, 1<<31-1, 1<<31-1-65535, 1<<31-65535)
		h.odd(id, fmt.Sprintf("window-%d", by))
		h.step("WINDOW_UPDATE %d %d", id, by)
	case 4:
		on := one(h.Rand, 0, id, id+2)
		if on == id {
			h.odd(id, "priority-itself")
		}
		h.step("PRIORITY %d %d", id, on)
	case 5:
		h.odd(id, "again")
		h.step("HEADERS %d END\nx-t: 1", id)
		h.step("settle")
		return true
	case 6:
		h.odd(id, "unknown")
		h.step("FRAME %d %s %s\n%s", id, one(h.Rand, "0b", "fa", "0c", "10"), one(h.Rand, "00", "ff"), one(h.Rand, "", "0011"))
	case 7:
		f := one(h.Rand, named{"size-reset", "03 00\n00"}, named{"size-priority", "02 00\n00000000"}, named{"size-window", "08 00\n00"}, named{"push", "05 04\n00000002"}, named{"padding-none", "00 08"}, named{"padding-long", "00 08\n0a00"}, named{"head-short", "01 2c\n00"}, named{"ping-stream", "06 00\n0000000000000000"})
		h.odd(id, f.name)
		h.step("FRAME %d %s", id, f.text)
	}
	return false
}

// between is something on the connection, or on a stream that is not open.
func (h *http2Case) between(id int) {
	what := []named{
		{"ping", "PING 0"}, {"ping-ack", "PING 0 END"}, {"settings-table", "SETTINGS 1 " + one(h.Rand, "0", "100", "65536", "4294967295")}, {"settings-push", "SETTINGS 2 " + one(h.Rand, "0", "1", "2")}, {"settings-streams", "SETTINGS 3 " + one(h.Rand, "0", "1", "4294967295")},
		{"settings-window", "SETTINGS 4 " + one(h.Rand, "0", "1", "100", "65535", "2147483647", "2147483648")}, {"settings-frame", "SETTINGS 5 " + one(h.Rand, "16383", "16384", "16777215", "16777216")}, {"settings-list", "SETTINGS 6 " + one(h.Rand, "0", "100", "4294967295")},
		{"settings-connect", "SETTINGS 8 " + one(h.Rand, "0", "1", "2")}, {"settings-unknown", "SETTINGS 99 1"}, {"settings-ack", "FRAME 0 04 01"}, {"settings-ack-full", "FRAME 0 04 01\n000100000000"}, {"settings-size", "FRAME 0 04 00\n0001"},
		{"settings-stream", "FRAME 1 04 00\n000100000000"}, {"window-0", "WINDOW_UPDATE 0 0"}, {"window-overflow", "WINDOW_UPDATE 0 2147483647"}, {"window-some", "WINDOW_UPDATE 0 1000"}, {"goaway", "GOAWAY 0 NO_ERROR"}, {"goaway-error", "GOAWAY 0 " + one(h.Rand, resetCodes...)},
		{"goaway-short", "FRAME 0 07 00\n00000000"}, {"goaway-stream", "FRAME 1 07 00\n0000000000000000"}, {"push", "FRAME 1 05 04\n0000000282"}, {"continuation", fmt.Sprintf("CONTINUATION %d\nx-a: 1", id)}, {"data-0", "DATA 0\nx"}, {"headers-0", "HEADERS 0 END\n:method: GET"},
		{"data-idle", "DATA 99\nx"}, {"reset-idle", "RST_STREAM 99 CANCEL"}, {"window-idle", "WINDOW_UPDATE 99 5"}, {"priority-idle", "PRIORITY 99 0"}, {"priority-self", "PRIORITY 99 99"}, {"headers-even", "HEADERS 98 END\n:method: GET\n:scheme: http\n:authority: test.example\n:path: /s98"},
		{"unknown-0", "FRAME 0 fa 00\n00"}, {"ping-size", "FRAME 0 06 00\n00"}, {"ping-stream", "FRAME 1 06 00\n0000000000000000"}, {"reset-0", "RST_STREAM 0 CANCEL"}, {"priority-0", "PRIORITY 0 1"}, {"window-even", "WINDOW_UPDATE 2 5"}, {"data-even", "DATA 2\nx"}, {"priority-update", "FRAME 0 10 00\n00000001753d31"},
		{"push-0", "FRAME 0 05 04\n0000000282"}, {"hpack-bad", fmt.Sprintf("FRAME %d 01 05\nff ff ff ff ff ff ff ff", id+20)}, {"hpack-index", fmt.Sprintf("FRAME %d 01 05\nfe", id+20)}, {"hpack-size", fmt.Sprintf("FRAME %d 01 05\n3f e1 ff 03", id+20)}, {"empty-data", fmt.Sprintf("DATA %d", id)},
	}
	f := one(h.Rand, what...)
	h.odd(0, f.name)
	h.step("settle")
	for range one(h.Rand, 1, 1, 1, 2, 5) {
		h.step("%s", f.text)
	}
	h.step("settle")
}

// answers are plain ones, of the origin's kind, the same for all streams: one of them may not
// come so far.
func (h *http2Case) answers(cluster string) {
	a := one(h.Rand, Answer{}, Answer{Send: "200 OK\n\nhello"}, Answer{Send: "204 No Content"}, Answer{Send: "200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n0\nX-Sum: 1\n\n"})
	if cluster != "origin" {
		code := one(h.Rand, resetCodes...)
		h.odd(0, "r-"+code)
		a = one(h.Rand, Answer{}, Answer{Frames: []string{"HEADERS * END\n:status: 204"}}, Answer{Frames: []string{"HEADERS *\n:status: 200", "DATA *\nhello", "HEADERS * END\nx-sum: 1"}}, Answer{Early: true, Frames: []string{"HEADERS *\n:status: 413", "DATA * END\nno"}}, Answer{Frames: []string{"RST_STREAM * " + code}})
	}
	for range 4 {
		h.x.Respond = append(h.x.Respond, a)
	}
}
