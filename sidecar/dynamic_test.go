package sidecar

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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

// TestFromFiles: all that is discovered is discovered in files; they are changed while it runs.
func TestFromFiles(t *testing.T) {
	app := application(t)
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		text = strings.NewReplacer("DIR", dir, "APP", strconv.Itoa(app.(*net.TCPAddr).Port), "TYPE ", "\"@type\": type.googleapis.com/envoy.config.").Replace(text)
		if err := os.WriteFile(filepath.Join(dir, "new"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	const cluster = `{TYPE cluster.v3.Cluster, name: NAME, type: EDS, eds_cluster_config: {service_name: svc, eds_config: {path_config_source: {path: DIR/eds.yaml}}}}`
	const listener = `{TYPE listener.v3.Listener, name: NAME, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, filter_chains: [{filters: [{name: hcm, typed_config: {
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in,
      rds: {route_config_name: r, config_source: {path: DIR/rds.yaml}},
      http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}`
	list := func(template string, names ...string) string {
		out := "resources:\n"
		for _, n := range names {
			out += "- " + strings.Replace(template, "NAME", n, 1) + "\n"
		}
		return out
	}
	routes := func(to, prefix string) string {
		return `resources: [{TYPE route.v3.RouteConfiguration, name: r, virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: ` + to + `, prefix_rewrite: /` + prefix + `}}]}]}]`
	}
	write("cds.yaml", list(cluster, "a"))
	write("eds.yaml", `resources: [{TYPE endpoint.v3.ClusterLoadAssignment, cluster_name: svc, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: APP}}}}]}]}]`)
	write("lds.yaml", list(listener, "in"))
	write("rds.yaml", routes("a", "one"))
	text := strings.ReplaceAll(`
node: {id: n1, cluster: c}
dynamic_resources:
  cds_config: {path_config_source: {path: DIR/cds.yaml}}
  lds_config: {path_config_source: {path: DIR/lds.yaml}, resource_api_version: V3}
`, "DIR", dir)
	s := run(t, text)
	answers := func(listener, want string) {
		t.Helper()
		eventually(t, listener+" answers "+want, func() bool {
			in := s.Addrs().Listeners[listener]
			if in == nil {
				return false
			}
			code, body := call(t, "GET", in, "/", "")
			return strings.HasPrefix(fmt.Sprint(code, " ", body), want)
		})
	}
	if ok, why := s.Ready(); !ok {
		t.Error("not ready at once:", why)
	}
	answers("in", "200 GET /one ")
	write("rds.yaml", routes("b", "two"))
	answers("in", "503 ")
	write("cds.yaml", list(cluster, "a", "b"))
	answers("in", "200 GET /two ")
	write("lds.yaml", list(listener, "in", "more"))
	answers("more", "200 GET /two ")
	write("lds.yaml", list(strings.Replace(listener, "stat_prefix", "stat_prefixes", 1), "more"))
	eventually(t, "the fault is told", func() bool {
		return strings.Contains(fmt.Sprint((*view)(s).ConfigDump()), `unknown field "stat_prefixes"`)
	})
	answers("in", "200 GET /two ")
	write("lds.yaml", list(listener, "more"))
	// One that is being removed is not asked: it may be gone between its address and the dial.
	eventually(t, "in is removed", func() bool { return s.Addrs().Listeners["in"] == nil })
	answers("more", "200 GET /two ")

	b, err := config.ParseBootstrap([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(b); err != nil {
		t.Error(err)
	}
	write("rds.yaml", "resources: []")
	write("cds.yaml", list(strings.Replace(cluster, "type: EDS", "type: EDS, lb_policy: 99", 1), "a"))
	for what, err := range map[string]error{"check": Check(b), "start": starts(b)} {
		if err == nil || !strings.Contains(err.Error(), "rds.yaml: resources: has 0 elements") || !strings.Contains(err.Error(), "cds.yaml: ") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// starts is the error of a start.
func starts(b *config.Bootstrap) error {
	s, err := Build(Config{Bootstrap: b, Node: "n1"})
	if err == nil {
		err = s.Close()
	}
	return err
}
