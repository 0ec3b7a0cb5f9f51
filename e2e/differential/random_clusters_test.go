//go:build e2e

package differential

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// TestRandomClusters: random hosts, priorities, localities, weights and balancers, subsets and
// sockets, and which host gets a request.
func TestRandomClusters(t *testing.T) {
	random(t, domain{rounds: 2, known: knownOfClusters, group: randomClusters})
}

// hostCount is how many origins there are.
const hostCount = 8

func randomClusters(r *rand.Rand) *Group {
	g := &Group{About: "random clusters", Hosts: hostCount, Bootstrap: dict{"layered_runtime": dict{"layers": []any{dict{"name": "static", "static_layer": dict{"load_balancing_policy": dict{"drop_overload_limit": 100}}}}}}}
	zoned := chance(r, 2)
	if zoned {
		g.zones(r)
	}
	c := Config{Name: "clusters", About: "random", HCM: map[string]any{"use_remote_address": false}}
	aggregated := -10
	for i := range 10 {
		k := &madeCluster{name: fmt.Sprintf("k%d", i), zoned: zoned}
		k.make(r)
		k.subsets = k.subsets || i == 0
		g.Clusters = append(g.Clusters, k.cluster)
		if of := aggregated; i > 1 && i-of > 2 && chance(r, 8) { // of none that is one
			aggregated = i
			k.cluster = aggregateOf(k, fmt.Sprintf("k%d", i-1), fmt.Sprintf("k%d", i-2))
			g.Clusters[len(g.Clusters)-1] = k.cluster
			k.hashed, k.picks = false, 0
		}
		route := map[string]any{"cluster": k.name}
		if k.hashed {
			route["hash_policy"] = randomHashPolicy(r)
		}
		if i == 0 && k.subsets { // one subset that there is in each seed, or nobody
			delete(k.cluster, "load_balancing_policy") // which has subsets of its own
			k.cluster["lb_subset_config"] = map[string]any{"fallback_policy": "NO_FALLBACK", "subset_selectors": []any{map[string]any{"keys": []any{"hash_key"}}}}
			route["metadata_match"] = map[string]any{"filter_metadata": map[string]any{"envoy.lb": map[string]any{"hash_key": one(r, "h1", "h2", "h3")}}}
		} else if k.subsets {
			route["metadata_match"] = map[string]any{"filter_metadata": map[string]any{"envoy.lb": randomCriteria(r)}}
		}
		c.Routes = append(c.Routes, map[string]any{"match": map[string]any{"path": "/" + k.name}, "route": route})
		n, repeat := 8, 0
		if !k.hashed {
			n, repeat = 1, 100
		}
		for range n {
			c.Cases = append(c.Cases, Case{Name: fmt.Sprintf("case-%d", len(c.Cases)), Send: randomHashed(r, k.name), Repeat: repeat, Tolerance: 0.2})
		}
	}
	g.Configs = []Config{c}
	return g
}

// madeCluster is a cluster and what requests to it have to say.
type madeCluster struct {
	name            string
	cluster         map[string]any
	hashed, subsets bool
	picks           int
	zoned           bool // the bootstrap names a local cluster
	byName          bool // hosts are hashed by their names
}

