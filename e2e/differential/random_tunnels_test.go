//go:build e2e

package differential

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestRandomTunnels: bytes over time through TCP proxies, CONNECT and upgrades. Whoever waits
// does so for what the other said, so that nothing depends on who is faster.
func TestRandomTunnels(t *testing.T) {
	random(t, domain{rounds: 1, group: randomTunnels, known: knownOfTunnels})
}

// tunnelLogs are what the log says of bytes and ends besides.
var tunnelLogs = map[string]string{
	"wire":     "%UPSTREAM_WIRE_BYTES_SENT% %UPSTREAM_WIRE_BYTES_RECEIVED% %DOWNSTREAM_WIRE_BYTES_SENT% %DOWNSTREAM_WIRE_BYTES_RECEIVED%",
	"detected": "%DOWNSTREAM_DETECTED_CLOSE_TYPE% %UPSTREAM_DETECTED_CLOSE_TYPE%",
	"local":    "%DOWNSTREAM_LOCAL_CLOSE_REASON% %UPSTREAM_LOCAL_CLOSE_REASON%",
}

// tunnelMaker makes one configuration: kind is tcp, connect (terminated), passed (a CONNECT of
// which the host hears) or upgrade.
type tunnelMaker struct {
	r           *rand.Rand
	kind        string
	tls, secure bool
	// limited connections end by themselves, without a word or at a time.
	idle, lasting bool
	inspected     bool // the first bytes are looked at
	early         bool // there is no host until the client spoke
	logs          int  // records of a connection, 0 for one
	cluster       string
	allowed       bool
	named         string // the protocol of the last upgrade
	others        bool   // an upgrade to "other" is allowed
}

func randomTunnels(r *rand.Rand) *Group {
	g := &Group{About: "random tunnels", Clusters: []map[string]any{
		{"name": "secured", "endpoints": []any{"secure"}, "tls": map[string]any{"sni": "a.example"}},
		{"name": "nobody", "endpoints": []any{}},
	}}
	for i := range 8 {
		m := &tunnelMaker{r: r, kind: one(r, "tcp", "tcp", "tcp", "connect", "passed", "upgrade", "upgrade"), tls: chance(r, 6), cluster: "origin", allowed: true}
		c := Config{Name: fmt.Sprintf("tunnel-%d", i), About: m.kind, LogFields: tunnelLogs}
		switch m.r.IntN(12) {
		case 0:
			m.cluster = "refused"
		case 1:
			m.cluster = "nobody"
		case 2, 3:
			m.cluster, m.secure = "secured", true
		}
		if m.kind == "tcp" && m.tls && m.cluster != "secured" {
			m.cluster = "origin" // where there is no host, Envoy leaves before the handshake
		}
		if m.kind == "tcp" {
			m.proxy(&c)
		} else {
			m.manager(&c)
		}
		if chance(r, 4) {
			c.Listener = with2(c.Listener, "per_connection_buffer_limit_bytes", one(r, 1, 1000, 16384, 1<<20))
		}
		for n := range 6 {
			c.Cases = append(c.Cases, m.talk(fmt.Sprintf("case-%d", n)))
		}
		g.Configs = append(g.Configs, c)
	}
	return g
}

func with2(in map[string]any, k string, v any) map[string]any {
	if in == nil {
		in = map[string]any{}
	}
	in[k] = v
	return in
}

