package config

import (
	"strconv"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/proxytlv"
)

// sockets reads what carries the connections.
func (d *decoder) sockets(m *clusterv3.Cluster, out *cluster.Config) error {
	var err error
	if out.Announce, out.Extensions, out.TLS, err = d.upstreamSocket(m.GetTransportSocket(), "transport_socket"); err != nil {
		return err
	}
	for i, t := range m.GetTransportSocketMatches() {
		here := at("transport_socket_matches", i)
		s := cluster.SocketMatch{Name: t.GetName(), Match: t.GetMatch().AsMap()}
		if s.Announce, s.Extensions, s.TLS, err = d.upstreamSocket(t.GetTransportSocket(), here+".transport_socket"); err != nil {
			return err
		}
		out.Sockets = append(out.Sockets, s)
	}
	return nil
}

// upstreamSocket reads how connections begin, and their TLS.
func (d *decoder) upstreamSocket(ts *corev3.TransportSocket, path string) (cluster.Announcement, *cluster.Extensions, *cluster.TLS, error) {
	p, ok := extension[*upstreamproxyv3.ProxyProtocolUpstreamTransport](d, ts.GetTypedConfig())
	if !ok {
		t, err := d.innerSocket(ts, path)
		return 0, nil, t, err
	}
	path += ".typed_config"
	if p.GetTransportSocket() == nil {
		return 0, nil, nil, fail(path+".transport_socket", "is missing: say a RawBuffer or an UpstreamTlsContext")
	}
	announce, err := announcement(p.GetConfig(), path+".config")
	if err != nil {
		return 0, nil, nil, err
	}
	more, err := announcedExtensions(p.GetConfig(), announce, path+".config")
	if err != nil {
		return 0, nil, nil, err
	}
	t, err := d.innerSocket(p.GetTransportSocket(), path+".transport_socket")
	return announce, more, t, err
}

func announcement(m *corev3.ProxyProtocolConfig, path string) (cluster.Announcement, error) {
	switch v := m.GetVersion(); v {
	case corev3.ProxyProtocolConfig_V1:
		return 1, nil
	case corev3.ProxyProtocolConfig_V2:
		return 2, nil
	default:
		return 0, fail(path+".version", "unknown value %d", v)
	}
}

func announcedExtensions(m *corev3.ProxyProtocolConfig, version cluster.Announcement, path string) (*cluster.Extensions, error) {
	const needsV2 = "is for headers of V2; those of V1 have no extensions"
	passed, err := passedExtensions(m.GetPassThroughTlvs(), path+".pass_through_tlvs")
	switch {
	case err != nil:
		return nil, err
	case m.GetPassThroughTlvs() == nil && len(m.GetAddedTlvs()) == 0:
		return nil, nil
	case version != 2 && m.GetPassThroughTlvs() != nil:
		return nil, fail(path+".pass_through_tlvs", needsV2)
	case version != 2:
		return nil, fail(path+".added_tlvs", needsV2)
	}
	added, err := addedExtensions(m.GetAddedTlvs(), path+".added_tlvs")
	if err != nil {
		return nil, err
	}
	return &cluster.Extensions{Passed: passed, Added: proxytlv.Keep(added)}, nil
}

// passedExtensions reads which of a client's extensions are passed on; nil passes none.
func passedExtensions(m *corev3.ProxyProtocolPassThroughTLVs, path string) (proxytlv.Choice, error) {
	var out proxytlv.Choice
	switch m.GetMatchType() {
	case corev3.ProxyProtocolPassThroughTLVs_INCLUDE_ALL:
		if out.All = m != nil; len(m.GetTlvType()) > 0 {
			return out, fail(path+".tlv_type", "is for match_type INCLUDE; INCLUDE_ALL passes every type")
		}
	case corev3.ProxyProtocolPassThroughTLVs_INCLUDE:
		for _, kind := range m.GetTlvType() {
			out.Types += string([]byte{byte(kind)})
		}
	default:
		return out, fail(path+".match_type", "unknown value %d", m.GetMatchType())
	}
	return out, nil
}

func addedExtensions(ms []*corev3.TlvEntry, path string) (proxytlv.List, error) {
	var out proxytlv.List
	for i, m := range ms {
		here := at(path, i)
		switch n := len(m.GetValue()); {
		case n == 0:
			return "", fail(here+".value", "is missing")
		case n > proxytlv.MostAdded:
			return "", fail(here+".value", "has %d bytes, and a header has room for %d", n, proxytlv.MostAdded)
		}
		out = out.With(byte(m.GetType()), string(m.GetValue()))
	}
	if len(out) > proxytlv.MostAdded {
		return "", fail(path, "have %d bytes, and a header has room for %d", len(out), proxytlv.MostAdded)
	}
	return out, nil
}

// extensionsOfHost reads what headers to one host say besides. Other typed metadata are of no effect,
// whatever they are, so that no walk has looked at these.
func extensionsOfHost(m *corev3.Metadata, path string) (none proxytlv.Kept, err error) {
	const namespace = "envoy.transport_sockets.proxy_protocol"
	packed := m.GetTypedFilterMetadata()[namespace]
	if packed == nil {
		return none, nil
	}
	path += ".typed_filter_metadata[" + strconv.Quote(namespace) + "]"
	var own corev3.PerHostConfig
	if err := packed.UnmarshalTo(&own); err != nil {
		return none, fail(path, "is no PerHostConfig: %v", err)
	}
	if err := (&checker{}).message(own.ProtoReflect(), path); err != nil {
		return none, err
	}
	if err := own.ValidateAll(); err != nil {
		return none, fail(path, "%v", err)
	}
	added, err := addedExtensions(own.GetAddedTlvs(), path+".added_tlvs")
	return proxytlv.Keep(added), err
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
