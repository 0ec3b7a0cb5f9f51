//go:build e2e

package differential

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRandomManager: random connection managers, chains of HTTP filters and access logs.
func TestRandomManager(t *testing.T) {
	random(t, domain{rounds: 2, group: randomManagers, known: knownOfManagers})
}

// manager makes one configuration of a connection manager.
type manager struct {
	*rand.Rand
	c *Config
	// paths are those that the configuration talks about.
	paths []string
	// wants are headers that it talks about, with values.
	wants []string
	// plain has queries without escapes: what changes parameters writes them anew.
	plain bool
	// traced is a tracer: ids that it makes are compared by their form alone.
	traced bool
	// local: the bootstrap names a local cluster.
	local bool
}

func randomManagers(r *rand.Rand) *Group {
	g := &Group{About: "random connection managers", Clusters: []map[string]any{
		{"name": "told", "endpoints": []any{"origin"}, "metadata": dict{"filter_metadata": dict{"a.b": dict{"k": "v\"é", "o": dict{"i": 1}, "s": ""}}}},
		{"name": "nobody", "endpoints": []any{}},
		{"name": "hurt", "endpoints": []any{dict{"origin": "UNHEALTHY"}, "other"}, "common_lb_config": dict{"healthy_panic_threshold": dict{"value": 0}}},
	}}
	g.Bootstrap = dict{}
	local := chance(r, 2)
	if local {
		g.Bootstrap["cluster_manager"] = dict{"local_cluster_name": "local"}
		g.Clusters = append(g.Clusters, dict{"name": "local", "endpoints": []any{"origin", "other", "third"}[:1+r.IntN(3)]})
	}
	for i := range 8 {
		c := Config{Name: fmt.Sprintf("manager-%d", i), About: "random", HCM: dict{}, VHost: dict{}, RouteConfig: dict{}}
		m := &manager{Rand: r, c: &c, local: local}
		m.configure()
		for n := range 8 {
			c.Cases = append(c.Cases, m.request(fmt.Sprintf("case-%d", n)))
		}
		g.Configs = append(g.Configs, c)
	}
	keys, text := dict{}, fmt.Sprintf("%+v", g.Configs)
	for key, value := range madeKeys { // the sidecar takes none that nothing reads
		if strings.Contains(text, "made."+key) {
			keys[key] = value
		}
	}
	if len(keys) > 0 {
		g.Bootstrap["layered_runtime"] = dict{"layers": []any{dict{"name": "static", "static_layer": dict{"made": keys}}}}
	}
	return g
}

// percent is a fraction that leaves nothing to chance.
func (m *manager) percent() dict {
	switch m.IntN(8) {
	case 0, 1:
		return dict{"numerator": 0}
	case 2:
		return dict{"numerator": 10000, "denominator": "TEN_THOUSAND"}
	case 3:
		return dict{"numerator": 1000000, "denominator": "MILLION"}
	}
	return dict{"numerator": 100}
}

func (m *manager) runtimePercent() dict {
	out := dict{"default_value": m.percent()}
	if chance(m.Rand, 2) {
		out["runtime_key"] = m.shareKey()
	}
	return out
}

// want has requests send a header with one of these values.
func (m *manager) want(name string, values ...string) {
	for _, v := range values {
		m.wants = append(m.wants, name+": "+v)
	}
}

func (m *manager) configure() {
	c, h := m.c, m.c.HCM
	switch m.IntN(6) {
	case 0, 1:
		c.HTTP2 = true
	case 2:
		c.MTLS = &MTLS{}
		m.clientCertificate()
	}
	m.addresses()
	m.identity()
	if chance(m.Rand, 4) {
		m.tracing()
	}
	if chance(m.Rand, 4) {
		var list []any
		for range 1 + m.IntN(2) {
			list = append(list, dict{"name": "early", "typed_config": dict{"@type": apiType + "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation", "mutations": m.mutations(requestOperators)}})
		}
		h["early_header_mutation_extensions"] = list
	}
	m.hosts()
	h["http_protocol_options"] = dict{"enable_trailers": !chance(m.Rand, 4)}
	m.more()
	m.filters()
	m.routes()
	if !chance(m.Rand, 3) {
		h["local_reply_config"] = m.localReplies()
	}
	m.logs()
}

