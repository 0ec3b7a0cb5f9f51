//go:build e2e

package differential

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestRandomRoutes: random route tables and requests that may match them.
func TestRandomRoutes(t *testing.T) {
	random(t, domain{rounds: 2, group: randomRoutes})
}

func randomRoutes(r *rand.Rand) *Group {
	g := &Group{About: "random routes"}
	for i := range 10 {
		c := Config{Name: fmt.Sprintf("routes-%d", i), About: "random"}
		for range 1 + r.IntN(4) {
			c.Routes = append(c.Routes, map[string]any{
				"match": map[string]any{"prefix": one(r, "/", "/a", "/a/", "/A", "/b/c"), "case_sensitive": !chance(r, 4)},
				"route": map[string]any{"cluster": one(r, "origin", "other")},
			})
		}
		for n := range 10 {
			c.Cases = append(c.Cases, Case{Name: fmt.Sprintf("case-%d", n), Send: "GET " + one(r, "/", "/a", "/a/b", "/ab", "/A/", "/b/c/d", "/c?/a") + "\n"})
		}
		g.Configs = append(g.Configs, c)
	}
	return g
}
