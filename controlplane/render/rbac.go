package render

import (
	"fmt"
	"regexp"
	"slices"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/compile"
)

// Rules are the two RBAC filters of an inbound filter chain: Deny runs first,
// and what passes it must, unless the default is allow, be allowed by Allow. A
// nil one is not rendered.
//
// Intentions decide in order, RBAC policies in none. So each policy's principal
// is its source minus every source of higher precedence, and inside one source
// each permission is reduced by the earlier ones that decide otherwise. Policies
// are named after the rule they come from, which is how a denial names it.
type Rules struct {
	Deny, Allow *rbacv3.RBAC
}

// NewRules translates an authorization for a listener that speaks protocol. The
// error is a rule that cannot be expressed; then the caller must deny.
func NewRules(trustDomain, protocol string, a *compile.Authorization) (*Rules, error) {
	b := &ruleBuilder{
		trustDomain: trustDomain,
		deny:        &rbacv3.RBAC{Action: rbacv3.RBAC_DENY, Policies: map[string]*rbacv3.Policy{}},
		allow:       &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW, Policies: map[string]*rbacv3.Policy{}},
	}
	var earlier []catalog.Name
	for i := range a.Rules {
		r := &a.Rules[i]
		if r.Source.Peer != "" {
			return nil, fmt.Errorf("%s: a peer as source is not supported", r.Origin)
		}
		who := principal(trustDomain, r.Source, earlier)
		earlier = append(earlier, r.Source)
		if who == nil {
			continue // sources of higher precedence cover it whole
		}
		if err := b.rule(r, who, compile.IsHTTP(protocol)); err != nil {
			return nil, err
		}
	}
	out := &Rules{}
	if len(b.deny.Policies) > 0 {
		out.Deny = b.deny
	}
	if !a.DefaultAllow {
		// Without a policy it allows nobody, which is the default's meaning.
		out.Allow = b.allow
	}
	return out, nil
}

// denyAll refuses everyone, in the name of a reason.
func denyAll(reason string) *Rules {
	return &Rules{Deny: &rbacv3.RBAC{Action: rbacv3.RBAC_DENY, Policies: map[string]*rbacv3.Policy{
		reason: {Permissions: []*rbacv3.Permission{anything()}, Principals: []*rbacv3.Principal{anyone()}},
	}}}
}

// maxTerms bounds the conditions of a service's rules. One that decides otherwise than those
// before it repeats them all, so that they grow with the square of what somebody wrote.
const maxTerms = 50_000

type ruleBuilder struct {
	trustDomain string
	deny, allow *rbacv3.RBAC
	terms       int
}

func (b *ruleBuilder) add(action api.IntentionAction, name string, source catalog.Name, what *rbacv3.Permission, who *rbacv3.Principal) error {
	into := b.deny
	switch action {
	case api.IntentionActionAllow:
		into = b.allow
	case api.IntentionActionDeny:
	default:
		return fmt.Errorf("%s: action %q is neither allow nor deny", name, action)
	}
	if into == b.deny && source.Service == catalog.Wildcard {
		who = orNoService(b.trustDomain, who)
	}
	if _, exists := into.Policies[name]; exists {
		return fmt.Errorf("%s: two rules have this origin", name)
	}
	into.Policies[name] = &rbacv3.Policy{
		Permissions: []*rbacv3.Permission{what},
		Principals:  []*rbacv3.Principal{who},
	}
	return nil
}

func (b *ruleBuilder) rule(r *compile.Rule, who *rbacv3.Principal, http bool) error {
	if len(r.Permissions) == 0 {
		return b.add(r.Action, r.Origin, r.Source, anything(), who)
	}
	if !http {
		// Requests cannot be told apart in a byte stream, so nothing of the
		// source may pass (Consul does the same).
		return b.add(api.IntentionActionDeny, r.Origin+" (its Permissions need an http protocol)", r.Source, anything(), who)
	}
	matches := make([]*rbacv3.Permission, len(r.Permissions))
	for k, p := range r.Permissions {
		origin := fmt.Sprintf("%s Permissions[%d]", r.Origin, k)
		if p.JWT != nil {
			return fmt.Errorf("%s.JWT: not supported", origin)
		}
		m, err := permission(p.HTTP)
		if err != nil {
			return fmt.Errorf("%s.HTTP.%w", origin, err)
		}
		matches[k] = m
		var minus []*rbacv3.Permission
		for j := range k {
			if r.Permissions[j].Action != p.Action {
				minus = append(minus, notWhat(matches[j]))
			}
		}
		if b.terms += 1 + len(minus); b.terms > maxTerms {
			return fmt.Errorf("%s: the Permissions of the service would need more than %d conditions; use fewer, or let fewer of them alternate between allow and deny", origin, maxTerms)
		}
		if err := b.add(p.Action, origin, r.Source, allOf(append([]*rbacv3.Permission{m}, minus...)), who); err != nil {
			return err
		}
	}
	return nil
}

