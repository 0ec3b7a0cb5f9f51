package config

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/otellog"
	"github.com/hauberk-mesh/hauberk/sidecar/otlp"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

// readExport reads the fields of an OpenTelemetry access log of a TCP proxy.
func readExport(fields string) (*otellog.Config, *Bootstrap, error) {
	text := strings.Replace(loggedListener, "file.v3.FileAccessLog, path: /tmp/x, %s", "open_telemetry.v3.OpenTelemetryAccessLogConfig, "+fields, 1)
	b, err := ParseBootstrap([]byte(text))
	if err != nil {
		return nil, nil, err
	}
	l := b.Listeners[0].Chains[0].TCP.AccessLog[0]
	if l.Path != "" || l.Format != "" || l.JSON {
		return nil, nil, fmt.Errorf("%+v", l)
	}
	return l.Export.(*otellog.Config), b, nil
}

const grpcLog = "grpc_service: {envoy_grpc: {cluster_name: c}}"

func TestOpenTelemetryLog(t *testing.T) {
	collector := &otlp.Collector{Cluster: "c", GRPC: true, Path: "/opentelemetry.proto.collector.logs.v1.LogsService/Export"}
	for _, tc := range []struct {
		fields string
		want   otellog.Config
	}{
		{grpcLog, otellog.Config{Collector: collector, Interval: time.Second, Size: 16384}},
		{grpcLog + ", log_name: l, stat_prefix: s, disable_builtin_labels: true, buffer_flush_interval: 2s, buffer_size_bytes: 0",
			otellog.Config{Collector: collector, Name: "l", StatPrefix: "s", NoLabels: true, Interval: 2 * time.Second}},
		{"common_config: {log_name: l, transport_api_version: V3, buffer_flush_interval: 3s, buffer_size_bytes: 5, " + grpcLog + "}",
			otellog.Config{Collector: collector, Name: "l", Interval: 3 * time.Second, Size: 5}},
		{"log_name: own, buffer_flush_interval: 2s, buffer_size_bytes: 4000000000, common_config: {log_name: l, buffer_flush_interval: 3s, buffer_size_bytes: 5, " + grpcLog + "}",
			otellog.Config{Collector: collector, Name: "own", Interval: 2 * time.Second, Size: 1<<31 - 1}},
		{`http_service: {http_uri: {uri: "http://h/v1/logs", cluster: c, timeout: 1s}, request_headers_to_add: [{header: {key: k, value: v}}]}, body: {string_value: ""}`,
			otellog.Config{Collector: &otlp.Collector{Cluster: "c", Authority: "h", Path: "/v1/logs", Timeout: time.Second, Headers: []route.HeaderAdd{{Name: "k", Value: "v"}}},
				Body: "", Interval: time.Second, Size: 16384}},
		{grpcLog + `, body: {array_value: {values: [{string_value: "%PROTOCOL%"}, {kvlist_value: {}}, {array_value: {}}]}}, attributes: {values: [{key: a, value: {kvlist_value: {values: [{key: b, value: {string_value: c}}]}}}, {value: {string_value: d}}]}`,
			otellog.Config{Collector: collector, Interval: time.Second, Size: 16384, Body: []any{"%PROTOCOL%", []otellog.KeyValue{}, []any{}},
				Attributes: []otellog.KeyValue{{Key: "a", Value: []otellog.KeyValue{{Key: "b", Value: "c"}}}, {Value: "d"}}}},
		{grpcLog + `, resource_attributes: {values: [{key: a, value: {int_value: 5}}, {key: b, value: {bool_value: true}}, {key: c, value: {double_value: 1.5}}, {key: d, value: {bytes_value: aGk=}}, {key: e, value: {string_value: "%NOPE"}}, {key: f}, {key: g, value: {array_value: {values: [{}]}}}]}, body: {}`,
			otellog.Config{Collector: collector, Interval: time.Second, Size: 16384, Resource: []otellog.KeyValue{{Key: "a", Value: int64(5)}, {Key: "b", Value: true}, {Key: "c", Value: 1.5},
				{Key: "d", Value: []byte("hi")}, {Key: "e", Value: "%NOPE"}, {Key: "f"}, {Key: "g", Value: []any{nil}}}}},
		{grpcLog + `, custom_tags: [{tag: component, literal: {value: x}}, {tag: b, request_header: {name: X-B, default_value: d}}]`,
			otellog.Config{Collector: collector, Interval: time.Second, Size: 16384, Tags: []tracing.Tag{{Name: "component", Literal: true, Value: "x"}, {Name: "b", Header: "x-b", Default: "d"}}}},
	} {
		got, b, err := readExport(tc.fields)
		if err != nil {
			t.Errorf("%s: %v", tc.fields, err)
			continue
		}
		if got.Collector.Headers != nil {
			tc.want.Collector.Headers[0].Action = got.Collector.Headers[0].Action
		}
		if !reflect.DeepEqual(*got, tc.want) {
			t.Errorf("%s: %+v, want %+v", tc.fields, got, tc.want)
		}
		if err := got.Check(); err != nil {
			t.Errorf("%s: %v", tc.fields, err)
		}
		if r := ListenerRefs(b.Listeners[0]); fmt.Sprint(r.Clusters, r.Collectors) != "[c] [c]" {
			t.Error(r)
		}
	}
}

