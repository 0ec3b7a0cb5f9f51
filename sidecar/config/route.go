package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"regexp"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

func (d *decoder) routeConfig(m *routev3.RouteConfiguration, path string) (*route.Config, error) {
	out := &route.Config{Name: m.GetName()}
	for i, vh := range m.GetVirtualHosts() {
		v, err := d.virtualHost(vh, at(under(path, "virtual_hosts"), i))
		if err != nil {
			return nil, err
		}
		out.VirtualHosts = append(out.VirtualHosts, *v)
	}
	return out, nil
}

func (d *decoder) virtualHost(m *routev3.VirtualHost, path string) (*route.VirtualHost, error) {
	out := &route.VirtualHost{Name: m.GetName(), Domains: m.GetDomains()}
	var err error
	if out.Headers, err = mutations(m, path); err != nil {
		return nil, err
	}
	if out.Retry, err = retryPolicy(m.GetRetryPolicy(), path+".retry_policy"); err != nil {
		return nil, err
	}
	for i, r := range m.GetRoutes() {
		rt, err := d.route(r, at(path+".routes", i))
		if err != nil {
			return nil, err
		}
		out.Routes = append(out.Routes, *rt)
	}
	return out, nil
}

func (d *decoder) route(m *routev3.Route, path string) (*route.Route, error) {
	out := &route.Route{Name: m.GetName()}
	f, err := facts(m.GetMetadata(), path+".metadata")
	if err != nil {
		return nil, err
	}
	for k, v := range f {
		if k != "origin" {
			return nil, fail(path+`.metadata.filter_metadata["hauberk"].`+k, "unsupported; remove the field")
		}
		out.Origin = v
	}
	if err := routeMatch(m.GetMatch(), &out.Match, path+".match"); err != nil {
		return nil, err
	}
	if out.Headers, err = mutations(m, path); err != nil {
		return nil, err
	}
	switch a := m.GetAction().(type) {
	case *routev3.Route_Route:
		out.Forward, err = d.forward(a.Route, path+".route")
	case *routev3.Route_Redirect:
		out.Redirect, err = redirect(a.Redirect, path+".redirect")
	case *routev3.Route_DirectResponse:
		out.Direct, err = directResponse(a.DirectResponse, path+".direct_response")
	default:
		return nil, fail(path, "has no action")
	}
	return out, err
}

func routeMatch(m *routev3.RouteMatch, out *route.Match, path string) (err error) {
	switch p := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		out.Prefix = &p.Prefix
	case *routev3.RouteMatch_Path:
		out.Path = &p.Path
	case *routev3.RouteMatch_PathSeparatedPrefix:
		out.PathSeparatedPrefix = &p.PathSeparatedPrefix
	case *routev3.RouteMatch_SafeRegex:
		var re *regexp.Regexp
		if re, err = route.Regex(p.SafeRegex.GetRegex()); err != nil {
			return fail(path+".safe_regex", "%v", err)
		}
		out.Regex = re
	default:
		return fail(path, "has no path specifier")
	}
	out.CaseInsensitive = m.GetCaseSensitive() != nil && !m.GetCaseSensitive().GetValue()
	if m.GetRuntimeFraction() != nil {
		if out.RuntimeFraction, err = fraction(m.GetRuntimeFraction().GetDefaultValue(), path+".runtime_fraction.default_value"); err != nil {
			return err
		}
	}
	for i, h := range m.GetHeaders() {
		hm, err := headerMatch(h, at(path+".headers", i))
		if err != nil {
			return err
		}
		out.Headers = append(out.Headers, *hm)
	}
	for i, q := range m.GetQueryParameters() {
		qm, err := queryMatch(q, at(path+".query_parameters", i))
		if err != nil {
			return err
		}
		out.Query = append(out.Query, *qm)
	}
	return nil
}

