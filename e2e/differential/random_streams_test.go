//go:build e2e

package differential

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestRandomStreams: tunnels whose ends speak HTTP/1, HTTP/2 or bytes alone: CONNECT that ends here or
// is passed on, and WebSockets.
func TestRandomStreams(t *testing.T) {
	random(t, domain{rounds: 1, group: randomStreams, known: knownOfStreams})
}

// streamCase is one made tunnel. Its name tells what is odd of it.
type streamCase struct {
	bodiesCase
	websocket bool
	bytes     bool // the host is of bytes alone
	sent      map[string]int
}

func randomStreams(r *rand.Rand) *Group {
	g := &Group{About: "random tunnels of HTTP/2"}
	for i := range 4 {
		name := fmt.Sprintf("s%d", i)
		websocket := chance(r, 2)
		host := one(r, "acts1", "acts2", "acts2", "acts1s", "acts2s")
		u := dict{"upgrade_type": "websocket"}
		match := dict{"prefix": "/"}
		if !websocket {
			match, u = dict{"connect_matcher": dict{}}, dict{"upgrade_type": "CONNECT"}
			if chance(r, 2) {
				host, u["connect_config"] = "acts0", dict{}
			}
		}
		host2 := strings.HasPrefix(host, "acts2")
		options := dict{"@type": apiType + "extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": dict{"http_protocol_options": dict{}}}
		if host2 {
			of := bodiesWindows(r)
			of["allow_connect"] = true
			delete(of, "max_concurrent_streams")
			options["explicit_http_config"] = dict{"http2_protocol_options": of}
		}
		cluster := dict{"name": "of" + name, "endpoints": []any{host}, "typed_extension_protocol_options": dict{bodiesOptions: options}}
		if strings.HasSuffix(host, "1s") || strings.HasSuffix(host, "2s") {
			cluster["tls"] = dict{"sni": "a.example"}
		}
		g.Clusters = append(g.Clusters, cluster)
		of := bodiesWindows(r)
		of["allow_connect"] = true
		delete(of, "max_concurrent_streams")
		c := Config{Name: name, About: "random", HCM: dict{"http2_protocol_options": of, "delayed_close_timeout": one(r, "0s", "0.05s")}}
		if chance(r, 3) {
			c.Listener = dict{"per_connection_buffer_limit_bytes": one(r, 1000, 16384, 65536, 1<<20)}
		}
		c.Routes = []map[string]any{{"match": match, "route": dict{"cluster": "of" + name, "timeout": "0s", "upgrade_configs": []any{u}}}}
		secure := chance(r, 4)
		if secure {
			c.FilterChains = []map[string]any{{"tls": dict{"alpn_protocols": []any{"h2", "http/1.1"}}, "routes": c.Routes}}
			c.Routes = nil
		}
		for n := range 8 {
			b := &streamCase{websocket: websocket, bytes: host == "acts0", sent: map[string]int{}}
			b.Rand, b.client2, b.host2, b.paused = r, !chance(r, 3), host2, map[string]bool{}
			protocol := map[bool]string{true: "h2", false: "http/1.1"}[b.client2]
			if secure {
				b.x.TLS = &ClientTLS{SNI: "api.example", ALPN: []string{protocol}}
			} else {
				b.x.HTTP2 = b.client2
			}
			b.odd(map[bool]string{true: "client2", false: "client1"}[b.client2])
			b.odd(map[string]string{"0": "host0", "1": "host1", "2": "host2"}[host[4:5]])
			b.make()
			slices.Sort(b.said)
			b.x.Name = fmt.Sprintf("%d %s", n, strings.Join(slices.Compact(b.said), " "))
			logs := 1
			b.x.Logs = &logs
			c.Cases = append(c.Cases, b.x)
		}
		g.Configs = append(g.Configs, c)
	}
	return g
}

// say sends some bytes from one end, which the other awaits, perhaps.
func (b *streamCase) say(from string, n int, heard bool) {
	to := map[string]string{"c": "h", "h": "c"}[from]
	b.step("%s data %d", from, n)
	if b.sent[from] += n; heard {
		b.step("%s await %d", to, b.sent[from])
	}
}

