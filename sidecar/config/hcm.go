package config

import (
	"cmp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

func (d *decoder) connectionManager(m *hcmv3.HttpConnectionManager, path string) (*hcm.Config, error) {
	out := &hcm.Config{
		StatPrefix:          m.GetStatPrefix(),
		MaxRequestHeadersKB: int(m.GetMaxRequestHeadersKb().GetValue()),
		MergeSlashes:        m.GetMergeSlashes(),
		NormalizePath:       m.GetNormalizePath().GetValue(),
		GenerateRequestID:   true,
		ProxyContinue:       m.GetProxy_100Continue(),
		AppendLocalOverload: m.GetAppendLocalOverload(),
	}
	if g := m.GetGenerateRequestId(); g != nil {
		out.GenerateRequestID = g.GetValue()
	}
	for _, step := range []func(*hcmv3.HttpConnectionManager, *hcm.Config, string) error{
		hcmCodec, d.hcmRoutes, d.hcmFilters, hcmEnums, hcmServerName, hcmTimeouts, hcmProtocol, hcmUpgrades, d.hcmUpgradeFilters,
		hcmTrust, d.hcmClientCert, d.hcmDetection, d.hcmRequestID, d.hcmEarly, hcmHost, hcmLifetime, d.hcmHTTP1, d.hcmLocalReplies, hcmLogs, d.hcmTracing,
	} {
		if err := step(m, out, path); err != nil {
			return nil, err
		}
	}
	if err := hcm.Check(out); err != nil {
		return nil, fail(path, "%v", err)
	}
	var err error
	out.AccessLog, err = d.accessLogs(m.GetAccessLog(), path+".access_log")
	return out, err
}

func hcmCodec(m *hcmv3.HttpConnectionManager, out *hcm.Config, path string) (err error) {
	switch m.GetCodecType() {
	case hcmv3.HttpConnectionManager_AUTO:
		out.Codec = hcm.CodecAuto
	case hcmv3.HttpConnectionManager_HTTP1:
		out.Codec = hcm.CodecHTTP1
	case hcmv3.HttpConnectionManager_HTTP2:
		out.Codec = hcm.CodecHTTP2
	default:
		return fail(path+".codec_type", "is %s; use HTTP1, HTTP2 or AUTO: HTTP/3 is not implemented", m.GetCodecType())
	}
	here := path + ".http2_protocol_options"
	if out.HTTP2, err = http2Options(m.GetHttp2ProtocolOptions(), here); err == nil {
		err = fieldsFit(out.HTTP2, out.MaxRequestHeadersKB, here, "max_request_headers_kb")
	}
	if err != nil {
		return err
	}
	// The manager's own setting goes before the deprecated one of the codec, where it is made.
	if own := m.GetStreamErrorOnInvalidHttpMessage(); own != nil && m.GetHttp2ProtocolOptions().GetOverrideStreamErrorOnInvalidHttpMessage() == nil {
		out.HTTP2.MalformedEndsConnection = !own.GetValue()
	}
	return nil
}

func (d *decoder) hcmRoutes(m *hcmv3.HttpConnectionManager, out *hcm.Config, path string) (err error) {
	switch {
	case m.GetRds() != nil:
		if m.GetRds().GetRouteConfigName() == "" {
			return fail(path+".rds.route_config_name", "is empty")
		}
		out.RouteName, out.Discovery, err = discoveredName(m.GetRds().GetRouteConfigName(), m.GetRds().GetConfigSource(), path+".rds.config_source")
		return err
	case m.GetRouteConfig() != nil:
		if out.Routes, err = d.routeConfig(m.GetRouteConfig(), path+".route_config"); err != nil {
			return err
		}
		if err := route.Check(out.Routes); err != nil {
			return fail(path+".route_config", "%v", err)
		}
		return nil
	}
	return fail(path, "needs rds or route_config")
}

func hcmEnums(m *hcmv3.HttpConnectionManager, out *hcm.Config, path string) error {
	switch m.GetPathWithEscapedSlashesAction() {
	case hcmv3.HttpConnectionManager_IMPLEMENTATION_SPECIFIC_DEFAULT, hcmv3.HttpConnectionManager_KEEP_UNCHANGED:
		out.EscapedSlashes = hcm.KeepEscaped
	case hcmv3.HttpConnectionManager_REJECT_REQUEST:
		out.EscapedSlashes = hcm.RejectEscaped
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT:
		out.EscapedSlashes = hcm.UnescapeAndRedirect
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD:
		out.EscapedSlashes = hcm.UnescapeAndForward
	default:
		return fail(path+".path_with_escaped_slashes_action", "unknown value %d", m.GetPathWithEscapedSlashesAction())
	}
	return nil
}

// hcmServerName: Envoy overwrites the upstream's Server header, with "envoy"
// where nothing is configured.
func hcmServerName(m *hcmv3.HttpConnectionManager, out *hcm.Config, path string) error {
	switch m.GetServerHeaderTransformation() {
	case hcmv3.HttpConnectionManager_OVERWRITE, hcmv3.HttpConnectionManager_APPEND_IF_ABSENT:
		out.ServerIfAbsent = m.GetServerHeaderTransformation() == hcmv3.HttpConnectionManager_APPEND_IF_ABSENT
		out.ServerName = m.GetServerName()
		if out.ServerName == "" {
			out.ServerName = "envoy"
		}
	case hcmv3.HttpConnectionManager_PASS_THROUGH:
		// The name is for nothing then, as in Envoy.
	default:
		return fail(path+".server_header_transformation", "unknown value %d", m.GetServerHeaderTransformation())
	}
	if p := m.GetProxyStatusConfig(); p != nil {
		name := cmp.Or(p.GetLiteralProxyName(), m.GetServerName(), "envoy")
		if strings.ContainsFunc(name, func(r rune) bool { return notInNames(r) && r != ':' && r != '/' }) {
			return fail(path+".proxy_status_config", "%q is no name of a proxy in Proxy-Status (RFC 9209 2)", name)
		}
		out.ProxyStatus = &hcm.ProxyStatus{
			Name: name, NodeID: p.GetUseNodeId(), WithoutDetails: p.GetRemoveDetails(), WithoutTermination: p.GetRemoveConnectionTerminationDetails(),
			WithoutFlags: p.GetRemoveResponseFlags(), SetCode: p.GetSetRecommendedResponseCode(),
		}
	}
	return nil
}

func hcmTimeouts(m *hcmv3.HttpConnectionManager, out *hcm.Config, path string) (err error) {
	if out.StreamIdleTimeout, err = timeout(m.GetStreamIdleTimeout(), path+".stream_idle_timeout"); err != nil {
		return err
	}
	if out.MaxStreamDuration, err = duration(m.GetCommonHttpProtocolOptions().GetMaxStreamDuration(), path+".common_http_protocol_options.max_stream_duration"); err != nil {
		return err
	}
	if out.RequestTimeout, err = duration(m.GetRequestTimeout(), path+".request_timeout"); err != nil {
		return err
	}
	out.RequestHeadersTimeout, err = duration(m.GetRequestHeadersTimeout(), path+".request_headers_timeout")
	return err
}

func hcmProtocol(m *hcmv3.HttpConnectionManager, out *hcm.Config, path string) (err error) {
	common := m.GetCommonHttpProtocolOptions()
	here := path + ".common_http_protocol_options"
	if err = only(common, here, "unsupported for a listener; remove the field",
		"idle_timeout", "max_headers_count", "headers_with_underscores_action", "max_stream_duration",
		"max_connection_duration", "max_connection_duration_jitter", "max_requests_per_connection"); err != nil {
		return err
	}
	if out.IdleTimeout, err = timeout(common.GetIdleTimeout(), here+".idle_timeout"); err != nil {
		return err
	}
	out.MaxHeaders = int(common.GetMaxHeadersCount().GetValue())
	switch common.GetHeadersWithUnderscoresAction() {
	case corev3.HttpProtocolOptions_ALLOW:
		out.UnderscoreNames = hcm.AllowUnderscores
	case corev3.HttpProtocolOptions_REJECT_REQUEST:
		out.UnderscoreNames = hcm.RejectUnderscores
	case corev3.HttpProtocolOptions_DROP_HEADER:
		out.UnderscoreNames = hcm.DropUnderscores
	default:
		return fail(here+".headers_with_underscores_action", "unknown value %d", common.GetHeadersWithUnderscoresAction())
	}
	return nil
}

func hcmUpgrades(m *hcmv3.HttpConnectionManager, out *hcm.Config, path string) error {
	for i, u := range m.GetUpgradeConfigs() {
		if err := addUpgrade(&out.Upgrades, u.GetUpgradeType(), u.GetEnabled(), at(path+".upgrade_configs", i)); err != nil {
			return err
		}
	}
	return nil
}

func addUpgrade(list *[]route.Upgrade, kind string, enabled *wrapperspb.BoolValue, path string) error {
	here := path + ".upgrade_type"
	_, twice := route.Allows(*list, kind)
	switch {
	case kind == "":
		return fail(here, "is empty")
	case http1.Offers(kind, "h2c"):
		return fail(here, "h2c is never offered onward: what follows would be out of sight")
	case twice:
		return fail(here, "%s is configured twice", kind)
	}
	*list = append(*list, route.Upgrade{Type: kind, Disabled: enabled != nil && !enabled.GetValue()})
	return nil
}
