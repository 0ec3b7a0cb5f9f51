package sidecar

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"github.com/hauberk-mesh/hauberk/internal/ports"
	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/xds/ads"
	"github.com/hauberk-mesh/hauberk/xds/adstest"
)

// shelf is a directory of files of discovery.
type shelf struct {
	t    *testing.T
	dir  string
	fill *strings.Replacer
}

// newShelf has words of the files replaced, pair by pair.
func newShelf(t *testing.T, words ...string) *shelf {
	dir := t.TempDir()
	words = append(words, "DIR", dir, "TYPE ", `"@type": type.googleapis.com/envoy.config.`, "HTTP ", `"@type": type.googleapis.com/envoy.extensions.filters.http.`,
		"NETWORK ", `"@type": type.googleapis.com/envoy.extensions.filters.network.`)
	return &shelf{t, dir, strings.NewReplacer(words...)}
}

// write replaces a file as one step.
func (s *shelf) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "new"), []byte(s.fill.Replace(text)), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(s.dir, "new"), filepath.Join(s.dir, name)); err != nil {
		s.t.Fatal(err)
	}
}

const (
	shelvedHCM = `{name: hcm, typed_config: {NETWORK http_connection_manager.v3.HttpConnectionManager, stat_prefix: in,
      rds: {route_config_name: r, config_source: {path_config_source: {path: DIR/rds.yaml}}}, http_filters: [{name: router, typed_config: {HTTP router.v3.Router}}]}}`
	shelvedTCP     = `{name: tcp, typed_config: {NETWORK tcp_proxy.v3.TcpProxy, stat_prefix: in, cluster: a}}`
	shelvedCluster = `{name: NAME, load_assignment: {cluster_name: NAME, endpoints: []}}`
	shelvedRoutes  = `resources: [{TYPE route.v3.RouteConfiguration, name: r, validate_clusters: true, virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: NAME}}]}]}]`
)

func shelvedListener(name, port, filter string) string {
	return `{name: ` + name + `, address: {socket_address: {address: 127.0.0.1, port_value: ` + port + `}}, filter_chains: [{filters: [` + filter + `]}]}`
}