// proxy is a TCP proxy.
func (m *tunnelMaker) proxy(c *Config) {
	r := m.r
	t := dict{"cluster": m.cluster}
	if chance(r, 5) {
		delete(t, "cluster")
		t["weighted_clusters"] = dict{"clusters": []any{dict{"name": m.cluster, "weight": 1}, dict{"name": m.cluster, "weight": one(r, 1, 7, 1000000)}}}
	}
	switch r.IntN(6) {
	case 0:
		t["idle_timeout"], m.idle = "0.3s", true
	case 1:
		t["idle_timeout"] = one(r, "0s", "5s")
	case 2:
		t["max_downstream_connection_duration"], m.lasting = "0.4s", true
	case 3:
		t["max_downstream_connection_duration"] = "9s"
	}
	if chance(r, 2) {
		t["max_connect_attempts"] = 1 + r.IntN(3)
	}
	switch r.IntN(8) {
	case 0:
		t["upstream_connect_mode"], t["max_early_data_bytes"] = "ON_DOWNSTREAM_DATA", one(r, 1, 5, 65536)
		m.early = true
	case 1:
		t["access_log_options"] = dict{"flush_access_log_on_connected": true}
		m.logs = 2
	case 2:
		t["access_log_options"] = dict{"flush_access_log_on_start": true}
		m.logs = 2
	}
	switch r.IntN(10) {
	case 0:
		if t["cluster"] == nil {
			break
		}
		c.Listener = dict{"listener_filters": []any{listenerFilter("tls_inspector", "TlsInspector", nil)}}
		m.inspected = true
	}
	if m.inspected && t["cluster"] != nil && m.cluster != "secured" {
		t["cluster"], m.cluster = "origin", "origin" // nothing comes of a client that says nothing
	}
	chain := dict{"tcp": t}
	if chance(r, 6) {
		chain["before"] = []any{dict{"name": "rbac", "typed_config": dict{"@type": apiType + "extensions.filters.network.rbac.v3.RBAC", "stat_prefix": "r", "rules": dict{"action": "DENY", "policies": dict{}}}}}
	}
	if m.tls {
		chain["tls"] = dict{}
	}
	c.FilterChains = []map[string]any{chain}
}

// manager is a connection manager that lets tunnels pass, or does not.
func (m *tunnelMaker) manager(c *Config) {
	r := m.r
	kind := "CONNECT"
	if m.kind == "upgrade" {
		kind = "websocket"
	}
	ofManager, ofRoute := r.IntN(3), r.IntN(3)
	c.HCM = dict{}
	switch ofManager {
	case 0:
		c.HCM["upgrade_configs"] = []any{dict{"upgrade_type": kind}, dict{"upgrade_type": "other"}}
		m.allowed, m.others = true, true
	case 1:
		c.HCM["upgrade_configs"] = []any{dict{"upgrade_type": strings.ToUpper(kind), "enabled": false}}
		m.allowed = false
	default:
		m.allowed = false
	}
	to := dict{"cluster": m.cluster}
	u := dict{"upgrade_type": kind}
	if m.kind == "connect" {
		u["connect_config"] = dict{}
	}
	switch {
	case ofRoute == 0 && chance(r, 3):
		u["enabled"], m.allowed = false, false
		to["upgrade_configs"] = []any{u}
	case ofRoute > 0 || m.kind == "connect" || !m.allowed && !chance(r, 4):
		to["upgrade_configs"], m.allowed = []any{u}, true
	}
	switch r.IntN(6) {
	case 0:
		c.HCM["stream_idle_timeout"], m.idle = "0.3s", true
	case 1:
		to["idle_timeout"], m.idle = "0.3s", true
	case 2:
		to["max_stream_duration"], m.lasting = dict{"max_stream_duration": "0.4s"}, true
	case 3:
		to["timeout"] = "0.4s"
	}
	switch r.IntN(12) {
	case 0:
		c.HCM["access_log_options"], m.logs = dict{"flush_access_log_on_new_request": true}, 2
	}
	switch r.IntN(8) {
	case 0:
		c.HCM["common_http_protocol_options"], m.idle = dict{"idle_timeout": "0.3s"}, true
	case 1:
		c.HCM["common_http_protocol_options"], m.lasting = dict{"max_connection_duration": "0.4s"}, true
	case 2:
		to["retry_policy"] = dict{"retry_on": one(r, "reset", "5xx", "connect-failure,reset", "retriable-4xx"), "num_retries": 1}
	}
	c.HCM["delayed_close_timeout"] = "0.05s" // Envoy ends its side when it is over
	match := dict{"prefix": "/"}
	if kind == "CONNECT" {
		match = dict{"connect_matcher": dict{}}
	}
	c.Routes = []map[string]any{{"match": match, "route": to}}
	if m.tls {
		c.FilterChains = []map[string]any{{"tls": dict{}, "routes": []any{c.Routes[0]}}}
		c.Routes = nil
	}
}

