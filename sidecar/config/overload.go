package config

import (
	"math"
	"slices"
	"strings"

	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	cgroupmemoryv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/cgroup_memory/v3"
	cpuutilizationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/cpu_utilization/v3"
	downstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	fixedheapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/overload"
)

// Runtime keys that limit connections.
const (
	globalLimitKey      = "overload.global_downstream_max_connections"
	listenerLimitPrefix = "envoy.resource_limits.listener."
	listenerLimitSuffix = ".connection_limit"
)

var overloadActions = map[string]overload.Kind{
	"envoy.overload_actions.shrink_heap":                 overload.ShrinkHeap,
	"envoy.overload_actions.stop_accepting_connections":  overload.StopAccepting,
	"envoy.overload_actions.reject_incoming_connections": overload.RejectConnections,
	"envoy.overload_actions.disable_http_keepalive":      overload.DisableKeepAlive,
	"envoy.overload_actions.stop_accepting_requests":     overload.RefuseRequests,
	"envoy.overload_actions.reset_high_memory_stream":    overload.ResetStreams,
	"envoy.overload_actions.reduce_timeouts":             overload.ReduceTimeouts,
}

var loadShedPoints = map[string]overload.Kind{
	"envoy.load_shed_points.tcp_listener_accept":                        overload.ShedAccept,
	"envoy.load_shed_points.hcm_ondata_creating_codec":                  overload.ShedCodec,
	"envoy.load_shed_points.http1_server_abort_dispatch":                overload.ShedHTTP1,
	"envoy.load_shed_points.http2_server_go_away_on_dispatch":           overload.ShedGoAway,
	"envoy.load_shed_points.http2_server_go_away_and_close_on_dispatch": overload.ShedGoAwayAndClose,
	"envoy.load_shed_points.http_connection_manager_decode_headers":     overload.ShedHeaders,
	"envoy.load_shed_points.http_downstream_filter_check":               overload.ShedUpstream,
	"envoy.load_shed_points.connection_pool_new_connection":             overload.ShedConnections,
}

