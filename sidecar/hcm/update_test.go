package hcm

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/tokenbucket"
	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/ratelimit"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

// judgedBy has the bed's connections judged by another manager, as after an update of the
// listener.
func (b *bed) judgedBy(m *Manager) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range b.conns {
		d.SetPolicy(m.Policy())
	}
}

// updated is judgedBy a manager with a changed configuration.
func (b *bed) updated(change func(*Config)) {
	b.t.Helper()
	cfg := *b.cfg
	cfg.AccessLog = nil
	change(&cfg)
	now, err := New(&cfg, Options{Clusters: b.clusters, ServiceCluster: b.options.ServiceCluster})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = now.Close() })
	b.judgedBy(now)
}

// asker makes one connection, for GETs with fields ("Name: value").
func (b *bed) asker(version int) func(path string, fields ...string) (status int, body string) {
	if version == 1 {
		c := b.dial()
		return func(path string, fields ...string) (int, string) {
			if !slices.ContainsFunc(fields, func(f string) bool { return strings.HasPrefix(f, "Host: ") }) {
				fields = append(fields, "Host: h")
			}
			resp, body := c.do("GET " + path + " HTTP/1.1\r\n" + strings.Join(fields, "\r\n") + "\r\n\r\n")
			return resp.StatusCode, body
		}
	}
	cc := b.http2Dial()
	return func(path string, fields ...string) (int, string) {
		req := &message.Request{Method: "GET", Scheme: "http", Authority: "h", Path: path}
		for _, f := range fields {
			if name, value, _ := strings.Cut(f, ": "); name == "Host" {
				req.Authority = value
			} else {
				req.Fields.Add(strings.ToLower(name), value)
			}
		}
		s, err := cc.Open(req, true)
		if err != nil {
			b.t.Fatal(err)
		}
		defer s.Close()
		var head message.Response
		end, err := s.ReadHead(&head)
		if err != nil {
			b.t.Fatal(err)
		}
		var body []byte
		for last := end; !last; {
			var p []byte
			if p, last, err = s.Next(); err != nil {
				b.t.Fatal(err)
			}
			body = append(body, p...)
		}
		return head.Status, string(body)
	}
}

// privateNet lets those of a network go anywhere, and others to what is public.
var privateNet = authz.HTTPFilter{Rules: &authz.Rules{Policies: []authz.Policy{{
	Name: "private", Permissions: []authz.Permission{{Any: true}},
	Principals: []authz.Principal{{Source: ptr(netip.MustParsePrefix("10.0.0.0/8"))}},
}, {
	Name: "public", Permissions: []authz.Permission{{URLPath: &route.StringMatch{Prefix: ptr("/public")}}},
	Principals: []authz.Principal{{Any: true}},
}}}}

