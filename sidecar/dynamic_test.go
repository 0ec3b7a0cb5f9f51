package sidecar

import (
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/xds/ads"
	"github.com/hauberk-mesh/hauberk/xds/adstest"
)

// A bootstrap says what is discovered: nothing else is asked for, and what the control plane
// has besides is not taken.
func TestPartlyDiscovered(t *testing.T) {
	app := application(t)
	port := uint32(app.(*net.TCPAddr).Port)
	board := adstest.NewBoard(edsCluster(t, "a"), assignment(t, "a", port), edsCluster(t, "more"), assignment(t, "more", port),
		routeTo(t, "r", "a"), tcpListener(t, "unasked", "a", corev3.TrafficDirection_OUTBOUND))
	socket := filepath.Join(t.TempDir(), "cp.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, ads.New(ads.Config{Provider: board}))
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(server.Stop)

	const listener = `
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          rds: {route_config_name: r, config_source: {ads: {}, resource_api_version: V3}}
          http_filters:
          - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
`
	bootstrap := func(discovered, listeners, clusters string) string {
		return `
node: {id: n1, cluster: c}
dynamic_resources:
  ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: cp}}]}
` + discovered + `static_resources:` + listeners + `
  clusters:
  - name: cp
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: cp, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: "` + socket + `"}}}}]}]}
` + clusters
	}
	const eds = "  - {name: a, type: EDS, eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}}}\n"
	const cds = "  cds_config: {ads: {}, resource_api_version: V3}\n"
	for _, c := range []struct{ what, text, clusters string }{
		{"routes and endpoints", bootstrap("", listener, eds), "a"},
		{"clusters too", bootstrap(cds, listener, ""), "a more"},
	} {
		s := run(t, c.text)
		eventually(t, c.what+": the listener", func() bool { return s.Addrs().Listeners["in"] != nil })
		if code, text := call(t, "GET", s.Addrs().Listeners["in"], "/x", ""); code != 200 {
			t.Errorf("%s: %d %s", c.what, code, text)
		}
		eventually(t, c.what+": ready", func() bool { ok, _ := s.Ready(); return ok })
		var names []string
		for _, cl := range s.clusters.All() {
			names = append(names, cl.Name())
		}
		if len(s.Addrs().Listeners) != 1 || strings.Join(sorted(names), " ") != c.clusters {
			t.Errorf("%s: listeners %v, clusters %v", c.what, s.Addrs().Listeners, names)
		}
	}
	for _, c := range []struct{ what, text, want string }{
		{"a listener to it", bootstrap("", strings.Replace(listener, "rds: {route_config_name: r, config_source: {ads: {}, resource_api_version: V3}}",
			`route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: b}}]}]}`, 1), eds), `there is no cluster "b"`},
	} {
		if _, err := config.ParseBootstrap([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

func sorted(names []string) []string {
	slices.Sort(names)
	return names
}