// talker is a dialogue in the making. It is in turns but for what is said at once.
type talker struct {
	r     *rand.Rand
	words [2][]string // of the client and the host
	sent  [2]int
	heard [2]int
	// large says how much there may be of it.
	large bool
	// hurry because the connection lasts not long.
	hurry bool
}

func (t *talker) add(who int, word string) { t.words[who] = append(t.words[who], word) }

// hear has one side await all that the other said.
func (t *talker) hear(who int) {
	if n := t.sent[1-who]; n > t.heard[who] {
		t.heard[who] = n
		t.add(who, fmt.Sprint("await ", n))
	}
}

func (t *talker) piece() (text string, size int) {
	size = one(t.r, 1, 2, 5, 5, 17, 200)
	if t.large && chance(t.r, 4) {
		size = one(t.r, 4096, 4097, 16384, 16385, 65536, 100000, 300000, 2000000)
	}
	return fmt.Sprintf("{%d}", size), size
}

func (t *talker) say(who int) {
	text, n := t.piece()
	t.add(who, "say "+text)
	t.sent[who] += n
	if chance(t.r, 4) && !t.hurry {
		t.add(who, fmt.Sprintf("wait %dms", 20+t.r.IntN(40)))
	}
}

// quiet has all that was said be heard by whom it was for, and the first know it.
func (t *talker) quiet(who int) {
	t.hear(1 - who)
	t.add(1-who, "say .")
	t.sent[1-who]++
	t.hear(who)
}

func (m *tunnelMaker) talk(name string) (x Case) {
	r := m.r
	x.Name = name
	t := &talker{r: r, large: chance(r, 3) && !m.lasting, hurry: m.lasting}
	if m.tls {
		x.TLS = &ClientTLS{SNI: "a.example", Cert: "web"}
	}
	if m.secure {
		x.Secure = &Secure{Cert: "web"}
	}
	defer func() { x.Dialogue = &Dialogue{Client: t.words[0], Host: t.words[1]} }()
	if n := m.logs; n > 0 {
		x.Logs = &n
	}
	open := m.cluster == "origin" || m.cluster == "secured"
	if m.kind != "tcp" {
		if !m.open(t) || !open || !m.allows() {
			t.words[1] = append(t.words[1], "say "+m.refusal(), "end")
			if len(t.words[0]) == 0 || t.words[0][len(t.words[0])-1] != "await head" {
				t.add(0, "await head")
			}
			if t.sent[0] > 0 {
				x.Unsteady = []string{"end", "tcp"} // who closes over what it has not read resets
			}
			t.add(0, "await end")
			return x
		}
	} else if !open {
		x.Unsteady = []string{"end"}
		t.add(0, "await end")
		return x
	} else if chance(r, 10) && !m.early && !m.inspected {
		if chance(r, 2) || m.tls || m.secure {
			t.add(1, "wait 30ms") // a reset at once may end the connecting, or the handshake
		}
		t.add(1, one(r, "reset", "close"))
		if len(t.words[1]) == 1 {
			t.words[1][0] = "close"
		}
		t.add(0, "await end")
		return x
	}
	switch {
	case m.inspected && !m.tls:
		// Envoy needs a record's header to see that there is none, and gives up on who has ended
		// its side by then.
		t.add(0, "say {17}")
		t.sent[0] += 17
		t.quiet(0)
	case m.early:
		t.say(0)
		t.hear(1)
	}
	for range r.IntN(5) {
		who := r.IntN(2)
		if !chance(r, 4) {
			t.hear(who)
		}
		t.say(who)
		if t.large && chance(r, 3) {
			t.add(1-who, "deaf")
			t.say(who)
			t.add(1-who, "wait 60ms")
			t.add(1-who, "hear")
		}
	}
	m.finish(t)
	return x
}

// allows tells whether the tunnel that was asked for is allowed.
func (m *tunnelMaker) allows() bool {
	switch m.named {
	case "", "websocket", "WebSocket", "WEBSOCKET":
		return m.allowed
	case "other":
		return m.others
	}
	return false
}

