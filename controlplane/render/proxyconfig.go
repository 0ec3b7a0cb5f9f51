package render

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
)

// The keys of opaque proxy configuration that mean something here.
var knownProxyConfig = []string{
	"protocol", "bind_address", "bind_port", "local_connect_timeout_ms", "local_request_timeout_ms",
	"local_idle_timeout_ms", "max_inbound_connections", "max_request_headers_kb",
}

// unknownProxyConfig reports the keys that nobody reads.
func unknownProxyConfig(where string, config map[string]any) []Problem {
	var out []Problem
	for _, k := range sortedKeys(config) {
		if slices.Contains(knownProxyConfig, strings.ToLower(k)) {
			continue
		}
		reason := "not a known key, so it has no effect; known are " + strings.Join(knownProxyConfig, ", ")
		if strings.HasPrefix(strings.ToLower(k), "envoy_") {
			reason = "escape hatches into Envoy's configuration are not supported; remove it"
		}
		out = append(out, Problem{Path: where + "." + k, Reason: reason})
	}
	return out
}

// unsupportedMode reports the ways of running a proxy that are not rendered.
func unsupportedMode(where string, mode api.ProxyMode, mtls api.MutualTLSMode, gateway api.MeshGatewayConfig, expose api.ExposeConfig) []Problem {
	var out []Problem
	add := func(path, reason string) { out = append(out, Problem{Path: where + " " + path, Reason: reason}) }
	if mode == api.ProxyModeTransparent {
		add("Mode", "transparent proxies are not supported: no traffic is captured; use direct and declare Upstreams")
	}
	if mtls == api.MutualTLSModePermissive {
		add("MutualTLSMode", "plaintext to a meshed port is not supported; mutual TLS stays strict")
	}
	if gateway.Mode != api.MeshGatewayModeDefault && gateway.Mode != api.MeshGatewayModeNone {
		add("MeshGateway.Mode", "mesh gateways are not supported; instances of other datacenters are dialled directly")
	}
	if expose.Checks {
		add("Expose.Checks", "exposed checks are not supported; no plaintext listener is opened")
	}
	for i := range expose.Paths {
		add(fmt.Sprintf("Expose.Paths[%d]", i), "exposed paths are not supported; no plaintext listener is opened")
	}
	return out
}

// workloadConfig is what shapes a workload's inbound side, merged from
// proxy-defaults, service-defaults and the registration; the later ones win.
type workloadConfig struct {
	protocol       string
	bindHost       string
	bindPort       int
	connectTimeout time.Duration
	requestTimeout time.Duration // 0 for none
	idleTimeout    time.Duration // 0 when unset
	maxConnections int           // 0 when unset
	maxHeadersKB   int           // 0 when unset
}

// configReader collects what is wrong while values are read.
type configReader struct {
	where    string
	config   map[string]any
	problems []Problem
}

func (r *configReader) problem(key, format string, args ...any) {
	r.problems = append(r.problems, Problem{Path: r.where + "." + key, Reason: fmt.Sprintf(format, args...)})
}

// number reads a whole number in [0, limit]; what is not one is reported and counts as unset.
func (r *configReader) number(key string, limit int) (int, bool) {
	v, ok := r.config[key]
	if !ok || v == nil {
		return 0, false
	}
	n, err := wholeNumber(v)
	if err != nil || n < 0 || n > limit {
		r.problem(key, "want a whole number from 0 to %d, have %v; it has no effect", limit, v)
		return 0, false
	}
	return n, true
}

func (r *configReader) text(key string) string {
	v, ok := r.config[key]
	if !ok || v == nil {
		return ""
	}
	s, ok := v.(string)
	if !ok {
		r.problem(key, "want a string, have %v; it has no effect", v)
	}
	return s
}

func (r *configReader) milliseconds(key string) (time.Duration, bool) {
	n, ok := r.number(key, math.MaxInt32)
	return time.Duration(n) * time.Millisecond, ok
}

// wholeNumber takes what JSON, HCL and YAML decoders make of one.
func wholeNumber(v any) (int, error) {
	switch n := v.(type) {
	case int:
		return n, nil
	case int64:
		return int(n), nil
	case uint64:
		if n <= math.MaxInt {
			return int(n), nil
		}
	case float64:
		if n == math.Trunc(n) && math.Abs(n) < 1<<53 {
			return int(n), nil
		}
	case json.Number:
		i, err := n.Int64()
		return int(i), err
	case string:
		return strconv.Atoi(n)
	}
	return 0, fmt.Errorf("%v is not a whole number", v)
}

func readWorkloadConfig(env *Environment, inst *catalog.Instance, defaults *api.ServiceConfigEntry, protocol string) (workloadConfig, []Problem) {
	central := map[string]any{}
	if env.proxyDefaults != nil {
		for k, v := range env.proxyDefaults.Config {
			// The protocol of proxy-defaults was considered when the service's
			// was determined; a service-defaults entry without one means tcp.
			if strings.ToLower(k) != "protocol" {
				central[k] = v
			}
		}
	}
	service := map[string]any{}
	if defaults != nil {
		set := func(key string, n int) {
			if n != 0 {
				service[key] = n
			}
		}
		set("local_connect_timeout_ms", defaults.LocalConnectTimeoutMs)
		set("local_request_timeout_ms", defaults.LocalRequestTimeoutMs)
		set("max_inbound_connections", defaults.MaxInboundConnections)
		if defaults.MaxRequestHeadersKB != nil {
			set("max_request_headers_kb", int(*defaults.MaxRequestHeadersKB))
		}
	}
	r := &configReader{where: inst.ID + " Proxy.Config", config: config(central, service, inst.Proxy.Config)}
	out := workloadConfig{protocol: protocol, bindHost: inst.Address, bindPort: inst.Port, connectTimeout: 5 * time.Second}
	if p := strings.ToLower(r.text("protocol")); p != "" {
		if slices.Contains([]string{"tcp", "http", "http2", "grpc"}, p) {
			out.protocol = p
		} else {
			r.problem("protocol", "%q: want tcp, http, http2 or grpc; the service's protocol %s applies", p, protocol)
		}
	}
	if host := r.text("bind_address"); host != "" {
		out.bindHost = host
	}
	if port, ok := r.number("bind_port", 65535); ok && port != 0 {
		out.bindPort = port
	}
	if d, ok := r.milliseconds("local_connect_timeout_ms"); ok && d > 0 {
		out.connectTimeout = d
	}
	out.requestTimeout, _ = r.milliseconds("local_request_timeout_ms")
	out.idleTimeout, _ = r.milliseconds("local_idle_timeout_ms")
	out.maxConnections, _ = r.number("max_inbound_connections", math.MaxInt32)
	// Envoy accepts at most 8 MiB of request headers.
	out.maxHeadersKB, _ = r.number("max_request_headers_kb", 8192)
	problems := append(r.problems, unknownProxyConfig(r.where, inst.Proxy.Config)...)
	return out, problems
}

// bindable says why an address cannot be listened on.
func bindable(host string, port int) error {
	if _, err := netip.ParseAddr(host); err != nil {
		return fmt.Errorf("%q is not an IP address", host)
	}
	if port < 1 || port > 65535 {
		return fmt.Errorf("%d is not a port", port)
	}
	return nil
}
