package sidecar

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	clusterservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	listenerservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/listener/v3"
	routeservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	gcpcache "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	gcpresource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/discovery"
	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// manager is go-control-plane with a service for each type, and one for all.
type manager struct {
	clusterservicev3.UnimplementedClusterDiscoveryServiceServer
	endpointservicev3.UnimplementedEndpointDiscoveryServiceServer
	listenerservicev3.UnimplementedListenerDiscoveryServiceServer
	routeservicev3.UnimplementedRouteDiscoveryServiceServer
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	cache  gcpcache.SnapshotCache
	sotw   sotw.Server
	delta  delta.Server
	socket string
	server *grpc.Server

	mu      sync.Mutex
	n       int
	streams []string // that were opened, by method, with what they say
}

type anyNode struct{}

func (anyNode) ID(*corev3.Node) string { return "all" }

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{cache: gcpcache.NewSnapshotCache(false, anyNode{}, nil), socket: filepath.Join(t.TempDir(), "cp.sock")}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	m.sotw, m.delta = sotw.NewServer(ctx, m.cache, nil), delta.NewServer(ctx, m.cache, nil)
	m.start(t)
	t.Cleanup(func() { m.server.Stop() })
	return m
}

func (m *manager) start(t *testing.T) {
	t.Helper()
	ln, err := net.Listen("unix", m.socket)
	if err != nil {
		t.Fatal(err)
	}
	m.server = grpc.NewServer(grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		md, _ := metadata.FromIncomingContext(ss.Context())
		m.mu.Lock()
		m.streams = append(m.streams, info.FullMethod[strings.LastIndex(info.FullMethod, "/")+1:]+strings.Join(md["token"], ""))
		m.mu.Unlock()
		return next(srv, ss)
	}))
	clusterservicev3.RegisterClusterDiscoveryServiceServer(m.server, m)
	endpointservicev3.RegisterEndpointDiscoveryServiceServer(m.server, m)
	listenerservicev3.RegisterListenerDiscoveryServiceServer(m.server, m)
	routeservicev3.RegisterRouteDiscoveryServiceServer(m.server, m)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(m.server, m)
	server := m.server
	go func() { _ = server.Serve(ln) }()
}

func (m *manager) StreamClusters(s clusterservicev3.ClusterDiscoveryService_StreamClustersServer) error {
	return m.sotw.StreamHandler(s, gcpresource.ClusterType)
}

func (m *manager) DeltaClusters(s clusterservicev3.ClusterDiscoveryService_DeltaClustersServer) error {
	return m.delta.DeltaStreamHandler(s, gcpresource.ClusterType)
}

func (m *manager) StreamEndpoints(s endpointservicev3.EndpointDiscoveryService_StreamEndpointsServer) error {
	return m.sotw.StreamHandler(s, gcpresource.EndpointType)
}

func (m *manager) DeltaEndpoints(s endpointservicev3.EndpointDiscoveryService_DeltaEndpointsServer) error {
	return m.delta.DeltaStreamHandler(s, gcpresource.EndpointType)
}

func (m *manager) StreamListeners(s listenerservicev3.ListenerDiscoveryService_StreamListenersServer) error {
	return m.sotw.StreamHandler(s, gcpresource.ListenerType)
}

func (m *manager) DeltaListeners(s listenerservicev3.ListenerDiscoveryService_DeltaListenersServer) error {
	return m.delta.DeltaStreamHandler(s, gcpresource.ListenerType)
}

func (m *manager) StreamRoutes(s routeservicev3.RouteDiscoveryService_StreamRoutesServer) error {
	return m.sotw.StreamHandler(s, gcpresource.RouteType)
}

func (m *manager) DeltaRoutes(s routeservicev3.RouteDiscoveryService_DeltaRoutesServer) error {
	return m.delta.DeltaStreamHandler(s, gcpresource.RouteType)
}

func (m *manager) StreamAggregatedResources(s discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return m.sotw.StreamHandler(s, gcpresource.AnyType)
}

func (m *manager) DeltaAggregatedResources(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return m.delta.DeltaStreamHandler(s, gcpresource.AnyType)
}

