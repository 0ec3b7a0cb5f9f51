package authz

import (
	"bytes"
	"net"
	"net/netip"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

type request map[string]string

func (r request) Header(lower string) (string, bool) { v, ok := r[lower]; return v, ok }

// HeaderFrom splits a value at semicolons into those of a repeated field.
func (r request) HeaderFrom(name message.Name, from int) (string, int, bool) {
	v, ok := r[name.String()]
	if !ok || from > len(v) {
		return "", from, false
	}
	value, _, _ := strings.Cut(v[from:], ";")
	return value, from + len(value) + 1, true
}

func ptr[T any](v T) *T { return &v }

const (
	web   = "spiffe://td/ns/default/dc/dc1/svc/web"
	batch = "spiffe://td/ns/default/dc/dc1/svc/batch"
)

func peerOf(id string) *Peer {
	p := NewPeer(&stream.Info{
		Local:  &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 15006},
		Remote: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 4000},
		PeerID: id, TLS: id != "", SNI: "api.example",
	}, netip.AddrPort{})
	return &p
}

func named(id string) Principal {
	return Principal{Authenticated: true, Name: &route.StringMatch{Exact: &id}}
}

func pathIs(s string) Permission { return Permission{URLPath: &route.StringMatch{Exact: &s}} }

var anyone, anything = []Principal{{Any: true}}, []Permission{{Any: true}}

func rules(a Action, p ...Policy) *Rules { return &Rules{Action: a, Policies: p} }

