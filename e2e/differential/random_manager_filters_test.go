//go:build e2e

package differential

import (
	"fmt"
	"slices"
	"strings"
)

// A filterKind makes the configuration of a filter, and what routes may say in its place.
type filterKind struct {
	name  string
	make  func(m *manager) dict
	route func(m *manager) dict
}

const filterTypes = apiType + "extensions.filters.http."

var filterKinds = []filterKind{
	{"cors", func(*manager) dict { return dict{"@type": filterTypes + "cors.v3.Cors"} }, (*manager).cors},
	{"fault", (*manager).fault, (*manager).fault},
	{"limit", (*manager).limit, func(m *manager) dict {
		out := m.limit()
		out["token_bucket"] = m.bucket() // which is demanded there
		return out
	}},
	{"mutation", (*manager).mutationFilter, func(m *manager) dict {
		return dict{"@type": filterTypes + "header_mutation.v3.HeaderMutationPerRoute", "mutations": m.mutationFilter()["mutations"]}
	}},
	{"health", (*manager).health, nil},
	{"buffer", (*manager).buffer, func(m *manager) dict {
		if chance(m.Rand, 3) {
			return dict{"@type": filterTypes + "buffer.v3.BufferPerRoute", "disabled": true}
		}
		return dict{"@type": filterTypes + "buffer.v3.BufferPerRoute", "buffer": dict{"max_request_bytes": m.limitOfBuffer()}}
	}},
	{"rbac", (*manager).rbac, func(m *manager) dict {
		out := dict{"@type": filterTypes + "rbac.v3.RBACPerRoute"}
		if !chance(m.Rand, 3) {
			of := m.rbac()
			delete(of, "@type")
			out["rbac"] = of
		}
		return out
	}},
	{"stats", func(*manager) dict {
		return dict{"@type": filterTypes + "grpc_stats.v3.FilterConfig", "stats_for_all_methods": true}
	}, nil},
	{"bridge", func(m *manager) dict {
		return dict{"@type": filterTypes + "grpc_http1_bridge.v3.Config", "ignore_query_parameters": chance(m.Rand, 2)}
	}, nil},
}

// filters are some, in any order; one kind may be there twice.
func (m *manager) filters() {
	m.want("X-A", "1", "", "a b", "é", "up")
	m.want("X-B", "2", "a,b", "a\"b\\c")
	m.want("X-Multi", "a?b", "c")
	m.want("X-Empty", "")
	m.want("X-Gone", "1")
	twice := map[string]int{}
	for range m.IntN(5) {
		k := one(m.Rand, filterKinds...)
		if (k.name == "bridge" || k.name == "limit") && !chance(m.Rand, 2) {
			continue
		}
		name := k.name
		if twice[k.name]++; twice[k.name] > 1 {
			name = fmt.Sprint(k.name, twice[k.name])
		}
		f := dict{"name": name, "typed_config": k.make(m)}
		if chance(m.Rand, 8) {
			f["disabled"] = true
		}
		m.c.Filters = append(m.c.Filters, f)
	}
}

// perFilter is what a level says to filters: their own messages, wrapped or not.
func (m *manager) perFilter() dict {
	out := dict{}
	for _, f := range m.c.Filters {
		name := f["name"].(string)
		i := slices.IndexFunc(filterKinds, func(k filterKind) bool { return k.name == name || k.name+"2" == name })
		if i < 0 || !chance(m.Rand, 3) {
			continue
		}
		k := filterKinds[i]
		wrapped := dict{"@type": apiType + "config.route.v3.FilterConfig"}
		switch {
		case k.route == nil:
			if chance(m.Rand, 2) {
				wrapped["disabled"] = true
				out[name] = wrapped
			}
		case chance(m.Rand, 4):
			wrapped["disabled"] = true
			out[name] = wrapped
		case chance(m.Rand, 3):
			wrapped["config"] = k.route(m)
			if chance(m.Rand, 3) {
				wrapped["is_optional"] = true
			}
			out[name] = wrapped
		default:
			out[name] = k.route(m)
		}
	}
	return out
}

