package hcm

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestRulesOnPathsWithoutParameters: what a route takes for a path is denied by a rule on that path, where
// routes do not compare parameters, and also by the rule that the route has in place of the filter's.
func TestRulesOnPathsWithoutParameters(t *testing.T) {
	for _, ofRoute := range []bool{false, true} {
		for ignores, want := range map[bool]int{false: 404, true: 403} {
			b := newBed(t)
			b.cfg.Routes.IgnorePathParameters = ignores
			r := b.route()
			r.Match, r.Forward, r.Direct = route.Match{Path: ptr("/admin")}, nil, &route.DirectResponse{Status: 200}
			deny := authz.HTTPFilter{Rules: &authz.Rules{Action: authz.Deny, Policies: []authz.Policy{{
				Name: "admin", Permissions: []authz.Permission{{URLPath: &route.StringMatch{Exact: ptr("/admin")}}}, Principals: []authz.Principal{{Any: true}},
			}}}}
			if ofRoute {
				b.rbac(authz.HTTPFilter{})
				r.Filters = override("rbac0", &deny)
			} else {
				b.rbac(deny)
			}
			b.start()
			c := b.dial()
			if resp, _ := c.do("GET /admin HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 403 {
				t.Errorf("of the route %v, ignored %v: %d", ofRoute, ignores, resp.StatusCode)
			}
			if resp, _ := c.do("GET /admin;x?y HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != want {
				t.Errorf("of the route %v, ignored %v, with parameters: %d, want %d", ofRoute, ignores, resp.StatusCode, want)
			}
		}
	}
}
