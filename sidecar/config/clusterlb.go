package config

import (
	"math"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	clusterprovidedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/cluster_provided/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastrequestv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	ringhashv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	roundrobinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	subsetv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/subset/v3"
	wrrlocalityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
)

// balancing reads how hosts are chosen: by lb_policy and its companions, or by
// load_balancing_policy, which replaces them.
func (d *decoder) balancing(m *clusterv3.Cluster, out *cluster.Config) error {
	common := m.GetCommonLbConfig()
	if p := common.GetHealthyPanicThreshold(); p != nil {
		if err := percentage(p, "common_lb_config.healthy_panic_threshold"); err != nil {
			return err
		}
		v := p.GetValue()
		out.PanicThreshold = &v
	}
	out.ExcludeUnchecked = common.GetIgnoreNewHostsUntilFirstHc()
	out.CloseOnChange = common.GetCloseConnectionsOnHostSetChange()
	if lbp := m.GetLoadBalancingPolicy(); lbp != nil {
		switch {
		case m.GetLbSubsetConfig() != nil:
			return fail("lb_subset_config", "cannot be combined with load_balancing_policy; use its subset policy")
		case common.GetLocalityConfigSpecifier() != nil || common.GetConsistentHashingLbConfig() != nil:
			return fail("common_lb_config", "zone_aware_lb_config, locality_weighted_lb_config and consistent_hashing_lb_config cannot be combined with load_balancing_policy; put them into it")
		case m.GetLbConfig() != nil && m.GetOriginalDstLbConfig() == nil:
			return fail("load_balancing_policy", "cannot be combined with the configuration of an lb_policy")
		}
		return d.typedPolicy(lbp, out, "load_balancing_policy", 0)
	}
	if err := legacyPolicy(m, out); err != nil {
		return err
	}
	out.LocalityWeighted = common.GetLocalityWeightedLbConfig() != nil
	if z := common.GetZoneAwareLbConfig(); z != nil {
		if err := zoneAware(z, cluster.DefaultZoneAware(), out, "common_lb_config.zone_aware_lb_config"); err != nil {
			return err
		}
	}
	if c := common.GetConsistentHashingLbConfig(); c != nil {
		if c.GetUseHostnameForHashing() && m.GetType() != clusterv3.Cluster_STRICT_DNS {
			return fail("common_lb_config.consistent_hashing_lb_config.use_hostname_for_hashing", "needs type STRICT_DNS; the typed policies of load_balancing_policy take it for others")
		}
		if err := consistent(c.GetUseHostnameForHashing(), c.GetHashBalanceFactor(), out, "common_lb_config.consistent_hashing_lb_config"); err != nil {
			return err
		}
	}
	if err := d.legacyPolicyConfig(m, out); err != nil {
		return err
	}
	if m.GetLbSubsetConfig().GetLocalityWeightAware() && !out.LocalityWeighted {
		return fail("lb_subset_config.locality_weight_aware", "needs common_lb_config.locality_weighted_lb_config")
	}
	return legacySubsets(m.GetLbSubsetConfig(), out)
}

// percentage checks what Envoy takes for one.
func percentage(p *typev3.Percent, path string) error {
	if v := p.GetValue(); !(v >= 0 && v <= 100) {
		return fail(path, "%v is not a percentage", v)
	}
	return nil
}

// provided tells whether a cluster type chooses its hosts itself.
func provided(out *cluster.Config) bool {
	return out.Type == cluster.Aggregate || out.Type == cluster.OriginalDestination
}

func legacyPolicy(m *clusterv3.Cluster, out *cluster.Config) error {
	if p := m.GetLbPolicy(); provided(out) != (p == clusterv3.Cluster_CLUSTER_PROVIDED) {
		return fail("lb_policy", "is %s; aggregate and ORIGINAL_DST clusters need CLUSTER_PROVIDED, others cannot have it", p)
	}
	switch m.GetLbPolicy() {
	case clusterv3.Cluster_CLUSTER_PROVIDED, clusterv3.Cluster_ROUND_ROBIN:
		out.LB = cluster.RoundRobin
	case clusterv3.Cluster_LEAST_REQUEST:
		out.LB = cluster.LeastRequest
	case clusterv3.Cluster_RANDOM:
		out.LB = cluster.Random
	case clusterv3.Cluster_RING_HASH:
		out.LB = cluster.RingHash
	case clusterv3.Cluster_MAGLEV:
		out.LB = cluster.Maglev
	default:
		return fail("lb_policy", "is %s; use load_balancing_policy, or another one", m.GetLbPolicy())
	}
	return nil
}

