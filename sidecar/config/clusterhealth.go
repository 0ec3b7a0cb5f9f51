package config

import (
	"encoding/hex"
	"slices"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	eventfilev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/health_check/event_sinks/file/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// defaultNoTraffic is Envoy's interval for clusters that nobody uses.
const defaultNoTraffic = time.Minute

// healthCheck reads active health checking.
func (d *decoder) healthCheck(m *clusterv3.Cluster, out *cluster.Config) error {
	if len(m.GetHealthChecks()) == 0 {
		return nil
	}
	if len(m.GetHealthChecks()) > 1 {
		return fail("health_checks[1]", "a cluster has one health check, as in Envoy")
	}
	const path = "health_checks[0]"
	if out.Type == cluster.Aggregate || out.Type == cluster.OriginalDestination {
		return fail(path, "the cluster has no endpoints of its own")
	}
	h := m.GetHealthChecks()[0]
	c := &cluster.HealthCheck{
		UnhealthyThreshold: int(h.GetUnhealthyThreshold().GetValue()), HealthyThreshold: int(h.GetHealthyThreshold().GetValue()),
		JitterPercent: int(h.GetIntervalJitterPercent()), ALPN: h.GetTlsOptions().GetAlpnProtocols(),
		AlwaysLogFailures: h.GetAlwaysLogHealthCheckFailures(), AlwaysLogSuccess: h.GetAlwaysLogHealthCheckSuccess(),
	}
	if c.UnhealthyThreshold == 0 || c.HealthyThreshold == 0 {
		return fail(path, "thresholds must be at least 1")
	}
	if r := h.GetReuseConnection(); r != nil {
		c.NoReuse = !r.GetValue()
	}
	if s := h.GetTransportSocketMatchCriteria(); s != nil {
		c.SocketMatch = s.AsMap()
	}
	if err := checkTimes(h, c, path); err != nil {
		return err
	}
	if err := d.checkEvents(h, c, path); err != nil {
		return err
	}
	var err error
	switch k := h.GetHealthChecker().(type) {
	case *corev3.HealthCheck_HttpHealthCheck_:
		if k.HttpHealthCheck.GetUseAlpnProtocol() && !usesTLS(out) {
			return fail(path+".http_health_check.use_alpn_protocol", "needs a transport_socket with TLS: there is no ALPN without")
		}
		c.HTTP, err = httpCheck(k.HttpHealthCheck, path+".http_health_check")
	case *corev3.HealthCheck_TcpHealthCheck_:
		c.TCP, err = tcpCheck(k.TcpHealthCheck, path+".tcp_health_check")
	case *corev3.HealthCheck_GrpcHealthCheck_:
		if out.HTTP.Protocol == cluster.SpeakHTTP1 {
			return fail(path+".grpc_health_check", "needs a cluster that speaks HTTP/2; set its protocol options")
		}
		c.GRPC = &cluster.GRPCCheck{Service: k.GrpcHealthCheck.GetServiceName(), Authority: k.GrpcHealthCheck.GetAuthority()}
		c.GRPC.Metadata, err = checkHeaders(k.GrpcHealthCheck.GetInitialMetadata(), path+".grpc_health_check.initial_metadata")
	default:
		err = fail(path, "has no http_health_check, tcp_health_check or grpc_health_check")
	}
	out.HealthCheck = c
	return err
}

func tcpCheck(m *corev3.HealthCheck_TcpHealthCheck, path string) (*cluster.TCPCheck, error) {
	out := &cluster.TCPCheck{}
	var err error
	if out.Send, err = payload(m.GetSend(), path+".send"); err != nil {
		return nil, err
	}
	if out.Receive, err = payloads(m.GetReceive(), path+".receive"); err != nil {
		return nil, err
	}
	if p := m.GetProxyProtocolConfig(); p != nil {
		here := path + ".proxy_protocol_config"
		if err := only(p, here, "is for clients; a check is nobody's", "version"); err != nil {
			return nil, err
		}
		out.Announce, err = announcement(p, here)
	}
	return out, err
}

// checkEvents reads where events go. Of the two ways to say it both stand, as in Envoy.
func (d *decoder) checkEvents(h *corev3.HealthCheck, out *cluster.HealthCheck, path string) error {
	//lint:ignore SA1019 deprecated, and still taken by Envoy
	if p := h.GetEventLogPath(); p != "" {
		out.Events = append(out.Events, cluster.CheckLog{Path: p, Field: path + ".event_log_path"})
	}
	for i, l := range h.GetEventLogger() {
		here := at(path+".event_logger", i)
		const field = ".typed_config.event_log_path"
		sink, ok := extension[*eventfilev3.HealthCheckEventFileSink](d, l.GetTypedConfig())
		if !ok {
			return fail(here, "is no HealthCheckEventFileSink")
		}
		if sink.GetEventLogPath() == "" {
			return fail(here+field, "is empty")
		}
		out.Events = append(out.Events, cluster.CheckLog{Path: sink.GetEventLogPath(), Field: here + field})
	}
	return nil
}

// checkTimes fills in Envoy's defaults: each special interval falls back on a more
// general one.
func checkTimes(h *corev3.HealthCheck, c *cluster.HealthCheck, path string) error {
	for _, f := range []struct {
		d      *durationpb.Duration
		to     *time.Duration
		absent func() time.Duration
		name   string
	}{
		{h.GetTimeout(), &c.Timeout, nil, "timeout"},
		{h.GetInterval(), &c.Interval, nil, "interval"},
		{h.GetNoTrafficInterval(), &c.NoTraffic, func() time.Duration { return defaultNoTraffic }, "no_traffic_interval"},
		{h.GetNoTrafficHealthyInterval(), &c.NoTrafficHealthy, func() time.Duration { return c.NoTraffic }, "no_traffic_healthy_interval"},
		{h.GetUnhealthyInterval(), &c.Unhealthy, func() time.Duration { return c.Interval }, "unhealthy_interval"},
		{h.GetUnhealthyEdgeInterval(), &c.UnhealthyEdge, func() time.Duration { return c.Unhealthy }, "unhealthy_edge_interval"},
		{h.GetHealthyEdgeInterval(), &c.HealthyEdge, func() time.Duration { return c.Interval }, "healthy_edge_interval"},
		{h.GetInitialJitter(), &c.InitialJitter, func() time.Duration { return 0 }, "initial_jitter"},
		{h.GetIntervalJitter(), &c.Jitter, func() time.Duration { return 0 }, "interval_jitter"},
	} {
		if f.d == nil && f.absent != nil {
			*f.to = f.absent()
			continue
		}
		var err error
		if *f.to, err = duration(f.d, under(path, f.name)); err != nil {
			return err
		}
	}
	return nil
}

// defaultCheckBody is how much of a body Envoy looks at.
const defaultCheckBody = 1024

func httpCheck(m *corev3.HealthCheck_HttpHealthCheck, path string) (*cluster.HTTPCheck, error) {
	out := &cluster.HTTPCheck{Host: m.GetHost(), Path: m.GetPath(), BodyLimit: defaultCheckBody, ByALPN: m.GetUseAlpnProtocol()}
	switch m.GetCodecClientType() {
	case typev3.CodecClientType_HTTP1:
	case typev3.CodecClientType_HTTP2:
		out.HTTP2 = true
	default:
		return nil, fail(path+".codec_client_type", "is %s; use HTTP1 or HTTP2", m.GetCodecClientType())
	}
	if m.GetMethod() != corev3.RequestMethod_METHOD_UNSPECIFIED {
		out.Method = m.GetMethod().String()
	}
	if b := m.GetResponseBufferSize(); b != nil {
		out.BodyLimit = int(min(b.GetValue(), 1<<30))
	}
	var err error
	if out.Body, err = payload(m.GetSend(), path+".send"); err != nil {
		return nil, err
	}
	if len(out.Body) > 0 && slices.Contains([]string{"", "GET", "HEAD", "DELETE", "TRACE"}, out.Method) {
		return nil, fail(path+".send", "method %s has no body; use POST, PUT, PATCH or OPTIONS", m.GetMethod())
	}
	if out.Receive, err = payloads(m.GetReceive(), path+".receive"); err != nil {
		return nil, err
	}
	total := 0
	for _, p := range out.Receive {
		total += len(p)
	}
	if out.BodyLimit > 0 && total > out.BodyLimit {
		return nil, fail(path+".response_buffer_size", "is less than what receive expects")
	}
	if out.Expected, err = statuses(m.GetExpectedStatuses(), path+".expected_statuses"); err != nil {
		return nil, err
	}
	if out.Retriable, err = statuses(m.GetRetriableStatuses(), path+".retriable_statuses"); err != nil {
		return nil, err
	}
	if out.Headers, err = checkHeaders(m.GetRequestHeadersToAdd(), path+".request_headers_to_add"); err != nil {
		return nil, err
	}
	for _, h := range m.GetRequestHeadersToRemove() {
		out.Remove = append(out.Remove, strings.ToLower(h))
	}
	if s := m.GetServiceNameMatcher(); s != nil {
		out.ServiceName, err = nameMatch(s, path+".service_name_matcher")
	}
	return out, err
}

func statuses(ranges []*typev3.Int64Range, path string) ([]cluster.StatusRange, error) {
	var out []cluster.StatusRange
	for i, r := range ranges {
		if r.GetStart() < 100 || r.GetEnd() > 600 || r.GetStart() >= r.GetEnd() {
			return nil, fail(at(path, i), "[%d, %d) is not a range of status codes from 100 to 599", r.GetStart(), r.GetEnd())
		}
		out = append(out, cluster.StatusRange{From: int(r.GetStart()), To: int(r.GetEnd())})
	}
	return out, nil
}

// checkHeaders reads what a check's headers are to have besides.
func checkHeaders(ms []*corev3.HeaderValueOption, path string) ([]route.HeaderAdd, error) {
	var out []route.HeaderAdd
	for i, m := range ms {
		here := at(path, i)
		h := route.HeaderAdd{Name: m.GetHeader().GetKey(), Value: m.GetHeader().GetValue(), KeepEmpty: m.GetKeepEmptyValue()}
		switch lower := strings.ToLower(h.Name); {
		case h.Name == "" || h.Name[0] == ':' || lower == "host" || lower == "content-length" || lower == "transfer-encoding" || lower == "connection":
			return nil, fail(here+".header.key", "%q cannot be set here; host and the body's length have fields of their own", h.Name)
		}
		if err := checkValue(h.Value, here+".header.value"); err != nil {
			return nil, err
		}
		var err error
		if h.Action, err = appendAction(m, here); err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, nil
}

func payloads(ms []*corev3.HealthCheck_Payload, path string) ([][]byte, error) {
	var out [][]byte
	for i, m := range ms {
		p, err := payload(m, at(path, i))
		if err != nil {
			return nil, err
		}
		if len(p) == 0 {
			return nil, fail(at(path, i), "is empty")
		}
		out = append(out, p)
	}
	return out, nil
}

// payload reads bytes, which Envoy's text form has in hexadecimal.
func payload(m *corev3.HealthCheck_Payload, path string) ([]byte, error) {
	if m.GetText() == "" {
		return m.GetBinary(), nil
	}
	b, err := hex.DecodeString(m.GetText())
	if err != nil {
		return nil, fail(path+".text", "%q is not hexadecimal", m.GetText())
	}
	return b, nil
}

func nameMatch(m *matcherv3.StringMatcher, path string) (*cluster.NameMatch, error) {
	s, err := stringMatch(m, path)
	if err != nil {
		return nil, err
	}
	return clusterMatch(s), nil
}

func clusterMatch(s *route.StringMatch) *cluster.NameMatch {
	return &cluster.NameMatch{
		Exact: s.Exact, Prefix: s.Prefix, Suffix: s.Suffix, Contains: s.Contains, Regex: s.Regex, IgnoreCase: s.IgnoreCase,
	}
}
