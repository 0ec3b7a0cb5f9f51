package config

import (
	"cmp"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commonratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hauberk-mesh/hauberk/internal/tokenbucket"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/ratelimit"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// minFillInterval is Envoy's.
const minFillInterval = 50 * time.Millisecond

func (d *decoder) rateLimit(m *ratelimitv3.LocalRateLimit, path string) (*ratelimit.Config, error) {
	out := &ratelimit.Config{
		StatPrefix: m.GetStatPrefix(), Status: int(m.GetStatus().GetCode()),
		PerConnection:     m.GetLocalRateLimitPerDownstreamConnection(),
		ResourceExhausted: m.GetRateLimitedAsResourceExhausted(), RetryAfter: m.GetEnableRetryAfterHeader(),
	}
	switch m.GetEnableXRatelimitHeaders() {
	case commonratelimitv3.XRateLimitHeadersRFCVersion_OFF:
	case commonratelimitv3.XRateLimitHeadersRFCVersion_DRAFT_VERSION_03:
		out.XRateLimit = true
	default:
		return nil, fail(path+".enable_x_ratelimit_headers", "unknown value %d", m.GetEnableXRatelimitHeaders())
	}
	if out.Shared = m.GetLocalClusterRateLimit() != nil; out.Shared {
		switch here := path + ".local_cluster_rate_limit"; {
		case out.PerConnection:
			return nil, fail(here, "cannot be used together with local_rate_limit_per_downstream_connection")
		case !d.runtime.ownCluster():
			return nil, fail(here, "the bootstrap names no local cluster: cluster_manager.local_cluster_name")
		}
	}
	var err error
	if b := m.GetTokenBucket(); b != nil {
		if out.Bucket, err = tokenBucket(b, path+".token_bucket"); err != nil {
			return nil, err
		}
	}
	if err := descriptors(m, out, path); err != nil {
		return nil, err
	}
	if e := m.GetFilterEnabled(); e != nil {
		if out.Enabled, err = d.runtime.fractional(e, path+".filter_enabled"); err != nil {
			return nil, err
		}
	}
	if e := m.GetFilterEnforced(); e != nil {
		if out.Enforced, err = d.runtime.fractional(e, path+".filter_enforced"); err != nil {
			return nil, err
		}
	}
	if out.RequestAdd, err = headerAdds(m.GetRequestHeadersToAddWhenNotEnforced(), path+".request_headers_to_add_when_not_enforced", ofRequest); err != nil {
		return nil, err
	}
	out.ResponseAdd, err = headerAdds(m.GetResponseHeadersToAdd(), path+".response_headers_to_add", ofResponse)
	return out, err
}

func tokenBucket(m *typev3.TokenBucket, path string) (*tokenbucket.Spec, error) {
	out := &tokenbucket.Spec{Max: m.GetMaxTokens(), PerFill: 1}
	if n := m.GetTokensPerFill(); n != nil {
		out.PerFill = n.GetValue()
	}
	var err error
	here := path + ".fill_interval"
	if out.Interval, err = duration(m.GetFillInterval(), here); err != nil {
		return nil, err
	}
	if out.Interval < minFillInterval {
		return nil, fail(here, "is %v; %v is the least", out.Interval, minFillInterval)
	}
	return out, nil
}

// defaultDynamicDescriptors is Envoy's.
const defaultDynamicDescriptors = 20

// descriptors reads the buckets of descriptors, and how requests come by them.
func descriptors(m *ratelimitv3.LocalRateLimit, out *ratelimit.Config, path string) (err error) {
	out.Stage = m.GetStage()
	if b := m.GetAlwaysConsumeDefaultTokenBucket(); b != nil {
		out.DefaultForUnmatched = !b.GetValue()
	}
	switch m.GetVhRateLimits() {
	case commonratelimitv3.VhRateLimitsOptions_OVERRIDE:
	case commonratelimitv3.VhRateLimitsOptions_INCLUDE:
		out.HostRateLimits = route.HostRateLimitsIncluded
	case commonratelimitv3.VhRateLimitsOptions_IGNORE:
		out.HostRateLimits = route.HostRateLimitsIgnored
	default:
		return fail(path+".vh_rate_limits", "unknown value %d", m.GetVhRateLimits())
	}
	out.MaxDynamic = defaultDynamicDescriptors
	if n := m.GetMaxDynamicDescriptors(); n != nil {
		if n.GetValue() > maxDynamicDescriptors {
			return fail(path+".max_dynamic_descriptors", "is %d; %d is the most", n.GetValue(), maxDynamicDescriptors)
		}
		out.MaxDynamic = int(n.GetValue())
	}
	for i, dm := range m.GetDescriptors() {
		here := at(path+".descriptors", i)
		d := ratelimit.Descriptor{Shadow: dm.GetShadowMode()}
		for _, e := range dm.GetEntries() {
			d.Entries = append(d.Entries, ratelimit.Entry{Key: e.GetKey(), Value: e.GetValue()})
		}
		b, err := tokenBucket(dm.GetTokenBucket(), here+".token_bucket")
		if err != nil {
			return err
		}
		d.Bucket = *b
		out.Descriptors = append(out.Descriptors, d)
	}
	here := path + ".rate_limits"
	for i, r := range m.GetRateLimits() {
		if r.GetStage() != nil {
			return fail(at(here, i)+".stage", "is for the rate limits of routes")
		}
	}
	if out.RateLimits, err = rateLimits(m.GetRateLimits(), here, true); err != nil {
		return err
	}
	for i, r := range m.GetRateLimits() {
		if err = hits(r.GetHitsAddend(), &out.RateLimits[i], at(here, i)+".hits_addend"); err != nil {
			return err
		}
	}
	if err := out.Check(); err != nil {
		return fail(path+".descriptors", "%v", err)
	}
	return nil
}

// maxDynamicDescriptors bounds the memory that clients can have buckets made of: about
// 500 bytes each.
const maxDynamicDescriptors = 1 << 20

// hits reads how many tokens a request takes, or gives back.
func hits(m *routev3.RateLimit_HitsAddend, out *route.RateLimit, path string) error {
	if m == nil {
		return nil
	}
	out.Refund = m.GetIsNegativeHits()
	switch n := m.GetNumber(); {
	case n != nil && m.GetFormat() != "":
		return fail(path+".format", "cannot be used together with number")
	case m.GetFormat() != "":
		if _, err := ratelimit.CompileHits(m.GetFormat()); err != nil {
			return fail(path+".format", "%v", err)
		}
		out.HitsFormat = m.GetFormat()
	case n.GetValue() == 0:
		return fail(path+".number", "is missing or 0: Envoy refuses every request that takes nothing")
	default:
		out.Hits = new(uint32(n.GetValue()))
	}
	return nil
}

// rateLimits reads how requests are described.
func rateLimits(ms []*routev3.RateLimit, path string, ofFilter bool) ([]route.RateLimit, error) {
	var out []route.RateLimit
	for i, m := range ms {
		here := at(path, i)
		r := route.RateLimit{Stage: m.GetStage().GetValue()}
		if m.GetHitsAddend() != nil && !ofFilter {
			return nil, fail(here+".hits_addend", "is for the rate limits of filters, in Envoy too")
		}
		switch m.GetXRatelimitOption() {
		case routev3.RateLimit_UNSPECIFIED:
		case routev3.RateLimit_OFF:
			r.Headers = route.RateLimitHeadersOff
		case routev3.RateLimit_DRAFT_VERSION_03:
			r.Headers = route.RateLimitHeadersOn
		default:
			return nil, fail(here+".x_ratelimit_option", "unknown value %d", m.GetXRatelimitOption())
		}
		for j, am := range m.GetActions() {
			a, err := rateLimitAction(am, at(here+".actions", j))
			if err != nil {
				return nil, err
			}
			r.Actions = append(r.Actions, *a)
		}
		out = append(out, r)
	}
	return out, nil
}

func rateLimitAction(m *routev3.RateLimit_Action, path string) (*route.RateLimitAction, error) {
	var err error
	switch a := m.GetActionSpecifier().(type) {
	case *routev3.RateLimit_Action_SourceCluster_:
		return &route.RateLimitAction{Kind: route.LimitSourceCluster, Key: "source_cluster"}, nil
	case *routev3.RateLimit_Action_DestinationCluster_:
		return &route.RateLimitAction{Kind: route.LimitDestinationCluster, Key: "destination_cluster"}, nil
	case *routev3.RateLimit_Action_RequestHeaders_:
		h := a.RequestHeaders
		return &route.RateLimitAction{
			Kind: route.LimitRequestHeader, Key: h.GetDescriptorKey(), Name: strings.ToLower(h.GetHeaderName()), SkipIfAbsent: h.GetSkipIfAbsent(),
		}, nil
	case *routev3.RateLimit_Action_QueryParameters_:
		q := a.QueryParameters
		return &route.RateLimitAction{
			Kind: route.LimitQueryParameter, Key: q.GetDescriptorKey(), Name: q.GetQueryParameterName(), SkipIfAbsent: q.GetSkipIfAbsent(),
		}, nil
	case *routev3.RateLimit_Action_RemoteAddress_:
		return &route.RateLimitAction{Kind: route.LimitRemoteAddress, Key: "remote_address"}, nil
	case *routev3.RateLimit_Action_MaskedRemoteAddress_:
		out := &route.RateLimitAction{Kind: route.LimitMaskedRemoteAddress, Key: "masked_remote_address", V4Bits: 32, V6Bits: 128}
		if n := a.MaskedRemoteAddress.GetV4PrefixMaskLen(); n != nil {
			out.V4Bits = int(n.GetValue())
		}
		if n := a.MaskedRemoteAddress.GetV6PrefixMaskLen(); n != nil {
			out.V6Bits = int(n.GetValue())
		}
		return out, nil
	case *routev3.RateLimit_Action_GenericKey_:
		g := a.GenericKey
		return &route.RateLimitAction{
			Kind: route.LimitGenericKey, Key: cmp.Or(g.GetDescriptorKey(), "generic_key"), Value: g.GetDescriptorValue(),
		}, nil
	case *routev3.RateLimit_Action_HeaderValueMatch_:
		h := a.HeaderValueMatch
		out := &route.RateLimitAction{
			Kind: route.LimitHeaderValueMatch, Key: cmp.Or(h.GetDescriptorKey(), "header_match"), Value: h.GetDescriptorValue(), Unless: isFalse(h.GetExpectMatch()),
		}
		out.Headers, err = headerMatches(h.GetHeaders(), path+".header_value_match.headers")
		return out, err
	case *routev3.RateLimit_Action_RemoteAddressMatch_:
		return remoteAddressMatch(a.RemoteAddressMatch, path+".remote_address_match")
	case *routev3.RateLimit_Action_QueryParameterValueMatch_:
		q := a.QueryParameterValueMatch
		out := &route.RateLimitAction{
			Kind: route.LimitQueryParameterValueMatch, Key: cmp.Or(q.GetDescriptorKey(), "query_match"), Value: q.GetDescriptorValue(), Unless: isFalse(q.GetExpectMatch()),
		}
		for i, p := range q.GetQueryParameters() {
			qm, err := queryMatch(p, at(path+".query_parameter_value_match.query_parameters", i))
			if err != nil {
				return nil, err
			}
			out.Query = append(out.Query, *qm)
		}
		return out, nil
	}
	return nil, fail(path, "has no action")
}

func remoteAddressMatch(m *routev3.RateLimit_Action_RemoteAddressMatch, path string) (*route.RateLimitAction, error) {
	if strings.Contains(m.GetDescriptorValue(), "%") {
		return nil, fail(path+".descriptor_value", "operators are not supported; write the value itself")
	}
	out := &route.RateLimitAction{
		Kind: route.LimitRemoteAddressMatch, Key: cmp.Or(m.GetDescriptorKey(), "remote_address_match"), Value: m.GetDescriptorValue(),
		Unless: m.GetAddressMatcher().GetInvertMatch(),
	}
	for i, r := range m.GetAddressMatcher().GetRanges() {
		p, err := prefix(r, at(path+".address_matcher.ranges", i))
		if err != nil {
			return nil, err
		}
		out.Prefixes = append(out.Prefixes, p.Masked())
	}
	return out, nil
}

// isFalse tells a wrapped false from a field that is not there.
func isFalse(b *wrapperspb.BoolValue) bool { return b != nil && !b.GetValue() }
