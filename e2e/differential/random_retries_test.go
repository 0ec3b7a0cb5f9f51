//go:build e2e

package differential

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestRandomRetries: random retry policies, timeouts, hedges and mirrors, hosts that fail in
// every way, outlier detection and circuit breakers.
func TestRandomRetries(t *testing.T) {
	random(t, domain{rounds: 1, group: randomRetries, known: knownRetries})
}

// retried is a route as the cases need to know it.
type retried struct {
	path string
	// hosts says what its hosts speak: http1, http2, frames, or refused for hosts that do not
	// listen.
	hosts string
	// bounded has a limit that ends an attempt without an answer soon.
	bounded bool
	hedged  bool
	// told has the client's grpc-timeout be a limit.
	told bool
	// quiet ends what does not move.
	quiet bool
	// kept are connections that are used again: no host ends one, which the sidecar would take for
	// the end of a connection that was used before.
	kept bool
	// limited is a longest duration: what it leaves nothing of is not sent, or just so.
	limited bool
	// mirrored requests share the script with the copies.
	mirrored bool
	// head is the request's method; there is no content behind the answer.
	head bool
	// redirects are followed.
	redirects bool
}

// Times are so far from each other, and from the sums of several attempts', that none is
// met by another: attempts of 200 ms, answers after 100 or 750 ms, and these limits.
const (
	shortTry  = "0.2s"
	longTry   = "0.35s"
	idleLimit = "0.3s"
)

func randomRetries(r *rand.Rand) *Group {
	g := &Group{About: "random retries", Clusters: retryClusters(r)}
	for i := range 2 {
		g.Configs = append(g.Configs, retryConfig(r, fmt.Sprintf("retries-%d", i)))
	}
	for _, state := range []func(r *rand.Rand) (Config, map[string]any){outlierConfig, breakerConfig} {
		c, cluster := state(r)
		g.Configs, g.Clusters = append(g.Configs, c), append(g.Clusters, cluster)
	}
	return g
}

// retryHosts are the clusters that routes lead to, and what their hosts speak.
var retryHosts = map[string]string{
	"origin": "http1", "other": "http1", "ring": "http1", "pair": "http1", "tiers": "http1", "worn": "http1", "chained": "http1",
	"short": "http1", "own": "http1", "http2": "http2", "frames": "frames", "own2": "frames", "short2": "frames",
	"refused": "refused", "half": "half", "mixed": "half",
}

func retryClusters(r *rand.Rand) []map[string]any {
	own, own2 := retryPolicy(r), retryPolicy(r)
	return []map[string]any{
		{"name": "ring", "lb_policy": "RING_HASH", "endpoints": []any{"origin", "other", "third"}},
		{"name": "pair", "lb_policy": "MAGLEV", "endpoints": []any{"origin", "other"}},
		{"name": "tiers", "endpoints": []any{[]any{"origin"}, []any{"other"}, []any{"third"}}},
		{"name": "worn", "endpoints": []any{[]any{"origin"}, []any{map[string]any{"other": "UNHEALTHY"}}, []any{map[string]any{"third": "DEGRADED"}}}},
		{"name": "half", "endpoints": []any{[]any{"refused"}, []any{"origin"}}},
		{"name": "mixed", "lb_policy": "RING_HASH", "endpoints": []any{"refused", "origin", "other"}},
		{"name": "chained", "lb_policy": "CLUSTER_PROVIDED", "cluster_type": map[string]any{"name": "envoy.clusters.aggregate", "typed_config": map[string]any{
			"@type": apiType + "extensions.clusters.aggregate.v3.ClusterConfig", "clusters": []any{"other", "tiers"}}}},
		{"name": "short", "endpoints": []any{"origin"}, "typed_extension_protocol_options": hostOptions(false, nil, "0.3s")},
		{"name": "short2", "endpoints": []any{"frames"}, "typed_extension_protocol_options": hostOptions(true, nil, "0.3s")},
		{"name": "own", "endpoints": []any{"origin"}, "typed_extension_protocol_options": hostOptions(false, own, "")},
		{"name": "own2", "endpoints": []any{"frames"}, "typed_extension_protocol_options": hostOptions(true, own2, "")},
	}
}

