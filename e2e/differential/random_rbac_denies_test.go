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
	c.HCM = dict{"forward_client_cert_details": one(r, "SANITIZE", "SANITIZE_SET"), "set_current_client_cert_details": dict{"uri": true}}
	field, value, path := one(r, "x-a", "authorization", "via", "x-list"), one(r, "admin", "a b", "5"), one(r, "/admin", "/a/b", "/x;p")
	text := func(value string) dict {
		return dict{one(r, "exact", "prefix", "suffix", "contains"): value}
	}
	policy := func(permission dict) dict {
		return dict{"permissions": []any{permission}, "principals": []any{dict{"any": true}}}
	}
	rules := dict{"action": "DENY", "policies": dict{
		"line": policy(dict{"header": dict{"name": field, "string_match": text(value)}}),
		"path": policy(dict{"url_path": dict{"path": dict{"exact": path}}}),
	}}
	action := func(action string) dict {
		return dict{"action": dict{"name": "action", "typed_config": dict{"@type": apiType + "config.rbac.v3.Action", "name": action, "action": action}}}
	}
	const inputs = apiType + "extensions.matching.common_inputs."
	named := dict{"predicate": dict{"single_predicate": dict{
		"input":       dict{"name": "in", "typed_config": dict{"@type": inputs + "ssl.v3.UriSanInput"}},
		"value_match": text("spiffe://differential.mesh/ns/default/dc/dc1/svc/web")}}, "on_match": action(one(r, "ALLOW", "DENY"))}
	matcher := dict{"matcher_list": dict{"matchers": []any{named}}, "on_no_match": action("ALLOW")}
	for i, rbac := range []dict{{"rules": rules}, {"matcher": matcher}} {
		rbac["@type"] = httpRBACType
		c.Filters = append(c.Filters, dict{"name": fmt.Sprintf("rbac%d", i), "typed_config": rbac})
	}
	c.Routes = []map[string]any{{"match": dict{"prefix": "/"}, "route": dict{"cluster": "origin"}}}
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
