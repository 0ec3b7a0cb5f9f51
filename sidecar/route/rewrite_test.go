package route

import (
	"cmp"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

func substitution(t testing.TB, pattern, template string) *Substitution {
	t.Helper()
	out, err := NewSubstitution(pattern, template)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPathRewrites(t *testing.T) {
	re, _ := Regex("/a/.*")
	tmpl := template(t, "/users/{id}/{rest=**}")
	rewrite, err := NewTemplateRewrite("/v2/{rest}/of/{id}", tmpl)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		m        Match
		f        Forward
		in, want string
	}{
		{"prefix", Match{Prefix: ptr("/api/")}, Forward{Rewrite: &Rewrite{Prefix: "/"}}, "/api/v1?x=1", "/v1?x=1"},
		{"none", Match{Prefix: ptr("/api")}, Forward{}, "/api/v1", ""},
		{"path", Match{Path: ptr("/a")}, Forward{Rewrite: &Rewrite{Prefix: "/b"}}, "/a?x", "/b?x"},
		{"separated", Match{PathSeparatedPrefix: ptr("/a")}, Forward{Rewrite: &Rewrite{Prefix: "/b"}}, "/a/c", "/b/c"},
		{"regex match", Match{Regex: re}, Forward{Rewrite: &Rewrite{Prefix: "/b"}}, "/a/c?x", "/b?x"},
		{"any case", Match{Prefix: ptr("/API/"), CaseInsensitive: true}, Forward{Rewrite: &Rewrite{Prefix: "/"}}, "/api/x", "/x"},
		{"a slash is put in front", Match{Prefix: ptr("/")}, Forward{Rewrite: &Rewrite{Prefix: "x/"}}, "/a", "/x/a"},
		{"regex", Match{Prefix: ptr("/")}, Forward{Rewrite: &Rewrite{Regex: substitution(t, "^/service/([^/]+)(/.*)$", `\2/instance/\1`)}}, "/service/foo/v1/api?q", "/v1/api/instance/foo?q"},
		{"regex, every match", Match{Prefix: ptr("/")}, Forward{Rewrite: &Rewrite{Regex: substitution(t, "one", "two")}}, "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"},
		{"regex, first match", Match{Prefix: ptr("/")}, Forward{Rewrite: &Rewrite{Regex: substitution(t, "^(.*?)one(.*)$", `\1two\2`)}}, "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/one/zzz"},
		{"regex, nothing is left", Match{Prefix: ptr("/")}, Forward{Rewrite: &Rewrite{Regex: substitution(t, ".*", "")}}, "/a?q", ""},
		{"template", Match{Template: tmpl}, Forward{Rewrite: &Rewrite{Template: rewrite}}, "/users/7/a/b?q", "/v2/a/b/of/7?q"},
		{"format", Match{Prefix: ptr("/")}, Forward{Rewrite: &Rewrite{Path: "/new/%REQ(x-v)%"}}, "/old?q", "/new/1?q"},
		{"format, empty", Match{Prefix: ptr("/")}, Forward{Rewrite: &Rewrite{Path: "%REQ(x-none)%"}}, "/old?q", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.f.Cluster = "c"
			req := request("GET", "h", c.in, "x-v", "1")
			s := single(t, Route{Match: c.m, Forward: &c.f}).Select(req, nil, 0)
			var scratch []byte
			got, changed := s.AppendPath(nil, req, factsOf(req), &scratch)
			if changed != (c.want != "") {
				t.Errorf("changed is %v", changed)
			}
			if c.want == "" {
				c.want = c.in
			}
			if string(got) != c.want {
				t.Errorf("%q becomes %q, want %q", c.in, got, c.want)
			}
		})
	}
}