// TestFilesThatClash: what a start refuses of files for what else there is, a check refuses.
func TestFilesThatClash(t *testing.T) {
	port, err := ports.Free("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	cluster := func(name string) string { return strings.ReplaceAll(shelvedCluster, "NAME", name) }
	discovered := func(kind string, resources ...string) string {
		out := "resources:\n"
		for _, r := range resources {
			out += "- {TYPE " + kind + ", " + strings.TrimPrefix(r, "{") + "\n"
		}
		return out
	}
	const eds = `{name: e, type: EDS, SUBSETS eds_cluster_config: {service_name: svc, eds_config: {path_config_source: {path: DIR/eds.yaml}}}}`
	const listenerType, clusterType = "listener.v3.Listener", "cluster.v3.Cluster"
	for name, c := range map[string]struct {
		clusters, listeners []string // of the bootstrap
		lds, cds, eds       string
		routed, own         string
		want                string // "" for nothing
	}{
		"nothing": {clusters: []string{cluster("a")}, listeners: []string{shelvedListener("s", "0", shelvedTCP)},
			lds: discovered(listenerType, shelvedListener("l", "PORT", shelvedTCP), shelvedListener("m", "0", shelvedHCM)), cds: discovered(clusterType, cluster("b")), routed: "b"},
		"a cluster's name": {clusters: []string{cluster("a")}, cds: discovered(clusterType, cluster("a")),
			want: `cds.yaml: "a": the bootstrap has a static cluster of this name`},
		"a listener's name": {clusters: []string{cluster("a")}, listeners: []string{shelvedListener("s", "0", shelvedTCP)},
			lds: discovered(listenerType, shelvedListener("s", "PORT", shelvedTCP)), want: `lds.yaml: "s": the bootstrap has a static listener of this name`},
		"an address twice": {clusters: []string{cluster("a")},
			lds:  discovered(listenerType, shelvedListener("l", "PORT", shelvedTCP), shelvedListener("m", "PORT", shelvedTCP)),
			want: `127.0.0.1:PORT is listener "l"'s`},
		"the bootstrap's address": {clusters: []string{cluster("a")}, listeners: []string{shelvedListener("s", "PORT", shelvedTCP)},
			lds:  discovered(listenerType, shelvedListener("l", "PORT", shelvedTCP)),
			want: `127.0.0.1:PORT is listener "s"'s`},
		"an address twice in the bootstrap": {clusters: []string{cluster("a")},
			listeners: []string{shelvedListener("s", "PORT", shelvedTCP), shelvedListener("t", "PORT", shelvedTCP)},
			want:      `127.0.0.1:PORT is `},
		"a name among endpoints": {clusters: []string{strings.Replace(eds, "SUBSETS ", "", 1)}, cds: discovered(clusterType, cluster("b")),
			eds: `{lb_endpoints: [{endpoint: {address: {socket_address: {address: a.example, port_value: 1}}}}]}`, want: `"a.example" is not an IP address`},
		"endpoints in too many subsets": {clusters: []string{cluster("a")}, cds: discovered(clusterType, strings.Replace(eds, "SUBSETS", "lb_subset_config: {list_as_any: true, subset_selectors: [{keys: [k, m]}]},", 1)),
			eds: `{lb_endpoints: [{metadata: {filter_metadata: {envoy.lb: {k: LONG, m: LONG}}}, endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}`, want: "more than"},
		"the own cluster's endpoints of two priorities": {clusters: []string{strings.Replace(eds, "SUBSETS ", "", 1)}, own: "e", cds: discovered(clusterType, cluster("b")),
			eds: `{priority: 1, lb_endpoints: []}, {lb_endpoints: []}`, want: "localities[0]: priority 1"},
		"the own cluster of two priorities": {clusters: []string{strings.Replace(cluster("a"), "[]", "[{priority: 1, lb_endpoints: []}, {lb_endpoints: []}]", 1)}, own: "a", want: "cluster a: localities[0]: priority 1"},
		"routes to nowhere": {clusters: []string{cluster("a")}, lds: discovered(listenerType, shelvedListener("l", "PORT", shelvedHCM)),
			cds: discovered(clusterType, cluster("b")), routed: "c", want: `rds.yaml: route configuration "r": virtual_hosts[0].routes[0]: there is no cluster "c"`},
		"static routes to nowhere": {clusters: []string{cluster("a")}, listeners: []string{shelvedListener("s", "PORT", shelvedHCM)},
			routed: "c", want: `there is no cluster "c"`},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t, "PORT", strconv.Itoa(port), "LONG", "["+strings.Repeat("a, ", 300)+"a]")
			for file, text := range map[string]string{"lds.yaml": c.lds, "cds.yaml": c.cds, "eds.yaml": `resources: [{TYPE endpoint.v3.ClusterLoadAssignment, cluster_name: svc, endpoints: [` + c.eds + "]}]", "rds.yaml": strings.Replace(shelvedRoutes, "NAME", c.routed, 1)} {
				if text == "" {
					text = "resources: []"
				}
				s.write(file, text)
			}
			b, err := config.ParseBootstrap([]byte(s.fill.Replace(`
node: {id: n1, cluster: c}
cluster_manager: {local_cluster_name: "` + c.own + `"}
dynamic_resources: {cds_config: {path_config_source: {path: DIR/cds.yaml}}, lds_config: {path_config_source: {path: DIR/lds.yaml}}}
static_resources: {clusters: [` + strings.Join(c.clusters, ", ") + `], listeners: [` + strings.Join(c.listeners, ", ") + `]}
`)))
			if err != nil {
				t.Fatal(err)
			}
			for what, err := range map[string]error{"check": Check(b), "start": starts(b)} {
				want := s.fill.Replace(c.want)
				if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
					t.Errorf("%s: %v, want %q", what, err, want)
				}
			}
		})
	}
}

