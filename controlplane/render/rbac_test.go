package render

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/hashicorp/consul/api"
	"pgregory.net/rapid"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/compile"
	"github.com/hauberk-mesh/hauberk/xds/names"
)

const testDomain = "test.mesh"

// call is a request as authorization sees it.
type call struct {
	id      string
	method  string
	path    string
	headers map[string]string
}

// The reference evaluator: RBAC as its protos define it, for what is rendered.

func evalRules(r *Rules, c call) bool {
	if r.Deny != nil && matchesAny(r.Deny, c) {
		return false
	}
	return r.Allow == nil || matchesAny(r.Allow, c)
}

func matchesAny(r *rbacv3.RBAC, c call) bool {
	for _, p := range r.Policies {
		if slices.ContainsFunc(p.Permissions, func(x *rbacv3.Permission) bool { return evalPermission(x, c) }) &&
			slices.ContainsFunc(p.Principals, func(x *rbacv3.Principal) bool { return evalPrincipal(x, c) }) {
			return true
		}
	}
	return false
}

func evalPermission(p *rbacv3.Permission, c call) bool {
	switch r := p.Rule.(type) {
	case *rbacv3.Permission_Any:
		return r.Any
	case *rbacv3.Permission_AndRules:
		return !slices.ContainsFunc(r.AndRules.Rules, func(x *rbacv3.Permission) bool { return !evalPermission(x, c) })
	case *rbacv3.Permission_NotRule:
		return !evalPermission(r.NotRule, c)
	case *rbacv3.Permission_UrlPath:
		path, _, _ := strings.Cut(c.path, "?")
		return evalString(r.UrlPath.GetPath(), path)
	case *rbacv3.Permission_Header:
		return evalHeader(r.Header, c)
	}
	panic(fmt.Sprintf("permission %T", p.Rule))
}

func evalPrincipal(p *rbacv3.Principal, c call) bool {
	switch r := p.Identifier.(type) {
	case *rbacv3.Principal_Any:
		return r.Any
	case *rbacv3.Principal_AndIds:
		return !slices.ContainsFunc(r.AndIds.Ids, func(x *rbacv3.Principal) bool { return !evalPrincipal(x, c) })
	case *rbacv3.Principal_OrIds:
		return slices.ContainsFunc(r.OrIds.Ids, func(x *rbacv3.Principal) bool { return evalPrincipal(x, c) })
	case *rbacv3.Principal_NotId:
		return !evalPrincipal(r.NotId, c)
	case *rbacv3.Principal_Authenticated_:
		return evalString(r.Authenticated.PrincipalName, c.id)
	}
	panic(fmt.Sprintf("principal %T", p.Identifier))
}

func evalHeader(h *routev3.HeaderMatcher, c call) bool {
	v, ok := c.headers[h.Name]
	if h.Name == ":method" {
		v, ok = c.method, true
	}
	if h.GetPresentMatch() {
		return ok != h.InvertMatch
	}
	// An absent header matches no value, inverted or not.
	return ok && evalString(h.GetStringMatch(), v) != h.InvertMatch
}

func evalString(m *matcherv3.StringMatcher, s string) bool {
	fold := func(x string) string {
		if m.IgnoreCase {
			return strings.ToLower(x)
		}
		return x
	}
	switch p := m.MatchPattern.(type) {
	case *matcherv3.StringMatcher_Exact:
		return fold(s) == fold(p.Exact)
	case *matcherv3.StringMatcher_Prefix:
		return strings.HasPrefix(fold(s), fold(p.Prefix))
	case *matcherv3.StringMatcher_Suffix:
		return strings.HasSuffix(fold(s), fold(p.Suffix))
	case *matcherv3.StringMatcher_Contains:
		return strings.Contains(fold(s), fold(p.Contains))
	case *matcherv3.StringMatcher_SafeRegex:
		return regexp.MustCompile(`^(?:` + p.SafeRegex.Regex + `)$`).MatchString(s)
	}
	panic(fmt.Sprintf("string %T", m.MatchPattern))
}

// The intentions, evaluated as Consul words them: the first source that matches
// decides; of its permissions, the first that matches; else the default. To a
// peer that is no service only a wildcard applies, and never to its advantage:
// what it does not deny is left to the default.

