//go:build e2e

package contract

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/config"
)

// notTaken are the parts of what Consul's own control plane sends that are refused, by a
// part of the error.
var notTaken = map[string]string{
	"private keys never cross the network":                 "its gateways take certificates from wherever an operator says",
	"tls_minimum_protocol_version: is TLSv1_0":             "nobody should speak it",
	"tls_params: the minimum version is above the maximum": "no handshake would succeed, in Envoy neither: its clients speak 1.2 at most unless they are told",
	"port_value: 0 cannot be connected to":                 "nor by Envoy",
	"stat_prefix: value length must be at least 1":         "nor by Envoy",
}

// TestConsulsOwn reads what Consul's control plane sends to Envoys, as its own tests have
// it, of every kind of proxy and gateway.
func TestConsulsOwn(t *testing.T) {
	cmd := exec.Command("go", "mod", "download", "-json", "github.com/hashicorp/consul")
	cmd.Dir = "../tools"
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	read, seen := 0, map[string]bool{}
	for _, kind := range []string{"listeners", "clusters", "endpoints", "routes"} {
		files, err := filepath.Glob(filepath.Join(module.Dir, "agent/xds/testdata", kind, "*.golden"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := asBootstrap(kind, file)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			read++
			_, err = config.ParseBootstrap(text)
			for _, fault := range each(err) {
				if !known(fault.Error(), seen) {
					t.Errorf("%s/%s: %v", kind, filepath.Base(file), fault)
				}
			}
		}
	}
	if read < 200 {
		t.Errorf("only %d files are there", read)
	}
	for part := range notTaken {
		if !seen[part] {
			t.Errorf("nothing is refused with %q any more", part)
		}
	}
}

// each is all that a bootstrap was refused for.
func each(err error) []error {
	var several config.Refusals
	switch {
	case err == nil:
		return nil
	case errors.As(err, &several):
		return several
	}
	return []error{err}
}

func known(text string, seen map[string]bool) bool {
	for part := range notTaken {
		if strings.Contains(text, part) {
			seen[part] = true
			return true
		}
	}
	return false
}

// asBootstrap makes a bootstrap of a discovery response, beside a control plane that may
// send the rest.
func asBootstrap(kind, file string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var response struct{ Resources []map[string]any }
	if err := json.Unmarshal(b, &response); err != nil {
		return nil, err
	}
	const ads = `{"name": "control-plane", "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
		"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}},
		"load_assignment": {"cluster_name": "control-plane", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": "/x"}}}}]}]}}`
	var listeners, clusters []any
	clusters = append(clusters, json.RawMessage(ads))
	for i, r := range response.Resources {
		delete(r, "@type")
		switch kind {
		case "listeners":
			listeners = append(listeners, r)
		case "clusters":
			clusters = append(clusters, r)
		case "endpoints":
			clusters = append(clusters, map[string]any{"name": r["clusterName"], "type": "STATIC", "connect_timeout": "1s", "load_assignment": r})
		case "routes":
			listeners = append(listeners, map[string]any{"name": fmt.Sprint("l", i), "address": json.RawMessage(`{"socket_address": {"address": "127.0.0.1", "port_value": 0}}`),
				"filter_chains": []any{map[string]any{"filters": []any{map[string]any{"name": "hcm", "typed_config": map[string]any{
					"@type":       "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
					"stat_prefix": "x", "route_config": r,
					"http_filters": json.RawMessage(`[{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]`),
				}}}}}})
		}
	}
	return json.Marshal(map[string]any{
		"node": map[string]any{"id": "n", "cluster": "c"},
		"dynamic_resources": json.RawMessage(`{"lds_config": {"ads": {}, "resource_api_version": "V3"}, "cds_config": {"ads": {}, "resource_api_version": "V3"},
			"ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "control-plane"}}]}}`),
		"static_resources": map[string]any{"listeners": listeners, "clusters": clusters},
	})
}
