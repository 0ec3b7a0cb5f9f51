package config

import (
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
)

const (
	allows = `{action: {name: a, typed_config: {"@type": type.googleapis.com/envoy.config.rbac.v3.Action, name: open}}}`
	denies = `{action: {name: a, typed_config: {"@type": type.googleapis.com/envoy.config.rbac.v3.Action, name: closed, action: DENY}}}`
	byIP   = `custom_match: {name: m, typed_config: {"@type": type.googleapis.com/envoy.extensions.matching.input_matchers.ip.v3.Ip, stat_prefix: x, cidr_ranges: [{address_prefix: 10.1.0.0, prefix_len: 16}]}}`
)

// inputOf is an input of a predicate.
func inputOf(typ string) string {
	return `input: {name: i, typed_config: {"@type": type.googleapis.com/envoy.` + typ + `}}`
}

// oneCase is a matcher with one predicate.
func oneCase(predicate string) string {
	return `matcher: {matcher_list: {matchers: [{predicate: {` + predicate + `}, on_match: ` + allows + `}]}, on_no_match: ` + denies + `}`
}

const headerInput, sourceInput = "type.matcher.v3.HttpRequestHeaderMatchInput, header_name: X-A", "extensions.matching.common_inputs.network.v3.SourceIPInput"

// networkRBAC is a bootstrap with a network filter.
func networkRBAC(fields string) []byte {
	return []byte(`
static_resources:
  clusters: [{name: c, load_assignment: {cluster_name: c}}]
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - {name: rbac, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: x, ` + fields + `}}
      - {name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: c}}
`)
}

// TestRBACMatchers: what gateways and meshes send in place of policies.
func TestRBACMatchers(t *testing.T) {
	for name, predicate := range map[string]string{
		"addresses":        "single_predicate: {" + inputOf(sourceInput) + ", " + byIP + "}",
		"direct addresses": "single_predicate: {" + inputOf("extensions.matching.common_inputs.network.v3.DirectSourceIPInput") + ", " + byIP + "}",
		"names of peers":   "single_predicate: {" + inputOf("extensions.matching.common_inputs.ssl.v3.UriSanInput") + ", value_match: {prefix: 'spiffe://td/'}}",
		"server names":     "single_predicate: {" + inputOf("extensions.matching.common_inputs.network.v3.ServerNameInput") + ", value_match: {safe_regex: {google_re2: {}, regex: 'a+'}}}",
	} {
		for _, shadow := range []string{"", "shadow_"} {
			if _, err := ParseBootstrap(networkRBAC(shadow + oneCase(predicate))); err != nil {
				t.Errorf("%s%s, network: %v", shadow, name, err)
			}
			if _, err := ParseBootstrap(edgeManager("", "rbac.v3.RBAC, "+shadow+oneCase(predicate))); err != nil {
				t.Errorf("%s%s, HTTP: %v", shadow, name, err)
			}
		}
	}
	b, err := ParseBootstrap(edgeManager("", "rbac.v3.RBAC, "+oneCase(
		"and_matcher: {predicate: [{not_matcher: {single_predicate: {"+inputOf(headerInput)+", value_match: {exact: x, ignore_case: true}}}}, {single_predicate: {"+inputOf(sourceInput)+", "+byIP+"}}]}")))
	if err != nil {
		t.Fatal(err)
	}
	o := b.Listeners[0].Chains[0].HTTP.RBAC[0].Rules.Ordered
	and := o.Cases[0].When.And
	if *and[0].Not.Value.Exact != "x" || and[0].Not.Header != "x-a" || and[1].Source[0].String() != "10.1.0.0/16" || o.Cases[0].Then.Name != "open" || o.Otherwise.Name != "closed" {
		t.Errorf("%+v", o)
	}
}