// say puts what filters are told at a level.
func (m *manager) say(level dict) {
	if own := m.perFilter(); len(own) > 0 {
		level["typed_per_filter_config"] = own
	}
	if chance(m.Rand, 4) {
		level["request_headers_to_add"] = []any{m.option(requestOperators)}
	}
	if chance(m.Rand, 4) {
		level["response_headers_to_add"] = []any{m.option(responseOperators)}
	}
	if chance(m.Rand, 6) {
		level["response_headers_to_remove"] = []any{one(m.Rand, "x-a", "X-Origin", "server", "access-control-allow-origin", "x-envoy-upstream-service-time")}
	}
	if chance(m.Rand, 6) {
		level["request_headers_to_remove"] = []any{one(m.Rand, "x-a", "X-Request-Id", "via", "x-envoy-expected-rq-timeout-ms", "x-forwarded-proto")}
	}
}

func (m *manager) routes() {
	m.paths = []string{"/", "/a", "/direct", "/redirect", "/weighted", "/refused", "/healthz", "/told"}
	weighted := dict{"name": "other", "weight": 100}
	m.say(weighted)
	none := dict{"name": "origin", "weight": 0}
	m.say(none)
	direct := dict{"status": one(m.Rand, 200, 201, 400, 403, 429, 503, 599)}
	if !chance(m.Rand, 3) {
		direct["body"] = dict{"inline_string": one(m.Rand, "no entry", "", "é\n", "{\"a\": 1}")}
	}
	routes := []dict{
		{"name": "direct", "match": dict{"prefix": "/direct"}, "direct_response": direct},
		{"name": "redirect", "match": dict{"prefix": "/redirect"}, "redirect": dict{"path_redirect": "/to"}},
		{"name": "weighted", "match": dict{"prefix": "/weighted"}, "route": dict{"weighted_clusters": dict{"clusters": []any{weighted, none}}}},
		{"name": "refused", "match": dict{"prefix": "/refused"}, "route": dict{"cluster": one(m.Rand, "refused", "nobody")}},
		{"name": "told", "match": dict{"prefix": "/told"}, "route": dict{"cluster": one(m.Rand, "told", "hurt")}, "metadata": dict{"filter_metadata": dict{"a.b": dict{"k": "route"}}}},
		{"match": dict{"prefix": one(m.Rand, "/", "/a", "/h")}, "route": dict{"cluster": one(m.Rand, "origin", "origin", "http2")}},
	}
	m.c.RouteConfig["validate_clusters"] = false
	for _, r := range routes {
		m.say(r)
		if chance(m.Rand, 8) {
			r["decorator"] = dict{"operation": "ours", "propagate": chance(m.Rand, 2)}
		}
		if action, ok := r["route"].(dict); ok && chance(m.Rand, 5) {
			action["rate_limits"] = m.rateLimits(false)
			if chance(m.Rand, 3) {
				action["include_vh_rate_limits"] = true
			}
		}
		m.c.Routes = append(m.c.Routes, r)
	}
	m.say(m.c.VHost)
	if chance(m.Rand, 3) {
		m.say(m.c.RouteConfig)
	}
	if chance(m.Rand, 4) {
		m.c.RouteConfig["most_specific_header_mutations_wins"] = true
	}
	if chance(m.Rand, 4) {
		m.c.VHost["rate_limits"] = m.rateLimits(false)
	}
	if chance(m.Rand, 5) {
		m.c.VHost["include_request_attempt_count"] = true
	}
	if chance(m.Rand, 5) {
		m.c.VHost["include_attempt_count_in_response"] = true
	}
	if chance(m.Rand, 6) {
		m.c.VHost["retry_policy"] = dict{"retry_on": "5xx", "num_retries": 1, "retry_back_off": dict{"base_interval": "0.001s"}}
	}
	if chance(m.Rand, 8) {
		m.c.VHost["require_tls"] = one(m.Rand, "EXTERNAL_ONLY", "ALL")
	}
}

