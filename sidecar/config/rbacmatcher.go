package config

import (
	"net/netip"
	"strings"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	networkinputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	sslinputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/ssl/v3"
	ipv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/input_matchers/ip/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// ordered reads a matcher of an RBAC filter: its list of cases, of which the first that
// holds decides.
func (d *decoder) ordered(l level, m *xdsmatcherv3.Matcher, path string) (*authz.Ordered, error) {
	out := &authz.Ordered{}
	for i, c := range m.GetMatcherList().GetMatchers() {
		here := at(path+".matcher_list.matchers", i)
		then, err := d.outcome(c.GetOnMatch(), here+".on_match")
		if err != nil {
			return nil, err
		}
		out.Cases = append(out.Cases, authz.Case{Then: *then})
		if err := d.condition(l, c.GetPredicate(), &out.Cases[i].When, here+".predicate", 0); err != nil {
			return nil, err
		}
	}
	var err error
	if m.GetOnNoMatch() != nil {
		out.Otherwise, err = d.outcome(m.GetOnNoMatch(), path+".on_no_match")
	}
	return out, err
}

func (d *decoder) outcome(m *xdsmatcherv3.Matcher_OnMatch, path string) (*authz.Outcome, error) {
	path += ".action.typed_config"
	a, ok := extension[*rbacv3.Action](d, m.GetAction().GetTypedConfig())
	if !ok {
		return nil, fail(path, "is no envoy.config.rbac.v3.Action")
	}
	actions := map[rbacv3.RBAC_Action]authz.Action{rbacv3.RBAC_ALLOW: authz.Allow, rbacv3.RBAC_DENY: authz.Deny, rbacv3.RBAC_LOG: authz.Log}
	action, known := actions[a.GetAction()]
	switch {
	case !known:
		return nil, fail(path+".action", "unknown value %d", a.GetAction())
	case a.GetName() == "":
		return nil, fail(path+".name", "is empty: decisions are counted and told by it")
	}
	return &authz.Outcome{Name: a.GetName(), Action: action}, nil
}

func (d *decoder) condition(l level, m *xdsmatcherv3.Matcher_MatcherList_Predicate, out *authz.Condition, path string, depth int) (err error) {
	if depth > maxRuleDepth {
		return fail(path, "is nested more than %d deep", maxRuleDepth)
	}
	switch p := m.GetMatchType().(type) {
	case *xdsmatcherv3.Matcher_MatcherList_Predicate_AndMatcher:
		out.And, err = d.conditions(l, p.AndMatcher.GetPredicate(), path+".and_matcher.predicate", depth)
	case *xdsmatcherv3.Matcher_MatcherList_Predicate_OrMatcher:
		out.Or, err = d.conditions(l, p.OrMatcher.GetPredicate(), path+".or_matcher.predicate", depth)
	case *xdsmatcherv3.Matcher_MatcherList_Predicate_NotMatcher:
		out.Not = &authz.Condition{}
		err = d.condition(l, p.NotMatcher, out.Not, path+".not_matcher", depth+1)
	case *xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_:
		err = d.single(l, p.SinglePredicate, out, path+".single_predicate")
	default:
		return fail(path, "has no predicate")
	}
	return err
}

func (d *decoder) conditions(l level, ms []*xdsmatcherv3.Matcher_MatcherList_Predicate, path string, depth int) ([]authz.Condition, error) {
	out := make([]authz.Condition, len(ms))
	for i, m := range ms {
		if err := d.condition(l, m, &out[i], at(path, i), depth+1); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// single reads what an input is compared with: an address with prefixes, all else with a text.
func (d *decoder) single(l level, m *xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate, out *authz.Condition, path string) (err error) {
	address, err := d.input(l, m.GetInput(), out, path+".input")
	if err != nil {
		return err
	}
	if address == nil {
		if m.GetValueMatch() == nil {
			return fail(path, "needs a value_match: the input is a text")
		}
		out.Value, err = textMatch(m.GetValueMatch(), path+".value_match")
		return err
	}
	ip, ok := extension[*ipv3.Ip](d, m.GetCustomMatch().GetTypedConfig())
	if !ok {
		return fail(path, "needs a custom_match of type envoy.extensions.matching.input_matchers.ip.v3.Ip: the input is an address")
	}
	for i, r := range ip.GetCidrRanges() {
		p, err := prefix(r, at(path+".custom_match.typed_config.cidr_ranges", i))
		if err != nil {
			return err
		}
		*address = append(*address, p)
	}
	return nil
}

// input reads what is looked at; for an address it returns where its prefixes go.
func (d *decoder) input(l level, m *xdscorev3.TypedExtensionConfig, out *authz.Condition, path string) (address *[]netip.Prefix, err error) {
	switch in := d.unpacked[m.GetTypedConfig()].(type) {
	case *matcherv3.HttpRequestHeaderMatchInput:
		out.Header = strings.ToLower(in.GetHeaderName())
		return nil, l.request(path)
	case *sslinputsv3.UriSanInput:
		out.URISAN = true
	case *networkinputsv3.ServerNameInput:
		out.SNI = true
	case *networkinputsv3.SourceIPInput:
		return &out.Source, nil
	case *networkinputsv3.DirectSourceIPInput:
		return &out.DirectSource, nil
	default:
		return nil, fail(path+".typed_config", "is no input that is known here")
	}
	return nil, nil
}

// textMatch reads a StringMatcher of xDS, which says what Envoy's says.
func textMatch(m *xdsmatcherv3.StringMatcher, path string) (*route.StringMatch, error) {
	out := &matcherv3.StringMatcher{IgnoreCase: m.GetIgnoreCase()}
	switch p := m.GetMatchPattern().(type) {
	case *xdsmatcherv3.StringMatcher_Exact:
		out.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: p.Exact}
	case *xdsmatcherv3.StringMatcher_Prefix:
		out.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: p.Prefix}
	case *xdsmatcherv3.StringMatcher_Suffix:
		out.MatchPattern = &matcherv3.StringMatcher_Suffix{Suffix: p.Suffix}
	case *xdsmatcherv3.StringMatcher_Contains:
		out.MatchPattern = &matcherv3.StringMatcher_Contains{Contains: p.Contains}
	case *xdsmatcherv3.StringMatcher_SafeRegex:
		out.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: p.SafeRegex.GetRegex()}}
	}
	return stringMatch(out, path)
}
