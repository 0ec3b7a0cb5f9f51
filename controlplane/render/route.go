package render

import (
	"fmt"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/hashicorp/consul/api"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/compile"
	"github.com/hauberk-mesh/hauberk/xds/names"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

const (
	// requestTimeout is for the whole response where nothing says otherwise;
	// gRPC has none, because streams are its requests.
	requestTimeout = 15 * time.Second
	// streamIdleTimeout ends a request on which no byte moves.
	streamIdleTimeout = 5 * time.Minute
)

// Routes returns the route configuration of the chain for a caller, whose
// listeners name it; nil for tcp.
func (c *Chain) Routes(env *Environment, source catalog.Name) (*resource.Resource, error) {
	if c.routes == nil {
		return nil, nil
	}
	config := proto.CloneOf(c.routes)
	config.Name = env.routeName(source, c.Service)
	var refs []resource.Ref
	for _, r := range c.Resources {
		refs = append(refs, resource.Ref{Type: resource.ClusterType, Name: r.Name})
	}
	return resource.New(config.Name, config, refs...)
}

func (e *Environment) routeName(source, destination catalog.Name) string {
	return names.Routes(e.ClusterName("", destination), source.Service, source.Namespace)
}

// routes renders the chain's routes: one virtual host for every authority, since
// the listener already means this service.
func (b *chainBuilder) routes() error {
	vh := &routev3.VirtualHost{
		Name:    b.env.ClusterName("", b.chain.Service),
		Domains: []string{"*"},
	}
	for i := range b.chain.Routes {
		r := &b.chain.Routes[i]
		route, err := b.route(r)
		if err != nil {
			return fmt.Errorf("%s: %w", r.Origin, err)
		}
		vh.Routes = append(vh.Routes, route)
	}
	b.out.routes = &routev3.RouteConfiguration{VirtualHosts: []*routev3.VirtualHost{vh}}
	if b.env.validateClusters && !b.lacks(names.CapValidateClusters, "mesh ValidateClusters",
		"this sidecar does not hold routes against clusters: a route to a missing cluster answers 503; upgrade it") {
		b.out.routes.ValidateClusters = wrapperspb.Bool(true)
	}
	return nil
}

func (b *chainBuilder) route(r *compile.Route) (*routev3.Route, error) {
	match, err := routeMatch(r.Match)
	if err != nil {
		return nil, fmt.Errorf("Match.HTTP.%w", err)
	}
	action := &routev3.RouteAction{}
	if err := b.destination(action, r); err != nil {
		return nil, err
	}
	b.timeouts(action, r)
	action.RetryPolicy = b.retries(r)
	action.HashPolicy = b.hashPolicies(r)
	out := &routev3.Route{
		Name:     r.Origin,
		Match:    match,
		Action:   &routev3.Route_Route{Route: action},
		Metadata: hauberkMetadata(map[string]string{"origin": r.Origin}),
	}
	if d := r.Destination; d != nil {
		action.PrefixRewrite = d.PrefixRewrite
		if d.PrefixRewrite != "" && r.Match != nil && r.Match.PathRegex != "" {
			return nil, fmt.Errorf("Destination.PrefixRewrite: needs PathExact or PathPrefix, not PathRegex")
		}
		if out.RequestHeadersToAdd, out.RequestHeadersToRemove, err = headerChanges(d.RequestHeaders); err != nil {
			return nil, fmt.Errorf("Destination.RequestHeaders.%w", err)
		}
		if out.ResponseHeadersToAdd, out.ResponseHeadersToRemove, err = headerChanges(d.ResponseHeaders); err != nil {
			return nil, fmt.Errorf("Destination.ResponseHeaders.%w", err)
		}
	}
	return out, nil
}

func routeMatch(h *api.ServiceRouteHTTPMatch) (*routev3.RouteMatch, error) {
	m := &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
	if h == nil {
		return m, nil
	}
	switch {
	case h.PathExact != "":
		m.PathSpecifier = &routev3.RouteMatch_Path{Path: h.PathExact}
	case h.PathPrefix != "":
		m.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: h.PathPrefix}
	case h.PathRegex != "":
		regex := h.PathRegex
		if h.CaseInsensitive {
			// case_sensitive has no effect on expressions.
			regex = "(?i)" + regex
		}
		if err := checkRegex(regex); err != nil {
			return nil, atField("PathRegex", "%w", err)
		}
		m.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: safeRegex(regex)}
	}
	if h.CaseInsensitive && h.PathRegex == "" {
		m.CaseSensitive = wrapperspb.Bool(false)
	}
	for i, header := range h.Header {
		hm, err := headerMatch(headerIntent{
			name: header.Name, present: header.Present, exact: header.Exact, prefix: header.Prefix,
			suffix: header.Suffix, regex: header.Regex, invert: header.Invert,
		})
		if err != nil {
			return nil, fmt.Errorf("Header[%d].%w", i, err)
		}
		m.Headers = append(m.Headers, hm)
	}
	if len(h.Methods) > 0 {
		m.Headers = append(m.Headers, methodMatch(h.Methods))
	}
	for i, q := range h.QueryParam {
		qm, err := queryMatch(q)
		if err != nil {
			return nil, fmt.Errorf("QueryParam[%d].%w", i, err)
		}
		m.QueryParameters = append(m.QueryParameters, qm)
	}
	return m, nil
}

