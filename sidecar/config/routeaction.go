package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	urirewritev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/rewrite/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// defaultRouteTimeout is Envoy's for a route that names none.
const defaultRouteTimeout = 15 * time.Second

// forward reads a route action; template is what the route's match is made of, nil
// for another kind.
func (d *decoder) forward(m *routev3.RouteAction, template *route.Template, path string) (*route.Forward, error) {
	out := &route.Forward{
		Timeout: defaultRouteTimeout, Hedge: hedgePolicy(m.GetHedgePolicy()),
		AutoHostRewrite: m.GetAutoHostRewrite().GetValue(), AppendForwardedHost: m.GetAppendXForwardedHost(),
	}
	switch m.GetPriority() {
	case corev3.RoutingPriority_DEFAULT:
	case corev3.RoutingPriority_HIGH:
		out.HighPriority = true
	default:
		return nil, fail(path+".priority", "unknown value %d", m.GetPriority())
	}
	out.Metadata = subsetMetadata(m.GetMetadataMatch())
	switch m.GetClusterNotFoundResponseCode() {
	case routev3.RouteAction_SERVICE_UNAVAILABLE:
	case routev3.RouteAction_NOT_FOUND:
		out.NotFoundStatus = 404
	case routev3.RouteAction_INTERNAL_SERVER_ERROR:
		out.NotFoundStatus = 500
	default:
		return nil, fail(path+".cluster_not_found_response_code", "unknown value %d", m.GetClusterNotFoundResponseCode())
	}
	for _, step := range []func(*routev3.RouteAction, *route.Forward, string) error{
		d.clusters, routeTimeouts,
	} {
		if err := step(m, out, path); err != nil {
			return nil, err
		}
	}
	var err error
	if out.Rewrite, err = d.rewrite(m, template, path); err != nil {
		return nil, err
	}
	if out.Retry, err = retryPolicy(m.GetRetryPolicy(), path+".retry_policy"); err != nil {
		return nil, err
	}
	if out.Hash, err = hashPolicies(m.GetHashPolicy(), path+".hash_policy"); err != nil {
		return nil, err
	}
	if out.RateLimits, err = rateLimits(m.GetRateLimits(), path+".rate_limits", false); err != nil {
		return nil, err
	}
	out.IncludeHostRateLimits = m.GetIncludeVhRateLimits().GetValue()
	if out.InternalRedirect, err = d.internalRedirect(m, path); err != nil {
		return nil, err
	}
	for i, u := range m.GetUpgradeConfigs() {
		here := at(path+".upgrade_configs", i)
		if err = addUpgrade(&out.Upgrades, u.GetUpgradeType(), u.GetEnabled(), here); err != nil {
			return nil, err
		}
		if u.GetConnectConfig() == nil {
			continue
		}
		if !strings.EqualFold(u.GetUpgradeType(), "CONNECT") {
			return nil, fail(here+".connect_config", "is for CONNECT only")
		}
		out.Upgrades[i].Terminate, out.Upgrades[i].Post = true, u.GetConnectConfig().GetAllowPost()
	}
	out.Mirrors, err = d.mirrors(m.GetRequestMirrorPolicies(), path+".request_mirror_policies")
	return out, err
}

// clusters reads where a route leads.
func (d *decoder) clusters(m *routev3.RouteAction, out *route.Forward, path string) error {
	switch c := m.GetClusterSpecifier().(type) {
	case *routev3.RouteAction_Cluster:
		if out.Cluster = c.Cluster; c.Cluster == "" {
			return fail(path+".cluster", "is empty")
		}
	case *routev3.RouteAction_ClusterHeader:
		if out.ClusterHeader = strings.ToLower(c.ClusterHeader); c.ClusterHeader == "" {
			return fail(path+".cluster_header", "is empty")
		}
	case *routev3.RouteAction_WeightedClusters:
		return d.weightedClusters(c.WeightedClusters, out, path+".weighted_clusters")
	default:
		return fail(path, "names no cluster")
	}
	return nil
}

