package telemetry

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/percent"
	"github.com/hauberk-mesh/hauberk/xds/logformat"
)

func header(name, help string, w Want, lists map[string]bool, get func(*Record) Headers) operatorDef {
	d := takes(name, "NAME?ALTERNATIVE", help, func(argument string) (valueFunc, error) { return headerValue(argument, lists, get) })
	d.wants = w
	return d
}

func sizeOf(name, help string, w Want, get func(*Record) Headers) operatorDef {
	d := number(name, help, func(r *Record) int64 {
		if h, ok := get(r).(interface{ Bytes() int }); ok {
			return int64(h.Bytes())
		}
		return 0
	})
	d.wants = w
	return d
}

func requestHeaders(r *Record) Headers   { return r.RequestHeaders }
func responseHeaders(r *Record) Headers  { return r.ResponseHeaders }
func responseTrailers(r *Record) Headers { return r.ResponseTrailers }

var exchangeOperators = []operatorDef{
	header("REQ", "Request header, or the alternative when it is absent; pseudo-headers are :METHOD, :PATH, :AUTHORITY, :SCHEME.", 0, listsOfRequest, requestHeaders),
	header("REQUEST_HEADER", "The same.", 0, listsOfRequest, requestHeaders),
	header("RESP", "Response header, or the alternative when it is absent.", 0, listsOfResponse, responseHeaders),
	header("RESPONSE_HEADER", "The same.", 0, listsOfResponse, responseHeaders),
	header("TRAILER", "Response trailer, or the alternative when it is absent.", WantTrailers, listsOfTrailers, responseTrailers),
	header("RESPONSE_TRAILER", "The same.", WantTrailers, listsOfTrailers, responseTrailers),
	takes("REQ_WITHOUT_QUERY", "NAME?ALTERNATIVE", "As REQ, up to the first question mark of the value.", headerWithoutQuery),
	takes("PATH", "WQ or NQ:ORIG, PATH or ORIG_OR_PATH", "The request's path with or without query, before or after it was rewritten.", pathValue),
	takes("QUERY_PARAM", "NAME", "The first parameter of this name in the query, decoded.", queryValue),
	takes("QUERY_PARAMS", "ORIG or DECODED", "The query, as it was sent, or with printable characters decoded.", wholeQuery),
	configured("DYNAMIC_METADATA", "NAMESPACE:KEY", "Of a request, what an RBAC filter found: namespace "+MetadataRBAC+" with the keys shadow_engine_result and enforced_engine_result (allowed or denied), shadow_effective_policy_id and enforced_effective_policy_id (the policy that matched); shadow_rules_stat_prefix stands in front of those of shadow rules. Of a connection, not of a request: what rules of the PROXY protocol's filter made of a header, in the namespaces and under the keys that they name."),
	configured("CLUSTER_METADATA", "NAMESPACE:KEY…", "Configured metadata of the cluster: the value under the keys, each within the one before, or without keys the namespace. Texts as they are, all else is JSON."),
	configured("UPSTREAM_METADATA", "NAMESPACE:KEY…", "The same of the upstream's endpoint."),
	configured("METADATA", "TYPE:NAMESPACE:KEY…", "The same of what TYPE says: CLUSTER, UPSTREAM_HOST, ROUTE, VIRTUAL_HOST, LISTENER or LISTENER_FILTER_CHAIN; DYNAMIC is DYNAMIC_METADATA."),
	sizeOf("REQUEST_HEADERS_BYTES", "Bytes of the request's header names and values.", 0, requestHeaders),
	sizeOf("RESPONSE_HEADERS_BYTES", "Bytes of the response's header names and values.", 0, responseHeaders),
	sizeOf("RESPONSE_TRAILERS_BYTES", "Bytes of the response's trailer names and values.", WantTrailers, responseTrailers),
	plain(text("PROTOCOL", "HTTP/1.1, HTTP/1.0, HTTP/2 or HTTP/3; absent for a plain connection.", func(r *Record) string { return r.Protocol })),
	number("RESPONSE_CODE", "Status code; 0 when no response began.", func(r *Record) int64 { return int64(r.Code) }),
	plain(appends("RESPONSE_FLAGS", "What went wrong, see the table of flags; \"-\" when nothing did, in JSON too.", func(dst []byte, r *Record) []byte { return r.Flags.appendTo(dst, false) })),
	plain(appends("RESPONSE_FLAGS_LONG", "The same with long names.", func(dst []byte, r *Record) []byte { return r.Flags.appendTo(dst, true) })),
	takes("RESPONSE_CODE_DETAILS", "ALLOW_WHITESPACES", "Why the code was given; white space is written as underscores unless allowed.", codeDetails),
	{OperatorDoc: OperatorDoc{Name: "LOCAL_REPLY_BODY", Help: "The text of an answer of our own, empty of others."},
		value: func(dst []byte, r *Record) ([]byte, bool) { return append(dst, r.LocalReply...), true }},
	text("ACCESS_LOG_TYPE", "On which occasion the record is logged.", func(r *Record) string { return r.Type.String() }),
	plain(text("DOWNSTREAM_DETECTED_CLOSE_TYPE", "RemoteReset where the client reset a plain connection, LocalReset where the sidecar did because the host had, else Normal: of requests always, as in Envoy.", func(r *Record) string { return r.DownstreamClose.String() })),
	plain(appends("UPSTREAM_DETECTED_CLOSE_TYPE", "RemoteReset where the host of a plain connection reset it, else Normal; absent of a request for which no host was tried.", func(dst []byte, r *Record) []byte {
		if r.UpstreamClose == CloseUnknown {
			return dst
		}
		return append(dst, r.UpstreamClose.String()...)
	})),
	text("DOWNSTREAM_LOCAL_CLOSE_REASON", "Why the sidecar closed the client's connection, in Envoy's words where it has one.", func(r *Record) string { return r.LocalClose }),
	text("UPSTREAM_LOCAL_CLOSE_REASON", "Why the sidecar closed the connection to the host of a plain connection: that was idle, or had lasted long enough.", func(r *Record) string { return r.UpstreamLocalClose }),
	text("CONNECTION_TERMINATION_DETAILS", "Why the sidecar closed the connection.", func(r *Record) string { return r.ConnectionTermination }),
	number("BYTES_RECEIVED", "Body bytes received from the downstream; all bytes of a plain connection.", func(r *Record) int64 { return r.BytesReceived }),
	number("BYTES_SENT", "Body bytes sent to the downstream; all bytes of a plain connection.", func(r *Record) int64 { return r.BytesSent }),
	{OperatorDoc: OperatorDoc{"GRPC_STATUS", "CAMEL_STRING, SNAKE_STRING or NUMBER", "Status of a gRPC request: of its trailers, its headers or, without either, what its status code stands for."},
		withArgument: grpcStatusValue},
	appends("GRPC_STATUS_NUMBER", "The same as a number.", grpcNumber),
	text("ROUTE_NAME", "Name of the route that matched.", func(r *Record) string { return r.Route }),
}

