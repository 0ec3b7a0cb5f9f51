package sidecar

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/panics/panicstest"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// fakeListeners records what is in force.
type fakeListeners struct {
	inForce map[string]*listener.Config
	steps   []string
	fail    map[string]error
	taken   map[string]error
	unfit   map[string]error
	drains  []*listener.Config
	judged  []string
	held    atomic.Bool
}

func (f *fakeListeners) Judge(c *listener.Config) error {
	f.judged = append(f.judged, c.Name)
	return f.unfit[c.Name]
}

func (f *fakeListeners) Hold() { f.held.Store(true) }
func (f *fakeListeners) Open() { f.held.Store(false) }

func (f *fakeListeners) Draining() []*listener.Config { return f.drains }

func (f *fakeListeners) Check(c *listener.Config) error { return f.unfit[c.Name] }

func (f *fakeListeners) Available(c *listener.Config) error { return f.taken[c.Name] }

func (f *fakeListeners) Replace(remove []string, add []*listener.Config) map[string]error {
	errs := map[string]error{}
	step := ""
	for _, n := range remove {
		delete(f.inForce, n)
		step += "-" + n + " "
	}
	for _, c := range add {
		if err := f.fail[c.Name]; err != nil {
			errs[c.Name] = err
			continue
		}
		f.inForce[c.Name] = c
		step += "+" + c.Name + " "
	}
	f.steps = append(f.steps, strings.TrimSpace(step))
	return errs
}

type fakeSubscriber struct{ names map[string]bool }

func (f *fakeSubscriber) Subscribe(url string, names ...string) {
	for _, n := range names {
		f.names[shortType(url)+" "+n] = true
	}
}

func (f *fakeSubscriber) Unsubscribe(url string, names ...string) {
	for _, n := range names {
		delete(f.names, shortType(url)+" "+n)
	}
}

type rig struct {
	*state
	l      *fakeListeners
	sub    *fakeSubscriber
	wanted []string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return newDialingRig(t, nil)
}

// newDialingRig is one whose clusters open connections with dial.
func newDialingRig(t *testing.T, dial func(ctx context.Context, network, address string) (net.Conn, error)) *rig {
	t.Helper()
	return newResolvingRig(t, dial, nil)
}

func newResolvingRig(t *testing.T, dial func(ctx context.Context, network, address string) (net.Conn, error), names cluster.Resolver) *rig {
	t.Helper()
	r := &rig{
		l:   &fakeListeners{inForce: map[string]*listener.Config{}, fail: map[string]error{}},
		sub: &fakeSubscriber{names: map[string]bool{}},
	}
	m := telemetry.NewMetrics()
	clusters := cluster.NewManager(cluster.Options{Metrics: m, Log: slog.New(slog.DiscardHandler), Dial: dial, Resolver: names, Proven: func() { r.proven() }})
	t.Cleanup(func() { _ = clusters.Close() })
	r.state = newState(&state{
		log: slog.New(slog.DiscardHandler), listeners: r.l, clusters: clusters, metrics: m, warmUp: 10 * time.Second,
		wanted: func(ids []string) { r.wanted = ids },
	})
	t.Cleanup(r.state.stop)
	r.follow(r.sub)
	return r
}

func res(t *testing.T, name string, m proto.Message) *resource.Resource {
	t.Helper()
	r, err := resource.New(name, m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func anyOf(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func adsSource() *corev3.ConfigSource {
	return &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3, ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
}

func address(port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

func edsCluster(t *testing.T, name string) *resource.Resource {
	return res(t, name, &clusterv3.Cluster{
		Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: adsSource()},
	})
}

func assignment(t *testing.T, name string, port uint32) *resource.Resource {
	return res(t, name, &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(port)}}}},
	}}})
}