func queryMatch(q api.ServiceRouteHTTPMatchQueryParam) (*routev3.QueryParameterMatcher, error) {
	if q.Name == "" {
		return nil, atField("Name", "must be set")
	}
	out := &routev3.QueryParameterMatcher{Name: q.Name}
	switch {
	case q.Exact != "":
		out.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_StringMatch{StringMatch: exactly(q.Exact)}
	case q.Regex != "":
		if err := checkRegex(q.Regex); err != nil {
			return nil, atField("Regex", "%w", err)
		}
		out.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_StringMatch{StringMatch: matching(q.Regex)}
	case q.Present:
		out.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_PresentMatch{PresentMatch: true}
	default:
		return nil, atField("Name", "parameter %q needs one of Present, Exact and Regex", q.Name)
	}
	return out, nil
}

// destination sets the cluster, or the weighted clusters where there are
// several or where one changes headers. A leg of weight zero gets nothing.
func (b *chainBuilder) destination(a *routev3.RouteAction, r *compile.Route) error {
	var weighted []*routev3.WeightedCluster_ClusterWeight
	plain := true
	for i, s := range r.Splits {
		if s.Weight == 0 {
			continue
		}
		w := &routev3.WeightedCluster_ClusterWeight{Name: b.splitCluster(s), Weight: wrapperspb.UInt32(s.Weight)}
		var err error
		if w.RequestHeadersToAdd, w.RequestHeadersToRemove, err = headerChanges(s.RequestHeaders); err != nil {
			return fmt.Errorf("Splits[%d].RequestHeaders.%w", i, err)
		}
		if w.ResponseHeadersToAdd, w.ResponseHeadersToRemove, err = headerChanges(s.ResponseHeaders); err != nil {
			return fmt.Errorf("Splits[%d].ResponseHeaders.%w", i, err)
		}
		if len(w.RequestHeadersToAdd)+len(w.RequestHeadersToRemove)+len(w.ResponseHeadersToAdd)+len(w.ResponseHeadersToRemove) > 0 {
			plain = false
		}
		weighted = append(weighted, w)
	}
	switch {
	case len(weighted) == 0:
		return fmt.Errorf("no split has a weight above zero")
	case len(weighted) == 1 && plain:
		a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: weighted[0].Name}
	default:
		a.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: &routev3.WeightedCluster{Clusters: weighted}}
	}
	return nil
}

// timeouts are always written. A negative RequestTimeout means none.
func (b *chainBuilder) timeouts(a *routev3.RouteAction, r *compile.Route) {
	timeout := r.RequestTimeout
	if timeout == 0 && b.chain.Protocol != "grpc" {
		timeout = requestTimeout
	}
	timeout = max(timeout, 0)
	// A request that may take longer than the idle bound must not end by it.
	idle := max(streamIdleTimeout, timeout)
	if d := r.Destination; d != nil && d.IdleTimeout != 0 {
		idle = max(d.IdleTimeout, 0)
	}
	a.Timeout, a.IdleTimeout = duration(timeout), duration(idle)
}

func (b *chainBuilder) hashPolicies(r *compile.Route) []*routev3.RouteAction_HashPolicy {
	lb := r.LoadBalancer
	if lb == nil || len(lb.HashPolicies) == 0 {
		return nil
	}
	switch lb.Policy {
	case "ring_hash":
		if !b.client.Can(names.CapRingHash) {
			return nil // reported with the cluster
		}
	case "maglev":
		if !b.client.Can(names.CapMaglev) {
			return nil
		}
	default:
		b.problem(r.Origin+" LoadBalancer.HashPolicies", "they have an effect only with the policies ring_hash and maglev, not %q", lb.Policy)
		return nil
	}
	var out []*routev3.RouteAction_HashPolicy
	for i, p := range lb.HashPolicies {
		h := &routev3.RouteAction_HashPolicy{Terminal: p.Terminal}
		switch {
		case p.SourceIP:
			h.PolicySpecifier = &routev3.RouteAction_HashPolicy_ConnectionProperties_{
				ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true}}
		case p.FieldValue == "":
			b.problem(fmt.Sprintf("%s LoadBalancer.HashPolicies[%d].FieldValue", r.Origin, i), "must be set; the policy has no effect")
			continue
		case p.Field == "header":
			h.PolicySpecifier = &routev3.RouteAction_HashPolicy_Header_{
				Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: strings.ToLower(p.FieldValue)}}
		case p.Field == "query_parameter":
			h.PolicySpecifier = &routev3.RouteAction_HashPolicy_QueryParameter_{
				QueryParameter: &routev3.RouteAction_HashPolicy_QueryParameter{Name: p.FieldValue}}
		case p.Field == "cookie":
			h.PolicySpecifier = &routev3.RouteAction_HashPolicy_Cookie_{Cookie: cookieHash(p)}
		default:
			b.problem(fmt.Sprintf("%s LoadBalancer.HashPolicies[%d].Field", r.Origin, i),
				"%q: use header, cookie or query_parameter; the policy has no effect", p.Field)
			continue
		}
		out = append(out, h)
	}
	return out
}

func cookieHash(p api.HashPolicy) *routev3.RouteAction_HashPolicy_Cookie {
	c := &routev3.RouteAction_HashPolicy_Cookie{Name: p.FieldValue}
	if cfg := p.CookieConfig; cfg != nil {
		c.Path = cfg.Path
		switch {
		case cfg.TTL > 0:
			c.Ttl = duration(cfg.TTL)
		case cfg.Session:
			c.Ttl = duration(0)
		}
	}
	return c
}