// refusal is an answer by which no tunnel comes about.
func (m *tunnelMaker) refusal() string {
	status := one(m.r, "403 Forbidden", "404 Not Found", "426 Upgrade Required", "503 Service Unavailable", "302 Found\r\nLocation: http://a.example/x", "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic")
	if m.kind == "upgrade" && chance(m.r, 2) {
		status = one(m.r, "200 OK", "204 No Content", "206 Partial Content", "101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: another", "101 Switching Protocols",
			"101 Switching Protocols\r\nConnection: Upgrade", "101 Switching Protocols\r\nUpgrade: websocket")
	}
	if strings.HasPrefix(status, "204") || strings.HasPrefix(status, "101") {
		return "HTTP/1.1 " + status + "\r\n\r\n"
	}
	if chance(m.r, 3) {
		return "HTTP/1.1 " + status + "\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nno\r\n0\r\n\r\n"
	}
	return "HTTP/1.1 " + status + "\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"
}

// open asks for a tunnel. It is false where the host is to refuse.
func (m *tunnelMaker) open(t *talker) bool {
	r := m.r
	head, answer := "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"
	if m.kind == "upgrade" {
		name := one(r, "websocket", "websocket", "WebSocket")
		if chance(r, 6) {
			name = one(r, "other", "WEBSOCKET", "unknown")
		}
		m.named = name
		head = one(r, "GET / ", "GET / ", "GET /a?b=c ", "OPTIONS / ", "DELETE / ") + "HTTP/1.1\r\nHost: a.example\r\nConnection: " + one(r, "Upgrade", "upgrade", "keep-alive, Upgrade") + "\r\nUpgrade: " + name + "\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
		answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + name + "\r\n\r\n"
	} else if chance(r, 4) {
		answer = one(r, "HTTP/1.1 204 None\r\n\r\n", "HTTP/1.1 299 Yes\r\nX-A: b\r\n\r\n", "HTTP/1.1 200 \r\n\r\n")
	}
	if chance(r, 4) {
		text, n := t.piece()
		head += text
		t.sent[0] += n
	}
	if chance(r, 8) {
		t.add(0, "say "+head[:9])
		t.add(0, "wait 20ms")
		head = head[9:]
	}
	t.add(0, "say "+head)
	if m.kind == "connect" {
		t.add(0, "await head")
		return true
	}
	t.add(1, "await head")
	if chance(r, 8) {
		return false
	}
	// What comes with the request waits for the answer: nobody may wait for it before that.
	if chance(r, 4) {
		text, n := t.piece()
		answer += text
		t.sent[1] += n
	}
	t.add(1, "say "+answer)
	t.add(0, "await head")
	return true
}

// finish is how both ends leave.
func (m *tunnelMaker) finish(t *talker) {
	r := m.r
	who := r.IntN(2)
	other := 1 - who
	if m.kind != "tcp" {
		// The end of one is that of the tunnel: what the other has yet to say may get lost, and in
		// Envoy does.
		t.quiet(who)
		t.add(who, one(r, "end", "close", "reset"))
		return
	}
	if (m.idle || m.lasting) && chance(r, 3) {
		t.quiet(who)
		if chance(r, 2) {
			t.add(who, "end")
		} else {
			t.add(who, "await end")
		}
		t.add(other, one(r, "await end", "wait 900ms"))
		return
	}
	switch r.IntN(8) {
	case 0, 1, 2: // one ends, the other may go on for a while
		t.add(who, "end")
		t.hear(other)
		t.add(other, "await end")
		for range r.IntN(3) {
			t.say(other)
		}
		t.hear(who)
	case 3:
		t.quiet(who)
		t.add(who, "close")
	case 4:
		t.quiet(who)
		t.add(who, "reset")
	case 5: // the other resets at last
		t.add(who, "end")
		t.hear(other)
		t.add(other, "await end")
		t.say(other)
		t.hear(who)
		t.add(other, "wait 50ms")
		t.add(other, "reset")
	case 6: // who has ended resets
		t.add(who, "end")
		t.hear(other)
		t.add(other, "await end")
		t.say(other)
		t.hear(who)
		t.add(who, "reset")
		t.add(other, "wait 80ms") // it has heard the end: nothing would keep it
	case 7:
		t.hear(0)
		t.hear(1)
		t.add(0, "end")
		t.add(1, "end")
	}
}

