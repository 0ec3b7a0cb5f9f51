package validate

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-bexpr"
	"golang.org/x/net/http/httpguts"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func (c *checker) router(e *api.ServiceRouterConfigEntry) {
	c.name("Name", e.Name)
	for i := range e.Routes {
		path := fmt.Sprintf("Routes[%d].", i)
		r := &e.Routes[i]
		var m *api.ServiceRouteHTTPMatch
		if r.Match != nil {
			m = r.Match.HTTP
		}
		if m != nil {
			c.routeMatch(path+"Match.HTTP.", m)
		}
		if r.Destination != nil {
			c.routeDestination(path+"Destination.", r.Destination, m)
		}
	}
}

func (c *checker) routeMatch(path string, m *api.ServiceRouteHTTPMatch) {
	c.httpPath(path, m.PathExact, m.PathPrefix, m.PathRegex)
	c.methods(path+"Methods", m.Methods)
	for i, h := range m.Header {
		p := fmt.Sprintf("%sHeader[%d].", path, i)
		c.headerName(p+"Name", h.Name)
		c.exactlyOne(p, h.Present, map[string]string{"Exact": h.Exact, "Prefix": h.Prefix, "Suffix": h.Suffix, "Regex": h.Regex})
		c.regex(p+"Regex", h.Regex)
	}
	for i, q := range m.QueryParam {
		p := fmt.Sprintf("%sQueryParam[%d].", path, i)
		c.not(q.Name == "", p+"Name", "must be set")
		c.atMostOne(p, q.Present, map[string]string{"Exact": q.Exact, "Regex": q.Regex})
		c.regex(p+"Regex", q.Regex)
	}
}

// httpPath checks the three ways to match a path.
func (c *checker) httpPath(path, exact, prefix, regex string) {
	c.atMostOne(path, false, map[string]string{"PathExact": exact, "PathPrefix": prefix, "PathRegex": regex})
	c.not(exact != "" && exact[0] != '/', path+"PathExact", "must begin with /")
	c.not(prefix != "" && prefix[0] != '/', path+"PathPrefix", "must begin with /")
	c.regex(path+"PathRegex", regex)
}

func setFields(present bool, fields map[string]string) []string {
	var set []string
	if present {
		set = append(set, "Present")
	}
	for _, k := range sortedKeys(fields) {
		if fields[k] != "" {
			set = append(set, k)
		}
	}
	return set
}

func (c *checker) atMostOne(path string, present bool, fields map[string]string) {
	if set := setFields(present, fields); len(set) > 1 {
		c.add(path+set[0], "only one of %s may be set", strings.Join(set, ", "))
	}
}

func (c *checker) exactlyOne(path string, present bool, fields map[string]string) {
	c.atMostOne(path, present, fields)
	if len(setFields(present, fields)) == 0 {
		c.add(strings.TrimSuffix(path, "."), "one of Present, %s must be set", strings.Join(sortedKeys(fields), ", "))
	}
}

func (c *checker) headerName(path, name string) {
	if !httpguts.ValidHeaderFieldName(strings.TrimPrefix(name, ":")) {
		c.add(path, "%q is not a header name", name)
	}
}

func (c *checker) methods(path string, methods []string) {
	seen := map[string]bool{}
	for i, m := range methods {
		p := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case !httpguts.ValidHeaderFieldName(m):
			c.add(p, "%q is not a method", m)
		case m != strings.ToUpper(m):
			c.add(p, "%q: methods are case-sensitive; use %q", m, strings.ToUpper(m))
		case seen[m]:
			c.add(p, "%q is listed twice", m)
		}
		seen[m] = true
	}
}

// retryConditions are those of Consul.
var retryConditions = []string{"5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "refused-stream",
	"retriable-4xx", "envoy-ratelimited", "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"}

func (c *checker) routeDestination(path string, d *api.ServiceRouteDestination, m *api.ServiceRouteHTTPMatch) {
	c.optionalName(path+"Service", d.Service)
	c.scope(path, d.Namespace, d.Partition)
	// Less than zero is none.
	c.duration(path+"RequestTimeout", max(d.RequestTimeout, 0))
	c.duration(path+"IdleTimeout", max(d.IdleTimeout, 0))
	for i, condition := range d.RetryOn {
		c.oneOf(fmt.Sprintf("%sRetryOn[%d]", path, i), strings.ToLower(condition), retryConditions...)
	}
	if d.PrefixRewrite != "" {
		c.not(m == nil || m.PathExact == "" && m.PathPrefix == "", path+"PrefixRewrite", "needs PathPrefix or PathExact in Match.HTTP")
		c.not(d.PrefixRewrite[0] != '/', path+"PrefixRewrite", "must begin with /")
	}
	for i, code := range d.RetryOnStatusCodes {
		if code < 100 || code > 599 {
			c.add(fmt.Sprintf("%sRetryOnStatusCodes[%d]", path, i), "%d is not a status code", code)
		}
	}
	c.headerModifiers(path+"RequestHeaders.", d.RequestHeaders)
	c.headerModifiers(path+"ResponseHeaders.", d.ResponseHeaders)
}