// addresses says whose word is taken for who asks.
func (m *manager) addresses() {
	h := m.c.HCM
	m.want("X-Forwarded-For", "10.1.2.3", "203.0.113.9", "203.0.113.9, 10.0.0.1", "10.1.2.3,203.0.113.9 , 192.168.7.7", "nonsense", "", "::1", "2001:db8::1, 1.2.3.4:80", " , ", "1.2.3.4,", "1.2.3.4, x, 10.0.0.2")
	m.want("X-Forwarded-Proto", "https", "http", "HTTPS", "gopher")
	if chance(m.Rand, 2) {
		inside := dict{"cidr_ranges": []any{dict{"address_prefix": one(m.Rand, "10.0.0.0", "192.168.0.0"), "prefix_len": one(m.Rand, 8, 16)}, dict{"address_prefix": "2001:db8::", "prefix_len": 32}}}
		if chance(m.Rand, 4) {
			inside["unix_sockets"] = true
		}
		h["internal_address_config"] = inside
		m.c.RouteConfig["internal_only_headers"] = []any{"x-secret", "X-A"}
		m.want("X-Secret", "1", "")
		m.want("X-Envoy-Internal", "true")
	}
	switch m.IntN(4) {
	case 0:
		h["use_remote_address"] = true
		m.want("X-Envoy-Original-Path", "/theirs")
		m.want("X-Envoy-Downstream-Service-Cluster", "c")
		m.want("X-Envoy-External-Address", "1.2.3.4")
		m.want("X-Envoy-Expected-Rq-Timeout-Ms", "7")
		if chance(m.Rand, 2) {
			h["xff_num_trusted_hops"] = m.IntN(3)
		}
		if chance(m.Rand, 2) {
			h["skip_xff_append"] = true
		}
		if chance(m.Rand, 3) {
			h["represent_ipv4_remote_address_as_ipv4_mapped_ipv6"] = true
		}
	case 1:
		h["xff_num_trusted_hops"] = m.IntN(4)
	case 2:
		m.detection()
	}
	if chance(m.Rand, 4) {
		h["append_x_forwarded_port"] = true
		m.want("X-Forwarded-Port", "80", "x", "")
	}
}

// detection has no reject_with_status, for which Envoy chooses a route or not, depending on much else.
func (m *manager) detection() {
	var list []any
	for i := range 1 + m.IntN(2) {
		// What one appends the next one sees: that is not the same address for a client on loopback.
		if i > 0 || chance(m.Rand, 3) {
			by := dict{"@type": apiType + "extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig", "header_name": "X-Client", "allow_extension_to_set_address_as_trusted": chance(m.Rand, 2)}
			list = append(list, dict{"name": "header", "typed_config": by})
			continue
		}
		by := dict{"@type": apiType + "extensions.http.original_ip_detection.xff.v3.XffConfig"}
		if chance(m.Rand, 2) {
			by["xff_num_trusted_hops"] = m.IntN(3)
		} else {
			by["xff_trusted_cidrs"] = dict{"cidrs": []any{dict{"address_prefix": one(m.Rand, "127.0.0.0", "10.0.0.0"), "prefix_len": 8}, dict{"address_prefix": "192.168.0.0", "prefix_len": 16}}}
		}
		if chance(m.Rand, 2) {
			by["skip_xff_append"] = chance(m.Rand, 2)
		}
		list = append(list, dict{"name": "xff", "typed_config": by})
	}
	if chance(m.Rand, 2) {
		slices.Reverse(list)
	}
	m.c.HCM["original_ip_detection_extensions"] = list
	m.want("X-Client", "10.1.2.3", "203.0.113.9", "x", "", "2001:db8::1", "1.2.3.4, 5.6.7.8")
}

func (m *manager) clientCertificate() {
	h := m.c.HCM
	h["forward_client_cert_details"] = one(m.Rand, "SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY")
	set := dict{}
	for _, f := range []string{"subject", "cert", "chain", "dns", "uri", "issuer"} {
		if chance(m.Rand, 2) {
			set[f] = chance(m.Rand, 5) == false
		}
	}
	if chance(m.Rand, 3) {
		set["format"] = one(m.Rand, "JSON", "TEXT")
	}
	h["set_current_client_cert_details"] = set
	m.want("X-Forwarded-Client-Cert", "By=spiffe://a;URI=spiffe://b", "", "By=a;Subject=\"C=x,O=\\\"y\\\"\",By=b", "x")
}