// legacyPolicyConfig reads the configuration of the policy that lb_policy names. That of
// another says nothing, as in Envoy.
func (d *decoder) legacyPolicyConfig(m *clusterv3.Cluster, out *cluster.Config) error {
	inForce := func(lb cluster.LB) bool { return out.LB == lb && !provided(out) }
	switch c := m.GetLbConfig().(type) {
	case *clusterv3.Cluster_RoundRobinLbConfig_:
		if !inForce(cluster.RoundRobin) {
			return nil
		}
		s := c.RoundRobinLbConfig.GetSlowStartConfig()
		return d.slowStart(s != nil, s.GetSlowStartWindow(), s.GetAggression(), s.GetMinWeightPercent(), out, "round_robin_lb_config.slow_start_config")
	case *clusterv3.Cluster_LeastRequestLbConfig_:
		if !inForce(cluster.LeastRequest) {
			return nil
		}
		lr := c.LeastRequestLbConfig
		if err := d.leastRequest(lr.GetChoiceCount(), lr.GetActiveRequestBias(), out, "least_request_lb_config"); err != nil {
			return err
		}
		s := lr.GetSlowStartConfig()
		return d.slowStart(s != nil, s.GetSlowStartWindow(), s.GetAggression(), s.GetMinWeightPercent(), out, "least_request_lb_config.slow_start_config")
	case *clusterv3.Cluster_RingHashLbConfig_:
		if !inForce(cluster.RingHash) {
			return nil
		}
		r := c.RingHashLbConfig
		hashTable(out).Murmur2 = r.GetHashFunction() == clusterv3.Cluster_RingHashLbConfig_MURMUR_HASH_2
		return ring(r.GetMinimumRingSize(), r.GetMaximumRingSize(), out, "ring_hash_lb_config")
	case *clusterv3.Cluster_MaglevLbConfig_:
		if !inForce(cluster.Maglev) {
			return nil
		}
		return maglev(c.MaglevLbConfig.GetTableSize(), out, "maglev_lb_config")
	}
	return nil
}

// typedPolicy reads the first policy of a list, as Envoy does, which takes the
// first that it knows; the sidecar has refused those it does not know.
func (d *decoder) typedPolicy(m *clusterv3.LoadBalancingPolicy, out *cluster.Config, path string, depth int) error {
	if len(m.GetPolicies()) == 0 {
		return fail(path+".policies", "is empty")
	}
	if depth > 2 {
		return fail(path, "policies are nested too deep")
	}
	path = at(path+".policies", 0) + ".typed_extension_config"
	tc := m.GetPolicies()[0].GetTypedExtensionConfig()
	path += ".typed_config"
	p := d.unpacked[tc.GetTypedConfig()]
	if _, own := p.(*clusterprovidedv3.ClusterProvided); own != provided(out) {
		return fail(path, "aggregate and ORIGINAL_DST clusters need the cluster_provided policy, others cannot have it")
	}
	switch p := p.(type) {
	case *clusterprovidedv3.ClusterProvided:
		return nil
	case *roundrobinv3.RoundRobin:
		out.LB = cluster.RoundRobin
		if err := locality(p.GetLocalityLbConfig(), out, path); err != nil {
			return err
		}
		return d.typedSlowStart(p.GetSlowStartConfig(), out, path)
	case *randomv3.Random:
		out.LB = cluster.Random
		return locality(p.GetLocalityLbConfig(), out, path)
	case *leastrequestv3.LeastRequest:
		out.LB = cluster.LeastRequest
		//lint:ignore SA1019 deprecated, and still taken by Envoy
		out.FullScan = p.GetSelectionMethod() == leastrequestv3.LeastRequest_FULL_SCAN || p.GetEnableFullScan().GetValue()
		if err := locality(p.GetLocalityLbConfig(), out, path); err != nil {
			return err
		}
		if err := d.leastRequest(p.GetChoiceCount(), p.GetActiveRequestBias(), out, path); err != nil {
			return err
		}
		return d.typedSlowStart(p.GetSlowStartConfig(), out, path)
	case *ringhashv3.RingHash:
		out.LB = cluster.RingHash
		hashTable(out).Murmur2 = p.GetHashFunction() == ringhashv3.RingHash_MURMUR_HASH_2
		out.LocalityWeighted = out.LocalityWeighted || p.GetLocalityWeightedLbConfig() != nil
		if err := ring(p.GetMinimumRingSize(), p.GetMaximumRingSize(), out, path); err != nil {
			return err
		}
		if c := p.GetConsistentHashingLbConfig(); c != nil {
			return typedConsistent(c, out, path+".consistent_hashing_lb_config")
		}
		//lint:ignore SA1019 deprecated, and still taken by Envoy
		return consistent(p.GetUseHostnameForHashing(), p.GetHashBalanceFactor(), out, path)
	case *maglevv3.Maglev:
		out.LB = cluster.Maglev
		out.LocalityWeighted = out.LocalityWeighted || p.GetLocalityWeightedLbConfig() != nil
		if err := maglev(p.GetTableSize(), out, path); err != nil {
			return err
		}
		return typedConsistent(p.GetConsistentHashingLbConfig(), out, path+".consistent_hashing_lb_config")
	case *wrrlocalityv3.WrrLocality:
		out.LocalityWeighted = true
		return d.typedPolicy(p.GetEndpointPickingPolicy(), out, path+".endpoint_picking_policy", depth+1)
	case *subsetv3.Subset:
		if out.Subsets != nil {
			return fail(path, "subsets of subsets are not supported")
		}
		if err := typedSubsets(p, out, path); err != nil {
			return err
		}
		if err := d.typedPolicy(p.GetSubsetLbPolicy(), out, path+".subset_lb_policy", depth+1); err != nil {
			return err
		}
		if p.GetLocalityWeightAware() && !out.LocalityWeighted {
			return fail(path+".locality_weight_aware", "needs a subset_lb_policy with locality_weighted_lb_config")
		}
		return nil
	}
	return fail(path, "is not a load-balancing policy")
}

