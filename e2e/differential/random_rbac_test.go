//go:build e2e

package differential

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestRandomRBAC: random rules over requests and connections, and whom and what they may be of.
func TestRandomRBAC(t *testing.T) {
	random(t, domain{rounds: 2, group: randomRBAC, known: knownRBAC})
}

const (
	httpRBACType    = apiType + "extensions.filters.http.rbac.v3.RBAC"
	networkRBACType = apiType + "extensions.filters.network.rbac.v3.RBAC"
)

func randomRBAC(r *rand.Rand) *Group {
	g := &Group{About: "random rules"}
	for i := range 9 {
		c := Config{Name: fmt.Sprintf("rbac-%d", i), About: "random"}
		m := &rbacMaker{r: r, http: i%3 != 2}
		if m.http {
			m.httpConfig(&c)
		} else {
			m.tcpConfig(&c)
		}
		for n := range 9 {
			x := m.request(&c)
			x.Name = fmt.Sprintf("case-%d", n)
			c.Cases = append(c.Cases, x)
		}
		g.Configs = append(g.Configs, c)
	}
	g.Configs = append(g.Configs, randomDenies(r, true), randomDenies(r, false))
	return g
}

// rbacMaker makes one configuration, and keeps what it talks about.
type rbacMaker struct {
	r      *rand.Rand
	http   bool // rules may be of requests
	h2     bool
	normal bool // paths are normalised
	edge   bool // clients are those that connect
	tls    bool
	paths  []string
	fields [][2]string
	names  []string // server names
	proxy  bool     // connections begin with a PROXY header
}

func (m *rbacMaker) httpConfig(c *Config) {
	r := m.r
	switch r.IntN(4) {
	case 0:
		c.HTTP2, m.h2 = true, true
	case 1, 2:
		m.secure(c)
	default:
		m.announce(c)
	}
	if c.HCM = m.hcm(); m.h2 {
		delete(c.HCM, "common_http_protocol_options") // who refuses names ends streams with another code
	}
	c.LogFields = map[string]string{
		"enforced":  "%DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_engine_result)% %DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_effective_policy_id)%",
		"enforced1": "%DYNAMIC_METADATA(envoy.filters.http.rbac:one_enforced_engine_result)% %DYNAMIC_METADATA(envoy.filters.http.rbac:one_enforced_effective_policy_id)%",
		"shadow":    "%DYNAMIC_METADATA(envoy.filters.http.rbac:shadow_engine_result)% %DYNAMIC_METADATA(envoy.filters.http.rbac:shadow_effective_policy_id)%",
		"shadow2":   "%DYNAMIC_METADATA(envoy.filters.http.rbac:two_shadow_engine_result)% %DYNAMIC_METADATA(envoy.filters.http.rbac:two_shadow_effective_policy_id)%",
	}
	c.LogFilters = dict{"hinted": dict{"metadata_filter": dict{"matcher": dict{"filter": "envoy.common", "path": []any{dict{"key": "access_log_hint"}},
		"value": dict{"bool_match": true}}, "match_if_key_not_found": chance(r, 2)}}}
	if chance(r, 4) {
		m.http = false
		c.Before = []map[string]any{m.networkFilter()}
		m.http = true
	}
	for i := range 1 + r.IntN(3) {
		f := dict{"name": fmt.Sprintf("rbac%d", i), "typed_config": m.filter(httpRBACType)}
		if chance(r, 8) {
			f["disabled"] = true
		}
		c.Filters = append(c.Filters, f)
		if chance(r, 4) {
			c.Filters = append(c.Filters, dict{"name": "mutation", "typed_config": dict{"@type": apiType + "extensions.filters.http.header_mutation.v3.HeaderMutation",
				"mutations": dict{"request_mutations": m.mutations()}}})
		}
	}
	for range r.IntN(3) {
		c.Routes = append(c.Routes, m.route(m.pathPrefix()))
	}
	c.Routes = append(c.Routes, m.route("/"))
	if chance(r, 6) {
		c.Routes = c.Routes[:len(c.Routes)-1] // some requests have no route
	}
	if len(c.Routes) == 0 {
		c.Routes = append(c.Routes, m.route("/a"))
	}
	c.VHost, c.RouteConfig = dict{}, dict{}
	m.override(c.VHost, 6)
	m.override(c.RouteConfig, 8)
}

