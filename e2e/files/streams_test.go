//go:build e2e

package files

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	gcpcache "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"google.golang.org/grpc"

	"github.com/hauberk-mesh/hauberk/internal/ports"
	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// services are go-control-plane's of each type alone.
var services = map[string][3]string{
	resource.ClusterType:  {"envoy.service.cluster.v3.ClusterDiscoveryService", "StreamClusters", "DeltaClusters"},
	resource.EndpointType: {"envoy.service.endpoint.v3.EndpointDiscoveryService", "StreamEndpoints", "DeltaEndpoints"},
	resource.ListenerType: {"envoy.service.listener.v3.ListenerDiscoveryService", "StreamListeners", "DeltaListeners"},
	resource.RouteType:    {"envoy.service.route.v3.RouteDiscoveryService", "StreamRoutes", "DeltaRoutes"},
}

type everybody struct{}

func (everybody) ID(*corev3.Node) string { return "all" }

// manager is a management server that can be away.
type manager struct {
	cache  gcpcache.SnapshotCache
	sotw   sotw.Server
	delta  delta.Server
	port   int
	server *grpc.Server
	n      int

	mu     sync.Mutex
	opened map[string]bool
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{cache: gcpcache.NewSnapshotCache(false, everybody{}, nil), opened: map[string]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	m.sotw, m.delta = sotw.NewServer(ctx, m.cache, nil), delta.NewServer(ctx, m.cache, nil)
	var err error
	if m.port, err = ports.Free("127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	m.start(t)
	t.Cleanup(func() { m.server.Stop() })
	return m
}

func (m *manager) start(t *testing.T) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(m.port))
	if err != nil {
		t.Fatal(err)
	}
	m.server = grpc.NewServer(grpc.StreamInterceptor(func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		m.mu.Lock()
		m.opened[path.Base(info.FullMethod)] = true
		m.mu.Unlock()
		return next(srv, s)
	}))
	for url, names := range services {
		m.server.RegisterService(&grpc.ServiceDesc{ServiceName: names[0], HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{
			{StreamName: names[1], ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
				return m.sotw.StreamHandler(&grpc.GenericServerStream[discoveryv3.DiscoveryRequest, discoveryv3.DiscoveryResponse]{ServerStream: s}, url)
			}},
			{StreamName: names[2], ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
				return m.delta.DeltaStreamHandler(&grpc.GenericServerStream[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]{ServerStream: s}, url)
			}},
		}}, m)
	}
	server := m.server
	go func() { _ = server.Serve(ln) }()
}