func (m *manager) publish(t *testing.T, rs ...*resource.Resource) {
	t.Helper()
	byType := map[string][]types.Resource{}
	for _, r := range rs {
		msg, err := r.Body.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		byType[r.Type] = append(byType[r.Type], msg)
	}
	m.mu.Lock()
	m.n++
	snap, err := gcpcache.NewSnapshot(fmt.Sprint(m.n), byType)
	m.mu.Unlock()
	if err == nil {
		err = m.cache.SetSnapshot(t.Context(), "all", snap)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// opened are the streams so far, each once.
func (m *manager) opened() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(m.streams))), " ")
}

// ownSource is a service of one type.
func ownSource(api corev3.ApiConfigSource_ApiType, cluster, token string) *corev3.ConfigSource {
	service := &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: cluster}}}
	if token != "" {
		service.InitialMetadata = []*corev3.HeaderValue{{Key: "token", Value: token}}
	}
	return &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3, ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{
		ApiConfigSource: &corev3.ApiConfigSource{ApiType: api, TransportApiVersion: corev3.ApiVersion_V3, GrpcServices: []*corev3.GrpcService{service}}}}
}

func edsFrom(t *testing.T, name string, from *corev3.ConfigSource) *resource.Resource {
	return res(t, name, &clusterv3.Cluster{
		Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: from},
	})
}

// carrier is a static cluster of a control plane.
func carrier(name, socket string) string {
	return `  - {name: ` + name + `, load_assignment: {cluster_name: ` + name + `, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: "` + socket + `"}}}}]}]},
      typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}}
`
}

func grpcSource(api, cluster, more string) string {
	return `{resource_api_version: V3, ` + more + `api_config_source: {api_type: ` + api + `, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: ` + cluster + `}}]}}`
}

func portOf(a net.Addr) uint32 { return uint32(a.(*net.TCPAddr).Port) }

// Each type comes by a stream of its own, from servers that know nothing of each other; what
// was accepted stays in force while they are away, and what they say then counts.
func TestStreamOfEachType(t *testing.T) {
	for _, api := range []corev3.ApiConfigSource_ApiType{corev3.ApiConfigSource_GRPC, corev3.ApiConfigSource_DELTA_GRPC} {
		t.Run(api.String(), func(t *testing.T) {
			app, other := application(t), application(t)
			one, two := newManager(t), newManager(t)
			own := func(cluster, token string) *corev3.ConfigSource { return ownSource(api, cluster, token) }
			one.publish(t, edsFrom(t, "a", own("two", "")), httpListenerFrom(t, "in", "r", own("two", "-secret")))
			two.publish(t, assignment(t, "a", portOf(app)), routeTo(t, "r", "a"), assignment(t, "b", portOf(other)), edsFrom(t, "unasked", own("two", "")))
			s := run(t, "node: {id: n1, cluster: c}\ndynamic_resources:\n  lds_config: "+grpcSource(api.String(), "one", "")+
				"\n  cds_config: "+grpcSource(api.String(), "one", "")+"\nstatic_resources:\n  clusters:\n"+carrier("one", one.socket)+carrier("two", two.socket))
			answers := func(what, want string) {
				t.Helper()
				eventually(t, what, func() bool {
					in := s.Addrs().Listeners["in"]
					if in == nil {
						return false
					}
					code, text := call(t, "GET", in, "/x", "")
					return strings.HasPrefix(fmt.Sprint(code, " ", text), want)
				})
			}
			answers("the first", "200")
			eventually(t, "ready", func() bool { ok, _ := s.Ready(); return ok })
			kind := map[corev3.ApiConfigSource_ApiType]string{corev3.ApiConfigSource_GRPC: "Stream", corev3.ApiConfigSource_DELTA_GRPC: "Delta"}[api]
			if got, want := one.opened(), kind+"Clusters "+kind+"Listeners"; got != want {
				t.Errorf("the first server has %s, want %s", got, want)
			}
			if got, want := two.opened(), kind+"Endpoints "+kind+"Routes-secret"; got != want {
				t.Errorf("the second server has %s, want %s", got, want)
			}
			dump, err := json.Marshal((*view)(s).ConfigDump())
			if err != nil || strings.Contains(string(dump), "-secret") || !strings.Contains(string(dump), "stream:two/") {
				t.Errorf("the token is shown, or nothing is: %v %s", err, dump)
			}
			// Another cluster, whose endpoints come by the other server.
			one.publish(t, edsFrom(t, "a", own("two", "")), edsFrom(t, "b", own("two", "")), httpListenerFrom(t, "in", "r", own("two", "-secret")))
			two.publish(t, assignment(t, "a", portOf(app)), routeTo(t, "r", "b"), assignment(t, "b", portOf(other)))
			eventually(t, "the second cluster", func() bool {
				c := s.clusters.Get("b")
				return c != nil && len(c.Stats()) == 1
			})
			answers("the second", "200")
			// Both are away.
			one.server.Stop()
			two.server.Stop()
			eventually(t, "not connected", func() bool { return !s.status().Connected })
			answers("while they are away", "200")
			two.publish(t, assignment(t, "a", portOf(app)), routeTo(t, "r", "none"), assignment(t, "b", portOf(other)))
			two.start(t)
			answers("what it says then", "503")
			one.publish(t)
			one.start(t)
			eventually(t, "connected", func() bool { return s.status().Connected })
			eventually(t, "the listener goes", func() bool { return s.Addrs().Listeners["in"] == nil })
			eventually(t, "its streams end", func() bool { return len(s.streams.Status()) == 0 })
		})
	}
}