// knownOfTunnels are the differences that docs/differential.md has.
func knownOfTunnels(c *Config, x *Case, d Difference) string {
	field := d.Field[strings.LastIndexByte(d.Field, '.')+1:]
	last := func(script []string, words ...string) bool {
		return len(script) > 0 && slices.Contains(words, script[len(script)-1])
	}
	from, to := d.Envoy, d.Hauberk
	client, host := x.Dialogue.Client, x.Dialogue.Host
	tcp := c.About == "tcp"
	switch {
	case field == "closed" && from == "null" && slices.Contains([]string{"upstream_reset", "downstream_reset", "idle_timeout", "max_connection_duration"}, to):
		return "the sidecar says how a connection ended"
	case strings.HasPrefix(d.Field, "log") && (field == "sni" || field == "host") && from == "null" && x.TLS != nil && to == x.TLS.SNI:
		return "the sidecar knows the name from the handshake; Envoy only from the listener filter tls_inspector"
	case strings.HasPrefix(d.Field, "log.") && slices.Contains([]string{"certificate", "peer", "tls"}, field) && x.TLS != nil &&
		slices.Contains([]string{"TcpConnectionStart", "TcpUpstreamConnected"}, x.Seen[0]["log.type"]) && x.Seen[1]["log.type"] == x.Seen[0]["log.type"]:
		return "a connection is served once its handshake is over"
	case c.About == "upgrade" && d.Field == "upstream.header.connection" && to == "Upgrade", c.About == "upgrade" && field == "wire" && x.Seen[0]["upstream.header.connection"] == "keep-alive, Upgrade" && afterFirst(from) == afterFirst(to):
		return "Connection is each hop's own (RFC 9110 7.6.1)"
	case c.About == "upgrade" && x.Seen[0]["response.start"] == "HTTP/1.1 101" && x.Seen[1]["response.start"] == "HTTP/1.1 502" && strings.Contains(x.Seen[1]["log.flags"]+x.Seen[1]["log[1].flags"], "UPE") && !slices.ContainsFunc(host, agrees):
		return "an answer that switches to another protocol than was asked for, or to none, is refused (RFC 9110 7.8)"
	case c.About == "passed" && d.Field == "response.header.connection" && from == "close" && to == absent && strings.HasPrefix(x.Seen[0]["response.start"], "HTTP/1.1 2") && x.Seen[0]["response.start"] != "HTTP/1.1 200",
		c.About == "passed" && field == "wire" && strings.HasPrefix(x.Seen[0]["response.start"], "HTTP/1.1 2") && x.Seen[0]["response.start"] != "HTTP/1.1 200" &&
			x.Seen[0]["response.header.connection"] == "close" && x.Seen[1]["response.header.connection"] == "" && moreSent(from, to) == len("connection: close\r\n")+longerReason(host):
		return "any success makes a tunnel of CONNECT (RFC 9110 9.3.6); Envoy knows 200 alone for its connection"
	case d.Field == "log[1].tls" && x.Seen[0]["log.type"] == "TcpConnectionStart" && strings.Replace(from, "TLSv1.2 ", "TLSv1.3 ", 1) == to,
		d.Field == "log[1].tls" && x.Seen[0]["log.type"] == "TcpUpstreamConnected" && strings.Replace(from, "TLSv1.2 ", "TLSv1.3 ", 1) == to:
		return "Envoy keeps the version of TLS that its first record told, before the handshake"
	case strings.HasPrefix(d.Field, "log[1].tried") && from == "null" && c.HCM["access_log_options"] != nil:
		return "the sidecar lists every host that was tried, as Envoy's documentation has it; Envoy none that could not be connected to"
	case c.About == "upgrade" && c.Listener["per_connection_buffer_limit_bytes"] != nil && x.Seen[0]["log.attempts"] == "1" && x.Seen[1]["log.attempts"] == "2" && x.Seen[0]["response.start"] == x.Seen[1]["response.start"]:
		return "what a client says before it has its tunnel is not read yet, and needs no room: an attempt that had no connection is repeated"
	case !tcp && field == "wire" && x.Seen[0]["log.type"] == "DownstreamStart" && withoutLast(from) == withoutLast(to):
		return "what comes with a head is counted when it is read"
	case !tcp && x.Seen[0]["response.start"] != "HTTP/1.1 101" && !connected(c, x) && (field == "received" && to == "0" || field == "wire" && wireOfRefused(x, from, to)):
		return "what a client says with a request for a tunnel that it does not get is not read"
	case !tcp && last(client, "end", "close") && (field == "details" && from == "downstream_remote_disconnect" && to == "via_upstream" ||
		field == "flags" && from == "DC" && to == "-" || field == "flags_long" && from == "DownstreamConnectionTermination" && to == "-"):
		return "a client that ends its side of a tunnel is no client that leaves: its host hears of the end and ends the other"
	case !tcp && last(host, "end", "close") && (field == "details" && from == "upstream_reset_after_response_started{connection_termination}" && to == "via_upstream" ||
		field == "flags" && from == "UC" && to == "-" || field == "flags_long" && from == "UpstreamConnectionTermination" && to == "-"):
		return "the end of the host is that of its tunnel, and no reset"
	case !tcp && from == "closed" && to == "reset" && (d.Field == "end" && last(host, "reset") || d.Field == "upstream.framing" && last(client, "reset")):
		return "what is cut by a reset is not to be taken for the whole"
	}
	return ""
}