// hostOptions are a cluster's protocol, its retry policy and its longest duration.
func hostOptions(http2 bool, policy map[string]any, longest string) map[string]any {
	o := map[string]any{"@type": apiType + "extensions.upstreams.http.v3.HttpProtocolOptions",
		"explicit_http_config": map[string]any{"http_protocol_options": map[string]any{}}}
	if http2 {
		o["explicit_http_config"] = map[string]any{"http2_protocol_options": map[string]any{}}
	}
	if policy != nil {
		o["retry_policy"] = policy
	}
	if longest != "" {
		o["common_http_protocol_options"] = map[string]any{"max_stream_duration": longest}
	}
	return map[string]any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": o}
}

func retryConfig(r *rand.Rand, name string) Config {
	c := Config{Name: name, About: "random", Fresh: !chance(r, 4), HTTP2: chance(r, 3), VHost: map[string]any{}, HCM: map[string]any{}}
	if chance(r, 2) {
		c.VHost["include_request_attempt_count"] = true
	}
	if chance(r, 3) {
		c.VHost["include_attempt_count_in_response"] = true
	}
	if chance(r, 3) {
		c.VHost["include_is_timeout_retry_header"] = true
	}
	if chance(r, 3) {
		c.VHost["retry_policy"] = retryPolicy(r)
	}
	if chance(r, 8) {
		c.VHost["hedge_policy"] = map[string]any{"hedge_on_per_try_timeout": !chance(r, 4)}
	}
	if chance(r, 6) {
		c.VHost[one(r, "per_request_buffer_limit_bytes", "request_body_buffer_limit")] = one(r, 0, 1, 5, 1000, 70000)
	}
	if chance(r, 6) {
		c.HCM["common_http_protocol_options"] = map[string]any{"max_stream_duration": "1.35s"}
	}
	if chance(r, 8) {
		c.HCM["stream_idle_timeout"] = "0.65s"
	}
	if chance(r, 8) {
		c.HCM["request_timeout"] = "1.5s"
	}
	if chance(r, 5) {
		c.HCM["use_remote_address"] = true
	}
	var routes []retried
	for n := range 5 {
		route, m := retryRoute(r, &c, fmt.Sprintf("/r%d", n))
		c.Routes, routes = append(c.Routes, route), append(routes, m)
	}
	if chance(r, 3) && !slices.ContainsFunc(routes, func(m retried) bool { return m.mirrored }) { // copies come at any time
		c.UpstreamLog = map[string]any{}
	}
	if chance(r, 4) {
		c.Router = map[string]any{one(r, "suppress_envoy_headers", "respect_expected_rq_timeout"): true}
	}
	c.Routes = append(c.Routes, map[string]any{"name": "target", "match": map[string]any{"prefix": "/target"}, "route": map[string]any{"cluster": "other"}})
	c.Cases = warm(routes)
	for n := range 10 {
		c.Cases = append(c.Cases, retryCase(r, &c, routes[r.IntN(len(routes))], fmt.Sprintf("case-%d", n)))
	}
	return c
}

// warm has a connection to each host of HTTP/2. The sidecar sends once more, without a policy,
// what is refused on one whose host has said nothing yet.
func warm(routes []retried) (out []Case) {
	for _, m := range routes {
		if m.hosts == "frames" {
			out = append(out, Case{Name: "warm-" + m.path[1:], Send: "GET " + m.path})
		}
	}
	return out
}