// TestTrustAfterUpdate: requests on a connection that is older than an update are read by the
// new configuration: whom they are believed to come from, and what is taken off them.
func TestTrustAfterUpdate(t *testing.T) {
	for _, tc := range []struct {
		name          string
		before, after func(*Config)
		path          string // of the second request
		fields        []string
		status        int
		want, not     string // what the host is told, and is not
	}{
		{name: "clients name themselves no longer", before: func(c *Config) {}, after: func(c *Config) {
			c.UseRemoteAddress = true
			c.Filters, c.RBAC = []HTTPFilter{{Name: "rbac", Config: RBACFilter{}}}, []authz.HTTPFilter{privateNet}
		}, path: "/admin", fields: []string{"X-Forwarded-For: 10.1.1.1"}, status: 403},
		{name: "addresses are internal no longer", before: func(c *Config) {
			c.UseRemoteAddress, c.Internal = true, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		}, after: func(c *Config) { c.Internal = nil }, status: 200, want: "x-forwarded-for: 127.0.0.1", not: "x-envoy-internal"},
		{name: "certificates are not forwarded any more", before: func(c *Config) { c.ForwardClientCert = AlwaysForwardOnly },
			after: func(c *Config) { c.ForwardClientCert = Sanitize }, fields: []string{"X-Forwarded-Client-Cert: Hash=forged"},
			status: 200, not: "x-forwarded-client-cert"},
		{name: "the host's port is taken off", before: func(c *Config) {}, after: func(c *Config) { c.StripPort = StripAnyPort },
			fields: []string{"Host: h:81"}, status: 200, want: "host: h\n", not: "host: h:81"},
		{name: "names with underscores are refused", before: func(c *Config) {}, after: func(c *Config) { c.UnderscoreNames = RejectUnderscores },
			fields: []string{"X_User: admin"}, status: 400},
		{name: "names with underscores are dropped", before: func(c *Config) {}, after: func(c *Config) { c.UnderscoreNames = DropUnderscores },
			fields: []string{"X_User: admin", "X-Other: x"}, status: 200, want: "x-other: x", not: "x_user"},
		{name: "a header is only for those internal", before: func(c *Config) {}, after: func(c *Config) {
			r := *c.Routes
			r.InternalOnly, c.Routes = []string{"x-user"}, &r
		}, fields: []string{"X-User: admin", "X-Other: x"}, status: 200, want: "x-other: x", not: "x-user"},
		{name: "headers are changed early", before: func(c *Config) { c.EarlyMutations = []route.HeaderMutation{setting("x-old", "1")} },
			after:  func(c *Config) { c.EarlyMutations = []route.HeaderMutation{setting("x-new", "1"), {Remove: "x-user"}} },
			fields: []string{"X-User: admin"}, status: 200, want: "x-new: 1", not: "x-user"},
		{name: "the scheme is fixed", before: func(c *Config) {}, after: func(c *Config) { c.Scheme = "https" }, status: 200, want: "x-forwarded-proto: https"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, version int) {
				b := newBed(t, httpOrigin(t, told))
				tc.before(b.cfg)
				b.start()
				ask := b.asker(version)
				if status, _ := ask("/", tc.fields...); status != 200 {
					t.Fatalf("before: %d", status)
				}
				b.updated(tc.after)
				status, body := ask("/"+strings.TrimPrefix(tc.path, "/"), tc.fields...)
				if status != tc.status || !strings.Contains(body, tc.want) || tc.not != "" && strings.Contains(body, tc.not) {
					t.Errorf("%d, want %d: %s", status, tc.status, body)
				}
			})
		})
	}
}

// TestUpgradeAfterUpdate: a protocol that was taken off the configuration is not switched to.
func TestUpgradeAfterUpdate(t *testing.T) {
	b := newBed(t, httpOrigin(t, told))
	b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}}
	b.start()
	c := b.dial()
	c.do("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	b.updated(func(c *Config) { c.Upgrades = nil })
	if resp, _ := c.do("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"); resp.StatusCode != 403 {
		t.Errorf("%d", resp.StatusCode)
	}
}

// TestClientCertAfterUpdate: a connection tells of its certificate what the configuration now
// asks for. One that did not keep what it takes is to be replaced.
func TestClientCertAfterUpdate(t *testing.T) {
	front, back, _ := twoHops(t, httpOrigin(t, told), apiID)
	front.start()
	c := front.dial()
	get := func() string {
		_, body := c.do("GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Client-Cert: Hash=forged\r\n\r\n")
		_, cert, _ := strings.Cut(body, "x-forwarded-client-cert: ")
		cert, _, _ = strings.Cut(cert, "\n")
		return cert
	}
	conns := func() int {
		back.mu.Lock()
		defer back.mu.Unlock()
		return len(back.conns)
	}
	if cert := get(); !strings.Contains(cert, ";URI="+webID) || strings.Contains(cert, "forged") {
		t.Errorf("%q", cert)
	}
	back.updated(func(c *Config) { c.ClientCert.URI = false })
	if cert := get(); !strings.Contains(cert, "Hash=") || strings.Contains(cert, "URI=") || strings.Contains(cert, "forged") || conns() != 1 {
		t.Errorf("without URI: %q, %d connections", cert, conns())
	}
	back.updated(func(c *Config) { c.ForwardClientCert = Sanitize })
	if cert := get(); cert != "" || conns() != 1 {
		t.Errorf("without any: %q, %d connections", cert, conns())
	}
	back.updated(func(c *Config) { c.ClientCert.Cert = true })
	if cert := get(); !strings.Contains(cert, ";URI="+webID) || strings.Contains(cert, ";Cert=") || conns() != 1 {
		t.Errorf("with the certificate, which is not there: %q, %d connections", cert, conns())
	}
	if get(); conns() != 2 {
		t.Errorf("%d connections", conns())
	}
}