func evalIntentions(a *compile.Authorization, http bool, c call) bool {
	id := strings.Split(strings.TrimPrefix(c.id, "spiffe://"), "/")
	isService := len(id) == 7 && id[0] == testDomain && id[1] == "ns" && id[3] == "dc" && id[5] == "svc"
	for _, r := range a.Rules {
		if isService && id[2] != r.Source.Namespace || r.Source.Service != catalog.Wildcard && (!isService || r.Source.Service != id[6]) {
			continue
		}
		allowed := func(action api.IntentionAction) bool {
			return action == api.IntentionActionAllow && (isService || a.DefaultAllow)
		}
		if len(r.Permissions) == 0 {
			return allowed(r.Action)
		}
		if !http {
			return false
		}
		for _, p := range r.Permissions {
			if evalIntended(p.HTTP, c) {
				return allowed(p.Action)
			}
		}
		return a.DefaultAllow
	}
	return a.DefaultAllow
}

func evalIntended(h *api.IntentionHTTPPermission, c call) bool {
	path, _, _ := strings.Cut(c.path, "?")
	switch {
	case h.PathExact != "" && path != h.PathExact,
		h.PathPrefix != "" && !strings.HasPrefix(path, h.PathPrefix),
		h.PathRegex != "" && !regexp.MustCompile(`^(?:`+h.PathRegex+`)$`).MatchString(path),
		len(h.Methods) > 0 && !slices.Contains(h.Methods, c.method):
		return false
	}
	for _, x := range h.Header {
		v, ok := c.headers[strings.ToLower(x.Name)]
		if x.Present {
			if ok == x.Invert {
				return false
			}
			continue
		}
		fold := func(s string) string {
			if x.IgnoreCase {
				return strings.ToLower(s)
			}
			return s
		}
		var hit bool
		switch {
		case x.Exact != "":
			hit = fold(v) == fold(x.Exact)
		case x.Prefix != "":
			hit = strings.HasPrefix(fold(v), fold(x.Prefix))
		case x.Suffix != "":
			hit = strings.HasSuffix(fold(v), fold(x.Suffix))
		case x.Contains != "":
			hit = strings.Contains(fold(v), fold(x.Contains))
		case x.Regex != "":
			hit = regexp.MustCompile(`^(?:` + x.Regex + `)$`).MatchString(fold(v))
		}
		if !ok || hit == x.Invert {
			return false
		}
	}
	return true
}

var (
	actions = rapid.SampledFrom([]api.IntentionAction{api.IntentionActionAllow, api.IntentionActionDeny})
	// Names with a dot, and one that another extends: an unescaped or
	// unanchored pattern would mix them up.
	sourceNames = []string{"web", "web-2", "w.b", "wxb", "admin", catalog.Wildcard}
	values      = []string{"a", "A", "ab", "ba"}
)

func genPermission(t *rapid.T) *api.IntentionPermission {
	h := &api.IntentionHTTPPermission{}
	switch rapid.IntRange(0, 3).Draw(t, "path") {
	case 1:
		h.PathExact = rapid.SampledFrom([]string{"/", "/a", "/a/b"}).Draw(t, "exact")
	case 2:
		h.PathPrefix = rapid.SampledFrom([]string{"/", "/a", "/a/"}).Draw(t, "prefix")
	case 3:
		h.PathRegex = rapid.SampledFrom([]string{"/a.*", "/.", "/(a|b)/.+"}).Draw(t, "regex")
	}
	h.Methods = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"GET", "PUT", "M.SEARCH"}), 0, 2, rapid.ID).Draw(t, "methods")
	for range rapid.IntRange(0, 2).Draw(t, "headers") {
		x := api.IntentionHTTPHeaderPermission{
			Name: rapid.SampledFrom([]string{"X-A", "x-b"}).Draw(t, "name"), Invert: rapid.Bool().Draw(t, "invert"),
		}
		v := rapid.SampledFrom(values).Draw(t, "value")
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0:
			x.Present = true
		case 1:
			x.Exact, x.IgnoreCase = v, rapid.Bool().Draw(t, "fold")
		case 2:
			x.Prefix, x.IgnoreCase = v, rapid.Bool().Draw(t, "fold")
		case 3:
			x.Suffix, x.IgnoreCase = v, rapid.Bool().Draw(t, "fold")
		case 4:
			x.Contains, x.IgnoreCase = v, rapid.Bool().Draw(t, "fold")
		case 5:
			x.Regex = "a.?"
			x.IgnoreCase = rapid.Bool().Draw(t, "fold")
		}
		h.Header = append(h.Header, x)
	}
	return &api.IntentionPermission{Action: actions.Draw(t, "action"), HTTP: h}
}