// withoutLast is a list without its last word.
func withoutLast(list string) string { return list[:strings.LastIndexByte(list, ' ')+1] }

// afterFirst is a list without its first word.
func afterFirst(list string) string { return list[strings.IndexByte(list, ' ')+1:] }

// agrees tells whether what a host says switches to a protocol that clients ask for.
func agrees(word string) bool {
	return strings.HasPrefix(word, "say HTTP/1.1 101") && strings.Contains(word, "\r\nConnection: Upgrade\r\n") && strings.Contains(word, "\r\nUpgrade: ") && !strings.Contains(word, "Upgrade: another")
}

// connected tells whether a CONNECT was answered with a success.
func connected(c *Config, x *Case) bool {
	return c.About != "upgrade" && strings.HasPrefix(x.Seen[0]["response.start"], "HTTP/1.1 2")
}

// wireOfRefused tells whether two counts of bytes differ in no more than the options of Connection
// and what was not read.
func wireOfRefused(x *Case, from, to string) bool {
	e, h, ok := bothWires(from, to)
	if !ok {
		return false
	}
	longer := 0
	if x.Seen[0]["upstream.header.connection"] == "keep-alive, Upgrade" {
		longer = len("keep-alive, ")
	}
	return e[0] == h[0]+longer && h[1] <= e[1] && h[2] == e[2] && h[3] <= e[3]
}

// bothWires are two counts of bytes: sent to the host and received from it, sent to the client and received.
func bothWires(from, to string) (e, h [4]int, ok bool) {
	for i, text := range []string{from, to} {
		of := []*[4]int{&e, &h}[i]
		if n, _ := fmt.Sscan(text, &of[0], &of[1], &of[2], &of[3]); n != 4 {
			return e, h, false
		}
	}
	return e, h, true
}

// moreSent is how many bytes more Envoy sent to the client, -1 where another count differs too.
func moreSent(from, to string) int {
	e, h, ok := bothWires(from, to)
	if !ok || e[0] != h[0] || e[1] != h[1] || e[3] != h[3] {
		return -1
	}
	return e[2] - h[2]
}

// longerReason is by how much Envoy's own reason phrase is longer than that of a host which says a success of
// CONNECT, which the sidecar passes on.
func longerReason(host []string) int {
	for _, word := range host {
		for said, own := range map[string]string{"204 None": "204 No Content", "299 Yes": "299 Unknown"} {
			if strings.HasPrefix(word, "say HTTP/1.1 "+said+"\r\n") {
				return len(own) - len(said)
			}
		}
	}
	return 0
}