// fraction reads a share in millionths. 0 is refused: it would make a rule that
// never matches, which the data path has no form for.
func fraction(m *typev3.FractionalPercent, path string) (uint32, error) {
	scale := map[typev3.FractionalPercent_DenominatorType]uint64{
		typev3.FractionalPercent_HUNDRED: 10_000, typev3.FractionalPercent_TEN_THOUSAND: 100, typev3.FractionalPercent_MILLION: 1,
	}[m.GetDenominator()]
	v := uint64(m.GetNumerator()) * scale
	if v == 0 {
		return 0, fail(path, "a share of 0 never matches; remove the route")
	}
	return uint32(min(v, 1_000_000)), nil
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

func (d *decoder) forward(m *routev3.RouteAction, path string) (*route.Forward, error) {
	out := &route.Forward{
		Cluster:       m.GetCluster(),
		PrefixRewrite: m.GetPrefixRewrite(),
		HostRewrite:   m.GetHostRewriteLiteral(),
		Timeout:       15 * time.Second,
	}
	if m.GetPriority() != corev3.RoutingPriority_DEFAULT {
		return nil, fail(path+".priority", "only DEFAULT is supported")
	}
	if m.GetClusterNotFoundResponseCode() != routev3.RouteAction_SERVICE_UNAVAILABLE {
		return nil, fail(path+".cluster_not_found_response_code", "only SERVICE_UNAVAILABLE is supported")
	}
	if w := m.GetWeightedClusters(); w != nil {
		if err := weightedClusters(w, out, path+".weighted_clusters"); err != nil {
			return nil, err
		}
	} else if out.Cluster == "" {
		return nil, fail(path, "names no cluster")
	}
	var err error
	if m.GetTimeout() != nil {
		if out.Timeout, err = duration(m.GetTimeout(), path+".timeout"); err != nil {
			return nil, err
		}
	}
	if out.IdleTimeout, err = optional(m.GetIdleTimeout(), path+".idle_timeout"); err != nil {
		return nil, err
	}
	if out.Retry, err = retryPolicy(m.GetRetryPolicy(), path+".retry_policy"); err != nil {
		return nil, err
	}
	for i, h := range m.GetHashPolicy() {
		p, err := hashPolicy(h, at(path+".hash_policy", i))
		if err != nil {
			return nil, err
		}
		out.Hash = append(out.Hash, *p)
	}
	return out, nil
}

func weightedClusters(m *routev3.WeightedCluster, out *route.Forward, path string) error {
	total := uint64(0)
	for i, c := range m.GetClusters() {
		here := at(path+".clusters", i)
		if c.GetName() == "" {
			return fail(here+".name", "is empty")
		}
		h, err := mutations(c, here)
		if err != nil {
			return err
		}
		total += uint64(c.GetWeight().GetValue())
		out.Weighted = append(out.Weighted, route.WeightedCluster{Cluster: c.GetName(), Weight: c.GetWeight().GetValue(), Headers: h})
	}
	if total == 0 || total > 1<<32-1 {
		return fail(path, "the weights must add up to 1 to 4294967295, not %d", total)
	}
	return nil
}

func hashPolicy(m *routev3.RouteAction_HashPolicy, path string) (*route.HashPolicy, error) {
	out := &route.HashPolicy{Terminal: m.GetTerminal()}
	switch p := m.GetPolicySpecifier().(type) {
	case *routev3.RouteAction_HashPolicy_Header_:
		out.Header = strings.ToLower(p.Header.GetHeaderName())
	case *routev3.RouteAction_HashPolicy_QueryParameter_:
		out.Query = p.QueryParameter.GetName()
	case *routev3.RouteAction_HashPolicy_ConnectionProperties_:
		if !p.ConnectionProperties.GetSourceIp() {
			return nil, fail(path+".connection_properties.source_ip", "only true is supported")
		}
		out.SourceIP = true
	case *routev3.RouteAction_HashPolicy_Cookie_:
		out.Cookie = &route.CookieHash{Name: p.Cookie.GetName(), Path: p.Cookie.GetPath()}
		var err error
		out.Cookie.TTL, err = optional(p.Cookie.GetTtl(), path+".cookie.ttl")
		return out, err
	default:
		return nil, fail(path, "has no policy specifier")
	}
	return out, nil
}