// retryRoute is a route with a policy of its own, or that of the virtual host.
func retryRoute(r *rand.Rand, c *Config, path string) (map[string]any, retried) {
	cluster := one(r, "origin", "origin", "ring", "pair", "tiers", "tiers", "worn", "half", "mixed", "chained", "short", "short2", "own", "own2", "http2", "http2", "frames", "frames", "frames", "refused")
	m := retried{path: path, hosts: retryHosts[cluster], bounded: true, kept: !c.Fresh}
	a := map[string]any{"cluster": cluster, "hash_policy": []any{map[string]any{"header": map[string]any{"header_name": "x-h"}}}}
	out := map[string]any{"name": path[1:], "match": map[string]any{"prefix": path}, "route": a}
	limits := r.IntN(6)
	short := strings.HasPrefix(cluster, "short") // which has the same limit
	if short {
		limits = one(r, 0, 1, 4, 5)
	}
	switch limits {
	case 0, 1:
		a["timeout"] = one(r, "0.5s", "0.9s")
	case 2:
		a["timeout"], a["idle_timeout"] = "0s", idleLimit
		m.quiet = true
	case 3:
		a["max_stream_duration"] = streamDuration(r, &m)
		if chance(r, 2) {
			a["timeout"] = one(r, "0s", "0.5s")
		}
	case 4:
		a["timeout"] = one(r, "0.5s", "0.9s", "0s")
		a["max_grpc_timeout"] = one(r, "0s", "0.5s", "5s")
		if chance(r, 2) {
			a["grpc_timeout_offset"] = one(r, "0s", "0.1s", "9s")
		}
		m.bounded, m.told = false, a["max_grpc_timeout"] != "0s"
	case 5:
		m.bounded = short
	}
	if !chance(r, 5) {
		a["retry_policy"] = retryPolicy(r)
	}
	if chance(r, 6) {
		a["hedge_policy"] = map[string]any{"hedge_on_per_try_timeout": !chance(r, 4)}
	}
	if short || hedgesOddly(a["retry_policy"], c.VHost["retry_policy"]) {
		// An attempt that another one joined ends the request at its own limit behind Envoy.
		delete(a, "hedge_policy")
		if c.VHost["hedge_policy"] != nil {
			a["hedge_policy"] = map[string]any{}
		}
	}
	if p, ok := a["hedge_policy"].(map[string]any); ok {
		m.hedged = p["hedge_on_per_try_timeout"] == true
	} else if c.VHost["hedge_policy"] != nil {
		m.hedged = true
	}
	if chance(r, 6) {
		out[one(r, "per_request_buffer_limit_bytes", "request_body_buffer_limit")] = one(r, 0, 1, 5, 1000, 70000, 4294967295)
		if out["per_request_buffer_limit_bytes"] != nil && c.VHost["request_body_buffer_limit"] != nil {
			delete(out, "per_request_buffer_limit_bytes")
		}
	}
	if chance(r, 6) {
		a["internal_redirect_policy"] = map[string]any{"max_internal_redirects": one(r, 0, 1, 2)}
		m.redirects = true
	}
	if chance(r, 8) {
		a["priority"] = "HIGH"
	}
	if chance(r, 8) {
		delete(a, "cluster")
		a["weighted_clusters"] = map[string]any{"clusters": []any{map[string]any{"name": cluster, "weight": one(r, 1, 100)}}}
	}
	if chance(r, 10) && m.hosts != "frames" {
		a["request_mirror_policies"] = []any{map[string]any{"cluster": one(r, "third", "http2", "refused")}}
		m.mirrored = true
	}
	return out, m
}

// hedgesOddly tells of policies by which Envoy hedges otherwise: an attempt has two times, each of which is
// another hedge; what may not be retried is hedged; a condition of HTTP/3 is one.
func hedgesOddly(policies ...any) bool {
	return slices.ContainsFunc(policies, func(p any) bool {
		m, _ := p.(map[string]any)
		return m["per_try_timeout"] != nil && m["per_try_idle_timeout"] != nil || m["retriable_request_headers"] != nil ||
			m != nil && strings.Contains(fmt.Sprint(m["retry_on"]), "http3")
	})
}

func streamDuration(r *rand.Rand, m *retried) map[string]any {
	d := map[string]any{}
	if !chance(r, 3) {
		d["max_stream_duration"] = one(r, "0s", idleLimit, idleLimit)
	}
	if chance(r, 2) {
		d["grpc_timeout_header_max"] = one(r, "0s", idleLimit, "5s")
	}
	if chance(r, 3) {
		d["grpc_timeout_header_offset"] = one(r, "0s", "0.1s")
	}
	m.limited = true
	m.told = d["grpc_timeout_header_max"] != nil
	m.bounded = d["max_stream_duration"] == idleLimit
	return d
}
