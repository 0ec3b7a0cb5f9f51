package hcm

import (
	"strings"
	"testing"
)

func TestPathRules(t *testing.T) {
	all := pathRules{normalize: true, merge: true}
	for _, tc := range []struct {
		rules    pathRules
		in, want string // want "" keeps, "!" rejects, ">" and a path redirects
	}{
		{all, "/", ""}, {all, "/a/b?c=../d", ""}, {all, "*", ""},
		{all, "/a/./b", "/a/b"}, {all, "/a/../b", "/b"}, {all, "/a/b/..", "/a/"}, {all, "/a/.", "/a/"}, {all, "/..", "/"}, {all, "/../../x", "/x"},
		{all, "//a///b", "/a/b"}, {all, "/a//../b", "/a/b"}, {all, "/.a/..b/c.", ""}, {all, "/...", ""},
		{all, "/x/..;/a", "/a"}, {all, "/.;/a", "/a"}, {all, "/x/..;a=b;c/a", "/a"}, {all, "/x/.;./a", "/x/a"}, {all, "/x/..;", "/"}, {all, "/x/.;?..;", "/x/?..;"},
		{all, "/x/%2e%2E;/a", "/a"}, {all, "/x\\..;\\a", "/a"}, {all, "/x/...;/;/b;../c;/a", ""}, {all, "/x/..%3b/a", "/x/..%3B/a"}, {pathRules{}, "/x/..;/a", ""},
		{all, "/%41%62", "/Ab"}, {all, "/%7euser", "/~user"}, {all, "/%2e%2E/x", "/x"}, {all, "/%c3%a9", "/%C3%A9"}, {all, "/%20", ""},
		{all, "/a\\..\\b", "/b"}, {all, "/a%2fb", "/a%2Fb"}, {all, "/a?%zz", ""},
		{all, "/%", ""}, {all, "/%4", ""}, {all, "/%4g", ""}, {all, "/%%zz%", ""}, {all, "/%/%41", "/%/A"}, {all, "/%00", "!"},
		// What is decoded makes no escape of what was none.
		{all, "/%%32%65", "!"}, {all, "/%%32e", "!"}, {all, "/%2%65", "!"}, {all, "/%%7e", "/%~"}, {all, "/%2%25", ""}, {all, "/%20%41", "/%20A"},
		{all, "/a{b}|c^d`e", "/a%7Bb%7D%7Cc%5Ed%60e"}, {all, "/\"<a>?\"<{>", "/%22%3Ca%3E?\"<{>"}, {all, "/é\xff", "/%C3%A9%FF"}, {all, "/[a]!$&'()*+,;=:@_~-", ""},
		{pathRules{merge: true}, "//{é", "/{é"}, {pathRules{slashes: RejectEscaped}, "/{é", ""},
		{pathRules{}, "/a/../b//c/%41%zz", ""},
		{pathRules{merge: true}, "/a//b", "/a/b"}, {pathRules{merge: true}, "/a/../b", ""},
		{pathRules{normalize: true}, "/a//b", ""},
		{pathRules{slashes: RejectEscaped}, "/a%2Fb", "!"}, {pathRules{slashes: RejectEscaped}, "/a%5cb", "!"}, {pathRules{slashes: RejectEscaped}, "/a?b=%2F", ""},
		{pathRules{slashes: UnescapeAndForward}, "/a%2Fb", "/a/b"}, {pathRules{slashes: UnescapeAndForward, normalize: true}, "/a%2F..%2fb", "/b"},
		{pathRules{slashes: UnescapeAndForward, normalize: true}, "/a%5c..%5Cb?q", "/b?q"},
		{pathRules{slashes: UnescapeAndRedirect}, "/a%2Fb?q", ">/a/b?q"},
	} {
		out, verdict := tc.rules.apply(nil, tc.in)
		got := string(out)
		switch verdict {
		case pathKept:
			got = ""
		case pathRejected:
			got = "!"
		case pathRedirect:
			got = ">" + got
		}
		if got != tc.want {
			t.Errorf("%+v %q: got %q, want %q", tc.rules, tc.in, got, tc.want)
		}
	}
}

// FuzzPath: what was normalised is normal, and holds nothing that an origin could
// read as another path.
func FuzzPath(f *testing.F) {
	for _, p := range []string{"/a/../b", "/%2e%2e/x", "//", "/a\\..\\b", "/%41?x", "/..%2f", "/a/..;b/c", "/%%32%65", "/a%zz{é}\"?{"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, path string) {
		// Other bytes do not pass the parser.
		if !strings.HasPrefix(path, "/") || strings.ContainsFunc(path, func(r rune) bool { return r <= 0x20 || r == 0x7f || r == '#' }) {
			return
		}
		rules := pathRules{normalize: true, merge: true, slashes: RejectEscaped}
		out, verdict := rules.apply(nil, path)
		if verdict == pathRejected {
			return
		}
		got := string(out)
		if verdict == pathKept {
			got = path
		}
		if again, v := rules.apply(nil, got); v != pathKept {
			t.Fatalf("%q became %q, and that %q", path, got, again)
		}
		p, _, _ := strings.Cut(got, "?")
		for _, seg := range strings.Split(p, "/") {
			if seg, _, _ = strings.Cut(seg, ";"); seg == "." || seg == ".." {
				t.Fatalf("%q became %q", path, got)
			}
		}
		if !strings.HasPrefix(p, "/") || strings.Contains(p, "//") || strings.ContainsAny(p, "\\\"<>^`{|}") || strings.ContainsFunc(p, func(r rune) bool { return r >= 0x80 }) {
			t.Fatalf("%q became %q", path, got)
		}
	})
}

// TestPathRedirects: the place that a client is sent to is on the host that it asked, also
// for browsers, which take a backslash for a slash. gRPC follows no redirect.
func TestPathRedirects(t *testing.T) {
	b := newBed(t, "127.0.0.1:1")
	b.cfg.EscapedSlashes = UnescapeAndRedirect
	b.start()
	c := b.dial()
	for path, want := range map[string]string{
		"/a%2Fb?c": "/a/b?c", "/%2Fevil.example/x": "/evil.example/x", "//%5c%2F/evil.example//x?//": "/evil.example//x?//", "/%5C": "/", "/a//%2F": "/a///",
	} {
		resp, _ := c.do("GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n")
		if got := resp.Header.Get("Location"); resp.StatusCode != 307 || got != want {
			t.Errorf("%s: %d to %q, want %q", path, resp.StatusCode, got, want)
		}
	}
	resp, _ := c.do("POST /a%2Fb HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n")
	if resp.StatusCode != 200 || resp.Header.Get("Grpc-Status") != "13" || resp.Header.Get("Location") != "" {
		t.Errorf("gRPC: %d %v", resp.StatusCode, resp.Header)
	}
}
