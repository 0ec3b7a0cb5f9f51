package config

import (
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkinputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	sslinputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/ssl/v3"
	ipv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/input_matchers/ip/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// xDS's own matching language, of which RBAC filters and connection managers make use.
func init() {
	const list, inputs = "xds.type.matcher.v3.Matcher.MatcherList", "envoy.extensions.matching.common_inputs."
	declare("Matchers", map[protoreflect.FullName]*rules{
		"xds.type.matcher.v3.Matcher": {
			use:     "matcher_list on_no_match",
			instead: map[string]string{"matcher_tree": "use matcher_list"},
		},
		"xds.type.matcher.v3.Matcher.OnMatch": {
			use: "action",
			instead: map[string]string{
				"matcher":       "write its cases into the list, each with and_matcher",
				"keep_matching": "the first case that holds decides",
			},
		},
		list:                                {use: "matchers"},
		list + ".FieldMatcher":              {use: "predicate on_match"},
		list + ".Predicate":                 {use: "single_predicate or_matcher and_matcher not_matcher"},
		list + ".Predicate.PredicateList":   {use: "predicate"},
		list + ".Predicate.SinglePredicate": {use: "input value_match custom_match"},
		"xds.core.v3.CidrRange":             {use: "address_prefix prefix_len"},
		"xds.core.v3.TypedExtensionConfig":  {use: "typed_config", ignore: nameOnly},
		"xds.type.matcher.v3.StringMatcher": {use: "exact prefix suffix contains safe_regex ignore_case"},
		"xds.type.matcher.v3.RegexMatcher": {
			use: "regex", ignore: map[string]string{"google_re2": "RE2 syntax is the only one"},
		},
		"envoy.config.rbac.v3.Action":                       {use: "name action"},
		"envoy.type.matcher.v3.HttpRequestHeaderMatchInput": {use: "header_name"},
		inputs + "network.v3.SourceIPInput":                 {},
		inputs + "network.v3.DirectSourceIPInput":           {},
		inputs + "network.v3.ServerNameInput":               {},
		inputs + "ssl.v3.UriSanInput":                       {},
		"envoy.extensions.matching.input_matchers.ip.v3.Ip": {use: "cidr_ranges", ignore: map[string]string{"stat_prefix": statsReason}},
	})
	extend("xds.core.v3.TypedExtensionConfig.typed_config", "extension",
		&rbacv3.Action{}, &matcherv3.HttpRequestHeaderMatchInput{}, &networkinputsv3.SourceIPInput{}, &networkinputsv3.DirectSourceIPInput{},
		&hcmv3.HttpConnectionManager_ForwardClientCertConfig{}, &networkinputsv3.ServerNameInput{}, &sslinputsv3.UriSanInput{}, &ipv3.Ip{})
}
