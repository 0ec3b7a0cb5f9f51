// Package cors answers preflight requests and marks responses by a policy of
// cross-origin sharing (envoy.filters.http.cors, the Fetch standard's CORS protocol).
package cors

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Policy is envoy.extensions.filters.http.cors.v3.CorsPolicy. Where a route's policy
// leaves a field out, the less specific one's counts.
type Policy struct {
	Origins []route.StringMatch
	// Methods, Headers, Expose and MaxAge are the values of the fields
	// access-control-allow-methods and so on; "*" for the first two says what the
	// request asks for.
	Methods, Headers, Expose, MaxAge string
	Credentials, PrivateNetwork      *bool
	// ForwardUnmatched forwards preflights of other origins; nil is true.
	ForwardUnmatched *bool
	// Enabled is the share that the policy is applied to, nil for all unless Shadow
	// is set; Shadow the share that is only counted.
	Enabled, Shadow *route.Share
	// Deprecated: it is of the deprecated fields of virtual hosts and routes. They count only
	// where no level has a policy for the filter itself, as in Envoy.
	Deprecated bool
}

// Filter is the filter of one chain. Without a policy of a route it does nothing.
type Filter struct{ valid, invalid *telemetry.Counter }

// New makes a filter; count may be nil.
func New(count filter.Counter) *Filter {
	return &Filter{count.Of("origin_valid"), count.Of("origin_invalid")}
}

// Override implements filter.Overrider.
func (f *Filter) Override(config any) (any, error) {
	p, ok := config.(*Policy)
	if !ok {
		return nil, fmt.Errorf("cors: the route's configuration is a %T", config)
	}
	return p, nil
}

// policies are a request's, the most specific first.
type policies []any

func policiesOf(c *filter.Context) policies {
	deprecated := func(p any) bool { return p.(*Policy).Deprecated }
	list := c.Overrides
	if !slices.ContainsFunc(list, deprecated) {
		return list
	}
	if own := slices.DeleteFunc(slices.Clone(list), deprecated); len(own) > 0 {
		return own
	}
	return list
}

// first returns the first value that a policy has.
func first[T any](ps policies, get func(*Policy) (T, bool)) (v T) {
	for _, p := range ps {
		if v, ok := get(p.(*Policy)); ok {
			return v
		}
	}
	return v
}

func text(get func(*Policy) string) func(*Policy) (string, bool) {
	return func(p *Policy) (string, bool) { v := get(p); return v, v != "" }
}

func flag(get func(*Policy) *bool) func(*Policy) (bool, bool) {
	return func(p *Policy) (bool, bool) {
		if b := get(p); b != nil {
			return *b, true
		}
		return false, false
	}
}

var (
	methods     = text(func(p *Policy) string { return p.Methods })
	headers     = text(func(p *Policy) string { return p.Headers })
	expose      = text(func(p *Policy) string { return p.Expose })
	maxAge      = text(func(p *Policy) string { return p.MaxAge })
	credentials = flag(func(p *Policy) *bool { return p.Credentials })
	private     = flag(func(p *Policy) *bool { return p.PrivateNetwork })
	origins     = func(p *Policy) ([]route.StringMatch, bool) { return p.Origins, len(p.Origins) > 0 }
)

func (ps policies) forwardsUnmatched() bool {
	for _, p := range ps {
		if b := p.(*Policy).ForwardUnmatched; b != nil {
			return *b
		}
	}
	return true
}

// modes tells whether the most specific policy is applied to this request, and
// whether it is only counted.
func (p *Policy) modes() (enabled, shadow bool) {
	n := rand.Uint32()
	enabled = p.Enabled == nil && p.Shadow == nil || p.Enabled != nil && p.Enabled.Holds(n)
	return enabled, p.Shadow != nil && p.Shadow.Holds(n)
}

// allows tells whether an origin may read. A pattern that takes "*" takes all.
func (ps policies) allows(origin string) bool {
	list := first(ps, origins)
	return slices.ContainsFunc(list, func(m route.StringMatch) bool { return m.Match("*") || m.Match(origin) })
}

// Request implements filter.Filter.
func (f *Filter) Request(c *filter.Context) filter.Verdict {
	ps := policiesOf(c)
	if len(ps) == 0 || c.Selected.Route == nil || c.Selected.Route.Forward == nil {
		return filter.Continue
	}
	origin, _ := c.Request.Header("origin")
	if origin == "" {
		return filter.Continue
	}
	enabled, shadow := ps[0].(*Policy).modes()
	if !enabled && !shadow {
		return filter.Continue
	}
	allowed := ps.allows(origin)
	if allowed {
		f.valid.Inc(c.Shard)
	} else {
		f.invalid.Inc(c.Shard)
	}
	if !enabled {
		return filter.Continue
	}
	if allowed {
		c.State.Value, c.State.Text = 1, origin
	}
	asked, _ := c.Request.Header("access-control-request-method")
	if c.Request.Method != "OPTIONS" || asked == "" || !allowed && ps.forwardsUnmatched() {
		return filter.Continue
	}
	return filter.Answer(&filter.Reply{
		Status: 200, GRPC: filter.NoGRPC, Details: "cors_response", Bare: true, Headers: preflight(ps, c.Request, allowed),
	})
}

// preflight copies what it needs of the request: the answer outlives the call. What the
// policy takes from the request is empty where that asks for nothing, as in Envoy.
func preflight(ps policies, req *message.Request, allowed bool) func(*filter.Context) {
	value := func(name string) string { v, _ := req.Header(name); return strings.Clone(v) }
	wild := func(configured, name string) string {
		if configured == "*" {
			return value(name)
		}
		return configured
	}
	origin := ""
	if allowed {
		origin = value("origin")
	}
	methods, headers, maxAge := first(ps, methods), first(ps, headers), first(ps, maxAge)
	allowMethods := wild(methods, "access-control-request-method")
	allowHeaders := wild(headers, "access-control-request-headers")
	private := first(ps, private) && value("access-control-request-private-network") == "true"
	return func(c *filter.Context) {
		set := func(does bool, name, v string) {
			if does {
				c.Response.Fields.Set(name, v)
			}
		}
		set(origin != "", "access-control-allow-origin", origin)
		set(first(ps, credentials), "access-control-allow-credentials", "true")
		set(methods != "", "access-control-allow-methods", allowMethods)
		set(headers != "", "access-control-allow-headers", allowHeaders)
		set(maxAge != "", "access-control-max-age", maxAge)
		set(private, "access-control-allow-private-network", "true")
	}
}

// Response implements filter.Filter.
func (f *Filter) Response(c *filter.Context) {
	if c.State.Value == 0 {
		return
	}
	ps := policiesOf(c)
	fields := &c.Response.Fields
	fields.Set("access-control-allow-origin", c.State.Text)
	if first(ps, credentials) {
		fields.Set("access-control-allow-credentials", "true")
	}
	if v := first(ps, expose); v != "" {
		fields.Set("access-control-expose-headers", v)
	}
}
