package config

import (
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	samplersv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/tracers/opentelemetry/samplers/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func init() {
	declare("Tracing", map[protoreflect.FullName]*rules{
		hcmPackage + "HttpConnectionManager.Tracing": {
			use: "client_sampling random_sampling overall_sampling verbose max_path_tag_length custom_tags provider " +
				"spawn_upstream_span operation upstream_operation no_context_propagation",
		},
		"envoy.config.route.v3.Tracing": {
			use: "client_sampling random_sampling overall_sampling custom_tags operation upstream_operation",
		},
		"envoy.config.route.v3.Decorator":    {use: "operation propagate"},
		"envoy.config.trace.v3.Tracing":      {use: "http"},
		"envoy.config.trace.v3.Tracing.Http": {use: "typed_config", ignore: nameOnly},
		"envoy.type.tracing.v3.CustomTag": {
			use: "tag literal environment request_header metadata value value_type",
		},
		"envoy.type.tracing.v3.CustomTag.Metadata": {
			use: "kind metadata_key default_value",
			but: map[string]string{"kind": "metadata of requests are what RBAC filters found", "metadata_key": "names without :()%"},
		},
		"envoy.type.metadata.v3.MetadataKind":            {use: "request route cluster host"},
		"envoy.type.metadata.v3.MetadataKind.Request":    {},
		"envoy.type.metadata.v3.MetadataKind.Route":      {},
		"envoy.type.metadata.v3.MetadataKind.Cluster":    {},
		"envoy.type.metadata.v3.MetadataKind.Host":       {},
		"envoy.type.metadata.v3.MetadataKey":             {use: "key path"},
		"envoy.type.metadata.v3.MetadataKey.PathSegment": {use: "key"},
		"envoy.type.tracing.v3.CustomTag.Literal":        {use: "value"},
		"envoy.type.tracing.v3.CustomTag.Environment":    {use: "name default_value"},
		"envoy.type.tracing.v3.CustomTag.Header":         {use: "name default_value"},
		"envoy.config.trace.v3.OpenTelemetryConfig": {
			use: "grpc_service http_service service_name max_cache_size set_telemetry_sdk_resource_attributes " +
				"set_service_name_resource_attribute set_instrumentation_scope sampler",
			instead: map[string]string{
				"resource_detectors": "use service_name and custom_tags",
			},
		},
		"envoy.extensions.tracers.opentelemetry.samplers.v3.AlwaysOnSamplerConfig": {},
		"envoy.config.trace.v3.ZipkinConfig": {
			use: "collector_cluster collector_endpoint trace_id_128bit shared_span_context collector_endpoint_version " +
				"collector_hostname split_spans_for_request trace_context_option collector_service",
		},
		"envoy.config.core.v3.HttpService": {
			use:     "http_uri request_headers_to_add",
			instead: map[string]string{"formatters": "Envoy's own operators are all there is"},
		},
		"envoy.config.core.v3.HttpUri": {use: "uri cluster timeout"},
	})
	extend("envoy.config.core.v3.TypedExtensionConfig.typed_config", "extension", &samplersv3.AlwaysOnSamplerConfig{})
	extend("envoy.config.trace.v3.Tracing.Http.typed_config", "tracer", &tracev3.OpenTelemetryConfig{}, &tracev3.ZipkinConfig{})
}