func (c *checker) headerModifiers(path string, h *api.HTTPHeaderModifiers) {
	if h == nil {
		return
	}
	for _, f := range []struct {
		name string
		m    map[string]string
	}{{"Add", h.Add}, {"Set", h.Set}} {
		for _, k := range sortedKeys(f.m) {
			p := path + f.name + "." + k
			if !httpguts.ValidHeaderFieldName(k) {
				c.add(p, "%q is not a header name", k)
			}
			if !httpguts.ValidHeaderFieldValue(f.m[k]) {
				c.add(p, "the value has characters that a header cannot carry")
			}
		}
	}
	for i, k := range h.Remove {
		if !httpguts.ValidHeaderFieldName(k) {
			c.add(fmt.Sprintf("%sRemove[%d]", path, i), "%q is not a header name", k)
		}
	}
}

func (c *checker) splitter(e *api.ServiceSplitterConfigEntry) {
	c.name("Name", e.Name)
	if len(e.Splits) == 0 {
		c.add("Splits", "must not be empty")
		return
	}
	sum := 0
	seen := map[string]bool{}
	for i := range e.Splits {
		s := &e.Splits[i]
		path := fmt.Sprintf("Splits[%d].", i)
		if s.Weight < 0 || s.Weight > 100 || math.IsNaN(float64(s.Weight)) {
			c.add(path+"Weight", "%v: use 0 to 100", s.Weight)
			return
		}
		sum += int(math.Round(float64(s.Weight) * 100))
		c.optionalName(path+"Service", s.Service)
		c.scope(path, s.Namespace, s.Partition)
		service := s.Service
		if service == "" {
			service = e.Name
		}
		to := service + "/" + s.ServiceSubset
		c.not(seen[to], strings.TrimSuffix(path, "."), "the same destination as an earlier split; add the weights")
		seen[to] = true
		c.headerModifiers(path+"RequestHeaders.", s.RequestHeaders)
		c.headerModifiers(path+"ResponseHeaders.", s.ResponseHeaders)
	}
	if sum != 10000 {
		c.add("Splits", "weights add up to %v; they must be 100 together, in steps of 0.01", float64(sum)/100)
	}
}

func (c *checker) resolver(e *api.ServiceResolverConfigEntry) {
	c.name("Name", e.Name)
	for _, name := range sortedKeys(e.Subsets) {
		path := "Subsets." + name
		c.not(!serviceName.MatchString(name), path, "not a name: use letters, digits and hyphens")
		if f := e.Subsets[name].Filter; f != "" {
			if _, err := bexpr.CreateEvaluator(f); err != nil {
				c.add(path+".Filter", "not a filter expression: %s", err)
			}
		}
	}
	if _, ok := e.Subsets[e.DefaultSubset]; e.DefaultSubset != "" && !ok {
		c.add("DefaultSubset", "%q is not in Subsets", e.DefaultSubset)
	}
	c.duration("ConnectTimeout", e.ConnectTimeout)
	c.duration("RequestTimeout", e.RequestTimeout)
	c.locality("PrioritizeByLocality", e.PrioritizeByLocality)
	if r := e.Redirect; r != nil {
		c.optionalName("Redirect.Service", r.Service)
		c.scope("Redirect.", r.Namespace, r.Partition)
		c.not(r.Peer != "", "Redirect.Peer", "peers are not supported; remove it")
		c.not(r.SamenessGroup != "", "Redirect.SamenessGroup", "sameness groups are not supported; remove it")
		c.not(r.Service == "" && r.ServiceSubset == "" && r.Datacenter == "", "Redirect", "is empty; set Service, ServiceSubset or Datacenter")
		c.not(len(e.Failover) > 0, "Failover", "has no effect beside Redirect; remove one of them")
	}
	for _, subset := range sortedKeys(e.Failover) {
		c.failover("Failover."+subset, e.Failover[subset])
		if _, ok := e.Subsets[subset]; subset != "*" && !ok {
			c.add("Failover."+subset, `%q is not in Subsets; use "*" for all`, subset)
		}
	}
	c.loadBalancer("LoadBalancer.", e.LoadBalancer)
}

