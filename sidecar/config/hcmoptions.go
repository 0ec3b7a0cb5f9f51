package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"math"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlymutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	preservecasev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/header_formatters/preserve_case/v3"
	customheaderv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/original_ip_detection/custom_header/v3"
	xffv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/original_ip_detection/xff/v3"
	uuidv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
)

func hcmTrust(m *hcmv3.HttpConnectionManager, out *hcm.Config, path string) (err error) {
	out.Trust = hcm.Trust{
		UseRemoteAddress:    m.GetUseRemoteAddress().GetValue(),
		SkipXFFAppend:       m.GetSkipXffAppend(),
		XFFTrustedHops:      int(m.GetXffNumTrustedHops()),
		InternalUnixSockets: m.GetInternalAddressConfig().GetUnixSockets(),
		AppendForwardedPort: m.GetAppendXForwardedPort(),
		MapIPv4:             m.GetRepresentIpv4RemoteAddressAsIpv4MappedIpv6(),
		Via:                 m.GetVia(),
		AddUserAgent:        m.GetAddUserAgent().GetValue(),
		PreserveRequestID:   m.GetPreserveExternalRequestId(),
		RequestIDInResponse: m.GetAlwaysSetRequestIdInResponse(),
	}
	if out.Internal, err = prefixes(m.GetInternalAddressConfig().GetCidrRanges(), path+".internal_address_config.cidr_ranges"); err != nil {
		return err
	}
	forwarded := m.GetForwardProtoConfig()
	if out.HTTPSPorts, err = ports(forwarded.GetHttpsDestinationPorts(), path+".forward_proto_config.https_destination_ports"); err != nil {
		return err
	}
	if out.HTTPPorts, err = ports(forwarded.GetHttpDestinationPorts(), path+".forward_proto_config.http_destination_ports"); err != nil {
		return err
	}
	out.Scheme = strings.ToLower(m.GetSchemeHeaderTransformation().GetSchemeToOverwrite())
	out.MatchUpstreamScheme = out.Scheme == "" && m.GetSchemeHeaderTransformation().GetMatchUpstream()
	return nil
}

func ports(numbers []uint32, path string) (out []uint16, err error) {
	for i, n := range numbers {
		if n > math.MaxUint16 {
			return nil, fail(at(path, i), "%d is no port", n)
		}
		out = append(out, uint16(n))
	}
	return out, nil
}

// hcmDetection reads the extensions that find the client. One that does what
// xff_num_trusted_hops does is read as that.
func (d *decoder) hcmDetection(m *hcmv3.HttpConnectionManager, out *hcm.Config, path string) error {
	path += ".original_ip_detection_extensions"
	switch extensions := m.GetOriginalIpDetectionExtensions(); {
	case len(extensions) == 0:
		return nil
	case out.UseRemoteAddress:
		return fail(path, "cannot be used together with use_remote_address")
	case out.XFFTrustedHops > 0:
		return fail(path, "cannot be used together with xff_num_trusted_hops")
	}
	for i, e := range m.GetOriginalIpDetectionExtensions() {
		one, err := d.detection(e.GetTypedConfig(), at(path, i)+".typed_config")
		if err != nil {
			return err
		}
		out.Detections = append(out.Detections, one)
	}
	if one := out.Detections[0]; len(out.Detections) == 1 && one.Header == "" && one.Trusted == nil && !one.AppendPeer {
		out.Detections, out.XFFTrustedHops = nil, one.Hops
	}
	return nil
}

func (d *decoder) detection(m *anypb.Any, path string) (out hcm.Detection, err error) {
	if c, ok := extension[*customheaderv3.CustomHeaderConfig](d, m); ok {
		return detectionByHeader(c, path)
	}
	c, ok := extension[*xffv3.XffConfig](d, m)
	if !ok {
		return out, fail(path, "is that of neither xff nor custom_header; others are not known")
	}
	out.AppendPeer = c.GetSkipXffAppend() != nil && !c.GetSkipXffAppend().GetValue()
	out.Hops = int(c.GetXffNumTrustedHops())
	if c.GetXffTrustedCidrs() == nil {
		return out, nil
	}
	switch path := path + ".xff_trusted_cidrs"; {
	case out.Hops > 0:
		return out, fail(path, "cannot be used together with xff_num_trusted_hops")
	case len(c.GetXffTrustedCidrs().GetCidrs()) == 0:
		return out, fail(path+".cidrs", "is empty; nobody would be trusted")
	}
	out.Trusted, err = prefixes(c.GetXffTrustedCidrs().GetCidrs(), path+".xff_trusted_cidrs.cidrs")
	return out, err
}