// What is taken off a path for the match is still in the path that is rewritten.
func TestRewritesBehindPathParameters(t *testing.T) {
	re, _ := Regex("/re/[a-z]+")
	for _, c := range []struct {
		m        Match
		in, want string // "" where the path stays as it is
	}{
		{Match{Prefix: ptr("/bar/baz")}, "/bar;x/baz;y/c;z", ""},
		{Match{Prefix: ptr("/bar/baz")}, "/bar/baz;y/c;z?q", "/new;y/c;z?q"},
		{Match{Prefix: ptr("/BAR/"), CaseInsensitive: true}, "/bar/b;z", "/newb;z"},
		{Match{Path: ptr("/exact")}, "/exact;a=1?q", "/new;a=1?q"},
		{Match{PathSeparatedPrefix: ptr("/seg")}, "/seg;a/b", "/new;a/b"},
		{Match{Regex: re}, "/re/a;b", "/new"},
	} {
		for _, r := range []Route{
			{Match: c.m, Forward: &Forward{Cluster: "c", Rewrite: &Rewrite{Prefix: "/new"}}}, {Match: c.m, Redirect: &Redirect{PrefixRewrite: "/new"}},
		} {
			table := compile(t, &Config{IgnorePathParameters: true, VirtualHosts: []VirtualHost{{Domains: []string{"*"}, Routes: []Route{r}}}})
			req, want := request("GET", "h", c.in), c.want
			s := table.Select(req, nil, 0)
			if s.Route == nil {
				t.Fatalf("%s does not match", c.in)
			}
			var got string
			var changed bool
			if r.Redirect != nil {
				location, rewritten := s.Route.Location(req, "http", "")
				got, changed = strings.TrimPrefix(location, "http://h"), rewritten != ""
			} else {
				var b, scratch []byte
				b, changed = s.AppendPath(nil, req, factsOf(req), &scratch)
				got = string(b)
			}
			if want == "" {
				want = c.in
			}
			if got != want || changed != (c.want != "") {
				t.Errorf("%s becomes %s (changed: %v), want %s", c.in, got, changed, want)
			}
		}
	}
}

func TestHostRewrites(t *testing.T) {
	for _, c := range []struct {
		name string
		f    Forward
		leg  string
		want string
	}{
		{"literal", Forward{Rewrite: &Rewrite{Host: "a:1"}}, "", "a:1"},
		{"none", Forward{}, "", ""},
		{"header", Forward{Rewrite: &Rewrite{HostHeader: "x-h"}}, "", "first"},
		{"header missing", Forward{Rewrite: &Rewrite{HostHeader: "x-none"}}, "", ""},
		{"regex", Forward{Rewrite: &Rewrite{HostRegex: substitution(t, "^/(.+)/.+$", `\1`)}}, "", "envoyproxy.io"},
		{"format", Forward{Rewrite: &Rewrite{HostFormat: "p-%REQ(x-v)%"}}, "", "p-1"},
		{"leg", Forward{}, "leg", ""},
		{"the route's comes later", Forward{Rewrite: &Rewrite{Host: "route"}}, "leg", "route"},
	} {
		req := request("GET", "h", "/envoyproxy.io/some?x=/a/b", "x-v", "1", "x-h", "first", "x-h", "second")
		if c.leg == "" {
			c.f.Cluster = "c"
		} else {
			c.f.Weighted = []WeightedCluster{{Cluster: "c", Weight: 1, HostRewrite: c.leg}}
		}
		s := single(t, Route{Match: Match{Prefix: ptr("/")}, Forward: &c.f}).Select(req, nil, 0)
		var scratch []byte
		s.MutateRequest(req, factsOf(req), &scratch)
		if want := cmp.Or(c.leg, "h"); req.Authority != want {
			t.Errorf("%s: the host is %q before the route's rewrite, want %q", c.name, req.Authority, want)
		}
		got, changed := s.AppendHost(nil, req, factsOf(req), &scratch)
		if string(got) != c.want || changed != (c.want != "") {
			t.Errorf("%s: %q, %v; want %q", c.name, got, changed, c.want)
		}
	}
}

func TestLastForwardedHost(t *testing.T) {
	var f message.Fields
	if LastForwardedHost(&f, "") {
		t.Error("a header that is missing has no last element")
	}
	f.Add("x-forwarded-host", "a, b")
	if !LastForwardedHost(&f, "b") || LastForwardedHost(&f, "a") {
		t.Error("the last element is b")
	}
}