// publish has everybody sent what files of these texts would have.
func (m *manager) publish(t *testing.T, fill func(string) string, texts map[string]string) {
	t.Helper()
	m.n++
	all := map[string][]types.Resource{}
	for url, text := range texts {
		found, err := config.ResourceFile([]byte(fill(text)), url)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for _, r := range found {
			body, err := r.Body.UnmarshalNew()
			if err != nil {
				t.Fatal(err)
			}
			all[url] = append(all[url], body)
		}
	}
	snap, err := gcpcache.NewSnapshot(strconv.Itoa(m.n), all)
	if err == nil {
		err = m.cache.SetSnapshot(t.Context(), "all", snap)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (m *manager) streams() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(slices.Sorted(maps.Keys(m.opened)), " ")
}

// from is a source that has a stream of its own.
func from(api, cluster, more string) string {
	return "{resource_api_version: V3, " + more + "api_config_source: {api_type: " + api + ", transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: " + cluster + "}}]}}"
}

// TestStreamsBesideEnvoy: what comes by a stream of each type, from two servers, has the same
// outcome at both, in whatever order it comes, and so has that they are away.
func TestStreamsBesideEnvoy(t *testing.T) {
	t.Parallel()
	var origins [2]int
	for i, name := range []string{"one", "two"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }))
		t.Cleanup(s.Close)
		origins[i] = s.Listener.Addr().(*net.TCPAddr).Port
	}
	carrier := func(name string, port int) string {
		return fmt.Sprintf(`  - {name: %s, connect_timeout: 1s, load_assignment: {cluster_name: %[1]s, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]},
      typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}}
`, name, port)
	}
	const path = "{path_config_source: {path: DIR/"
	own := strings.NewReplacer(path+"rds.yaml}}", from("GRPC", "far", ""))
	clustersOf := func(names ...string) string {
		out := clusters(names...)
		for _, n := range names {
			out = strings.ReplaceAll(out, path+n+".yaml}}", from("DELTA_GRPC", "far", ""))
		}
		return out
	}
	listenersOf := func(names ...string) string { return own.Replace(listeners(names...)) }
	hosts := func(a, b string) string {
		first, second := strings.TrimSuffix(endpoints("a", a), "]"), strings.TrimPrefix(endpoints("b", b), "resources: [")
		return first + ", " + second
	}
	for _, name := range []string{"hauberk", "envoy"} {
		t.Run(name, func(t *testing.T) {
			near, far := newManager(t), newManager(t)
			p := prepare(t, name, origins)
			fill := p.fill
			near.publish(t, fill, map[string]string{resource.ClusterType: clustersOf("a"), resource.ListenerType: listenersOf("FIRST")})
			far.publish(t, fill, map[string]string{resource.EndpointType: hosts("ONE", "TWO"), resource.RouteType: routes("a")})
			p.run(t, map[string]string{"envoy.yaml": "node: {id: edge-1, cluster: edge}\ndynamic_resources:\n  lds_config: " + from("GRPC", "near", "") +
				"\n  cds_config: " + from("GRPC", "near", "") + "\nstatic_resources:\n  clusters:\n" + carrier("near", near.port) + carrier("far", far.port)})
			p.answers(t, "the start", [2]string{"200 one", "refused"})
			if got := near.streams() + ", " + far.streams(); got != "StreamClusters StreamListeners, DeltaEndpoints StreamRoutes" {
				t.Errorf("streams: %s", got)
			}
			for _, step := range []struct {
				name string
				near map[string]string
				far  map[string]string
				away bool
				want [2]string
			}{
				{name: "other endpoints", far: map[string]string{resource.EndpointType: hosts("TWO", "ONE"), resource.RouteType: routes("a")}, want: [2]string{"200 two", "refused"}},
				{name: "routes to a cluster that is not there", far: map[string]string{resource.EndpointType: hosts("TWO", "ONE"), resource.RouteType: routes("b")}, want: [2]string{"503 ", "refused"}},
				{name: "the cluster", near: map[string]string{resource.ClusterType: clustersOf("a", "b"), resource.ListenerType: listenersOf("FIRST")}, want: [2]string{"200 one", "refused"}},
				{name: "a second listener", near: map[string]string{resource.ClusterType: clustersOf("a", "b"), resource.ListenerType: listenersOf("FIRST", "SECOND")}, want: [2]string{"200 one", "200 one"}},
				{name: "both away", away: true, want: [2]string{"200 one", "200 one"}},
				{name: "back with other routes", far: map[string]string{resource.EndpointType: hosts("TWO", "ONE"), resource.RouteType: routes("a")}, want: [2]string{"200 two", "200 two"}},
				{name: "a listener that is refused", near: map[string]string{resource.ClusterType: clustersOf("a", "b"), resource.ListenerType: strings.Replace(listenersOf("FIRST"), "stat_prefix: in", `stat_prefix: ""`, 1)}, want: [2]string{"200 two", "refused"}},
				{name: "routes that do not come", near: map[string]string{resource.ClusterType: clustersOf("a", "b"), resource.ListenerType: listenersOf("FIRST") +
					strings.TrimPrefix(strings.NewReplacer("route_config_name: r", "route_config_name: none", path+"rds.yaml}}", from("GRPC", "far", "initial_fetch_timeout: 0.1s, ")).Replace(listeners("SECOND")), "resources:\n")},
					want: [2]string{"200 two", "404 "}},
				{name: "a cluster that is gone", near: map[string]string{resource.ClusterType: clustersOf("b"), resource.ListenerType: listenersOf("SECOND")},
					far: map[string]string{resource.EndpointType: hosts("TWO", "ONE"), resource.RouteType: routes("b")}, want: [2]string{"refused", "200 one"}},
			} {
				if step.near != nil {
					near.publish(t, fill, step.near)
				}
				if step.far != nil {
					far.publish(t, fill, step.far)
				}
				if step.away {
					near.server.Stop()
					far.server.Stop()
				}
				p.answers(t, step.name, step.want)
				if step.away {
					near.start(t)
					far.start(t)
				}
			}
		})
	}
}
