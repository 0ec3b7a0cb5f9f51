package render

import (
	"cmp"
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/hashicorp/consul/api"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hauberk-mesh/hauberk/xds/names"
)

const rateLimitFilter = "envoy.filters.http.local_ratelimit"

// rateLimits is what an instance takes of requests: a filter behind those of
// authorization, so that who is denied spends nobody's tokens, and routes with limits
// of their own before the one that takes the rest. Without limits there are neither.
func (b *inboundBuilder) rateLimits() ([]*hcmv3.HttpFilter, []*routev3.Route, error) {
	if b.w.Defaults == nil || b.w.Defaults.RateLimits == nil {
		return nil, nil, nil
	}
	entry := "service-defaults/" + b.w.Defaults.Name + " RateLimits"
	if !b.client.Can(names.CapLocalRateLimit) {
		b.out.Problems = append(b.out.Problems, Problem{Path: entry, Reason: "this sidecar takes no rate limits from the control plane, so there are none; upgrade it"})
		return nil, nil, nil
	}
	l := &b.w.Defaults.RateLimits.InstanceLevel
	// One without a bucket limits nothing; it is there for the routes'.
	all := &ratelimitv3.LocalRateLimit{StatPrefix: b.stat()}
	if l.RequestsPerSecond > 0 {
		all = b.rateLimit(l.RequestsPerSecond, l.RequestsMaxBurst)
	}
	filter, err := httpFilter(rateLimitFilter, all)
	if err != nil {
		return nil, nil, err
	}
	var routes []*routev3.Route
	for i := range l.Routes {
		r := &l.Routes[i]
		origin := fmt.Sprintf("%s.InstanceLevel.Routes[%d]", entry, i)
		match, err := routeMatch(&api.ServiceRouteHTTPMatch{PathExact: r.PathExact, PathPrefix: r.PathPrefix, PathRegex: r.PathRegex})
		if err != nil {
			return nil, nil, fmt.Errorf("%s.%w", origin, err)
		}
		own, err := toAny(b.rateLimit(r.RequestsPerSecond, r.RequestsMaxBurst))
		if err != nil {
			return nil, nil, err
		}
		out := b.route(origin, match)
		out.TypedPerFilterConfig = map[string]*anypb.Any{rateLimitFilter: own}
		routes = append(routes, out)
	}
	return []*hcmv3.HttpFilter{filter}, routes, nil
}

// rateLimit is a bucket of burst tokens, as many as are put in a second where burst is 0.
func (b *inboundBuilder) rateLimit(perSecond, burst int) *ratelimitv3.LocalRateLimit {
	always := &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{Numerator: 100}}
	return &ratelimitv3.LocalRateLimit{
		StatPrefix:    b.stat(),
		TokenBucket:   &typev3.TokenBucket{MaxTokens: uint32(cmp.Or(burst, perSecond)), TokensPerFill: u32(perSecond), FillInterval: duration(time.Second)},
		FilterEnabled: always, FilterEnforced: always,
		// What a gRPC client may try again elsewhere is another status.
		RateLimitedAsResourceExhausted: b.config.Protocol == "grpc",
	}
}