func tcpListener(t *testing.T, name, cluster string, direction corev3.TrafficDirection) *resource.Resource {
	return res(t, name, &listenerv3.Listener{Name: name, Address: address(0), TrafficDirection: direction, FilterChains: []*listenerv3.FilterChain{{
		Filters: []*listenerv3.Filter{{Name: "tcp", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: anyOf(t, &tcpproxyv3.TcpProxy{
			StatPrefix: "x", ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: cluster},
		})}}},
	}}})
}

func httpListener(t *testing.T, name, routes string) *resource.Resource {
	return httpListenerFrom(t, name, routes, adsSource())
}

func httpListenerFrom(t *testing.T, name, routes string, from *corev3.ConfigSource) *resource.Resource {
	return res(t, name, &listenerv3.Listener{Name: name, Address: address(0), FilterChains: []*listenerv3.FilterChain{{
		Filters: []*listenerv3.Filter{{Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: anyOf(t, &hcmv3.HttpConnectionManager{
			StatPrefix:     "x",
			RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: routes, ConfigSource: from}},
			HttpFilters:    []*hcmv3.HttpFilter{{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: anyOf(t, &routerv3.Router{})}}},
		})}}},
	}}})
}

// ownRoutes is a listener that has its routes itself.
func ownRoutes(t *testing.T, name string, routes *routev3.RouteConfiguration) *resource.Resource {
	return res(t, name, &listenerv3.Listener{Name: name, Address: address(0), FilterChains: []*listenerv3.FilterChain{{
		Filters: []*listenerv3.Filter{{Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: anyOf(t, &hcmv3.HttpConnectionManager{
			StatPrefix:     "own",
			RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes},
			HttpFilters:    []*hcmv3.HttpFilter{{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: anyOf(t, &routerv3.Router{})}}},
		})}}},
	}}})
}

func routeTo(t *testing.T, name, cluster string) *resource.Resource {
	return res(t, name, &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{{
		Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{{
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}}},
		}},
	}}})
}

func (r *rig) put(t *testing.T, rs ...*resource.Resource) {
	t.Helper()
	for _, x := range rs {
		if errs := r.Apply(client.Update{Type: x.Type, Upserts: []*resource.Resource{x}}); len(errs) > 0 {
			t.Fatalf("%s: %v", x.Name, errs)
		}
	}
}

func (r *rig) remove(url string, names ...string) {
	r.Apply(client.Update{Type: url, Removed: names})
}

func (r *rig) active() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(slices.Sorted(maps.Keys(r.l.inForce)), " ")
}

// A listener takes no connection before it can serve it.
func TestWarmUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.put(t, httpListener(t, "l", "r"))
		if r.active() != "" || len(r.pending()) != 1 {
			t.Fatalf("in force before its routes: %q, pending %v", r.active(), r.pending())
		}
		if !r.sub.names["routes r"] {
			t.Error("the routes were not asked for")
		}
		r.put(t, routeTo(t, "r", "c"))
		if r.active() != "" {
			t.Error("in force before its cluster")
		}
		r.put(t, edsCluster(t, "c"))
		if r.active() != "" || !r.sub.names["endpoints c"] {
			t.Errorf("in force before its endpoints, or they were not asked for: %v", r.sub.names)
		}
		r.put(t, assignment(t, "c", 80))
		if r.active() != "l" || len(r.pending()) != 0 {
			t.Errorf("in force: %q, pending %v", r.active(), r.pending())
		}
	})
}

// Routes that were refused are not waited for: the listener may carry a deny.
func TestRefusedRoutesAreNotWaitedFor(t *testing.T) {
	for _, refused := range []string{"here", "before they are read"} {
		t.Run(refused, func(t *testing.T) { testRefusedRoutes(t, refused == "here") })
	}
}

