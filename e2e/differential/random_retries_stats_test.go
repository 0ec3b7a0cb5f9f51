//go:build e2e

package differential

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRandomRetriesStatistics: after the requests of a random group both have counted the same
// of each of its clusters. It takes as long as the cases do: where no time is given, they are
// those of one configuration.
func TestRandomRetriesStatistics(t *testing.T) {
	t.Parallel()
	envoy, hauberk, certs := programs(t)
	began, seed := time.Now(), *randomSeed
	for first := true; !t.Failed() && (first || time.Since(began) < *randomTime); seed++ {
		first = false
		g := randomRetries(rand.New(rand.NewPCG(seed, 1)))
		g.Name = fmt.Sprintf("seed %d", seed)
		if *randomTime == 0 {
			g.Configs = g.Configs[:1]
		}
		alike(g)
		r := &runner{g: g, certs: certs, dir: t.TempDir(), hauberk: hauberk}
		r.envoy = func(file string) []string {
			admin := filepath.Join(filepath.Dir(file), "admin.sock")
			return append(envoy(file), "--config-yaml", fmt.Sprintf("{admin: {address: {pipe: {path: %s}}}, stats_flush_interval: 0.2s}", admin))
		}
		r.statistics(t, found{})
	}
	t.Logf("seeds %d to %d", *randomSeed, seed-1)
}

// alike leaves out what is counted otherwise: an aggregate has no requests of its own, a stream that
// its host reset for a protocol error is none that we reset, and a limit of 0 is not in use. Where an answer
// is retried, whether its stream was reset or had ended depends on who is faster.
func alike(g *Group) {
	for i := range g.Configs {
		c := &g.Configs[i]
		for _, route := range c.Routes {
			if a, ok := route["route"].(map[string]any); ok && a["cluster"] == "chained" {
				a["cluster"] = "tiers"
			}
			if a, ok := route["route"].(map[string]any); ok {
				delete(a, "internal_redirect_policy") // whose failures have reasons of their own
			}
		}
		for j := range c.Cases {
			x := &c.Cases[j]
			if x.Respond == nil {
				x.Respond = []Answer{{Frames: []string{"HEADERS *\n:status: 200"}}}
			}
			for len(x.Respond) < 9 && x.Respond[0].Frames != nil {
				x.Respond = append(x.Respond, Answer{Frames: []string{"HEADERS *\n:status: 200"}})
			}
			for n := range x.Respond {
				f := x.Respond[n].Frames
				for m := range f {
					if f[m] = strings.Replace(f[m], "RST_STREAM * PROTOCOL_ERROR", "RST_STREAM * INTERNAL_ERROR", 1); strings.HasPrefix(f[m], "HEADERS *\n:status") {
						f[m] = strings.Replace(f[m], "HEADERS *", "HEADERS * END", 1)
						x.Respond[n].Frames = f[:m+1]
						break
					}
				}
			}
		}
	}
	for _, c := range g.Clusters {
		if of := c["name"]; of != "chained" {
			c["track_timeout_budgets"] = true
		}
		if b, ok := c["circuit_breakers"].(map[string]any); ok {
			if t := b["thresholds"].([]any)[0].(map[string]any); t["max_connections"] == 0 {
				t["max_connections"] = 1
			}
		}
	}
}