func TestLocation(t *testing.T) {
	for _, c := range []struct {
		name            string
		m               Match
		d               Redirect
		authority, path string
		want            string
	}{
		{"https", Match{}, Redirect{Scheme: "https"}, "h", "/a?q", "https://h/a?q"},
		{"https takes the default port off", Match{}, Redirect{Scheme: "https"}, "h:80", "/", "https://h/"},
		{"and no other", Match{}, Redirect{Scheme: "https"}, "h:8080", "/", "https://h:8080/"},
		{"same scheme", Match{}, Redirect{Path: "/b"}, "h:80", "/", "http://h:80/b"},
		{"host", Match{}, Redirect{Host: "other"}, "h:80", "/a", "http://other/a"},
		{"port", Match{}, Redirect{Port: 8443}, "h:80", "/a", "http://h:8443/a"},
		{"port, IPv6", Match{}, Redirect{Port: 8443}, "[::1]:80", "/a", "http://[::1]:8443/a"},
		{"IPv6 without port", Match{}, Redirect{Port: 8443}, "[::1]", "/a", "http://[::1]:8443/a"},
		{"path keeps the query", Match{}, Redirect{Path: "/b"}, "h", "/a?q=1", "http://h/b?q=1"},
		{"path with its own query", Match{}, Redirect{Path: "/b?own", StripQuery: true}, "h", "/a?q=1", "http://h/b?own"},
		{"path without a slash", Match{}, Redirect{Path: "b"}, "h", "/a", "http://h/b"},
		{"strip", Match{}, Redirect{StripQuery: true, Host: "o"}, "h", "/a?q=1", "http://o/a"},
		{"prefix", Match{Prefix: ptr("/a/")}, Redirect{PrefixRewrite: "/b/"}, "h", "/a/c?q", "http://h/b/c?q"},
		{"regex", Match{}, Redirect{RegexRewrite: substitution(t, "^/(.)(.*)", `/\2\1`)}, "h", "/abc?q", "http://h/bca?q"},
		{"regex, nothing is left", Match{}, Redirect{RegexRewrite: substitution(t, ".*", "")}, "h", "/abc?q", "http://h/abc?q"},
	} {
		if c.m.Prefix == nil {
			c.m.Prefix = ptr("/")
		}
		r := Route{Match: c.m, Redirect: &c.d}
		if got, _ := r.Location(request("GET", c.authority, c.path), "http", ""); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestMutations(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []HeaderMutation
		want  string
	}{
		{"append", []HeaderMutation{{Add: &HeaderAdd{Name: "X-A", Value: "2"}}}, "1,2"},
		{"if absent", []HeaderMutation{{Add: &HeaderAdd{Name: "x-a", Value: "2", Action: AddIfAbsent}}}, "1"},
		{"overwrite", []HeaderMutation{{Add: &HeaderAdd{Name: "X-a", Value: "2", Action: OverwriteIfExists}}}, "2"},
		{"overwrite or add", []HeaderMutation{{Remove: "x-a"}, {Add: &HeaderAdd{Name: "x-a", Value: "2", Action: OverwriteIfExistsOrAdd}}}, "2"},
		{"overwrite what is not there", []HeaderMutation{{Remove: "x-a"}, {Add: &HeaderAdd{Name: "x-a", Value: "2", Action: OverwriteIfExists}}}, "-"},
		{"order", []HeaderMutation{{Add: &HeaderAdd{Name: "x-a", Value: "2"}}, {Remove: "x-a"}}, "-"},
		{"empty values are dropped", []HeaderMutation{{Remove: "x-a"}, {Add: &HeaderAdd{Name: "x-a", Value: "%REQ(x-none)%"}}}, "-"},
		{"unless kept", []HeaderMutation{{Remove: "x-a"}, {Add: &HeaderAdd{Name: "x-a", KeepEmpty: true}}}, ""},
		{"operator", []HeaderMutation{{Add: &HeaderAdd{Name: "x-a", Value: "p-%REQ(x-b)%", Action: OverwriteIfExistsOrAdd}}}, "p-b"},
		{"by match", []HeaderMutation{{RemoveIf: &StringMatch{Prefix: ptr("x-")}}}, "-"},
	} {
		req := request("POST", "h", "/", "X-A", "1", "x-b", "b", "Content-Length", "0")
		ms, err := NewMutations(c.steps, message.RequestSingles)
		if err != nil {
			t.Fatal(err)
		}
		var scratch []byte
		ms.Apply(&req.Fields, factsOf(req), &scratch)
		got, ok := req.Header("x-a")
		if !ok {
			got = "-"
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	// What frames the message stays whatever the pattern.
	req := request("POST", "h", "/", "Content-Length", "3", "X-Long-Name-"+string(make([]byte, 80)), "1")
	ms, _ := NewMutations([]HeaderMutation{{RemoveIf: &StringMatch{Prefix: ptr("")}}}, message.RequestSingles)
	ms.Apply(&req.Fields, nil, nil)
	if _, ok := req.Header("content-length"); !ok || req.Fields.Len() != 1 {
		t.Errorf("%d fields are left", req.Fields.Len())
	}
}

// TestMutationsKeepTheirDirection: what a response has once, a request may have more than once.
func TestMutationsKeepTheirDirection(t *testing.T) {
	for _, c := range []struct {
		of           message.IDs
		date, accept int
	}{{message.RequestSingles, 2, 1}, {message.ResponseSingles, 1, 2}, {0, 2, 2}} {
		req := request("GET", "h", "/", "Date", "1", "Accept", "a")
		ms, err := NewMutations([]HeaderMutation{{Add: &HeaderAdd{Name: "date", Value: "2"}}, {Add: &HeaderAdd{Name: "accept", Value: "b"}}}, c.of)
		if err != nil {
			t.Fatal(err)
		}
		ms.Apply(&req.Fields, nil, nil)
		if date, accept := req.Fields.Del("date"), req.Fields.Del("accept"); date != c.date || accept != c.accept {
			t.Errorf("%+v: %d of date, %d of accept", c, date, accept)
		}
	}
}

// The changes of a level see the headers as they were when its removals were done.
func TestChanges(t *testing.T) {
	for _, c := range []struct {
		name   string
		remove []string
		add    []HeaderAdd
		want   string // x-a and x-b
	}{
		{"overwrites come first", nil, []HeaderAdd{{Name: "x-a", Value: "2"}, {Name: "x-a", Value: "3", Action: OverwriteIfExistsOrAdd}}, "3,2 b"},
		{"absent is absent for both", []string{"x-a"}, []HeaderAdd{{Name: "x-a", Value: "2", Action: AddIfAbsent}, {Name: "x-a", Value: "3", Action: AddIfAbsent}}, "2,3 b"},
		{"what is there", nil, []HeaderAdd{{Name: "x-a", Value: "2", Action: AddIfAbsent}, {Name: "x-c", Value: "3", Action: OverwriteIfExists}}, "1 b"},
		{"what is added is not there yet", []string{"x-a"}, []HeaderAdd{{Name: "x-a", Value: "2"}, {Name: "x-a", Value: "3", Action: OverwriteIfExists}}, "2 b"},
		{"values change places", nil, []HeaderAdd{
			{Name: "x-a", Value: "%REQ(x-b)%", Action: OverwriteIfExistsOrAdd}, {Name: "x-b", Value: "%REQ(x-a)%", Action: OverwriteIfExistsOrAdd},
		}, "b 1"},
		{"values of what is left", []string{"x-a"}, []HeaderAdd{{Name: "x-b", Value: "was %REQ(x-a)%"}}, "- b,was"},
		{"white space around a value is none of it", nil, []HeaderAdd{{Name: "x-a", Value: "%REQ(x-none)% \t2 %REQ(x-none)%"}, {Name: "x-b", Value: " 3 4 "}}, "1,2 b,3 4"},
		{"white space alone is a value", nil, []HeaderAdd{{Name: "x-a", Value: " %REQ(x-none)% "}, {Name: "x-b", Value: " "}}, "1, b,"},
		{"empty values are dropped", nil, []HeaderAdd{
			{Name: "x-a", Value: "%REQ(x-none)%", Action: OverwriteIfExistsOrAdd}, {Name: "x-a"}, {Name: "x-b", Value: "%REQ(x-a)%"},
		}, "1 b,1"},
		{"unless kept", nil, []HeaderAdd{
			{Name: "x-a", Value: "%REQ(x-none)%", Action: OverwriteIfExistsOrAdd, KeepEmpty: true}, {Name: "x-b", KeepEmpty: true},
		}, " b,"},
	} {
		req := request("GET", "h", "/", "X-A", "1", "x-b", "b")
		changes, err := NewChanges(c.remove, c.add, message.RequestSingles)
		if err != nil {
			t.Fatal(err)
		}
		var scratch []byte
		changes.Apply(&req.Fields, factsOf(req), &scratch)
		got := make([]string, 0, 2)
		for _, name := range []string{"x-a", "x-b"} {
			v, ok := req.Header(name)
			if !ok {
				v = "-"
			}
			got = append(got, v)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %q, want %q", c.name, s, c.want)
		}
	}
}

// What a level adds to a field that a message has once is a part of its value: in the answer
// Location is one, in the request it is a field like any other.
func TestChangesOfSingles(t *testing.T) {
	for singles, want := range map[message.IDs]int{message.RequestSingles: 2, message.ResponseSingles: 1} {
		req := request("GET", "h", "/", "Location", "a")
		changes, err := NewChanges(nil, []HeaderAdd{{Name: "location", Value: "b"}}, singles)
		if err != nil {
			t.Fatal(err)
		}
		var scratch []byte
		changes.Apply(&req.Fields, factsOf(req), &scratch)
		if v, _ := req.Header("location"); v != "a,b" || req.Fields.Len() != want {
			t.Errorf("%q in %d fields, want %d", v, req.Fields.Len(), want)
		}
	}
}

func TestChangesDoNotAllocate(t *testing.T) {
	req := request("GET", "h", "/", "x-a", "1", "x-b", "b")
	changes, err := NewChanges([]string{"x-c"}, []HeaderAdd{
		{Name: "x-a", Value: "%REQ(x-b)%", Action: OverwriteIfExistsOrAdd}, {Name: "x-b", Value: "2", Action: OverwriteIfExists}, {Name: "x-a", Value: "3", Action: AddIfAbsent},
	}, message.RequestSingles)
	if err != nil {
		t.Fatal(err)
	}
	facts, plain := factsOf(req), message.Fields{}
	plain.CopyFrom(&req.Fields)
	var known Facts = facts
	scratch := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() {
		req.Fields.CopyFrom(&plain)
		changes.Apply(&req.Fields, known, &scratch)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSubstitutionRefuses(t *testing.T) {
	for _, c := range [][2]string{{"(", ""}, {"a", `\`}, {"a", `\x`}, {"a", `\1`}} {
		if _, err := NewSubstitution(c[0], c[1]); err == nil {
			t.Errorf("%q with %q was taken", c[0], c[1])
		}
	}
	for _, c := range []struct{ pattern, template, in, want string }{
		{"(a)|(b)", `[\1\2\\\0]`, "ab", `[a\a][b\b]`}, {"x*", "-", "abc", "-a-b-c-"}, {"^/", "", "//a", "/a"},
		{"[^a/]", "-", "/a\u00e9", "/a--"}, {"\u00e9(.)", "\u00fc\\1", "\u00e9\xff\xc3", "\u00fc\xff\xc3"},
	} {
		if got := string(substitution(t, c.pattern, c.template).Append(nil, c.in)); got != c.want {
			t.Errorf("%q in %q: %q, want %q", c.pattern, c.in, got, c.want)
		}
	}
}

func TestTemplates(t *testing.T) {
	for _, c := range []struct {
		template, path string
		want           bool
	}{
		{"/a/*", "/a/b", true}, {"/a/*", "/a/", false}, {"/a/*", "/a/b/c", false},
		{"/a/**", "/a/b/c", true}, {"/a/**", "/a/", true}, {"/a/**.m3u8", "/a/b/c.m3u8", true}, {"/a/**.m3u8", "/a/b/c.ts", false},
		{"/{x=lit/*}/z", "/lit/y/z", true}, {"/{x=lit/*}/z", "/other/y/z", false},
		{"/a/", "/a/", true}, {"/a/", "/a", false}, {"/a.b", "/axb", false}, {"/a+b", "/a+b", true}, {"/", "/", true},
		{"/*", "/a=b", true}, {"/a/*", "/a/*", true}, {"/a/{b}", "/a/x*y=z", true}, {"/a/**", "/a/b=c/*/=", true}, {"/{b=a/**}", "/a/=", true},
		{"/a/*", "/a/b|c", true}, {"/a/*", "/a/[^`{}\\]", true}, {"/a/**", "/a/b|/c", true}, {"/a/**", "/a/b?c", false},
		{"/a/**", "/a/<", true}, {"/a/**", "/a/\xff", true}, {"/a/*", "/a/\xc3\xa9", true}, {"/a/*", "/a/\"", true},
		{"/a/*", "/a/\x7f", false}, {"/a/*", "/a/ ", false}, {"/a/*/c", "/a/\xc3\xa9/c", true}, {"/a/x", "/a/\xff", false},
		{"/x{a}", "/xy", true}, {"/x{a}", "/x", false}, {"/x{a}", "/x/y", false}, {"/x{a}y", "/xzzy", true}, {"/x{a}y", "/xy", false},
		{"/{a}x/y", "/zx/y", true}, {"/{a}x/y", "/z/y", false}, {"/x{a}/z{b}", "/xy/zw", true}, {"/x{a=**}", "/xy/z", true},
		{"/a=b", "/a=b", true}, {"/{a=b=c}", "/b=c", true}, {"/{a=b=c}", "/b", false}, {"/{a==}", "/=", true},
	} {
		if got := template(t, c.template).Match(c.path); got != c.want {
			t.Errorf("%s matches %s: %v", c.template, c.path, got)
		}
	}
	for _, bad := range []string{
		"", "a", "/{", "/{}", "/{1}", "/{a}/{a}", "/{a}/{b}/{c}/{d}/{e}/{f}", "/**/*", "/**/{x}", "/a*", "/a//b", "/{a=}", "/{a=b/}",
		"/{averyveryverylongname}", "/a\x00", "/{x=a*}", "/*x/y", "/a b", "/a*/b", "/a**", "/*.m*",
		"/{a}{b}", "/{a}.{b}", "/*{a}", "/**/x{a}", "/x{a=y/z}", "/x{", "/x}", "/x{1}", "/x{a}/{a}",
	} {
		if _, err := NewTemplate(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	tmpl := template(t, "/{a}")
	for _, good := range []string{"/", "/x*", "/x=y", "/x{a}", "/{a}{a}/"} {
		if _, err := NewTemplateRewrite(good, tmpl); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "a", "/{b}", "/{a", "//{a}", "/{a}//x", "//", `/x"`} {
		if _, err := NewTemplateRewrite(bad, tmpl); err == nil {
			t.Errorf("rewrite %q was taken", bad)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add("/a/{b=c/**}.x", "/{b}", "/a/c/d.x")
	f.Fuzz(func(t *testing.T, text, rewrite, path string) {
		tmpl, err := NewTemplate(text)
		if err != nil {
			return
		}
		r, err := NewTemplateRewrite(rewrite, tmpl)
		if err != nil {
			return
		}
		if got := r.appendPath(nil, path); len(got) > 0 && got[0] != '/' {
			t.Errorf("%q", got)
		}
	})
}

// TestRewrittenBehindRedirect: what is rewritten of a path is told, with the query that the
// client has to leave off.
func TestRewrittenBehindRedirect(t *testing.T) {
	for _, c := range []struct {
		name, path, want string
		d                Redirect
	}{
		{"prefix", "/a/c?q", "/b/c?q", Redirect{PrefixRewrite: "/b"}},
		{"prefix without query", "/a/c?q", "/b/c?q", Redirect{PrefixRewrite: "/b", StripQuery: true}},
		{"regex", "/a/c?q", "/c?q", Redirect{RegexRewrite: substitution(t, "^/a/(.*)", `/\1`)}},
		{"regex that does not match", "/a/c?q", "/a/c?q", Redirect{RegexRewrite: substitution(t, "^x", "y")}},
		{"whole path", "/a/c?q", "", Redirect{Path: "/b"}},
		{"host", "/a/c?q", "", Redirect{Host: "o"}},
	} {
		r := Route{Match: Match{Prefix: ptr("/a")}, Redirect: &c.d}
		if _, got := r.Location(request("GET", "h", c.path), "http", ""); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestDefaultPortOfForwardedProto: the client's scheme is one whatever its case.
func TestDefaultPortOfForwardedProto(t *testing.T) {
	r := Route{Match: Match{Prefix: ptr("/")}, Redirect: &Redirect{Scheme: "ftp"}}
	if got, _ := r.Location(request("GET", "h:443", "/a"), "HTTPS", ""); got != "ftp://h/a" {
		t.Error(got)
	}
}

// TestConnectHasNoPath: no rewrite gives it one, which would be sent in place of where it goes.
func TestConnectHasNoPath(t *testing.T) {
	for name, w := range map[string]*Rewrite{"prefix": {Prefix: "/x"}, "path": {Path: "/x"}, "regex": {Regex: substitution(t, "a*", "/x")}} {
		table := compile(t, &Config{VirtualHosts: []VirtualHost{{Domains: []string{"*"}, Routes: []Route{
			{Match: Match{Connect: true}, Forward: &Forward{Cluster: "c", Rewrite: w}},
		}}}})
		req := request("CONNECT", "h:443", "")
		s := table.Select(req, nil, 0)
		if s.Route == nil {
			t.Fatal("there is no route")
		}
		var scratch []byte
		if got, changed := s.AppendPath(nil, req, factsOf(req), &scratch); changed || len(got) > 0 {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestConnectMatcher: CONNECT, and the upgrade that stands for a tunnel of UDP (RFC 9298).
func TestConnectMatcher(t *testing.T) {
	table := compile(t, &Config{VirtualHosts: []VirtualHost{{Domains: []string{"*"}, Routes: []Route{{Match: Match{Connect: true}, Forward: &Forward{Cluster: "c"}}}}}})
	for _, c := range []struct {
		method, upgrade string
		want            bool
	}{{"CONNECT", "", true}, {"GET", "connect-udp", true}, {"GET", "CONNECT-UDP", true}, {"GET", "websocket", false}, {"GET", "", false}} {
		req := request(c.method, "h:443", "/")
		req.Upgrade = c.upgrade
		if s := table.Select(req, nil, 0); (s.Route != nil) != c.want {
			t.Errorf("%+v: %v", c, s.Route)
		}
	}
}

// TestWildcardsTakeWhatATargetMayHold: a rule on /admin/** is about every path below, whatever bytes
// are let through.
func TestWildcardsTakeWhatATargetMayHold(t *testing.T) {
	one, all := template(t, "/admin/*"), template(t, "/admin/**")
	for c := range 256 {
		path := "/admin/x" + string([]byte{byte(c)})
		if ok, _ := http1.ValidPath(path); !ok || c == '?' {
			continue
		}
		if !all.Match(path) || c != '/' && !one.Match(path) {
			t.Errorf("%q is below /admin, and does not match", path)
		}
	}
}