func headerValue(argument string, lists map[string]bool, get func(*Record) Headers) (valueFunc, error) {
	first, second, err := logformat.HeaderNames(argument)
	if err != nil {
		return nil, err
	}
	one, other := show(first, lists), show(second, lists)
	return func(dst []byte, r *Record) (out []byte, ok bool) {
		h := get(r)
		if out, ok = one.append(dst, h); !ok {
			out, ok = other.append(dst, h)
		}
		return out, ok
	}, nil
}

// eitherHeader is the first value of a field, as Envoy has it, or of another where that
// is absent; second may be "" for none.
func eitherHeader(h Headers, first, second string) (value string, ok bool) {
	if h == nil {
		return "", false
	}
	value, _, ok = h.HeaderFrom(message.NameOf(first), 0)
	if !ok && second != "" {
		value, _, ok = h.HeaderFrom(message.NameOf(second), 0)
	}
	return value, ok
}

func headerWithoutQuery(argument string) (valueFunc, error) {
	whole, err := headerValue(argument, listsOfRequest, requestHeaders)
	if err != nil {
		return nil, err
	}
	return func(dst []byte, r *Record) ([]byte, bool) {
		out, ok := whole(dst, r)
		if i := bytes.IndexByte(out[len(dst):], '?'); i >= 0 {
			out = out[:len(dst)+i]
		}
		return out, ok
	}, nil
}