func (m *manager) origin() dict {
	switch m.IntN(6) {
	case 0:
		return dict{"exact": "https://good.example"}
	case 1:
		return dict{"suffix": ".trusted.example"}
	case 2:
		return dict{"safe_regex": dict{"regex": "https?://[a-z]+\\.re\\.example"}}
	case 3:
		return dict{"exact": "*"}
	case 4:
		return dict{"prefix": "HTTPS://GOOD", "ignore_case": true}
	}
	return dict{"contains": "good"}
}

func (m *manager) cors() dict {
	out := dict{"@type": filterTypes + "cors.v3.CorsPolicy"}
	var origins []any
	for range m.IntN(3) {
		origins = append(origins, m.origin())
	}
	if origins != nil {
		out["allow_origin_string_match"] = origins
	}
	for _, f := range [][]string{{"allow_methods", "GET, POST", "", "*"}, {"allow_headers", "x-a", "*", ""}, {"expose_headers", "x-b", "*"}, {"max_age", "60", "0", "x"}} {
		if chance(m.Rand, 2) {
			out[f[0]] = one(m.Rand, f[1:]...)
		}
	}
	for _, f := range []string{"allow_credentials", "allow_private_network_access", "forward_not_matching_preflights"} {
		if chance(m.Rand, 2) {
			out[f] = chance(m.Rand, 2)
		}
	}
	for _, f := range []string{"filter_enabled", "shadow_enabled"} {
		if chance(m.Rand, 4) {
			out[f] = m.runtimePercent()
		}
	}
	m.want("Origin", "https://good.example", "https://a.trusted.example", "https://evil.example", "", "null", "http://x.re.example", "HTTPS://GOOD.example")
	m.want("Access-Control-Request-Method", "POST", "", "x")
	m.want("Access-Control-Request-Headers", "x-a, x-b")
	m.want("Access-Control-Request-Private-Network", "true", "false")
	return out
}

// headerMatcher is one of a request's header.
func (m *manager) headerMatcher() dict {
	out := dict{"name": one(m.Rand, "x-a", "X-B", "x-multi", ":method", ":path", "x-empty", "x-none", ":authority", "te", "content-length")}
	switch m.IntN(9) {
	case 0:
		out["string_match"] = dict{"exact": one(m.Rand, "1", "GET", "/a", "", "c")}
	case 1:
		out["string_match"] = dict{"prefix": one(m.Rand, "a", "/", "P", "G"), "ignore_case": chance(m.Rand, 2)}
	case 2:
		out["present_match"] = !chance(m.Rand, 3)
	case 3:
		out["string_match"] = dict{"safe_regex": dict{"regex": one(m.Rand, "[0-9]*", "a.*", ".", "/d.*t")}}
	case 4:
		out["range_match"] = dict{"start": -1, "end": one(m.Rand, 1, 2, 3)}
	case 5:
		out["string_match"] = dict{"contains": one(m.Rand, "b", "O", ",", "é")}
	case 6:
		out["string_match"] = dict{"suffix": one(m.Rand, "b", "T", "t")}
	case 7:
		out["string_match"] = dict{"exact": one(m.Rand, "1", "a b", "2")}
		out["treat_missing_header_as_empty"] = true
	}
	if chance(m.Rand, 4) {
		out["invert_match"] = true
	}
	return out
}

