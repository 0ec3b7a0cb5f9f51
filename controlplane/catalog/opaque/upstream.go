package opaque

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// Upstream is the Config of one upstream of a registration. Zero values and nil
// ask for nothing.
type Upstream struct {
	// Protocol is what the registration takes the upstream's to be. It decides
	// nothing: a Consul agent copies the upstream's own there.
	Protocol           string
	ConnectTimeout     time.Duration
	Limits             *api.UpstreamLimits
	PassiveHealthCheck *api.PassiveHealthCheck
}

var upstreamKeys = []string{"connect_timeout_ms", "limits", "passive_health_check", Protocol}

// ReadUpstream reads an upstream's Config. A key with a problem counts as unset.
func ReadUpstream(config map[string]any) (Upstream, []Problem) {
	var out Upstream
	var problems []Problem
	for _, k := range sortedKeys(config) {
		if config[k] == nil {
			continue
		}
		if err := out.set(strings.ToLower(k), config[k]); err != nil {
			problems = append(problems, problem(k, err))
		}
	}
	return out, problems
}

func (u *Upstream) set(key string, v any) (err error) {
	switch key {
	case "connect_timeout_ms":
		n, err := wholeNumber(v)
		if err != nil || n < 1 || n > math.MaxInt32 {
			return fmt.Errorf("want a number of milliseconds above 0, have %v", v)
		}
		u.ConnectTimeout = time.Duration(n) * time.Millisecond
	case "limits":
		u.Limits, err = decodeLimits(v)
	case "passive_health_check":
		u.PassiveHealthCheck, err = decodePassiveHealthCheck(v)
	case Protocol:
		u.Protocol, err = protocol(v)
	case "envoy_listener_json", "envoy_cluster_json":
		return fmt.Errorf("escape hatches into Envoy's configuration are not supported; remove it")
	default:
		return fmt.Errorf("unknown key; known are %s", strings.Join(upstreamKeys, ", "))
	}
	return err
}

func decodeLimits(v any) (*api.UpstreamLimits, error) {
	out := &api.UpstreamLimits{}
	err := fields(v, func(key string, v any) error {
		n, err := count(v, math.MaxInt32)
		if err == nil && n == 0 {
			err = fmt.Errorf("0 would refuse everything; use at least 1")
		}
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
	if err != nil {
		return nil, err
	}
	return out, nil
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
		limit := math.MaxInt32
		if strings.HasPrefix(key, "enforcing") || key == "maxejectionpercent" {
			limit = 100
		}
		n, err := count(v, limit)
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
	if err != nil {
		return nil, err
	}
	return out, nil
}
