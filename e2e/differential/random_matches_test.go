//go:build e2e

package differential

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
)

// randomMatches is a listener that passes on what it gets, by random matches of its chains.
func randomMatches(r *rand.Rand, name string) Config {
	c := Config{Name: name, About: "random", ListenerLog: true, LogFields: map[string]string{
		"direct": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%", "local": "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
		"directly": "%DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT%", "type": "%ACCESS_LOG_TYPE%"}}
	proxied := !chance(r, 3)
	optional, ignored := !proxied, ""
	var filters []any
	if proxied {
		fields := map[string]any{}
		if optional = chance(r, 3); optional {
			fields["allow_requests_without_proxy_protocol"] = true
		}
		if chance(r, 5) {
			ignored = one(r, "V1", "V2")
			fields["disallowed_versions"] = []any{ignored}
		}
		f := listenerFilter("proxy_protocol", "ProxyProtocol", fields)
		filters = append(filters, f)
		if disabled := disable(r, f); disabled != nil && disabled.holds(20000) { // any port that is given out
			proxied, optional = false, true
		}
	}
	inspects := !chance(r, 4)
	if inspects {
		f := listenerFilter("tls_inspector", "TlsInspector", nil)
		filters = append(filters, f)
		inspects = disable(r, f) == nil
	}
	if chance(r, 2) {
		f := listenerFilter("http_inspector", "HttpInspector", nil)
		filters = append(filters, f)
		disable(r, f)
	}
	if chance(r, 4) {
		r.Shuffle(len(filters), func(i, j int) { filters[i], filters[j] = filters[j], filters[i] })
	}
	c.Listener = map[string]any{"listener_filters": filters}
	taken := map[string]bool{}
	for i := range 1 + r.IntN(7) {
		m := randomMatch(r)
		if !inspects {
			delete(m, "server_names") // else the sidecar looks for TLS without being asked to
			delete(m, "application_protocols")
			delete(m, "transport_protocol")
		}
		keys := expanded(m)
		clash := false
		for _, k := range keys {
			clash = clash || taken[k]
		}
		if clash {
			continue
		}
		for _, k := range keys {
			taken[k] = true
		}
		c.FilterChains = append(c.FilterChains, map[string]any{"name": fmt.Sprintf("c%d", i), "filter_chain_match": m, "tcp": one(r, "origin", "other", "third")})
	}
	if chance(r, 3) {
		c.Listener["default_filter_chain"] = map[string]any{"name": "default", "filters": []any{map[string]any{"name": "tcp", "typed_config": map[string]any{
			"@type": apiType + "extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "default", "cluster": "origin"}}}}
	}
	for i := range 8 {
		x := randomConnection(r, fmt.Sprintf("case-%d", i), proxied, optional)
		first, second := strings.HasPrefix(x.Raw, "PROXY "), strings.HasPrefix(x.Raw, "\r\n\r\n\x00\r\nQUIT\n")
		if optional && (!first || ignored == "V1") && (!second || ignored == "V2") {
			x.Patient = true // what is no header there is passed on
		}
		c.Cases = append(c.Cases, x)
	}
	return c
}

// leftOut is a filter_disabled.
type leftOut map[string]any

// disable has few listener filters be left out, by the port that a client meant.
func disable(r *rand.Rand, filter map[string]any) leftOut {
	if !chance(r, 5) {
		return nil
	}
	p := randomPorts(r, 2)
	filter["filter_disabled"] = map[string]any(p)
	return p
}

func randomPorts(r *rand.Rand, depth int) leftOut {
	switch n := r.IntN(6); {
	case n == 0:
		return leftOut{"any_match": true}
	case n == 1 && depth > 0:
		return leftOut{"not_match": map[string]any(randomPorts(r, depth-1))}
	case n <= 3 && depth > 0:
		return leftOut{one(r, "and_match", "or_match"): map[string]any{"rules": []any{map[string]any(randomPorts(r, depth-1)), map[string]any(randomPorts(r, depth-1))}}}
	}
	from := one(r, 1, 80, 443, 1024)
	return leftOut{"destination_port_range": map[string]any{"start": from, "end": one(r, from+1, 1024+from, 65536)}}
}

func (p leftOut) holds(port int) bool {
	if p["any_match"] == true {
		return true
	}
	if not, ok := p["not_match"].(map[string]any); ok {
		return !leftOut(not).holds(port)
	}
	if of, ok := p["destination_port_range"].(map[string]any); ok {
		return of["start"].(int) <= port && port < of["end"].(int)
	}
	for _, kind := range []string{"and_match", "or_match"} {
		if of, ok := p[kind].(map[string]any); ok {
			for _, rule := range of["rules"].([]any) {
				if leftOut(rule.(map[string]any)).holds(port) == (kind == "or_match") {
					return kind == "or_match"
				}
			}
			return kind == "and_match"
		}
	}
	return false
}

// randomMatch is a random filter_chain_match.
func randomMatch(r *rand.Rand) map[string]any {
	m := map[string]any{}
	prefix := func(field string) {
		var out []any
		seen := map[string]bool{}
		for range 1 + r.IntN(2) {
			p := one(r, "127.0.0.0/8", "127.0.0.1/32", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "0.0.0.0/1", "::/1", "2001:db8::/32", "2001:db8::1/128", "10.1.2.0/24")
			if seen[p] {
				continue
			}
			seen[p] = true
			address, bits, _ := strings.Cut(p, "/")
			n := 0
			_, _ = fmt.Sscan(bits, &n)
			out = append(out, map[string]any{"address_prefix": address, "prefix_len": n})
		}
		m[field] = out
	}
	if chance(r, 4) {
		m["destination_port"] = one(r, any("own"), any(443), any(1), any(65535))
	}
	if chance(r, 4) {
		prefix("prefix_ranges")
	}
	if chance(r, 3) {
		m["server_names"] = one(r, []any{"a.example"}, []any{"*.example"}, []any{"*.a.example", "a.example"}, []any{"b.example", "*.b.example"}, []any{"*.x.a.example"}, []any{"*.com"})
	}
	if chance(r, 3) {
		m["transport_protocol"] = one(r, "tls", "raw_buffer")
	}
	if chance(r, 3) {
		m["application_protocols"] = one(r, []any{"h2"}, []any{"http/1.1"}, []any{"http/1.0"}, []any{"h2c"}, []any{"http/1.1", "http/1.0"}, []any{"special"})
	}
	if chance(r, 5) {
		prefix("direct_source_prefix_ranges")
	}
	if chance(r, 4) {
		m["source_type"] = one(r, "SAME_IP_OR_LOOPBACK", "EXTERNAL", "ANY")
	}
	if chance(r, 4) {
		prefix("source_prefix_ranges")
	}
	if chance(r, 5) {
		m["source_ports"] = one(r, []any{111}, []any{1, 65535}, []any{222, 111})
	}
	return m
}

// expanded are the paths of a match in the tree of all: no two chains may share one.
func expanded(m map[string]any) []string {
	keys := []string{""}
	for _, field := range []string{"destination_port", "prefix_ranges", "server_names", "transport_protocol", "application_protocols", "direct_source_prefix_ranges", "source_type", "source_prefix_ranges", "source_ports"} {
		values, ok := m[field].([]any)
		if !ok {
			values = []any{m[field]}
		}
		var next []string
		for _, k := range keys {
			for _, v := range values {
				if v == nil || v == "ANY" {
					v = "-"
				}
				next = append(next, k+"|"+fmt.Sprint(v))
			}
		}
		keys = next
	}
	return keys
}

// randomConnection has perhaps a header of the PROXY protocol, and then a line, a request, a
// preface or a ClientHello.
func randomConnection(r *rand.Rand, name string, proxied, optional bool) Case {
	x := Case{Name: name}
	before, whole := "", optional
	if proxied != chance(r, 8) {
		before, whole = randomHeader(r)
	}
	if chance(r, 2) {
		names := one(r, "sni a.example", "sni a.example", "sni x.a.example", "sni y.x.a.example", "sni A.EXAMPLE", "sni b.example", "sni z.com", "sni none.test", "")
		protocols := one(r, "", "alpn h2", "alpn http/1.1", "alpn special h2", "alpn none")
		h := &Hello{Before: fmt.Sprintf("%x", before)}
		for _, e := range []string{names, protocols, "versions", "groups", "signatures"} {
			if e != "" {
				h.Extensions = append(h.Extensions, e)
			}
		}
		x.Hello = h
		return x
	}
	x.Patient = whole || !proxied
	x.Raw = before + one(r, "tcp hello\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.0\r\n\r\n", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
	return x
}

// randomHeader is one of the PROXY protocol, of either version.
func randomHeader(r *rand.Rand) (header string, whole bool) {
	source, destination := one(r, "10.1.2.3", "10.1.2.4", "10.9.9.9", "127.0.0.1", "1.2.3.4"), one(r, "10.1.2.3", "127.0.0.1", "5.6.7.8", "10.1.0.1")
	sport, dport := one(r, 111, 222, 1, 65535, 333, 0), one(r, 443, 1, 65535, 80)
	six := chance(r, 4)
	if six {
		source, destination = one(r, "2001:db8::1", "2001:db8::2", "::1", "fe80::1"), one(r, "2001:db8::1", "::1", "2001:db9::1")
	}
	if chance(r, 2) {
		switch r.IntN(8) {
		case 0:
			return "PROXY UNKNOWN\r\n", true
		case 1:
			return fmt.Sprintf("PROXY UNKNOWN %s %s %d %d\r\n", source, destination, sport, dport), true
		case 2:
			return one(r, "PROXY TCP4 10.1.2.3 5.6.7.8 111\r\n", "PROXY TCP4 10.1.2.3 5.6.7.8 111 65536\r\n", "PROXY TCP4 ::1 ::1 1 1\r\n", "PROXY TCP6 10.1.2.3 5.6.7.8 111 222\r\n", "PROXY  TCP4 10.1.2.3 5.6.7.8 111 222\r\n",
				"PROXY TCP4 10.1.2.03 5.6.7.8 111 222\r\n", "proxy TCP4 10.1.2.3 5.6.7.8 111 222\r\n",
				"PROXY TCP6 ::1%lo ::1 111 222\r\n", "PROXY TCP4 10.1.2.3 5.6.7.8 -1 222\r\n", "PROXY TCP4 10.1.2.3 5.6.7.8 111 222 x\r\n"), false
		}
		family := "TCP4"
		if six {
			family = "TCP6"
		}
		return fmt.Sprintf("PROXY %s %s %s %d %d\r\n", family, source, destination, sport, dport), true
	}
	return randomHeaderOf2(r, source, destination, sport, dport)
}

func randomHeaderOf2(r *rand.Rand, source, destination string, sport, dport int) (header string, whole bool) {
	command, family := byte(0x21), byte(0x11)
	s, d := netip.MustParseAddr(source), netip.MustParseAddr(destination)
	if s.Is6() {
		family = 0x21
	}
	body := append(s.AsSlice(), d.AsSlice()...)
	body = binary.BigEndian.AppendUint16(body, uint16(sport))
	body = binary.BigEndian.AppendUint16(body, uint16(dport))
	whole = true
	switch r.IntN(10) {
	case 0:
		command = 0x20
	case 1:
		command, family, body = 0x20, 0, nil
	case 2:
		whole = false
		family = one(r, byte(0), 0x12, 0x31, 0x10, 0x22)
	case 3:
		whole = false
		command = one(r, byte(0x22), 0x31, 0x11)
	case 4:
		whole = false
		body = body[:r.IntN(len(body))]
	}
	switch r.IntN(5) {
	case 0:
		body = append(body, 0xea, 0, 3, 'a', 'b', 'c')
	case 1:
		body = append(body, 1, 0, 0, 4, 0, 1, 0)
	case 2:
		whole = command == 0x20 // whose block nobody is to look at
		body = append(body, 1, 0, 9, 'x')
	}
	head := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), command, family)
	return string(append(binary.BigEndian.AppendUint16(head, uint16(len(body))), body...)), whole
}
