package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	allowlistedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/internal_redirect/allow_listed_routes/v3"
	previousroutesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/internal_redirect/previous_routes/v3"
	safeschemev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/internal_redirect/safe_cross_scheme/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// redirectCodes are the statuses that can be followed; Envoy ignores others, as its
// documentation says.
var redirectCodes = []int{301, 302, 303, 307, 308}

// internalRedirect reads which redirects of hosts are followed, nil for none. The policy
// stands before the deprecated fields, as in Envoy.
func (d *decoder) internalRedirect(m *routev3.RouteAction, path string) (*route.InternalRedirect, error) {
	if p := m.GetInternalRedirectPolicy(); p != nil {
		return d.redirectPolicy(p, path+".internal_redirect_policy")
	}
	switch m.GetInternalRedirectAction() {
	case routev3.RouteAction_PASS_THROUGH_INTERNAL_REDIRECT:
		return nil, nil
	case routev3.RouteAction_HANDLE_INTERNAL_REDIRECT:
		return d.redirectPolicy(&routev3.InternalRedirectPolicy{MaxInternalRedirects: m.GetMaxInternalRedirects()}, path)
	}
	return nil, fail(path+".internal_redirect_action", "unknown value %d", m.GetInternalRedirectAction())
}

func (d *decoder) redirectPolicy(m *routev3.InternalRedirectPolicy, path string) (*route.InternalRedirect, error) {
	out := &route.InternalRedirect{Max: 1, CrossScheme: m.GetAllowCrossSchemeRedirect()}
	if n := m.GetMaxInternalRedirects(); n != nil {
		out.Max = n.GetValue()
	}
	if len(m.GetRedirectResponseCodes()) == 0 {
		out.Codes = []int{302}
	}
	for _, c := range m.GetRedirectResponseCodes() {
		if slices.Contains(redirectCodes, int(c)) {
			out.Codes = append(out.Codes, int(c))
		}
	}
	for i, p := range m.GetPredicates() {
		q, err := d.redirectPredicate(p, at(path+".predicates", i)+".typed_config")
		if err != nil {
			return nil, err
		}
		out.Predicates = append(out.Predicates, q)
	}
	var err error
	out.Copy, err = headerNames(m.GetResponseHeadersToCopy(), path+".response_headers_to_copy", ofRequest)
	if err != nil || len(out.Codes) == 0 {
		return nil, err // where none can be followed no body is to be kept for it
	}
	return out, nil
}

func (d *decoder) redirectPredicate(m *corev3.TypedExtensionConfig, path string) (q route.RedirectPredicate, err error) {
	if _, ok := extension[*previousroutesv3.PreviousRoutesConfig](d, m.GetTypedConfig()); ok {
		return route.RedirectPredicate{Kind: route.PreviousRoutes}, nil
	}
	if c, ok := extension[*allowlistedv3.AllowListedRoutesConfig](d, m.GetTypedConfig()); ok {
		return route.RedirectPredicate{Kind: route.AllowListedRoutes, Routes: c.GetAllowedRouteNames()}, nil
	}
	if _, ok := extension[*safeschemev3.SafeCrossSchemeConfig](d, m.GetTypedConfig()); ok {
		return route.RedirectPredicate{Kind: route.SafeCrossScheme}, nil
	}
	return q, fail(path, "%q is no predicate of redirects", strings.TrimPrefix(m.GetTypedConfig().GetTypeUrl(), "type.googleapis.com/"))
}
