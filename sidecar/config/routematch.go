package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	urimatchv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

func (d *decoder) routeMatch(m *routev3.RouteMatch, out *route.Match, path string) (err error) {
	if err := d.pathMatch(m, out, path); err != nil {
		return err
	}
	out.CaseInsensitive = m.GetCaseSensitive() != nil && !m.GetCaseSensitive().GetValue()
	if m.GetRuntimeFraction() != nil {
		share, err := d.runtime.fractional(m.GetRuntimeFraction(), path+".runtime_fraction")
		if err != nil {
			return err
		}
		out.Share = &share
	}
	if out.Headers, err = headerMatches(m.GetHeaders(), path+".headers"); err != nil {
		return err
	}
	for i, q := range m.GetQueryParameters() {
		qm, err := queryMatch(q, at(path+".query_parameters", i))
		if err != nil {
			return err
		}
		out.Query = append(out.Query, *qm)
	}
	for i, c := range m.GetCookies() {
		here := at(path+".cookies", i)
		if c.GetName() == "" {
			return fail(here+".name", "is empty")
		}
		value, err := stringMatch(c.GetStringMatch(), here+".string_match")
		if err != nil {
			return err
		}
		out.Cookies = append(out.Cookies, route.CookieMatch{Name: c.GetName(), Value: value, Invert: c.GetInvertMatch()})
	}
	out.GRPC = m.GetGrpc() != nil
	if t := m.GetTlsContext(); t != nil {
		out.TLS = &route.TLSMatch{Presented: boolean(t.GetPresented()), Validated: boolean(t.GetValidated())}
	}
	return nil
}

func (d *decoder) pathMatch(m *routev3.RouteMatch, out *route.Match, path string) (err error) {
	switch p := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		out.Prefix = &p.Prefix
	case *routev3.RouteMatch_Path:
		out.Path = &p.Path
	case *routev3.RouteMatch_PathSeparatedPrefix:
		out.PathSeparatedPrefix = &p.PathSeparatedPrefix
	case *routev3.RouteMatch_ConnectMatcher_:
		out.Connect = true
	case *routev3.RouteMatch_SafeRegex:
		if out.Regex, err = route.Regex(p.SafeRegex.GetRegex()); err != nil {
			return fail(path+".safe_regex", "%v", err)
		}
	case *routev3.RouteMatch_PathMatchPolicy:
		c, ok := extension[*urimatchv3.UriTemplateMatchConfig](d, p.PathMatchPolicy.GetTypedConfig())
		if !ok {
			return fail(path+".path_match_policy.typed_config", "is missing")
		}
		if out.Template, err = route.NewTemplate(c.GetPathTemplate()); err != nil {
			return fail(path+".path_match_policy.typed_config.path_template", "%v", err)
		}
	default:
		return fail(path, "has no path specifier")
	}
	return nil
}

// share reads a share; more than the whole is the whole.
func share(m *typev3.FractionalPercent, path string) (route.Share, error) {
	unit, err := shareUnit(m, path)
	return route.Share(min(uint64(m.GetNumerator())*uint64(unit), uint64(route.All))), err
}

// shareUnit is the share that a numerator of 1 stands for.
func shareUnit(m *typev3.FractionalPercent, path string) (route.Share, error) {
	unit, ok := map[typev3.FractionalPercent_DenominatorType]route.Share{
		typev3.FractionalPercent_HUNDRED: route.All / 100, typev3.FractionalPercent_TEN_THOUSAND: route.All / 10_000, typev3.FractionalPercent_MILLION: route.All / 1_000_000,
	}[m.GetDenominator()]
	if !ok {
		return 0, fail(path+".denominator", "unknown value %d", m.GetDenominator())
	}
	return unit, nil
}

func headerMatches(ms []*routev3.HeaderMatcher, path string) ([]route.HeaderMatch, error) {
	var out []route.HeaderMatch
	for i, m := range ms {
		h, err := headerMatch(m, at(path, i))
		if err != nil {
			return nil, err
		}
		out = append(out, *h)
	}
	return out, nil
}

func headerMatch(m *routev3.HeaderMatcher, path string) (*route.HeaderMatch, error) {
	out := &route.HeaderMatch{
		Name:           strings.ToLower(m.GetName()),
		Invert:         m.GetInvertMatch(),
		MissingAsEmpty: m.GetTreatMissingHeaderAsEmpty(),
	}
	var err error
	switch s := m.GetHeaderMatchSpecifier().(type) {
	case *routev3.HeaderMatcher_StringMatch:
		out.Value, err = stringMatch(s.StringMatch, path+".string_match")
	case *routev3.HeaderMatcher_ExactMatch:
		out.Value = &route.StringMatch{Exact: &s.ExactMatch}
		if s.ExactMatch == "" {
			// The deprecated form takes an empty text for any value.
			out.Value = &route.StringMatch{Prefix: &s.ExactMatch}
		}
	case *routev3.HeaderMatcher_PrefixMatch:
		out.Value = &route.StringMatch{Prefix: &s.PrefixMatch}
	case *routev3.HeaderMatcher_SuffixMatch:
		out.Value = &route.StringMatch{Suffix: &s.SuffixMatch}
	case *routev3.HeaderMatcher_ContainsMatch:
		out.Value = &route.StringMatch{Contains: &s.ContainsMatch}
	case *routev3.HeaderMatcher_SafeRegexMatch:
		out.Value = &route.StringMatch{}
		if out.Value.Regex, err = route.Regex(s.SafeRegexMatch.GetRegex()); err != nil {
			return nil, fail(path+".safe_regex_match", "%v", err)
		}
	case *routev3.HeaderMatcher_RangeMatch:
		out.Range = &[2]int64{s.RangeMatch.GetStart(), s.RangeMatch.GetEnd()}
	case *routev3.HeaderMatcher_PresentMatch:
		out.Present = &s.PresentMatch
	case nil:
		present := true
		out.Present = &present
	default:
		return nil, fail(path, "has an unsupported match specifier")
	}
	return out, err
}

func queryMatch(m *routev3.QueryParameterMatcher, path string) (*route.QueryMatch, error) {
	out := &route.QueryMatch{Name: m.GetName()}
	var err error
	switch s := m.GetQueryParameterMatchSpecifier().(type) {
	case *routev3.QueryParameterMatcher_StringMatch:
		out.Value, err = stringMatch(s.StringMatch, path+".string_match")
	case *routev3.QueryParameterMatcher_PresentMatch:
		out.Present = &s.PresentMatch
	case nil:
		present := true
		out.Present = &present
	}
	return out, err
}