// hcm is how a path and a host are read, and who the client is.
func (m *rbacMaker) hcm() dict {
	r := m.r
	m.edge = chance(r, 2)
	h := dict{"use_remote_address": m.edge}
	if chance(r, 2) {
		h["xff_num_trusted_hops"] = one(r, 0, 1, 1, 2)
	}
	if chance(r, 2) {
		h["normalize_path"], m.normal = true, true
	}
	if chance(r, 2) {
		h["merge_slashes"] = true
	}
	if chance(r, 2) {
		h["path_with_escaped_slashes_action"] = one(r, "KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD")
	}
	switch r.IntN(5) {
	case 0:
		h["strip_matching_host_port"] = true
	case 1:
		h["strip_any_host_port"] = true
	}
	if chance(r, 4) {
		h["strip_trailing_host_dot"] = true
	}
	if chance(r, 4) {
		h["common_http_protocol_options"] = dict{"headers_with_underscores_action": one(r, "ALLOW", "REJECT_REQUEST", "DROP_HEADER")}
	}
	if chance(r, 6) {
		h["early_header_mutation_extensions"] = []any{dict{"name": "early", "typed_config": dict{"@type": apiType + "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation", "mutations": m.mutations()}}}
	}
	if !m.edge && chance(r, 4) {
		delete(h, "xff_num_trusted_hops")
		h["original_ip_detection_extensions"] = []any{m.detection()}
	}
	if chance(r, 3) {
		h["forward_client_cert_details"] = one(r, "SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY")
		h["set_current_client_cert_details"] = one(r, dict{"uri": true, "subject": true}, dict{"dns": true}, dict{})
	}
	return h
}

func (m *rbacMaker) tcpConfig(c *Config) {
	chain := dict{"tcp": "origin"}
	if !chance(m.r, 3) {
		m.secure(c)
	} else {
		m.announce(c)
	}
	var before []any
	for range 1 + m.r.IntN(2) {
		before = append(before, m.networkFilter())
	}
	chain["before"] = before
	c.FilterChains = []map[string]any{chain}
}

func (m *rbacMaker) secure(c *Config) {
	m.tls = true
	c.inspect()
	c.MTLS = &MTLS{Optional: chance(m.r, 2), Validation: dict{"match_typed_subject_alt_names": []any{}}}
}

// announce has a PROXY header say whose connections are.
func (m *rbacMaker) announce(c *Config) {
	if m.proxy = chance(m.r, 3); m.proxy {
		c.Listener = map[string]any{"listener_filters": []any{map[string]any{"name": "p", "typed_config": map[string]any{"@type": apiType + "extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"}}}}
	}
}

// inspect lets Envoy know of the names that clients ask for.
func (c *Config) inspect() {
	c.Listener = map[string]any{"listener_filters": []any{map[string]any{"name": "tls", "typed_config": map[string]any{"@type": apiType + "extensions.filters.listener.tls_inspector.v3.TlsInspector"}}}}
}

func (m *rbacMaker) networkFilter() map[string]any {
	f := m.filter(networkRBACType)
	f["stat_prefix"] = "r"
	delete(f, "rules_stat_prefix")
	if chance(m.r, 8) {
		f["enforcement_type"] = "CONTINUOUS"
		delete(f, "shadow_rules")
	}
	return dict{"name": "rbac", "typed_config": f}
}