func (k *madeCluster) make(r *rand.Rand) {
	k.cluster = map[string]any{"name": k.name}
	common := map[string]any{}
	if chance(r, 2) {
		common["healthy_panic_threshold"] = map[string]any{"value": one(r, 0, 1, 30, 50, 70, 100)}
	}
	switch r.IntN(5) {
	case 0, 1:
		k.hashed = true
		k.cluster["lb_policy"] = "RING_HASH"
		if chance(r, 2) {
			k.cluster["ring_hash_lb_config"] = one(r, map[string]any{"minimum_ring_size": 1}, map[string]any{"minimum_ring_size": 7, "maximum_ring_size": 7}, map[string]any{"hash_function": "MURMUR_HASH_2"},
				map[string]any{"minimum_ring_size": 100, "maximum_ring_size": 200, "hash_function": "MURMUR_HASH_2"}, map[string]any{"maximum_ring_size": 1024})
		}
	case 2:
		k.hashed = true
		k.cluster["lb_policy"] = "MAGLEV"
		if chance(r, 2) {
			k.cluster["maglev_lb_config"] = map[string]any{"table_size": one(r, 2, 3, 11, 101, 65537)}
		}
	case 3:
		k.cluster["lb_policy"] = "LEAST_REQUEST"
	case 4:
		k.cluster["lb_policy"] = "ROUND_ROBIN"
	}
	if chance(r, 3) {
		common["locality_weighted_lb_config"] = map[string]any{}
	}
	if k.hashed && chance(r, 4) {
		common["consistent_hashing_lb_config"] = map[string]any{"hash_balance_factor": one(r, 100, 110, 200)}
	}
	k.more(r, common)
	if len(common) > 0 {
		k.cluster["common_lb_config"] = common
	}
	if chance(r, 3) {
		k.subsets = true
		subsets := randomSubsets(r)
		if common["locality_weighted_lb_config"] == nil { // which it needs
			delete(subsets, "locality_weight_aware")
			delete(subsets, "scale_locality_weight")
		}
		k.cluster["lb_subset_config"] = subsets
	}
	if chance(r, 3) {
		k.typed(r, common)
	}
	k.cluster["load_assignment"] = k.assignment(r)
	if chance(r, 6) {
		raw := map[string]any{"@type": apiType + "extensions.transport_sockets.raw_buffer.v3.RawBuffer"}
		tells := map[string]any{"@type": apiType + "extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport", "config": map[string]any{"version": "V1"},
			"transport_socket": map[string]any{"name": "raw", "typed_config": raw}}
		match := func(match map[string]any, socket map[string]any) any {
			return map[string]any{"name": fmt.Sprint(match), "match": match, "transport_socket": map[string]any{"name": "s", "typed_config": socket}}
		}
		k.cluster["transport_socket_matches"] = []any{match(map[string]any{"kind": "a", "n": 1}, tells), match(map[string]any{"kind": "a"}, raw), match(map[string]any{"kind": one(r, any("b"), any(true), any(1))}, tells)}
	}
}

// typed has a load_balancing_policy in place of the older fields.
func (k *madeCluster) typed(r *rand.Rand, common map[string]any) {
	const kinds = apiType + "extensions.load_balancing_policies."
	localities, hashing, zones := common["locality_weighted_lb_config"], common["consistent_hashing_lb_config"], common["zone_aware_lb_config"]
	policy := map[string]any{}
	switch old, _ := k.cluster["lb_policy"].(string); old {
	case "RING_HASH":
		policy["@type"] = kinds + "ring_hash.v3.RingHash"
		if own, ok := k.cluster["ring_hash_lb_config"].(map[string]any); ok {
			maps.Copy(policy, own)
		}
	case "MAGLEV":
		policy["@type"] = kinds + "maglev.v3.Maglev"
		if own, ok := k.cluster["maglev_lb_config"].(map[string]any); ok {
			maps.Copy(policy, own)
		}
	case "ROUND_ROBIN":
		policy["@type"] = one(r, kinds+"round_robin.v3.RoundRobin", kinds+"random.v3.Random")
	default:
		policy["@type"] = kinds + "least_request.v3.LeastRequest"
		maps.Copy(policy, one(r, map[string]any{}, map[string]any{"enable_full_scan": true}, map[string]any{"choice_count": 2}, map[string]any{"selection_method": "FULL_SCAN"}))
	}
	if slow := k.slowStart(); slow != nil && !strings.HasSuffix(policy["@type"].(string), "Random") && !k.hashed {
		policy["slow_start_config"] = slow
	}
	switch {
	case localities != nil && k.hashed:
		policy["locality_weighted_lb_config"] = localities
	case localities != nil:
		policy["locality_lb_config"] = map[string]any{"locality_weighted_lb_config": localities}
	case zones != nil && !k.hashed:
		policy["locality_lb_config"] = map[string]any{"zone_aware_lb_config": forced(r, zones.(map[string]any))}
	}
	if k.hashed && chance(r, 4) {
		k.byName = true
		own := map[string]any{"use_hostname_for_hashing": true}
		if h, ok := common["consistent_hashing_lb_config"].(map[string]any); ok {
			maps.Copy(own, h)
		}
		hashing = own
	}
	if hashing != nil && k.hashed {
		policy["consistent_hashing_lb_config"] = hashing
	}
	extension := func(typed map[string]any) map[string]any {
		return map[string]any{"policies": []any{map[string]any{"typed_extension_config": map[string]any{"name": "p", "typed_config": typed}}}}
	}
	if subsets, ok := k.cluster["lb_subset_config"].(map[string]any); ok {
		own := map[string]any{"@type": kinds + "subset.v3.Subset", "subset_lb_policy": extension(policy)}
		maps.Copy(own, subsets)
		if chance(r, 3) {
			own["allow_redundant_keys"] = true
		}
		policy = own
	}
	for _, old := range []string{"lb_policy", "ring_hash_lb_config", "maglev_lb_config", "lb_subset_config", "round_robin_lb_config", "least_request_lb_config"} {
		delete(k.cluster, old)
	}
	delete(common, "zone_aware_lb_config")
	delete(common, "locality_weighted_lb_config")
	delete(common, "consistent_hashing_lb_config")
	k.cluster["load_balancing_policy"] = extension(policy)
}