func (m *manager) fault() dict {
	out := dict{"@type": filterTypes + "fault.v3.HTTPFault"}
	if chance(m.Rand, 2) {
		abort := dict{"percentage": m.percent()}
		switch m.IntN(4) {
		case 0:
			abort["http_status"] = one(m.Rand, 200, 418, 429, 503, 599)
		case 1:
			abort["grpc_status"] = one(m.Rand, 0, 5, 14)
		default:
			abort["header_abort"] = dict{}
			m.want("X-Envoy-Fault-Abort-Request", "503", "200", "x", "", "600", "199", "0", " 418", "+418", "418x")
			m.want("X-Envoy-Fault-Abort-Grpc-Request", "5", "0", "x", "99", "-1")
			m.want("X-Envoy-Fault-Abort-Request-Percentage", "0", "100", "x", "101")
		}
		if chance(m.Rand, 4) {
			abort["response_body"] = one(m.Rand, "aborted", "", "é\n", "{}")
		}
		out["abort"] = abort
	}
	if chance(m.Rand, 2) {
		delay := dict{"percentage": m.percent()}
		if chance(m.Rand, 2) {
			delay["fixed_delay"] = "0.001s"
		} else {
			delay["header_delay"] = dict{}
			m.want("X-Envoy-Fault-Delay-Request", "0", "1", "x", "", "-1")
			m.want("X-Envoy-Fault-Delay-Request-Percentage", "0", "100", "x")
		}
		out["delay"] = delay
	}
	if chance(m.Rand, 3) {
		out["headers"] = []any{m.headerMatcher()}
	}
	if chance(m.Rand, 4) {
		out["max_active_faults"] = m.IntN(2)
	}
	if chance(m.Rand, 5) {
		out["upstream_cluster"] = one(m.Rand, "origin", "other", "")
	}
	m.slowed(out)
	m.ruledFault(out)
	return out
}

// option is a header to add.
func (m *manager) option(operators []string) dict {
	out := dict{"header": dict{"key": one(m.Rand, "x-a", "X-B", "x-new", "x-multi", "server", "via", "X-Origin", "x-request-id", "content-type"), "value": m.format(operators)}}
	header := out["header"].(dict)
	if header["key"] == "server" && len(operators) == len(requestOperators) {
		header["key"] = "x-multi" // no field of a request, of which the sidecar has one
	}
	if strings.Contains(header["value"].(string), " ") {
		header["key"] = "x-new" // no log tells of it: Envoy keeps the white space
	}
	switch m.IntN(6) {
	case 0:
		out["append_action"] = "OVERWRITE_IF_EXISTS_OR_ADD"
	case 1:
		out["append_action"] = "ADD_IF_ABSENT"
	case 2:
		out["append_action"] = "OVERWRITE_IF_EXISTS"
	case 3:
		out["append_action"] = "APPEND_IF_EXISTS_OR_ADD"
	}
	if chance(m.Rand, 3) {
		out["keep_empty_value"] = chance(m.Rand, 2)
	}
	return out
}

func (m *manager) mutations(operators []string) []any {
	var out []any
	for range 1 + m.IntN(4) {
		switch m.IntN(5) {
		case 0:
			out = append(out, dict{"remove": one(m.Rand, "x-a", "X-Gone", "x-multi", "server", "user-agent", "x-t")})
		case 1:
			out = append(out, dict{"remove_on_match": dict{"key_matcher": one(m.Rand, dict{"prefix": "x-m"}, dict{"suffix": "-B", "ignore_case": true}, dict{"exact": "X-A"}, dict{"contains": "empt"}, dict{"safe_regex": dict{"regex": "x-[ab]"}})}})
		default:
			out = append(out, dict{"append": m.option(operators)})
		}
	}
	return out
}

// trailerMutations name what may be a trailer (RFC 9110 6.5.1).
func (m *manager) trailerMutations(operators []string) []any {
	list := m.mutations(operators)
	for _, of := range list {
		if add, ok := of.(dict)["append"].(dict); ok {
			add["header"].(dict)["key"] = one(m.Rand, "x-t", "X-T", "x-new", "x-u")
		}
	}
	return list
}