func testRefusedRoutes(t *testing.T, here bool) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), routeTo(t, "r", "c"), httpListener(t, "l", "r"), httpListener(t, "l", "new"))
		if got := r.l.inForce["l"].Chains[0].HTTP.RouteName; got != "r" {
			t.Fatalf("in force before its routes: %s", got)
		}
		r.Apply(client.Update{Type: resource.RouteType, Refused: []string{"other"}})
		if len(r.refusedRoutes) > 0 {
			t.Errorf("nobody asks for %v", r.refusedRoutes)
		}
		bad := res(t, "new", &routev3.RouteConfiguration{Name: "new", VirtualHosts: []*routev3.VirtualHost{{Name: "twice", Domains: []string{"*", "*"}}}})
		update := client.Update{Type: resource.RouteType, Upserts: []*resource.Resource{bad}}
		if !here {
			update = client.Update{Type: resource.RouteType, Refused: []string{"new"}}
		}
		if errs := r.Apply(update); here && errs["new"] == nil {
			t.Fatal("the routes were accepted")
		}
		if got := r.l.inForce["l"].Chains[0].HTTP.RouteName; got != "new" || len(r.warming) > 0 {
			t.Errorf("in force is the listener with routes %s, warming %v", got, r.warming)
		}
		r.put(t, httpListener(t, "l", "r"), routeTo(t, "r", "c"), httpListener(t, "l", "new"))
		if got := r.l.inForce["l"].Chains[0].HTTP.RouteName; got != "r" {
			t.Errorf("what was refused long ago, and may be asked for again, is %s", got)
		}
	})
}

// Waiting has an end: what never comes must not keep a port shut.
func TestWarmUpIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.put(t, httpListener(t, "l", "r"))
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if r.active() != "" {
			t.Error("too early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if r.active() != "l" {
			t.Error("never in force")
		}
	})
}

// An update of a listener in force waits for no cluster: it may carry a deny.
func TestUpdateOfAListenerDoesNotWait(t *testing.T) {
	r := newRig(t)
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), tcpListener(t, "l", "c", corev3.TrafficDirection_INBOUND))
	r.put(t, tcpListener(t, "l", "missing", corev3.TrafficDirection_INBOUND))
	if got := r.l.inForce["l"].Chains[0].TCP.Cluster; got != "missing" {
		t.Errorf("in force is the listener to %q", got)
	}
}

// What is rejected says where, leaves the last good one, and blocks no other.
func TestRejectedResourceLeavesTheLastGood(t *testing.T) {
	r := newRig(t)
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), tcpListener(t, "l", "c", corev3.TrafficDirection_OUTBOUND))
	bad := res(t, "l", &listenerv3.Listener{Name: "l", Address: address(0), FcdsConfig: &listenerv3.Listener_FcdsConfig{}, FilterChains: []*listenerv3.FilterChain{{}}})
	errs := r.Apply(client.Update{Type: resource.ListenerType, Upserts: []*resource.Resource{bad, tcpListener(t, "m", "c", corev3.TrafficDirection_OUTBOUND)}})
	if err := errs["l"]; len(errs) != 1 || err == nil || !strings.Contains(err.Error(), `listener "l": fcds_config: unsupported`) {
		t.Errorf("%v", errs)
	}
	if r.active() != "l m" || r.l.inForce["l"].Chains[0].TCP == nil {
		t.Errorf("in force: %s", r.active())
	}
	r.l.fail["l"] = errors.New("address in use")
	errs = r.Apply(client.Update{Type: resource.ListenerType, Upserts: []*resource.Resource{tcpListener(t, "l", "c", corev3.TrafficDirection_OUTBOUND)}})
	if errs["l"] == nil {
		t.Error("a listener that cannot be bound was accepted")
	}
	// Even one that would still wait for its cluster.
	r.l.taken = map[string]error{"new": errors.New("address in use")}
	errs = r.Apply(client.Update{Type: resource.ListenerType, Upserts: []*resource.Resource{tcpListener(t, "new", "absent", corev3.TrafficDirection_OUTBOUND)}})
	if errs["new"] == nil || len(r.warming) > 0 {
		t.Errorf("a listener whose address is taken was accepted: %v, warming %v", errs, r.warming)
	}
	badCluster := res(t, "c", &clusterv3.Cluster{Name: "c", LbPolicy: clusterv3.Cluster_LOAD_BALANCING_POLICY_CONFIG})
	if errs := r.Apply(client.Update{Type: resource.ClusterType, Upserts: []*resource.Resource{badCluster}}); errs["c"] == nil {
		t.Error("a cluster whose policy is nowhere was accepted")
	}
	if c := r.clusters.Get("c"); c == nil || c.Config().Type != cluster.EDS || len(c.Stats()) != 1 {
		t.Error("the last good cluster is not in force")
	}
}