func locality(m *commonv3.LocalityLbConfig, out *cluster.Config, path string) error {
	out.LocalityWeighted = out.LocalityWeighted || m.GetLocalityWeightedLbConfig() != nil
	z := m.GetZoneAwareLbConfig()
	if z == nil {
		return nil
	}
	path += ".locality_lb_config.zone_aware_lb_config"
	terms := cluster.DefaultZoneAware()
	switch basis := z.GetLocalityBasis(); basis {
	case commonv3.LocalityLbConfig_ZoneAwareLbConfig_HEALTHY_HOSTS_NUM:
	case commonv3.LocalityLbConfig_ZoneAwareLbConfig_HEALTHY_HOSTS_WEIGHT:
		terms.ByWeight = true
	default:
		return fail(path+".locality_basis", "%d is none that there is", basis)
	}
	least := uint32(1)
	//lint:ignore SA1019 deprecated, and still taken by Envoy
	if f := z.GetForceLocalZone(); f != nil || z.GetForceLocalityDirectRouting() {
		if f.GetMinSize() != nil {
			least = f.GetMinSize().GetValue()
		}
		terms.Force = &least
	}
	return zoneAware(z, terms, out, path)
}

// zoneConfig is what both forms of zone_aware_lb_config have.
type zoneConfig interface {
	GetRoutingEnabled() *typev3.Percent
	GetMinClusterSize() *wrapperspb.UInt64Value
	GetFailTrafficOnPanic() bool
}

func zoneAware(m zoneConfig, terms cluster.ZoneAware, out *cluster.Config, path string) error {
	out.FailOnPanic = out.FailOnPanic || m.GetFailTrafficOnPanic()
	if p := m.GetRoutingEnabled(); p != nil {
		if err := percentage(p, path+".routing_enabled"); err != nil {
			return err
		}
		// As Envoy counts it: without what is behind the point, and 28 for 29, 56 for 57, 57 for 58.
		terms.Percent = int(100 * (p.GetValue() / 100))
	}
	if n := m.GetMinClusterSize(); n != nil {
		terms.MinHosts = n.GetValue()
	}
	if terms != cluster.DefaultZoneAware() {
		out.Zones = &terms
	}
	return nil
}