// quiet has both ends know all that was said.
func (b *streamCase) quiet() {
	if n := b.sent["c"]; n > 0 {
		b.step("h await %d", n)
	}
	if n := b.sent["h"]; n > 0 {
		b.step("c await %d", n)
	}
}

func (b *streamCase) make() {
	if b.client2 && chance(b.Rand, 3) {
		b.odd("client-window")
		b.step("c window %d", one(b.Rand, 1, 100, 16384, 100000))
		b.narrow = true
	}
	if b.host2 && chance(b.Rand, 3) {
		b.odd("host-window")
		b.step("h window %d", one(b.Rand, 1, 100, 16384, 100000))
		b.narrow = true
	}
	if b.websocket {
		b.step("c WEBSOCKET /a")
	} else {
		b.step("c CONNECT /")
	}
	if chance(b.Rand, 4) {
		b.odd("early")
		b.say("c", 5, false)
	}
	b.step("h await head")
	if !b.bytes {
		switch {
		case chance(b.Rand, 8):
			b.odd("refused")
			b.step("h %s length=0 END", one(b.Rand, "403", "404", "503"))
			b.step("c await end")
			return
		case b.websocket && !b.host2:
			b.step("h 101")
		default:
			b.step("h 200")
		}
	}
	b.step("c await head")
	for range b.IntN(4) {
		n := one(b.Rand, 1, 5, 100, 5000)
		if !b.narrow && chance(b.Rand, 4) {
			n = one(b.Rand, 16384, 70000, 200000)
		}
		from, to := "c", "h"
		if chance(b.Rand, 2) {
			from, to = to, from
		}
		pauses := n > 5000 && chance(b.Rand, 2)
		if pauses {
			b.odd(to + "-pauses")
			b.step("%s %s", to, one(b.Rand, "pause", "stall"))
		}
		b.say(from, n, !pauses && chance(b.Rand, 2))
		if pauses {
			b.step("wait 20ms")
			b.step("%s go", to)
			b.step("%s await %d", to, b.sent[from])
		}
	}
	b.quiet()
	b.leave()
}

// leave is how the tunnel ends.
func (b *streamCase) leave() {
	from, to, two := "c", "h", b.client2
	if chance(b.Rand, 2) {
		from, to, two = "h", "c", b.host2
	}
	how := one(b.Rand, "end", "end", "end", "leave", "cut")
	if two && chance(b.Rand, 3) {
		how = "reset " + one(b.Rand, resetCodes...)
	}
	b.odd(from + "-" + strings.ReplaceAll(how, " ", "-"))
	b.step("%s %s", from, how)
	switch {
	case how != "end":
		b.step("%s await left", to)
	case from == "c":
		b.step("h await end")
		if chance(b.Rand, 2) {
			b.odd("goes-on")
			b.say("h", one(b.Rand, 1, 100), true)
		}
		b.step("h end")
		b.step("c await end")
	default:
		b.step("c await end")
	}
}

