//go:build e2e

package compile

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/e2e/consultest"
)

// worlds is how many random sets of entries are compared.
const worlds = 150

var services = []string{"a", "b", "c", "d"}

// invent makes config entries at random, in the order in which Consul takes them:
// what names something comes after it.
func invent(r *rand.Rand) []api.ConfigEntry {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	some := func(percent int) bool { return r.IntN(100) < percent }
	var out []api.ConfigEntry
	if some(30) {
		out = append(out, &api.ProxyConfigEntry{Kind: api.ProxyDefaults, Name: "global", Config: map[string]any{"protocol": pick("http", "http2", "grpc", "tcp")}})
	}
	protocol := pick("http", "http", "grpc")
	for _, s := range services {
		if some(85) {
			out = append(out, &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: s, Protocol: protocol})
		}
	}
	subsets := map[string][]string{}
	for _, s := range services {
		if !some(60) {
			continue
		}
		e := &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: s}
		if some(50) {
			e.ConnectTimeout = time.Duration(1+r.IntN(9)) * time.Second
		}
		if some(20) {
			e.LoadBalancer = &api.LoadBalancer{Policy: pick("random", "least_request", "round_robin")}
		}
		if some(15) {
			e.Redirect = &api.ServiceResolverRedirect{}
			if some(80) {
				e.Redirect.Service = pick(services...)
			}
			if some(40) || e.Redirect.Service == "" {
				e.Redirect.Datacenter = pick("dc2", "dc3")
			}
			e.ConnectTimeout, e.LoadBalancer = 0, nil
			out = append(out, e)
			continue
		}
		if some(60) {
			e.Subsets = map[string]api.ServiceResolverSubset{}
			for _, v := range []string{"v1", "v2"} {
				if some(70) {
					e.Subsets[v] = api.ServiceResolverSubset{Filter: "Service.Meta.version == " + v, OnlyPassing: some(30)}
					subsets[s] = append(subsets[s], v)
				}
			}
			if len(subsets[s]) > 0 && some(40) {
				e.DefaultSubset = pick(subsets[s]...)
			}
		}
		if some(40) {
			key := "*"
			if len(subsets[s]) > 0 && some(50) {
				key = pick(subsets[s]...)
			}
			f := api.ServiceResolverFailover{}
			if some(70) {
				f.Service = pick(services...)
			}
			if some(50) || f.Service == "" {
				f.Datacenters = []string{"dc2", "dc3"}[:1+r.IntN(2)]
			}
			e.Failover = map[string]api.ServiceResolverFailover{key: f}
		}
		out = append(out, e)
	}
	leg := func(own string) (service, subset string) {
		service = pick(append(slices.Clone(services), own, "")...)
		of := service
		if of == "" {
			of = own
		}
		if len(subsets[of]) > 0 && some(50) {
			subset = pick(subsets[of]...)
		}
		return service, subset
	}
	for _, s := range services {
		if !some(35) {
			continue
		}
		e := &api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: s}
		weights := [][]float32{{100}, {90, 10}, {33.33, 33.33, 33.34}, {0.01, 99.99}, {50, 25, 25}}[r.IntN(5)]
		for _, w := range weights {
			x := api.ServiceSplit{Weight: w}
			x.Service, x.ServiceSubset = leg(s)
			e.Splits = append(e.Splits, x)
		}
		out = append(out, e)
	}
	for _, s := range services {
		if !some(40) {
			continue
		}
		e := &api.ServiceRouterConfigEntry{Kind: api.ServiceRouter, Name: s}
		for i := range 1 + r.IntN(3) {
			x := api.ServiceRoute{Match: &api.ServiceRouteMatch{HTTP: &api.ServiceRouteHTTPMatch{PathPrefix: fmt.Sprintf("/%d", i)}}, Destination: &api.ServiceRouteDestination{}}
			if some(20) {
				x.Match = nil
			}
			x.Destination.Service, x.Destination.ServiceSubset = leg(s)
			e.Routes = append(e.Routes, x)
		}
		out = append(out, e)
	}
	return out
}

// theirs is Consul's chain, written as sketch writes ours.
func theirs(c *api.CompiledDiscoveryChain) []string {
	resolver := func(n *api.DiscoveryGraphNode) string {
		s := strings.TrimSuffix(n.Resolver.Target, ".default.default.dc1")
		if n.Resolver.Failover != nil {
			// Redirects may lead to one place twice, or to the first choice: named by
			// Consul, and never tried with another outcome.
			for i, f := range n.Resolver.Failover.Targets {
				if f == n.Resolver.Target || slices.Contains(n.Resolver.Failover.Targets[:i], f) {
					continue
				}
				s += " else " + strings.TrimSuffix(f, ".default.default.dc1")
			}
		}
		policy := ""
		if n.LoadBalancer != nil {
			policy = n.LoadBalancer.Policy
		}
		return fmt.Sprintf("%s [%s %s]", s, n.Resolver.ConnectTimeout, policy)
	}
	legs := func(name string) string {
		n := c.Nodes[name]
		if n.Type == api.DiscoveryGraphNodeTypeResolver {
			return " " + resolver(n)
		}
		out := ""
		for _, s := range n.Splits {
			out += " " + weight(uint32(math.Round(float64(s.Weight)*100))) + resolver(c.Nodes[s.NextNode])
		}
		return out
	}
	start := c.Nodes[c.StartNode]
	if start.Type != api.DiscoveryGraphNodeTypeRouter {
		return []string{"*" + legs(c.StartNode)}
	}
	var out []string
	for i, r := range start.Routes {
		match := "*"
		if m := r.Definition.Match; m != nil && m.HTTP != nil && i < len(start.Routes)-1 {
			match = m.HTTP.PathPrefix
		}
		out = append(out, match+legs(r.NextNode))
	}
	return out
}