// A cluster that only logs name is named, and as in Envoy not waited for.
func TestClusterOfALog(t *testing.T) {
	_, b, err := readExport("grpc_service: {envoy_grpc: {cluster_name: elsewhere}}")
	if err != nil {
		t.Fatal(err)
	}
	l := b.Listeners[0]
	l.AccessLog = l.Chains[0].TCP.AccessLog
	if r := ListenerRefs(l); fmt.Sprint(r.Clusters, r.Wanted, r.Collectors) != "[c] [c] [elsewhere]" {
		t.Error(r)
	}
	l.Chains[0].TCP.AccessLog = nil
	if r := ListenerRefs(l); fmt.Sprint(r.Clusters, r.Wanted, r.Collectors) != "[c] [c] [elsewhere]" {
		t.Error(r)
	}
}

func TestOpenTelemetryLogRefuses(t *testing.T) {
	const here, more = "filter_chains[0].filters[0].typed_config.access_log[0].typed_config", grpcLog + ", "
	const extension = `[{name: x, typed_config: {"@type": type.googleapis.com/google.protobuf.Struct, value: {}}}]`
	for fields, want := range map[string]string{
		"log_name: x": here + ": has no collector",
		more + `http_service: {http_uri: {uri: "http://h/", cluster: c, timeout: 1s}}`:                                     here + ".grpc_service: there is a second service",
		more + "common_config: {log_name: ab, " + grpcLog + "}":                                                            here + ".common_config.grpc_service: there is a second service",
		more + "common_config: {log_name: ab}":                                                                             here + ".common_config.grpc_service: value is required",
		"common_config: {" + grpcLog + "}":                                                                                 here + ".common_config.log_name: value length",
		"common_config: {log_name: ab, transport_api_version: V2, " + grpcLog + "}":                                        here + ".common_config.transport_api_version: is V2; use V3",
		"common_config: {log_name: ab, buffer_flush_interval: -1s, " + grpcLog + "}":                                       here + ".common_config.buffer_flush_interval: value must be greater",
		"common_config: {log_name: ab, grpc_stream_retry_policy: {num_retries: 1}, " + grpcLog + "}":                       here + ".common_config.grpc_stream_retry_policy: unsupported",
		"common_config: {log_name: ab, filter_state_objects_to_log: [a], " + grpcLog + "}":                                 here + ".common_config.filter_state_objects_to_log: unsupported",
		"common_config: {log_name: ab, custom_tags: [{tag: a, literal: {value: x}}], " + grpcLog + "}":                     here + ".common_config.custom_tags: unsupported",
		"grpc_service: {google_grpc: {target_uri: x, stat_prefix: x}}":                                                     here + ".grpc_service.google_grpc: unsupported",
		"grpc_service: {envoy_grpc: {cluster_name: ''}}":                                                                   here + ".grpc_service.envoy_grpc.cluster_name: value length",
		`http_service: {http_uri: {uri: "h", cluster: c, timeout: 1s}}`:                                                    here + ".http_service.http_uri.uri: has no scheme",
		more + "buffer_flush_interval: -1s":                                                                                here + ".buffer_flush_interval: must not be negative",
		more + "body: {int_value: 5}":                                                                                      here + ".body: there are texts, lists and pairs only",
		more + `body: {string_value: "%NOPE%"}`:                                                                            here + ".body.string_value: access log format, byte 1: operator %NOPE%",
		more + `body: {array_value: {values: [{bool_value: true}]}}`:                                                       here + ".body.array_value.values[0]: there are texts",
		more + `body: {array_value: {values: [{}]}}`:                                                                       here + ".body.array_value.values[0]: is missing",
		more + `attributes: {values: [{key: a}]}`:                                                                          here + ".attributes.values[0].value: is missing",
		more + `attributes: {values: [{key: a, value: {double_value: 1}}]}`:                                                here + ".attributes.values[0].value: there are texts",
		more + `attributes: {values: [{key: a, value: {kvlist_value: {values: [{key: b, value: {string_value: "%"}}]}}}]}`: here + ".attributes.values[0].value.kvlist_value.values[0].value.string_value: access log format",
		more + "custom_tags: [{tag: a, metadata: {kind: {request: {}}}}]":                                                  here + ".custom_tags[0].metadata.metadata_key: is missing",
		more + `custom_tags: [{tag: a, value: "%NOPE%"}]`:                                                                  here + ".custom_tags: custom tag a: access log format",
		more + `custom_tags: [{tag: a, literal: {value: x}}, {tag: a, literal: {value: x}}]`:                               here + ".custom_tags: custom tag a is there twice",
		more + "filter_state_objects_to_log: [a]":                                                                          here + ".filter_state_objects_to_log: unsupported",
		more + "resource_detectors: " + extension:                                                                          here + `.resource_detectors[0]: unsupported extension "x"`,
		more + "formatters: " + extension:                                                                                  here + `.formatters[0]: unsupported extension "x"`,
	} {
		if _, _, err := readExport(fields); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", fields, err)
		}
	}
}
