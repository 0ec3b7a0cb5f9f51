package opaque

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

func keys(problems []Problem) string {
	var out []string
	for _, p := range problems {
		out = append(out, p.Key)
	}
	return strings.Join(out, " ")
}

func TestReadProxy(t *testing.T) {
	have, problems := ReadProxy(Merge(
		map[string]any{"Protocol": "http", "bind_port": 80, "max_inbound_connections": 1},
		map[string]any{"protocol": "GRPC", "BIND_PORT": "8000", "local_connect_timeout_ms": json.Number("20"), "local_idle_timeout_ms": nil},
		map[string]any{"max_inbound_connections": -1, "max_request_headers_kb": 8193, "bind_address": "host", "envoy_x": 1, "colour": "red",
			"local_request_timeout_ms": 1.5},
	))
	if want := (Proxy{Protocol: "grpc", BindPort: 8000, ConnectTimeout: 20 * time.Millisecond}); have != want {
		t.Errorf("have %+v, want %+v", have, want)
	}
	if k := keys(problems); k != "bind_address colour envoy_x local_request_timeout_ms max_inbound_connections max_request_headers_kb" {
		t.Errorf("problems %s", k)
	}
}

func TestReadUpstream(t *testing.T) {
	o, problems := ReadUpstream(map[string]any{
		"connect_timeout_ms":   250,
		"limits":               map[string]any{"max_connections": 3, "MaxPendingRequests": "4"},
		"passive_health_check": []map[string]any{{"interval": "3s", "max_failures": 2}},
		"protocol":             "HTTP",
		"colour":               "red",
	})
	if o.Protocol != "http" || o.ConnectTimeout != 250*time.Millisecond || *o.Limits.MaxConnections != 3 || *o.Limits.MaxPendingRequests != 4 ||
		o.PassiveHealthCheck.Interval != 3*time.Second || o.PassiveHealthCheck.MaxFailures != 2 {
		t.Errorf("%+v", o)
	}
	if k := keys(problems); k != "colour" {
		t.Errorf("problems %s", k)
	}
	o, problems = ReadUpstream(map[string]any{
		"connect_timeout_ms": 0, "limits": map[string]any{"max_connections": 0}, "passive_health_check": map[string]any{"interval": "x"},
	})
	if o != (Upstream{}) || len(problems) != 3 {
		t.Errorf("%+v, problems %v", o, problems)
	}
}

// TestReadMergedUpstream: what a Consul agent merges into a registration, with
// its nulls, beneath what the registration says in the other spelling.
func TestReadMergedUpstream(t *testing.T) {
	o, problems := ReadUpstream(map[string]any{
		"limits":               map[string]any{"MaxConnections": 5.0, "max_connections": 3.0, "MaxPendingRequests": 7.0, "MaxConcurrentRequests": nil},
		"passive_health_check": map[string]any{"Interval": 2e9, "MaxFailures": 4.0, "EnforcingConsecutive5xx": nil, "BaseEjectionTime": nil},
		"connect_timeout_ms":   nil,
	})
	if len(problems) > 0 || *o.Limits.MaxConnections != 3 || *o.Limits.MaxPendingRequests != 7 || o.Limits.MaxConcurrentRequests != nil ||
		o.PassiveHealthCheck.Interval != 2*time.Second || o.PassiveHealthCheck.MaxFailures != 4 || o.PassiveHealthCheck.EnforcingConsecutive5xx != nil {
		t.Errorf("%+v, problems %v", o, problems)
	}
	if _, problems = ReadUpstream(map[string]any{"passive_health_check": map[string]any{"max_ejection_percent": 300}}); len(problems) != 1 {
		t.Errorf("300 percent: %v", problems)
	}
}

// FuzzRead: whatever the decoders make of a map, reading it ends, and a key is
// either read or reported.
func FuzzRead(f *testing.F) {
	f.Add(`{"protocol":"http","bind_port":"1","limits":{"max_connections":1},"passive_health_check":[{"interval":1}]}`)
	f.Add(`{"limits":[{"maxconnections":1e300}],"connect_timeout_ms":"-9","bind_address":"::1%lo"}`)
	f.Fuzz(func(t *testing.T, text string) {
		var config map[string]any
		if json.Unmarshal([]byte(text), &config) != nil {
			return
		}
		_, bad := ReadProxy(config)
		for k := range config {
			known := slices.Contains(proxyKeys, strings.ToLower(k))
			reported := slices.ContainsFunc(bad, func(p Problem) bool { return p.Key == k })
			if !known && !reported && config[k] != nil {
				t.Errorf("%q is neither read nor reported", k)
			}
		}
		ReadUpstream(config)
	})
}
