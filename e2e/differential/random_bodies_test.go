//go:build e2e

package differential

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestRandomBodies: bodies in pieces through windows, ends that stop, reset, leave and answer
// early, over all bridges of HTTP/1 and HTTP/2, with TLS and without.
func TestRandomBodies(t *testing.T) {
	random(t, domain{rounds: 1, group: randomBodies, known: knownOfBodies})
}

// bodiesCase is one made case. Its name tells what is odd of it.
type bodiesCase struct {
	*rand.Rand
	x              Case
	said           []string
	client2, host2 bool // speak HTTP/2
	path           string
	paused         map[string]bool
	narrow         bool // a window is too small for large bodies
}

func (b *bodiesCase) step(format string, args ...any) {
	b.x.Acts = append(b.x.Acts, fmt.Sprintf(format, args...))
}

func (b *bodiesCase) odd(name string) { b.said = append(b.said, name) }

const bodiesOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// bodiesWindows are options of HTTP/2.
func bodiesWindows(r *rand.Rand) dict {
	o := dict{}
	if chance(r, 2) {
		o["initial_stream_window_size"] = one(r, 65535, 65536, 100000, 1<<20)
	}
	if chance(r, 2) {
		o["initial_connection_window_size"] = one(r, 65535, 65536, 100000, 1<<20)
	}
	if chance(r, 4) {
		o["max_concurrent_streams"] = one(r, 1, 2)
	}
	return o
}

func bodiesHTTP1(r *rand.Rand) dict {
	o := dict{}
	if chance(r, 2) {
		o["enable_trailers"] = true
	}
	return o
}

// bodiesCluster leads to a host of HTTP/1 or HTTP/2.
func bodiesCluster(r *rand.Rand, name string) (cluster dict, host2 bool) {
	host := one(r, "acts1", "acts2", "acts1s", "acts2s", "actss")
	host2 = strings.HasPrefix(host, "acts2")
	options := dict{"@type": apiType + "extensions.upstreams.http.v3.HttpProtocolOptions"}
	switch {
	case host == "actss":
		host2 = true
		options["auto_config"] = dict{"http2_protocol_options": bodiesWindows(r), "http_protocol_options": bodiesHTTP1(r)}
	case host2:
		options["explicit_http_config"] = dict{"http2_protocol_options": bodiesWindows(r)}
	default:
		options["explicit_http_config"] = dict{"http_protocol_options": bodiesHTTP1(r)}
	}
	cluster = dict{"name": name, "endpoints": []any{host}, "typed_extension_protocol_options": dict{bodiesOptions: options}}
	if strings.HasSuffix(host, "s") && host != "acts" {
		cluster["tls"] = dict{"sni": "a.example"}
	}
	if chance(r, 3) {
		cluster["per_connection_buffer_limit_bytes"] = one(r, 1000, 16384, 65536, 1<<20)
	}
	return cluster, host2
}

func randomBodies(r *rand.Rand) *Group {
	g := &Group{About: "random bodies"}
	for i := range 4 {
		cluster, host2 := bodiesCluster(r, fmt.Sprintf("hosts%d", i))
		g.Clusters = append(g.Clusters, cluster)
		c, secure := bodiesListener(r, fmt.Sprintf("b%d", i), fmt.Sprintf("hosts%d", i))
		for n := range 8 {
			b := &bodiesCase{Rand: r, client2: chance(r, 2), host2: host2, paused: map[string]bool{}}
			protocol := "http/1.1"
			if b.client2 {
				protocol = "h2"
			}
			if secure {
				b.x.TLS = &ClientTLS{SNI: "api.example", ALPN: []string{protocol}}
			} else {
				b.x.HTTP2 = b.client2
			}
			b.make()
			for odd, yes := range map[string]bool{"client1": !b.client2, "client2": b.client2, "host1": !b.host2, "host2": b.host2} {
				if yes {
					b.odd(odd)
				}
			}
			slices.Sort(b.said)
			b.x.Name = fmt.Sprintf("%d %s", n, strings.Join(slices.Compact(b.said), " "))
			logs := 0
			for _, s := range b.x.Acts {
				if strings.HasPrefix(s, "c POST") || strings.HasPrefix(s, "c GET") || strings.HasPrefix(s, "c HEAD") {
					logs++
				}
			}
			b.x.Logs = &logs
			c.Cases = append(c.Cases, b.x)
		}
		g.Configs = append(g.Configs, c)
	}
	return g
}