func genAuthorization(t *rapid.T) *compile.Authorization {
	a := &compile.Authorization{Service: catalog.NewName("dc1", "api"), DefaultAllow: rapid.Bool().Draw(t, "default allow")}
	for i := range rapid.IntRange(0, 5).Draw(t, "rules") {
		name := rapid.SampledFrom(sourceNames).Draw(t, "source")
		r := compile.Rule{Source: catalog.NewName("", name), Origin: fmt.Sprintf("service-intentions/api Sources[%d] (%s)", i, name)}
		if n := rapid.IntRange(0, 3).Draw(t, "permissions"); n == 0 {
			r.Action = actions.Draw(t, "action")
		} else {
			for range n {
				r.Permissions = append(r.Permissions, genPermission(t))
			}
		}
		a.Rules = append(a.Rules, r)
	}
	return a
}

func genCall(t *rapid.T) call {
	c := call{
		method:  rapid.SampledFrom([]string{"GET", "PUT", "POST", "M.SEARCH", "MXSEARCH"}).Draw(t, "method"),
		path:    rapid.SampledFrom([]string{"/", "/a", "/a?x=/b", "/a/b", "/ab", "/b/c", "/A"}).Draw(t, "path"),
		headers: map[string]string{},
	}
	for _, h := range []string{"x-a", "x-b"} {
		if rapid.Bool().Draw(t, "has "+h) {
			c.headers[h] = rapid.SampledFrom(append(values, "")).Draw(t, "value of "+h)
		}
	}
	name := rapid.SampledFrom([]string{"web", "web-2", "w.b", "wxb", "admin", "other"}).Draw(t, "who")
	c.id = rapid.SampledFrom([]string{
		"spiffe://test.mesh/ns/default/dc/dc1/svc/" + name,
		"spiffe://test.mesh/ns/default/dc/dc2/svc/" + name,
		"spiffe://test.mesh/ns/other/dc/dc1/svc/" + name,
		"spiffe://testxmesh/ns/default/dc/dc1/svc/" + name,
		"spiffe://test.mesh/hauberk/node/" + name,
		"spiffe://test.mesh/ns/default/dc/dc1/svc/" + name + "/x",
	}).Draw(t, "id")
	return c
}

// TestRulesEqualIntentions: whatever the rules and the request, the unordered
// policies decide as the ordered intentions do.
func TestRulesEqualIntentions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := genAuthorization(t)
		protocol := rapid.SampledFrom([]string{"tcp", "http"}).Draw(t, "protocol")
		rules, err := NewRules(testDomain, protocol, a)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []*rbacv3.RBAC{rules.Deny, rules.Allow} {
			if r == nil {
				continue
			}
			if err := r.ValidateAll(); err != nil {
				t.Fatal(err)
			}
		}
		for range 8 {
			c := genCall(t)
			if got, want := evalRules(rules, c), evalIntentions(a, compile.IsHTTP(protocol), c); got != want {
				t.Fatalf("%+v: rendered says allowed=%v, the intentions say %v", c, got, want)
			}
		}
	})
}

