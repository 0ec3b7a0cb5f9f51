//go:build e2e

package differential

import (
	"fmt"
	"math/rand/v2"
)

// randomDenies are rules that a client would get around first of all: by a second line of a field,
// by a query, by a certificate that has no name, or by saying itself whose certificate it has. Each
// seed has them, so that a few seeds do.
func randomDenies(r *rand.Rand, secure bool) Config {
	m := &rbacMaker{r: r, http: true}
	c := Config{Name: fmt.Sprintf("denies-%v", secure), About: "random"}
	if secure {
		m.secure(&c)
		c.MTLS.Optional = true
	}
	c.HCM = rbacMap{"forward_client_cert_details": one(r, "SANITIZE", "SANITIZE_SET"), "set_current_client_cert_details": rbacMap{"uri": true}}
	field, value, path := one(r, "x-a", "authorization", "via", "x-list"), one(r, "admin", "a b", "5"), one(r, "/admin", "/a/b", "/x;p")
	text := func(value string) rbacMap {
		return rbacMap{one(r, "exact", "prefix", "suffix", "contains"): value}
	}
	policy := func(permission rbacMap) rbacMap {
		return rbacMap{"permissions": []any{permission}, "principals": []any{rbacMap{"any": true}}}
	}
	rules := rbacMap{"action": "DENY", "policies": rbacMap{
		"line": policy(rbacMap{"header": rbacMap{"name": field, "string_match": text(value)}}),
		"path": policy(rbacMap{"url_path": rbacMap{"path": rbacMap{"exact": path}}}),
	}}
	action := func(action string) rbacMap {
		return rbacMap{"action": rbacMap{"name": "action", "typed_config": rbacMap{"@type": apiType + "config.rbac.v3.Action", "name": action, "action": action}}}
	}
	const inputs = apiType + "extensions.matching.common_inputs."
	named := rbacMap{"predicate": rbacMap{"single_predicate": rbacMap{
		"input":       rbacMap{"name": "in", "typed_config": rbacMap{"@type": inputs + "ssl.v3.UriSanInput"}},
		"value_match": text("spiffe://differential.mesh/ns/default/dc/dc1/svc/web")}}, "on_match": action(one(r, "ALLOW", "DENY"))}
	matcher := rbacMap{"matcher_list": rbacMap{"matchers": []any{named}}, "on_no_match": action("ALLOW")}
	for i, rbac := range []rbacMap{{"rules": rules}, {"matcher": matcher}} {
		rbac["@type"] = httpRBACType
		c.Filters = append(c.Filters, rbacMap{"name": fmt.Sprintf("rbac%d", i), "typed_config": rbac})
	}
	c.Routes = []map[string]any{{"match": rbacMap{"prefix": "/"}, "route": rbacMap{"cluster": "origin"}}}
	other := one(r, "other", "b", "0")
	for i, lines := range [][]string{{other}, {other, value}, {value, other}, {other, "c", value}, {value}, nil, nil, nil} {
		x := Case{Name: fmt.Sprintf("case-%d", i), TLS: &ClientTLS{SNI: "a.example", Cert: one(r, "web", "api")}}
		target := "/elsewhere"
		switch {
		case i == 5:
			target = path + one(r, "?", "?q=1", "?/", "?a=b?c")
		case i > 5:
			x.TLS.Cert = "none"
		}
		if !secure { // nothing is known of a name
			x.TLS = nil
		}
		x.Send = "GET " + target + "\nX-Forwarded-Client-Cert: By=spiffe://a.test/b;URI=spiffe://evil.test/admin\n"
		for _, line := range lines {
			x.Send += field + ": " + line + "\n"
		}
		c.Cases = append(c.Cases, x)
	}
	return c
}