var weights = regexp.MustCompile(`(\d+)×`)

// alike is equality, but for a weight's last digit: ours add up to the whole,
// Consul's are rounded one by one.
func alike(a, b []string) bool {
	x, y := strings.Join(a, "\n"), strings.Join(b, "\n")
	if weights.ReplaceAllString(x, "") != weights.ReplaceAllString(y, "") {
		return false
	}
	v, w := weights.FindAllStringSubmatch(x, -1), weights.FindAllStringSubmatch(y, -1)
	return slices.EqualFunc(v, w, func(m, n []string) bool {
		i, _ := strconv.Atoi(m[1])
		j, _ := strconv.Atoi(n[1])
		return i-j <= 1 && j-i <= 1
	})
}

func describe(entries []api.ConfigEntry) string {
	var out strings.Builder
	for _, e := range entries {
		b, _ := json.Marshal(e)
		fmt.Fprintf(&out, "  %s\n", b)
	}
	return out.String()
}

func weight(w uint32) string {
	if w == 10000 {
		return ""
	}
	return fmt.Sprintf("%d×", w)
}

func ours(c *Chain) []string {
	var out []string
	for _, r := range c.Routes {
		line := "*"
		if r.Match != nil {
			line = r.Match.PathPrefix
		}
		for _, s := range r.Splits {
			res := c.Resolvers[s.Resolver]
			line += " " + weight(s.Weight) + strings.TrimSuffix(res.Target, ".default.default.dc1")
			for _, f := range res.Failover {
				line += " else " + strings.TrimSuffix(f, ".default.default.dc1")
			}
			policy := ""
			if res.LoadBalancer != nil {
				policy = res.LoadBalancer.Policy
			}
			line += fmt.Sprintf(" [%s %s]", res.ConnectTimeout, policy)
		}
		out = append(out, line)
	}
	return out
}

// TestOracle: random entries, compiled here and by the real Consul, give the same
// routes, weights, targets, failover, timeouts and protocol.
func TestOracle(t *testing.T) {
	server, err := consultest.Start(t.Context(), consultest.Options{Dir: t.TempDir(), Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	conf := api.DefaultConfig()
	conf.Address = server.HTTPAddr()
	consul, err := api.NewClient(conf)
	if err != nil {
		t.Fatal(err)
	}
	defer conf.Transport.CloseIdleConnections()
	compared, routed, split, stricter := 0, 0, 0, 0
	for seed := range uint64(worlds) {
		var taken []api.ConfigEntry
		for _, e := range invent(rand.New(rand.NewPCG(seed, 1))) {
			// What Consul refuses is no entry for either.
			if ok, _, err := consul.ConfigEntries().Set(e, nil); err == nil && ok {
				taken = append(taken, e)
			}
		}
		// What it took is read back: it fills in defaults.
		snap := snapshot()
		for _, e := range taken {
			got, _, err := consul.ConfigEntries().Get(e.GetKind(), e.GetName(), nil)
			if err != nil {
				t.Fatal(err)
			}
			snap.Entries[catalog.KeyOf(got)] = got
		}
		for _, s := range services {
			reply, _, err := consul.DiscoveryChain().Get(s, nil, nil)
			chain, _, mine := CompileChain(snap, catalog.NewName("dc1", s))
			if err != nil || mine != nil {
				if err == nil && strings.Contains(mine.Error(), "set Protocol in") || err == nil && strings.Contains(mine.Error(), "need one protocol") {
					// Documented in docs/consul.md: Consul asks the protocol of what
					// a chain ends in only; here a service that only splits or
					// routes needs one too, because its callers' listener has it.
					stricter++
					continue
				}
				if (err == nil) != (mine == nil) {
					t.Errorf("world %d, %s: Consul says %v, we say %v\n%s", seed, s, err, mine, describe(taken))
				}
				continue
			}
			want, have := theirs(reply.Chain), ours(chain)
			if !alike(want, have) || reply.Chain.Protocol != chain.Protocol {
				t.Errorf("world %d, %s (%s, ours %s)\n  Consul %s\n  ours   %s", seed, s, reply.Chain.Protocol, chain.Protocol,
					strings.Join(want, "\n         "), strings.Join(have, "\n         "))
			}
			compared++
			if len(want) > 1 {
				routed++
			}
			if strings.Contains(strings.Join(want, ""), "×") {
				split++
			}
		}
		for _, e := range slices.Backward(taken) {
			if _, err := consul.ConfigEntries().Delete(e.GetKind(), e.GetName(), nil); err != nil {
				t.Fatalf("world %d: %v", seed, err)
			}
		}
		if t.Failed() && seed > 20 {
			break
		}
	}
	t.Logf("%d chains compared, %d with routes, %d with splits; %d need a protocol here", compared, routed, split, stricter)
	if stricter > compared/10 || compared < worlds || routed < worlds/5 || split < worlds/5 {
		t.Error("too little was compared")
	}
}
