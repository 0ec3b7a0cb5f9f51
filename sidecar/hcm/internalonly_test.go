package hcm

import (
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

var ownHost = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// TestInternalOnlyHeaders: nobody who is not internal brings them, and what the manager itself says
// under such a name it says to all, but for what it found out before it knew who asks.
func TestInternalOnlyHeaders(t *testing.T) {
	for _, tc := range []struct {
		name      string
		only      []string
		change    func(*Config)
		fields    []string
		want, not []string // lines
	}{
		{name: "in any case", only: []string{"x-secret"}, fields: []string{"X-SECRET: 1", "x-secret: 2", "X-Secret: 3", "X-Secrets: 4"}, want: []string{"x-secrets: 4"}, not: []string{"x-secret"}},
		{name: "with an underscore", only: []string{"x_secret"}, fields: []string{"X_Secret: 1", "X-Secret: 2"}, want: []string{"x-secret: 2"}, not: []string{"x_secret"}},
		{name: "not that with an underscore", only: []string{"x-secret"}, fields: []string{"X_Secret: 1", "X-Secret: 2"}, want: []string{"x_secret: 1"}, not: []string{"x-secret"}},
		{name: "a name that is well known", only: []string{"user-agent", "authorization", "x-forwarded-host"}, fields: []string{"User-Agent: a", "Authorization: b", "X-Forwarded-Host: c"}, not: []string{"user-agent", "authorization", "x-forwarded-host"}},
		{name: "those internal keep them", only: []string{"x-secret"}, change: func(c *Config) { c.UseRemoteAddress, c.Internal = true, ownHost }, fields: []string{"X-Secret: 1"}, want: []string{"x-secret: 1", "x-envoy-internal: true"}},
		{name: "those who name themselves internal keep them", only: []string{"x-secret"}, change: func(c *Config) { c.Internal = ownHost }, fields: []string{"X-Forwarded-For: 127.1.1.1", "X-Secret: 1"}, want: []string{"x-secret: 1"}},
		{name: "at an edge nobody names himself internal", only: []string{"x-secret"}, change: func(c *Config) { c.UseRemoteAddress, c.Internal = true, ownHost }, fields: []string{"X-Forwarded-For: 127.1.1.1", "X-Secret: 1"}, not: []string{"x-secret"}},
		{name: "a claim to be internal", only: []string{"x-secret"}, fields: []string{"X-Envoy-Internal: true", "X-Secret: 1"}, not: []string{"x-secret"}},
		{name: "the request id is given anew", only: []string{"x-request-id"}, change: func(c *Config) { c.GenerateRequestID = true }, fields: []string{"X-Request-Id: mine"}, not: []string{"x-request-id: mine"}},
		{name: "who asks was found out", only: []string{"x-forwarded-for"}, change: func(c *Config) { c.UseRemoteAddress = true }, fields: []string{"X-Forwarded-For: 1.1.1.1"}, want: []string{"x-envoy-external-address: 127.0.0.1"}, not: []string{"x-forwarded-for"}},
		{name: "what is appended follows nothing", only: []string{"via"}, change: func(c *Config) { c.Via = "edge" }, fields: []string{"Via: forged"}, want: []string{"via: edge"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bothInBubbles(t, func(t *testing.T, version int) {
				b := newBed(t, httpOrigin(t, told))
				b.route().Forward.Timeout = 0
				b.cfg.Routes.InternalOnly = tc.only
				if tc.change != nil {
					tc.change(b.cfg)
				}
				b.start()
				_, body := b.ask(version, tc.fields...)
				for _, line := range tc.want {
					if !strings.Contains("\n"+body, "\n"+line+"\n") {
						t.Errorf("%q is missing in\n%s", line, body)
					}
				}
				for _, begin := range tc.not {
					if !strings.Contains(begin, ": ") {
						begin += ": "
					}
					if strings.Contains("\n"+body, "\n"+begin) {
						t.Errorf("%q is in\n%s", begin, body)
					}
				}
			})
		})
	}
}

// TestInternalOnlyHeadersDecideNothing: neither a rule nor a route is shown one that was taken off.
func TestInternalOnlyHeadersDecideNothing(t *testing.T) {
	named := route.HeaderMatch{Name: "x-role", Value: &route.StringMatch{Exact: ptr("admin")}}
	for _, internal := range []bool{false, true} {
		bothVersions(t, func(t *testing.T, version int) {
			b := newBed(t, httpOrigin(t, told))
			b.cfg.Routes.InternalOnly = []string{"x-role"}
			b.cfg.UseRemoteAddress = true
			if internal {
				b.cfg.Internal = ownHost
			}
			b.cfg.Filters, b.cfg.RBAC = []HTTPFilter{{Name: "rbac", Config: RBACFilter{}}}, []authz.HTTPFilter{{Rules: &authz.Rules{Policies: []authz.Policy{
				{Name: "admins", Permissions: []authz.Permission{{Header: &named}}, Principals: []authz.Principal{{Any: true}}},
				{Name: "public", Permissions: []authz.Permission{{URLPath: &route.StringMatch{Prefix: ptr("/public")}}}, Principals: []authz.Principal{{Any: true}}},
			}}}}
			special := *b.route()
			special.Match.Headers = []route.HeaderMatch{named}
			special.Headers = &route.HeaderMutations{RequestAdd: []route.HeaderAdd{{Name: "x-special", Value: "1"}}}
			b.cfg.Routes.VirtualHosts[0].Routes = []route.Route{special, *b.route()}
			b.start()
			ask := b.asker(version)
			if status, _ := ask("/private", "X-Role: admin"); status != 403 && !internal || status != 200 && internal {
				t.Errorf("internal %v: the rule's answer is %d", internal, status)
			}
			if _, body := ask("/public", "X-Role: admin"); strings.Contains(body, "x-special") != internal {
				t.Errorf("internal %v: the route is another:\n%s", internal, body)
			}
		})
	}
}

// TestInternalOnlyHeadersOfATable: a request's headers and its route are by one table, whatever
// comes meanwhile, and by none where there is none yet.
func TestInternalOnlyHeadersOfATable(t *testing.T) {
	b := newBed(t, httpOrigin(t, told))
	var tables []*route.Table // one for each time that it is asked for
	for _, only := range [][]string{nil, {"x-secret"}, nil} {
		c := *b.cfg.Routes
		c.InternalOnly = only
		table, err := route.Compile(&c)
		if err != nil {
			t.Fatal(err)
		}
		tables = append(tables, table)
	}
	tables = append(tables[:2], nil, tables[2])
	b.cfg.Routes, b.cfg.RouteName = nil, "r"
	var asked atomic.Int32
	b.change = func(m *Manager) {
		m.policy.routes = func() *route.Table {
			return tables[asked.Add(1)-1]
		}
	}
	b.start()
	ask := b.asker(1)
	for i, kept := range []bool{true, false, false, true} {
		status, body := ask("/", "X-Secret: 1")
		if n := asked.Load(); int(n) != i+1 {
			t.Fatalf("request %d: the table was asked for %d times", i, n)
		}
		if found := tables[i] != nil; found != (status == 200) || kept != strings.Contains(body, "x-secret") {
			t.Errorf("request %d: %d: %s", i, status, body)
		}
	}
}

// TestInternalOnlyHeadersAfterARedirect: where a redirect would be followed by a table that has
// another list than the one that the request was judged by, it is the client's to ask again.
func TestInternalOnlyHeadersAfterARedirect(t *testing.T) {
	var seen atomic.Int32
	b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if seen.Add(1); r.URL.Path == "/" {
			w.Header().Set("Location", "http://h/to")
			w.WriteHeader(302)
		}
	}))
	b.route().Forward.InternalRedirect = &route.InternalRedirect{Max: 5, Codes: []int{302}}
	var tables []*route.Table
	for _, only := range [][]string{nil, nil, nil, {"x-secret"}} {
		c := *b.cfg.Routes
		c.InternalOnly = only
		table, err := route.Compile(&c)
		if err != nil {
			t.Fatal(err)
		}
		tables = append(tables, table)
	}
	b.cfg.Routes, b.cfg.RouteName = nil, "r"
	var asked atomic.Int32
	b.change = func(m *Manager) { m.policy.routes = func() *route.Table { return tables[asked.Add(1)-1] } }
	b.start()
	ask := b.asker(1)
	if status, _ := ask("/", "X-Secret: 1"); status != 200 || seen.Load() != 2 {
		t.Errorf("%d after %d requests, by another table of the same list", status, seen.Load())
	}
	if status, _ := ask("/", "X-Secret: 1"); status != 302 || seen.Load() != 3 {
		t.Errorf("%d after %d requests, by one of another list", status, seen.Load())
	}
}