// assignment has hosts in localities of a few priorities, some of them without a host.
func (k *madeCluster) assignment(r *rand.Rand) map[string]any {
	hosts := r.Perm(hostCount)[:1+r.IntN(hostCount)]
	priorities := 1 + r.IntN(3)
	if k.name == "own" {
		priorities = 1
	}
	localities := 1 + r.IntN(3)
	weighted := chance(r, 3)
	by := map[[2]int][]any{}
	for i, h := range hosts {
		priority := r.IntN(priorities)
		if i < priorities {
			priority = i // each has one
		}
		at := [2]int{priority, r.IntN(localities)}
		by[at] = append(by[at], k.host(r, fmt.Sprintf("h%d", h+1), weighted))
	}
	var endpoints []any
	for p := range priorities {
		for l := range localities {
			e := map[string]any{"priority": p, "locality": k.locality(r, l), "lb_endpoints": append([]any{}, by[[2]int{p, l}]...)}
			if !chance(r, 4) {
				e["load_balancing_weight"] = one(r, 1, 2, 5, 100)
			}
			if chance(r, 3) {
				e["metadata"] = map[string]any{"filter_metadata": map[string]any{"envoy.transport_socket_match": randomSocket(r)}}
			}
			if by[[2]int{p, l}] != nil || chance(r, 4) {
				endpoints = append(endpoints, e)
			}
		}
	}
	out := map[string]any{"cluster_name": k.name, "endpoints": endpoints}
	policy := map[string]any{}
	if chance(r, 3) {
		policy["overprovisioning_factor"] = one(r, 1, 100, 140, 200, 1000)
	}
	if chance(r, 4) {
		policy["weighted_priority_health"] = true
	}
	if chance(r, 8) {
		policy["drop_overloads"] = []any{map[string]any{"category": "c", "drop_percentage": map[string]any{"numerator": one(r, 0, 0, 100)}}}
	}
	if len(policy) > 0 {
		out["policy"] = policy
	}
	return out
}

func (k *madeCluster) host(r *rand.Rand, name string, weighted bool) map[string]any {
	lb := map[string]any{"hash_key": name}
	if k.byName {
		delete(lb, "hash_key")
	}
	if chance(r, 2) {
		lb["version"] = one(r, any("1"), any("2"), any(1), any([]any{"1", "2"}), any(true))
	}
	if chance(r, 2) {
		lb["stage"] = one(r, "prod", "test")
	}
	h := map[string]any{"endpoint": map[string]any{"address": map[string]any{"socket_address": name}, "hostname": one(r, name, "same", "")},
		"metadata": map[string]any{"filter_metadata": map[string]any{"envoy.lb": lb, "envoy.transport_socket_match": randomSocket(r)}}}
	if chance(r, 3) {
		if h["health_status"] = one(r, "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED"); h["health_status"] == "DEGRADED" && k.hashed {
			delete(h, "health_status") // Envoy's tables of hashes have healthy hosts alone: it knows no degraded ones there
		}
	}
	if k.byName {
		h["endpoint"].(map[string]any)["hostname"] = name
	}
	if weighted {
		h["load_balancing_weight"] = one(r, 1, 2, 3, 10, 128)
	}
	return h
}

// randomSocket is what metadata say of the transport socket.
func randomSocket(r *rand.Rand) map[string]any {
	return one(r, map[string]any{}, map[string]any{"kind": "a"}, map[string]any{"kind": "a", "n": 1}, map[string]any{"kind": "b", "m": 2}, map[string]any{"kind": true})
}

