//go:build e2e

package differential

import (
	"fmt"
	"maps"
	"math/rand/v2"
)

// zones has the bootstrap name a cluster of its own, whose hosts are in the zones of the others.
func (g *Group) zones(r *rand.Rand) {
	node := map[string]any{"zone": fmt.Sprintf("z%d", r.IntN(3))}
	if chance(r, 4) {
		delete(node, "zone")
	}
	g.Bootstrap["node"] = map[string]any{"id": "differential", "cluster": "test", "locality": node}
	g.Bootstrap["cluster_manager"] = map[string]any{"local_cluster_name": "own"}
	k := &madeCluster{name: "own", zoned: true}
	k.cluster = map[string]any{"name": k.name, "load_assignment": k.assignment(r)}
	if chance(r, 3) {
		k.cluster["common_lb_config"] = map[string]any{"healthy_panic_threshold": map[string]any{"value": one(r, 0, 70)}}
	}
	g.Clusters = append(g.Clusters, k.cluster)
}

// locality is the n-th. Where requests keep to zones, they are in one region.
func (k *madeCluster) locality(r *rand.Rand, n int) map[string]any {
	out := map[string]any{"zone": fmt.Sprintf("z%d", n)}
	if !k.zoned {
		out["region"] = one(r, "r", "")
		if chance(r, 4) {
			out["sub_zone"] = one(r, "s", "")
		}
	}
	return out
}

// more are options of the balancer that few clusters have.
func (k *madeCluster) more(r *rand.Rand, common map[string]any) {
	if k.zoned && common["locality_weighted_lb_config"] == nil && !chance(r, 3) {
		z := map[string]any{}
		if !chance(r, 3) {
			z["min_cluster_size"] = one(r, 0, 1, 3, 6)
		}
		if chance(r, 4) {
			z["routing_enabled"] = map[string]any{"value": one(r, 0, 100)}
		}
		if chance(r, 3) {
			z["fail_traffic_on_panic"] = true
		}
		common["zone_aware_lb_config"] = z
	}
	slow := map[string]any{"slow_start_window": "600s"}
	if chance(r, 2) {
		slow["aggression"] = map[string]any{"default_value": one(r, 1, 2), "runtime_key": "no.such.key"}
	}
	if chance(r, 2) {
		// Without a least weight Envoy has the first host get all requests for as long as the others' first turns last,
		// which are of the moment at which they were new.
		slow["min_weight_percent"] = map[string]any{"value": one(r, 10, 50, 100)}
	}
	switch k.cluster["lb_policy"] {
	case "ROUND_ROBIN":
		if chance(r, 4) {
			k.cluster["round_robin_lb_config"] = map[string]any{"slow_start_config": slow}
		}
	case "LEAST_REQUEST":
		if chance(r, 4) {
			k.cluster["least_request_lb_config"] = map[string]any{"slow_start_config": slow}
		} else if chance(r, 4) {
			k.cluster["least_request_lb_config"] = map[string]any{"choice_count": one(r, 2, 5), "active_request_bias": map[string]any{"default_value": one(r, 0, 1, 3), "runtime_key": "no.such.key"}}
		}
	}
}

// slowStart is what the older fields say of it, nil for nothing.
func (k *madeCluster) slowStart() any {
	for _, f := range []string{"round_robin_lb_config", "least_request_lb_config"} {
		if own, ok := k.cluster[f].(map[string]any); ok {
			return own["slow_start_config"]
		}
	}
	return nil
}

// forced has a zone that is not left, or counts it otherwise.
func forced(r *rand.Rand, zones map[string]any) map[string]any {
	out := maps.Clone(zones)
	switch r.IntN(5) {
	case 0:
		out["force_local_zone"] = one(r, map[string]any{}, map[string]any{"min_size": 0}, map[string]any{"min_size": 2})
	case 1:
		out["force_locality_direct_routing"] = true
	case 2:
		out["locality_basis"] = one(r, "HEALTHY_HOSTS_NUM", "HEALTHY_HOSTS_WEIGHT")
	}
	return out
}
