package config

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
)

// sockets reads what carries the connections.
func (d *decoder) sockets(m *clusterv3.Cluster, out *cluster.Config) error {
	var err error
	if out.Announce, out.TLS, err = d.upstreamSocket(m.GetTransportSocket(), "transport_socket"); err != nil {
		return err
	}
	for i, t := range m.GetTransportSocketMatches() {
		here := at("transport_socket_matches", i)
		s := cluster.SocketMatch{Name: t.GetName(), Match: t.GetMatch().AsMap()}
		if s.Announce, s.TLS, err = d.upstreamSocket(t.GetTransportSocket(), here+".transport_socket"); err != nil {
			return err
		}
		out.Sockets = append(out.Sockets, s)
	}
	return nil
}

// upstreamSocket reads how connections begin, and their TLS.
func (d *decoder) upstreamSocket(ts *corev3.TransportSocket, path string) (cluster.Announcement, *cluster.TLS, error) {
	p, ok := extension[*upstreamproxyv3.ProxyProtocolUpstreamTransport](d, ts.GetTypedConfig())
	if !ok {
		t, err := d.innerSocket(ts, path)
		return 0, t, err
	}
	path += ".typed_config"
	if p.GetTransportSocket() == nil {
		return 0, nil, fail(path+".transport_socket", "is missing: say a RawBuffer or an UpstreamTlsContext")
	}
	announce := cluster.Announcement(1)
	switch v := p.GetConfig().GetVersion(); v {
	case corev3.ProxyProtocolConfig_V1:
	case corev3.ProxyProtocolConfig_V2:
		announce = 2
	default:
		return 0, nil, fail(path+".config.version", "unknown value %d", v)
	}
	t, err := d.innerSocket(p.GetTransportSocket(), path+".transport_socket")
	return announce, t, err
}

func (d *decoder) innerSocket(ts *corev3.TransportSocket, path string) (*cluster.TLS, error) {
	if ts == nil {
		return nil, nil
	}
	if _, ok := extension[*rawbufferv3.RawBuffer](d, ts.GetTypedConfig()); ok {
		return nil, nil
	}
	ctx, ok := extension[*tlsv3.UpstreamTlsContext](d, ts.GetTypedConfig())
	if !ok {
		return nil, fail(path, "a cluster takes an UpstreamTlsContext or a RawBuffer")
	}
	return d.upstreamTLS(ctx, path+".typed_config")
}
