package config

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/overload"
)

// TestOverloadManager: each monitor, action and load shed point is what it is for Envoy.
func TestOverloadManager(t *testing.T) {
	b, err := ParseBootstrap([]byte(`
node: {id: node-1}
overload_manager:
  refresh_interval: 0.5s
  buffer_factory_config: {minimum_account_to_track_power_of_two: 20}
  resource_monitors:
  - {name: heap, typed_config: {"@type": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 7}}
  - {name: connections, typed_config: {"@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig, max_active_downstream_connections: 9}}
  - {name: group, typed_config: {"@type": type.googleapis.com/envoy.extensions.resource_monitors.cgroup_memory.v3.CgroupMemoryConfig, max_memory_bytes: 11}}
  - {name: processors, typed_config: {"@type": type.googleapis.com/envoy.extensions.resource_monitors.cpu_utilization.v3.CpuUtilizationConfig, mode: CONTAINER}}
  actions:
  - {name: envoy.overload_actions.stop_accepting_requests, triggers: [{name: heap, threshold: {value: 0.5}}, {name: group, scaled: {scaling_threshold: 0.6, saturation_threshold: 0.9}}]}
  - name: envoy.overload_actions.reduce_timeouts
    triggers: [{name: heap, threshold: {value: 0.6}}]
    typed_config:
      "@type": type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig
      timer_scale_factors:
      - {timer: HTTP_DOWNSTREAM_CONNECTION_IDLE, min_timeout: 2s}
      - {timer: HTTP_DOWNSTREAM_STREAM_IDLE, min_scale: {value: 25}}
      - {timer: TRANSPORT_SOCKET_CONNECT, min_timeout: 0s}
      - {timer: HTTP_DOWNSTREAM_CONNECTION_MAX, min_scale: {}}
  loadshed_points:
  - {name: envoy.load_shed_points.tcp_listener_accept, triggers: [{name: processors, threshold: {value: 0.1}}]}
  - {name: envoy.load_shed_points.hcm_ondata_creating_codec, triggers: [{name: connections, threshold: {value: 0.2}}]}
  - {name: envoy.load_shed_points.http1_server_abort_dispatch, triggers: [{name: heap, threshold: {value: 0.3}}]}
  - {name: envoy.load_shed_points.http2_server_go_away_on_dispatch, triggers: [{name: heap, threshold: {value: 0.4}}]}
  - {name: envoy.load_shed_points.http2_server_go_away_and_close_on_dispatch, triggers: [{name: heap, threshold: {value: 0.5}}]}
  - {name: envoy.load_shed_points.http_connection_manager_decode_headers, triggers: [{name: heap, threshold: {value: 0.6}}]}
  - {name: envoy.load_shed_points.http_downstream_filter_check, triggers: [{name: heap, threshold: {value: 0.7}}]}
  - {name: envoy.load_shed_points.connection_pool_new_connection, triggers: [{name: heap, threshold: {value: 0.8}}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	at := func(k overload.Kind, r overload.Resource, threshold float64) overload.Action {
		return overload.Action{Kind: k, Triggers: []overload.Trigger{{Resource: r, Threshold: threshold}}}
	}
	want := &overload.Config{
		Refresh: 500 * time.Millisecond, MaxConnections: 9, MaxHeap: 7, GroupMemory: true, MaxGroupMemory: 11, CPU: overload.GroupCPU, LeastHoard: 1 << 20,
		Paths: [...]string{
			overload.Heap: "overload_manager.resource_monitors[0]", overload.Connections: "overload_manager.resource_monitors[1]",
			overload.Group: "overload_manager.resource_monitors[2]", overload.CPU: "overload_manager.resource_monitors[3]",
		},
		Timeouts: [overload.Timeouts]*overload.Least{
			overload.ConnectionIdle: {Absolute: true, Time: 2 * time.Second}, overload.StreamIdle: {Share: 0.25},
			overload.Handshake: {Absolute: true}, overload.ConnectionMax: {},
		},
		Actions: []overload.Action{
			{Kind: overload.RefuseRequests, Triggers: []overload.Trigger{
				{Resource: overload.Heap, Threshold: 0.5}, {Resource: overload.Group, Scaled: true, Scaling: 0.6, Threshold: 0.9},
			}},
			at(overload.ReduceTimeouts, overload.Heap, 0.6),
			at(overload.ShedAccept, overload.CPU, 0.1),
			at(overload.ShedCodec, overload.Connections, 0.2),
			at(overload.ShedHTTP1, overload.Heap, 0.3),
			at(overload.ShedGoAway, overload.Heap, 0.4),
			at(overload.ShedGoAwayAndClose, overload.Heap, 0.5),
			at(overload.ShedHeaders, overload.Heap, 0.6),
			at(overload.ShedUpstream, overload.Heap, 0.7),
			at(overload.ShedConnections, overload.Heap, 0.8),
		},
	}
	if !reflect.DeepEqual(b.Overload, want) {
		t.Errorf("got  %+v\nwant %+v", b.Overload, want)
	}
	for mode, cpu := range map[string]overload.CPUOf{"": overload.HostCPU, ", mode: HOST": overload.HostCPU} {
		b, err := ParseBootstrap([]byte(`overload_manager: {resource_monitors: [{name: p, typed_config: {"@type": type.googleapis.com/envoy.extensions.resource_monitors.cpu_utilization.v3.CpuUtilizationConfig` + mode + `}}]}`))
		if err != nil || b.Overload.CPU != cpu {
			t.Errorf("%q: %v, %v", mode, b, err)
		}
	}
}

// TestHeapOfTheRuntime: a key says how much of the heap counts as full, or else its default does.
func TestHeapOfTheRuntime(t *testing.T) {
	for layer, want := range map[string]uint64{"": 9, "layered_runtime: {layers: [{name: base, static_layer: {heap.full: 5}}]}": 5} {
		b, err := ParseBootstrap([]byte(layer + `
overload_manager: {resource_monitors: [{name: p, typed_config: {"@type": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes_runtime: {default_value: 9, runtime_key: heap.full}}}]}
`))
		if err != nil || b.Overload.MaxHeap != want {
			t.Errorf("%q: %v, %v", layer, b, err)
		}
	}
}

// TestReducedTimeoutsThatAreRefused: what is not reduced is not taken for what is.
func TestReducedTimeoutsThatAreRefused(t *testing.T) {
	scale := func(factors string) string {
		return `, typed_config: {"@type": type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig, timer_scale_factors: [` + factors + `]}`
	}
	for _, tc := range []struct{ action, typed, want string }{
		{"reduce_timeouts", "", `typed_config: is missing; the action "envoy.overload_actions.reduce_timeouts" says in it which timeouts it reduces`},
		{"reduce_timeouts", scale(""), "typed_config.timer_scale_factors: value must contain at least 1 item(s)"},
		{"reduce_timeouts", scale("{timer: HTTP_DOWNSTREAM_STREAM_FLUSH, min_timeout: 1s}, {timer: HTTP_DOWNSTREAM_STREAM_FLUSH, min_timeout: 1s}"), "typed_config.timer_scale_factors[1].timer: timer HTTP_DOWNSTREAM_STREAM_FLUSH is there twice"},
		{"reduce_timeouts", scale("{min_timeout: 1s}"), "typed_config.timer_scale_factors[0].timer: value must not be in list [UNSPECIFIED]"},
		{"reduce_timeouts", scale("{timer: HTTP_DOWNSTREAM_STREAM_IDLE, min_timeout: 1s}, {timer: HTTP_DOWNSTREAM_STREAM_IDLE, min_scale: {value: 1}}"), "typed_config.timer_scale_factors[1].timer: timer HTTP_DOWNSTREAM_STREAM_IDLE is there twice"},
		{"shrink_heap", scale("{timer: HTTP_DOWNSTREAM_STREAM_IDLE, min_timeout: 1s}"), `typed_config: action "envoy.overload_actions.shrink_heap" has none`},
	} {
		_, err := ParseBootstrap([]byte(`
overload_manager:
  resource_monitors: [{name: x, typed_config: {"@type": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 9}}]
  actions: [{name: envoy.overload_actions.` + tc.action + `, triggers: [{name: x, threshold: {value: 1}}]` + tc.typed + `}]
`))
		if want := "overload_manager.actions[0]." + tc.want; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s%s: %v, want %s", tc.action, tc.typed, err, want)
		}
	}
}
