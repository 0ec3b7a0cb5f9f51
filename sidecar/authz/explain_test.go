package authz

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

func listed(action Action, names ...string) *Rules {
	out := &Rules{Action: action}
	for _, n := range names {
		out.Policies = append(out.Policies, Policy{
			Name: n, Permissions: []Permission{{Header: &route.HeaderMatch{Name: n, Value: is("1")}}}, Principals: []Principal{{Any: true}},
		})
	}
	return out
}

// TestExplain: each set of rules is told of by itself, whatever another said before.
func TestExplain(t *testing.T) {
	matcher := &Rules{Ordered: &Ordered{Cases: []Case{{line("x", "1"), then("no", Deny)}, {line("y", "1"), then("log", Log)}}}}
	open := &Rules{Ordered: &Ordered{Cases: matcher.Ordered.Cases, Otherwise: ptr(then("rest", Allow))}}
	for _, c := range []struct {
		name    string
		rules   *Rules
		request request
		want    Findings // of Rules and of the log
	}{
		{"none", nil, request{}, Findings{}},
		{"allow", listed(Allow, "x"), request{"x": "1"}, Findings{Rules: Finding{true, true, "x"}}},
		{"not allow", listed(Allow, "x"), request{}, Findings{Rules: Finding{true, false, ""}}},
		{"deny", listed(Deny, "w", "x"), request{"x": "1"}, Findings{Rules: Finding{true, false, "x"}}},
		{"not deny", listed(Deny, "x"), request{}, Findings{Rules: Finding{true, true, ""}}},
		{"log", listed(Log, "x"), request{"x": "1"}, Findings{Rules: Finding{true, true, "x"}, Logs: true, Logged: true}},
		{"not log", listed(Log, "x"), request{}, Findings{Rules: Finding{true, true, ""}, Logs: true}},
		{"a matcher denies", matcher, request{"x": "1"}, Findings{Rules: Finding{true, false, "no"}, Logs: true}},
		{"a matcher logs", matcher, request{"y": "1"}, Findings{Rules: Finding{true, true, "log"}, Logs: true, Logged: true}},
		{"nothing matches", matcher, request{}, Findings{Rules: Finding{true, false, ""}}},
		{"nothing matches, and something is said of it", open, request{}, Findings{Rules: Finding{true, true, "rest"}, Logs: true}},
	} {
		filters := []NetworkFilter{{Rules: listed(Deny, "other")}, {Rules: c.rules, ShadowPrefix: "p"}}
		e := compile(t, Exchange, filters...)
		c.want.Prefix = "p"
		if got := e.Explain(1, peerOf(web), c.request, nil); got != c.want {
			t.Errorf("%s: %+v", c.name, got)
		}
		filters[1].Rules, filters[1].Shadow = nil, c.rules
		want := Findings{Shadow: c.want.Rules, Prefix: "p"}
		if got := compile(t, Exchange, filters...).Explain(1, peerOf(web), c.request, nil); got != want {
			t.Errorf("%s, as shadow rules: %+v", c.name, got)
		}
	}
}
