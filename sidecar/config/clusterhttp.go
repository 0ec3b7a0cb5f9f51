package config

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
)

// protocol reads how HTTP is spoken to a cluster.
func (d *decoder) protocol(m *clusterv3.Cluster, out *cluster.Config) (err error) {
	//lint:ignore SA1019 deprecated, and in many bootstraps
	if h2 := m.GetHttp2ProtocolOptions(); h2 != nil {
		out.HTTP.Protocol = cluster.SpeakHTTP2
		if out.HTTP.HTTP2, err = http2Options(h2, "http2_protocol_options"); err != nil {
			return err
		}
	}
	for key, a := range m.GetTypedExtensionProtocolOptions() {
		path := `typed_extension_protocol_options["` + key + `"]`
		if key != protocolOptionsKey {
			return fail(path, "unsupported; remove it")
		}
		o, ok := extension[*upstreamhttpv3.HttpProtocolOptions](d, a)
		if !ok {
			return fail(path, "has no value")
		}
		if err := upstreamProtocol(o, out, path); err != nil {
			return err
		}
		common := o.GetCommonHttpProtocolOptions()
		path += ".common_http_protocol_options"
		if common.GetMaxHeadersCount() != nil || common.GetHeadersWithUnderscoresAction() != 0 {
			return fail(path, "only idle_timeout has a meaning for an upstream")
		}
		if out.IdleTimeout, err = timeout(common.GetIdleTimeout(), path+".idle_timeout"); err != nil {
			return err
		}
	}
	return nil
}

// upstreamProtocol reads which version is spoken, and its options.
func upstreamProtocol(o *upstreamhttpv3.HttpProtocolOptions, out *cluster.Config, path string) (err error) {
	var h1 *corev3.Http1ProtocolOptions
	var h2 *corev3.Http2ProtocolOptions
	switch {
	case o.GetExplicitHttpConfig() != nil:
		path += ".explicit_http_config"
		e := o.GetExplicitHttpConfig()
		if h1, h2 = e.GetHttpProtocolOptions(), e.GetHttp2ProtocolOptions(); h2 != nil {
			out.HTTP.Protocol = cluster.SpeakHTTP2
		}
	case o.GetAutoConfig() != nil:
		path += ".auto_config"
		if out.TLS == nil {
			return fail(path, "needs a transport_socket with TLS: ALPN decides, and there is none without")
		}
		out.HTTP.Protocol = cluster.SpeakAuto
		h1, h2 = o.GetAutoConfig().GetHttpProtocolOptions(), o.GetAutoConfig().GetHttp2ProtocolOptions()
	case o.GetUseDownstreamProtocolConfig() != nil:
		path += ".use_downstream_protocol_config"
		out.HTTP.Protocol = cluster.SpeakDownstream
		h1, h2 = o.GetUseDownstreamProtocolConfig().GetHttpProtocolOptions(), o.GetUseDownstreamProtocolConfig().GetHttp2ProtocolOptions()
	}
	if h1.GetAcceptHttp_10() || h1.GetAllowAbsoluteUrl() != nil {
		return fail(path+".http_protocol_options", "its fields have no meaning for an upstream; leave it empty")
	}
	out.HTTP.HTTP2, err = http2Options(h2, path+".http2_protocol_options")
	return err
}