func (c *checker) failover(path string, f api.ServiceResolverFailover) {
	c.optionalName(path+".Service", f.Service)
	c.scope(path+".", f.Namespace, "")
	c.not(f.SamenessGroup != "", path+".SamenessGroup", "sameness groups are not supported; remove it")
	c.failoverPolicy(path+".Policy", f.Policy)
	direct := f.Service != "" || f.ServiceSubset != "" || len(f.Datacenters) > 0
	c.not(!direct && len(f.Targets) == 0, path, "is empty; set Service, ServiceSubset, Datacenters or Targets")
	c.not(direct && len(f.Targets) > 0, path+".Targets", "excludes Service, ServiceSubset and Datacenters")
	for i, dc := range f.Datacenters {
		c.not(dc == "", fmt.Sprintf("%s.Datacenters[%d]", path, i), "must not be empty")
	}
	for i, t := range f.Targets {
		p := fmt.Sprintf("%s.Targets[%d]", path, i)
		c.optionalName(p+".Service", t.Service)
		c.scope(p+".", t.Namespace, t.Partition)
		c.not(t.Peer != "", p+".Peer", "peers are not supported; remove it")
		c.not(t.Service == "" && t.ServiceSubset == "" && t.Datacenter == "", p, "is empty; set Service, ServiceSubset or Datacenter")
	}
}

func (c *checker) failoverPolicy(path string, p *api.ServiceResolverFailoverPolicy) {
	if p == nil {
		return
	}
	c.not(p.Mode != "" && p.Mode != "sequential", path+".Mode", fmt.Sprintf("%q is not supported; failover is sequential", p.Mode))
	c.not(len(p.Regions) > 0, path+".Regions", "regions are not supported; remove it")
}

func (c *checker) locality(path string, p *api.ServiceResolverPrioritizeByLocality) {
	if p != nil {
		c.oneOf(path+".Mode", p.Mode, "none", "failover")
	}
}

func (c *checker) loadBalancer(path string, lb *api.LoadBalancer) {
	if lb == nil {
		return
	}
	c.oneOf(path+"Policy", lb.Policy, "random", "round_robin", "least_request", "ring_hash", "maglev")
	hashing := lb.Policy == "ring_hash" || lb.Policy == "maglev"
	c.not(lb.RingHashConfig != nil && lb.Policy != "ring_hash", path+"RingHashConfig", "needs Policy ring_hash")
	c.not(lb.LeastRequestConfig != nil && lb.Policy != "least_request", path+"LeastRequestConfig", "needs Policy least_request")
	c.not(len(lb.HashPolicies) > 0 && !hashing, path+"HashPolicies", "needs Policy ring_hash or maglev")
	if l := lb.LeastRequestConfig; l != nil && l.ChoiceCount == 1 {
		c.add(path+"LeastRequestConfig.ChoiceCount", "1 would compare nothing; use 2 or more, or Policy random")
	}
	if r := lb.RingHashConfig; r != nil {
		c.ringSize(path+"RingHashConfig.MinimumRingSize", r.MinimumRingSize)
		c.ringSize(path+"RingHashConfig.MaximumRingSize", r.MaximumRingSize)
		if r.MaximumRingSize > 0 && r.MinimumRingSize > r.MaximumRingSize {
			c.add(path+"RingHashConfig.MinimumRingSize", "%d is above MaximumRingSize %d", r.MinimumRingSize, r.MaximumRingSize)
		}
	}
	for i, h := range lb.HashPolicies {
		c.hashPolicy(fmt.Sprintf("%sHashPolicies[%d].", path, i), h)
	}
}

// maxRingSize is Envoy's bound on the entries of a hash ring.
const maxRingSize = 8 << 20

func (c *checker) ringSize(path string, n uint64) {
	if n > maxRingSize {
		c.add(path, "%d: at most %d", n, maxRingSize)
	}
}

func (c *checker) hashPolicy(path string, h api.HashPolicy) {
	c.oneOf(path+"Field", h.Field, "header", "cookie", "query_parameter")
	if h.SourceIP {
		c.not(h.Field != "" || h.FieldValue != "" || h.CookieConfig != nil, path+"SourceIP", "excludes Field, FieldValue and CookieConfig")
		return
	}
	c.not(h.Field == "", path+"Field", "must be set: header, cookie or query_parameter")
	c.not(h.FieldValue == "", path+"FieldValue", "must be set: the name of the header, cookie or parameter")
	if k := h.CookieConfig; k != nil {
		c.not(h.Field != "cookie", path+"CookieConfig", "needs Field cookie")
		c.duration(path+"CookieConfig.TTL", k.TTL)
		c.not(k.Path != "" && !k.Session && k.TTL == 0, path+"CookieConfig.Path", "has a meaning only for a cookie that is made; set TTL or Session, or remove it")
		c.not(k.Session && k.TTL != 0, path+"CookieConfig.TTL", "a session cookie has none; remove one of them")
	}
}
