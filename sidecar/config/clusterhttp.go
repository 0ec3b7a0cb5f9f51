package config

import (
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// protocolOptionsKey is the name Envoy gives the HTTP options of a cluster.
const protocolOptionsKey = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// upstreamHTTP is what the old fields and the typed options have in common.
type upstreamHTTP struct {
	protocol   cluster.Protocol
	common     *corev3.HttpProtocolOptions
	names      *corev3.UpstreamHttpProtocolOptions
	http1      *corev3.Http1ProtocolOptions
	http2      *corev3.Http2ProtocolOptions
	commonPath string
	namesPath  string
	path       string // of what chooses the protocol
	paths      [2]string
}

// protocol reads how HTTP is spoken: by the typed options or, without them, by the
// cluster's own fields, which are deprecated and in many bootstraps.
func (d *decoder) protocol(m *clusterv3.Cluster, out *cluster.Config) error {
	u, err := d.typedHTTP(m, out)
	if err != nil {
		return err
	}
	legacy := legacyHTTP(m)
	switch {
	case u == nil:
		//lint:ignore SA1019 deprecated, and in many bootstraps
		if legacy.http1 != nil && legacy.http2 != nil && m.GetProtocolSelection() == clusterv3.Cluster_USE_CONFIGURED_PROTOCOL {
			return fail("protocol_selection", "HTTP/1 and HTTP/2 options together need USE_DOWNSTREAM_PROTOCOL")
		}
		u = legacy
	case legacy.common != nil || legacy.names != nil || legacy.http1 != nil || legacy.http2 != nil || legacy.protocol != cluster.SpeakHTTP1:
		return fail("typed_extension_protocol_options", "the cluster's own HTTP options are set too; use one of them")
	}
	//lint:ignore SA1019 deprecated, and in many bootstraps
	if n := m.GetMaxRequestsPerConnection(); n != nil {
		out.HTTP.MaxRequestsPerConnection = int(n.GetValue())
	}
	out.HTTP.PerClient = m.GetConnectionPoolPerDownstreamConnection()
	if out.HTTP.HTTP1, err = d.upstreamHTTP1(u.http1, u.paths[0]); err != nil {
		return err
	}
	if err := upstreamProtocol(u, out); err != nil {
		return err
	}
	return serverNames(u.names, out, u.namesPath)
}

func legacyHTTP(m *clusterv3.Cluster) *upstreamHTTP {
	u := &upstreamHTTP{
		//lint:ignore SA1019 deprecated, and in many bootstraps
		common: m.GetCommonHttpProtocolOptions(), http1: m.GetHttpProtocolOptions(), http2: m.GetHttp2ProtocolOptions(),
		//lint:ignore SA1019 deprecated, and in many bootstraps
		names: m.GetUpstreamHttpProtocolOptions(), namesPath: "upstream_http_protocol_options",
		commonPath: "common_http_protocol_options", path: "protocol_selection",
		paths: [2]string{"http_protocol_options", "http2_protocol_options"},
	}
	switch {
	//lint:ignore SA1019 deprecated, and in many bootstraps
	case m.GetProtocolSelection() == clusterv3.Cluster_USE_DOWNSTREAM_PROTOCOL:
		u.protocol = cluster.SpeakDownstream
	case u.http2 != nil:
		u.protocol, u.path = cluster.SpeakHTTP2, "http2_protocol_options"
	}
	return u
}

func (d *decoder) typedHTTP(m *clusterv3.Cluster, out *cluster.Config) (*upstreamHTTP, error) {
	var u *upstreamHTTP
	for key, a := range m.GetTypedExtensionProtocolOptions() {
		path := `typed_extension_protocol_options["` + key + `"]`
		if key != protocolOptionsKey {
			return nil, fail(path, "unsupported; remove it")
		}
		o, ok := extension[*upstreamhttpv3.HttpProtocolOptions](d, a)
		if !ok {
			return nil, fail(path, "has no value")
		}
		u = &upstreamHTTP{
			common: o.GetCommonHttpProtocolOptions(), commonPath: path + ".common_http_protocol_options",
			names: o.GetUpstreamHttpProtocolOptions(), namesPath: path + ".upstream_http_protocol_options",
		}
		if err := d.clusterPolicies(o, out, path); err != nil {
			return nil, err
		}
		switch p := o.GetUpstreamProtocolOptions().(type) {
		case *upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_:
			u.http1, u.http2 = p.ExplicitHttpConfig.GetHttpProtocolOptions(), p.ExplicitHttpConfig.GetHttp2ProtocolOptions()
			u.path = path + ".explicit_http_config"
			if u.http2 != nil {
				u.protocol, u.path = cluster.SpeakHTTP2, u.path+".http2_protocol_options"
			}
			path += ".explicit_http_config"
		case *upstreamhttpv3.HttpProtocolOptions_UseDownstreamProtocolConfig:
			path += ".use_downstream_protocol_config"
			u.protocol, u.path = cluster.SpeakDownstream, path
			u.http1, u.http2 = p.UseDownstreamProtocolConfig.GetHttpProtocolOptions(), p.UseDownstreamProtocolConfig.GetHttp2ProtocolOptions()
		case *upstreamhttpv3.HttpProtocolOptions_AutoConfig:
			path += ".auto_config"
			u.protocol, u.path = cluster.SpeakAuto, path
			u.http1, u.http2 = p.AutoConfig.GetHttpProtocolOptions(), p.AutoConfig.GetHttp2ProtocolOptions()
		}
		u.paths = [2]string{path + ".http_protocol_options", path + ".http2_protocol_options"}
	}
	return u, nil
}

// clusterPolicies reads what stands in for what routes say, and which answers are errors.
func (d *decoder) clusterPolicies(m *upstreamhttpv3.HttpProtocolOptions, out *cluster.Config, path string) (err error) {
	if out.HTTP.Retry, err = retryPolicy(m.GetRetryPolicy(), path+".retry_policy"); err != nil {
		return err
	}
	if out.HTTP.Hash, err = hashPolicies(m.GetHashPolicy(), path+".hash_policy"); err != nil {
		return err
	}
	mirrors, err := d.mirrors(m.GetRequestMirrorPolicies(), path+".request_mirror_policies")
	if err != nil {
		return err
	}
	if out.HTTP.Mirrors, err = route.NewMirrors(mirrors); err != nil {
		return fail(path, "%v", err)
	}
	if e := m.GetOutlierDetection().GetErrorMatcher(); e != nil {
		out.HTTP.Errors, err = answerMatch(e, path+".outlier_detection.error_matcher")
	}
	return err
}

// answerMatch reads what is said of an answer's head.
func answerMatch(m *matcherv3.MatchPredicate, path string) (out *route.AnswerMatch, err error) {
	each := func(set *matcherv3.MatchPredicate_MatchSet, path string) (out []route.AnswerMatch, err error) {
		for i, r := range set.GetRules() {
			a, err := answerMatch(r, at(path+".rules", i))
			if err != nil {
				return nil, err
			}
			out = append(out, *a)
		}
		return out, nil
	}
	out = &route.AnswerMatch{}
	switch r := m.GetRule().(type) {
	case *matcherv3.MatchPredicate_OrMatch:
		out.Any, err = each(r.OrMatch, path+".or_match")
	case *matcherv3.MatchPredicate_AndMatch:
		out.All, err = each(r.AndMatch, path+".and_match")
	case *matcherv3.MatchPredicate_NotMatch:
		out.Not, err = answerMatch(r.NotMatch, path+".not_match")
	case *matcherv3.MatchPredicate_HttpResponseHeadersMatch:
		here := path + ".http_response_headers_match.headers"
		if len(r.HttpResponseHeadersMatch.GetHeaders()) == 0 {
			return nil, fail(here, "is missing")
		}
		out.Headers, err = headerMatches(r.HttpResponseHeadersMatch.GetHeaders(), here)
	default:
		return nil, fail(path, "has no rule")
	}
	return out, err
}

func upstreamProtocol(u *upstreamHTTP, out *cluster.Config) error {
	if u.protocol == cluster.SpeakAuto && !usesTLS(out) {
		return fail(u.path, "needs a transport_socket with TLS: ALPN decides, and there is none without")
	}
	out.HTTP.Protocol = u.protocol
	// Without options too: absent fields have Envoy's defaults.
	if u.protocol != cluster.SpeakHTTP1 || u.http2 != nil {
		var err error
		if out.HTTP.HTTP2, err = http2Options(u.http2, u.paths[1]); err != nil {
			return err
		}
	}
	if err := commonHTTP(u.common, out, u.commonPath); err != nil || out.HTTP.HTTP2 == nil {
		return err
	}
	return fieldsFit(out.HTTP.HTTP2, out.HTTP.MaxResponseHeaderKB, u.paths[1], "max_response_headers_kb")
}

func (d *decoder) upstreamHTTP1(m *corev3.Http1ProtocolOptions, path string) (out cluster.HTTP1, err error) {
	if err := only(m, path, "has no meaning for an upstream; leave it empty",
		"enable_trailers", "header_key_format", "send_fully_qualified_url", "use_balsa_parser", "override_stream_error_on_invalid_http_message"); err != nil {
		return out, err
	}
	out.EnableTrailers, out.FullURL = m.GetEnableTrailers(), m.GetSendFullyQualifiedUrl()
	out.ProperCase, err = d.headerKeyFormat(m.GetHeaderKeyFormat(), path+".header_key_format")
	return out, err
}

func usesTLS(c *cluster.Config) bool {
	return c.TLS != nil || slices.ContainsFunc(c.Sockets, func(s cluster.SocketMatch) bool { return s.TLS != nil })
}

func commonHTTP(m *corev3.HttpProtocolOptions, out *cluster.Config, path string) error {
	if err := only(m, path, "has no meaning for an upstream", "idle_timeout", "max_connection_duration",
		"max_connection_duration_jitter", "max_requests_per_connection", "max_headers_count", "max_response_headers_kb",
		"max_stream_duration", "headers_with_underscores_action"); err != nil {
		return err
	}
	var err error
	if out.IdleTimeout, err = timeout(m.GetIdleTimeout(), path+".idle_timeout"); err != nil {
		return err
	}
	if out.HTTP.MaxConnectionDuration, err = duration(m.GetMaxConnectionDuration(), path+".max_connection_duration"); err != nil {
		return err
	}
	if out.HTTP.MaxStreamDuration, err = duration(m.GetMaxStreamDuration(), path+".max_stream_duration"); err != nil {
		return err
	}
	out.HTTP.MaxStreamDuration = out.HTTP.MaxStreamDuration.Truncate(time.Millisecond) // as Envoy: less is none
	if j := m.GetMaxConnectionDurationJitter(); j != nil {
		if err := percentage(j, path+".max_connection_duration_jitter"); err != nil {
			return err
		}
		out.HTTP.MaxConnectionJitter = j.GetValue()
	}
	if n := m.GetMaxRequestsPerConnection(); n != nil {
		out.HTTP.MaxRequestsPerConnection = int(n.GetValue())
	}
	out.HTTP.MaxResponseHeaders = int(m.GetMaxHeadersCount().GetValue())
	out.HTTP.MaxResponseHeaderKB = int(m.GetMaxResponseHeadersKb().GetValue())
	return nil
}
