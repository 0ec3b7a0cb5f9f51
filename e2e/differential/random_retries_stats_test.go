//go:build e2e

package differential

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
)

// TestRandomRetriesStatistics: after the requests of a random group both have counted the same
// of each of its clusters.
func TestRandomRetriesStatistics(t *testing.T) {
	t.Parallel()
	envoy, hauberk := programs(t)
	certs, err := newCerts(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	g := randomRetries(rand.New(rand.NewPCG(*randomSeed, 1)))
	g.Name = fmt.Sprintf("seed %d", *randomSeed)
	alike(g)
	r := &runner{g: g, certs: certs, dir: t.TempDir(), hauberk: hauberk}
	r.envoy = func(file string) []string {
		admin := filepath.Join(filepath.Dir(file), "admin.sock")
		return append(envoy(file), "--config-yaml", fmt.Sprintf("{admin: {address: {pipe: {path: %s}}}}", admin))
	}
	r.statistics(t, found{})
}

// alike leaves out what is counted otherwise: an aggregate has no requests of its own, a stream that
// its host reset for a protocol error is none that we reset, and a limit of 0 is not in use.
func alike(g *Group) {
	for i := range g.Configs {
		c := &g.Configs[i]
		for _, route := range c.Routes {
			if a, ok := route["route"].(map[string]any); ok && a["cluster"] == "chained" {
				a["cluster"] = "tiers"
			}
		}
		for _, x := range c.Cases {
			for _, a := range x.Respond {
				for n := range a.Frames {
					a.Frames[n] = strings.Replace(a.Frames[n], "RST_STREAM * PROTOCOL_ERROR", "RST_STREAM * INTERNAL_ERROR", 1)
				}
			}
		}
	}
	for _, c := range g.Clusters {
		if b, ok := c["circuit_breakers"].(map[string]any); ok {
			if t := b["thresholds"].([]any)[0].(map[string]any); t["max_connections"] == 0 {
				t["max_connections"] = 1
			}
		}
	}
}