const originalPath, originalHost = "x-envoy-original-path", "x-envoy-original-host"

// original chooses between what the client sent and what it was rewritten to:
// "ORIG" is the first only, a word that begins with it falls back to the second.
func original(r *Record, word, first, second string) (value string, ok bool) {
	switch word {
	case "ORIG":
		return eitherHeader(r.RequestHeaders, first, "")
	case "PATH", "HOST":
		return eitherHeader(r.RequestHeaders, second, "")
	}
	return eitherHeader(r.RequestHeaders, first, second)
}

func pathValue(argument string) (valueFunc, error) {
	words, err := logformat.Operators["PATH"].Choose(argument)
	if err != nil {
		return nil, err
	}
	return func(dst []byte, r *Record) ([]byte, bool) {
		path, ok := original(r, words[1], originalPath, ":path")
		if words[0] == "NQ" {
			path, _, _ = strings.Cut(path, "?")
		}
		return append(dst, path...), ok
	}, nil
}

func queryOf(r *Record) (query string, ok bool) {
	path, _ := eitherHeader(r.RequestHeaders, ":path", "")
	_, query, ok = strings.Cut(path, "?")
	query, _, _ = strings.Cut(query, "#")
	return query, ok
}

func queryValue(name string) (valueFunc, error) {
	return func(dst []byte, r *Record) ([]byte, bool) {
		for rest, _ := queryOf(r); rest != ""; {
			var pair string
			pair, rest, _ = strings.Cut(rest, "&")
			key, value, _ := strings.Cut(pair, "=")
			start := len(dst)
			dst = percent.Append(dst, key)
			found := string(dst[start:]) == name
			if dst = dst[:start]; found {
				return percent.Append(dst, value), true
			}
		}
		return dst, false
	}, nil
}

func wholeQuery(argument string) (valueFunc, error) {
	words, err := logformat.Operators["QUERY_PARAMS"].Choose(argument)
	if err != nil {
		return nil, err
	}
	return func(dst []byte, r *Record) ([]byte, bool) {
		query, ok := queryOf(r)
		if words[0] == "DECODED" {
			return appendPrintable(dst, query), ok
		}
		return append(dst, query...), ok
	}, nil
}

// appendPrintable decodes what of s stands for a printable character of ASCII, as Envoy does:
// spaces and what is no text stay as they are written.
func appendPrintable(dst []byte, s string) []byte {
	for i := 0; i < len(s); {
		b, n := percent.At(s, i)
		if b <= ' ' || b > '~' {
			dst = append(dst, s[i:i+n]...)
		} else {
			dst = append(dst, b)
		}
		i += n
	}
	return dst
}

func codeDetails(argument string) (valueFunc, error) {
	words, err := logformat.Operators["RESPONSE_CODE_DETAILS"].Choose(argument)
	if err != nil {
		return nil, err
	}
	return ifAny(func(dst []byte, r *Record) []byte {
		start := len(dst)
		dst = append(dst, r.CodeDetails...)
		if words[0] == "" {
			for i, c := range dst[start:] {
				if c == ' ' || c >= '\t' && c <= '\r' {
					dst[start+i] = '_'
				}
			}
		}
		return dst
	}), nil
}

