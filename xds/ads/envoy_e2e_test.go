//go:build e2e

package ads

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/hauberk-mesh/hauberk/xds/bootstrap"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// envoy is a real Envoy with our ADS server behind its agent socket.
type envoy struct {
	t     *testing.T
	srv   *Server
	board *board
	admin http.Client
}

func startEnvoy(t *testing.T, sotw bool, rs []*resource.Resource) *envoy {
	t.Helper()
	bin := os.Getenv("ENVOY_BIN")
	if bin == "" {
		bin = "/opt/envoy-venv/bin/envoy"
	}
	dir, err := os.MkdirTemp("", "ads") // short: a socket's path is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	agent, admin := filepath.Join(dir, "agent"), filepath.Join(dir, "admin")
	e := &envoy{t: t, board: newBoard(set(rs...))}
	e.srv = New(Config{Provider: e.board, Identifier: "e2e"})
	lis, err := net.Listen("unix", agent)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	e.srv.Register(g)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(lis) }()
	t.Cleanup(func() { g.Stop(); <-done })

	b, err := bootstrap.Envoy{NodeID: "n1", AgentSocket: agent, AdminSocket: admin, SotW: sotw}.Proto()
	if err != nil {
		t.Fatal(err)
	}
	y, err := bootstrap.YAML(b)
	if err != nil {
		t.Fatal(err)
	}
	file, logs := filepath.Join(dir, "bootstrap.yaml"), filepath.Join(dir, "log")
	if err := os.WriteFile(file, y, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-c", file, "--concurrency", "1", "--use-dynamic-base-id", "--log-path", logs, "-l", "info", "--drain-time-s", "1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("the real Envoy is needed here (ENVOY_BIN): %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			out, _ := os.ReadFile(logs)
			t.Logf("envoy's log:\n%s", out)
		}
	})
	e.admin.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", admin)
	}}
	return e
}

