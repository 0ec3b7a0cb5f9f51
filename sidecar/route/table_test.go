package route

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

func ptr[T any](v T) *T { return &v }

func request(method, authority, path string, headers ...string) *message.Request {
	r := &message.Request{Method: method, Scheme: "http", Authority: authority, Path: path}
	for i := 0; i < len(headers); i += 2 {
		r.Fields.Add(headers[i], headers[i+1])
	}
	return r
}

func to(cluster string, m Match) Route {
	return Route{Name: cluster, Match: m, Forward: &Forward{Cluster: cluster}}
}

func compile(t testing.TB, c *Config) *Table {
	t.Helper()
	table, err := Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestDomains(t *testing.T) {
	var hosts []VirtualHost
	for _, d := range []string{"*", "api.example.com", "*.example.com", "*-bar.foo.com", "*.foo.com", "www.*", "www.example.*", "api.example.com:8443", "db.*:8443", "*x*"} {
		hosts = append(hosts, VirtualHost{Name: d, Domains: []string{d}, Routes: []Route{to(d, Match{Prefix: ptr("/")})}})
	}
	table := compile(t, &Config{Name: "r", VirtualHosts: hosts})
	for authority, want := range map[string]string{
		"api.example.com":                     "api.example.com",
		"API.Example.Com":                     "api.example.com",
		"api.example.com:8443":                "api.example.com:8443",
		"api.example.com:80":                  "*", // Envoy too compares the port
		"x.example.com":                       "*.example.com",
		".example.com":                        "*", // a wildcard stands for at least one byte
		"baz-bar.foo.com":                     "*-bar.foo.com",
		"-bar.foo.com":                        "*.foo.com",
		"www.example.org":                     "www.example.*",
		"www.other.org":                       "www.*",
		"www.":                                "*",
		"db.example:8443":                     "*", // an asterisk within is one
		"db.*:8443":                           "db.*:8443",
		"axb":                                 "*",
		"ax*":                                 "*x*",
		"":                                    "*",
		"elsewhere":                           "*",
		strings.Repeat("A", 300) + ".foo.com": "*.foo.com",
	} {
		if got := table.Select(request("GET", authority, "/"), nil, 0).Cluster; got != want {
			t.Errorf("%q goes to %q, want %q", authority, got, want)
		}
	}
}

func TestNoHostNoRoute(t *testing.T) {
	table := compile(t, &Config{Name: "r", VirtualHosts: []VirtualHost{{
		Name: "a", Domains: []string{"a"}, Routes: []Route{to("a", Match{Path: ptr("/a")})},
	}}})
	if s := table.Select(request("GET", "b", "/a"), nil, 0); s.Route != nil || s.VirtualHost != nil {
		t.Errorf("selected %+v for an unknown host", s)
	}
	if s := table.Select(request("GET", "a", "/b"), nil, 0); s.Route != nil || s.VirtualHost == nil {
		t.Errorf("selected %+v for an unknown path", s)
	}
}

func TestMatch(t *testing.T) {
	exact := func(s string) *StringMatch { return &StringMatch{Exact: &s} }
	re := func(s string) *StringMatch {
		r, err := Regex(s)
		if err != nil {
			t.Fatal(err)
		}
		return &StringMatch{Regex: r}
	}
	path, err := Regex("/a.*b|/x")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		m    Match
		req  *message.Request
		want bool
	}{
		{"prefix", Match{Prefix: ptr("/api")}, request("GET", "h", "/apix"), true},
		{"prefix with query", Match{Prefix: ptr("/api")}, request("GET", "h", "/ap?i"), false},
		{"prefix, other case", Match{Prefix: ptr("/api")}, request("GET", "h", "/API"), false},
		{"prefix, any case", Match{Prefix: ptr("/api"), CaseInsensitive: true}, request("GET", "h", "/API/x"), true},
		{"path", Match{Path: ptr("/a")}, request("GET", "h", "/a?b=c"), true},
		{"path, fragment", Match{Path: ptr("/a")}, request("GET", "h", "/a#f?x"), true},
		{"path longer", Match{Path: ptr("/a")}, request("GET", "h", "/ab"), false},
		{"separated prefix itself", Match{PathSeparatedPrefix: ptr("/a")}, request("GET", "h", "/a?x"), true},
		{"separated prefix below", Match{PathSeparatedPrefix: ptr("/a")}, request("GET", "h", "/a/b"), true},
		{"separated prefix beside", Match{PathSeparatedPrefix: ptr("/a")}, request("GET", "h", "/ab"), false},
		{"regex whole", Match{Regex: path}, request("GET", "h", "/a/b?q"), true},
		{"regex second alternative is anchored too", Match{Regex: path}, request("GET", "h", "/xy"), false},
		{"regex not part", Match{Regex: path}, request("GET", "h", "/a/bc"), false},
		{"asterisk form", Match{Prefix: ptr("/")}, request("OPTIONS", "h", "*"), false},
		{"connect has no path", Match{Regex: path}, request("CONNECT", "h", ""), false},
		{"method", Match{Prefix: ptr("/"), Headers: []HeaderMatch{{Name: ":method", Value: exact("POST")}}}, request("POST", "h", "/"), true},
		{"other method", Match{Prefix: ptr("/"), Headers: []HeaderMatch{{Name: ":method", Value: exact("POST")}}}, request("GET", "h", "/"), false},
		{"header", Match{Prefix: ptr("/"), Headers: []HeaderMatch{{Name: "x-v", Value: re("[0-9]+")}}}, request("GET", "h", "/", "X-V", "12"), true},
		{"header regex is whole", Match{Prefix: ptr("/"), Headers: []HeaderMatch{{Name: "x-v", Value: re("[0-9]+")}}}, request("GET", "h", "/", "X-V", "12a"), false},
		{"all headers", Match{Prefix: ptr("/"), Headers: []HeaderMatch{{Name: "a", Present: ptr(true)}, {Name: "b", Present: ptr(true)}}}, request("GET", "h", "/", "a", "1"), false},
		{"values are not joined", Match{Prefix: ptr("/"), Headers: []HeaderMatch{{Name: "x-v", Value: exact("1,2")}}}, request("GET", "h", "/", "x-v", "1", "x-v", "2"), false},
		{"missing", Match{Prefix: ptr("/"), Headers: []HeaderMatch{{Name: "x-v", Value: exact("")}}}, request("GET", "h", "/"), false},
		{"missing, inverted", Match{Prefix: ptr("/"), Headers: []HeaderMatch{{Name: "x-v", Value: exact("1"), Invert: true}}}, request("GET", "h", "/"), false},
		{"missing as empty, inverted", Match{Prefix: ptr("/"), Headers: []HeaderMatch{{Name: "x-v", Value: exact("1"), Invert: true, MissingAsEmpty: true}}}, request("GET", "h", "/"), true},
		{"absent asked", Match{Prefix: ptr("/"), Headers: []HeaderMatch{{Name: "x-v", Present: ptr(false)}}}, request("GET", "h", "/"), true},
		{"present inverted", Match{Prefix: ptr("/"), Headers: []HeaderMatch{{Name: "x-v", Present: ptr(true), Invert: true}}}, request("GET", "h", "/", "x-v", "1"), false},
		{"range", Match{Prefix: ptr("/"), Headers: []HeaderMatch{{Name: "x-v", Range: &[2]int64{-10, 0}}}}, request("GET", "h", "/", "x-v", "-1"), true},
		{"range end", Match{Prefix: ptr("/"), Headers: []HeaderMatch{{Name: "x-v", Range: &[2]int64{-10, 0}}}}, request("GET", "h", "/", "x-v", "0"), false},
		{"range, no number", Match{Prefix: ptr("/"), Headers: []HeaderMatch{{Name: "x-v", Range: &[2]int64{-10, 10}}}}, request("GET", "h", "/", "x-v", "somenumber"), false},
		{"query", Match{Prefix: ptr("/"), Query: []QueryMatch{{Name: "v", Value: exact("2")}}}, request("GET", "h", "/?u=1&v=2"), true},
		{"query first wins", Match{Prefix: ptr("/"), Query: []QueryMatch{{Name: "v", Value: exact("2")}}}, request("GET", "h", "/?v=1&v=2"), false},
		{"query name is whole", Match{Prefix: ptr("/"), Query: []QueryMatch{{Name: "v", Present: ptr(true)}}}, request("GET", "h", "/?vv=1"), false},
		{"query present without value", Match{Prefix: ptr("/"), Query: []QueryMatch{{Name: "v", Present: ptr(true)}}}, request("GET", "h", "/?v"), true},
		{"empty prefix", Match{Prefix: ptr("")}, request("GET", "h", "/x"), true},
		{"empty prefix, no path", Match{Prefix: ptr("")}, request("CONNECT", "h", ""), false},
		{"connect", Match{Connect: true}, request("CONNECT", "h:1", ""), true},
		{"connect, other method", Match{Connect: true}, request("GET", "h", "/"), false},
		{"template", Match{Template: template(t, "/a/{x}/b")}, request("GET", "h", "/a/1/b?q"), true},
		{"template, more", Match{Template: template(t, "/a/{x}/b")}, request("GET", "h", "/a/1/2/b"), false},
		{"grpc", Match{Prefix: ptr("/"), GRPC: true}, request("POST", "h", "/", "content-type", "application/grpc+proto"), true},
		{"grpc-web", Match{Prefix: ptr("/"), GRPC: true}, request("POST", "h", "/", "content-type", "application/grpc-web"), false},
		{"no content type", Match{Prefix: ptr("/"), GRPC: true}, request("POST", "h", "/"), false},
		{"cookie", Match{Prefix: ptr("/"), Cookies: []CookieMatch{{Name: "b", Value: exact("2")}}}, request("GET", "h", "/", "cookie", "a=1; b=2"), true},
		{"cookie, quoted, second field", Match{Prefix: ptr("/"), Cookies: []CookieMatch{{Name: "b", Value: exact("2")}}}, request("GET", "h", "/", "cookie", "a=1", "cookie", `b="2"`), true},
		{"cookie, first wins", Match{Prefix: ptr("/"), Cookies: []CookieMatch{{Name: "b", Value: exact("2")}}}, request("GET", "h", "/", "cookie", "b=1; b=2"), false},
		{"cookie, name is whole", Match{Prefix: ptr("/"), Cookies: []CookieMatch{{Name: "b", Value: exact("2")}}}, request("GET", "h", "/", "cookie", "bb=2"), false},
		{"cookie missing", Match{Prefix: ptr("/"), Cookies: []CookieMatch{{Name: "b", Value: exact("")}}}, request("GET", "h", "/"), false},
		{"cookie missing, inverted", Match{Prefix: ptr("/"), Cookies: []CookieMatch{{Name: "b", Value: exact("2"), Invert: true}}}, request("GET", "h", "/"), true},
		{"certificate wanted, none known", Match{Prefix: ptr("/"), TLS: &TLSMatch{Presented: ptr(true)}}, request("GET", "h", "/"), false},
		{"no certificate wanted, none known", Match{Prefix: ptr("/"), TLS: &TLSMatch{Validated: ptr(false)}}, request("GET", "h", "/"), true},
		{"nobody", Match{Prefix: ptr("/"), Share: ptr(Share(0))}, request("GET", "h", "/"), false},
		{"everybody", Match{Prefix: ptr("/"), Share: ptr(All)}, request("GET", "h", "/"), true},
		{"query absent asked", Match{Prefix: ptr("/"), Query: []QueryMatch{{Name: "v", Present: ptr(false)}}}, request("GET", "h", "/?v"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := compile(t, &Config{VirtualHosts: []VirtualHost{{Domains: []string{"*"}, Routes: []Route{to("c", c.m)}}}})
			if got := table.Select(c.req, nil, 0).Route != nil; got != c.want {
				t.Errorf("matched %v, want %v", got, c.want)
			}
		})
	}
}