func TestRBACMatchersThatAreRefused(t *testing.T) {
	header := "single_predicate: {" + inputOf(headerInput) + ", value_match: {exact: x}}"
	deep := strings.Repeat("not_matcher: {", 40) + header + strings.Repeat("}", 40)
	for _, c := range []struct{ fields, want string }{
		{oneCase("single_predicate: {" + inputOf(sourceInput) + ", value_match: {exact: 10.0.0.1}}"), "predicate.single_predicate: needs a custom_match of type envoy.extensions.matching.input_matchers.ip.v3.Ip"},
		{oneCase("single_predicate: {" + inputOf(headerInput) + ", " + byIP + "}"), "predicate.single_predicate: needs a value_match"},
		{oneCase("single_predicate: {" + inputOf("config.rbac.v3.Action, name: a") + ", value_match: {exact: x}}"), "input.typed_config: is no input that is known here"},
		{oneCase("single_predicate: {" + inputOf("extensions.matching.common_inputs.network.v3.DynamicMetadataInput, filter: f") + ", value_match: {exact: x}}"), "unsupported extension"},
		{oneCase("single_predicate: {" + inputOf(headerInput) + ", value_match: {safe_regex: {google_re2: {}, regex: '('}}}"), "value_match.safe_regex: regex"},
		{oneCase(deep), "is nested more than 32 deep"},
		{strings.Replace(oneCase(header), allows, `{action: {name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.matching.common_inputs.ssl.v3.UriSanInput}}}`, 1), "matchers[0].on_match.action.typed_config: is no envoy.config.rbac.v3.Action"},
		{strings.Replace(oneCase(header), "on_match: {", "on_match: {keep_matching: true, ", 1), "on_match.keep_matching: unsupported; remove the field: the first case that holds decides"},
		{strings.Replace(oneCase(header), denies, "{matcher: {on_no_match: "+denies+"}}", 1), "on_no_match.matcher: unsupported; remove the field"},
		{"matcher: {matcher_tree: {" + inputOf(headerInput) + ", exact_match_map: {map: {a: " + allows + "}}}}", "matcher.matcher_tree: unsupported; remove the field: use matcher_list"},
	} {
		if _, err := ParseBootstrap(edgeManager("", "rbac.v3.RBAC, "+c.fields)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\ngot  %v\nwant %s", c.fields, err, c.want)
		}
	}
	if _, err := ParseBootstrap(networkRBAC(oneCase(header))); err == nil || !strings.Contains(err.Error(), "predicate.single_predicate.input: a network filter sees no request") {
		t.Error(err)
	}
}

// TestRulesBesideAMatcher: the matcher decides alone, as in Envoy, for better or worse.
func TestRulesBesideAMatcher(t *testing.T) {
	const open = "rules: {action: ALLOW, policies: {p: {permissions: [{any: true}], principals: [{any: true}]}}}, "
	predicate := "single_predicate: {" + inputOf(sourceInput) + ", " + byIP + "}"
	for _, fields := range []string{open + oneCase(predicate), "shadow_" + open + "shadow_" + oneCase(predicate)} {
		b, err := ParseBootstrap(networkRBAC(fields))
		if err != nil {
			t.Errorf("network, %s: %v", fields, err)
			continue
		}
		f := b.Listeners[0].Chains[0].RBAC[0]
		for _, r := range []*authz.Rules{f.Rules, f.Shadow} {
			if r != nil && (r.Ordered == nil || len(r.Policies) > 0) {
				t.Errorf("%s: decided by %+v", fields, r)
			}
		}
		if _, err = ParseBootstrap(edgeManager("", "rbac.v3.RBAC, "+fields)); err != nil {
			t.Errorf("HTTP, %s: %v", fields, err)
		}
	}
	if _, err := ParseBootstrap(networkRBAC("matcher: {}, rules: {policies: {p: {permissions: [{any: true}], principals: [{any: true}], condition: {const_expr: {bool_value: false}}}}}")); err == nil || !strings.Contains(err.Error(), "condition: unsupported") {
		t.Errorf("rules that a matcher replaces, with what is not there: %v", err)
	}
}

// TestEnforcement: when a network filter decides, and how long it lets whom it denies wait.
func TestEnforcement(t *testing.T) {
	const denies = "rules: {action: DENY, policies: {p: {permissions: [%s], principals: [{any: true}]}}}"
	found := strings.Replace(denies, "%s", "{metadata: {filter: envoy.filters.network.rbac, path: [{key: shadow_engine_result}], value: {string_match: {exact: denied}}}}", 1)
	anything := strings.Replace(denies, "%s", "{any: true}", 1)
	for fields, want := range map[string]time.Duration{
		anything: 0,
		anything + ", enforcement_type: CONTINUOUS, delay_deny: 0.25s":                                                                      250 * time.Millisecond,
		strings.ReplaceAll(found, "envoy.filters.network.rbac", "envoy.filters.listener.proxy_protocol") + ", enforcement_type: CONTINUOUS": 0,
		found + ", enforcement_type: ONE_TIME_ON_FIRST_BYTE, delay_deny: 1s":                                                                time.Second,
	} {
		if b, err := ParseBootstrap(networkRBAC(fields)); err != nil || b.Listeners[0].Chains[0].RBAC[0].DenyDelay != want {
			t.Errorf("%s: %v", fields, err)
		}
	}
	for fields, want := range map[string]string{
		anything + ", delay_deny: -1s":              "typed_config.delay_deny: ",
		anything + ", enforcement_type: 7":          "typed_config.enforcement_type: unknown value 7",
		found + ", enforcement_type: CONTINUOUS":    "typed_config.enforcement_type: CONTINUOUS asks again what filters behind it have found meanwhile",
		"shadow_" + found + ", enforcement_type: 1": "typed_config.enforcement_type: CONTINUOUS asks again",
	} {
		if _, err := ParseBootstrap(networkRBAC(fields)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\ngot  %v\nwant %s", fields, err, want)
		}
	}
}