// TestWildcardDeniesEveryPeer: SVIDs of nodes and the like are of the trust
// domain too, so they pass the handshake.
func TestWildcardDeniesEveryPeer(t *testing.T) {
	rules, err := NewRules(testDomain, "tcp", &compile.Authorization{DefaultAllow: true, Rules: []compile.Rule{
		{Source: catalog.NewName("", "web"), Origin: "web", Action: "allow"},
		{Source: catalog.NewName("", "*"), Origin: "*", Action: "deny"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{
		"spiffe://test.mesh/ns/default/dc/dc1/svc/web": true,
		"spiffe://test.mesh/ns/default/dc/dc1/svc/db":  false,
		"spiffe://test.mesh/hauberk/node/n1":           false,
		"spiffe://test.mesh/hauberk/operator/alice":    false,
		"spiffe://test.mesh/batch/nightly":             false,
	} {
		if got := evalRules(rules, call{id: id}); got != want {
			t.Errorf("%s: allowed=%v, want %v", id, got, want)
		}
	}
}

func TestRuleNames(t *testing.T) {
	a := &compile.Authorization{Rules: []compile.Rule{
		{Source: catalog.NewName("", "web"), Origin: "service-intentions/api Sources[0] (web)", Permissions: []*api.IntentionPermission{
			{Action: "deny", HTTP: &api.IntentionHTTPPermission{PathPrefix: "/admin"}},
			{Action: "allow", HTTP: &api.IntentionHTTPPermission{PathPrefix: "/"}},
		}},
		{Source: catalog.NewName("", "*"), Origin: "service-intentions/api Sources[1] (*)", Action: "deny"},
		{Source: catalog.NewName("", "db"), Origin: "service-intentions/* Sources[0] (db)", Action: "allow"},
	}}
	rules, err := NewRules(testDomain, "http", a)
	if err != nil {
		t.Fatal(err)
	}
	deny := sortedKeys(rules.Deny.Policies)
	if want := []string{"service-intentions/api Sources[0] (web) Permissions[0]", "service-intentions/api Sources[1] (*)"}; !slices.Equal(deny, want) {
		t.Errorf("deny policies %q, want %q", deny, want)
	}
	// The db rule is behind a wildcard: it can never decide and is not rendered.
	allow := sortedKeys(rules.Allow.Policies)
	if want := []string{"service-intentions/api Sources[0] (web) Permissions[1]"}; !slices.Equal(allow, want) {
		t.Errorf("allow policies %q, want %q", allow, want)
	}
	if tcp, _ := NewRules(testDomain, "tcp", a); evalRules(tcp, call{id: "spiffe://test.mesh/ns/default/dc/dc1/svc/web", path: "/", method: "GET"}) {
		t.Error("L7 permissions on tcp allowed a connection")
	}
}

func TestRulesThatCannotBeExpressed(t *testing.T) {
	permission := func(h *api.IntentionHTTPPermission) compile.Rule {
		return compile.Rule{Source: catalog.NewName("", "web"), Origin: "o", Permissions: []*api.IntentionPermission{{Action: "allow", HTTP: h}}}
	}
	for name, r := range map[string]compile.Rule{
		"regex":        permission(&api.IntentionHTTPPermission{PathRegex: "("}),
		"two paths":    permission(&api.IntentionHTTPPermission{PathExact: "/", PathPrefix: "/"}),
		"header":       permission(&api.IntentionHTTPPermission{Header: []api.IntentionHTTPHeaderPermission{{Name: "x"}}}),
		"header regex": permission(&api.IntentionHTTPPermission{Header: []api.IntentionHTTPHeaderPermission{{Name: "x", Regex: "["}}}),
		"action":       {Source: catalog.NewName("", "web"), Origin: "o", Action: "maybe"},
		"peer":         {Source: catalog.Name{Peer: "cloud", Service: "web"}, Origin: "o", Action: "allow"},
		"jwt": {Source: catalog.NewName("", "web"), Origin: "o", Permissions: []*api.IntentionPermission{
			{Action: "allow", JWT: &api.IntentionJWTRequirement{}}}},
	} {
		if _, err := NewRules(testDomain, "http", &compile.Authorization{Rules: []compile.Rule{r}}); err == nil {
			t.Errorf("%s: rendered", name)
		}
	}
}

// TestPermissionsThatMultiply: rules that alternate repeat one another. Those of one service
// must not take the memory of a control plane.
func TestPermissionsThatMultiply(t *testing.T) {
	of := func(n int) *compile.Authorization {
		r := compile.Rule{Source: catalog.NewName("", "web"), Origin: "service-intentions/api Sources[0] (web)"}
		for i := range n {
			action := api.IntentionActionAllow
			if i%2 == 1 {
				action = api.IntentionActionDeny
			}
			r.Permissions = append(r.Permissions, &api.IntentionPermission{Action: action, HTTP: &api.IntentionHTTPPermission{PathExact: fmt.Sprint("/", i)}})
		}
		return &compile.Authorization{Service: catalog.NewName("dc1", "api"), Protocol: "http", Rules: []compile.Rule{r}}
	}
	if err := CheckAuthorization(of(200)); err != nil {
		t.Errorf("200: %v", err)
	}
	if err := CheckAuthorization(of(5000)); err == nil || !strings.Contains(err.Error(), "conditions") {
		t.Errorf("5000: %v", err)
	}
}

// TestCapabilitiesAreFew: what a client announces is part of what is remembered.
func TestCapabilitiesAreFew(t *testing.T) {
	long := NewCapabilities(names.CapRBAC, names.CapabilityPrefix+strings.Repeat("x", 1<<20))
	if !long.Has(names.CapRBAC) || len(long.String()) > 100 {
		t.Errorf("%d bytes", len(long.String()))
	}
	many := []string{names.CapRBAC}
	for i := range 10_000 {
		many = append(many, fmt.Sprint(names.CapabilityPrefix, i))
	}
	if c := NewCapabilities(many...); c != (Capabilities{}) {
		t.Errorf("%d bytes", len(c.String()))
	}
}