// Clusters by the aggregated stream, their endpoints by one of their own, routes of a static
// listener by another, and none else.
func TestStreamsBesideADS(t *testing.T) {
	app := application(t)
	one, two := newManager(t), newManager(t)
	one.publish(t, edsFrom(t, "a", ownSource(corev3.ApiConfigSource_DELTA_GRPC, "two", "")))
	two.publish(t, assignment(t, "a", portOf(app)), routeTo(t, "r", "a"))
	s := run(t, `
node: {id: n1, cluster: c}
dynamic_resources:
  ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: one}}]}
  cds_config: {ads: {}, resource_api_version: V3}
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          rds: {route_config_name: r, config_source: `+grpcSource("GRPC", "two", "")+`}
          http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
  clusters:
`+carrier("one", one.socket)+carrier("two", two.socket))
	eventually(t, "the listener", func() bool { return s.Addrs().Listeners["in"] != nil })
	if code, text := call(t, "GET", s.Addrs().Listeners["in"], "/x", ""); code != 200 {
		t.Errorf("%d %s", code, text)
	}
	eventually(t, "ready", func() bool { ok, _ := s.Ready(); return ok })
	if got := one.opened() + ", " + two.opened(); got != "StreamAggregatedResources, DeltaEndpoints StreamRoutes" {
		t.Errorf("streams: %s", got)
	}
}