// principal matches a source, except for those before it; nil when nothing of
// it is left.
func principal(trustDomain string, source catalog.Name, earlier []catalog.Name) *rbacv3.Principal {
	ids := []*rbacv3.Principal{identity(trustDomain, source)}
	seen := map[catalog.Name]bool{}
	for _, e := range earlier {
		switch {
		case covers(e, source):
			return nil
		case overlaps(e, source) && !seen[e]:
			seen[e] = true
			ids = append(ids, &rbacv3.Principal{Identifier: &rbacv3.Principal_NotId{NotId: identity(trustDomain, e)}})
		}
	}
	if len(ids) == 1 {
		return ids[0]
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_AndIds{AndIds: &rbacv3.Principal_Set{Ids: ids}}}
}

// orNoService adds to a principal every peer that is no service. SVIDs of nodes,
// operators and custom workload IDs pass the handshake as a service's do, so
// what denies every service must deny them too where the default is allow. No
// wildcard allows them.
func orNoService(trustDomain string, who *rbacv3.Principal) *rbacv3.Principal {
	service := identity(trustDomain, catalog.Name{Namespace: catalog.Wildcard, Service: catalog.Wildcard})
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_OrIds{OrIds: &rbacv3.Principal_Set{Ids: []*rbacv3.Principal{
		who, {Identifier: &rbacv3.Principal_NotId{NotId: service}},
	}}}}
}

// place gives the parts of a source that its SPIFFE ID shows. A source without
// a datacenter is in any.
func place(n catalog.Name) [3]string {
	dc := n.Datacenter
	if dc == "" {
		dc = catalog.Wildcard
	}
	return [3]string{n.Namespace, dc, n.Service}
}

func covers(a, b catalog.Name) bool {
	pa, pb := place(a), place(b)
	for i := range pa {
		if pa[i] != catalog.Wildcard && pa[i] != pb[i] {
			return false
		}
	}
	return true
}

func overlaps(a, b catalog.Name) bool {
	pa, pb := place(a), place(b)
	for i := range pa {
		if pa[i] != pb[i] && pa[i] != catalog.Wildcard && pb[i] != catalog.Wildcard {
			return false
		}
	}
	return true
}

// identity matches the SPIFFE ID of a source. Literals are escaped, and a
// wildcard is one whole path segment.
func identity(trustDomain string, n catalog.Name) *rbacv3.Principal {
	p := place(n)
	authenticated := &rbacv3.Principal_Authenticated{}
	if slices.Contains(p[:], catalog.Wildcard) {
		segment := func(s string) string {
			if s == catalog.Wildcard {
				return "[^/]+"
			}
			return regexp.QuoteMeta(s)
		}
		authenticated.PrincipalName = matching("^spiffe://" + regexp.QuoteMeta(trustDomain) +
			"/ns/" + segment(p[0]) + "/dc/" + segment(p[1]) + "/svc/" + segment(p[2]) + "$")
	} else {
		authenticated.PrincipalName = exactly("spiffe://" + trustDomain + "/ns/" + p[0] + "/dc/" + p[1] + "/svc/" + p[2])
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Authenticated_{Authenticated: authenticated}}
}

func anyone() *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Any{Any: true}}
}

func anything() *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Any{Any: true}}
}

func notWhat(p *rbacv3.Permission) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: p}}
}

func allOf(ps []*rbacv3.Permission) *rbacv3.Permission {
	if len(ps) == 1 {
		return ps[0]
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_AndRules{AndRules: &rbacv3.Permission_Set{Rules: ps}}}
}

// CheckAuthorization says what of an authorization cannot be expressed, so that
// a caller can treat it like one that does not compile.
func CheckAuthorization(a *compile.Authorization) error {
	_, err := NewRules("", a.Protocol, a)
	return err
}