func (d *decoder) weightedClusters(m *routev3.WeightedCluster, out *route.Forward, path string) error {
	total := uint64(0)
	for i, c := range m.GetClusters() {
		here := at(path+".clusters", i)
		leg := route.WeightedCluster{
			Cluster: c.GetName(), ClusterHeader: strings.ToLower(c.GetClusterHeader()), Weight: c.GetWeight().GetValue(),
			HostRewrite: c.GetHostRewriteLiteral(), Metadata: subsetMetadata(c.GetMetadataMatch()),
		}
		if (leg.Cluster == "") == (leg.ClusterHeader == "") {
			return fail(here+".name", "exactly one of name and cluster_header must be set")
		}
		if c.GetWeight() == nil {
			return fail(here+".weight", "is missing")
		}
		var err error
		if leg.Headers, err = mutations(c, here); err != nil {
			return err
		}
		if leg.Filters, err = d.filterOverrides(c.GetTypedPerFilterConfig(), here+".typed_per_filter_config"); err != nil {
			return err
		}
		if prefix := m.GetRuntimeKeyPrefix(); prefix != "" {
			leg.Weight = d.runtime.number32(prefix+"."+c.GetName(), leg.Weight)
		}
		total += uint64(leg.Weight)
		out.Weighted = append(out.Weighted, leg)
	}
	if total == 0 || total > 1<<32-1 {
		return fail(path, "the weights must add up to 1 to 4294967295, not %d", total)
	}
	out.WeightHeader, out.WeightByHash = strings.ToLower(m.GetHeaderName()), m.GetUseHashPolicy().GetValue()
	return nil
}

// subsetMetadata is what Envoy's subset load balancer looks at.
func subsetMetadata(m *corev3.Metadata) map[string]any {
	if s := m.GetFilterMetadata()[lbNamespace]; s != nil {
		return s.AsMap()
	}
	return nil
}

// rewrite reads what of a request's path and authority is replaced, nil for nothing.
func (d *decoder) rewrite(m *routev3.RouteAction, template *route.Template, path string) (*route.Rewrite, error) {
	out := &route.Rewrite{}
	if err := hostRewrite(m, out, path); err != nil {
		return nil, err
	}
	if err := d.pathRewrite(m, template, out, path); err != nil {
		return nil, err
	}
	if *out == (route.Rewrite{}) {
		return nil, nil
	}
	return out, nil
}

// pathRewrite reads the one rewrite of the path that a route may have.
func (d *decoder) pathRewrite(m *routev3.RouteAction, template *route.Template, out *route.Rewrite, path string) (err error) {
	set := 0
	if out.Prefix = m.GetPrefixRewrite(); out.Prefix != "" {
		if set++; template != nil {
			return fail(path+".prefix_rewrite", "does not go together with path_match_policy; use path_rewrite_policy")
		}
	}
	if m.GetRegexRewrite() != nil {
		set++
		if out.Regex, err = substitution(m.GetRegexRewrite(), path+".regex_rewrite"); err != nil {
			return err
		}
	}
	if p := m.GetPathRewritePolicy(); p != nil {
		set++
		here := path + ".path_rewrite_policy.typed_config"
		c, ok := extension[*urirewritev3.UriTemplateRewriteConfig](d, p.GetTypedConfig())
		switch {
		case !ok:
			return fail(here, "is missing")
		case template == nil:
			return fail(here, "needs a match by path_match_policy, whose variables it uses")
		}
		if out.Template, err = route.NewTemplateRewrite(c.GetPathTemplateRewrite(), template); err != nil {
			return fail(here+".path_template_rewrite", "%v", err)
		}
	}
	if out.Path = m.GetPathRewrite(); out.Path != "" {
		set++
	}
	if set > 1 {
		return fail(path, "only one of prefix_rewrite, regex_rewrite, path_rewrite_policy and path_rewrite may be set")
	}
	return checkValue(out.Path, path+".path_rewrite")
}

func hostRewrite(m *routev3.RouteAction, out *route.Rewrite, path string) (err error) {
	switch h := m.GetHostRewriteSpecifier().(type) {
	case *routev3.RouteAction_HostRewriteLiteral:
		out.Host = h.HostRewriteLiteral
	case *routev3.RouteAction_HostRewriteHeader:
		out.HostHeader = strings.ToLower(h.HostRewriteHeader)
	case *routev3.RouteAction_HostRewritePathRegex:
		out.HostRegex, err = substitution(h.HostRewritePathRegex, path+".host_rewrite_path_regex")
	case *routev3.RouteAction_HostRewrite:
		out.HostFormat = h.HostRewrite
		err = checkValue(h.HostRewrite, path+".host_rewrite")
	}
	return err
}

