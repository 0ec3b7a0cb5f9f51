package config

import (
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/overload"
)

var reducedTimeouts = map[overloadv3.ScaleTimersOverloadActionConfig_TimerType]overload.Timeout{
	overloadv3.ScaleTimersOverloadActionConfig_HTTP_DOWNSTREAM_CONNECTION_IDLE: overload.ConnectionIdle,
	overloadv3.ScaleTimersOverloadActionConfig_HTTP_DOWNSTREAM_STREAM_IDLE:     overload.StreamIdle,
	overloadv3.ScaleTimersOverloadActionConfig_TRANSPORT_SOCKET_CONNECT:        overload.Handshake,
	overloadv3.ScaleTimersOverloadActionConfig_HTTP_DOWNSTREAM_CONNECTION_MAX:  overload.ConnectionMax,
	overloadv3.ScaleTimersOverloadActionConfig_HTTP_DOWNSTREAM_STREAM_FLUSH:    overload.StreamFlush,
}

// actionConfig reads an action's own configuration, which one kind of them has.
func (d *decoder) actionConfig(path string, a *overloadv3.OverloadAction, out *overload.Config) error {
	path += ".typed_config"
	c, _ := d.unpacked[a.GetTypedConfig()].(*overloadv3.ScaleTimersOverloadActionConfig)
	if overloadActions[a.GetName()] != overload.ReduceTimeouts {
		if c != nil {
			return fail(path, "action %q has none", a.GetName())
		}
		return nil
	}
	if c == nil {
		return fail(path, "is missing; the action %q says in it which timeouts it reduces", a.GetName())
	}
	for i, s := range c.GetTimerScaleFactors() {
		here := at(path+".timer_scale_factors", i)
		t, ok := reducedTimeouts[s.GetTimer()]
		if !ok {
			return fail(here+".timer", "unsupported timer %s; remove it", s.GetTimer())
		}
		if out.Timeouts[t] != nil {
			return fail(here+".timer", "timer %s is there twice", s.GetTimer())
		}
		least := &overload.Least{Share: s.GetMinScale().GetValue() / 100}
		if m := s.GetMinTimeout(); m != nil {
			var err error
			if least.Time, err = duration(m, here+".min_timeout"); err != nil {
				return err
			}
			least.Absolute = true
		}
		out.Timeouts[t] = least
	}
	return nil
}