// identity is what the manager says of itself and gives a request.
func (m *manager) identity() {
	h := m.c.HCM
	if chance(m.Rand, 3) {
		h["via"] = one(m.Rand, "1.1 us", "us", "HTTP/1.1 ü")
	}
	m.want("Via", "1.0 a", "", "1.1 us")
	if chance(m.Rand, 3) {
		h["server_name"] = one(m.Rand, "ours", "")
	}
	if chance(m.Rand, 2) {
		h["server_header_transformation"] = one(m.Rand, "OVERWRITE", "APPEND_IF_ABSENT", "PASS_THROUGH")
	}
	if chance(m.Rand, 5) {
		h["generate_request_id"] = false
	}
	if chance(m.Rand, 3) {
		h["preserve_external_request_id"] = true
	}
	if chance(m.Rand, 3) {
		h["always_set_request_id_in_response"] = true
	}
	if chance(m.Rand, 3) {
		h["request_id_extension"] = dict{"typed_config": dict{"@type": apiType + "extensions.request_id.uuid.v3.UuidRequestIdConfig", "pack_trace_reason": chance(m.Rand, 2)}}
	}
	m.want("X-Request-Id", "mine", "", "11111111-1111-4111-8111-111111111111", "11111111-1111-a111-8111-111111111111", "11111111-1111-4111-8111-111111111111x", "11111111-1111-9111-8111-ABCDEFABCDEF")
	if chance(m.Rand, 4) {
		h["add_user_agent"] = true
	}
	m.want("User-Agent", "curl", "", "é")
	if chance(m.Rand, 4) {
		h["proxy_100_continue"] = true
	}
	switch m.IntN(6) {
	case 0:
		h["scheme_header_transformation"] = dict{"scheme_to_overwrite": one(m.Rand, "http", "https")}
	case 1:
		h["scheme_header_transformation"] = dict{"match_upstream": true}
	}
	if chance(m.Rand, 6) {
		h["common_http_protocol_options"] = dict{"headers_with_underscores_action": one(m.Rand, "ALLOW", map[bool]string{true: "ALLOW", false: "REJECT_REQUEST"}[m.c.HTTP2], "DROP_HEADER")}
		m.want("X_Under", "1")
	}
	m.want("Referer", "http://a/#b", "/a", "http://a/b")
	m.want("X-Envoy-Decorator-Operation", "theirs")
}

// hosts is how authorities are read.
func (m *manager) hosts() {
	h := m.c.HCM
	switch m.IntN(5) {
	case 0:
		h["strip_any_host_port"] = true
	case 1:
		h["strip_matching_host_port"] = true
	}
	if chance(m.Rand, 3) {
		h["strip_trailing_host_dot"] = true
	}
	m.want("Host", "test.example:80", "test.example:443", "test.example.", "test.example.:8080", "TEST.example", "[::1]:80")
}

