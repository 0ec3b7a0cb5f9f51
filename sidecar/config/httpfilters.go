package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"maps"
	"math"
	"slices"
	"strconv"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	bufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	bridgev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_http1_bridge/v3"
	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	mutationfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	healthcheckv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/buffer"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/cors"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/grpcbridge"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/headermutation"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/healthcheck"
	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// hcmFilters reads the chain of most requests.
func (d *decoder) hcmFilters(m *hcmv3.HttpConnectionManager, out *hcm.Config, path string) error {
	router, err := d.httpFilters(m.GetHttpFilters(), &out.FilterChain, path+".http_filters")
	if err != nil {
		return err
	}
	out.SuppressEnvoyHeaders, out.RespectExpectedTimeout = router.GetSuppressEnvoyHeaders(), router.GetRespectExpectedRqTimeout()
	out.RejectEarlyConnect = router.GetRejectConnectRequestEarlyData().GetValue()
	out.UpstreamLog, err = d.upstreamLog(router, at(path+".http_filters", len(m.GetHttpFilters())-1)+".typed_config")
	return err
}

// upstreamLog reads the log of attempts, nil for none.
func (d *decoder) upstreamLog(m *routerv3.Router, path string) (*hcm.UpstreamLog, error) {
	logs, err := d.accessLogs(m.GetUpstreamLog(), path+".upstream_log")
	if err != nil || len(logs) == 0 {
		return nil, err
	}
	o := m.GetUpstreamLogOptions()
	out := &hcm.UpstreamLog{Logs: logs, OnStream: o.GetFlushUpstreamLogOnUpstreamStream()}
	out.Interval, err = duration(o.GetUpstreamLogFlushInterval(), path+".upstream_log_options.upstream_log_flush_interval")
	return out, err
}

// hcmUpgradeFilters reads the chains of requests that switch to another protocol. The router is one
// for all chains.
func (d *decoder) hcmUpgradeFilters(m *hcmv3.HttpConnectionManager, out *hcm.Config, path string) error {
	for i, u := range m.GetUpgradeConfigs() {
		if len(u.GetFilters()) == 0 {
			continue
		}
		here := at(path+".upgrade_configs", i) + ".filters"
		own := hcm.UpgradeFilters{Type: u.GetUpgradeType()}
		router, err := d.httpFilters(u.GetFilters(), &own.FilterChain, here)
		if err != nil {
			return err
		}
		last := m.GetHttpFilters()[len(m.GetHttpFilters())-1]
		if common, ok := d.unpacked[last.GetTypedConfig()].(*routerv3.Router); !ok || !proto.Equal(router, common) {
			return fail(at(here, len(u.GetFilters())-1)+".typed_config", "must be the router of http_filters")
		}
		out.UpgradeFilters = append(out.UpgradeFilters, own)
	}
	return nil
}

// httpFilters reads a chain, which ends in the router.
func (d *decoder) httpFilters(list []*hcmv3.HttpFilter, out *hcm.FilterChain, path string) (router *routerv3.Router, err error) {
	for i, f := range list {
		here := at(path, i)
		if router != nil {
			return nil, fail(here, "follows the router, which must be last")
		}
		msg := d.unpacked[f.GetTypedConfig()]
		var routed bool
		if router, routed = msg.(*routerv3.Router); routed {
			if f.GetDisabled() {
				return nil, fail(here+".disabled", "the router is always needed")
			}
			continue
		}
		if _, counts := msg.(*grpcstatsv3.FilterConfig); counts {
			continue // it does nothing to a request
		}
		one := hcm.HTTPFilter{Name: f.GetName(), Disabled: f.GetDisabled()}
		if rbac, ok := msg.(*httprbacv3.RBAC); ok {
			r, err := d.httpRBAC(rbac, here+".typed_config")
			if err != nil {
				return nil, err
			}
			one.Config = hcm.RBACFilter{}
			out.RBAC = append(out.RBAC, *r)
		} else {
			if one.Config, err = d.httpFilter(msg, here+".typed_config"); err != nil {
				return nil, err
			}
			if one.Config == nil {
				return nil, fail(here, "filter %q has no typed_config", f.GetName())
			}
		}
		out.Filters = append(out.Filters, one)
	}
	if router == nil {
		return nil, fail(path, "must end in the router filter")
	}
	return router, nil
}