func (m *manager) mutationFilter() dict {
	of := dict{}
	if chance(m.Rand, 2) {
		of["request_mutations"] = m.mutations(requestOperators)
	}
	if chance(m.Rand, 2) {
		of["response_mutations"] = m.mutations(responseOperators)
	}
	if chance(m.Rand, 3) {
		of["response_trailers_mutations"] = m.trailerMutations(responseOperators)
	}
	if chance(m.Rand, 4) {
		of["request_trailers_mutations"] = m.trailerMutations(requestOperators)
	}
	if chance(m.Rand, 4) {
		m.plain = true
		var list []any
		for range 1 + m.IntN(3) {
			if chance(m.Rand, 4) {
				list = append(list, dict{"remove": one(m.Rand, "gone", "a")})
				continue
			}
			list = append(list, dict{"append": dict{"record": dict{"key": one(m.Rand, "a", "there", "new"), "value": one(m.Rand, "v", "", "%REQ(:METHOD)%", "%REQ(X-NONE)%", "%REQ(X-Empty)%")}, "action": one(m.Rand, "APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS", "OVERWRITE_IF_EXISTS_OR_ADD")}})
		}
		of["query_parameter_mutations"] = list
	}
	out := dict{"@type": filterTypes + "header_mutation.v3.HeaderMutation", "mutations": of}
	if chance(m.Rand, 3) {
		out["most_specific_header_mutations_wins"] = true
	}
	return out
}

func (m *manager) health() dict {
	out := dict{"@type": filterTypes + "health_check.v3.HealthCheck", "pass_through_mode": chance(m.Rand, 2)}
	if out["pass_through_mode"] == true {
		if chance(m.Rand, 2) {
			m.c.Stateful = true
			out["cache_time"] = "600s"
		}
	} else if chance(m.Rand, 2) {
		of := dict{}
		for _, name := range []string{"origin", "hurt", "nobody", "missing"} {
			if chance(m.Rand, 3) {
				of[name] = dict{"value": one(m.Rand, 0, 50, 51, 100)}
			}
		}
		if len(of) > 0 {
			out["cluster_min_healthy_percentages"] = of
		}
	}
	path := dict{"name": ":path", "string_match": dict{"exact": "/healthz"}}
	out["headers"] = []any{path}
	if chance(m.Rand, 4) {
		out["headers"] = []any{path, m.headerMatcher()}
	}
	return out
}

// limitOfBuffer is none that a body of HTTP/2, or one with trailers, is over: Envoy takes one that
// comes with the stream's end.
func (m *manager) limitOfBuffer() int {
	if m.c.HTTP2 {
		return one(m.Rand, 11, 1000)
	}
	return one(m.Rand, 5, 10, 11, 1000)
}

func (m *manager) buffer() dict {
	return dict{"@type": filterTypes + "buffer.v3.Buffer", "max_request_bytes": m.limitOfBuffer()}
}

func (m *manager) permission(depth int) dict {
	switch k := m.IntN(7); {
	case k == 0 && depth > 0:
		return dict{"and_rules": dict{"rules": []any{m.permission(depth - 1), m.permission(depth - 1)}}}
	case k == 1 && depth > 0:
		return dict{"or_rules": dict{"rules": []any{m.permission(depth - 1), m.permission(depth - 1)}}}
	case k == 2 && depth > 0:
		return dict{"not_rule": m.permission(depth - 1)}
	case k == 3:
		return dict{"url_path": dict{"path": dict{"prefix": one(m.Rand, "/a", "/direct", "/")}}}
	case k == 4:
		return dict{"any": true}
	}
	return dict{"header": m.headerMatcher()}
}

func (m *manager) rules() dict {
	policies := dict{}
	for _, name := range []string{"one", "two"}[:1+m.IntN(2)] {
		principal := dict{"any": true}
		if chance(m.Rand, 3) {
			principal = dict{"header": m.headerMatcher()}
		}
		policies[name] = dict{"permissions": []any{m.permission(2)}, "principals": []any{principal}}
	}
	return dict{"action": one(m.Rand, "ALLOW", "DENY", "DENY", "LOG"), "policies": policies}
}

func (m *manager) rbac() dict {
	out := dict{"@type": filterTypes + "rbac.v3.RBAC"}
	if !chance(m.Rand, 4) {
		out["rules"] = m.rules()
	}
	if chance(m.Rand, 3) {
		out["shadow_rules"] = m.rules()
		if chance(m.Rand, 3) {
			out["shadow_rules_stat_prefix"] = "p_"
		}
	}
	return out
}