// detectionByHeader: a status that is no refusal is 403, as in Envoy.
func detectionByHeader(c *customheaderv3.CustomHeaderConfig, path string) (out hcm.Detection, err error) {
	name := strings.ToLower(c.GetHeaderName())
	if name == "" || strings.ContainsFunc(name, notInNames) {
		return out, fail(path+".header_name", "%q is no name of a header (RFC 9110 5.1)", c.GetHeaderName())
	}
	out.Header, out.Internal = name, c.GetAllowExtensionToSetAddressAsTrusted()
	if r := c.GetRejectWithStatus(); r != nil {
		if out.Reject = int(r.GetCode()); out.Reject < 400 || out.Reject > 511 {
			out.Reject = 403
		}
	}
	return out, nil
}

// hcmRequestID takes Envoy's own extension, whose way of making ids is the only one.
func (d *decoder) hcmRequestID(m *hcmv3.HttpConnectionManager, out *hcm.Config, path string) error {
	c, ok := d.unpacked[m.GetRequestIdExtension().GetTypedConfig()].(*uuidv3.UuidRequestIdConfig)
	here := path + ".request_id_extension.typed_config"
	switch {
	case !ok:
		return nil
	case c.GetUseRequestIdForTraceSampling() != nil && !c.GetUseRequestIdForTraceSampling().GetValue():
		return fail(here+".use_request_id_for_trace_sampling", "requests are always sampled by their id")
	}
	out.KeepTraceReason = c.GetPackTraceReason() != nil && !c.GetPackTraceReason().GetValue()
	return nil
}

// hcmEarly takes extensions of Envoy's only kind, which is one list of mutations for all of them.
func (d *decoder) hcmEarly(m *hcmv3.HttpConnectionManager, out *hcm.Config, path string) error {
	for i, e := range m.GetEarlyHeaderMutationExtensions() {
		here := at(path+".early_header_mutation_extensions", i) + ".typed_config"
		c, ok := extension[*earlymutationv3.HeaderMutation](d, e.GetTypedConfig())
		if !ok {
			return fail(here, "is not that of header_mutation; others are not known")
		}
		steps, err := headerSteps(c.GetMutations(), here+".mutations", ofRequest)
		if err != nil {
			return err
		}
		out.EarlyMutations = append(out.EarlyMutations, steps...)
	}
	return nil
}

func hcmHost(m *hcmv3.HttpConnectionManager, out *hcm.Config, path string) error {
	out.StripDot = m.GetStripTrailingHostDot()
	switch {
	case m.GetStripMatchingHostPort() && m.GetStripAnyHostPort():
		return fail(path+".strip_any_host_port", "cannot be used together with strip_matching_host_port")
	case m.GetStripMatchingHostPort():
		out.StripPort = hcm.StripOwnPort
	case m.GetStripAnyHostPort():
		out.StripPort = hcm.StripAnyPort
	}
	return nil
}

// defaultDrainTimeout is Envoy's.
const defaultDrainTimeout = 5 * time.Second