// bodiesListener is a listener with a route for each time that may be over.
func bodiesListener(r *rand.Rand, name, cluster string) (c Config, secure bool) {
	c = Config{Name: name, About: "random", HCM: dict{"http2_protocol_options": bodiesWindows(r), "http_protocol_options": bodiesHTTP1(r), "delayed_close_timeout": one(r, "0s", "0.05s")}}
	if chance(r, 3) {
		c.Listener = dict{"per_connection_buffer_limit_bytes": one(r, 1000, 16384, 65536, 1<<20)}
	}
	const buffer = apiType + "extensions.filters.http.buffer.v3."
	c.Filters = []map[string]any{{"name": "buffer", "typed_config": dict{"@type": buffer + "Buffer", "max_request_bytes": 1 << 20}}}
	to := func(path string, route dict) map[string]any {
		if route == nil {
			route = dict{}
		}
		route["cluster"] = cluster
		own := dict{"@type": buffer + "BufferPerRoute", "disabled": true}
		if path == "/buffered" {
			own = dict{"@type": buffer + "BufferPerRoute", "buffer": dict{"max_request_bytes": 1000}}
		}
		return dict{"match": dict{"prefix": path}, "route": route, "typed_per_filter_config": dict{"buffer": own}}
	}
	retries := dict{"retry_on": "reset,5xx", "num_retries": 1, "retry_back_off": dict{"base_interval": "0.005s", "max_interval": "0.01s"}}
	limited := to("/limited", dict{"retry_policy": retries})
	limited["request_body_buffer_limit"] = 1000
	c.Routes = []map[string]any{
		to("/buffered", nil),
		to("/timeout", dict{"timeout": "0.15s"}),
		to("/try", dict{"retry_policy": dict{"retry_on": "5xx", "num_retries": 0, "per_try_timeout": "0.15s"}}),
		to("/idletry", dict{"retry_policy": dict{"retry_on": "5xx", "num_retries": 0, "per_try_idle_timeout": "0.15s"}}),
		to("/idle", dict{"idle_timeout": "0.15s"}),
		to("/duration", dict{"max_stream_duration": dict{"max_stream_duration": "0.2s"}}),
		to("/retry", dict{"retry_policy": retries}),
		limited,
		to("/", nil),
	}
	if secure = chance(r, 2); secure {
		c.FilterChains = []map[string]any{{"tls": dict{"alpn_protocols": []any{"h2", "http/1.1"}}, "routes": c.Routes}}
		c.Routes = nil
	}
	return c, secure
}

// make is one exchange, or two.
func (b *bodiesCase) make() {
	window := func(who string) {
		n := one(b.Rand, 1, 100, 4000, 16384, 1<<20)
		b.narrow = b.narrow || n < 4000
		b.step("%s window %d", who, n)
	}
	if b.client2 && chance(b.Rand, 4) {
		window("c")
	}
	if b.host2 && chance(b.Rand, 4) {
		window("h")
	}
	switch b.IntN(9) {
	case 0, 1:
		b.whole("h", one(b.Rand, "/plain", "/plain", "/buffered", "/retry", "/limited"))
		if chance(b.Rand, 2) && !slices.Contains(b.said, "too-large") {
			b.odd("again")
			b.whole("h2", "/plain")
		}
	case 2:
		b.early()
	case 3, 4:
		b.clientGoes()
	case 5, 6:
		b.hostGoes()
	case 7:
		b.times()
	case 8:
		b.tried()
	}
}

func (b *bodiesCase) size() int {
	n := one(b.Rand, 0, 1, 5, 100, 999, 1000, 1001, 16384, 65535, 65536, 100000, 300000, 1<<20)
	if b.path == "/buffered" {
		n = one(b.Rand, 0, 1, 999, 1000, 1001, 5000)
	}
	return b.fitting(n)
}

// fitting is n, or less where that would take too long.
func (b *bodiesCase) fitting(n int) int {
	if b.narrow && n > 2000 {
		n = 900 + n%100
	}
	return n
}