func (d *decoder) leastRequest(choices *wrapperspb.UInt32Value, bias *corev3.RuntimeDouble, out *cluster.Config, path string) error {
	out.ChoiceCount = int(choices.GetValue())
	if bias != nil {
		v := bias.GetDefaultValue()
		if !(v >= 0) {
			return fail(path+".active_request_bias.default_value", "must not be negative")
		}
		if n, ok := d.runtime.double(bias.GetRuntimeKey()); ok {
			if v = n; !(v >= 0) {
				v = 1 // as Envoy has it
			}
		}
		v = finite(v)
		out.ActiveRequestBias = &v
	}
	return nil
}

// finite is the greatest number for infinity, which acts as that does, and which JSON has not.
func finite(v float64) float64 { return min(v, math.MaxFloat64) }

func (d *decoder) typedSlowStart(s *commonv3.SlowStartConfig, out *cluster.Config, path string) error {
	return d.slowStart(s != nil, s.GetSlowStartWindow(), s.GetAggression(), s.GetMinWeightPercent(), out, path+".slow_start_config")
}

// slowStart reads Envoy's defaults where fields are absent: linear, and from 10 %.
func (d *decoder) slowStart(set bool, window *durationpb.Duration, aggression *corev3.RuntimeDouble, least *typev3.Percent, out *cluster.Config, path string) error {
	if !set {
		return nil
	}
	s := &cluster.SlowStart{Aggression: 1, MinPercent: 10}
	var err error
	if s.Window, err = duration(window, path+".slow_start_window"); err != nil {
		return err
	}
	if aggression != nil {
		if s.Aggression = aggression.GetDefaultValue(); !(s.Aggression > 0) {
			return fail(path+".aggression.default_value", "must be greater than 0")
		}
		if n, ok := d.runtime.double(aggression.GetRuntimeKey()); ok {
			if s.Aggression = n; !(n > 0) {
				s.Aggression = 1 // as Envoy has it
			}
		}
		s.Aggression = finite(s.Aggression)
	}
	if least != nil {
		if err := percentage(least, path+".min_weight_percent"); err != nil {
			return err
		}
		s.MinPercent = least.GetValue()
	}
	if s.Window > 0 {
		out.SlowStart = s
	}
	return nil
}

// hashTable is that of a cluster, made where there is none yet.
func hashTable(out *cluster.Config) *cluster.HashTable {
	if out.Hash == nil {
		out.Hash = &cluster.HashTable{}
	}
	return out.Hash
}

// maxRing is Envoy's bound of a ring's size.
const maxRing = 8 << 20

func ring(least, most *wrapperspb.UInt64Value, out *cluster.Config, path string) error {
	lower, upper := uint64(1024), uint64(maxRing)
	if least != nil {
		lower = least.GetValue()
	}
	if most != nil {
		upper = most.GetValue()
	}
	switch {
	case lower < 1 || lower > maxRing:
		return fail(path+".minimum_ring_size", "%d is not between 1 and %d", lower, maxRing)
	case upper < lower || upper > maxRing:
		return fail(path+".maximum_ring_size", "%d is not between the minimum, %d, and %d", upper, lower, maxRing)
	}
	t := hashTable(out)
	t.MinRing, t.MaxRing = lower, upper
	return nil
}

// maxTable is Envoy's bound of a maglev table's size.
const maxTable = 5000011

func maglev(size *wrapperspb.UInt64Value, out *cluster.Config, path string) error {
	if size == nil {
		return nil
	}
	hashTable(out).TableSize = size.GetValue()
	if n := size.GetValue(); n > maxTable || !cluster.Prime(n) {
		return fail(path+".table_size", "%d is not a prime of at most %d", n, maxTable)
	}
	return nil
}

func consistent(hostname bool, factor *wrapperspb.UInt32Value, out *cluster.Config, path string) error {
	t := hashTable(out)
	t.UseHostname = hostname
	if factor != nil {
		if factor.GetValue() < 100 {
			return fail(path+".hash_balance_factor", "%d is below 100", factor.GetValue())
		}
		t.BalanceFactor = factor.GetValue()
	}
	return nil
}

func typedConsistent(c *commonv3.ConsistentHashingLbConfig, out *cluster.Config, path string) (err error) {
	if err := consistent(c.GetUseHostnameForHashing(), c.GetHashBalanceFactor(), out, path); err != nil {
		return err
	}
	out.Hash.Policies, err = hashPolicies(c.GetHashPolicy(), path+".hash_policy")
	return err
}