// clustersStreamed has a control plane that has clusters, and the bootstrap of a sidecar that
// has its routes in a file.
func clustersStreamed(t *testing.T, s *shelf, board *adstest.Board) (serve func(), bootstrap string) {
	ln, err := net.Listen("unix", filepath.Join(s.dir, "cp.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, ads.New(ads.Config{Provider: board}))
	t.Cleanup(server.Stop)
	return func() { go func() { _ = server.Serve(ln) }() }, s.fill.Replace(`
node: {id: n1, cluster: c}
dynamic_resources:
  ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: cp}}]}
  cds_config: {ads: {}, resource_api_version: V3}
static_resources:
  listeners: [` + shelvedListener("in", "0", shelvedHCM) + `]
  clusters:
  - name: cp
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: cp, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: DIR/cp.sock}}}}]}]}
`)
}

// TestFilesBeforeTheControlPlane: routes of a file whose clusters a control plane has wait for
// those at the start, and their listener with them; and are tried again when others come.
func TestFilesBeforeTheControlPlane(t *testing.T) {
	port := uint32(application(t).(*net.TCPAddr).Port)
	board := adstest.NewBoard(edsCluster(t, "a"), assignment(t, "a", port))
	s := newShelf(t)
	serve, text := clustersStreamed(t, s, board)
	s.write("rds.yaml", strings.Replace(shelvedRoutes, "NAME", "a", 1))
	b, err := config.ParseBootstrap([]byte(text))
	if err == nil {
		err = Check(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	sc := run(t, text, func(c *Config) { c.WarmUp = time.Minute })
	if sc.Addrs().Listeners["in"] != nil {
		t.Error("the listener does not wait for routes that wait for clusters")
	}
	serve()
	eventually(t, "the listener", func() bool { return sc.Addrs().Listeners["in"] != nil })
	if code, text := call(t, "GET", sc.Addrs().Listeners["in"], "/", ""); code != 200 {
		t.Errorf("%d %s", code, text)
	}
	told := func() bool {
		return strings.Contains(fmt.Sprint((*view)(sc).ConfigDump().(map[string]any)["files"]), `there is no cluster "b"`)
	}
	s.write("rds.yaml", strings.Replace(shelvedRoutes, "{match: {prefix: /}, route: {cluster: NAME}}",
		"{match: {prefix: /}, route: {cluster: a, prefix_rewrite: /new}}, {match: {prefix: /b}, route: {cluster: b}}", 1))
	eventually(t, "the refusal is told", told)
	board.Publish(edsCluster(t, "a"), assignment(t, "a", port), edsCluster(t, "b"), assignment(t, "b", port))
	eventually(t, "the refusal is over", func() bool { return !told() })
	if code, text := call(t, "GET", sc.Addrs().Listeners["in"], "/", ""); code != 200 || !strings.Contains(text, "GET /new") {
		t.Errorf("%d %s", code, text)
	}
}

// TestFilesNobodyHasClustersFor: once a control plane has sent what it has, routes to more than
// that are refused, and not waited for any longer.
func TestFilesNobodyHasClustersFor(t *testing.T) {
	s := newShelf(t)
	serve, text := clustersStreamed(t, s, adstest.NewBoard(edsCluster(t, "a"), assignment(t, "a", 1)))
	s.write("rds.yaml", strings.Replace(shelvedRoutes, "NAME", "b", 1))
	sc := run(t, text, func(c *Config) { c.WarmUp = time.Minute })
	serve()
	eventually(t, "the listener", func() bool { return sc.Addrs().Listeners["in"] != nil })
	if code, text := call(t, "GET", sc.Addrs().Listeners["in"], "/", ""); code != 404 {
		t.Errorf("%d %s", code, text)
	}
}
