package config

import (
	"encoding/json"
	"strings"
	"testing"
)

// consulBootstrap has what is odd in the bootstraps that Consul writes: one gRPC service
// where a list is meant, a token, names in both forms, labels of statistics.
const consulBootstrap = `{
  "admin": {"access_log_path": "/dev/null", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 19000}}},
  "node": {"cluster": "web", "id": "web-sidecar-proxy", "metadata": {"namespace": "default", "list": "one"}},
  "layered_runtime": {"layers": [{"name": "base", "static_layer": {"re2.max_program_size.error_level": 1048576}}]},
  "static_resources": {"clusters": [{
    "name": "local_agent", "ignore_health_on_host_removal": false, "connect_timeout": "1s", "type": "STATIC", "http2_protocol_options": {},
    "loadAssignment": {"clusterName": "local_agent", "endpoints": [{"lbEndpoints": {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 8502}}}}}]}
  }]},
  "stats_config": {"stats_tags": [{"regex": "^cluster", "tag_name": "local_cluster"}], "use_all_default_tags": true},
  "dynamic_resources": {
    "lds_config": {"ads": {}, "resource_api_version": "V3"}, "cds_config": {"ads": {}, "resource_api_version": "V3"},
    "ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3",
      "grpc_services": {"initial_metadata": [{"key": "x-consul-token", "value": "the-token"}], "envoy_grpc": {"cluster_name": "local_agent"}}}
  }
}`

func TestConsulsBootstrap(t *testing.T) {
	b, err := ParseBootstrap([]byte(consulBootstrap))
	if err != nil {
		t.Fatal(err)
	}
	if len(b.ADS.Metadata) != 1 || b.ADS.Metadata[0].Key != "x-consul-token" || string(b.ADS.Metadata[0].Value) != "the-token" {
		t.Errorf("the metadata is %v", b.ADS.Metadata)
	}
	if at, err := b.Server(b.ADS.Cluster); err != nil || len(at.Addresses) != 1 || at.Addresses[0] != "127.0.0.1:8502" {
		t.Errorf("the control plane is at %v: %v", at, err)
	}
	if got := b.Node.Metadata["list"]; got != "one" {
		t.Errorf("a value of the node's became %v", got)
	}
	shown, err := json.Marshal(b)
	if err != nil || strings.Contains(string(shown), "the-token") {
		t.Errorf("a dump shows the token: %v", err)
	}
	for _, c := range []struct{ old, new, want string }{
		{`"x-consul-token"`, `":path"`, "initial_metadata[0].key"},
		{`"x-consul-token"`, `"grpc-timeout"`, `initial_metadata[0].key: "grpc-timeout" is gRPC's own`},
		{`"x-consul-token"`, `"token-bin"`, `initial_metadata[0].key: "token-bin" would be binary`},
		{`"the-token"`, `"%ENVIRONMENT(TOKEN)%"`, "initial_metadata[0].value: is not plain text"},
		{`"grpc_services": {`, `"grpc_services": {"extra": 1, `, `unknown field "extra"`},
	} {
		if _, err := ParseBootstrap([]byte(strings.Replace(consulBootstrap, c.old, c.new, 1))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.new, err)
		} else if strings.Contains(err.Error(), "the-token") {
			t.Errorf("%s: the error shows the token: %v", c.new, err)
		}
	}
}
