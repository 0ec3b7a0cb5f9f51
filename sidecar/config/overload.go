package config

import (
	"math"
	"slices"
	"strings"

	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
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
	monitors := map[string]overload.Resource{}
	for i, r := range m.GetResourceMonitors() {
		path := at("overload_manager.resource_monitors", i)
		if _, twice := monitors[r.GetName()]; twice {
			return nil, fail(path+".name", "there are two resource monitors %q", r.GetName())
		}
		switch c := d.unpacked[r.GetTypedConfig()].(type) {
		case *fixedheapv3.FixedHeapConfig:
			if out.MaxHeap = c.GetMaxHeapSizeBytes(); out.MaxHeap == 0 {
				return nil, fail(path+".typed_config.max_heap_size_bytes", "must be greater than 0")
			}
			monitors[r.GetName()] = overload.Heap
		case *downstreamv3.DownstreamConnectionsConfig:
			if out.MaxConnections > 0 {
				return nil, fail(path, "limits connections beside the runtime key %s; use one of them", globalLimitKey)
			}
			out.MaxConnections = c.GetMaxActiveDownstreamConnections()
			monitors[r.GetName()] = overload.Connections
		default:
			return nil, fail(path, "resource monitor %q has no typed_config", r.GetName())
		}
	}
	if b := m.GetBufferFactoryConfig(); b != nil {
		out.LeastHoard = 1 << b.GetMinimumAccountToTrackPowerOfTwo()
	}
	return out, overloadTriggers(m, monitors, out)
}

func overloadTriggers(m *overloadv3.OverloadManager, monitors map[string]overload.Resource, out *overload.Config) error {
	for i, a := range m.GetActions() {
		path := at("overload_manager.actions", i)
		kind, ok := overloadActions[a.GetName()]
		if !ok {
			return fail(path+".name", "unsupported action %q; remove it", a.GetName())
		}
		action := overload.Action{Kind: kind}
		if slices.ContainsFunc(out.Actions, func(a overload.Action) bool { return a.Kind == kind }) {
			return fail(path+".name", "there are two actions %q", a.GetName())
		}
		if kind == overload.ResetStreams && out.LeastHoard == 0 {
			return fail("overload_manager.buffer_factory_config", "is missing; the action %q needs it", a.GetName())
		}
		for j, t := range a.GetTriggers() {
			here := at(path+".triggers", j)
			resource, ok := monitors[t.GetName()]
			if !ok {
				return fail(here+".name", "there is no resource monitor %q", t.GetName())
			}
			trigger := overload.Trigger{Resource: resource, Threshold: t.GetThreshold().GetValue()}
			if s := t.GetScaled(); s != nil {
				trigger.Scaled, trigger.Scaling, trigger.Threshold = true, s.GetScalingThreshold(), s.GetSaturationThreshold()
				if trigger.Scaling >= trigger.Threshold {
					return fail(here+".scaled", "scaling_threshold must be below saturation_threshold")
				}
			}
			action.Triggers = append(action.Triggers, trigger)
		}
		out.Actions = append(out.Actions, action)
	}
	return nil
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
