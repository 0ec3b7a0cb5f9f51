//go:build e2e

package mesh

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hauberk-mesh/hauberk/xds/ads"
	"github.com/hauberk-mesh/hauberk/xds/adstest"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// deaf is a stream on which the server does not hear what is said of endpoints.
type deaf struct {
	grpc.ServerStream
	on *atomic.Bool
}

func (d *deaf) RecvMsg(m any) error {
	for {
		if err := d.ServerStream.RecvMsg(m); err != nil {
			return err
		}
		r, ok := m.(*discoveryv3.DeltaDiscoveryRequest)
		if !ok || !d.on.Load() || r.GetTypeUrl() != resource.EndpointType || r.GetResponseNonce() == "" {
			return nil
		}
	}
}

func packed(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func made(t *testing.T, name string, m proto.Message, refs ...resource.Ref) *resource.Resource {
	t.Helper()
	r, err := resource.New(name, m, refs...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tcpAddress(t *testing.T, addr string) *corev3.Address {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: a.IP.String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port)},
	}}}
}

func edsOf(t *testing.T, name, region string, to string) []*resource.Resource {
	t.Helper()
	ads := &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3, ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
	return []*resource.Resource{
		made(t, name, &clusterv3.Cluster{Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
			EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads}}, resource.Ref{Type: resource.EndpointType, Name: name}),
		made(t, name, &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			Locality: &corev3.Locality{Region: region},
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
				Endpoint: &endpointv3.Endpoint{Address: tcpAddress(t, to)}}}},
		}}}),
	}
}

func guarded(t *testing.T, listen string, action rbacv3.RBAC_Action) *resource.Resource {
	t.Helper()
	anyone := map[string]*rbacv3.Policy{"everyone": {
		Permissions: []*rbacv3.Permission{{Rule: &rbacv3.Permission_Any{Any: true}}},
		Principals:  []*rbacv3.Principal{{Identifier: &rbacv3.Principal_Any{Any: true}}},
	}}
	r := made(t, "in", &listenerv3.Listener{Name: "in", Address: tcpAddress(t, listen), FilterChains: []*listenerv3.FilterChain{{
		Filters: []*listenerv3.Filter{
			{Name: "rbac", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(t, &networkrbacv3.RBAC{StatPrefix: "r", Rules: &rbacv3.RBAC{Action: action, Policies: anyone}})}},
			{Name: "tcp", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(t, &tcpv3.TcpProxy{StatPrefix: "t", ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: "app"}})}},
		}}}}, resource.Ref{Type: resource.ClusterType, Name: "app"})
	r.Urgent = true
	return r
}

// TestDenyOvertakesRejections: with one cluster rejected and endpoints that are
// never acknowledged, a deny is active within a second, and the connection that
// it covers is closed.
func TestDenyOvertakesRejections(t *testing.T) {
	dir := t.TempDir()
	m := &mesh{t: t, dir: dir, bin: os.Getenv("HAUBERK_BIN")}
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go greeter(c)
		}
	}()
	b := adstest.NewBoard()
	server := ads.New(ads.Config{Provider: b})
	var hush atomic.Bool
	g := grpc.NewServer(grpc.StreamInterceptor(func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		return next(srv, &deaf{s, &hush})
	}))
	server.Register(g)
	control, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = g.Serve(control) }()
	defer g.Stop()

	listen := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	_, port, _ := net.SplitHostPort(control.Addr().String())
	file := write(t, filepath.Join(dir, "b.yaml"), fmt.Sprintf(`node: {id: n1, cluster: c}
dynamic_resources:
  lds_config: {ads: {}, resource_api_version: V3}
  cds_config: {ads: {}, resource_api_version: V3}
  ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: control}}]}
static_resources:
  clusters:
  - name: control
    load_assignment: {cluster_name: control, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %s}}}}]}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
`, port))
	app := edsOf(t, "app", "one", echo.Addr().String())
	b.Publish(append(app, guarded(t, listen, rbacv3.RBAC_ALLOW))...)
	m.start("sidecar", "hauberk-sidecar", "run", "--bootstrap", file, "--admin", "off", "--metrics", "off", "--ready", "off")

	var conn net.Conn
	var r *bufio.Reader
	say := func() error {
		if _, err := fmt.Fprintln(conn, "hello"); err != nil {
			return err
		}
		line, err := r.ReadString('\n')
		if err == nil && line != "hello\n" {
			err = fmt.Errorf("echo %q", line)
		}
		return err
	}
	m.eventually(10*time.Second, "a connection goes through", func() (err error) {
		if conn, err = net.Dial("tcp", listen); err != nil {
			return err
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		r = bufio.NewReader(conn)
		_, err = r.ReadString('\n') // it is greeted
		return err
	})
	defer conn.Close()

	hush.Store(true)
	moved := edsOf(t, "app", "two", echo.Addr().String())
	bad := made(t, "bad", &clusterv3.Cluster{Name: "bad", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, LbPolicy: clusterv3.Cluster_CLUSTER_PROVIDED})
	b.Publish(append(moved, bad, guarded(t, listen, rbacv3.RBAC_ALLOW))...)
	m.eventually(5*time.Second, "a cluster is rejected and endpoints are unacknowledged", func() error {
		for _, s := range server.Sessions() {
			state := fmt.Sprintf("%+v", s.Types)
			rejected, open := false, false
			for _, ts := range s.Types {
				rejected = rejected || ts.Type == resource.ClusterType && ts.Nacked == 1 && strings.Contains(ts.LastError, "bad")
				open = open || ts.Type == resource.EndpointType && ts.Outstanding > 0
			}
			if !rejected || !open {
				return fmt.Errorf("%s", state)
			}
			return nil
		}
		return fmt.Errorf("no session")
	})
	if err := say(); err != nil {
		t.Fatalf("before the deny: %v", err)
	}
	b.Publish(append(moved, bad, guarded(t, listen, rbacv3.RBAC_DENY))...)
	began := time.Now()
	if _, err := r.ReadString('\n'); err == nil {
		t.Fatal("the connection still delivers")
	}
	took := time.Since(began)
	t.Logf("the deny closed the connection after %v", took)
	if took > time.Second {
		t.Errorf("the connection lived on for %v", took)
	}
	if c, err := net.Dial("tcp", listen); err == nil {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if line, err := bufio.NewReader(c).ReadString('\n'); err == nil {
			t.Errorf("a new connection was greeted: %q", line)
		}
		c.Close()
	}
}