// httpFilter reads the configuration of a filter in the chain.
func (d *decoder) httpFilter(msg any, path string) (any, error) {
	switch c := msg.(type) {
	case *faultv3.HTTPFault:
		return d.fault(c, path)
	case *ratelimitv3.LocalRateLimit:
		return d.rateLimit(c, path)
	case *corsv3.Cors:
		return hcm.CORSFilter{}, nil
	case *mutationfilterv3.HeaderMutation:
		out, err := d.headerMutation(c.GetMutations(), path+".mutations")
		if err == nil {
			out.MostSpecificWins = c.GetMostSpecificHeaderMutationsWins()
		}
		return out, err
	case *healthcheckv3.HealthCheck:
		return healthCheck(c, path)
	case *bufferv3.Buffer:
		return bufferConfig(c), nil
	case *bridgev3.Config:
		return &grpcbridge.Config{IgnoreQuery: c.GetIgnoreQueryParameters()}, nil
	}
	return nil, nil
}

// filterOverrides reads typed_per_filter_config.
func (d *decoder) filterOverrides(m map[string]*anypb.Any, path string) ([]route.FilterOverride, error) {
	var out []route.FilterOverride
	for _, name := range slices.Sorted(maps.Keys(m)) {
		here := path + "[" + strconv.Quote(name) + "]"
		o := route.FilterOverride{Name: name}
		msg := any(d.unpacked[m[name]])
		if fc, ok := msg.(*routev3.FilterConfig); ok {
			switch {
			case fc.GetDisabled():
				out = append(out, route.FilterOverride{Name: name, Disabled: true})
				continue
			case fc.GetConfig() == nil:
				return nil, fail(here+".config", "is missing")
			case fc.GetConfig().GetTypeUrl() == "":
				out = append(out, o) // switches on what is off by default
				continue
			}
			here += ".config"
			msg = d.unpacked[fc.GetConfig()]
			if d.unpacked[fc.GetConfig()] == nil {
				continue // optional, and nothing that is known here
			}
		}
		var err error
		if o.Config, err = d.filterOverride(msg, here); err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

func (d *decoder) filterOverride(msg any, path string) (any, error) {
	switch c := msg.(type) {
	case *faultv3.HTTPFault:
		return d.fault(c, path)
	case *ratelimitv3.LocalRateLimit:
		if c.GetTokenBucket() == nil {
			return nil, fail(path+".token_bucket", "is missing; a route's limit needs its own")
		}
		return d.rateLimit(c, path)
	case *corsv3.CorsPolicy:
		return d.corsPolicy(c, c.GetFilterEnabled(), path)
	case *mutationfilterv3.HeaderMutationPerRoute:
		return d.headerMutation(c.GetMutations(), path+".mutations")
	case *bufferv3.BufferPerRoute:
		if c.GetBuffer() == nil {
			return &buffer.Config{Disabled: true}, nil
		}
		return bufferConfig(c.GetBuffer()), nil
	case *httprbacv3.RBACPerRoute:
		if c.GetRbac() == nil {
			return &authz.HTTPFilter{}, nil // nothing is asked on this route
		}
		return d.httpRBAC(c.GetRbac(), path+".rbac")
	}
	return nil, fail(path, "has no configuration of a filter")
}

// corsFields is what the extension's policy and the deprecated one have in common.
type corsFields interface {
	GetAllowOriginStringMatch() []*matcherv3.StringMatcher
	GetAllowMethods() string
	GetAllowHeaders() string
	GetExposeHeaders() string
	GetMaxAge() string
	GetAllowCredentials() *wrapperspb.BoolValue
	GetShadowEnabled() *corev3.RuntimeFractionalPercent
	GetAllowPrivateNetworkAccess() *wrapperspb.BoolValue
	GetForwardNotMatchingPreflights() *wrapperspb.BoolValue
}

func (d *decoder) corsPolicy(m corsFields, enabled *corev3.RuntimeFractionalPercent, path string) (*cors.Policy, error) {
	out := &cors.Policy{
		Methods: m.GetAllowMethods(), Headers: m.GetAllowHeaders(), Expose: m.GetExposeHeaders(), MaxAge: m.GetMaxAge(),
		Credentials: boolean(m.GetAllowCredentials()), PrivateNetwork: boolean(m.GetAllowPrivateNetworkAccess()),
		ForwardUnmatched: boolean(m.GetForwardNotMatchingPreflights()),
	}
	for i, o := range m.GetAllowOriginStringMatch() {
		s, err := stringMatch(o, at(path+".allow_origin_string_match", i))
		if err != nil {
			return nil, err
		}
		out.Origins = append(out.Origins, *s)
	}
	for _, f := range []struct {
		m    *corev3.RuntimeFractionalPercent
		out  **route.Share
		name string
	}{{enabled, &out.Enabled, ".filter_enabled"}, {m.GetShadowEnabled(), &out.Shadow, ".shadow_enabled"}} {
		if f.m != nil {
			s, err := d.runtime.fractional(f.m, path+f.name)
			if err != nil {
				return nil, err
			}
			*f.out = &s
		}
	}
	return out, nil
}

// deprecatedCORS reads the policy that virtual hosts and routes had before filters
// took configurations from routes. The two ways do not go together.
func (d *decoder) deprecatedCORS(m *routev3.CorsPolicy, list []route.FilterOverride, path string) ([]route.FilterOverride, error) {
	if m == nil {
		return list, nil
	}
	for _, o := range list {
		if _, ok := o.Config.(*cors.Policy); ok {
			return nil, fail(path, "cannot be used together with typed_per_filter_config for CORS")
		}
	}
	p, err := d.corsPolicy(m, m.GetFilterEnabled(), path)
	if err != nil {
		return nil, err
	}
	p.Deprecated = true
	return append(list, route.FilterOverride{Name: hcm.DeprecatedCORS, Config: p}), nil
}

func (d *decoder) headerMutation(m *mutationfilterv3.Mutations, path string) (*headermutation.Config, error) {
	out := &headermutation.Config{}
	err := d.formatters(m.GetFormatters(), path+".formatters")
	if err != nil {
		return nil, err
	}
	for _, list := range []struct {
		name string
		from []*mutationv3.HeaderMutation
		of   headersOf
		to   *[]route.HeaderMutation
	}{
		{"request_mutations", m.GetRequestMutations(), ofRequest, &out.Request},
		{"response_mutations", m.GetResponseMutations(), ofResponse, &out.Response},
		{"request_trailers_mutations", m.GetRequestTrailersMutations(), ofTrailers, &out.RequestTrailers},
		{"response_trailers_mutations", m.GetResponseTrailersMutations(), ofTrailers, &out.ResponseTrailers},
	} {
		if *list.to, err = headerSteps(list.from, path+"."+list.name, list.of); err != nil {
			return nil, err
		}
	}
	for i, q := range m.GetQueryParameterMutations() {
		here := at(path+".query_parameter_mutations", i)
		qm := headermutation.QueryMutation{Remove: q.GetRemove(), Key: q.GetAppend().GetRecord().GetKey()}
		if (qm.Remove == "") == (q.GetAppend() == nil) {
			return nil, fail(here, "exactly one of append and remove must be set")
		}
		if q.GetAppend() != nil {
			v, ok := q.GetAppend().GetRecord().GetValue().AsInterface().(string)
			if !ok || qm.Key == "" {
				return nil, fail(here+".append.record", "needs a key and a value that is a string")
			}
			if err := checkValue(v, here+".append.record.value"); err != nil {
				return nil, err
			}
			qm.Value = v
			if qm.Action, ok = keyActions[q.GetAppend().GetAction()]; !ok {
				return nil, fail(here+".append.action", "unknown value %d", q.GetAppend().GetAction())
			}
		}
		out.Query = append(out.Query, qm)
	}
	return out, nil
}

var keyActions = map[corev3.KeyValueAppend_KeyValueAppendAction]route.AppendAction{
	corev3.KeyValueAppend_APPEND_IF_EXISTS_OR_ADD:    route.AppendIfExistsOrAdd,
	corev3.KeyValueAppend_ADD_IF_ABSENT:              route.AddIfAbsent,
	corev3.KeyValueAppend_OVERWRITE_IF_EXISTS_OR_ADD: route.OverwriteIfExistsOrAdd,
	corev3.KeyValueAppend_OVERWRITE_IF_EXISTS:        route.OverwriteIfExists,
}

func healthCheck(m *healthcheckv3.HealthCheck, path string) (*healthcheck.Config, error) {
	out := &healthcheck.Config{PassThrough: m.GetPassThroughMode().GetValue()}
	var err error
	if out.CacheTime, err = duration(m.GetCacheTime(), path+".cache_time"); err != nil {
		return nil, err
	}
	if out.Headers, err = headerMatches(m.GetHeaders(), path+".headers"); err != nil {
		return nil, err
	}
	for name, p := range m.GetClusterMinHealthyPercentages() {
		if out.MinHealthy == nil {
			out.MinHealthy = map[string]float64{}
		}
		out.MinHealthy[name] = p.GetValue()
	}
	if _, err = healthcheck.New(out, nil, "", nil); err != nil {
		return nil, fail(path, "%v", err)
	}
	return out, nil
}

func bufferConfig(m *bufferv3.Buffer) *buffer.Config {
	return &buffer.Config{MaxBytes: int(min(uint64(m.GetMaxRequestBytes().GetValue()), math.MaxInt32))}
}