// knownsOfStreams are differences of docs/differential.md, in the form of knownsOfBodies. Several odds
// that are told apart by a stroke are any of them.
var knownsOfStreams = []struct {
	odds           string
	field          *regexp.Regexp
	envoy, hauberk *regexp.Regexp
	why            string
}{
	{"", whole(`(response|upstream)\.header\.connection`), whole("upgrade"), whole("Upgrade"), "an option of Connection has no case"},
	{"client2 host1", whole(`upstream\.header\.sec-websocket-key`), whole(`\(absent\)`), whole(".*"), "a handshake of HTTP/1 has a key (RFC 6455 4.1), which that of HTTP/2 leaves out (RFC 8441 5)"},
	{"client1 host2", whole(`response\.header\.sec-websocket-accept`), whole(`\(absent\)`), whole(".*"), "a handshake of HTTP/1 has a key (RFC 6455 4.1), which that of HTTP/2 leaves out (RFC 8441 5)"},
	{"client1 c-end|c-leave", whole(`log\.(details|flags|flags_long)`), whole("downstream_remote_disconnect|DC|DownstreamConnectionTermination"), whole("via_upstream|-"), "a client that ends its side of a tunnel is no client that leaves: its host hears of the end and ends the other"},
	{"client1 c-end goes-on", whole(`log\.sent|response\.body|upstream\.broken|vain`), whole(`.*`), whole(`.*`), "a client that ends its side of a tunnel is no client that leaves"},
	{"client2 c-end goes-on host0|host1", whole(`log\.sent|response\.body|vain`), whole(`.*`), whole(`.*`), "a client that ends its side of a tunnel is no client that leaves"},
	{"client1 c-leave host2", whole(`log\.(details|flags|flags_long)|upstream\.broken|vain`), whole(`downstream_remote_disconnect|DC|DownstreamConnectionTermination|RST_STREAM INTERNAL_ERROR|\(absent\)`), whole(`.*`), "a client that ends its side of a tunnel is no client that leaves"},
	{"c-end|h-end|h-leave host0|host1", whole(`log\.(details|flags|flags_long)`), whole(`upstream_reset_after_response_started\{connection_termination\}|UC|UpstreamConnectionTermination`), whole("via_upstream|-"), "the end of the host is that of its tunnel, and no reset"},
	{"client2 c-end|h-end|h-leave", whole(`stream\[1\]`), whole("RST_STREAM (CONNECT_ERROR|INTERNAL_ERROR)"), whole("END_STREAM( RST_STREAM NO_ERROR)?"), "the end of the host is that of its tunnel, and no reset"},
	{"h-leave", whole(`upstream\.broken`), whole(`.*`), whole(`.*`), "what becomes of a connection that its host has left is not the host's to know"},
	{"client2 c-end host1", whole(`vain`), whole("h await end"), whole(`\(absent\)`), "a host hears of the end of its client's half"},
	{"host0|host1", whole(`upstream\.broken`), whole(`\(absent\)`), whole("cut"), "what is cut by a reset is not to be taken for the whole"},
	{"client1", whole(`stream\[1\]`), whole("whole|open"), whole("cut"), "what is cut by a reset is not to be taken for the whole"},
	{"client1 c-end host2", whole(`upstream\.broken`), whole("RST_STREAM INTERNAL_ERROR"), whole(`\(absent\)`), "a client that ends its side of a tunnel is no client that leaves"},
	{"client1 early refused", whole(`log\.received`), whole("5"), whole("0"), "what comes behind the head is not read before the host has agreed to a tunnel"},
	{"client2 host2 h-reset-ENHANCE_YOUR_CALM", whole(`stream\[1\]`), whole("RST_STREAM INTERNAL_ERROR"), whole("RST_STREAM ENHANCE_YOUR_CALM"), "the client learns that its host was asked too much"},
	{"client2 host2", whole(`stream\[1\]`), whole("RST_STREAM INTERNAL_ERROR"), whole("RST_STREAM CONNECT_ERROR"), "that the host's end of a tunnel is lost is CONNECT_ERROR (RFC 9113 8.5)"},
	{"client2", whole(`stream\[1\]`), whole("RST_STREAM (CONNECT_ERROR|INTERNAL_ERROR)"), whole("RST_STREAM CANCEL"), "a WebSocket that is reset is cancelled (RFC 8441 5)"},
}

// knownOfStreams implements domain.
func knownOfStreams(c *Config, x *Case, d Difference) string {
	said := strings.Fields(x.Name)
	for _, k := range knownsOfStreams {
		all := !slices.ContainsFunc(strings.Fields(k.odds), func(any string) bool {
			return !slices.ContainsFunc(strings.Split(any, "|"), func(odd string) bool { return slices.Contains(said, odd) })
		})
		if all && k.field.MatchString(d.Field) && k.envoy.MatchString(d.Envoy) && k.hauberk.MatchString(d.Hauberk) {
			return k.why
		}
	}
	return knownOfBodies(c, x, d)
}
