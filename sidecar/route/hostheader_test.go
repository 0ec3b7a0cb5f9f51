package route

import (
	"slices"
	"testing"
)

// TestHostHeader: a virtual host is found by the first value of the header in place of the
// authority; without the header by nothing, unless there is but the one for all names.
func TestHostHeader(t *testing.T) {
	named := func(domain string) VirtualHost { return VirtualHost{Name: domain, Domains: []string{domain}} }
	several := []VirtualHost{named("a"), named("*.b"), named("*")}
	for _, c := range []struct {
		hosts  []VirtualHost
		values []string
		want   string
	}{
		{several, []string{"A:80"}, "a"},
		{several, []string{"x.b"}, "*.b"},
		{several, []string{"a", "x.b"}, "a"},
		{several, []string{"other"}, "*"},
		{several, []string{""}, "*"},
		{several, nil, ""},
		{several[2:], nil, "*"},
	} {
		table := compile(t, &Config{HostHeader: "x-site", IgnorePort: true, VirtualHosts: slices.Clone(c.hosts)})
		req := request("GET", "a", "/")
		for _, v := range c.values {
			req.Fields.Add("X-Site", v)
		}
		got := ""
		if h := table.Select(req, nil, 0).VirtualHost; h != nil {
			got = h.Name
		}
		if got != c.want {
			t.Errorf("%q: %q, want %q", c.values, got, c.want)
		}
	}
}

// TestRedirectPath: operators make the whole path. One that makes nothing leaves it.
func TestRedirectPath(t *testing.T) {
	for _, c := range []struct {
		rewrite, version, want string
		strip                  bool
	}{
		{"/new/%REQ(x-version)%", "v2", "http://h/new/v2?q", false},
		{"new", "", "http://h/new?q", false},
		{"/new?%REQ(x-version)%", "v2", "http://h/new?v2", true},
		{"/new", "", "http://h/new", true},
	} {
		table := compile(t, &Config{VirtualHosts: []VirtualHost{{Domains: []string{"*"}, Routes: []Route{
			{Match: Match{Prefix: ptr("/")}, Redirect: &Redirect{PathRewrite: c.rewrite, StripQuery: c.strip}},
		}}}})
		req := request("GET", "h", "/a?q")
		req.Fields.Add("x-version", c.version)
		var scratch []byte
		s := table.Select(req, nil, 0)
		got, rewritten := s.Route.Location(req, "http", s.RedirectPath(factsOf(req), &scratch))
		if got != c.want || rewritten != "" {
			t.Errorf("%q: %q, %q", c.rewrite, got, rewritten)
		}
	}
	if err := Check(&Config{VirtualHosts: []VirtualHost{{Domains: []string{"*"}, Routes: []Route{
		{Match: Match{Prefix: ptr("/")}, Redirect: &Redirect{PathRewrite: "%NOPE%"}},
	}}}}); err == nil {
		t.Error("an operator that does not exist was taken")
	}
}