// checkValue refuses a text with operators that do not exist.
func checkValue(text, path string) error {
	if _, err := route.NewValue(text); err != nil {
		return fail(path, "%v", err)
	}
	return nil
}

func substitution(m *matcherv3.RegexMatchAndSubstitute, path string) (*route.Substitution, error) {
	out, err := route.NewSubstitution(m.GetPattern().GetRegex(), m.GetSubstitution())
	if err != nil {
		return nil, fail(path, "%v", err)
	}
	return out, nil
}

func routeTimeouts(m *routev3.RouteAction, out *route.Forward, path string) (err error) {
	if m.GetTimeout() != nil {
		if out.Timeout, err = duration(m.GetTimeout(), path+".timeout"); err != nil {
			return err
		}
	}
	if out.IdleTimeout, err = optional(m.GetIdleTimeout(), path+".idle_timeout"); err != nil {
		return err
	}
	if out.FlushTimeout, err = optional(m.GetFlushTimeout(), path+".flush_timeout"); err != nil {
		return err
	}
	if m.GetMaxGrpcTimeout() != nil {
		out.GRPCLimit = &route.GRPCLimit{}
		if out.GRPCLimit.Max, err = duration(m.GetMaxGrpcTimeout(), path+".max_grpc_timeout"); err != nil {
			return err
		}
	}
	offset, err := duration(m.GetGrpcTimeoutOffset(), path+".grpc_timeout_offset")
	if err != nil {
		return err
	}
	if out.GRPCLimit != nil {
		out.GRPCLimit.Offset = offset
	}
	s := m.GetMaxStreamDuration()
	if s == nil {
		return nil
	}
	here := path + ".max_stream_duration"
	out.StreamDuration = &route.StreamDuration{}
	if out.StreamDuration.Max, err = optional(s.GetMaxStreamDuration(), here+".max_stream_duration"); err != nil {
		return err
	}
	if out.StreamDuration.GRPCMax, err = optional(s.GetGrpcTimeoutHeaderMax(), here+".grpc_timeout_header_max"); err != nil {
		return err
	}
	out.StreamDuration.GRPCOffset, err = duration(s.GetGrpcTimeoutHeaderOffset(), here+".grpc_timeout_header_offset")
	return err
}

func hashPolicies(ms []*routev3.RouteAction_HashPolicy, path string) ([]route.HashPolicy, error) {
	var out []route.HashPolicy
	for i, m := range ms {
		p, err := hashPolicy(m, at(path, i))
		if err != nil {
			return nil, err
		}
		if p != nil {
			out = append(out, *p)
		}
	}
	return out, nil
}

// hashPolicy returns nil for what hashes nothing, which is no policy.
func hashPolicy(m *routev3.RouteAction_HashPolicy, path string) (_ *route.HashPolicy, err error) {
	out := &route.HashPolicy{Terminal: m.GetTerminal()}
	switch p := m.GetPolicySpecifier().(type) {
	case *routev3.RouteAction_HashPolicy_Header_:
		out.Header = strings.ToLower(p.Header.GetHeaderName())
		if r := p.Header.GetRegexRewrite(); r != nil {
			out.HeaderRewrite, err = substitution(r, path+".header.regex_rewrite")
		}
	case *routev3.RouteAction_HashPolicy_QueryParameter_:
		out.Query = p.QueryParameter.GetName()
	case *routev3.RouteAction_HashPolicy_ConnectionProperties_:
		if !p.ConnectionProperties.GetSourceIp() {
			return nil, nil
		}
		out.SourceIP = true
	case *routev3.RouteAction_HashPolicy_Cookie_:
		out.Cookie = &route.CookieHash{Name: p.Cookie.GetName(), Path: p.Cookie.GetPath()}
		for i, a := range p.Cookie.GetAttributes() {
			if strings.ContainsAny(a.GetName()+a.GetValue(), ";\r\n") || a.GetName() == "" {
				return nil, fail(at(path+".cookie.attributes", i), "%q=%q is no attribute of a cookie", a.GetName(), a.GetValue())
			}
			out.Cookie.Attributes = append(out.Cookie.Attributes, route.CookieAttribute{Name: a.GetName(), Value: a.GetValue()})
		}
		out.Cookie.TTL, err = optional(p.Cookie.GetTtl(), path+".cookie.ttl")
	default:
		return nil, fail(path, "has no policy specifier")
	}
	return out, err
}