// request is a head and n bytes of what it announces, in pieces; it ends there when whole is
// true. Each piece is awaited where the host gets it at once.
func (b *bodiesCase) request(who, path string, n, part int, whole bool) {
	b.path = path
	b.odd(path)
	chunked := n > 0 && chance(b.Rand, 2)
	framing := fmt.Sprintf("length=%d", n)
	if chunked {
		framing = "chunked"
		b.odd("chunked")
	}
	if n == 0 && whole {
		b.step("c %s %s END", one(b.Rand, "GET", "POST"), path)
		b.step("%s await end", who)
		return
	}
	passes := path != "/buffered"
	if !b.client2 && chance(b.Rand, 2) {
		b.odd("te")
		framing += " te=trailers"
	}
	b.step("c POST %s %s", path, framing)
	if passes {
		b.step("%s await head", who)
		if part > 60000 && chance(b.Rand, 2) {
			b.odd("host-pauses")
			b.paused[who] = true
			b.step("%s %s", who, one(b.Rand, "pause", "stall"))
		}
	}
	trailers := whole && (chunked || b.client2 && b.host2) && chance(b.Rand, 3)
	end := whole && !trailers && (!chunked || chance(b.Rand, 2))
	b.pieces("c", who, part, passes, end)
	if trailers {
		b.odd("request-trailers")
		b.step("c trailers x-sum=1")
	} else if whole && (!end || part == 0) {
		b.step("c end")
	}
}

// pieces sends n bytes from one end to the other, with the end where that is told: a message
// of a known length is over with its last byte at one end, which the other is not to find out later.
func (b *bodiesCase) pieces(from, to string, n int, passes, end bool) {
	sent := 0
	for sent < n {
		k := n - sent
		if k > 1 && chance(b.Rand, 2) {
			k = 1 + b.IntN(k)
		}
		sent += k
		b.step("%s data %d%s", from, k, map[bool]string{true: " END"}[end && sent == n])
		switch {
		case b.paused[to] && sent == n:
			b.step("wait 20ms")
			b.step("%s go", to)
			b.paused[to] = false
			b.step("%s await %d", to, sent)
		case b.paused[to]:
		case passes && (sent == n || chance(b.Rand, 2)):
			b.step("%s await %d", to, sent)
		case chance(b.Rand, 3):
			b.step("wait 3ms")
		}
	}
}

// answer is a head and part of n bytes of a body; whole is its end too.
func (b *bodiesCase) answer(who string, n, part int, whole bool) {
	status := one(b.Rand, "200", "200", "201", "404", "500")
	if status == "500" && who == "h" && slices.Contains([]string{"/retry", "/limited"}, b.path) {
		status = "404" // it would be asked for again
	}
	if n == 0 && whole {
		status = one(b.Rand, "200", "204", "304")
		b.odd(status)
		framing := " length=0"
		if status != "200" {
			framing = ""
		}
		b.step("%s %s END%s", who, status, framing)
		return
	}
	framing := fmt.Sprintf("length=%d", n)
	kind := b.IntN(3)
	switch {
	case kind == 1:
		framing = "chunked"
	case kind == 2 && !b.host2:
		framing = ""
		b.odd("until-close")
	}
	b.step("%s %s %s", who, status, framing)
	b.step("c await head")
	if part > 60000 && chance(b.Rand, 2) {
		b.odd("client-pauses")
		b.paused["c"] = true
		b.step("c %s", one(b.Rand, "pause", "stall"))
	}
	trailers := whole && (framing == "chunked" || b.host2 && b.client2) && chance(b.Rand, 3)
	end := whole && !trailers && (strings.HasPrefix(framing, "length") || chance(b.Rand, 2))
	b.pieces(who, "c", part, true, end)
	if trailers {
		b.odd("answer-trailers")
		b.step("%s trailers x-end=2", who)
	} else if whole && (!end || part == 0) {
		b.step("%s end", who)
	}
}

// whole is a request and its answer.
func (b *bodiesCase) whole(who, path string) {
	b.path = path
	n := b.size()
	if path == "/buffered" && n > 1000 {
		b.odd("too-large")
		b.request(who, path, n, n, true)
		b.step("c await end")
		return
	}
	b.request(who, path, n, n, true)
	b.step("%s await end", who)
	if !slices.Contains(b.said, "again") {
		b.path = path
	}
	m := b.size()
	b.answer(who, m, m, true)
	b.step("c await end")
}

// some is less than all of n.
func (b *bodiesCase) some(n int) int {
	return one(b.Rand, 0, 1, n/2, n-1)
}

func (b *bodiesCase) length() int { return b.fitting(one(b.Rand, 2, 5, 100, 16384, 70000, 200000)) }

// early is an answer to a request that is not whole.
func (b *bodiesCase) early() {
	b.odd("early")
	n := b.length()
	b.request("h", one(b.Rand, "/plain", "/retry", "/timeout"), n, b.some(n), false)
	m := b.fitting(one(b.Rand, 0, 5, 20000, 200000))
	b.answer("h", m, m, true)
	b.step("c await end")
	b.step("h await end")
}