// A fault while a cluster is put in force refuses that cluster, and blocks no other.
func TestFaultOfAnUpdate(t *testing.T) {
	panicstest.Expect(t, panics.Configuration, 1)
	r := newRig(t)
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80))
	good := r.clusters.Get("c").Config()
	r.checkTLS = func(cfg *cluster.Config) error {
		if cfg.Name == "c" {
			panic("TLS")
		}
		return nil
	}
	errs := r.Apply(client.Update{Type: resource.ClusterType, Upserts: []*resource.Resource{edsCluster(t, "c"), edsCluster(t, "d")}})
	if len(errs) != 1 || errs["c"] == nil || r.clusters.Get("d") == nil {
		t.Errorf("%v", errs)
	}
	if r.clusters.Get("c").Config() != good || len(r.clusters.Get("c").Stats()) != 1 {
		t.Error("the last good cluster is not in force")
	}
	r.put(t, assignment(t, "d", 80)) // no lock is held
}

// manyStages are endpoints that are in more subsets than a cluster with list_as_any takes.
func manyStages(t *testing.T, name string) *resource.Resource {
	list := make([]any, 2000)
	for i := range list {
		list[i] = strconv.Itoa(i)
	}
	stages, err := structpb.NewStruct(map[string]any{"stage": list})
	if err != nil {
		t.Fatal(err)
	}
	many := &endpointv3.ClusterLoadAssignment{}
	if err := assignment(t, name, 80).Body.UnmarshalTo(many); err != nil {
		t.Fatal(err)
	}
	many.Endpoints[0].LbEndpoints[0].Metadata = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"envoy.lb": stages}}
	return res(t, name, many)
}

// unfitCluster is one that does not take manyStages.
func unfitCluster(t *testing.T, name, service string) *resource.Resource {
	return res(t, name, &clusterv3.Cluster{
		Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: adsSource(), ServiceName: service},
		LbSubsetConfig: &clusterv3.Cluster_LbSubsetConfig{ListAsAny: true, SubsetSelectors: []*clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector{{
			Keys: []string{"stage"}}}},
	})
}

// A cluster that cannot have the endpoints it asks for is not in force, and the one before
// it is.
func TestClusterUnfitForItsEndpoints(t *testing.T) {
	r := newRig(t)
	r.put(t, edsCluster(t, "s"), manyStages(t, "s"), edsCluster(t, "c"), assignment(t, "c", 80))
	for _, name := range []string{"c", "new"} {
		unfit := unfitCluster(t, name, "s")
		if errs := r.Apply(client.Update{Type: resource.ClusterType, Upserts: []*resource.Resource{unfit}}); errs[name] == nil || !strings.Contains(errs[name].Error(), "list_as_any") {
			t.Errorf("%s: %v", name, errs)
		}
	}
	if c := r.clusters.Get("c"); c.Config().Subsets != nil || len(c.Stats()) != 1 || c.Stats()[0].Address != "127.0.0.1:80" || !r.sub.names["endpoints c"] {
		t.Error("the last good cluster is not in force")
	}
	if r.clusters.Get("new") != nil || r.known("new") {
		t.Error("a refused cluster is in force")
	}
}