func (e *envoy) get(path string) string {
	r, err := e.admin.Get("http://admin" + path)
	if err != nil {
		return ""
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return string(b)
}

// listener returns the address Envoy bound a listener to.
func (e *envoy) listener(name string) string {
	var out struct {
		Statuses []struct {
			Name  string `json:"name"`
			Local struct {
				Socket struct {
					Address string `json:"address"`
					Port    int    `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	_ = json.Unmarshal([]byte(e.get("/listeners?format=json")), &out)
	for _, s := range out.Statuses {
		if s.Name == name {
			return fmt.Sprintf("%s:%d", s.Local.Socket.Address, s.Local.Socket.Port)
		}
	}
	return ""
}

func adsSource() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

func edsCluster(name, v string) *resource.Resource {
	return mk(name, &clusterv3.Cluster{
		Name: name, AltStatName: name + v, ConnectTimeout: durationpb.New(time.Second),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: adsSource()},
	}, resource.Ref{Type: eds, Name: name})
}

// rejected passes the protobuf's validation and not Envoy's.
func rejected(name string) *resource.Resource {
	return mk(name, &clusterv3.Cluster{
		Name: name, ConnectTimeout: durationpb.New(time.Second),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: adsSource()},
	})
}

func endpoints(name, addr string) *resource.Resource {
	host, port, _ := net.SplitHostPort(addr)
	var n uint32
	fmt.Sscan(port, &n)
	return mk(name, &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: socket(host, n),
		}}}},
	}}})
}

func socket(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

func httpListener(name, route, stat string) *resource.Resource {
	router, _ := anypb.New(&routerv3.Router{})
	hcm, err := anypb.New(&hcmv3.HttpConnectionManager{
		StatPrefix:     stat,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: route, ConfigSource: adsSource()}},
		HttpFilters:    []*hcmv3.HttpFilter{{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: router}}},
	})
	if err != nil {
		panic(err)
	}
	return mk(name, &listenerv3.Listener{Name: name, Address: socket("127.0.0.1", 0), FilterChains: []*listenerv3.FilterChain{{
		Filters: []*listenerv3.Filter{{Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: hcm}}},
	}}}, toRoute(route))
}

func routeTo(name, cluster string) *resource.Resource {
	return mk(name, &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{{
		Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{{
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}}},
		}},
	}}}, toCluster(cluster))
}

// world is a route to one of several clusters over one backend each.
func world(to, backend string, more ...*resource.Resource) []*resource.Resource {
	return append([]*resource.Resource{
		edsCluster(to, ""), endpoints(to, backend), httpListener("out", "r", "out"), routeTo("r", to),
	}, more...)
}

func backend(t *testing.T, answer string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 30 s: " + what)
		}
	}
}

func TestRealEnvoy(t *testing.T) {
	for _, sotw := range []bool{false, true} {
		t.Run(fmt.Sprintf("sotw=%v", sotw), func(t *testing.T) { realEnvoy(t, sotw) })
	}
}

func realEnvoy(t *testing.T, sotw bool) {
	a, b := backend(t, "A"), backend(t, "B")
	e := startEnvoy(t, sotw, world("a", a))
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	client := http.Client{Transport: tr, Timeout: 5 * time.Second}
	addr := ""
	ask := func() (string, error) {
		r, err := client.Get("http://" + addr + "/")
		if err != nil {
			return "", err
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if r.StatusCode != 200 {
			return "", fmt.Errorf("status %d: %s", r.StatusCode, body)
		}
		return string(body), err
	}
	answers := func(want string) func() bool {
		return func() bool { got, err := ask(); return err == nil && got == want }
	}
	until(t, "the listener is bound", func() bool { addr = e.listener("out"); return addr != "" })
	until(t, "A answers", answers("A"))
	until(t, "in sync", func() bool { s := e.srv.Sessions(); return len(s) == 1 && s[0].InSync })
	if got := e.srv.Sessions()[0].Client; got.UserAgent != "envoy" || got.Version == "" || got.NodeID != "n1" {
		t.Errorf("client %+v", got)
	}

	// The route moves back and forth between clusters that come and go, under
	// requests: not one fails.
	var asked, failed atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for ctx.Err() == nil {
			if _, err := ask(); err != nil {
				failed.Add(1)
				t.Error(err)
			}
			asked.Add(1)
		}
	}()
	for i := 0; i < 40 || asked.Load() < 100; i++ {
		to, at := fmt.Sprintf("c%d", i%4), []string{a, b}[i%2]
		e.board.publish(set(world(to, at)...))
		time.Sleep(100 * time.Millisecond)
	}
	e.board.publish(set(world("last", b)...))
	until(t, "B answers", answers("B"))
	until(t, "only the last cluster stays", func() bool {
		s := e.get("/clusters")
		return strings.Contains(s, "last::") && !strings.Contains(s, "c0::") && !strings.Contains(s, "c3::")
	})
	cancel()
	<-stopped
	if failed.Load() > 0 {
		t.Fatalf("%d of %d requests failed", failed.Load(), asked.Load())
	}

	// A cluster that Envoy rejects, in one batch with good ones.
	e.board.publish(set(world("a", a, edsCluster("good", ""), endpoints("good", b), rejected("bad"))...))
	until(t, "A answers although a cluster is rejected", answers("A"))
	until(t, "the rejection is told", func() bool {
		st, _ := e.srv.Session(e.srv.Sessions()[0].ID)
		for _, r := range st.Types[0].Resources {
			if r.Name == "bad" && r.State == StateNacked && r.Error != "" {
				return st.Types[0].Nacked == 1 && strings.Contains(e.get("/clusters"), "good::")
			}
		}
		return false
	})
	e.board.publish(set(world("a", a, edsCluster("good", ""), endpoints("good", b), edsCluster("bad", "2"), endpoints("bad", b))...))
	until(t, "in sync again", func() bool { return e.srv.Sessions()[0].InSync })

	// A cluster that changes warms with endpoints that did not.
	e.board.publish(set(append(without(world("a", a), cds, "a"), edsCluster("a", "changed"))...))
	until(t, "the changed cluster is active", func() bool {
		return strings.Contains(e.get("/stats?filter=cluster.achanged.membership_healthy"), "membership_healthy: 1")
	})
	until(t, "A answers", answers("A"))

	// The stream breaks; Envoy resumes and misses nothing.
	for _, s := range e.srv.list() {
		s.cancel(errDraining)
	}
	e.board.publish(set(world("b", b)...))
	until(t, "B answers after the stream broke", answers("B"))
	until(t, "in sync after the stream broke", func() bool { s := e.srv.Sessions(); return len(s) == 1 && s[0].InSync })
}
