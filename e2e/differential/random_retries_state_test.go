//go:build e2e

package differential

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// outlierConfig is a cluster whose hosts are ejected, and requests one after the other.
func outlierConfig(r *rand.Rand) (Config, map[string]any) {
	const name = "outliers"
	o := map[string]any{"interval": "10s", "base_ejection_time": "30s", "max_ejection_percent": one(r, 0, 10, 50, 100, 100, 100)}
	if chance(r, 2) {
		o["consecutive_5xx"] = one(r, 0, 1, 2, 3)
	}
	if chance(r, 2) {
		o["enforcing_consecutive_5xx"] = one(r, 0, 100)
	}
	if chance(r, 2) {
		o["consecutive_gateway_failure"] = one(r, 0, 1, 2, 3)
		o["enforcing_consecutive_gateway_failure"] = one(r, 0, 100, 100)
	}
	if chance(r, 2) {
		o["split_external_local_origin_errors"] = true
		o["consecutive_local_origin_failure"] = one(r, 1, 2, 3)
		if chance(r, 2) {
			o["enforcing_consecutive_local_origin_failure"] = one(r, 0, 100)
		}
	}
	if chance(r, 3) {
		o["always_eject_one_host"] = chance(r, 2)
	}
	if chance(r, 3) {
		o["detect_degraded_hosts"] = true
	}
	hosts := one(r, "http1", "http1", "frames", "half")
	endpoints := one(r, []any{"origin"}, []any{[]any{"origin"}, []any{"other"}}, []any{[]any{"origin"}, []any{"other"}, []any{"third"}})
	switch hosts {
	case "frames":
		endpoints = []any{"frames"}
	case "half":
		endpoints = []any{[]any{"refused"}, []any{"origin"}}
	}
	threshold := 0 // in panic chance decides over the priority
	if len(endpoints) == 1 {
		threshold = one(r, 0, 50)
	}
	cluster := map[string]any{"name": name, "endpoints": endpoints, "outlier_detection": o,
		// Envoy tells its workers of a further ejection only after that time.
		"common_lb_config":                 map[string]any{"healthy_panic_threshold": map[string]any{"value": threshold}, "update_merge_window": "0s"},
		"typed_extension_protocol_options": hostOptions(hosts == "frames", nil, "")}
	c := Config{Name: name, About: "random", Fresh: true, Stateful: true, HTTP2: chance(r, 3), VHost: map[string]any{"include_request_attempt_count": true}}
	// Without retries: whether one meets a host that has just been ejected depends on who is faster.
	a := map[string]any{"cluster": name, "timeout": "0.3s"}
	c.Routes = []map[string]any{{"match": map[string]any{"prefix": "/"}, "route": a}}
	m := retried{path: "/", hosts: hosts, bounded: true}
	c.Cases = warm([]retried{m})
	for n := range 8 {
		grpc := chance(r, 5)
		x := Case{Name: fmt.Sprintf("case-%d", n), Send: retryRequest(r, &c, m, grpc)}
		m.head = strings.HasPrefix(x.Send, "HEAD")
		for range r.IntN(3) {
			a := retryAnswer(r, m, grpc)
			if chance(r, 8) {
				a = hung(r, m)
			}
			for i, f := range a.Frames {
				// A host that was ejected may have another connection, on which what is refused is sent once more.
				a.Frames[i] = strings.Replace(f, "REFUSED_STREAM", "CANCEL", 1)
			}
			x.Respond = append(x.Respond, a)
		}
		x.endHead(m)
		c.Cases = append(c.Cases, x)
	}
	return c, cluster
}

// breakerConfig is a cluster with limits, and requests beside another that is under way.
func breakerConfig(r *rand.Rand) (Config, map[string]any) {
	const name = "breakers"
	t := map[string]any{}
	for _, limit := range []string{"max_requests", "max_pending_requests", "max_connections", "max_retries"} {
		if chance(r, 3) {
			t[limit] = one(r, 0, 1, 1, 2)
		}
	}
	if chance(r, 3) {
		b := map[string]any{"budget_percent": map[string]any{"value": one(r, 0, 20, 50, 100)}, "min_retry_concurrency": one(r, 1, 1, 2, 3)}
		if chance(r, 3) {
			b["budget_interval"] = "600s"
		}
		t["retry_budget"] = b
	}
	hosts := one(r, "http1", "http1", "frames", "refused")
	endpoint := map[string]string{"http1": "origin", "frames": "frames", "refused": "refused"}[hosts]
	if chance(r, 3) {
		t["priority"] = "HIGH"
	}
	if chance(r, 4) {
		t["max_connection_pools"] = one(r, 0, 1, 1, 2)
	}
	breakers := map[string]any{"thresholds": []any{t}}
	if chance(r, 4) {
		breakers["per_host_thresholds"] = []any{map[string]any{"max_connections": one(r, 0, 1, 1, 2)}}
	}
	cluster := map[string]any{"name": name, "endpoints": []any{endpoint}, "circuit_breakers": breakers,
		"connection_pool_per_downstream_connection": chance(r, 3),
		"typed_extension_protocol_options":          hostOptions(hosts == "frames", nil, "")}
	c := Config{Name: name, About: "random", Fresh: true, Stateful: true, VHost: map[string]any{"include_request_attempt_count": true}}
	p := retryPolicy(r)
	p["retry_on"] = one(r, "5xx", "5xx,connect-failure", "retriable-status-codes,reset")
	delete(p, "per_try_timeout")
	delete(p, "per_try_idle_timeout")
	c.Routes = []map[string]any{
		{"match": map[string]any{"prefix": "/plain"}, "route": map[string]any{"cluster": name, "timeout": "0.9s", "priority": one(r, "DEFAULT", "DEFAULT", "HIGH")}},
		{"match": map[string]any{"prefix": "/"}, "route": map[string]any{"cluster": name, "timeout": "0.9s", "retry_policy": p, "priority": one(r, "DEFAULT", "DEFAULT", "HIGH")}},
	}
	m := retried{hosts: hosts, path: "/"}
	c.Cases = warm([]retried{m})
	for n := range 6 {
		m.path = one(r, "/plain", "/retried")
		x := Case{Name: fmt.Sprintf("case-%d", n), Send: retryRequest(r, &c, retried{path: m.path, hosts: "busy"}, false)}
		if x.Send = strings.Replace(x.Send, "HEAD", "GET", 1); chance(r, 2) && hosts != "refused" {
			x.Meanwhile = "GET /plain/meanwhile\n"
			slow := Answer{Send: "200 OK\n\nslow"}
			if hosts == "frames" {
				slow = Answer{Frames: []string{"HEADERS *\n:status: 200", "DATA * END\nslow"}}
			}
			slow.late(600)
			if chance(r, 2) {
				// The other one waits for its second attempt, and has a place among the retries.
				x.Meanwhile = "GET /retried/meanwhile\n"
				first := Answer{Send: "503 No\n\n"}
				if hosts == "frames" {
					first = Answer{Frames: []string{"HEADERS * END\n:status: 503"}}
				}
				x.Respond = append(x.Respond, first)
			}
			x.Respond = append(x.Respond, slow)
			if t["max_connections"] != nil {
				x.Unsteady = []string{"log"} // both may end at once
			}
		}
		for range r.IntN(3) {
			x.Respond = append(x.Respond, retryAnswer(r, m, false))
		}
		x.endHead(m)
		c.Cases = append(c.Cases, x)
	}
	return c, cluster
}