func TestStringMatch(t *testing.T) {
	for _, c := range []struct {
		m    StringMatch
		s    string
		want bool
	}{
		{StringMatch{}, "", false},
		{StringMatch{Exact: ptr("Ab")}, "ab", false},
		{StringMatch{Exact: ptr("Ab"), IgnoreCase: true}, "aB", true},
		{StringMatch{Exact: ptr("k"), IgnoreCase: true}, "\u212a", false},
		{StringMatch{Prefix: ptr("ab")}, "abc", true},
		{StringMatch{Prefix: ptr("ab")}, "a", false},
		{StringMatch{Suffix: ptr("bc")}, "abc", true},
		{StringMatch{Suffix: ptr("BC"), IgnoreCase: true}, "abc", true},
		{StringMatch{Suffix: ptr("abc")}, "bc", false},
		{StringMatch{Contains: ptr("b")}, "abc", true},
		{StringMatch{Contains: ptr("BC"), IgnoreCase: true}, "abcd", true},
		{StringMatch{Contains: ptr("bd")}, "abcd", false},
	} {
		if got := c.m.Match(c.s); got != c.want {
			t.Errorf("%+v on %q: %v", c.m, c.s, got)
		}
	}
}

// A pattern that this package did not anchor must still match whole values.
var foreign = []*regexp.Regexp{
	regexp.MustCompile(`spiffe://td/web`), regexp.MustCompile(`^spiffe://td/web`), regexp.MustCompile(`spiffe://td/(x|web)`),
}