// A resource whose source is no static cluster of the bootstrap is refused, and so is one
// that would come in plaintext over a network.
func TestNoSuchService(t *testing.T) {
	one := newManager(t)
	refused := edsFrom(t, "refused", ownSource(corev3.ApiConfigSource_GRPC, "unknown", ""))
	one.publish(t, refused, edsFrom(t, "far", ownSource(corev3.ApiConfigSource_GRPC, "far-away", "")), edsFrom(t, "aggregated", adsSource()),
		edsFrom(t, "loop", ownSource(corev3.ApiConfigSource_GRPC, "a", "")),
		edsFrom(t, "a", ownSource(corev3.ApiConfigSource_GRPC, "one", "")), httpListenerFrom(t, "in", "r", ownSource(corev3.ApiConfigSource_GRPC, "unknown", "")))
	s := run(t, "node: {id: n1, cluster: c}\ndynamic_resources:\n  lds_config: "+grpcSource("DELTA_GRPC", "one", "")+
		"\n  cds_config: "+grpcSource("DELTA_GRPC", "one", "")+"\nstatic_resources:\n  clusters:\n"+carrier("one", one.socket)+
		`  - {name: far-away, load_assignment: {cluster_name: far-away, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 192.0.2.1, port_value: 1}}}}]}]}}`)
	reasons := func() map[string]string {
		out := map[string]string{}
		for _, b := range s.baseStreams() {
			for _, ts := range b.Status().Types {
				for name, why := range ts.Rejected {
					out[name] = why
				}
			}
		}
		return out
	}
	eventually(t, "refused", func() bool { return len(reasons()) == 5 })
	for name, want := range map[string]string{
		"refused": `eds_cluster_config.eds_config: cluster "unknown": ` + config.ErrServer.Error(), "far": "plaintext over a network",
		"aggregated": "there is no dynamic_resources.ads_config", "loop": `cluster "a": ` + config.ErrServer.Error(),
		"in": `rds.config_source: cluster "unknown": ` + config.ErrServer.Error(),
	} {
		if got := reasons()[name]; !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if s.clusters.Get("a") == nil {
		t.Error("what is right is not in force")
	}
}

// Listeners and routes are asked for after clusters have come, or have not for as long as
// their source says: routes that are to be validated would be refused before.
func TestClustersComeFirst(t *testing.T) {
	one, two := newManager(t), newManager(t)
	two.publish(t, httpListenerFrom(t, "in", "r", ownSource(corev3.ApiConfigSource_GRPC, "two", "")), res(t, "r", &routev3.RouteConfiguration{Name: "r"}))
	one.server.Stop()
	start := time.Now()
	s := run(t, "node: {id: n1, cluster: c}\ndynamic_resources:\n  lds_config: "+grpcSource("GRPC", "two", "")+
		"\n  cds_config: "+grpcSource("GRPC", "one", "initial_fetch_timeout: 0.3s, ")+"\nstatic_resources:\n  clusters:\n"+carrier("one", one.socket)+carrier("two", two.socket))
	if ok, why := s.Ready(); ok || !strings.Contains(why, "waiting for the first configuration") {
		t.Errorf("ready %v: %s", ok, why)
	}
	eventually(t, "ready without clusters", func() bool { ok, _ := s.Ready(); return ok })
	if took := time.Since(start); took < 300*time.Millisecond || two.opened() != "StreamListeners StreamRoutes" {
		t.Errorf("after %v: %s", took, two.opened())
	}
	one.publish(t, staticCluster(t, "late", 80))
	one.start(t)
	eventually(t, "the cluster", func() bool { return s.clusters.Get("late") != nil })
}

// What came on a stream and waits for its turn is not applied once nobody asks for it any
// more: another stream may have had its cluster removed meanwhile.
func TestDroppedWhileItWaits(t *testing.T) {
	r := newRig(t)
	var own *ownStream
	r.state.sub.streams = newStreams(&streams{
		usable: func(*discovery.Stream) error { return nil }, apply: r.state.applyLive, log: r.log,
		open: func(_ *discovery.Stream, url string, h client.Handler) (*client.Client, error) {
			own = h.(*ownStream)
			return client.New(client.Config{Type: url, Handler: h, Node: client.Node{ID: "n"}, Servers: []client.Server{{
				Dial: func(context.Context) (grpc.ClientConnInterface, error) { return nil, nil }}}})
		},
	})
	send := func() map[string]error {
		return own.Apply(client.Update{Type: resource.EndpointType, Upserts: []*resource.Resource{assignment(t, "a", 80)}})
	}
	asked := edsFrom(t, "a", ownSource(corev3.ApiConfigSource_GRPC, "one", ""))
	r.put(t, asked)
	if errs := send(); len(errs) > 0 || len(r.assignments) != 1 {
		t.Fatal(errs, r.assignments)
	}
	before := own
	r.remove(resource.ClusterType, "a")
	if errs := send(); len(errs) > 0 || len(r.assignments) != 0 {
		t.Error("what nobody asks for is taken:", errs, r.assignments)
	}
	r.put(t, asked)
	if own == before {
		t.Fatal("the stream did not end")
	}
	own, before = before, own
	if send(); len(r.assignments) != 0 {
		t.Error("a stream that ended is listened to")
	}
	own = before
	if send(); len(r.assignments) != 1 {
		t.Error("the new one is not")
	}
}

// What streams of each type have sent is there at a start without their servers.
func TestStreamsAreKept(t *testing.T) {
	app := application(t)
	one := newManager(t)
	own := ownSource(corev3.ApiConfigSource_DELTA_GRPC, "one", "")
	one.publish(t, edsFrom(t, "a", own), httpListenerFrom(t, "in", "r", own), assignment(t, "a", portOf(app)), routeTo(t, "r", "a"))
	dir := t.TempDir()
	start := func(t *testing.T) *Sidecar {
		return run(t, "node: {id: n1, cluster: c}\ndynamic_resources:\n  lds_config: "+grpcSource("GRPC", "one", "")+
			"\n  cds_config: "+grpcSource("GRPC", "one", "")+"\nstatic_resources:\n  clusters:\n"+carrier("one", one.socket), func(c *Config) { c.StateDir = dir })
	}
	answers := func(t *testing.T, s *Sidecar) {
		t.Helper()
		eventually(t, "an answer", func() bool {
			in := s.Addrs().Listeners["in"]
			if in == nil {
				return false
			}
			code, _ := call(t, "GET", in, "/x", "")
			return code == 200
		})
	}
	t.Run("before", func(t *testing.T) {
		s := start(t)
		answers(t, s)
		eventually(t, "all is there", func() bool { return s.status().Synced }) // so it is written at the end
	})
	one.server.Stop()
	s := start(t)
	answers(t, s)
	// A stream says so once all that it kept is in force, which serves meanwhile.
	eventually(t, "ready with what was kept", func() bool {
		ok, _ := s.Ready()
		return ok && s.status().FromCache
	})
}

// A control plane that has no clusters says so with an empty response: routes of a file that
// are to be validated are refused then, and nobody waits for them any more.
func TestNoClustersAtAll(t *testing.T) {
	one := newManager(t)
	one.publish(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"lds.yaml": `resources: [{"@type": type.googleapis.com/envoy.config.listener.v3.Listener, name: in, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, filter_chains: [{filters: [{name: hcm, typed_config: {
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in,
      rds: {route_config_name: r, config_source: {path: ` + dir + `/rds.yaml}},
      http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}]`,
		"rds.yaml": `resources: [{"@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration, name: r, validate_clusters: true, virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: none}}]}]}]`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := run(t, "node: {id: n1, cluster: c}\ndynamic_resources:\n  lds_config: {path_config_source: {path: "+dir+"/lds.yaml}}"+
		"\n  cds_config: "+grpcSource("DELTA_GRPC", "one", "")+"\nstatic_resources:\n  clusters:\n"+carrier("one", one.socket),
		func(c *Config) { c.WarmUp = time.Hour })
	eventually(t, "the listener", func() bool { return s.Addrs().Listeners["in"] != nil })
}

// Readiness waits for the first answers of the aggregated stream, unless the sources of all
// that it has say for how long.
func TestReadyWithoutAnswers(t *testing.T) {
	for cds, want := range map[string]bool{"{ads: {}, initial_fetch_timeout: 0.05s}": true, "{ads: {}}": false, "{ads: {}, initial_fetch_timeout: 0s}": false} {
		s := run(t, "node: {id: n1, cluster: c}\ndynamic_resources:\n  lds_config: {ads: {}, initial_fetch_timeout: 0.1s}\n  cds_config: "+cds+
			"\n  ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: one}}]}\nstatic_resources:\n  clusters:\n"+carrier("one", filepath.Join(t.TempDir(), "none")))
		eventually(t, "a stream", func() bool { return len(s.baseStreams()) == 1 })
		if b := s.baseStreams()[0]; b.until.IsZero() == want {
			t.Errorf("%s: waits until %v", cds, b.until)
		}
		if want {
			eventually(t, "ready", func() bool { ok, _ := s.Ready(); return ok })
		} else if ok, why := s.Ready(); ok || !strings.Contains(why, "waiting for the first configuration") {
			t.Errorf("%s: ready %v, %s", cds, ok, why)
		}
	}
}