// filter has rules and shadow rules, as policies or as matchers, or none.
func (m *rbacMaker) filter(kind string) dict {
	r := m.r
	f := dict{"@type": kind}
	switch r.IntN(10) {
	case 0:
	case 1, 2, 3:
		f["matcher"] = m.matcher()
	default:
		f["rules"] = m.rules()
	}
	if chance(r, 12) {
		f["rules"] = m.rules() // beside a matcher they say nothing
	}
	switch r.IntN(4) {
	case 0:
		f["shadow_matcher"] = m.matcher()
	case 1, 2:
		f["shadow_rules"] = m.rules()
	}
	if chance(r, 3) {
		f["rules_stat_prefix"] = one(r, "one_", "one_", "")
	}
	if chance(r, 3) {
		f["shadow_rules_stat_prefix"] = one(r, "two_", "two_", "")
	}
	return f
}

func (m *rbacMaker) rules() dict {
	r := m.r
	policies := dict{}
	for range r.IntN(4) {
		p := dict{"permissions": m.some(m.permission, 2), "principals": m.some(m.principal, 2)}
		switch r.IntN(3) {
		case 0: // what is asked for is all that decides
			p["principals"] = []any{dict{"any": true}}
		case 1:
			p["permissions"] = []any{dict{"any": true}}
		}
		policies[one(r, "a", "b", "B", "b b", "z/1", "", "ü", "9", "10", `q"`, strings.Repeat("n", 80))] = p
	}
	out := dict{"policies": policies}
	if action := one(r, "ALLOW", "ALLOW", "DENY", "DENY", "LOG", ""); action != "" {
		out["action"] = action
	}
	return out
}

func (m *rbacMaker) some(of func(depth int) dict, most int) (out []any) {
	for range 1 + m.r.IntN(most) {
		out = append(out, of(0))
	}
	return out
}

func (m *rbacMaker) several(depth int, of func(depth int) dict) (out []any) {
	for range 1 + m.r.IntN(3) {
		out = append(out, of(depth+1))
	}
	return out
}

func (m *rbacMaker) permission(depth int) dict {
	r := m.r
	if depth < 4 && chance(r, 3) {
		switch r.IntN(3) {
		case 0:
			return dict{"and_rules": dict{"rules": m.several(depth, m.permission)}}
		case 1:
			return dict{"or_rules": dict{"rules": m.several(depth, m.permission)}}
		default:
			return dict{"not_rule": m.permission(depth + 1)}
		}
	}
	if m.http && !chance(r, 4) {
		switch r.IntN(7) {
		case 0, 1:
			return dict{"header": m.header()}
		case 2, 3:
			return dict{"url_path": dict{"path": m.text(m.path)}}
		case 4:
			return dict{"uri_template": dict{"name": "t", "typed_config": dict{
				"@type": apiType + "extensions.path.match.uri_template.v3.UriTemplateMatchConfig", "path_template": m.template()}}}
		case 5:
			return dict{"metadata": m.dynamic()}
		default:
			return dict{"sourced_metadata": m.sourced()}
		}
	}
	switch r.IntN(5) {
	case 0:
		return dict{"any": true}
	case 1:
		return dict{"destination_ip": m.cidr()}
	case 2:
		if chance(r, 3) {
			return dict{"destination_port": one(r, 1, 80, 65535)}
		}
		return dict{"destination_port_range": one(r, dict{"start": 0, "end": 65536}, dict{"start": 1, "end": 1024}, dict{"start": 1024, "end": 65535}, dict{"start": 65535, "end": 65536})}
	default:
		return dict{"requested_server_name": m.text(m.serverName)}
	}
}

func (m *rbacMaker) principal(depth int) dict {
	r := m.r
	if depth < 4 && chance(r, 3) {
		switch r.IntN(3) {
		case 0:
			return dict{"and_ids": dict{"ids": m.several(depth, m.principal)}}
		case 1:
			return dict{"or_ids": dict{"ids": m.several(depth, m.principal)}}
		default:
			return dict{"not_id": m.principal(depth + 1)}
		}
	}
	if m.http && chance(r, 3) {
		switch r.IntN(6) {
		case 0, 1, 2:
			return dict{"header": m.header()}
		case 3:
			return dict{"url_path": dict{"path": m.text(m.path)}}
		case 4:
			return dict{"metadata": m.dynamic()}
		default:
			return dict{"sourced_metadata": m.sourced()}
		}
	}
	switch r.IntN(8) {
	case 0:
		return dict{"any": true}
	case 1:
		return dict{"authenticated": dict{}}
	case 2, 3, 4:
		return dict{"authenticated": dict{"principal_name": m.text(m.peerName)}}
	case 5:
		return dict{"source_ip": m.cidr()}
	case 6:
		return dict{"direct_remote_ip": m.cidr()}
	default:
		return dict{"remote_ip": m.cidr()}
	}
}