// overload reads the overload manager and the connection limits of the runtime;
// nil when there are neither.
func (d *decoder) overload(m *overloadv3.OverloadManager) (*overload.Config, error) {
	out := &overload.Config{}
	limited, err := d.connectionLimits(out)
	if err != nil {
		return nil, err
	}
	if m == nil {
		if !limited {
			return nil, nil
		}
		return out, nil
	}
	if out.Refresh, err = duration(m.GetRefreshInterval(), "overload_manager.refresh_interval"); err != nil {
		return nil, err
	}
	monitors, err := d.resourceMonitors(m.GetResourceMonitors(), out)
	if err != nil {
		return nil, err
	}
	if b := m.GetBufferFactoryConfig(); b != nil {
		out.LeastHoard = 1 << b.GetMinimumAccountToTrackPowerOfTwo()
	}
	for i, a := range m.GetActions() {
		path := at("overload_manager.actions", i)
		if err := overloadAction(path, "action", overloadActions, a, monitors, out); err != nil {
			return nil, err
		}
		if err := d.actionConfig(path, a, out); err != nil {
			return nil, err
		}
	}
	for i, p := range m.GetLoadshedPoints() {
		if err := overloadAction(at("overload_manager.loadshed_points", i), "load shed point", loadShedPoints, p, monitors, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// resourceMonitors reads what is looked at, each resource by one monitor; the result has their names.
func (d *decoder) resourceMonitors(list []*overloadv3.ResourceMonitor, out *overload.Config) (map[string]overload.Resource, error) {
	monitors, of := map[string]overload.Resource{}, map[overload.Resource]string{}
	for i, r := range list {
		path := at("overload_manager.resource_monitors", i)
		if _, twice := monitors[r.GetName()]; twice {
			return nil, fail(path+".name", "there are two resource monitors %q", r.GetName())
		}
		resource, err := d.resourceMonitor(path, r, out)
		if err != nil {
			return nil, err
		}
		if other, twice := of[resource]; twice {
			return nil, fail(path+".typed_config", "is of the kind that %q is; one of them is enough", other)
		}
		monitors[r.GetName()], of[resource], out.Paths[resource] = resource, r.GetName(), path
	}
	return monitors, nil
}

func (d *decoder) resourceMonitor(path string, r *overloadv3.ResourceMonitor, out *overload.Config) (overload.Resource, error) {
	switch c := d.unpacked[r.GetTypedConfig()].(type) {
	case *fixedheapv3.FixedHeapConfig:
		return overload.Heap, d.maxHeap(path+".typed_config", c, out)
	case *downstreamv3.DownstreamConnectionsConfig:
		if _, both := d.runtime.values[globalLimitKey]; both {
			return 0, fail(path, "limits connections beside the runtime key %s; use one of them", globalLimitKey)
		}
		out.MaxConnections = c.GetMaxActiveDownstreamConnections()
		return overload.Connections, nil
	case *cgroupmemoryv3.CgroupMemoryConfig:
		out.GroupMemory, out.MaxGroupMemory = true, c.GetMaxMemoryBytes()
		return overload.Group, nil
	case *cpuutilizationv3.CpuUtilizationConfig:
		if out.CPU = overload.HostCPU; c.GetMode() == cpuutilizationv3.CpuUtilizationConfig_CONTAINER {
			out.CPU = overload.GroupCPU
		}
		return overload.CPU, nil
	}
	return 0, fail(path, "resource monitor %q has no typed_config", r.GetName())
}

// maxHeap reads a heap that counts as full, which a key of the runtime may say: layers do not change.
func (d *decoder) maxHeap(path string, c *fixedheapv3.FixedHeapConfig, out *overload.Config) error {
	path += ".max_heap_size_bytes"
	out.MaxHeap = c.GetMaxHeapSizeBytes()
	if r := c.GetMaxHeapSizeBytesRuntime(); r != nil {
		if out.MaxHeap > 0 {
			return fail(path, "is set beside max_heap_size_bytes_runtime; use one of them")
		}
		path += "_runtime"
		out.MaxHeap = r.GetDefaultValue()
		if n, ok := d.runtime.integer(r.GetRuntimeKey()); ok {
			out.MaxHeap = n
		}
	}
	if out.MaxHeap == 0 {
		return fail(path, "must be greater than 0")
	}
	return nil
}

// triggered is an action or a load shed point.
type triggered interface {
	GetName() string
	GetTriggers() []*overloadv3.Trigger
}

// overloadAction reads one of those in kinds, which are called what.
func overloadAction(path, what string, kinds map[string]overload.Kind, a triggered, monitors map[string]overload.Resource, out *overload.Config) error {
	kind, ok := kinds[a.GetName()]
	if !ok {
		return fail(path+".name", "unsupported %s %q; remove it", what, a.GetName())
	}
	action := overload.Action{Kind: kind}
	if slices.ContainsFunc(out.Actions, func(a overload.Action) bool { return a.Kind == kind }) {
		return fail(path+".name", "there are two %ss %q", what, a.GetName())
	}
	if kind == overload.ResetStreams && out.LeastHoard == 0 {
		return fail("overload_manager.buffer_factory_config", "is missing; the action %q needs it", a.GetName())
	}
	for i, t := range a.GetTriggers() {
		here := at(path+".triggers", i)
		trigger, err := overloadTrigger(here, t, monitors)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(action.Triggers, func(o overload.Trigger) bool { return o.Resource == trigger.Resource }) {
			return fail(here+".name", "there are two triggers by %q", t.GetName())
		}
		action.Triggers = append(action.Triggers, trigger)
	}
	out.Actions = append(out.Actions, action)
	return nil
}

func overloadTrigger(path string, t *overloadv3.Trigger, monitors map[string]overload.Resource) (overload.Trigger, error) {
	resource, ok := monitors[t.GetName()]
	if !ok {
		return overload.Trigger{}, fail(path+".name", "there is no resource monitor %q", t.GetName())
	}
	trigger := overload.Trigger{Resource: resource, Threshold: t.GetThreshold().GetValue()}
	if s := t.GetScaled(); s != nil {
		trigger.Scaled, trigger.Scaling, trigger.Threshold = true, s.GetScalingThreshold(), s.GetSaturationThreshold()
		if trigger.Scaling >= trigger.Threshold {
			return overload.Trigger{}, fail(path+".scaled", "scaling_threshold must be below saturation_threshold")
		}
	}
	return trigger, nil
}

// connectionLimits reads the limits that Envoy has in its runtime.
func (d *decoder) connectionLimits(out *overload.Config) (limited bool, err error) {
	limit := func(key string) (int64, error) {
		n, _, err := d.runtime.number(key)
		if err == nil && (n < 0 || n != math.Trunc(n)) {
			err = fail(d.runtime.paths[key], "is not a number of connections")
		}
		return int64(n), err
	}
	if _, ok := d.runtime.values[globalLimitKey]; ok {
		limited = true
		if out.MaxConnections, err = limit(globalLimitKey); err != nil {
			return false, err
		}
	}
	for _, key := range d.runtime.withPrefix(listenerLimitPrefix) {
		name, ok := strings.CutSuffix(strings.TrimPrefix(key, listenerLimitPrefix), listenerLimitSuffix)
		if !ok {
			continue
		}
		n, err := limit(key)
		if err != nil {
			return false, err
		}
		if out.ListenerConnections == nil {
			out.ListenerConnections = map[string]int64{}
		}
		limited = true
		out.ListenerConnections[name] = n
	}
	return limited, nil
}