func (m *manager) tracing() {
	m.traced = true
	t := dict{}
	for _, f := range []string{"random_sampling", "client_sampling", "overall_sampling"} {
		if chance(m.Rand, 3) {
			t[f] = dict{"value": one(m.Rand, 0, 100)}
		}
	}
	for _, f := range []string{"verbose", "spawn_upstream_span", "no_context_propagation"} {
		if chance(m.Rand, 4) {
			t[f] = true
		}
	}
	if chance(m.Rand, 3) {
		t["operation"] = one(m.Rand, "op %REQ(X-A)%", "op", "%REQ(:PATH)%")
	}
	if chance(m.Rand, 2) {
		t["custom_tags"] = []any{dict{"tag": "a", "request_header": dict{"name": "x-a", "default_value": "none"}}, dict{"tag": "b", "literal": dict{"value": "b"}}, dict{"tag": "c", "value": "%REQ(X-B)%"}}
	}
	if chance(m.Rand, 2) {
		otel := dict{"@type": apiType + "config.trace.v3.OpenTelemetryConfig", "service_name": "x", "http_service": dict{"http_uri": dict{"uri": "http://refused/v1/traces", "cluster": "refused", "timeout": "1s"}}}
		if chance(m.Rand, 4) {
			otel["sampler"] = dict{"name": "always", "typed_config": dict{"@type": apiType + "extensions.tracers.opentelemetry.samplers.v3.AlwaysOnSamplerConfig"}}
		}
		t["provider"] = dict{"name": "otel", "typed_config": otel}
	} else {
		zipkin := dict{"@type": apiType + "config.trace.v3.ZipkinConfig", "collector_cluster": "refused", "collector_endpoint": "/api/v2/spans", "collector_endpoint_version": "HTTP_JSON"}
		if chance(m.Rand, 2) {
			zipkin["trace_id_128bit"] = true
		}
		if chance(m.Rand, 2) {
			zipkin["shared_span_context"] = false
		}
		if chance(m.Rand, 2) {
			zipkin["trace_context_option"] = one(m.Rand, "USE_B3", "USE_B3_WITH_W3C_PROPAGATION")
		}
		t["provider"] = dict{"name": "zipkin", "typed_config": zipkin}
	}
	m.c.HCM["tracing"] = t
	const trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	switch m.IntN(3) { // of one family of headers
	case 0:
		m.want("Traceparent", "00-"+trace+"-"+span+"-01", "00-"+trace+"-"+span+"-00", "what", "", "01-"+trace+"-"+span+"-03", "00-"+strings.Repeat("0", 32)+"-"+span+"-01", "00-"+strings.ToUpper(trace)+"-"+span+"-01", "ff-"+trace+"-"+span+"-01")
		m.want("Tracestate", "a=b", "", "a=b,c=d")
	case 1:
		m.want("B3", trace+"-"+span+"-1", trace[16:]+"-"+span, "0", "1", "d", trace+"-"+span+"-d-"+span, "what", trace+"-"+span+"-0")
	case 2:
		m.want("X-B3-TraceId", trace, trace[16:])
		m.want("X-B3-SpanId", span)
		m.want("X-B3-Sampled", "1", "0", "true", "d")
		m.want("X-B3-Flags", "0")
	}
	m.want("X-Client-Trace-Id", "c")
	m.want("X-Envoy-Force-Trace", "true", "")
}

// repeatable are fields of which a request may have several.
var repeatable = map[string]bool{"X-A": true, "X-B": true, "X-Multi": true, "X-Empty": true, "X-Forwarded-For": true, "Via": true, "User-Agent": true, "X-Secret": true}

// request is one that the configuration may have something to say about.
func (m *manager) request(name string) Case {
	x := Case{Name: name}
	method := one(m.Rand, "GET", "GET", "GET", "POST", "PUT", "OPTIONS", "HEAD", "DELETE")
	lines := []string{method + " " + m.path()}
	said := map[string]bool{}
	grpc := chance(m.Rand, 6)
	if grpc {
		lines = []string{"POST " + one(m.Rand, "/a.B/C", "/direct/B", "/refused.X/Y", "/weighted/Z")}
		lines = append(lines, "Content-Type: "+one(m.Rand, "application/grpc", "application/grpc+proto", "application/grpc;x=y", "application/grpcx"))
		said["Content-Type"] = true
	}
	for range m.IntN(7) {
		h := m.wants[m.IntN(len(m.wants))]
		n, _, _ := strings.Cut(h, ":")
		if said[n] && (!repeatable[n] || !chance(m.Rand, 4)) {
			continue
		}
		said[n] = true
		lines = append(lines, h)
	}
	body := ""
	if method == "POST" || method == "PUT" || grpc {
		switch m.IntN(5) {
		case 0:
			body = "hello"
		case 1:
			body = "0123456789"
		case 2:
			if !m.c.HTTP2 {
				lines = append(lines, "Transfer-Encoding: chunked")
				body = "5\nhello\n0\n" + one(m.Rand, "", "X-T: 1\n", "X-T: 1\nX-T: 2\nX-U:\n") + "\n"
			}
		case 3:
			body = "01234567890"
		}
	}
	if chance(m.Rand, 4) {
		lines = append(lines, "TE: trailers")
	}
	x.Send = strings.Join(lines, "\n")
	if body != "" {
		x.Send += "\n\n" + body
	}
	if m.c.MTLS != nil {
		x.TLS = &ClientTLS{SNI: "api.example", Cert: one(m.Rand, "web", "web", "deep", "odd")}
	}
	for range 2 {
		x.Respond = append(x.Respond, m.answer(grpc))
	}
	x.Unsteady = []string{"response.header.x-ratelimit-reset", "response.header.retry-after"}
	if m.traced {
		x.Unsteady = append(x.Unsteady, "upstream.header.x-b3-traceid", "upstream.header.x-b3-spanid", "upstream.header.x-b3-parentspanid", "upstream.header.b3", "upstream.header.traceparent",
			"upstream[1].header.x-b3-traceid", "upstream[1].header.x-b3-spanid", "upstream[1].header.x-b3-parentspanid", "upstream[1].header.b3", "upstream[1].header.traceparent")
	}
	return x
}

