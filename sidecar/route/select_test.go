package route

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/internal/peercert"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

func template(t testing.TB, text string) *Template {
	t.Helper()
	out, err := NewTemplate(text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func single(t testing.TB, r Route) *Table {
	t.Helper()
	return compile(t, &Config{VirtualHosts: []VirtualHost{{Domains: []string{"*"}, Routes: []Route{r}}}})
}

// facts is an exchange of which nothing but the request is known.
type facts struct{ rec *telemetry.Record }

func factsOf(req *message.Request) facts {
	r := telemetry.NewRecord()
	r.RequestHeaders = req
	return facts{r}
}

func (f facts) Record() *telemetry.Record { return f.rec }

func TestClientCertificate(t *testing.T) {
	for _, c := range []struct {
		name string
		m    TLSMatch
		info stream.Info
		want bool
	}{
		{"presented", TLSMatch{Presented: ptr(true)}, stream.Info{PeerCertHash: "ab"}, true},
		{"presented is not validated", TLSMatch{Validated: ptr(true)}, stream.Info{PeerCertHash: "ab"}, false},
		{"validated", TLSMatch{Presented: ptr(true), Validated: ptr(true)}, stream.Info{PeerCertHash: "ab", PeerID: "spiffe://a/b"}, true},
		{"validated by other names", TLSMatch{Validated: ptr(true)}, stream.Info{PeerCertHash: "ab", Peer: peercert.Of(nil).WithNames(nil)}, true},
		{"nothing to validate", TLSMatch{Validated: ptr(true)}, stream.Info{Peer: peercert.Of(nil).WithNames(nil)}, false},
		{"not to be validated", TLSMatch{Validated: ptr(false)}, stream.Info{PeerCertHash: "ab", PeerID: "spiffe://a/b"}, false},
		{"none", TLSMatch{Presented: ptr(true)}, stream.Info{}, false},
	} {
		table := single(t, to("c", Match{Prefix: ptr("/"), TLS: &c.m}))
		if got := table.Select(request("GET", "h", "/"), &Client{Info: &c.info}, 0).Route != nil; got != c.want {
			t.Errorf("%s: matched %v", c.name, got)
		}
	}
}

func TestDomainsWithoutPort(t *testing.T) {
	table := compile(t, &Config{IgnorePort: true, VirtualHosts: []VirtualHost{
		{Domains: []string{"api"}, Routes: []Route{to("api", Match{Prefix: ptr("/")})}},
		{Domains: []string{"[::1]"}, Routes: []Route{to("six", Match{Prefix: ptr("/")})}},
	}})
	for authority, want := range map[string]string{"api:8080": "api", "API:1": "api", "api": "api", "[::1]:80": "six", "[::1]": "six", "apix:1": ""} {
		if got := table.Select(request("GET", authority, "/"), nil, 0).Cluster; got != want {
			t.Errorf("%q goes to %q, want %q", authority, got, want)
		}
	}
}

func TestPathParameters(t *testing.T) {
	routes := []VirtualHost{{Domains: []string{"*"}, Routes: []Route{to("c", Match{Path: ptr("/a")})}}}
	req := request("GET", "h", "/a;v=1?q")
	if compile(t, &Config{IgnorePathParameters: true, VirtualHosts: routes}).Select(req, nil, 0).Route == nil {
		t.Error("parameters were not ignored")
	}
	if compile(t, &Config{VirtualHosts: routes}).Select(req, nil, 0).Route != nil {
		t.Error("parameters were ignored")
	}
}

func TestRequireTLS(t *testing.T) {
	for _, c := range []struct {
		require         TLSRequirement
		proto, internal string
		want            bool
	}{
		{TLSOptional, "http", "", false},
		{TLSForAll, "http", "", true},
		{TLSForAll, "", "", true},
		{TLSForAll, "https", "", false},
		{TLSForAll, "http", "true", true},
		{TLSForExternal, "http", "true", false},
		{TLSForExternal, "http", "", true},
		{TLSForExternal, "https", "", false},
	} {
		req := request("GET", "h", "/")
		if c.proto != "" {
			req.Fields.Add("x-forwarded-proto", c.proto)
		}
		if c.internal != "" {
			req.Fields.Add("x-envoy-internal", c.internal)
		}
		table := compile(t, &Config{VirtualHosts: []VirtualHost{{Domains: []string{"*"}, RequireTLS: c.require, Routes: []Route{to("c", Match{Prefix: ptr("/")})}}}})
		if s := table.Select(req, nil, 0); s.HTTPS != c.want || (s.Route == nil) != c.want {
			t.Errorf("%+v: %v", c, s.HTTPS)
		}
	}
}

func TestClusterHeader(t *testing.T) {
	table := single(t, Route{Match: Match{Prefix: ptr("/")}, Forward: &Forward{ClusterHeader: "x-to"}})
	if got := table.Select(request("GET", "h", "/", "X-To", "a", "x-to", "b"), nil, 0).Cluster; got != "a" {
		t.Errorf("selected %q: only the first value counts", got)
	}
	if s := table.Select(request("GET", "h", "/"), nil, 0); s.Cluster != "" || s.Route == nil {
		t.Errorf("without the header: %q", s.Cluster)
	}
	legs := single(t, Route{Match: Match{Prefix: ptr("/")}, Forward: &Forward{Weighted: []WeightedCluster{{ClusterHeader: "x-to", Weight: 1}}}})
	if s := legs.Select(request("GET", "h", "/", "x-to", "a"), nil, 0); s.Cluster != "a" || s.Leg == nil {
		t.Errorf("the leg leads to %q", s.Cluster)
	}
}

func TestGivenWeight(t *testing.T) {
	legs := []WeightedCluster{{Cluster: "a", Weight: 10}, {Cluster: "b", Weight: 90}}
	table := single(t, Route{Match: Match{Prefix: ptr("/")}, Forward: &Forward{Weighted: legs, WeightHeader: "x-n"}})
	for n, want := range map[string]string{"0": "a", "9": "a", "10": "b", "99": "b", "100": "a", "18446744073709551615": "b"} {
		// The random number alone would choose the other leg.
		random := uint64(0)
		if want == "a" {
			random = 1<<32 - 1
		}
		if got := table.Select(request("GET", "h", "/", "x-n", n), nil, random).Cluster; got != want {
			t.Errorf("%s chooses %q, want %q", n, got, want)
		}
	}
	for _, req := range []*message.Request{
		request("GET", "h", "/"), request("GET", "h", "/", "x-n", "-1"), request("GET", "h", "/", "x-n", "50", "x-n", "50"),
	} {
		if got := table.Select(req, nil, 0).Cluster; got != "a" {
			t.Errorf("an invalid number chooses %q", got)
		}
	}
	hashed := single(t, Route{Match: Match{Prefix: ptr("/")}, Forward: &Forward{
		Weighted: legs, WeightByHash: true, Hash: []HashPolicy{{Header: "x-user"}},
	}})
	seen := map[string]bool{}
	for _, user := range strings.Fields("a b c d e f g h i j k l m n o p q r s t") {
		req := request("GET", "h", "/", "x-user", user)
		first := hashed.Select(req, nil, 0).Cluster
		if second := hashed.Select(req, nil, 1<<32-1).Cluster; second != first {
			t.Errorf("user %s goes to %s and to %s", user, first, second)
		}
		seen[first] = true
	}
	if !seen["b"] {
		t.Error("nobody goes to the greater leg")
	}
}

func TestMutationLevels(t *testing.T) {
	set := func(v string) *HeaderMutations {
		return &HeaderMutations{
			RequestAdd:  []HeaderAdd{{Name: "X-Level", Value: v, Action: OverwriteIfExistsOrAdd}, {Name: "X-All", Value: v}},
			ResponseAdd: []HeaderAdd{{Name: "X-Level", Value: v, Action: OverwriteIfExistsOrAdd}},
		}
	}
	cfg := func(mostSpecific bool) *Config {
		return &Config{Headers: set("config"), MostSpecificHeadersWin: mostSpecific, VirtualHosts: []VirtualHost{{
			Domains: []string{"*"}, Headers: set("host"), Routes: []Route{{
				Match: Match{Prefix: ptr("/")}, Headers: set("route"),
				Forward: &Forward{Weighted: []WeightedCluster{{Cluster: "c", Weight: 1, Headers: set("leg")}}},
			}},
		}}}
	}
	for _, c := range []struct {
		mostSpecific bool
		level, all   string
	}{{false, "config", "leg,route,host,config"}, {true, "route", "leg,config,host,route"}} {
		req, resp := request("GET", "h", "/", "x-level", "client"), &message.Response{}
		s := compile(t, cfg(c.mostSpecific)).Select(req, nil, 0)
		var scratch []byte
		s.MutateRequest(req, factsOf(req), &scratch)
		s.MutateResponse(&resp.Fields, factsOf(req), &scratch)
		if v, _ := req.Header("x-level"); v != c.level {
			t.Errorf("x-level is %q, want %q", v, c.level)
		}
		if v, _ := req.Header("x-all"); v != c.all {
			t.Errorf("x-all is %q, want %q", v, c.all)
		}
		if v, _ := resp.Header("x-level"); v != c.level {
			t.Errorf("in the response x-level is %q, want %q", v, c.level)
		}
	}
}

func TestMirrorsAreInherited(t *testing.T) {
	cfg := &Config{Mirrors: []Mirror{{Cluster: "all", Share: All}}, VirtualHosts: []VirtualHost{
		{Domains: []string{"a"}, Mirrors: []Mirror{{Cluster: "host", Share: All}}, Routes: []Route{
			{Match: Match{Path: ptr("/own")}, Forward: &Forward{Cluster: "c", Mirrors: []Mirror{{Cluster: "own", Share: All}, {ClusterHeader: "x-m", Share: 500_000}}}},
			to("c", Match{Prefix: ptr("/")}),
		}},
		{Domains: []string{"b"}, Routes: []Route{to("c", Match{Prefix: ptr("/")})}},
	}}
	table := compile(t, cfg)
	names := func(authority, path string, random uint32) string {
		req := request("GET", authority, path, "x-m", "named")
		s := table.Select(req, nil, 0)
		var out []string
		for _, m := range s.Mirrors(nil, nil, func() uint32 { return random }) {
			out = append(out, m.Cluster(req))
		}
		return strings.Join(out, " ")
	}
	for _, c := range []struct {
		authority, path string
		random          uint32
		want            string
	}{
		{"a", "/own", 0, "own named"}, {"a", "/own", 1<<32 - 1, "own"}, {"a", "/", 0, "host"}, {"b", "/", 0, "all"},
	} {
		if got := names(c.authority, c.path, c.random); got != c.want {
			t.Errorf("%s%s: mirrored to %q, want %q", c.authority, c.path, got, c.want)
		}
	}
}

func TestMirroredRequest(t *testing.T) {
	for _, c := range []struct {
		m    Mirror
		host string
		want string
	}{
		{Mirror{}, "api:80", "api-shadow:80"},
		{Mirror{}, "api", "api-shadow"},
		{Mirror{KeepHost: true}, "api", "api"},
		{Mirror{HostRewrite: "other"}, "api", "other"},
	} {
		c.m.Cluster, c.m.Share = "m", All
		c.m.Mutations = []HeaderMutation{{Remove: "x-gone"}, {Add: &HeaderAdd{Name: "x-new", Value: "1"}}}
		req := request("GET", c.host, "/", "x-gone", "1")
		s := single(t, Route{Match: Match{Prefix: ptr("/")}, Forward: &Forward{Cluster: "c", Mirrors: []Mirror{c.m}}}).Select(req, nil, 0)
		var scratch []byte
		s.Mirrors(nil, nil, nil)[0].Change(req, factsOf(req), &scratch)
		_, gone := req.Header("x-gone")
		added, _ := req.Header("x-new")
		if req.Authority != c.want || gone || added != "1" {
			t.Errorf("%+v: authority %q, x-gone %v, x-new %q", c.m, req.Authority, gone, added)
		}
	}
}

func TestBufferLimit(t *testing.T) {
	table := compile(t, &Config{VirtualHosts: []VirtualHost{{Domains: []string{"*"}, BufferLimit: ptr(uint64(9)), Routes: []Route{
		{Match: Match{Path: ptr("/own")}, Forward: &Forward{Cluster: "c"}, BufferLimit: ptr(uint64(3))}, to("c", Match{Prefix: ptr("/")}),
	}}}})
	own, host := table.Select(request("GET", "h", "/own"), nil, 0), table.Select(request("GET", "h", "/"), nil, 0)
	if n, ok := own.BufferLimit(); n != 3 || !ok {
		t.Errorf("the route's limit is %d", n)
	}
	if n, ok := host.BufferLimit(); n != 9 || !ok {
		t.Errorf("the virtual host's limit is %d", n)
	}
}

func TestNothingAllocates(t *testing.T) {
	table := compile(t, &Config{VirtualHosts: []VirtualHost{{
		Domains: []string{"*"}, Headers: &HeaderMutations{RequestAdd: []HeaderAdd{{Name: "X-A", Value: "b"}}, RequestRemove: []string{"x-b"}},
		Routes: []Route{{
			Match: Match{Prefix: ptr("/"), Cookies: []CookieMatch{{Name: "s", Value: &StringMatch{Exact: ptr("1")}}}, GRPC: true, TLS: &TLSMatch{}},
			Forward: &Forward{
				Weighted: []WeightedCluster{{Cluster: "a", Weight: 1}}, WeightByHash: true, Rewrite: &Rewrite{Prefix: "/v2/"},
				Hash: []HashPolicy{{Header: "x-u"}, {Query: "q"}, {Cookie: &CookieHash{Name: "s"}}, {SourceIP: true}},
			},
		}},
	}}})
	client := &Client{Addr: netip.MustParseAddr("10.0.0.1")}
	req := request("POST", "h", "/x?q=1", "content-type", "application/grpc", "cookie", "a=b; s=1", "x-u", "2", "x-u", "1")
	var f Facts = factsOf(req)
	scratch, path := make([]byte, 0, 64), make([]byte, 0, 64)
	var changed message.Request
	if n := testing.AllocsPerRun(100, func() {
		s := table.Select(req, client, 7)
		_, _, _ = Hash64(s.Route.Forward.Hash, req, client, nil)
		changed.Fields.Reset()
		s.MutateRequest(&changed, f, &scratch)
		path, _ = s.AppendPath(path[:0], req, f, &scratch)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestOverridesWithoutRoute: what a virtual host says to filters is of no request that none
// of its routes matches.
func TestOverridesWithoutRoute(t *testing.T) {
	table := compile(t, &Config{VirtualHosts: []VirtualHost{{
		Domains: []string{"*"}, Filters: []FilterOverride{{Name: "f", Disabled: true}},
		Routes: []Route{{Match: Match{Prefix: ptr("/a")}, Forward: &Forward{Cluster: "c"}}},
	}}})
	for path, want := range map[string]bool{"/a": true, "/b": false} {
		s := table.Select(request("GET", "h", path), nil, 0)
		if _, any := s.Overrides(); any != want {
			t.Errorf("%s: %t, want %t", path, any, want)
		}
	}
}

// TestTemplateSeesParameters: a template compares the parameters of a path where other
// matches ignore them.
func TestTemplateSeesParameters(t *testing.T) {
	template, err := NewTemplate("/a/*")
	if err != nil {
		t.Fatal(err)
	}
	table := compile(t, &Config{IgnorePathParameters: true, VirtualHosts: []VirtualHost{{Domains: []string{"*"}, Routes: []Route{
		{Match: Match{Template: template}, Forward: &Forward{Cluster: "c"}},
	}}}})
	for path, want := range map[string]bool{"/a/b": true, "/a/b;x=1": true, "/a;x=1/b": false} {
		if s := table.Select(request("GET", "h", path), nil, 0); (s.Route != nil) != want {
			t.Errorf("%s: %t, want %t", path, !want, want)
		}
	}
}
