package authz

import (
	"crypto/x509"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/internal/peercert"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

func is(s string) *route.StringMatch { return &route.StringMatch{Exact: &s} }

func line(name, value string) Condition { return Condition{Header: name, Value: is(value)} }

func then(name string, a Action) Outcome { return Outcome{Name: name, Action: a} }

func inOrder(otherwise *Outcome, cases ...Case) NetworkFilter {
	return NetworkFilter{StatPrefix: "f", Rules: &Rules{Ordered: &Ordered{Cases: cases, Otherwise: otherwise}}}
}

// TestOrdered: the first case that holds decides, whatever follows.
func TestOrdered(t *testing.T) {
	both := inOrder(nil,
		Case{line("x", "1"), then("one", Deny)},
		Case{Condition{Or: []Condition{line("x", "1"), line("y", "a,b")}}, then("two", Allow)},
		Case{Condition{And: []Condition{{Not: ptr(line("z", "1"))}, line("w", "1")}}, then("three", Log)},
	)
	open := both
	open.Rules = &Rules{Ordered: &Ordered{Cases: both.Rules.Ordered.Cases, Otherwise: ptr(then("rest", Allow))}}
	for _, c := range []struct {
		name    string
		filter  NetworkFilter
		request request
		allowed bool
		rule    string
		logged  bool
	}{
		{"the first", both, request{"x": "1", "y": "a,b"}, false, "one", false},
		{"the second, of two values", both, request{"y": "a;b"}, true, "two", false},
		{"one of two values", both, request{"y": "a,b;c"}, false, DefaultDeny, false},
		{"a log lets pass", both, request{"w": "1"}, true, "three", true},
		{"an inverted one", both, request{"w": "1", "z": "1"}, false, DefaultDeny, false},
		{"none holds", both, request{}, false, DefaultDeny, false},
		{"none holds, and something is said of it", open, request{}, true, "rest", false},
	} {
		d := compile(t, Exchange, c.filter).CheckRequest(peerOf(web), c.request)
		if d.Allowed != c.allowed || d.Rule != c.rule || d.Logged != c.logged {
			t.Errorf("%s: %+v", c.name, d)
		}
		shadow := c.filter
		shadow.Rules, shadow.Shadow = nil, c.filter.Rules
		told := compile(t, Exchange, shadow).CheckRequest(peerOf(web), c.request)
		if !told.Allowed || told.ShadowDenied == c.allowed || told.ShadowRule != c.rule {
			t.Errorf("%s, as shadow rules: %+v", c.name, told)
		}
	}
}

// TestOrderedPeers: what is known of a connection, for filters of both levels.
func TestOrderedPeers(t *testing.T) {
	foreign := func(certs ...*x509.Certificate) *Peer {
		p := peerOf("")
		p.Info.TLS, p.Info.Peer = true, (*peercert.Chain)(nil).WithNames(certs)
		return p
	}
	nobody := peerOf("")
	nobody.Info.TLS = true
	for _, c := range []struct {
		name string
		when Condition
		peer *Peer
		want bool
	}{
		{"the mesh's peer", Condition{URISAN: true, Value: is(web)}, peerOf(web), true},
		{"another", Condition{URISAN: true, Value: is(web)}, peerOf(batch), false},
		{"nobody", Condition{URISAN: true, Value: is("")}, nobody, false},
		{"not nobody", Condition{Not: &Condition{URISAN: true, Value: is("")}}, nobody, true},
		{"a foreign peer of whom nothing is vouched for", Condition{URISAN: true, Value: is("")}, foreign(), false},
		{"server name", Condition{SNI: true, Value: is("api.example")}, peerOf(web), true},
		{"no server name", Condition{SNI: true, Value: is("")}, func() *Peer { p := peerOf(web); p.Info.SNI = ""; return p }(), false},
		{"source", Condition{Source: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("10.0.0.0/24")}}, peerOf(web), true},
		{"another source", Condition{Source: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, peerOf(web), false},
		{"direct source", Condition{DirectSource: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/32")}}, peerOf(web), true},
	} {
		for _, level := range []Level{Connection, Exchange} {
			e := compile(t, level, inOrder(nil, Case{c.when, then("a", Allow)}))
			d := e.CheckRequest(c.peer, request{})
			if level == Connection {
				d = e.CheckConn(c.peer)
			}
			if d.Allowed != c.want {
				t.Errorf("%s, level %d: %+v", c.name, level, d)
			}
		}
	}
}

// TestOrderedWithoutTLS: where there is no TLS, it is not known of URIs whether they match. The
// case that asks for them is the last one, and none allows.
func TestOrderedWithoutTLS(t *testing.T) {
	uri := Condition{URISAN: true, Value: is(web)}
	x, none := line("x", "1"), line("x", "2")
	not := func(c Condition) Condition { return Condition{Not: &c} }
	and := func(c ...Condition) Condition { return Condition{And: c} }
	or := func(c ...Condition) Condition { return Condition{Or: c} }
	const fails, holds, unknown = "otherwise", "case", DefaultDeny
	for _, c := range []struct {
		when Condition
		want string
	}{
		{uri, unknown},
		{not(uri), unknown},
		{not(not(uri)), unknown},
		{and(uri, x), unknown},
		{and(x, uri), unknown},
		{and(uri, none), unknown},
		{and(none, uri), fails},
		{and(x, x), holds},
		{or(uri, x), holds},
		{or(x, uri), holds},
		{or(uri, none), unknown},
		{or(none, uri), unknown},
		{or(none, none), fails},
		{not(and(none, uri)), holds},
		{not(or(uri, x)), fails},
		{not(x), fails},
	} {
		f := inOrder(ptr(then("otherwise", Allow)), Case{c.when, then("case", Allow)})
		f.Shadow = f.Rules
		e := compile(t, Exchange, f)
		d := e.CheckRequest(peerOf(""), request{"x": "1"})
		if d.Rule != c.want || d.Allowed == (c.want == unknown) || d.ShadowRule != c.want || d.ShadowDenied == d.Allowed {
			t.Errorf("%+v: %+v", c.when, d)
		}
		if rule, denied := e.DeniesAll(0, peerOf(""), true); denied && (d.Allowed || rule != DefaultDeny) {
			t.Errorf("%+v: said to deny all: %s", c.when, rule)
		}
	}
	e := compile(t, Exchange, inOrder(ptr(then("otherwise", Allow)), Case{not(uri), then("case", Allow)}))
	if rule, denied := e.DeniesAll(0, peerOf(""), true); !denied || rule != DefaultDeny {
		t.Errorf("a connection whose requests are all denied is not said to be one: %q", rule)
	}
}

// TestOrderedRefuses: what could never hold, or has no name to be told by.
func TestOrderedRefuses(t *testing.T) {
	one := func(when Condition) NetworkFilter { return inOrder(nil, Case{when, then("a", Allow)}) }
	for want, f := range map[string]NetworkFilter{
		"exactly one field must be set, 0 are":               one(Condition{}),
		"exactly one field must be set, 2 are":               one(Condition{Header: "x", SNI: true, Value: is("")}),
		".value_match: is missing":                           one(Condition{SNI: true}),
		"must be lower case":                                 one(line("X", "1")),
		".and_matcher: must not be empty":                    one(Condition{And: []Condition{}}),
		".custom_match: has no prefix":                       one(Condition{Source: []netip.Prefix{}}),
		".custom_match: not a valid prefix":                  one(Condition{Source: []netip.Prefix{{}}}),
		"a name and a known action are needed":               inOrder(&Outcome{Action: Deny}),
		"policies and an order of cases exclude one another": {Rules: &Rules{Action: Deny, Ordered: &Ordered{}}},
	} {
		if _, err := Compile([]NetworkFilter{f}, Exchange, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := Compile([]NetworkFilter{one(line("x", "1"))}, Connection, nil); err == nil || !strings.Contains(err.Error(), "a network filter sees no requests") {
		t.Error(err)
	}
}

// TestOrderedDeniesAll: who is said to be denied whatever he asks is denied whatever he asks.
func TestOrderedDeniesAll(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var when func(depth int) Condition
	when = func(depth int) Condition {
		switch n := r.IntN(7); {
		case n == 0 && depth < 3:
			return Condition{And: []Condition{when(depth + 1), when(depth + 1)}}
		case n == 1 && depth < 3:
			return Condition{Or: []Condition{when(depth + 1), when(depth + 1)}}
		case n == 2 && depth < 3:
			return Condition{Not: ptr(when(depth + 1))}
		case n == 3:
			return Condition{URISAN: true, Value: is([]string{web, batch}[r.IntN(2)])}
		case n == 4:
			return Condition{Source: []netip.Prefix{netip.MustParsePrefix([]string{"10.0.0.2/32", "203.0.113.0/24"}[r.IntN(2)])}}
		}
		return line([]string{"x", "y"}[r.IntN(2)], []string{"0", "1"}[r.IntN(2)])
	}
	denied := 0
	for range 3000 {
		var cases []Case
		for range r.IntN(4) {
			cases = append(cases, Case{when(0), then([]string{"a", "b"}[r.IntN(2)], Action(r.IntN(3)))})
		}
		who := []string{web, ""}[r.IntN(2)]
		e := compile(t, Exchange, inOrder(ptr(then("o", Action(r.IntN(2)))), cases...))
		if _, all := e.DeniesAll(0, peerOf(who), true); !all {
			continue
		}
		denied++
		for _, from := range []string{"10.0.0.2", "203.0.113.1"} {
			p := peerOf(who)
			p.Remote = netip.MustParseAddr(from)
			for _, req := range []request{{}, {"x": "0"}, {"x": "1"}, {"y": "0"}, {"y": "1"}, {"x": "0", "y": "1"}, {"x": "1", "y": "1"}} {
				if d := e.CheckRequest(p, req); d.Allowed {
					t.Fatalf("%v of %s passes %+v: %+v", req, from, cases, d)
				}
			}
		}
	}
	if denied < 100 {
		t.Errorf("only %d filters deny all", denied)
	}
}

// TestAmongPrefixes: an address is found in many prefixes that contain each other, with few looks.
func TestAmongPrefixes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	addr := func() netip.Addr {
		if r.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{10, byte(r.IntN(3)), byte(r.IntN(256)), byte(r.IntN(256))})
		}
		return netip.AddrFrom16([16]byte{0x20, 1, 2: byte(r.IntN(3)), 15: byte(r.IntN(256))})
	}
	for range 200 {
		var prefixes []netip.Prefix
		for range 1 + r.IntN(50) {
			a := addr()
			prefixes = append(prefixes, netip.PrefixFrom(a, a.BitLen()-r.IntN(14)))
		}
		given := slices.Clone(prefixes)
		m, err := (&compiler{}).condition(&Condition{Source: prefixes}, 0)
		if err != nil || len(m.sub) > 0 || !slices.Equal(prefixes, given) {
			t.Fatalf("%+v %v", m, err)
		}
		for range 200 {
			p := peerOf(web)
			p.Remote = addr()
			want := slices.ContainsFunc(prefixes, func(x netip.Prefix) bool { return x.Contains(p.Remote) })
			if p.Remote.Is4() && r.IntN(2) == 0 {
				p.Remote = netip.AddrFrom16(p.Remote.As16()) // as sockets have it
			}
			if got := m.match(&input{peer: p}); got != want {
				t.Fatalf("%v among %v: %v", p.Remote, prefixes, got)
			}
		}
	}
}

// TestOrderedIsFree: a decision allocates nothing where no field is there twice.
func TestOrderedIsFree(t *testing.T) {
	e := compile(t, Exchange, inOrder(nil, Case{Condition{And: []Condition{line("x", "1"), {URISAN: true, Value: is(web)}}}, then("a", Allow)}))
	p, req := peerOf(web), Request(request{"x": "1"})
	if n := testing.AllocsPerRun(100, func() { e.CheckRequest(p, req) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
