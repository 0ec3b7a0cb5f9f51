package authz

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// deniesAll tells whether one of the filters denies all requests.
func deniesAll(e *Evaluator, p *Peer, forwarded bool) (rule string, denied bool) {
	for i := 0; i < e.Len() && !denied; i++ {
		rule, denied = e.DeniesAll(i, p, forwarded)
	}
	return rule, denied
}

func TestDeniesAll(t *testing.T) {
	not := func(p Permission) Permission { return Permission{Not: &p} }
	and := func(p ...Permission) Permission { return Permission{And: p} }
	for _, test := range []struct {
		name    string
		filters []NetworkFilter
		rule    string
		denied  bool
	}{
		{"no filters", nil, "", false},
		{"nobody is allowed", []NetworkFilter{{Rules: rules(Allow)}}, DefaultDeny, true},
		{"another is allowed", []NetworkFilter{{Rules: rules(Allow, Policy{"p", anything, []Principal{named(batch)}})}}, DefaultDeny, true},
		{"allowed", []NetworkFilter{{Rules: rules(Allow, Policy{"p", anything, []Principal{named(web)}})}}, "", false},
		{"allowed on a path", []NetworkFilter{{Rules: rules(Allow, Policy{"p", []Permission{pathIs("/a")}, []Principal{named(web)}})}}, "", false},
		{"allowed but on a path", []NetworkFilter{{Rules: rules(Allow, Policy{"p", []Permission{not(pathIs("/a"))}, []Principal{named(web)}})}}, "", false},
		{"allowed nowhere", []NetworkFilter{{Rules: rules(Allow, Policy{"p", []Permission{and(pathIs("/a"), not(Permission{Any: true}))}, anyone})}}, DefaultDeny, true},
		{"denied", []NetworkFilter{{Rules: rules(Deny, Policy{"d", anything, []Principal{named(web)}})}}, "d", true},
		{"denied on a path", []NetworkFilter{{Rules: rules(Deny, Policy{"d", []Permission{pathIs("/a")}, anyone})}}, "", false},
		{"denied but on a path", []NetworkFilter{{Rules: rules(Deny, Policy{"d", []Permission{not(pathIs("/a"))}, anyone})}}, "", false},
		{"a later filter denies", []NetworkFilter{{Rules: rules(Allow, Policy{"p", anything, anyone})}, {Rules: rules(Allow)}}, DefaultDeny, true},
		{"a log decides nothing", []NetworkFilter{{Rules: rules(Log, Policy{"l", anything, anyone})}}, "", false},
		{"shadow rules decide nothing", []NetworkFilter{{Shadow: rules(Allow)}}, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if rule, denied := deniesAll(compile(t, Exchange, test.filters...), peerOf(web), false); denied != test.denied || rule != test.rule {
				t.Errorf("got %q %v, want %q %v", rule, denied, test.rule, test.denied)
			}
		})
	}
}

// TestDeniesAllOfForwardedClients: by remote_ip no request is certainly denied, and none
// certainly allowed, on a connection whose peer may name other clients.
func TestDeniesAllOfForwardedClients(t *testing.T) {
	own, others := netip.MustParsePrefix("10.0.0.2/32"), netip.MustParsePrefix("203.0.113.0/24")
	from := func(p netip.Prefix) Principal { return Principal{Source: &p} }
	not := func(p Principal) Principal { return Principal{Not: &p} }
	for _, test := range []struct {
		name              string
		action            Action
		who               Principal
		alone, forwarding bool // is all denied
	}{
		{"others are allowed", Allow, from(others), true, false},
		{"the peer is allowed", Allow, from(own), false, false},
		{"the peer is denied", Deny, from(own), true, false},
		{"others are denied", Deny, from(others), false, false},
		{"all but the peer are denied", Deny, not(from(own)), false, false},
		{"all but others are denied", Deny, not(from(others)), true, false},
		{"others are allowed, of another peer", Allow, Principal{And: []Principal{named(batch), from(others)}}, true, true},
		{"the connection itself is denied", Deny, Principal{DirectSource: &own}, true, true},
	} {
		e := compile(t, Exchange, NetworkFilter{Rules: rules(test.action, Policy{"p", anything, []Principal{test.who}})})
		for forwarded, want := range map[bool]bool{false: test.alone, true: test.forwarding} {
			if _, denied := deniesAll(e, peerOf(web), forwarded); denied != want {
				t.Errorf("%s, forwarded %v: %v", test.name, forwarded, denied)
			}
		}
	}
}

// TestDeniesAllIsRight: where every request is said to be denied, none is allowed.
func TestDeniesAllIsRight(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var permission func(depth int) Permission
	permission = func(depth int) Permission {
		kind := rng.IntN(6)
		if depth == 0 {
			kind = rng.IntN(3)
		}
		switch kind {
		case 0:
			return Permission{Any: true}
		case 1:
			return pathIs([]string{"/a", "/b"}[rng.IntN(2)])
		case 2:
			return Permission{Header: &route.HeaderMatch{Name: "x", Value: &route.StringMatch{Exact: ptr("v")}, Invert: rng.IntN(2) == 0}}
		case 3:
			p := permission(depth - 1)
			return Permission{Not: &p}
		case 4:
			return Permission{And: []Permission{permission(depth - 1), permission(depth - 1)}}
		}
		return Permission{Or: []Permission{permission(depth - 1), permission(depth - 1)}}
	}
	requests := []request{{":path": "/a"}, {":path": "/b"}, {":path": "/c", "x": "v"}, {":path": "/a", "x": "v"}, {":path": "/b", "x": "w"}}
	all := 0
	for range 5000 {
		var filters []NetworkFilter
		for range 1 + rng.IntN(2) {
			principal := []Principal{{Any: true}}
			if rng.IntN(3) == 0 {
				principal = []Principal{named([]string{web, batch}[rng.IntN(2)])}
			}
			filters = append(filters, NetworkFilter{Rules: rules([]Action{Allow, Deny}[rng.IntN(2)],
				Policy{"p", []Permission{permission(3)}, principal})})
		}
		e := compile(t, Exchange, filters...)
		if _, denied := deniesAll(e, peerOf(web), false); !denied {
			continue
		}
		all++
		for _, r := range requests {
			if e.CheckRequest(peerOf(web), r).Allowed {
				t.Fatalf("%v is allowed by %+v", r, filters)
			}
		}
	}
	if all < 500 {
		t.Errorf("only %d of 5000 denied everything", all)
	}
}