// selector is what both forms of a subset selector have.
type selector interface {
	GetKeys() []string
	GetSingleHostPerSubset() bool
	GetFallbackKeysSubset() []string
}

func legacySubsets(m *clusterv3.Cluster_LbSubsetConfig, out *cluster.Config) error {
	if m == nil {
		return nil
	}
	const path = "lb_subset_config"
	if provided(out) {
		return fail(path, "the cluster chooses its hosts itself")
	}
	s := &cluster.Subsets{
		LocalityWeighted: m.GetLocalityWeightAware(), ScaleLocality: m.GetScaleLocalityWeight(), PanicAny: m.GetPanicModeAny(),
		ListAsAny:    m.GetListAsAny(),
		FallbackList: m.GetMetadataFallbackPolicy() == clusterv3.Cluster_LbSubsetConfig_FALLBACK_LIST,
	}
	for i, sel := range m.GetSubsetSelectors() {
		if err := addSelector(s, sel, int32(sel.GetFallbackPolicy()), at(path+".subset_selectors", i)); err != nil {
			return err
		}
	}
	if err := finishSubsets(s, int32(m.GetFallbackPolicy()), m.GetDefaultSubset(), out, path); err != nil {
		return err
	}
	if len(s.Selectors) == 0 { // without one the older field has no subsets, as in Envoy
		out.Subsets = nil
	}
	return nil
}

func typedSubsets(m *subsetv3.Subset, out *cluster.Config, path string) error {
	s := &cluster.Subsets{
		LocalityWeighted: m.GetLocalityWeightAware(), ScaleLocality: m.GetScaleLocalityWeight(), PanicAny: m.GetPanicModeAny(),
		ListAsAny: m.GetListAsAny(), AllowRedundant: m.GetAllowRedundantKeys(),
		FallbackList: m.GetMetadataFallbackPolicy() == subsetv3.Subset_FALLBACK_LIST,
	}
	for i, sel := range m.GetSubsetSelectors() {
		if err := addSelector(s, sel, int32(sel.GetFallbackPolicy()), at(path+".subset_selectors", i)); err != nil {
			return err
		}
	}
	return finishSubsets(s, int32(m.GetFallbackPolicy()), m.GetDefaultSubset(), out, path)
}

// The fallback policies have the same numbers in both forms.
var (
	selectorFallbacks = []cluster.Fallback{
		cluster.FallbackUnset, cluster.FallbackNone, cluster.FallbackAny, cluster.FallbackDefault, cluster.FallbackKeysSubset,
	}
	clusterFallbacks = []cluster.Fallback{cluster.FallbackNone, cluster.FallbackAny, cluster.FallbackDefault}
)

func addSelector(s *cluster.Subsets, m selector, fallback int32, path string) error {
	out := cluster.Selector{
		Keys: unique(slices.Clone(m.GetKeys())), SingleHost: m.GetSingleHostPerSubset(), Fallback: selectorFallbacks[fallback],
		FallbackKeys: unique(slices.Clone(m.GetFallbackKeysSubset())),
	}
	isKeys := out.Fallback == cluster.FallbackKeysSubset
	switch {
	case len(out.Keys) == 0:
		return fail(path+".keys", "is empty")
	case out.SingleHost && len(out.Keys) != 1:
		return fail(path+".single_host_per_subset", "needs exactly one key")
	case isKeys != (len(out.FallbackKeys) > 0):
		return fail(path+".fallback_keys_subset", "goes with the fallback policy KEYS_SUBSET, which needs it")
	case isKeys && len(out.FallbackKeys) >= len(out.Keys):
		return fail(path+".fallback_keys_subset", "must be fewer than keys")
	}
	for _, k := range out.FallbackKeys {
		if !slices.Contains(out.Keys, k) {
			return fail(path+".fallback_keys_subset", "%q is not among keys", k)
		}
	}
	s.Selectors = append(s.Selectors, out)
	return nil
}

func finishSubsets(s *cluster.Subsets, fallback int32, def *structpb.Struct, out *cluster.Config, path string) error {
	s.Fallback, s.Default = clusterFallbacks[fallback], def.AsMap()
	if s.ScaleLocality && !s.LocalityWeighted {
		return fail(path+".scale_locality_weight", "needs locality_weight_aware")
	}
	out.Subsets = s
	return nil
}
