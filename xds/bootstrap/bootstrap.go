// Package bootstrap writes the configuration with which a real Envoy joins the
// mesh next to an agent: Envoy reaches nothing but the agent's Unix socket, which
// relays its discovery stream to a control plane and serves its secrets. So no
// key, token or address of a control plane stands in Envoy's file.
package bootstrap

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"sigs.k8s.io/yaml"

	"github.com/hauberk-mesh/hauberk/xds/names"
)

// Envoy is what an Envoy of the mesh is started with.
type Envoy struct {
	// NodeID is the mesh node's name. The control plane believes the relaying
	// agent's certificate, not this; it is for logs and status.
	NodeID string
	// Cluster is Envoy's --service-cluster; empty takes NodeID.
	Cluster string
	// AgentSocket is the absolute path of the host's agent socket.
	AgentSocket string
	// Workloads narrows the view to these registration ids; empty is all of
	// the node's.
	Workloads []string
	// Metadata is added to the node's metadata. Keys of package names are
	// refused.
	Metadata map[string]any
	// Region, Zone and SubZone are the locality; all may be empty.
	Region, Zone, SubZone string
	// Admin is where Envoy's admin listens: a loopback address, because it
	// takes commands from anyone. AdminSocket, an absolute path, instead gives
	// a Unix socket of mode 0600. Neither: no admin.
	Admin       netip.AddrPort
	AdminSocket string
	// SotW uses the state-of-the-world protocol instead of the incremental one.
	SotW bool
}

// maxSocketPath is sockaddr_un.sun_path without its terminating zero.
const maxSocketPath = 107

// Proto returns the bootstrap.
func (e Envoy) Proto() (*bootstrapv3.Bootstrap, error) {
	b, err := e.build()
	if err != nil {
		return nil, fmt.Errorf("envoy bootstrap: %w", err)
	}
	return b, nil
}

func (e Envoy) build() (*bootstrapv3.Bootstrap, error) {
	node, err := e.node()
	if err != nil {
		return nil, err
	}
	if err := socketPath("agent socket", e.AgentSocket); err != nil {
		return nil, err
	}
	agent, err := agentCluster(e.AgentSocket)
	if err != nil {
		return nil, err
	}
	admin, err := e.admin()
	if err != nil {
		return nil, err
	}
	api := corev3.ApiConfigSource_DELTA_GRPC
	if e.SotW {
		api = corev3.ApiConfigSource_GRPC
	}
	ads := func() *corev3.ConfigSource {
		return &corev3.ConfigSource{
			ResourceApiVersion:    corev3.ApiVersion_V3,
			ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		}
	}
	// The control plane bounds regular expressions for all sidecars alike. Envoy's own
	// bound would refuse a listener, and with it the next deny.
	runtime, err := structpb.NewStruct(map[string]any{"re2.max_program_size.error_level": 1 << 20})
	if err != nil {
		return nil, err
	}
	b := &bootstrapv3.Bootstrap{
		Node:  node,
		Admin: admin,
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
			Name:           "hauberk",
			LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: runtime},
		}}},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{agent}},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			AdsConfig: &corev3.ApiConfigSource{
				ApiType:                   api,
				TransportApiVersion:       corev3.ApiVersion_V3,
				SetNodeOnFirstMessageOnly: true,
				GrpcServices: []*corev3.GrpcService{{
					TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
						EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: names.AgentCluster},
					},
				}},
			},
			CdsConfig: ads(),
			LdsConfig: ads(),
		},
	}
	if err := b.ValidateAll(); err != nil {
		return nil, err
	}
	return b, nil
}