// matcher is an order of cases.
func (m *rbacMaker) matcher() dict {
	r := m.r
	action := func() dict {
		return dict{"action": dict{"name": "action", "typed_config": dict{"@type": apiType + "config.rbac.v3.Action",
			"name": one(r, "a", "b", "c c", "ü"), "action": one(r, "ALLOW", "ALLOW", "DENY", "DENY", "LOG")}}}
	}
	out := dict{}
	if !chance(r, 8) {
		var cases []any
		for range 1 + r.IntN(4) {
			cases = append(cases, dict{"predicate": m.predicate(0), "on_match": action()})
		}
		out["matcher_list"] = dict{"matchers": cases}
	}
	if len(out) == 0 || chance(r, 2) {
		out["on_no_match"] = action()
	}
	return out
}

func (m *rbacMaker) predicate(depth int) dict {
	r := m.r
	if depth < 4 && chance(r, 3) {
		switch r.IntN(3) {
		case 0:
			return dict{"and_matcher": dict{"predicate": []any{m.predicate(depth + 1), m.predicate(depth + 1)}}}
		case 1:
			return dict{"or_matcher": dict{"predicate": []any{m.predicate(depth + 1), m.predicate(depth + 1)}}}
		default:
			return dict{"not_matcher": m.predicate(depth + 1)}
		}
	}
	const inputs = apiType + "extensions.matching.common_inputs."
	input := func(kind string) dict { return dict{"name": "in", "typed_config": dict{"@type": kind}} }
	if m.http && !chance(r, 3) {
		name, value := m.field()
		in := input(apiType + "type.matcher.v3.HttpRequestHeaderMatchInput")
		in["typed_config"].(dict)["header_name"] = name
		return dict{"single_predicate": dict{"input": in, "value_match": m.text(func() string { return value })}}
	}
	switch r.IntN(4) {
	case 0:
		return dict{"single_predicate": dict{"input": input(inputs + "ssl.v3.UriSanInput"), "value_match": m.text(m.peerName)}}
	case 1:
		return dict{"single_predicate": dict{"input": input(inputs + "network.v3.ServerNameInput"), "value_match": m.text(m.serverName)}}
	default:
		return dict{"single_predicate": dict{"input": input(inputs + one(r, "network.v3.SourceIPInput", "network.v3.DirectSourceIPInput")),
			"custom_match": dict{"name": "ip", "typed_config": dict{"@type": apiType + "extensions.matching.input_matchers.ip.v3.Ip", "stat_prefix": "ip",
				"cidr_ranges": []any{m.cidr(), m.cidr()}}}}}
	}
}

// route is one with metadata that rules may ask for.
func (m *rbacMaker) route(prefix string) map[string]any {
	r := m.r
	out := dict{"match": dict{"prefix": prefix}, "route": dict{"cluster": "origin"}}
	if chance(r, 5) {
		delete(out, "route")
		out["direct_response"] = dict{"status": 200, "body": dict{"inline_string": "hi"}}
	}
	if chance(r, 2) {
		app := dict{}
		for range 1 + r.IntN(3) {
			app[one(r, "a", "b", "c")] = m.value(0)
		}
		out["metadata"] = dict{"filter_metadata": dict{one(r, "app", "envoy.filters.http.rbac"): app}}
	}
	if chance(r, 4) {
		out["request_headers_to_add"] = []any{dict{"header": dict{"key": "x-a", "value": "admin"}}} // behind all rules
	}
	m.override(out, 3)
	return out
}