// TestRouteLimitAfterUpdate: a route's limit is one limit, for connections that are older than
// an update and those that are not.
func TestRouteLimitAfterUpdate(t *testing.T) {
	origin := httpOrigin(t, echo)
	old, b := newBed(t, origin).start(), newBed(t, origin)
	b.filter("l", &ratelimit.Config{})
	b.route().Filters = override("l", &ratelimit.Config{
		Bucket: &tokenbucket.Spec{Max: 1, PerFill: 1, Interval: time.Hour}, Enabled: route.All, Enforced: route.All,
	})
	b.start()
	older, newer := old.dial(), b.dial()
	older.do("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	old.judgedBy(b.m)
	r1, _ := older.do("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	r2, _ := newer.do("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if r1.StatusCode != 200 || r2.StatusCode != 429 {
		t.Errorf("%d and %d with a bucket of one token", r1.StatusCode, r2.StatusCode)
	}
}

// TestBindingInForce: who still has an older table does not take away what the newer one's
// users share.
func TestBindingInForce(t *testing.T) {
	table := func() *route.Table {
		t.Helper()
		compiled, err := route.Compile(&route.Config{Name: "r"})
		if err != nil {
			t.Fatal(err)
		}
		return compiled
	}
	before, now := table(), table()
	p := &policy{chain: &chain{}, routes: func() *route.Table { return now }}
	shared := p.bind(now)
	if old := p.bind(before); old == shared || old.table != before {
		t.Error("it has another table's")
	}
	if p.bind(now) != shared {
		t.Error("it was made again")
	}
}

// TestTrailersAfterUpdate: names with underscores that the configuration takes no longer do not
// come behind a body either, whether it was there at once or comes later.
func TestTrailersAfterUpdate(t *testing.T) {
	for _, up := range []int{1, 2} {
		for _, later := range []bool{false, true} {
			t.Run(fmt.Sprint(up, later), func(t *testing.T) {
				arrived, got := make(chan struct{}, 1), make(chan http.Header, 1)
				b := versionedBed(t, 1, up, func(_ http.ResponseWriter, r *http.Request) {
					if r.Method == "POST" {
						_, _ = io.ReadFull(r.Body, make([]byte, 1))
						arrived <- struct{}{}
						_, _ = io.Copy(io.Discard, r.Body)
						got <- r.Trailer
					}
				})
				b.start()
				c := b.dial()
				c.do("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
				b.updated(func(c *Config) { c.UnderscoreNames = DropUnderscores })
				first, rest := "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X-Other, X_User\r\n\r\n1\r\nx\r\n", "0\r\nX_User: admin\r\nX-Other: x\r\n\r\n"
				if later {
					c.send(first)
					<-arrived
					c.send(rest)
				} else {
					c.send(first + rest)
				}
				c.answer("POST")
				if h := <-got; h.Get("X-Other") != "x" || h.Get("X_User") != "" {
					t.Errorf("%v", h)
				}
			})
		}
	}
}

// TestUpdatedTraceReason: whether an id tells why its request is traced is of the configuration that
// decides over the request, as what becomes of one that comes with it.
func TestUpdatedTraceReason(t *testing.T) {
	for version := 1; version <= 2; version++ {
		b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("X-Request-Id")) }))
		b.cfg.GenerateRequestID = true
		b.trace(&tracing.Config{Sampling: tracing.Sampling{Random: tracing.Percent(100), Overall: tracing.Percent(100)}})
		ask := b.start().asker(version)
		const id = "11111111-1111-4111-8111-111111111111"
		if _, got := ask("/", "X-Request-Id: "+id); got != id[:14]+"9"+id[15:] {
			t.Errorf("over HTTP/%d before: %s", version, got)
		}
		b.updated(func(c *Config) { c.Tracing, c.KeepTraceReason = nil, true })
		if _, got := ask("/", "X-Request-Id: "+id); got != id {
			t.Errorf("over HTTP/%d after: %s", version, got)
		}
	}
}
