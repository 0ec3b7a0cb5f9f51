package opaque

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Proxy is the Config of a proxy. Zero values are unset.
type Proxy struct {
	Protocol       string
	BindAddress    string
	BindPort       int
	ConnectTimeout time.Duration
	RequestTimeout time.Duration
	IdleTimeout    time.Duration
	MaxConnections int
	MaxHeadersKB   int
	// ExactBalance spreads connections evenly over worker threads.
	ExactBalance bool
	Tracing      *Tracing
}

// The keys of a proxy's Config, as Consul spells them.
const (
	Protocol            = "protocol"
	BindAddress         = "bind_address"
	BindPort            = "bind_port"
	LocalConnectTimeout = "local_connect_timeout_ms"
	LocalRequestTimeout = "local_request_timeout_ms"
	LocalIdleTimeout    = "local_idle_timeout_ms"
	MaxConnections      = "max_inbound_connections"
	MaxHeadersKB        = "max_request_headers_kb"
	BalanceConnections  = "balance_inbound_connections"
)

// ExactBalance is the only value of BalanceConnections.
const ExactBalance = "exact_balance"

var proxyKeys = []string{Protocol, BindAddress, BindPort, LocalConnectTimeout, LocalRequestTimeout,
	LocalIdleTimeout, MaxConnections, MaxHeadersKB, BalanceConnections, TracingKey}

// Protocols are what a service may speak.
var Protocols = []string{"tcp", "http", "http2", "grpc"}

// maxHeadersKB is the most that Envoy accepts: 8 MiB of request headers.
const maxHeadersKB = 8192

// Merge puts layers of proxy configuration on top of each other: the later ones
// win, whatever the spelling of a key. Tracing is merged key by key, as a Consul
// agent merges proxy-defaults into a registration.
func Merge(layers ...map[string]any) map[string]any {
	out := map[string]any{}
	for _, l := range layers {
		for k, v := range l {
			if k = strings.ToLower(k); k == TracingKey {
				v = mergeObjects(out[k], v, sameKey)
			}
			out[k] = v
		}
	}
	return out
}

// mergeObjects puts an object on top of another, where same tells keys that are one. A
// null says nothing.
func mergeObjects(below, above any, same func(a, b string) bool) any {
	b, isObject := object(below)
	a, both := object(above)
	switch {
	case above == nil:
		return below
	case !isObject || !both:
		return above
	}
	out := maps.Clone(b)
	for _, k := range sortedKeys(a) {
		at, inside := k, same
		if _, exact := b[k]; !exact {
			// Of several spellings below, the first in the alphabet.
			if i := slices.IndexFunc(sortedKeys(b), func(have string) bool { return same(have, k) }); i >= 0 {
				at = sortedKeys(b)[i]
			}
		}
		if plainKey(k) == tagsKey {
			inside = exactKey // the names of tags are the user's
		}
		if plainKey(k) != tagsKey && namesCollector(a[k]) {
			out[at] = a[k] // insecure, say, was meant for the other one
			continue
		}
		out[at] = mergeObjects(out[at], a[k], inside)
	}
	return out
}

func sameKey(a, b string) bool { return plainKey(a) == plainKey(b) }

func exactKey(a, b string) bool { return a == b }

// ReadProxy reads a proxy's Config. A key with a problem counts as unset.
func ReadProxy(config map[string]any) (Proxy, []Problem) {
	var out Proxy
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

func (p *Proxy) set(key string, v any) (err error) {
	switch key {
	case Protocol:
		p.Protocol, err = protocol(v)
	case BindAddress:
		p.BindAddress, err = address(v)
	case BindPort:
		p.BindPort, err = count(v, 65535)
	case LocalConnectTimeout:
		p.ConnectTimeout, err = milliseconds(v)
	case LocalRequestTimeout:
		p.RequestTimeout, err = milliseconds(v)
	case LocalIdleTimeout:
		p.IdleTimeout, err = milliseconds(v)
	case MaxConnections:
		p.MaxConnections, err = count(v, math.MaxInt32)
	case MaxHeadersKB:
		p.MaxHeadersKB, err = count(v, maxHeadersKB)
	case BalanceConnections:
		if v != "" && v != ExactBalance {
			return fmt.Errorf("%v: use %s", v, ExactBalance)
		}
		p.ExactBalance = v == ExactBalance
	case TracingKey:
		p.Tracing, err = readTracing(v)
	case "envoy_tracing_json", "envoy_listener_tracing_json":
		return fmt.Errorf("escape hatches into Envoy's configuration are not supported; use %s", TracingKey)
	default:
		if strings.HasPrefix(key, "envoy_") {
			return fmt.Errorf("escape hatches into Envoy's configuration are not supported; remove it")
		}
		return fmt.Errorf("unknown key; known are %s", strings.Join(proxyKeys, ", "))
	}
	return err
}

func protocol(v any) (string, error) {
	s, ok := v.(string)
	if s = strings.ToLower(s); !ok || s != "" && !slices.Contains(Protocols, s) {
		return "", fmt.Errorf("%v: want %s", v, strings.Join(Protocols, ", "))
	}
	return s, nil
}

func address(v any) (string, error) {
	s, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("want a string, have %v", v)
	}
	if _, err := netip.ParseAddr(s); s != "" && err != nil {
		return "", fmt.Errorf("%q is not an IP address", s)
	}
	return s, nil
}

func milliseconds(v any) (time.Duration, error) {
	n, err := count(v, math.MaxInt32)
	return time.Duration(n) * time.Millisecond, err
}

// namesCollector tells whether an object says which collector it is of.
func namesCollector(v any) bool {
	m, _ := object(v)
	for k, v := range m {
		if plain := plainKey(k); v != nil && (plain == "service" || plain == "address") {
			return true
		}
	}
	return false
}