// clientGoes ends an exchange on the client's side.
func (b *bodiesCase) clientGoes() {
	n := b.length()
	path := one(b.Rand, "/plain", "/plain", "/retry")
	switch b.IntN(4) {
	case 0:
		b.odd("within-request")
		b.request("h", path, n, b.some(n), false)
	case 1:
		b.odd("waiting")
		b.request("h", path, n, n, true)
		b.step("h await end")
	case 2:
		b.odd("within-answer")
		b.request("h", path, n, n, true)
		b.step("h await end")
		m := b.length()
		b.answer("h", m, b.some(m), false)
	case 3:
		b.odd("within-both")
		b.request("h", path, n, b.some(n), false)
		m := b.length()
		b.answer("h", m, b.some(m), false)
	}
	how := one(b.Rand, "leave", "cut", "half")
	if b.client2 && !chance(b.Rand, 3) {
		how = "reset " + one(b.Rand, resetCodes...)
	}
	b.odd("client-" + strings.ReplaceAll(how, " ", "-"))
	b.step("c %s", how)
	if !slices.Contains(b.said, "waiting") && !slices.Contains(b.said, "within-answer") {
		b.step("h await end")
	} else {
		b.step("h await left")
	}
}

// requestUntil sends a request as far as what is to come at a point of the exchange leaves it:
// within the request, while it waits for its answer, within that, or within both.
func (b *bodiesCase) requestUntil(at int, path string, n int) {
	b.odd([]string{"within-request", "waiting", "within-answer", "within-both"}[at])
	if at == 0 || at == 3 {
		b.request("h", path, n, b.some(n), false)
	} else {
		b.request("h", path, n, n, true)
		b.step("h await end")
	}
}

// hostGoes ends an exchange on the host's side.
func (b *bodiesCase) hostGoes() {
	n := b.length()
	path := one(b.Rand, "/plain", "/plain", "/retry")
	at := b.IntN(4)
	if at == 0 {
		path = "/plain" // what is here of the request would be sent again
	}
	b.requestUntil(at, path, n)
	if at >= 2 {
		m := b.length()
		b.answer("h", m, b.some(m), false)
	}
	how := one(b.Rand, "close", "cut")
	if b.host2 && !chance(b.Rand, 3) {
		how = "reset " + one(b.Rand, resetCodes...)
	}
	if how == "reset REFUSED_STREAM" && at < 2 { // goes to the host again (RFC 9113 8.7)
		how = "reset CANCEL"
	}
	b.odd("host-" + strings.ReplaceAll(how, " ", "-"))
	b.step("h %s", how)
	if path == "/retry" && at == 1 {
		b.odd("retried")
		b.step("h2 await end")
		b.answer("h2", 5, 5, true)
	}
	b.step("c await end")
}

// times lets a time be over.
func (b *bodiesCase) times() {
	path := one(b.Rand, "/timeout", "/try", "/idletry", "/idle", "/duration")
	n := b.fitting(one(b.Rand, 2, 100, 70000))
	at := b.IntN(4)
	if at == 0 && path != "/idle" && path != "/duration" {
		at = 1
	}
	if at == 3 && path != "/idle" && path != "/duration" {
		at = 2
	}
	b.requestUntil(at, path, n)
	if at >= 2 {
		m := b.fitting(70000)
		b.answer("h", m, b.some(m), false)
		if path == "/try" { // is over with the head
			b.odd("host-cut")
			b.step("wait 200ms")
			b.step("h cut")
		}
	}
	b.step("c await end")
	b.step("h await left")
}

// tried sends a body twice, where it is kept.
func (b *bodiesCase) tried() {
	path := one(b.Rand, "/retry", "/limited")
	n := one(b.Rand, 1, 500, 999, 1000, 1001, 1500, 20000, 70000)
	n = b.fitting(n)
	b.request("h", path, n, n, true)
	b.step("h await end")
	how := one(b.Rand, "500", "cut", "close")
	b.odd(how)
	if how == "500" {
		b.step("h 500 length=3")
		b.step("h data 3 END")
	} else {
		b.step("h %s", how)
	}
	if path == "/limited" && n > 1000 {
		b.odd("over")
		b.step("c await end")
		return
	}
	b.step("h2 await end")
	b.answer("h2", 5, 5, true)
	b.step("c await end")
}