func hcmLifetime(m *hcmv3.HttpConnectionManager, out *hcm.Config, path string) (err error) {
	common, here := m.GetCommonHttpProtocolOptions(), path+".common_http_protocol_options"
	out.SafeMaxDuration = m.GetHttp1SafeMaxConnectionDuration()
	out.MaxRequests = int(common.GetMaxRequestsPerConnection().GetValue())
	if out.MaxConnectionDuration, err = duration(common.GetMaxConnectionDuration(), here+".max_connection_duration"); err != nil {
		return err
	}
	if j := common.GetMaxConnectionDurationJitter(); j != nil {
		if err := percentage(j, here+".max_connection_duration_jitter"); err != nil {
			return err
		}
		out.MaxConnectionJitter = j.GetValue()
	}
	if out.DrainTimeout, err = duration(m.GetDrainTimeout(), path+".drain_timeout"); err != nil {
		return err
	}
	switch {
	case m.GetDrainTimeout() == nil:
		out.DrainTimeout = defaultDrainTimeout
	case out.DrainTimeout == 0:
		out.DrainTimeout = 1 // at once
	}
	if j := m.GetDrainTimeoutJitter(); j != nil {
		if err := percentage(j, path+".drain_timeout_jitter"); err != nil {
			return err
		}
		out.DrainJitter = j.GetValue()
	}
	if out.DelayedClose, err = optional(m.GetDelayedCloseTimeout(), path+".delayed_close_timeout"); err != nil {
		return err
	}
	out.FlushTimeout, err = optional(m.GetStreamFlushTimeout(), path+".stream_flush_timeout")
	return err
}

func (d *decoder) hcmHTTP1(m *hcmv3.HttpConnectionManager, out *hcm.Config, path string) error {
	h1, here := m.GetHttpProtocolOptions(), path+".http_protocol_options"
	if a := h1.GetAllowAbsoluteUrl(); a != nil && !a.GetValue() {
		return fail(here+".allow_absolute_url", "absolute-form targets are always understood (RFC 9112 3.2.2); remove the field")
	}
	if h1.GetSendFullyQualifiedUrl() {
		return fail(here+".send_fully_qualified_url", "is for requests to an upstream; set it in the cluster")
	}
	out.HTTP1 = hcm.HTTP1{
		AcceptHTTP10: h1.GetAcceptHttp_10(), DefaultHost: h1.GetDefaultHostForHttp_10(), EnableTrailers: h1.GetEnableTrailers(),
		AllowCustomMethods: h1.GetAllowCustomMethods(), KeepAfterBadRequest: m.GetStreamErrorOnInvalidHttpMessage().GetValue(),
	}
	// The codec's own setting goes before the manager's.
	if own := h1.GetOverrideStreamErrorOnInvalidHttpMessage(); own != nil {
		out.KeepAfterBadRequest = own.GetValue()
	}
	var err error
	if out.ProperCase, err = d.headerKeyFormat(h1.GetHeaderKeyFormat(), here+".header_key_format"); err != nil {
		return err
	}
	for i, u := range h1.GetIgnoreHttp_11Upgrade() {
		match, err := stringMatch(u, at(here+".ignore_http_11_upgrade", i))
		if err != nil {
			return err
		}
		out.IgnoreUpgrade = append(out.IgnoreUpgrade, *match)
	}
	return nil
}

// headerKeyFormat tells whether names are written with capitals. Names keep the case
// they were received with otherwise, as with Envoy's preserve_case.
func (d *decoder) headerKeyFormat(m *corev3.Http1ProtocolOptions_HeaderKeyFormat, path string) (proper bool, err error) {
	if f := m.GetStatefulFormatter(); f != nil {
		if _, ok := extension[*preservecasev3.PreserveCaseFormatterConfig](d, f.GetTypedConfig()); !ok {
			return false, fail(path+".stateful_formatter.typed_config", "is not that of preserve_case; others are not known")
		}
	}
	return m.GetProperCaseWords() != nil, nil
}

func hcmLogs(m *hcmv3.HttpConnectionManager, out *hcm.Config, path string) (err error) {
	o := m.GetAccessLogOptions()
	out.LogStart = m.GetFlushAccessLogOnNewRequest()
	out.LogInterval, err = duration(m.GetAccessLogFlushInterval(), path+".access_log_flush_interval")
	if o == nil || err != nil {
		return err
	}
	if out.LogStart || m.GetAccessLogFlushInterval() != nil {
		return fail(path+".access_log_options", "the deprecated fields of the same meaning are set too; use one of them")
	}
	out.LogStart, out.LogTunnels = o.GetFlushAccessLogOnNewRequest(), o.GetFlushLogOnTunnelSuccessfullyEstablished()
	out.LogInterval, err = duration(o.GetAccessLogFlushInterval(), path+".access_log_options.access_log_flush_interval")
	return err
}
