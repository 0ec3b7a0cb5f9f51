package telemetry

import (
	"crypto/tls"
	"net"
	"net/netip"
	"os"
	"strconv"

	"github.com/hauberk-mesh/hauberk/xds/logformat"
)

// OperatorDoc is one row of the documentation.
type OperatorDoc struct{ Name, Argument, Help string }

type valueFunc = func(dst []byte, r *Record) []byte

type operatorDef struct {
	OperatorDoc
	value        valueFunc
	withArgument func(argument string) (valueFunc, error)
}

// OperatorDocs lists the operators of access-log formats.
func OperatorDocs() []OperatorDoc {
	out := make([]OperatorDoc, len(operators))
	for i := range operators {
		out[i] = operators[i].OperatorDoc
	}
	return out
}

func text(name, help string, get func(*Record) string) operatorDef {
	return operatorDef{OperatorDoc: OperatorDoc{Name: name, Help: help},
		value: func(dst []byte, r *Record) []byte { return append(dst, get(r)...) }}
}

func number(name, help string, get func(*Record) int64) operatorDef {
	return operatorDef{OperatorDoc: OperatorDoc{Name: name, Help: help},
		value: func(dst []byte, r *Record) []byte { return strconv.AppendInt(dst, get(r), 10) }}
}

func address(name, help string, get func(*Record) net.Addr) operatorDef {
	return operatorDef{OperatorDoc: OperatorDoc{Name: name, Help: help},
		value: func(dst []byte, r *Record) []byte { return appendAddr(dst, get(r), true) }}
}

func host(name, help string, get func(*Record) net.Addr) operatorDef {
	return operatorDef{OperatorDoc: OperatorDoc{Name: name, Help: help},
		value: func(dst []byte, r *Record) []byte { return appendAddr(dst, get(r), false) }}
}

func header(name, help string, get func(*Record) Headers) operatorDef {
	return operatorDef{OperatorDoc: OperatorDoc{Name: name, Argument: "NAME?ALTERNATIVE", Help: help},
		withArgument: func(argument string) (valueFunc, error) { return headerValue(argument, get) }}
}

