package config

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	regexenginesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/regex_engines/v3"
	cgroupmemoryv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/cgroup_memory/v3"
	cpuutilizationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/cpu_utilization/v3"
	downstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	fixedheapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
)

const (
	watchdogReason = "there are no dispatchers, which they watch"
	agentReason    = "as in Envoy, which puts its own in its place"
)

func init() {
	declare("Bootstrap", map[protoreflect.FullName]*rules{
		"envoy.config.bootstrap.v3.Bootstrap": {
			use: "node static_resources dynamic_resources admin layered_runtime overload_manager " +
				"cluster_manager default_regex_engine use_tcp_for_dns_lookups dns_resolution_config typed_dns_resolver_config tracing",
			ignore: map[string]string{
				"stats_config":            "metrics are named and labelled as METRICS.md lists them",
				"stats_flush_interval":    "statistics are merged when they are read",
				"stats_flush_on_admin":    "statistics are merged when they are read",
				"deferred_stat_options":   "a statistic is made when it first counts",
				"stats_eviction_interval": "a statistic stays as long as what it counts",
				"application_log_config":  "the program's own log has the form that --log-format says",
				"enable_dispatcher_stats": "there are no dispatchers",
				"flags_path":              "there are no flag files",
				"watchdog":                watchdogReason,
				"watchdogs":               watchdogReason,
			},
			instead: map[string]string{
				"stats_sinks": "statistics are read from /stats/prometheus",
			},
		},
		"envoy.config.bootstrap.v3.ClusterManager": {
			use: "local_cluster_name outlier_detection upstream_bind_config",
			ignore: map[string]string{
				"enable_deferred_cluster_creation": "a cluster has connections, and what they cost, once it is used",
			},
			instead: map[string]string{
				"load_stats_config": "statistics are read from /stats/prometheus",
			},
		},
		"envoy.config.bootstrap.v3.ClusterManager.OutlierDetection": {
			use: "event_log_path", instead: map[string]string{"event_service": "use event_log_path"},
		},
		"envoy.extensions.regex_engines.v3.GoogleRE2": {},
		"envoy.config.bootstrap.v3.LayeredRuntime":    {use: "layers"},
		"envoy.config.bootstrap.v3.RuntimeLayer": {
			use: "static_layer admin_layer", ignore: map[string]string{"name": "layers are merged in their order"},
			instead: map[string]string{
				"disk_layer": "use a static_layer",
				"rtds_layer": "use a static_layer",
			},
		},
		"envoy.config.bootstrap.v3.RuntimeLayer.AdminLayer":                   {},
		"envoy.config.overload.v3.OverloadManager":                            {use: "refresh_interval resource_monitors actions loadshed_points buffer_factory_config"},
		"envoy.config.overload.v3.BufferFactoryConfig":                        {use: "minimum_account_to_track_power_of_two"},
		"envoy.config.overload.v3.ResourceMonitor":                            {use: "name typed_config"},
		"envoy.config.overload.v3.OverloadAction":                             {use: "name triggers typed_config"},
		"envoy.config.overload.v3.ScaleTimersOverloadActionConfig":            {use: "timer_scale_factors"},
		"envoy.config.overload.v3.ScaleTimersOverloadActionConfig.ScaleTimer": {use: "timer min_timeout min_scale"},
		"envoy.config.overload.v3.LoadShedPoint":                              {use: "name triggers"},
		"envoy.config.overload.v3.Trigger":                                    {use: "name threshold scaled"},
		"envoy.config.overload.v3.ThresholdTrigger":                           {use: "value"},
		"envoy.config.overload.v3.ScaledTrigger":                              {use: "scaling_threshold saturation_threshold"},
		"envoy.config.core.v3.RuntimeUInt64":                                  {use: "default_value runtime_key"},
		"envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig": {
			use: "max_heap_size_bytes max_heap_size_bytes_runtime",
		},
		"envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig": {
			use: "max_active_downstream_connections",
		},
		"envoy.extensions.resource_monitors.cgroup_memory.v3.CgroupMemoryConfig":     {use: "max_memory_bytes"},
		"envoy.extensions.resource_monitors.cpu_utilization.v3.CpuUtilizationConfig": {use: "mode"},
		"envoy.config.bootstrap.v3.Bootstrap.StaticResources":                        {use: "listeners clusters secrets"},
		"envoy.config.bootstrap.v3.Bootstrap.DynamicResources":                       {use: "lds_config cds_config ads_config"},
		"envoy.config.bootstrap.v3.Admin": {
			use: "address access_log access_log_path",
			ignore: map[string]string{
				"profile_path":             "profiles are sent to who asks for them",
				"ignore_global_conn_limit": "connections to the admin listener do not count",
			},
		},
		"envoy.config.core.v3.Node": {
			use:    "id cluster metadata locality client_features",
			ignore: map[string]string{"user_agent_version": agentReason},
			instead: map[string]string{
				"user_agent_build_version": "control planes are told the sidecar's own version",
			},
		},
	})
	extend("envoy.config.core.v3.TypedExtensionConfig.typed_config", "extension", &regexenginesv3.GoogleRE2{})
	extend("envoy.config.overload.v3.OverloadAction.typed_config", "overload action", &overloadv3.ScaleTimersOverloadActionConfig{})
	extend("envoy.config.overload.v3.ResourceMonitor.typed_config", "resource monitor",
		&fixedheapv3.FixedHeapConfig{}, &downstreamv3.DownstreamConnectionsConfig{}, &cgroupmemoryv3.CgroupMemoryConfig{},
		&cpuutilizationv3.CpuUtilizationConfig{})
}
