package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hauberk-mesh/hauberk/sidecar/fair"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

func (d *decoder) routeConfig(m *routev3.RouteConfiguration, path string) (*route.Config, error) {
	out := &route.Config{
		Name:                   m.GetName(),
		MostSpecificHeadersWin: m.GetMostSpecificHeaderMutationsWins(),
		IgnorePort:             m.GetIgnorePortInHostMatching(),
		IgnorePathParameters:   m.GetIgnorePathParametersInPathMatching(),
	}
	if v := m.GetValidateClusters(); v != nil {
		out.ValidateClusters = &v.Value
	}
	var err error
	if out.HostHeader, err = vhostHeader(m.GetVhostHeader(), under(path, "vhost_header")); err != nil {
		return nil, err
	}
	if out.Headers, err = mutations(m, path); err != nil {
		return nil, err
	}
	if out.InternalOnly, err = internalOnly(m.GetInternalOnlyHeaders(), under(path, "internal_only_headers")); err != nil {
		return nil, err
	}
	if out.Mirrors, err = d.mirrors(m.GetRequestMirrorPolicies(), under(path, "request_mirror_policies")); err != nil {
		return nil, err
	}
	if out.Filters, err = d.filterOverrides(m.GetTypedPerFilterConfig(), under(path, "typed_per_filter_config")); err != nil {
		return nil, err
	}
	d.maxDirectBody = maxDirectBody
	if n := m.GetMaxDirectResponseBodySizeBytes(); n != nil {
		d.maxDirectBody = int(min(n.GetValue(), directBodyCap))
	}
	out.VirtualHosts = make([]route.VirtualHost, 0, len(m.GetVirtualHosts()))
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
	out := &route.VirtualHost{
		Name: m.GetName(), Domains: m.GetDomains(), Metadata: metadataOf(m.GetMetadata()),
		AttemptCountInRequest:  m.GetIncludeRequestAttemptCount(),
		AttemptCountInResponse: m.GetIncludeAttemptCountInResponse(),
		TimeoutRetryHeader:     m.GetIncludeIsTimeoutRetryHeader(),
		Hedge:                  hedgePolicy(m.GetHedgePolicy()),
	}
	switch m.GetRequireTls() {
	case routev3.VirtualHost_NONE:
	case routev3.VirtualHost_EXTERNAL_ONLY:
		out.RequireTLS = route.TLSForExternal
	case routev3.VirtualHost_ALL:
		out.RequireTLS = route.TLSForAll
	default:
		return nil, fail(path+".require_tls", "unknown value %d", m.GetRequireTls())
	}
	var err error
	if out.Headers, err = mutations(m, path); err != nil {
		return nil, err
	}
	if out.Retry, err = retryPolicy(m.GetRetryPolicy(), path+".retry_policy"); err != nil {
		return nil, err
	}
	if out.Mirrors, err = d.mirrors(m.GetRequestMirrorPolicies(), path+".request_mirror_policies"); err != nil {
		return nil, err
	}
	if out.BufferLimit, err = bufferLimit(m, path); err != nil {
		return nil, err
	}
	if out.RateLimits, err = rateLimits(m.GetRateLimits(), path+".rate_limits", false); err != nil {
		return nil, err
	}
	if out.Filters, err = d.filterOverrides(m.GetTypedPerFilterConfig(), path+".typed_per_filter_config"); err != nil {
		return nil, err
	}
	if out.Filters, err = d.deprecatedCORS(m.GetCors(), out.Filters, path+".cors"); err != nil {
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
	fair.Background(fair.Route)
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
	out.Metadata = metadataOf(m.GetMetadata())
	if err := d.routeMatch(m.GetMatch(), &out.Match, path+".match"); err != nil {
		return nil, err
	}
	if out.Headers, err = mutations(m, path); err != nil {
		return nil, err
	}
	if out.BufferLimit, err = bufferLimit(m, path); err != nil {
		return nil, err
	}
	if out.Filters, err = d.filterOverrides(m.GetTypedPerFilterConfig(), path+".typed_per_filter_config"); err != nil {
		return nil, err
	}
	if out.Filters, err = d.deprecatedCORS(m.GetRoute().GetCors(), out.Filters, path+".route.cors"); err != nil {
		return nil, err
	}
	if m.GetTracing() != nil || m.GetDecorator() != nil {
		t := &tracing.Route{Decorator: decorator(m.GetDecorator())}
		if t.Config, err = d.routeTracing(m.GetTracing(), path+".tracing"); err != nil {
			return nil, err
		}
		out.Tracing = t
	}
	switch a := m.GetAction().(type) {
	case *routev3.Route_Route:
		out.Forward, err = d.forward(a.Route, out.Match.Template, path+".route")
	case *routev3.Route_Redirect:
		out.Redirect, err = redirect(a.Redirect, out.Match.Template, path+".redirect")
	case *routev3.Route_DirectResponse:
		out.Direct, err = d.directResponse(a.DirectResponse, path+".direct_response")
	default:
		return nil, fail(path, "has no action")
	}
	return out, err
}

// buffering is a message that bounds what is kept of a request's body.
type buffering interface {
	GetPerRequestBufferLimitBytes() *wrapperspb.UInt32Value
	GetRequestBodyBufferLimit() *wrapperspb.UInt64Value
}

func bufferLimit(m buffering, path string) (*uint64, error) {
	old, limit := m.GetPerRequestBufferLimitBytes(), m.GetRequestBodyBufferLimit()
	switch {
	case old != nil && limit != nil:
		return nil, fail(path+".per_request_buffer_limit_bytes", "cannot be used together with request_body_buffer_limit")
	case old != nil:
		n := uint64(old.GetValue())
		return &n, nil
	case limit != nil:
		n := limit.GetValue()
		return &n, nil
	}
	return nil, nil
}