// TestUpgradesFoldAsRules: what a rule does not take for a protocol is none that a route allows.
func TestUpgradesFoldAsRules(t *testing.T) {
	list, rule := []Upgrade{{Type: "WebSocket"}}, StringMatch{Exact: ptr("websocket"), IgnoreCase: true}
	for kind, want := range map[string]bool{"WEBSOCKET": true, "webSoc\u212aet": false, "web\u017focket": false, "websocke": false} {
		if _, said := Allows(list, kind); said != want || rule.Match(kind) != want {
			t.Errorf("%q: allowed %v, matched %v, want %v", kind, said, rule.Match(kind), want)
		}
	}
}

func TestForeignRegexIsAnchored(t *testing.T) {
	for _, re := range foreign {
		m := StringMatch{Regex: re}
		if m.Match("spiffe://td/web/evil") || !m.Match("spiffe://td/web") {
			t.Errorf("%s is not anchored", re)
		}
	}
	if _, err := Regex("a)|(b"); err == nil {
		t.Error("an unbalanced group compiled")
	}
}

func TestRegexSeesBytes(t *testing.T) {
	for _, c := range []struct {
		pattern, value string
		want           bool
	}{
		{"(?i)k+", "\u212a", false}, {"(?i)k+", "K", true}, // U+212A is the Kelvin sign
		{"a.c", "a\u00e9c", false}, {"a..c", "a\u00e9c", true}, {"a.c", "a\xe9c", true}, {"a\\xe9c", "a\xe9c", true},
		{"a\u00e9c", "a\u00e9c", true}, {"a\u00e9c", "a\xe9c", false}, {"[\u00e9]{2}", "\u00e9", true},
		{"[^a-z]", "\u00e9", false}, {".*", "\xff\xfe", true}, {`\pL+`, "\u00e9", false},
		{`\Qa.b`, "a.b", true}, {`\Qa.b`, "axb", false}, {`\Qa.b`, "a.b)", false}, {`\Qa.\E.|\Qb|`, "b|", true}, {"\\Q\u00e9", "\u00e9", true},
		// Without regard to case, of ASCII alone.
		{"(?i)k\\xe9", "K\xe9", true}, {"(?i)k\\xe9", "K\xc9", false}, {"(?i)\\351|\\x{e9}", "\xc9", false}, {"(?i)\xe9", "\xc9", false},
		{"(?i)[k\\xe0-\\xff]+", "Kk\xe9", true}, {"(?i)[k\\xe0-\\xff]+", "\xc9", false}, {"(?i)[^k\\xe9]", "\xc9", true}, {"(?i)[^k\\xe9]", "K", false},
		{`(?i)\p{Lu}+`, "kK\xc9", true}, {`(?i)\p{Lu}`, "\xe9", false}, {`(?i)\P{Lu}`, "\xe9", true}, {`(?i)\P{Lu}`, "\xc9", false}, {`(?i)\p{^Lu}`, "k", false},
		{`(?i)[\P{Lu}-]+`, "1-\xe9", true}, {`(?i)[\P{Lu}]`, "k", false}, {`(?i)[\P{Lu}]`, "K", false}, {`(?i)[\P{Lu}]`, "\xc9", false},
		{`[\P{Lu}]`, "k", true}, {`(?:(?i)a)[\P{Lu}]`, "Ak", true}, {`(?i:a(x))[\P{Lu}]`, "AXk", true}, {`(?i)(?P<n>a)(?-i)[\P{Lu}]`, "Ak", true}, {`(?i)(a)[\P{Lu}]`, "Ak", false},
		{`\pL\PL`, "\xc3\x80", true}, {`[\pN-]+`, "1-\xb2", true}, {`[\pL-z]+`, "\xe9-z", true}, {`[\p{Greek}]`, "a", false}, {`\p{Greek}|b`, "b", true}, {`[\P{Any}b]`, "b", true},
		{`[]\xe9]+`, "]\xe9", true}, {`[^]\xe9]`, "]", false}, {`[[:^alpha:]\pL]+`, "1a\xe9", true}, {`[[:]+\xe9`, "[:\xe9", true}, {`[\x7f-\xff]+`, "\x7f\x80\xff", true}, {`\\xe9`, `\xe9`, true},
		{`\Q\xe9\E\xe9`, "\\xe9\xe9", true}, {`[(?i]k`, "(k", true}, {`\(?i\)k`, "i)K", false},
	} {
		re, err := Regex(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := (&StringMatch{Regex: re}).Match(c.value); got != c.want {
			t.Errorf("%s matches %q: %v", c.pattern, c.value, got)
		}
	}
	for _, bad := range []string{`\x{212a}`, `a|b\x{17f}+`, `[\x{100}]`, `[a-\x{100}]`, `\400`, `[a-\pL]`, `\p{Elvish}`, `\8`} {
		if _, err := Regex(bad); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	if _, err := NewSubstitution(`\x{100}`, ""); err == nil {
		t.Error("a substitution of what no byte is was taken")
	}
	re, value := foreign[0], "a text with \u00e9"
	FullMatch(re, value)
	if n := testing.AllocsPerRun(100, func() { FullMatch(re, value) }); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}

func TestSplit(t *testing.T) {
	legs := []WeightedCluster{{Cluster: "a", Weight: 90}, {Cluster: "none"}, {Cluster: "b", Weight: 10}}
	table := compile(t, &Config{VirtualHosts: []VirtualHost{{Domains: []string{"*"}, Routes: []Route{{
		Match: Match{Prefix: ptr("/")}, Forward: &Forward{Weighted: legs},
	}}}}})
	got := map[string]int{}
	rnd := rand.New(rand.NewPCG(1, 2))
	req := request("GET", "h", "/")
	const n = 100_000
	for range n {
		s := table.Select(req, nil, rnd.Uint64())
		if s.Leg == nil || s.Leg.Cluster != s.Cluster {
			t.Fatalf("selected %+v", s)
		}
		got[s.Cluster]++
	}
	// Five standard deviations of a binomial distribution.
	if d := got["b"] - n/10; d < -475 || d > 475 || got["none"] != 0 {
		t.Errorf("split %v", got)
	}
	for _, edge := range []uint64{0, 1<<32 - 1, 1<<64 - 1} {
		if table.Select(req, nil, edge).Cluster == "" {
			t.Errorf("random %d chose no leg", edge)
		}
	}
}

func TestShare(t *testing.T) {
	table := compile(t, &Config{VirtualHosts: []VirtualHost{{Domains: []string{"*"}, Routes: []Route{
		to("some", Match{Prefix: ptr("/"), Share: ptr(Share(250_000))}), to("rest", Match{Prefix: ptr("/")}),
	}}}})
	rnd := rand.New(rand.NewPCG(3, 4))
	some := 0
	for range 100_000 {
		if table.Select(request("GET", "h", "/"), nil, rnd.Uint64()).Cluster == "some" {
			some++
		}
	}
	if some < 24_300 || some > 25_700 {
		t.Errorf("%d of 100000, want a quarter", some)
	}
}

func TestRetryInheritance(t *testing.T) {
	own, host := &RetryPolicy{NumRetries: 1}, &RetryPolicy{NumRetries: 2}
	table := compile(t, &Config{VirtualHosts: []VirtualHost{{Domains: []string{"*"}, Retry: host, Routes: []Route{
		{Match: Match{Path: ptr("/own")}, Forward: &Forward{Cluster: "a", Retry: own}},
		to("a", Match{Prefix: ptr("/")}),
	}}}})
	if table.Select(request("GET", "h", "/own"), nil, 0).Retry != own || table.Select(request("GET", "h", "/"), nil, 0).Retry != host {
		t.Error("wrong retry policy")
	}
}

func TestCompileRefuses(t *testing.T) {
	ok := []Route{to("c", Match{Prefix: ptr("/")})}
	for want, c := range map[string]*Config{
		"has no domains":          {VirtualHosts: []VirtualHost{{Name: "x", Routes: ok}}},
		"more than one place":     {VirtualHosts: []VirtualHost{{Domains: []string{"a"}, Routes: ok}, {Domains: []string{"A"}, Routes: ok}}},
		`domain "*" is in more`:   {VirtualHosts: []VirtualHost{{Domains: []string{"*", "*"}, Routes: ok}}},
		"a domain is empty":       {VirtualHosts: []VirtualHost{{Domains: []string{""}, Routes: ok}}},
		"exactly one of prefix":   {VirtualHosts: []VirtualHost{{Domains: []string{"*"}, Routes: []Route{to("c", Match{})}}}},
		"exactly one of route":    {VirtualHosts: []VirtualHost{{Domains: []string{"*"}, Routes: []Route{{Match: Match{Prefix: ptr("/")}}}}}},
		"exactly one of cluster":  {VirtualHosts: []VirtualHost{{Domains: []string{"*"}, Routes: []Route{{Match: Match{Prefix: ptr("/")}, Forward: &Forward{}}}}}},
		"weights of a split must": {VirtualHosts: []VirtualHost{{Domains: []string{"*"}, Routes: []Route{{Match: Match{Prefix: ptr("/")}, Forward: &Forward{Weighted: []WeightedCluster{{Cluster: "a"}}}}}}}},
		"header X-A":              {Headers: &HeaderMutations{RequestAdd: []HeaderAdd{{Name: "X-A", Value: "%NOSUCH%"}}}},
		"path_rewrite":            {VirtualHosts: []VirtualHost{{Domains: []string{"*"}, Routes: []Route{{Match: Match{Prefix: ptr("/")}, Forward: &Forward{Cluster: "a", Rewrite: &Rewrite{Path: "%NOSUCH%"}}}}}}},
	} {
		if _, err := Compile(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// The index must select what a scan would, whatever the table looks like.
func TestIndexAgreesWithScan(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	segment := func() string { return string(rune('a' + rnd.IntN(3))) }
	path := func() string {
		p := ""
		for range rnd.IntN(4) {
			p += "/" + segment()
		}
		return p + "/"[:rnd.IntN(2)]
	}
	for range 300 {
		var routes []Route
		for i := range indexFrom + rnd.IntN(40) {
			p, m := path(), Match{}
			switch rnd.IntN(5) {
			case 0:
				m.Path = &p
			case 1:
				m.Prefix = &p
			case 2:
				m.PathSeparatedPrefix = &p
			case 3:
				m.Prefix, m.CaseInsensitive = &p, true
			case 4:
				m.Regex, _ = Regex(p + "[ab]?")
			}
			if rnd.IntN(3) == 0 {
				m.Headers = []HeaderMatch{{Name: "x-a", Present: ptr(true)}}
			}
			routes = append(routes, to(fmt.Sprint(i), m))
		}
		indexed := compile(t, &Config{VirtualHosts: []VirtualHost{{Domains: []string{"*"}, Routes: routes}}})
		scanned := compile(t, &Config{VirtualHosts: []VirtualHost{{Domains: []string{"*"}, Routes: routes}}})
		if indexed.any.index == nil {
			t.Fatal("no index")
		}
		scanned.any.index = nil
		for range 50 {
			req := request("GET", "h", path())
			if rnd.IntN(2) == 0 {
				req.Fields.Add("x-a", "1")
			}
			if a, b := indexed.Select(req, nil, 0).Cluster, scanned.Select(req, nil, 0).Cluster; a != b {
				t.Fatalf("%q: index selects %q, scan %q", req.Path, a, b)
			}
		}
	}
}

func TestDeepNestingIsScanned(t *testing.T) {
	var routes []Route
	for i := range maxNested + 2 {
		routes = append(routes, to(fmt.Sprint(i), Match{Prefix: ptr(strings.Repeat("/a", i))}))
	}
	table := compile(t, &Config{VirtualHosts: []VirtualHost{{Domains: []string{"*"}, Routes: routes}}})
	if got := table.Select(request("GET", "h", strings.Repeat("/a", 40)), nil, 0).Cluster; got != "0" {
		t.Errorf("selected %q", got)
	}
}

func typical(n int) *Config {
	var routes []Route
	for i := range n - 1 {
		m := Match{Prefix: ptr(fmt.Sprintf("/service-%d/", i))}
		if i%4 == 1 {
			m.Headers = []HeaderMatch{{Name: "x-canary", Value: &StringMatch{Exact: ptr("true")}}}
		}
		routes = append(routes, to("c", m))
	}
	routes = append(routes, to("last", Match{Prefix: ptr("/")}))
	return &Config{VirtualHosts: []VirtualHost{{Domains: []string{"*"}, Routes: routes}}}
}

func TestSelectDoesNotAllocate(t *testing.T) {
	for _, n := range []int{1, 8, 1000} {
		table := compile(t, typical(n))
		req := request("GET", "API.example.com", "/service-5/x?y=1", "x-canary", "true")
		if a := testing.AllocsPerRun(100, func() { table.Select(req, nil, 7) }); a != 0 {
			t.Errorf("%d routes: %v allocations", n, a)
		}
	}
}

func BenchmarkSelect(b *testing.B) {
	for _, n := range []int{1, 8, 20, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			table := compile(b, typical(n))
			req := request("GET", "api.example.com", fmt.Sprintf("/service-%d/items?page=1", n*2/3), "x-canary", "false", "accept", "*/*")
			b.ReportAllocs()
			for b.Loop() {
				table.Select(req, nil, 7)
			}
		})
	}
}
