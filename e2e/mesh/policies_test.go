//go:build e2e

package mesh

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestRateLimits: service-defaults say what an instance takes, whoever its proxy is:
// a route by its own limit, what is left by that of all, and who is denied spends nothing.
// An expression of more than 100 instructions, Envoy's own bound, stops no Envoy.
func TestRateLimits(t *testing.T) {
	m := newFilesMesh(t)
	m.file("api.hcl", `
config_entry {
  Kind = "service-defaults" Name = "api" Protocol = "http"
  RateLimits { InstanceLevel {
    RequestsPerSecond = 1 RequestsMaxBurst = 8
    Routes = [{ PathPrefix = "/login" RequestsPerSecond = 1 RequestsMaxBurst = 3 }, { PathRegex = "/search/[a-z]{300}" RequestsPerSecond = 1000 }]
  } }
}
config_entry {
  Kind = "service-intentions" Name = "api"
  Sources = [{ Name = "web" Permissions = [
    { Action = "deny" HTTP { PathPrefix = "/admin" } }, { Action = "allow" HTTP { PathPrefix = "/" } }] }]
}
config_entry { Kind = "service-defaults" Name = "web" Protocol = "http" }
config_entry { Kind = "mesh" ValidateClusters = true }`)
	m.file("legacy.hcl", `
config_entry {
  Kind = "service-defaults" Name = "legacy" Protocol = "http"
  RateLimits { InstanceLevel {
    RequestsPerSecond = 1 RequestsMaxBurst = 8
    Routes = [{ PathPrefix = "/login" RequestsPerSecond = 1 RequestsMaxBurst = 3 }, { PathRegex = "/search/[a-z]{300}" RequestsPerSecond = 1000 }]
  } }
}
config_entry {
  Kind = "service-intentions" Name = "legacy"
  Sources = [{ Name = "web" Permissions = [
    { Action = "deny" HTTP { PathPrefix = "/admin" } }, { Action = "allow" HTTP { PathPrefix = "/" } }] }]
}`)
	m.workload(spec{id: "api-1", service: "api"})
	m.envoyFor("legacy-1", m.register(spec{id: "legacy-1", service: "legacy"}))
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"api", "legacy"}})
	for _, to := range []string{"api", "legacy"} {
		t.Run(to, func(t *testing.T) {
			web.answers(20*second, to, "/admin", 403, "")
			web.answers(second, to, "/", 200, to+"-1")
			if dump := string(web.adminText("/config_dump")); !strings.Contains(dump, `"ValidateClusters": true`) {
				t.Error("the routes in force are not held against the clusters, as the mesh entry asks")
			}
			time.Sleep(2 * second) // a bucket that is full again
			for _, c := range []struct {
				path  string
				burst int
			}{{"/login", 3}, {"/", 8}} {
				count := map[int]int{}
				began := time.Now()
				for range 30 {
					for _, path := range []string{"/admin", c.path} {
						code, _, err := web.get(to, path)
						if err != nil {
							t.Fatal(err)
						}
						count[code]++
					}
				}
				most := c.burst + int(time.Since(began)/time.Second) + 1
				t.Logf("%s: %v in %v", c.path, count, time.Since(began))
				if count[403] != 30 || count[200] < c.burst-1 || count[200] > most || count[200]+count[429] != 30 {
					t.Errorf("%s: %v, want 200 from %d to %d times and 429 for the rest", c.path, count, c.burst-1, most)
				}
			}
		})
	}
}

// TestRetryOfRateLimited: a route that declares it has a limited request tried again.
func TestRetryOfRateLimited(t *testing.T) {
	m := newFilesMesh(t)
	m.file("api.hcl", `
config_entry { Kind = "proxy-defaults" Name = "global" Config { protocol = "http" } }
config_entry { Kind = "service-intentions" Name = "api" Sources = [{ Name = "web" Action = "allow" }] }
config_entry { Kind = "service-router" Name = "api" Routes = [{
  Match { HTTP { PathPrefix = "/again" } }
  Destination { RetryOn = ["envoy-ratelimited"] NumRetries = 2 }
}] }`)
	var asked atomic.Int32
	m.workload(spec{id: "api-1", service: "api", handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1)%3 != 0 {
			w.Header().Set("x-envoy-ratelimited", "true")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		fmt.Fprint(w, "third")
	})})
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"api"}})
	web.answers(10*second, "api", "/again", 200, "third")
	asked.Store(0)
	if code, body, err := web.get("api", "/again"); err != nil || code != 200 || body != "third" || asked.Load() != 3 {
		t.Errorf("%d %q %v after %d requests, want 200 after 3", code, body, err, asked.Load())
	}
	asked.Store(0)
	if code, _, err := web.get("api", "/once"); err != nil || code != 429 || asked.Load() != 1 {
		t.Errorf("%d %v after %d requests, want 429 after 1: the route declares nothing", code, err, asked.Load())
	}
}

// TestGatewayFailures: an instance that answers 503 is ejected by its gateway failures,
// one that answers 500 is not.
func TestGatewayFailures(t *testing.T) {
	m := newFilesMesh(t)
	m.file("api.hcl", `
config_entry { Kind = "proxy-defaults" Name = "global" Config { protocol = "http" } }
config_entry { Kind = "service-intentions" Name = "api" Sources = [{ Name = "web" Action = "allow" }] }
config_entry { Kind = "service-defaults" Name = "web" Protocol = "http" UpstreamConfig { Defaults { PassiveHealthCheck {
  Interval = "100ms" Consecutive5xx = 1000 ConsecutiveGatewayFailure = 3 EnforcingConsecutiveGatewayFailure = 100
  MaxEjectionPercent = 50 BaseEjectionTime = "60s"
} } } }`)
	answer := atomic.Int32{}
	answer.Store(500)
	m.workload(spec{id: "api-1", service: "api"})
	m.workload(spec{id: "api-2", service: "api", handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(answer.Load())) })})
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"api"}})
	web.answers(10*second, "api", "/", 200, "api-1")
	web.answers(10*second, "api", "/", 500, "")
	tally := func() (ok, failed int) {
		for range 40 {
			if code, _, err := web.get("api", "/"); err == nil && code == 200 {
				ok++
			} else {
				failed++
			}
		}
		return ok, failed
	}
	if _, failed := tally(); failed < 10 {
		t.Errorf("%d of 40 requests met the instance that answers 500: it was ejected, which only 503 asks for", failed)
	}
	answer.Store(503)
	tally()
	if ok, failed := tally(); failed > 0 {
		t.Errorf("%d of %d requests met the instance that answers 503", failed, ok+failed)
	}
}
