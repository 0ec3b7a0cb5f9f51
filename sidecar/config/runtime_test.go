package config

import (
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
)

// TestRuntimeOfDiscoveredListeners: the runtime is the process's, as in Envoy: it says for a
// listener that is discovered what it says for one of the bootstrap.
func TestRuntimeOfDiscoveredListeners(t *testing.T) {
	const layers = `layered_runtime: {layers: [{name: s, static_layer: {limit: {enabled: false}}}]}
`
	b, err := ParseBootstrap([]byte(layers + `dynamic_resources: {lds_config: {path_config_source: {path: /etc/listeners.yaml}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	m := &listenerv3.Listener{}
	err = protojson.Unmarshal([]byte(`{"name": "l", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}, "filter_chains": [{"filters": [
		{"name": "limit", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
			"stat_prefix": "l", "max_connections": 1, "runtime_enabled": {"runtime_key": "limit.enabled", "default_value": true}}},
		{"name": "tcp", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "t", "cluster": "c"}}]}]}`), m)
	if err != nil {
		t.Fatal(err)
	}
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	for on, r := range map[bool]*Runtime{true: nil, false: b.Runtime} {
		l, err := r.Listener(body)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(l.Chains[0].ConnectionLimits) > 0; got != on {
			t.Errorf("limited: %v, want %v", got, on)
		}
	}
	if _, err := ParseBootstrap([]byte(layers)); err == nil {
		t.Error("a key is taken that nothing can read")
	}
}
