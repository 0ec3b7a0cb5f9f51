package authz

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestPathParameters: where routes are found by paths without parameters, a rule about a path holds for
// what its route takes for that path. :path as a header is what it is (CVE-2026-73553).
func TestPathParameters(t *testing.T) {
	text := func(s string) *route.StringMatch { return &route.StringMatch{Exact: of(s)} }
	admin, err := route.NewTemplate("/admin/{rest=**}")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name          string
		p             Permission
		path          string
		compares, all bool // it holds where parameters are compared, and where they are ignored
	}{
		{"none", Permission{URLPath: text("/admin")}, "/admin?a;b", true, true},
		{"of the last segment", Permission{URLPath: text("/admin")}, "/admin;x?a", false, true},
		{"of a segment before", Permission{URLPath: text("/admin/a")}, "/admin;x=y/a;z", false, true},
		{"in the rule", Permission{URLPath: text("/admin;x")}, "/admin;x", true, false},
		{"encoded", Permission{URLPath: text("/admin")}, "/admin%3Bx", false, false},
		{"behind an escape", Permission{URLPath: text("/admin%2f/a")}, "/admin%2F;x/a", false, true},
		{"of a template", Permission{Template: admin}, "/admin;x/a", false, true},
		{"of the header", Permission{Header: &route.HeaderMatch{Name: ":path", Value: text("/admin")}}, "/admin;x", false, false},
	} {
		e := compile(t, Exchange, HTTPFilter{Rules: &Rules{Policies: []Policy{{
			Name: "p", Permissions: []Permission{c.p, c.p}, Principals: []Principal{{Any: true}},
		}}}}).OfNormalized(true)
		for ignores, want := range map[bool]bool{false: c.compares, true: c.all} {
			var d Decision
			if got := e.Next(0, peerOf(web), &message.Request{Method: "GET", Path: c.path}, tells{ignores: ignores}, &d); got != want {
				t.Errorf("%s, ignored %v: it holds: %v", c.name, ignores, got)
			}
		}
	}
}
