package hcm

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestListenerUpdate: a connection that is older than an update is judged as a new one is,
// whatever the update did to the rules, their places, their names or what routes say of
// them. Its own manager goes on to serve it.
func TestListenerUpdate(t *testing.T) {
	friend := func(b *bed) { b.allowing("x-who", "friend") }
	for _, tc := range []struct {
		name          string
		before, after func(*bed)
		first, second int
	}{
		{"a rule comes", func(*bed) {}, friend, 200, 403},
		{"a rule goes", friend, func(*bed) {}, 403, 200},
		{"a rule changes", func(b *bed) { b.allowing("host", "h") }, friend, 200, 403},
		{"a rule is enabled", func(b *bed) { friend(b); b.cfg.Filters[0].Disabled = true }, friend, 200, 403},
		{"a rule is disabled", friend, func(b *bed) { friend(b); b.cfg.Filters[0].Disabled = true }, 403, 200},
		{"rules change places, and the route has its own for one", func(b *bed) {
			friend(b)
			b.allowing("host", "h")
			b.route().Filters = override("rbac0", allowing("host", "h"))
		}, func(b *bed) {
			b.allowing("host", "h")
			friend(b)
			b.cfg.Filters[0].Name, b.cfg.Filters[1].Name = "rbac1", "rbac0"
			b.route().Filters = override("rbac0", allowing("x-who", "friend"))
		}, 200, 403},
		{"rules change places, and the route spares one", func(b *bed) {
			friend(b)
			b.allowing("host", "h")
			b.route().Filters = []route.FilterOverride{{Name: "rbac0", Disabled: true}}
		}, func(b *bed) {
			b.allowing("host", "h") // rbac0, which the route spares
			friend(b)
			b.route().Filters = []route.FilterOverride{{Name: "rbac0", Disabled: true}}
		}, 200, 403},
		{"a rule is renamed, so that the route spares it no longer", func(b *bed) {
			friend(b)
			b.route().Filters = []route.FilterOverride{{Name: "rbac0", Disabled: true}}
		}, func(b *bed) {
			friend(b)
			b.cfg.Filters[0].Name = "other"
			b.route().Filters = []route.FilterOverride{{Name: "rbac0", Disabled: true}}
		}, 200, 403},
		{"the route switches a rule on", func(b *bed) {
			friend(b)
			b.cfg.Filters[0].Disabled = true
		}, func(b *bed) {
			friend(b)
			b.cfg.Filters[0].Disabled = true
			b.route().Filters = []route.FilterOverride{{Name: "rbac0"}}
		}, 200, 403},
		{"what a rule sees is changed before it", func(b *bed) {
			b.filter("who", addHeader("friend"))
			friend(b)
		}, func(b *bed) {
			friend(b)
			b.filter("who", addHeader("friend"))
		}, 200, 403},
		{"paths are made alike before a rule sees them", func(b *bed) { b.rbac(noAdmin) },
			func(b *bed) { b.rbac(noAdmin); b.cfg.NormalizePath = true }, 200, 403},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, next := newBed(t, httpOrigin(t, echo)), newBed(t)
			tc.before(b)
			tc.after(next)
			next.cfg.AccessLog = nil
			b.start()
			now, err := New(next.cfg, Options{Clusters: b.clusters})
			if err != nil {
				t.Fatal(err)
			}
			_ = next.clusters.Close()
			c, cc := b.dial(), b.http2Dial()
			b.askAdmin(c, cc, tc.first)
			b.mu.Lock()
			for _, d := range b.conns {
				d.SetPolicy(now.Policy())
			}
			b.mu.Unlock()
			_ = now.Close() // another update: the policy holds all the same
			b.askAdmin(c, cc, tc.second)
		})
	}
}

var noAdmin = authz.HTTPFilter{Rules: &authz.Rules{Action: authz.Deny, Policies: []authz.Policy{{
	Name: "no admin", Permissions: []authz.Permission{{URLPath: &route.StringMatch{Prefix: ptr("/admin")}}}, Principals: []authz.Principal{{Any: true}},
}}}}

// askAdmin sends a request on a connection of either version and wants a status.
func (b *bed) askAdmin(c *testClient, cc *http2.ClientConn, want int) {
	b.t.Helper()
	if resp, _ := c.do("GET /x/../admin HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != want {
		b.t.Errorf("HTTP/1: %d, want %d", resp.StatusCode, want)
	}
	s, err := cc.Open(&message.Request{Method: "GET", Scheme: "http", Authority: "h", Path: "/x/../admin"}, true)
	if err != nil {
		b.t.Fatal(err)
	}
	defer s.Close()
	var head message.Response
	if _, err = s.ReadHead(&head); err != nil || head.Status != want {
		b.t.Errorf("HTTP/2: %d %v, want %d", head.Status, err, want)
	}
}
