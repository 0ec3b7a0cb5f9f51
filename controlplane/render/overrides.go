package render

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/compile"
)

var knownUpstreamConfig = []string{"connect_timeout_ms", "limits", "passive_health_check"}

// upstreamOverrides reads an upstream's own opaque configuration.
func upstreamOverrides(config map[string]any, report func(field, format string, args ...any)) compile.Overrides {
	var o compile.Overrides
	for _, k := range sortedKeys(config) {
		v := config[k]
		field := "Config." + k
		switch strings.ToLower(k) {
		case "connect_timeout_ms":
			if d, err := wholeNumber(v); err == nil && d > 0 {
				o.ConnectTimeout = milliseconds(d)
			} else {
				report(field, "want a number of milliseconds above 0, have %v; it has no effect", v)
			}
		case "limits":
			limits, err := decodeLimits(v)
			if err != nil {
				report(field, "%v; it has no effect", err)
				continue
			}
			o.Limits = limits
		case "passive_health_check":
			check, err := decodePassiveHealthCheck(v)
			if err != nil {
				report(field, "%v; it has no effect", err)
				continue
			}
			o.PassiveHealthCheck = check
		case "protocol":
			report(field, "has no effect: a service's protocol is its own; set it in the service-defaults of the upstream")
		default:
			report(field, "not a known key, so it has no effect; known are %s", strings.Join(knownUpstreamConfig, ", "))
		}
	}
	return o
}

func milliseconds(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// fields walks an opaque map in order, with each key in lower case and without
// the separators in which spellings differ (MaxFailures, max_failures).
func fields(v any, each func(key string, v any) error) error {
	m, ok := v.(map[string]any)
	if list, isList := v.([]map[string]any); isList && len(list) == 1 {
		m, ok = list[0], true // what HCL makes of a block
	}
	if !ok {
		return fmt.Errorf("want an object, have %v", v)
	}
	for _, k := range sortedKeys(m) {
		if err := each(strings.ReplaceAll(strings.ToLower(k), "_", ""), m[k]); err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
	}
	return nil
}

func count(v any, limit int) (int, error) {
	n, err := wholeNumber(v)
	if err != nil || n < 0 || n > limit {
		return 0, fmt.Errorf("want a whole number from 0 to %d, have %v", limit, v)
	}
	return n, nil
}

func decodeLimits(v any) (*api.UpstreamLimits, error) {
	out := &api.UpstreamLimits{}
	err := fields(v, func(key string, v any) error {
		n, err := count(v, math.MaxInt32)
		switch key {
		case "maxconnections":
			out.MaxConnections = &n
		case "maxpendingrequests":
			out.MaxPendingRequests = &n
		case "maxconcurrentrequests":
			out.MaxConcurrentRequests = &n
		default:
			return fmt.Errorf("not a known limit")
		}
		return err
	})
	return out, err
}

func decodePassiveHealthCheck(v any) (*api.PassiveHealthCheck, error) {
	out := &api.PassiveHealthCheck{}
	err := fields(v, func(key string, v any) error {
		if key == "interval" || key == "baseejectiontime" {
			d, err := span(v)
			if key == "interval" {
				out.Interval = d
			} else {
				out.BaseEjectionTime = &d
			}
			return err
		}
		n, err := count(v, math.MaxInt32)
		u := uint32(n)
		switch key {
		case "maxfailures":
			out.MaxFailures = u
		case "consecutive5xx":
			out.Consecutive5xx = &u
		case "enforcingconsecutive5xx":
			out.EnforcingConsecutive5xx = &u
		case "consecutivegatewayfailure":
			out.ConsecutiveGatewayFailure = &u
		case "enforcingconsecutivegatewayfailure":
			out.EnforcingConsecutiveGatewayFailure = &u
		case "maxejectionpercent":
			out.MaxEjectionPercent = &u
		default:
			return fmt.Errorf("not a known setting")
		}
		return err
	})
	return out, err
}

// span reads a duration: "10s", or nanoseconds as Consul's API sends them.
func span(v any) (time.Duration, error) {
	if s, ok := v.(string); ok {
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 {
			return 0, fmt.Errorf("%q is not a duration such as 10s", s)
		}
		return d, nil
	}
	n, err := wholeNumber(v)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("want a duration such as 10s, have %v", v)
	}
	return time.Duration(n), nil
}
