package config

import (
	clusterprovidedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/cluster_provided/v3"
	leastrequestv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	ringhashv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	roundrobinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	subsetv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/subset/v3"
	wrrlocalityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// declareBalancing lists the load-balancing policies, in their old and in their
// new form.
func declareBalancing() {
	const zoneFields = "routing_enabled min_cluster_size fail_traffic_on_panic"
	const subsetFields = "fallback_policy default_subset subset_selectors locality_weight_aware scale_locality_weight " +
		"panic_mode_any list_as_any metadata_fallback_policy"
	const selectorFields = "keys single_host_per_subset fallback_policy fallback_keys_subset"
	declare("Load balancing", map[protoreflect.FullName]*rules{
		"envoy.config.cluster.v3.Cluster.RoundRobinLbConfig":   {use: "slow_start_config"},
		"envoy.config.cluster.v3.Cluster.LeastRequestLbConfig": {use: "choice_count active_request_bias slow_start_config"},
		"envoy.config.cluster.v3.Cluster.RingHashLbConfig":     {use: "minimum_ring_size hash_function maximum_ring_size"},
		"envoy.config.cluster.v3.Cluster.MaglevLbConfig":       {use: "table_size"},
		"envoy.config.cluster.v3.Cluster.SlowStartConfig":      {use: "slow_start_window aggression min_weight_percent"},
		"envoy.config.core.v3.RuntimeDouble":                   {use: "default_value runtime_key"},
		"envoy.config.cluster.v3.Cluster.CommonLbConfig": {
			use: "healthy_panic_threshold zone_aware_lb_config locality_weighted_lb_config ignore_new_hosts_until_first_hc " +
				"close_connections_on_host_set_change consistent_hashing_lb_config",
			ignore:  map[string]string{"update_merge_window": "changes are applied at once, or together where each would cost much"},
			instead: map[string]string{"override_host_status": "no filter overrides the choice of a host"},
		},
		"envoy.config.cluster.v3.Cluster.CommonLbConfig.ZoneAwareLbConfig":                                     {use: zoneFields},
		"envoy.config.cluster.v3.Cluster.CommonLbConfig.LocalityWeightedLbConfig":                              {},
		"envoy.config.cluster.v3.Cluster.CommonLbConfig.ConsistentHashingLbConfig":                             {use: "use_hostname_for_hashing hash_balance_factor"},
		"envoy.config.cluster.v3.Cluster.LbSubsetConfig":                                                       {use: subsetFields},
		"envoy.config.cluster.v3.Cluster.LbSubsetConfig.LbSubsetSelector":                                      {use: selectorFields},
		"envoy.config.cluster.v3.LoadBalancingPolicy":                                                          {use: "policies"},
		"envoy.config.cluster.v3.LoadBalancingPolicy.Policy":                                                   {use: "typed_extension_config"},
		"envoy.config.core.v3.TypedExtensionConfig":                                                            {use: "typed_config", ignore: nameOnly},
		"envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided":                         {},
		"envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin":                                   {use: "slow_start_config locality_lb_config"},
		"envoy.extensions.load_balancing_policies.random.v3.Random":                                            {use: "locality_lb_config"},
		"envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest":                               {use: "choice_count active_request_bias slow_start_config locality_lb_config enable_full_scan selection_method"},
		"envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash":                                       {use: "hash_function minimum_ring_size maximum_ring_size use_hostname_for_hashing hash_balance_factor consistent_hashing_lb_config locality_weighted_lb_config"},
		"envoy.extensions.load_balancing_policies.maglev.v3.Maglev":                                            {use: "table_size consistent_hashing_lb_config locality_weighted_lb_config"},
		"envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality":                                 {use: "endpoint_picking_policy"},
		"envoy.extensions.load_balancing_policies.subset.v3.Subset":                                            {use: subsetFields + " allow_redundant_keys subset_lb_policy"},
		"envoy.extensions.load_balancing_policies.subset.v3.Subset.LbSubsetSelector":                           {use: selectorFields},
		"envoy.extensions.load_balancing_policies.common.v3.SlowStartConfig":                                   {use: "slow_start_window aggression min_weight_percent"},
		"envoy.extensions.load_balancing_policies.common.v3.ConsistentHashingLbConfig":                         {use: "use_hostname_for_hashing hash_balance_factor hash_policy"},
		"envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig":                                  {use: "zone_aware_lb_config locality_weighted_lb_config"},
		"envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig.ZoneAwareLbConfig":                {use: zoneFields + " force_locality_direct_routing force_local_zone locality_basis"},
		"envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig.ZoneAwareLbConfig.ForceLocalZone": {use: "min_size"},
		"envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig.LocalityWeightedLbConfig":         {},
	})
	extend("envoy.config.core.v3.TypedExtensionConfig.typed_config", "extension",
		&clusterprovidedv3.ClusterProvided{}, &roundrobinv3.RoundRobin{}, &randomv3.Random{}, &leastrequestv3.LeastRequest{},
		&ringhashv3.RingHash{}, &maglevv3.Maglev{}, &wrrlocalityv3.WrrLocality{}, &subsetv3.Subset{})
}