func compile(t *testing.T, level Level, filters ...NetworkFilter) *Evaluator {
	t.Helper()
	e, err := Compile(filters, level, nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// The order of evaluation: filters in turn, deny before allow as configured, the
// first policy by name names the decision.
func TestEvaluationOrder(t *testing.T) {
	deny := NetworkFilter{StatPrefix: "deny", Rules: rules(Deny, Policy{"no batch", anything, []Principal{named(batch)}})}
	allow := NetworkFilter{StatPrefix: "allow", Rules: rules(Allow,
		Policy{"b mesh", anything, []Principal{{Authenticated: true}}},
		Policy{"a web", anything, []Principal{named(web)}})}
	for _, tc := range []struct {
		name    string
		filters []NetworkFilter
		id      string
		allowed bool
		rule    string
		filter  string
	}{
		{"no filters allow", nil, "", true, "", ""},
		{"nil rules allow", []NetworkFilter{{}}, "", true, DefaultAllow, ""},
		{"empty allow denies all", []NetworkFilter{{StatPrefix: "x", Rules: rules(Allow)}}, web, false, DefaultDeny, "x"},
		{"empty deny allows all", []NetworkFilter{{StatPrefix: "x", Rules: rules(Deny)}}, web, true, DefaultAllow, "x"},
		{"deny wins over a later allow", []NetworkFilter{deny, allow}, batch, false, "no batch", "deny"},
		{"deny wins over an earlier allow", []NetworkFilter{allow, deny}, batch, false, "no batch", "deny"},
		{"first policy by name decides", []NetworkFilter{deny, allow}, web, true, "a web", "allow"},
		{"plaintext is nobody", []NetworkFilter{deny, allow}, "", false, DefaultDeny, "allow"},
		{"log decides nothing", []NetworkFilter{{Rules: rules(Log, Policy{"l", anything, anyone})}}, web, true, DefaultAllow, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := compile(t, Connection, tc.filters...).CheckConn(peerOf(tc.id))
			if d.Allowed != tc.allowed || d.Rule != tc.rule || d.Filter != tc.filter {
				t.Errorf("got %v %q %q, want %v %q %q", d.Allowed, d.Rule, d.Filter, tc.allowed, tc.rule, tc.filter)
			}
		})
	}
}

func TestHeaderMatcher(t *testing.T) {
	exact := &route.StringMatch{Exact: ptr("v")}
	for _, tc := range []struct {
		name  string
		match route.HeaderMatch
		req   request
		want  bool
	}{
		{"exact", route.HeaderMatch{Value: exact}, request{"x": "v"}, true},
		{"exact differs", route.HeaderMatch{Value: exact}, request{"x": "w"}, false},
		{"exact, the first of two", route.HeaderMatch{Value: exact}, request{"x": "v;w"}, true},
		{"exact, the last of two", route.HeaderMatch{Value: exact}, request{"x": "w;v"}, true},
		{"exact, none of two", route.HeaderMatch{Value: exact}, request{"x": "w;u"}, false},
		{"exact, a list in one value", route.HeaderMatch{Value: exact}, request{"x": "v,w"}, false},
		{"inverted exact, one of two", route.HeaderMatch{Value: exact, Invert: true}, request{"x": "w;v"}, false},
		{"inverted exact, none of two", route.HeaderMatch{Value: exact, Invert: true}, request{"x": "w;u"}, true},
		{"inverted exact differs", route.HeaderMatch{Value: exact, Invert: true}, request{"x": "w"}, true},
		{"absent does not match", route.HeaderMatch{Value: exact}, nil, false},
		{"absent does not match inverted either", route.HeaderMatch{Value: exact, Invert: true}, nil, false},
		{"absent taken for empty, inverted", route.HeaderMatch{Value: exact, Invert: true, MissingAsEmpty: true}, nil, true},
		{"present", route.HeaderMatch{Present: ptr(true)}, request{"x": ""}, true},
		{"present but absent", route.HeaderMatch{Present: ptr(true)}, nil, false},
		{"absence asked for", route.HeaderMatch{Present: ptr(false)}, nil, true},
		{"absence asked for, present", route.HeaderMatch{Present: ptr(false)}, request{"x": "1"}, false},
		{"inverted presence, absent", route.HeaderMatch{Present: ptr(true), Invert: true}, nil, true},
		{"inverted presence, present", route.HeaderMatch{Present: ptr(true), Invert: true}, request{"x": "1"}, false},
		{"no specifier is presence", route.HeaderMatch{}, request{"x": "1"}, true},
		{"range start", route.HeaderMatch{Range: &[2]int64{1, 3}}, request{"x": "1"}, true},
		{"range end is outside", route.HeaderMatch{Range: &[2]int64{1, 3}}, request{"x": "3"}, false},
		{"range of no number", route.HeaderMatch{Range: &[2]int64{1, 3}}, request{"x": "2x"}, false},
		{"regex is full match", route.HeaderMatch{Value: &route.StringMatch{Regex: regexp.MustCompile("a|ab")}}, request{"x": "ab"}, true},
		{"regex sees bytes", route.HeaderMatch{Value: &route.StringMatch{Regex: regexp.MustCompile("a.b")}}, request{"x": "aéb"}, false},
		{"regex sees each byte", route.HeaderMatch{Value: &route.StringMatch{Regex: regexp.MustCompile("a..b")}}, request{"x": "aéb"}, true},
		{"regex takes no other letter for k", route.HeaderMatch{Value: &route.StringMatch{Regex: regexp.MustCompile("(?i)k")}}, request{"x": "\u212a"}, false},
		{"regex no partial match", route.HeaderMatch{Value: &route.StringMatch{Regex: regexp.MustCompile("a")}}, request{"x": "xax"}, false},
		{"regex no newline escape", route.HeaderMatch{Value: &route.StringMatch{Regex: regexp.MustCompile("(?m)a$")}}, request{"x": "a\nb"}, false},
		{"prefix ignoring case", route.HeaderMatch{Value: &route.StringMatch{Prefix: ptr("Ab"), IgnoreCase: true}}, request{"x": "aBc"}, true},
		{"no Unicode folding", route.HeaderMatch{Value: &route.StringMatch{Exact: ptr("s1"), IgnoreCase: true}}, request{"x": "\u017f"}, false},
		{"contains", route.HeaderMatch{Value: &route.StringMatch{Contains: ptr("BC"), IgnoreCase: true}}, request{"x": "abcd"}, true},
		{"suffix", route.HeaderMatch{Value: &route.StringMatch{Suffix: ptr("cd")}}, request{"x": "abcd"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := tc.match
			m.Name = "x"
			e := compile(t, Exchange, NetworkFilter{Rules: rules(Allow, Policy{"p", []Permission{{Header: &m}}, anyone})})
			if got := e.CheckRequest(peerOf(web), tc.req).Allowed; got != tc.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestPermissionsAndPrincipals(t *testing.T) {
	prefix := netip.MustParsePrefix("10.0.0.0/24")
	other := netip.MustParsePrefix("192.0.2.0/24")
	for _, tc := range []struct {
		name string
		perm Permission
		who  Principal
		path string
		want bool
	}{
		{"path without query", pathIs("/a"), Principal{Any: true}, "/a?b=/c", true},
		{"path without fragment", pathIs("/a"), Principal{Any: true}, "/a#x", true},
		{"path differs", pathIs("/a"), Principal{Any: true}, "/a/", false},
		{"not", Permission{Not: ptr(pathIs("/a"))}, Principal{Any: true}, "/a", false},
		{"and", Permission{And: []Permission{pathIs("/a"), {Port: 15006}}}, Principal{Any: true}, "/a", true},
		{"and fails", Permission{And: []Permission{pathIs("/a"), {Port: 1}}}, Principal{Any: true}, "/a", false},
		{"or", Permission{Or: []Permission{pathIs("/b"), pathIs("/a")}}, Principal{Any: true}, "/a", true},
		{"port range", Permission{PortRange: &[2]uint32{15000, 15006}}, Principal{Any: true}, "/a", false},
		{"destination", Permission{Destination: &prefix}, Principal{Any: true}, "/a", true},
		{"sni", Permission{SNI: &route.StringMatch{Exact: ptr("api.example")}}, Principal{Any: true}, "/a", true},
		{"not principal", Permission{Any: true}, Principal{Not: ptr(named(web))}, "/a", false},
		{"and not", Permission{Any: true}, Principal{And: []Principal{{Authenticated: true}, {Not: ptr(named(batch))}}}, "/a", true},
		{"or ids", Permission{Any: true}, Principal{Or: []Principal{named(batch), named(web)}}, "/a", true},
		{"source", Permission{Any: true}, Principal{Source: &prefix}, "/a", true},
		{"direct source", Permission{Any: true}, Principal{DirectSource: &other}, "/a", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := compile(t, Exchange, NetworkFilter{Rules: rules(Allow, Policy{"p", []Permission{tc.perm}, []Principal{tc.who}})})
			if got := e.CheckRequest(peerOf(web), request{":path": tc.path}).Allowed; got != tc.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestShadow(t *testing.T) {
	e := compile(t, Connection, NetworkFilter{
		Rules:  rules(Allow, Policy{"real", anything, anyone}),
		Shadow: rules(Deny, Policy{"would deny", anything, []Principal{named(web)}}),
	})
	d := e.CheckConn(peerOf(web))
	if !d.Allowed || d.Rule != "real" || !d.ShadowDenied || d.ShadowRule != "would deny" {
		t.Errorf("got %+v", d)
	}
}

func TestCompileRefuses(t *testing.T) {
	header := Permission{Header: &route.HeaderMatch{Name: "x"}}
	deep := Permission{Any: true}
	for range maxDepth + 2 {
		inner := deep
		deep = Permission{Not: &inner}
	}
	for _, tc := range []struct {
		name  string
		level Level
		p     Policy
		want  string
	}{
		{"header in a network filter", Connection, Policy{"p", []Permission{header}, anyone}, "network filter"},
		{"path in a network filter", Connection, Policy{"p", []Permission{pathIs("/")}, anyone}, "network filter"},
		{"no principals", Exchange, Policy{"p", anything, nil}, "must not be empty"},
		{"two fields", Exchange, Policy{"p", []Permission{{Any: true, Port: 1}}, anyone}, "exactly one"},
		{"no field", Exchange, Policy{"p", []Permission{{}}, anyone}, "exactly one"},
		{"empty and", Exchange, Policy{"p", []Permission{{And: []Permission{}}}, anyone}, "and_rules"},
		{"name without authenticated", Exchange, Policy{"p", anything, []Principal{{Any: true, Name: &route.StringMatch{Exact: ptr("x")}}}}, "authenticated"},
		{"two patterns", Exchange, Policy{"p", []Permission{{SNI: &route.StringMatch{Exact: ptr("a"), Prefix: ptr("b")}}}, anyone}, "exactly one pattern"},
		{"too deep", Exchange, Policy{"p", []Permission{deep}, anyone}, "deep"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Compile([]NetworkFilter{{StatPrefix: "f", Rules: rules(Allow, tc.p)}}, tc.level, nil)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), `policy "p"`) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestExchangeRulesDenyAConnection(t *testing.T) {
	e := compile(t, Exchange, NetworkFilter{Rules: rules(Allow, Policy{"p", anything, anyone})})
	if e.CheckConn(peerOf(web)).Allowed {
		t.Error("rules that need a request must deny without one")
	}
}

func TestCheckRequestAllocatesNothing(t *testing.T) {
	re := &route.StringMatch{Regex: regexp.MustCompile(`/v[0-9]+/.*`)}
	e := compile(t, Exchange, NetworkFilter{Rules: rules(Allow, Policy{"p", []Permission{{And: []Permission{{URLPath: re}, {Header: &route.HeaderMatch{Name: ":method", Value: &route.StringMatch{Exact: ptr("GET")}}}}}}, []Principal{named(web)}})})
	p := peerOf(web)
	var r Request = request{":path": "/v1/x?y", ":method": "GET"}
	if n := testing.AllocsPerRun(100, func() {
		if !e.CheckRequest(p, r).Allowed {
			t.Fatal("denied")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A deny rule and its negation must never both let a request pass.
func FuzzNotIsComplement(f *testing.F) {
	f.Add("/a?b", "/a", uint8(0))
	f.Add("/A/../b", "/a", uint8(7))
	f.Fuzz(func(t *testing.T, path, pattern string, how uint8) {
		m := &route.StringMatch{IgnoreCase: how&4 != 0}
		switch how & 3 {
		case 0:
			m.Exact = &pattern
		case 1:
			m.Prefix = &pattern
		case 2:
			m.Suffix = &pattern
		case 3:
			m.Contains = &pattern
		}
		build := func(p Permission) *Evaluator {
			e, err := Compile([]NetworkFilter{{Rules: rules(Allow, Policy{"p", []Permission{p}, anyone})}}, Exchange, nil)
			if err != nil {
				t.Skip()
			}
			return e
		}
		yes, no := build(Permission{URLPath: m}), build(Permission{Not: &Permission{URLPath: m}})
		r := request{":path": path}
		if yes.CheckRequest(peerOf(web), r).Allowed == no.CheckRequest(peerOf(web), r).Allowed {
			t.Errorf("%q with %q: rule and negation agree", path, pattern)
		}
	})
}

// The three addresses of a peer differ behind proxies, and each has its own rule.
func TestAddresses(t *testing.T) {
	direct, connection, remote := netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("10.0.0.2/32"), netip.MustParsePrefix("10.0.0.3/32")
	p := Peer{Info: &stream.Info{Remote: net.TCPAddrFromAddrPort(netip.AddrPortFrom(connection.Addr(), 1))}, Direct: direct.Addr(), Remote: remote.Addr()}
	for i, who := range []Principal{{DirectSource: &direct}, {ConnectionSource: &connection}, {Source: &remote}} {
		for j, also := range []netip.Prefix{direct, connection, remote} {
			set := who
			switch i {
			case 0:
				set.DirectSource = &also
			case 1:
				set.ConnectionSource = &also
			case 2:
				set.Source = &also
			}
			e, err := Compile([]HTTPFilter{{Rules: &Rules{Policies: []Policy{{Name: "p", Permissions: []Permission{{Any: true}}, Principals: []Principal{set}}}}}}, Exchange, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := e.CheckRequest(&p, nil).Allowed; got != (i == j) {
				t.Errorf("rule %d on address %d: %v", i, j, got)
			}
		}
	}
}

func TestTemplatePermission(t *testing.T) {
	tmpl, err := route.NewTemplate("/a/{b}")
	if err != nil {
		t.Fatal(err)
	}
	rules := &Rules{Policies: []Policy{{Name: "p", Permissions: []Permission{{Template: tmpl}}, Principals: []Principal{{Any: true}}}}}
	e, err := Compile([]HTTPFilter{{Rules: rules}}, Exchange, nil)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"/a/x?q": true, "/a/x=y": true, "/a/*?q": true, "/a/": false, "/a/x/y": false} {
		req := &message.Request{Method: "GET", Path: path}
		if got := e.CheckRequest(&Peer{Info: &stream.Info{}}, req).Allowed; got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
	if _, err := Compile([]NetworkFilter{{Rules: rules}}, Connection, nil); err == nil {
		t.Error("a network filter took a rule about paths")
	}
}

// In steps the decision is the same, and each filter's comes in its turn.
func TestNext(t *testing.T) {
	rule := func(name string, a Action) NetworkFilter {
		return NetworkFilter{StatPrefix: name, Rules: &Rules{Action: a, Policies: []Policy{{
			Name: name, Permissions: []Permission{{Header: &route.HeaderMatch{Name: name, Present: new(bool), Invert: true}}}, Principals: []Principal{{Any: true}},
		}}}}
	}
	e, err := Compile([]NetworkFilter{rule("a", Allow), rule("d", Deny)}, Exchange, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, names := range [][]string{nil, {"a"}, {"d"}, {"a", "d"}} {
		req := &message.Request{Method: "GET", Path: "/"}
		for _, n := range names {
			req.Fields.Add(n, "1")
		}
		p := &Peer{Info: &stream.Info{}}
		var d Decision
		for i := 0; i < e.Len() && e.Next(i, p, req, nil, &d); i++ {
		}
		if want := e.CheckRequest(p, req); d != want {
			t.Errorf("%v: %+v, want %+v", names, d, want)
		}
	}
	if (*Evaluator)(nil).Len() != 0 {
		t.Error("no evaluator has filters")
	}
}

// What was counted of rules goes with the last that has them.
func TestRulesThatAreGoneAreNotShown(t *testing.T) {
	m := telemetry.NewMetrics()
	shown := func() string {
		var out bytes.Buffer
		_ = m.Registry.WritePrometheus(&out)
		return out.String()
	}
	compile := func(policy string) *Evaluator {
		all := rules(Allow, Policy{Name: policy, Permissions: anything, Principals: anyone})
		e, err := Compile([]NetworkFilter{{Rules: all, Shadow: all}}, Connection, m.AuthzCounter)
		if err != nil {
			t.Fatal(err)
		}
		e.CheckConn(peerOf(web)).Count(0)
		return e
	}
	before, after := compile("old"), compile("kept")
	for _, want := range []string{
		`hauberk_authz_decisions_total{decision="allow",rule="old"} 1`, `hauberk_authz_shadow_decisions_total{decision="allow",rule="old"} 1`,
	} {
		if s := shown(); !strings.Contains(s, want) {
			t.Errorf("no %s", want)
		}
	}
	runtime.GC()
	if !strings.Contains(shown(), `rule="old"`) {
		t.Error("rules that are in force are not shown")
	}
	runtime.KeepAlive(before)
	next := compile("kept") // an update that leaves the rule as it is
	runtime.KeepAlive(after)
	runtime.GC()
	s := shown()
	if strings.Contains(s, `rule="old"`) {
		t.Error("rules that are gone are shown")
	}
	if want := `hauberk_authz_decisions_total{decision="allow",rule="kept"} 2`; !strings.Contains(s, want) {
		t.Errorf("no %s", want)
	}
	runtime.KeepAlive(next)
}