func (m *manager) path() string {
	p := one(m.Rand, m.paths...)
	switch m.IntN(6) {
	case 0:
		p += one(m.Rand, "x", "/", "/x", "%20", ";a=b")
	case 1:
		p += one(m.Rand, "?", "?a=1", "?e=&b", "?a=b=c&d", "?gone=1&there=0")
		if !m.plain {
			p += one(m.Rand, "", "&a=%41&a=2", "&%61=x+y", "&e=%2")
		}
	}
	return p
}

func (m *manager) answer(grpc bool) Answer {
	if grpc && chance(m.Rand, 2) {
		return Answer{Send: "200 OK\nContent-Type: application/grpc\nGrpc-Status: " + one(m.Rand, "0", "5", "14", "99", "x", "", "07") + "\nGrpc-Message: " + one(m.Rand, "m", "", "a%20b") + "\n\n"}
	}
	if chance(m.Rand, 3) {
		return Answer{}
	}
	lines := []string{one(m.Rand, "200 OK", "200 OK", "201 Created", "204 No Content", "304 Not Modified", "404 Not Found", "503 Unavailable", "500 Broken", "302 Found\nLocation: /x", "418 Tea", "499 Odd")}
	said := map[string]bool{}
	for range m.IntN(4) {
		line := one(m.Rand, "X-A: up", "X-A:", "X-B: 1", "X-B: 2", "X-Multi: d", "X-Multi: e", "Server: theirs", "Server:", "Via: 1.1 them", "X-Request-Id: theirs", "Access-Control-Allow-Origin: *",
			"Access-Control-Allow-Credentials: false", "Access-Control-Expose-Headers: x-theirs", "X-Envoy-Immediate-Health-Check-Fail: 1", "X-Envoy-Degraded:", "Content-Type: text/plain", "X-Envoy-Decorator-Operation: up", "X-Envoy-Upstream-Service-Time: 7",
			"X-Envoy-Upstream-Healthchecked-Cluster: them", "Date: Mon, 01 Jan 2001 00:00:00 GMT", "X-RateLimit-Limit: 7", "Alt-Svc: h3", "Grpc-Status: 3", "X-Q: a\"b\\c\t d")
		if name, _, _ := strings.Cut(line, ":"); !said[name] || strings.HasPrefix(name, "X-B") || name == "X-Multi" {
			said[name] = true
			lines = append(lines, line)
		}
	}
	bodiless := strings.HasPrefix(lines[0], "204") || strings.HasPrefix(lines[0], "304")
	if !bodiless && chance(m.Rand, 4) {
		return Answer{Send: strings.Join(append(lines, "Transfer-Encoding: chunked"), "\n") + "\n\n2\nok\n0\n" + one(m.Rand, "", "X-T: 1\n", "X-A: t\nX-A: u\nX-Multi:\n", "Grpc-Status: 0\n", "Grpc-Status: 13\nX-T: é\n") + "\n"}
	}
	a := Answer{Send: strings.Join(lines, "\n") + "\n\n"}
	if !bodiless && !chance(m.Rand, 3) {
		a.Send += "hi"
	}
	if chance(m.Rand, 12) {
		a.Delay = Duration(2 * time.Millisecond)
	}
	return a
}