func (d *decoder) mirrors(ms []*routev3.RouteAction_RequestMirrorPolicy, path string) ([]route.Mirror, error) {
	var out []route.Mirror
	for i, m := range ms {
		here := at(path, i)
		r := route.Mirror{
			Cluster: m.GetCluster(), ClusterHeader: strings.ToLower(m.GetClusterHeader()), Share: route.All,
			KeepHost: m.GetDisableShadowHostSuffixAppend(), HostRewrite: m.GetHostRewriteLiteral(),
			Unsampled: m.GetTraceSampled() != nil && !m.GetTraceSampled().GetValue(),
		}
		if (r.Cluster == "") == (r.ClusterHeader == "") {
			return nil, fail(here, "exactly one of cluster and cluster_header must be set")
		}
		var err error
		if m.GetRuntimeFraction() != nil {
			if r.Share, err = d.runtime.fractional(m.GetRuntimeFraction(), here+".runtime_fraction"); err != nil {
				return nil, err
			}
		}
		if r.Mutations, err = headerSteps(m.GetRequestHeadersMutations(), here+".request_headers_mutations", ofRequest); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func redirect(m *routev3.RedirectAction, template *route.Template, path string) (*route.Redirect, error) {
	out := &route.Redirect{
		Scheme:        m.GetSchemeRedirect(),
		Host:          m.GetHostRedirect(),
		Port:          int(m.GetPortRedirect()),
		Path:          m.GetPathRedirect(),
		PrefixRewrite: m.GetPrefixRewrite(),
		PathRewrite:   m.GetPathRewrite(),
		StripQuery:    m.GetStripQuery(),
	}
	if out.PrefixRewrite != "" && template != nil {
		return nil, fail(path+".prefix_rewrite", "does not go together with path_match_policy; use regex_rewrite")
	}
	if err := checkValue(out.PathRewrite, path+".path_rewrite"); err != nil {
		return nil, err
	}
	if m.GetHttpsRedirect() {
		out.Scheme = "https"
	}
	if r := m.GetRegexRewrite(); r != nil {
		var err error
		if out.RegexRewrite, err = substitution(r, path+".regex_rewrite"); err != nil {
			return nil, err
		}
	}
	code, ok := map[routev3.RedirectAction_RedirectResponseCode]int{
		routev3.RedirectAction_MOVED_PERMANENTLY: 301, routev3.RedirectAction_FOUND: 302, routev3.RedirectAction_SEE_OTHER: 303,
		routev3.RedirectAction_TEMPORARY_REDIRECT: 307, routev3.RedirectAction_PERMANENT_REDIRECT: 308,
	}[m.GetResponseCode()]
	if !ok {
		return nil, fail(path+".response_code", "unknown value %d", m.GetResponseCode())
	}
	out.Code = code
	return out, nil
}

// maxDirectBody is Envoy's default bound for direct responses; no configuration
// raises it above directBodyCap.
const (
	maxDirectBody = 4096
	directBodyCap = 1 << 20
)

func (d *decoder) directResponse(m *routev3.DirectResponseAction, path string) (*route.DirectResponse, error) {
	body, err := d.text(m.GetBody(), path+".body")
	if err != nil {
		return nil, err
	}
	if len(body) > d.maxDirectBody {
		return nil, fail(path+".body", "has %d bytes; %d are allowed", len(body), d.maxDirectBody)
	}
	out := &route.DirectResponse{Status: int(m.GetStatus()), Body: []byte(body)}
	out.Format, err = d.replyFormat(m.GetBodyFormat(), path+".body_format")
	return out, err
}
