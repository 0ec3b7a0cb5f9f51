package config

import "google.golang.org/protobuf/reflect/protoreflect"

func init() {
	declare("Bootstrap", map[protoreflect.FullName]*rules{
		"envoy.config.bootstrap.v3.Bootstrap": {
			use: "node static_resources dynamic_resources admin",
			ignore: map[string]string{
				"stats_flush_interval": "statistics are merged when they are read",
			},
			instead: map[string]string{
				"layered_runtime":  "there is no runtime layer",
				"overload_manager": "limits are fixed",
				"stats_sinks":      "statistics are read from /stats/prometheus",
			},
		},
		"envoy.config.bootstrap.v3.Bootstrap.StaticResources":  {use: "listeners clusters secrets"},
		"envoy.config.bootstrap.v3.Bootstrap.DynamicResources": {use: "lds_config cds_config ads_config"},
		"envoy.config.bootstrap.v3.Admin": {
			use: "address",
			ignore: map[string]string{
				"access_log":               "requests to the admin listener are not logged",
				"ignore_global_conn_limit": "there is no global connection limit",
			},
		},
		"envoy.config.core.v3.Node": {use: "id cluster metadata locality client_features"},
	})
}