func (e Envoy) node() (*corev3.Node, error) {
	if e.NodeID == "" {
		return nil, errors.New("node id is empty")
	}
	n := &corev3.Node{Id: e.NodeID, Cluster: e.Cluster}
	if n.Cluster == "" {
		n.Cluster = e.NodeID
	}
	if e.Region+e.Zone+e.SubZone != "" {
		n.Locality = &corev3.Locality{Region: e.Region, Zone: e.Zone, SubZone: e.SubZone}
	}
	md := map[string]any{}
	for k, v := range e.Metadata {
		if strings.HasPrefix(k, "hauberk.") {
			return nil, fmt.Errorf("metadata %q: keys that begin with \"hauberk.\" are reserved", k)
		}
		md[k] = v
	}
	if len(e.Workloads) > 0 {
		list := make([]any, len(e.Workloads))
		for i, w := range e.Workloads {
			list[i] = w
		}
		md[names.MetadataWorkloads] = list
	}
	if len(md) > 0 {
		s, err := structpb.NewStruct(md)
		if err != nil {
			return nil, fmt.Errorf("metadata: %w", err)
		}
		n.Metadata = s
	}
	return n, nil
}

// agentCluster speaks HTTP/2 without TLS: the socket's directory and the agent's
// check of its peer's credentials guard it. Keep-alive pings find an agent that
// died without closing, since a Unix socket of a stopped process stays open.
func agentCluster(socket string) (*clusterv3.Cluster, error) {
	opts, err := anypb.New(&upstreamhttpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
						ConnectionKeepalive: &corev3.KeepaliveSettings{
							Interval: durationpb.New(30 * time.Second),
							Timeout:  durationpb.New(10 * time.Second),
						},
						MaxConcurrentStreams: wrapperspb.UInt32(1000),
					},
				},
			},
		},
	})
	if err != nil {
		return nil, err
	}
	return &clusterv3.Cluster{
		Name:                 names.AgentCluster,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(time.Second),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": opts,
		},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: names.AgentCluster,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: pipe(socket, 0)}},
			}}}},
		},
	}, nil
}

func pipe(path string, mode uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path, Mode: mode}}}
}

func (e Envoy) admin() (*bootstrapv3.Admin, error) {
	switch {
	case e.Admin.IsValid() && e.AdminSocket != "":
		return nil, errors.New("admin address and admin socket exclude each other")
	case e.AdminSocket != "":
		if err := socketPath("admin socket", e.AdminSocket); err != nil {
			return nil, err
		}
		return &bootstrapv3.Admin{Address: pipe(e.AdminSocket, 0o600)}, nil
	case !e.Admin.IsValid():
		return nil, nil
	case !e.Admin.Addr().IsLoopback():
		return nil, fmt.Errorf("admin address %s: Envoy's admin takes commands from anyone who reaches it; use a loopback address or a socket", e.Admin)
	}
	return &bootstrapv3.Admin{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
		SocketAddress: &corev3.SocketAddress{
			Address:       e.Admin.Addr().String(),
			PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(e.Admin.Port())},
		},
	}}}, nil
}

func socketPath(what, path string) error {
	switch {
	case !filepath.IsAbs(path):
		return fmt.Errorf("%s %q: not an absolute path", what, path)
	case len(path) > maxSocketPath:
		return fmt.Errorf("%s %q: longer than the %d bytes a Unix socket's path may have", what, path, maxSocketPath)
	}
	return nil
}

// JSON renders a bootstrap as Envoy reads it, with the field names of the
// protobuf, indented and in a stable order.
func JSON(b *bootstrapv3.Bootstrap) ([]byte, error) {
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(proto.Message(b))
	if err != nil {
		return nil, fmt.Errorf("envoy bootstrap: %w", err)
	}
	// protojson varies its spacing on purpose; encoding/json does not.
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, fmt.Errorf("envoy bootstrap: %w", err)
	}
	out, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("envoy bootstrap: %w", err)
	}
	return append(out, '\n'), nil
}

// YAML is JSON for people.
func YAML(b *bootstrapv3.Bootstrap) ([]byte, error) {
	j, err := JSON(b)
	if err != nil {
		return nil, err
	}
	y, err := yaml.JSONToYAML(j)
	if err != nil {
		return nil, fmt.Errorf("envoy bootstrap: %w", err)
	}
	return y, nil
}