// override says once in n times what becomes of a filter's rules there.
func (m *rbacMaker) override(level dict, n int) {
	if !chance(m.r, n) {
		return
	}
	const perRoute = apiType + "extensions.filters.http.rbac.v3.RBACPerRoute"
	var of dict
	switch m.r.IntN(5) {
	case 0:
		of = dict{"@type": perRoute}
	case 1:
		of = dict{"@type": apiType + "config.route.v3.FilterConfig", "disabled": true}
	case 2:
		of = dict{"@type": apiType + "config.route.v3.FilterConfig", "config": dict{"@type": perRoute, "rbac": m.withoutType()}}
	default:
		of = dict{"@type": perRoute, "rbac": m.withoutType()}
	}
	level["typed_per_filter_config"] = dict{one(m.r, "rbac0", "rbac0", "rbac1"): of}
}

func (m *rbacMaker) withoutType() dict {
	f := m.filter("")
	delete(f, "@type")
	return f
}

// knownRBAC are differences that docs/differential.md has.
func knownRBAC(c *Config, x *Case, d Difference) string {
	action, _ := c.HCM["path_with_escaped_slashes_action"].(string)
	redirects := action == "UNESCAPE_AND_REDIRECT"
	switch {
	case d.Field == "log.details" && d.Envoy == "path_normalization_failed" && d.Hauberk == "path_normalization_redirect" && redirects,
		(d.Field == "log.path" || d.Field == "log.path2") && (redirects || action == "REJECT_REQUEST") && strings.ContainsRune(d.Hauberk, '%'):
		return "the log has the path as it came, and says that this is a redirect"
	case strings.HasPrefix(x.Send, "HEAD ") && (d.Field == "response.header.transfer-encoding" && d.Envoy == "chunked" || d.Field == "response.header.content-length" && d.Envoy == absent):
		return "Envoy says Transfer-Encoding: chunked in an answer to HEAD without a length"
	case d.Field == "response.header.location" && strings.TrimLeft(d.Envoy, "/") == strings.TrimLeft(d.Hauberk, "/") && redirects:
		return "what begins with two slashes would lead to another host (RFC 3986 4.2)"
	case d.Field == "upstream.header.x-forwarded-client-cert" && x.TLS != nil && x.TLS.Cert == "several" && strings.ReplaceAll(d.Hauberk, `URI="http://several.example/a,b;c"`, "URI=http://several.example/a,b;c") == d.Envoy:
		return "what has a delimiter in it is quoted"
	case d.Field == "upstream.header.connection" && d.Envoy == absent && d.Hauberk == "TE":
		return "RFC 9110 10.1.4: who sends TE names it in Connection"
	case d.Field == "upstream.header.cookie" && x.Frames != nil && d.Envoy == absent && d.Hauberk == "":
		return "Envoy forgets a cookie of HTTP/2 that is empty"
	case d.Field == "log.host" && (d.Envoy == "null" || x.TLS != nil && d.Envoy == strings.ToLower(x.TLS.SNI)):
		return "Envoy does not know the host of a request that it refuses at once"
	case shadowTemplate(c, x, d):
		return "a wildcard takes what a request may hold: Envoy lets pass what a rule on /admin/** means"
	case d.Field == "upstream.header.x-forwarded-for" && strings.ReplaceAll(d.Envoy, "(this host)", "127.0.0.1") == d.Hauberk:
		return "the sidecar says 127.0.0.1 where Envoy puts its own address for a client on loopback"
	}
	return ""
}

// shadowTemplate tells whether a template of shadow rules that deny holds for a path of which Envoy's
// wildcards do not take each octet.
func shadowTemplate(c *Config, x *Case, d Difference) bool {
	b, _ := yaml.Marshal([]any{c.Filters, c.VHost, c.Routes})
	return (d.Field == "log.shadow" || d.Field == "log.shadow2") && strings.HasPrefix(d.Envoy, "allowed ") && strings.HasPrefix(d.Hauberk, "denied ") &&
		beyondTemplates(x.Send) && strings.Contains(string(b), "path_template")
}
