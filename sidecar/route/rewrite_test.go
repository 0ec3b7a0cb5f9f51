package route

import (
	"testing"

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
		{"regex, nothing is left", Match{Prefix: ptr("/")}, Forward{Rewrite: &Rewrite{Regex: substitution(t, ".*", "")}}, "/a?q", "/?q"},
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
		{"leg", Forward{}, "leg", "leg"},
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
	} {
		if c.m.Prefix == nil {
			c.m.Prefix = ptr("/")
		}
		r := Route{Match: c.m, Redirect: &c.d}
		if got := r.Location(request("GET", c.authority, c.path), "http"); got != c.want {
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
		ms, err := NewMutations(c.steps)
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
	ms, _ := NewMutations([]HeaderMutation{{RemoveIf: &StringMatch{Prefix: ptr("")}}})
	ms.Apply(&req.Fields, nil, nil)
	if _, ok := req.Header("content-length"); !ok || req.Fields.Len() != 1 {
		t.Errorf("%d fields are left", req.Fields.Len())
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
		{"/a/**", "/a/<", false}, {"/a/**", "/a/\xff", false},
	} {
		if got := template(t, c.template).re.MatchString(c.path); got != c.want {
			t.Errorf("%s matches %s: %v", c.template, c.path, got)
		}
	}
	for _, bad := range []string{
		"", "a", "/{", "/{}", "/{1}", "/{a}/{a}", "/{a}/{b}/{c}/{d}/{e}/{f}", "/**/*", "/**/{x}", "/a*", "/a//b", "/{a=}", "/{a=b/}",
		"/{averyveryverylongname}", "/a\x00", "/{x=a*}", "/*x/y", "/a b",
	} {
		if _, err := NewTemplate(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	tmpl := template(t, "/{a}")
	for _, bad := range []string{"", "a", "/{b}", "/{a", "/x*"} {
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
		if got, ok := r.appendPath(nil, path); ok && (len(got) == 0 || got[0] != '/') {
			t.Errorf("%q", got)
		}
	})
}
