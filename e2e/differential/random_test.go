//go:build e2e

package differential

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

var (
	randomSeed = flag.Uint64("random.seed", 1, "the first seed of random configurations")
	randomTime = flag.Duration("random.time", 0, "how long random configurations are made; a few rounds where it is 0")
)

// A domain makes random configurations and what is sent to them. Envoy is the oracle, as
// of the table: what is made has no expectations of its own.
type domain struct {
	// group makes one bootstrap with its cases, all by r: a seed makes the same again.
	group func(r *rand.Rand) *Group
	// rounds is how many seeds are run where no time is given.
	rounds int
	// known says why a field differs that docs/differential.md has as a difference, or "".
	known func(c *Config, x *Case, d Difference) string
	// look is called with what was seen of a case, before known is; what it says is wrong,
	// whether or not the two differ. It may be nil.
	look func(c *Config, x *Case, envoy, hauberk *program, got [2]observation) string
}

// dict is a message of a configuration as YAML has it.
type dict = map[string]any

// random runs a domain's seeds, one bootstrap of both programs for each. Whatever differs
// is told with the seed, and the configuration and case as the table would have them.
func random(t *testing.T, m domain) {
	t.Parallel()
	envoy, hauberk, certs := programs(t)
	table := theTable(t)
	began, cases := time.Now(), 0
	seed := *randomSeed
	for ; !t.Failed(); seed++ {
		if n := int(seed - *randomSeed); *randomTime == 0 && n == m.rounds || *randomTime > 0 && time.Since(began) > *randomTime {
			break
		}
		g := m.group(rand.New(rand.NewPCG(seed, 0)))
		g.Name = fmt.Sprintf("seed %d", seed)
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		r := &runner{g: g, certs: certs, common: table.Differs, dir: dir, tally: &tally{used: map[int]bool{}},
			envoy: envoy, hauberk: hauberk, known: m.known, look: m.look}
		cases += r.random(t)
	}
	t.Logf("%d cases of seeds %d to %d", cases, *randomSeed, seed-1)
}

// random compares a made group. A configuration that one of the two refuses is a finding.
func (r *runner) random(t *testing.T) (cases int) {
	t.Helper()
	envoy, errEnvoy := r.g.start("envoy", r.dir, r.certs, r.envoy, freePort)
	if errEnvoy == nil {
		defer envoy.stop()
	}
	hauberk, errHauberk := r.g.start("hauberk", r.dir, r.certs, r.hauberk, freePort)
	if errHauberk == nil {
		defer hauberk.stop()
	}
	if errEnvoy != nil || errHauberk != nil {
		t.Errorf("%s: no start: envoy: %v\nhauberk: %v\n%s", r.g.Name, errEnvoy, errHauberk, r.g.written(r.g.Configs))
		return 0
	}
	for i := range r.g.Configs {
		c := &r.g.Configs[i]
		for j := range c.Cases {
			x := &c.Cases[j]
			cases++
			if complaint := r.steady(c, x, envoy, hauberk); complaint != "" {
				only := *c
				only.Cases = []Case{*x}
				t.Errorf("%s: %s: %s:%s\n%s", r.g.Name, c.Name, x.Name, complaint, r.g.written([]Config{only}))
			}
		}
	}
	if t.Failed() {
		t.Logf("envoy: %s\nhauberk: %s", envoy.log.String(), hauberk.log.String())
	}
	return cases
}

// steady is the complaint of a case that differs each of two times: the machine may have
// been too busy for one of the two programs. A stateful case has one.
func (r *runner) steady(c *Config, x *Case, envoy, hauberk *program) (complaint string) {
	for range 2 {
		if _, complaint = r.try(c, x, envoy, hauberk); complaint == "" || c.Stateful {
			break
		}
	}
	return complaint
}

// written is a group with these configs as the table would have it.
func (g *Group) written(configs []Config) string {
	only := *g
	only.Configs = configs
	if len(configs) == 1 {
		only.Clusters, only.Configs[0] = g.concerned(configs[0])
	}
	b, err := yaml.Marshal(only)
	if err != nil {
		return err.Error()
	}
	// Fields that are not set say nothing.
	lines := slices.DeleteFunc(strings.Split(string(b), "\n"), func(l string) bool {
		return strings.HasSuffix(l, ": null") || strings.HasSuffix(l, `: ""`) || strings.HasSuffix(l, ": 0")
	})
	return strings.Join(lines, "\n")
}

// concerned are the clusters and routes of a config with one case, where the path tells them.
func (g *Group) concerned(c Config) (clusters []map[string]any, only Config) {
	if len(c.Cases) != 1 || len(c.Routes) == 0 {
		return g.Clusters, c
	}
	_, path, _ := strings.Cut(strings.Split(c.Cases[0].Send+"\n", "\n")[0], " ")
	path, _, _ = strings.Cut(path, "?")
	for _, route := range c.Routes {
		if match, _ := route["match"].(map[string]any); match["path"] == path {
			c.Routes = []map[string]any{route}
			to, _ := route["route"].(map[string]any)
			names := []any{to["cluster"]}
			for i := len(g.Clusters) - 1; i >= 0; i-- { // an aggregate is of those before it
				if cluster := g.Clusters[i]; slices.Contains(names, cluster["name"]) {
					clusters = append(clusters, cluster)
					if kind, ok := cluster["cluster_type"].(map[string]any); ok {
						for _, name := range kind["typed_config"].(map[string]any)["clusters"].([]string) {
							names = append(names, name)
						}
					}
				}
			}
			return clusters, c
		}
	}
	return g.Clusters, c
}

// one of those that are given.
func one[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// chance is true once in n times.
func chance(r *rand.Rand, n int) bool { return r.IntN(n) == 0 }