// A cluster that a listener in force still names goes only after the listener:
// nothing on the way may answer 503.
func TestRemovedClusterStaysWhileNamed(t *testing.T) {
	r := newRig(t)
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), routeTo(t, "r", "c"), httpListener(t, "l", "r"))
	r.remove(resource.ClusterType, "c")
	if r.clusters.Get("c") == nil {
		t.Fatal("the cluster went before the routes that name it")
	}
	r.put(t, edsCluster(t, "d"), assignment(t, "d", 81), routeTo(t, "r", "d"))
	if r.clusters.Get("c") != nil || r.sub.names["endpoints c"] {
		t.Error("the cluster stayed after nothing named it")
	}
	r.remove(resource.ListenerType, "l")
	if r.active() != "" || r.sub.names["routes r"] || r.routes.get("r") != nil {
		t.Errorf("left behind: %s %v", r.active(), r.sub.names)
	}
}

// A removed listener goes on answering what is on its way: that needs its routes and its
// clusters until its last connection has ended.
func TestRemovedClusterStaysWhileItsListenerDrains(t *testing.T) {
	r := newRig(t)
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), routeTo(t, "r", "c"), httpListener(t, "l", "r"))
	r.l.drains = []*listener.Config{r.l.inForce["l"]}
	r.remove(resource.ListenerType, "l")
	r.remove(resource.ClusterType, "c")
	if r.clusters.Get("c") == nil || len(r.clusters.Get("c").Stats()) != 1 || r.routes.get("r") == nil {
		t.Fatal("the cluster and the routes went before the connections")
	}
	r.l.drains = nil
	r.drained()
	if r.clusters.Get("c") != nil || r.routes.get("r") != nil || len(r.sub.names) > 0 {
		t.Errorf("left behind: %v", r.sub.names)
	}
}

// A cluster that comes back keeps the endpoints it had.
func TestEndpointsSurviveTheirUpdate(t *testing.T) {
	r := newRig(t)
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80))
	r.remove(resource.EndpointType, "c")
	r.put(t, edsCluster(t, "c"))
	if n := len(r.clusters.Get("c").Stats()); n != 1 {
		t.Errorf("%d hosts", n)
	}
}

// One change moves a listener's address to another listener's name.
func TestListenersAreReplacedInOneStep(t *testing.T) {
	r := newRig(t)
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), tcpListener(t, "a", "c", corev3.TrafficDirection_OUTBOUND))
	r.Apply(client.Update{Type: resource.ListenerType, Removed: []string{"a"}, Upserts: []*resource.Resource{tcpListener(t, "b", "c", corev3.TrafficDirection_OUTBOUND)}})
	if got := r.l.steps[len(r.l.steps)-1]; got != "-a +b" {
		t.Errorf("last step %q", got)
	}
}

func TestDrainInbound(t *testing.T) {
	r := newRig(t)
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80),
		tcpListener(t, "in", "c", corev3.TrafficDirection_INBOUND), tcpListener(t, "out", "c", corev3.TrafficDirection_OUTBOUND))
	r.drainInbound()
	if r.active() != "out" {
		t.Errorf("in force: %s", r.active())
	}
	r.put(t, tcpListener(t, "in", "c", corev3.TrafficDirection_INBOUND))
	if r.active() != "out" {
		t.Error("an inbound listener came back during the drain")
	}
	if !slices.Equal(r.l.judged, []string{"in"}) {
		t.Errorf("what it serves is judged by %q", r.l.judged)
	}
}

func TestAccessLogOfTheSidecar(t *testing.T) {
	r := newRig(t)
	r.accessLog = &telemetry.AccessLogConfig{Path: "/x", JSON: true}
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), tcpListener(t, "l", "c", corev3.TrafficDirection_OUTBOUND))
	l := r.l.inForce["l"]
	if len(l.RefusedLog) != 1 || len(l.AccessLog) != 0 || len(l.Chains[0].TCP.AccessLog) != 1 || !l.Chains[0].TCP.AccessLog[0].JSON {
		t.Errorf("%+v", l)
	}
}