var operators = []operatorDef{
	{OperatorDoc: OperatorDoc{"START_TIME", "FORMAT", "When the request or connection began, UTC. FORMAT is strftime's, with %E3S, %1f to %9f, %s; RFC 3339 with milliseconds when absent."},
		withArgument: timeValue},
	header("REQ", "Request header, or the alternative when it is absent; pseudo-headers are :METHOD, :PATH, :AUTHORITY, :SCHEME.", func(r *Record) Headers { return r.RequestHeaders }),
	header("RESP", "Response header, or the alternative when it is absent.", func(r *Record) Headers { return r.ResponseHeaders }),
	text("PROTOCOL", "HTTP/1.1, HTTP/1.0, HTTP/2 or HTTP/3; absent for a plain connection.", func(r *Record) string { return r.Protocol }),
	number("RESPONSE_CODE", "Status code; 0 when no response began.", func(r *Record) int64 { return int64(r.Code) }),
	{OperatorDoc: OperatorDoc{Name: "RESPONSE_FLAGS", Help: "What went wrong, see the table of flags; absent when nothing did."},
		value: func(dst []byte, r *Record) []byte {
			if r.Flags == 0 {
				return dst
			}
			return r.Flags.appendTo(dst)
		}},
	text("RESPONSE_CODE_DETAILS", "Why the code was given.", func(r *Record) string { return r.CodeDetails }),
	text("CONNECTION_TERMINATION_DETAILS", "Why the sidecar closed the connection.", func(r *Record) string { return r.ConnectionTermination }),
	number("BYTES_RECEIVED", "Body bytes received from the downstream; all bytes of a plain connection.", func(r *Record) int64 { return r.BytesReceived }),
	number("BYTES_SENT", "Body bytes sent to the downstream; all bytes of a plain connection.", func(r *Record) int64 { return r.BytesSent }),
	number("DURATION", "Milliseconds from the beginning to the end.", func(r *Record) int64 { return r.Duration.Milliseconds() }),
	address("UPSTREAM_HOST", "Address of the upstream that answered or was tried last.", func(r *Record) net.Addr { return r.UpstreamHost }),
	address("UPSTREAM_REMOTE_ADDRESS", "The same.", func(r *Record) net.Addr { return r.UpstreamHost }),
	host("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "The same without the port.", func(r *Record) net.Addr { return r.UpstreamHost }),
	address("UPSTREAM_LOCAL_ADDRESS", "Own address of the upstream connection.", func(r *Record) net.Addr { return r.UpstreamLocal }),
	text("UPSTREAM_CLUSTER", "Cluster that the route or filter chose.", func(r *Record) string { return r.Cluster }),
	text("UPSTREAM_CLUSTER_RAW", "The same.", func(r *Record) string { return r.Cluster }),
	text("UPSTREAM_TRANSPORT_FAILURE_REASON", "Why the upstream connection or its handshake failed.", func(r *Record) string { return r.UpstreamTransportFailure }),
	number("UPSTREAM_REQUEST_ATTEMPT_COUNT", "Upstream attempts.", func(r *Record) int64 { return int64(r.Attempts) }),
	text("UPSTREAM_PEER_URI_SAN", "SPIFFE ID that the upstream proved.", func(r *Record) string { return r.UpstreamPeerID }),
	text("UPSTREAM_LOCAL_URI_SAN", "SPIFFE ID shown to the upstream.", func(r *Record) string { return r.UpstreamOwnID }),
	text("UPSTREAM_TLS_VERSION", "TLS version of the upstream connection.", func(r *Record) string { return tlsVersion(r.UpstreamTLSVersion) }),
	text("LOCAL_REPLY_BODY", "The text of an answer of our own.", func(r *Record) string { return r.LocalReply }),
	text("ACCESS_LOG_TYPE", "On which occasion the record is logged.", func(r *Record) string { return r.Type.String() }),
	text("ROUTE_NAME", "Name of the route that matched.", func(r *Record) string { return r.Route }),
	text("FILTER_CHAIN_NAME", "Name of the filter chain.", func(r *Record) string { return r.Chain }),
	text("REQUESTED_SERVER_NAME", "SNI of the downstream connection.", func(r *Record) string { return r.SNI }),
	address("DOWNSTREAM_REMOTE_ADDRESS", "The client's address; a trusted hop may have named it.", func(r *Record) net.Addr { return r.DownstreamRemote }),
	host("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "The same without the port.", func(r *Record) net.Addr { return r.DownstreamRemote }),
	text("DOWNSTREAM_REMOTE_PORT", "The client's port.", func(r *Record) string { return port(r.DownstreamRemote) }),
	address("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", "Address at the other end of the connection.", func(r *Record) net.Addr { return r.DownstreamDirect }),
	host("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", "The same without the port.", func(r *Record) net.Addr { return r.DownstreamDirect }),
	address("DOWNSTREAM_LOCAL_ADDRESS", "Own address of the downstream connection.", func(r *Record) net.Addr { return r.DownstreamLocal }),
	host("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "The same without the port.", func(r *Record) net.Addr { return r.DownstreamLocal }),
	text("DOWNSTREAM_LOCAL_PORT", "Own port.", func(r *Record) string { return port(r.DownstreamLocal) }),
	text("DOWNSTREAM_PEER_URI_SAN", "SPIFFE ID that the client proved.", func(r *Record) string { return r.PeerID }),
	text("DOWNSTREAM_LOCAL_URI_SAN", "SPIFFE ID shown to the client.", func(r *Record) string { return r.OwnID }),
	text("DOWNSTREAM_TLS_VERSION", "TLS version of the downstream connection.", func(r *Record) string { return tlsVersion(r.TLSVersion) }),
	text("DOWNSTREAM_TLS_CIPHER", "Cipher suite of the downstream connection.", func(r *Record) string { return cipherName(r.CipherSuite) }),
	text("DOWNSTREAM_TRANSPORT_FAILURE_REASON", "Why the downstream handshake failed.", func(r *Record) string { return r.TransportFailure }),
	number("CONNECTION_ID", "Number of the downstream connection in this process.", func(r *Record) int64 { return int64(r.ConnectionID) }),
	text("HOSTNAME", "Name of this host.", func(*Record) string { return hostname }),

	text("HAUBERK_DIRECTION", "inbound, outbound or unspecified.", func(r *Record) string { return r.Direction.String() }),
	text("HAUBERK_LISTENER", "Name of the listener.", func(r *Record) string { return r.Listener }),
	text("HAUBERK_SERVICE", "Service of the workload whose listener this is.", func(r *Record) string { return r.Service }),
	text("HAUBERK_WORKLOAD", "SPIFFE ID of the workload whose listener this is.", func(r *Record) string { return r.Workload }),
	text("HAUBERK_SRC_ID", "SPIFFE ID of who asked: the verified peer inbound, the workload outbound.", (*Record).SourceID),
	text("HAUBERK_DST_ID", "SPIFFE ID of who was asked: the workload inbound, the verified upstream outbound.", (*Record).DestinationID),
	text("HAUBERK_DECISION", "allow or deny; absent when no rule was asked.", (*Record).decision),
	text("HAUBERK_RULE", "The authorization rule that decided.", func(r *Record) string { return r.Rule }),
	text("HAUBERK_SHADOW_RULE", "The shadow rule that would have decided, with its decision.", (*Record).shadow),
	number("HAUBERK_RETRIES", "Upstream attempts after the first.", func(r *Record) int64 { return int64(r.Retries()) }),
	text("HAUBERK_VIRTUAL_HOST", "Virtual host that matched.", func(r *Record) string { return r.VirtualHost }),
	text("HAUBERK_FAILURE", "Why a handshake or connection failed, on either side.", (*Record).failure),
	{OperatorDoc: OperatorDoc{Name: "HAUBERK_UPSTREAM_DURATION", Help: "Milliseconds that the upstream took to begin its answer."},
		value: func(dst []byte, r *Record) []byte {
			if r.UpstreamDuration < 0 {
				return dst
			}
			return strconv.AppendInt(dst, r.UpstreamDuration.Milliseconds(), 10)
		}},
}

var hostname = func() string { h, _ := os.Hostname(); return h }()

func (r *Record) decision() string {
	switch {
	case r.Denied:
		return "deny"
	case r.Rule != "":
		return "allow"
	}
	return ""
}

func (r *Record) shadow() string {
	switch {
	case r.ShadowRule == "":
		return ""
	case r.ShadowDenied:
		return "deny: " + r.ShadowRule
	}
	return "allow: " + r.ShadowRule
}

func (r *Record) failure() string {
	if r.TransportFailure != "" {
		return r.TransportFailure
	}
	return r.UpstreamTransportFailure
}

func headerValue(argument string, get func(*Record) Headers) (valueFunc, error) {
	first, second, err := logformat.HeaderNames(argument)
	if err != nil {
		return nil, err
	}
	return func(dst []byte, r *Record) []byte {
		h := get(r)
		if h == nil {
			return dst
		}
		v, ok := h.Header(first)
		if !ok && second != "" {
			v, _ = h.Header(second)
		}
		return append(dst, v...)
	}, nil
}

func appendAddr(dst []byte, a net.Addr, withPort bool) []byte {
	var ap netip.AddrPort
	switch a := a.(type) {
	case nil:
		return dst
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	default:
		return append(dst, a.String()...)
	}
	if !ap.IsValid() {
		return dst
	}
	if withPort {
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).AppendTo(dst)
	}
	return ap.Addr().Unmap().AppendTo(dst)
}

func port(a net.Addr) string {
	if t, ok := a.(*net.TCPAddr); ok {
		return strconv.Itoa(t.Port)
	}
	return ""
}

func tlsVersion(v uint16) string {
	switch v {
	case 0:
		return ""
	case tls.VersionTLS12:
		return "TLSv1.2"
	case tls.VersionTLS13:
		return "TLSv1.3"
	}
	return "unknown"
}

func cipherName(id uint16) string {
	if id == 0 {
		return ""
	}
	return tls.CipherSuiteName(id)
}

// rfc3339Millis is Envoy's default.
const rfc3339Millis = "2006-01-02T15:04:05.000Z"

func timeValue(argument string) (valueFunc, error) {
	if argument == "" {
		return func(dst []byte, r *Record) []byte { return r.Start.UTC().AppendFormat(dst, rfc3339Millis) }, nil
	}
	parts, err := logformat.ParseTime(argument)
	if err != nil {
		return nil, err
	}
	return func(dst []byte, r *Record) []byte {
		t := r.Start.UTC()
		for i := range parts {
			dst = parts[i].Append(dst, t)
		}
		return dst
	}, nil
}
