package listener

import (
	"net/netip"
	"strings"
	"testing"
)

func treeOf(t *testing.T, chains ...FilterChain) *matchTree {
	t.Helper()
	tree := &matchTree{root: &node{}}
	for i := range chains {
		if err := tree.root.insert(0, &chains[i].Match, &chain{cfg: &chains[i], index: i}); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

func at(dst, src string) target {
	d, s := netip.MustParseAddrPort(dst), netip.MustParseAddrPort(src)
	return target{destination: d, source: s, direct: s.Addr(), sought: sought{plaintext: true}}
}

func nets(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func TestMatchPrecedence(t *testing.T) {
	tree := treeOf(t,
		FilterChain{Name: "port", Match: Match{DestinationPort: 443}},
		FilterChain{Name: "wide", Match: Match{Destination: nets("10.0.0.0/8")}},
		FilterChain{Name: "narrow", Match: Match{Destination: nets("10.1.0.0/16")}},
		FilterChain{Name: "host", Match: Match{Destination: nets("10.1.2.3/32"), ServerNames: []string{"only.example"}}},
		FilterChain{Name: "exact", Match: Match{ServerNames: []string{"a.b.example"}}},
		FilterChain{Name: "wild", Match: Match{ServerNames: []string{"*.example"}}},
		FilterChain{Name: "wilder", Match: Match{ServerNames: []string{"*.b.example"}}},
		FilterChain{Name: "tls", Match: Match{TransportProtocol: "tls"}},
		FilterChain{Name: "h2", Match: Match{TransportProtocol: "tls", ApplicationProtocols: []string{"h2"}}},
		FilterChain{Name: "direct", Match: Match{DirectSource: nets("192.0.2.0/24")}},
		FilterChain{Name: "local", Match: Match{SourceType: SameIPOrLoopback}},
		FilterChain{Name: "sport", Match: Match{SourcePorts: []uint16{7777}}},
		FilterChain{Name: "source", Match: Match{Source: nets("198.51.100.0/24")}},
		FilterChain{Name: "six", Match: Match{Destination: nets("2001:db8::/32")}},
	)
	const out = "203.0.113.1:9"
	for _, tc := range []struct {
		name string
		to   target
		with func(*target)
		want string
	}{
		{"destination port first", at("10.1.0.1:443", out), nil, "port"},
		{"prefix", at("10.9.0.1:1", out), nil, "wide"},
		{"longest prefix", at("10.1.0.1:1", out), nil, "narrow"},
		{"no way back from a more specific prefix", at("10.1.2.3:1", out), nil, ""},
		{"server name below a prefix", at("10.1.2.3:1", out), func(x *target) { x.serverName = "only.example" }, "host"},
		{"IPv6", at("[2001:db8::1]:1", out), nil, "six"},
		{"mapped IPv4", at("[::ffff:10.9.0.1]:1", out), nil, "wide"},
		{"exact name", at("1.1.1.1:1", out), func(x *target) { x.serverName = "a.b.example" }, "exact"},
		{"longest wildcard", at("1.1.1.1:1", out), func(x *target) { x.serverName = "x.b.example" }, "wilder"},
		{"wildcard over labels", at("1.1.1.1:1", out), func(x *target) { x.serverName = "x.y.example" }, "wild"},
		{"wildcard not the domain", at("1.1.1.1:1", out), func(x *target) { x.serverName = "example"; x.plaintext = false }, "tls"},
		{"alpn", at("1.1.1.1:1", out), func(x *target) { x.plaintext = false; x.alpn = protocolName("x") + protocolName("h2") }, "h2"},
		{"alpn unknown", at("1.1.1.1:1", out), func(x *target) { x.plaintext = false; x.alpn = protocolName("x") }, "tls"},
		{"direct source", at("1.1.1.1:1", "192.0.2.7:9"), nil, "direct"},
		{"source type", at("1.1.1.1:1", "127.0.0.1:7777"), func(x *target) { x.local = true }, "local"},
		{"source", at("1.1.1.1:1", "198.51.100.7:7777"), nil, "source"},
		{"source port", at("1.1.1.1:1", "203.0.113.1:7777"), nil, "sport"},
		{"nothing", at("1.1.1.1:1", out), nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.with != nil {
				tc.with(&tc.to)
			}
			got := ""
			if c := tree.find(&tc.to); c != nil {
				got = c.cfg.Name
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestMatchRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		a, b Match
		want []string
	}{
		"duplicate":         {Match{ServerNames: []string{"a", "b"}}, Match{ServerNames: []string{"b"}}, []string{`"one"`, `"two"`}},
		"same prefix twice": {Match{Destination: nets("10.1.1.1/8")}, Match{Destination: nets("10.0.0.0/8")}, []string{`"one"`, `"two"`}},
		"partial wildcard":  {Match{}, Match{ServerNames: []string{"a*.example"}}, []string{`"two"`, "wildcard"}},
		"bare wildcard":     {Match{}, Match{ServerNames: []string{"*"}}, []string{"wildcard"}},
		"upper case":        {Match{}, Match{ServerNames: []string{"A"}}, []string{"lower case"}},
		"transport":         {Match{}, Match{TransportProtocol: "quic"}, []string{"transport_protocol"}},
	} {
		t.Run(name, func(t *testing.T) {
			one, two := &FilterChain{Name: "one"}, &FilterChain{Name: "two"}
			root := &node{}
			err := root.insert(0, &tc.a, &chain{cfg: one})
			if err == nil {
				err = root.insert(0, &tc.b, &chain{cfg: two, index: 1})
			}
			for _, w := range tc.want {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Fatalf("got %v, want %q", err, w)
				}
			}
		})
	}
}

// TestSourceTypeOfARedirectedConnection: what counts is where the client was going, not
// where a firewall had it end.
func TestSourceTypeOfARedirectedConnection(t *testing.T) {
	at := netip.MustParseAddrPort
	x := target{}
	for _, c := range []struct {
		source, destination string
		local               bool
	}{
		{"10.0.0.1:1000", "10.0.0.1:15001", true},
		{"10.0.0.1:1000", "10.0.0.2:80", false},
		{"10.0.0.2:1000", "10.0.0.2:80", true},
		{"127.0.0.1:1000", "10.0.0.2:80", true},
	} {
		if x.between(at(c.source), at(c.destination)); x.local != c.local {
			t.Errorf("from %s to %s: %v", c.source, c.destination, x.local)
		}
	}
}