func randomSubsets(r *rand.Rand) map[string]any {
	s := map[string]any{"fallback_policy": one(r, "NO_FALLBACK", "ANY_ENDPOINT", "DEFAULT_SUBSET"), "default_subset": one(r, map[string]any{"stage": "prod"}, map[string]any{"version": "1"}, map[string]any{"stage": "none"}, map[string]any{})}
	var selectors []any
	for _, keys := range [][]any{{"version"}, {"stage"}, {"version", "stage"}, {"hash_key"}} {
		if chance(r, 2) {
			continue
		}
		selector := map[string]any{"keys": keys}
		if keys[0] == "hash_key" && chance(r, 3) {
			selector["single_host_per_subset"] = true
		}
		switch r.IntN(5) {
		case 0:
			selector["fallback_policy"] = one(r, "NO_FALLBACK", "ANY_ENDPOINT", "DEFAULT_SUBSET")
		case 1:
			if len(keys) > 1 {
				selector["fallback_policy"], selector["fallback_keys_subset"] = "KEYS_SUBSET", []any{one(r, "version", "stage")}
			}
		}
		selectors = append(selectors, selector)
	}
	s["subset_selectors"] = selectors
	for _, flag := range []string{"list_as_any", "scale_locality_weight", "panic_mode_any", "locality_weight_aware"} {
		if chance(r, 3) {
			s[flag] = true
		}
	}
	if s["locality_weight_aware"] == nil {
		delete(s, "scale_locality_weight")
	}
	if chance(r, 4) {
		s["metadata_fallback_policy"] = one(r, "FALLBACK_LIST", "FALLBACK_LIST", "METADATA_NO_FALLBACK")
	}
	return s
}

func randomCriteria(r *rand.Rand) map[string]any {
	out := map[string]any{}
	if chance(r, 2) {
		out["version"] = one(r, any("1"), any("2"), any(1), any("3"), any([]any{"1", "2"}))
	}
	if chance(r, 2) {
		out["stage"] = one(r, "prod", "test", "none")
	}
	if chance(r, 6) {
		out["hash_key"] = one(r, "h1", "h2", "h3")
	}
	if chance(r, 4) {
		var list []any
		for range 1 + r.IntN(3) {
			list = append(list, one(r, map[string]any{"version": "1"}, map[string]any{"stage": "prod"}, map[string]any{"stage": "none"}, map[string]any{"version": "2", "stage": "test"}, map[string]any{"hash_key": "h2"}, map[string]any{}))
		}
		out["fallback_list"] = list
	}
	return out
}

func randomHashPolicy(r *rand.Rand) []any {
	var out []any
	for range 1 + r.IntN(2) {
		p := map[string]any{}
		switch r.IntN(5) {
		case 0:
			p["cookie"] = map[string]any{"name": "c"}
		case 1:
			p["connection_properties"] = map[string]any{"source_ip": true}
		case 2:
			p["query_parameter"] = map[string]any{"name": "q"}
		default:
			h := map[string]any{"header_name": "x-h"}
			if chance(r, 4) {
				h["regex_rewrite"] = map[string]any{"pattern": map[string]any{"regex": "^(.).*"}, "substitution": `\1`}
			}
			p["header"] = h
		}
		if chance(r, 4) {
			p["terminal"] = true
		}
		out = append(out, p)
	}
	return append(out, map[string]any{"header": map[string]any{"header_name": "x-last"}})
}

// randomHashed is a request with something that every policy hashes.
func randomHashed(r *rand.Rand, name string) string {
	text := func() string {
		return one(r, "a", "b", "ab", "key-1", "key-2", "Ä", strings.Repeat("x", 40), fmt.Sprint(r.IntN(1000)), "%61")
	}
	query := one(r, "", "?q="+text(), "?q=&q="+text(), "?Q=1&q=2", "?q")
	var b strings.Builder
	fmt.Fprintf(&b, "GET /%s%s\nX-Last: %s\n", name, strings.ReplaceAll(query, "Ä", "%C3%84"), text())
	for range r.IntN(3) {
		fmt.Fprintf(&b, "X-H: %s\n", text())
	}
	if chance(r, 2) {
		fmt.Fprintf(&b, "Cookie: a=b; c=%s; c=d\n", strings.ReplaceAll(text(), "Ä", "A"))
	}
	fmt.Fprintf(&b, "X-Forwarded-For: %s\n", one(r, "1.2.3.4", "10.0.0.1", "2001:db8::1"))
	return b.String()
}

func aggregateOf(k *madeCluster, names ...string) map[string]any {
	k.subsets = false
	return map[string]any{"name": k.name, "lb_policy": "CLUSTER_PROVIDED", "cluster_type": map[string]any{"name": "envoy.clusters.aggregate",
		"typed_config": map[string]any{"@type": apiType + "extensions.clusters.aggregate.v3.ClusterConfig", "clusters": names}}}
}

// knownOfClusters are differences that docs/differential.md has.
func knownOfClusters(_ *Config, x *Case, d Difference) string {
	share := func(text string) float64 {
		if text == absent {
			return 0
		}
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return math.Inf(1)
		}
		return n
	}
	if strings.HasPrefix(d.Field, "share.") && math.Abs(share(d.Envoy)-share(d.Hauberk)) <= x.Tolerance {
		return "nearly none is like none"
	}
	return ""
}