// grpcNames are gRPC's status codes by number, in both spellings.
var grpcNames = [...][2]string{
	{"OK", "OK"}, {"Canceled", "CANCELLED"}, {"Unknown", "UNKNOWN"}, {"InvalidArgument", "INVALID_ARGUMENT"},
	{"DeadlineExceeded", "DEADLINE_EXCEEDED"}, {"NotFound", "NOT_FOUND"}, {"AlreadyExists", "ALREADY_EXISTS"},
	{"PermissionDenied", "PERMISSION_DENIED"}, {"ResourceExhausted", "RESOURCE_EXHAUSTED"},
	{"FailedPrecondition", "FAILED_PRECONDITION"}, {"Aborted", "ABORTED"}, {"OutOfRange", "OUT_OF_RANGE"},
	{"Unimplemented", "UNIMPLEMENTED"}, {"Internal", "INTERNAL"}, {"Unavailable", "UNAVAILABLE"},
	{"DataLoss", "DATA_LOSS"}, {"Unauthenticated", "UNAUTHENTICATED"},
}

var (
	nameContentType = message.NameOf("content-type")
	namePath        = message.NameOf(":path")
	nameGRPCStatus  = message.NameOf("grpc-status")
)

// IsGRPC tells whether a request is one of gRPC, by its only content-type, which has no
// parameters. What has no path is a CONNECT.
func IsGRPC(h Headers) bool {
	if h == nil {
		return false
	}
	const kind = "application/grpc"
	v, next, _ := h.HeaderFrom(nameContentType, 0)
	if !strings.HasPrefix(v, kind) || len(v) > len(kind) && v[len(kind)] != '+' {
		return false
	}
	if _, _, more := h.HeaderFrom(nameContentType, next); more {
		return false
	}
	path, _, _ := h.HeaderFrom(namePath, 0)
	return path != ""
}

// SentGRPCStatus is the status that answered a gRPC request, of its trailers or its
// headers; negative where it is no number.
func (r *Record) SentGRPCStatus() (status int, ok bool) {
	if !IsGRPC(r.RequestHeaders) {
		return 0, false
	}
	return r.responseStatus()
}

// responseStatus is the grpc-status of a response to whatever request.
func (r *Record) responseStatus() (status int, ok bool) {
	text, more := r.GRPCStatus, false
	for _, h := range [...]Headers{r.ResponseTrailers, r.ResponseHeaders} {
		if text != "" || more {
			break // an empty one is none, as in Envoy
		}
		if h == nil {
			continue
		}
		var next int
		if text, next, ok = h.HeaderFrom(nameGRPCStatus, 0); ok {
			_, _, more = h.HeaderFrom(nameGRPCStatus, next)
		}
	}
	if text == "" && !more {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || more {
		return -1, true
	}
	return int(n), true
}

// statusOfGRPC is the status of a gRPC request, which may be none of gRPC's own; ok is
// false for other requests and where there is none.
func (r *Record) statusOfGRPC() (status int, ok bool) {
	if status, ok = r.SentGRPCStatus(); ok {
		return status, true
	}
	if r.Code == 0 || !IsGRPC(r.RequestHeaders) {
		return 0, false
	}
	return grpcOfHTTP(r.Code), true
}

func grpcStatusValue(argument string) (valueFunc, error) {
	words, err := logformat.Operators["GRPC_STATUS"].Choose(argument)
	if err != nil {
		return nil, err
	}
	spelling := 0
	switch words[0] {
	case "NUMBER":
		return ifAny(grpcNumber), nil
	case "SNAKE_STRING":
		spelling = 1
	}
	return ifAny(func(dst []byte, r *Record) []byte {
		status, ok := r.statusOfGRPC()
		if ok && status >= 0 && status < len(grpcNames) {
			return append(dst, grpcNames[status][spelling]...)
		}
		return grpcNumber(dst, r)
	}), nil
}

func grpcNumber(dst []byte, r *Record) []byte {
	status, ok := r.statusOfGRPC()
	if !ok {
		return dst
	}
	return strconv.AppendInt(dst, int64(status), 10)
}
