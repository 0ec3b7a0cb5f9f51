package logformat

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Kind says what an operator's value is, and with it what follows its name.
type Kind int

const (
	// Text takes no argument, and a length.
	Text Kind = iota
	// Number takes neither argument nor length.
	Number
	// Header takes NAME or NAME?ALTERNATIVE, and a length.
	Header
	// Time takes a time format or nothing, and a length.
	Time
	// Host takes the bits of a network prefix or nothing, and a length.
	Host
	// Choice takes words of the operator's own, or nothing, and a length.
	Choice
	// Name takes a name, and a length.
	Name
	// Span takes START:END:PRECISION and no length: a number.
	Span
	// First takes a JSON object with operators, and a length.
	First
	// Metadata takes NAMESPACE and keys, or one of MetadataTypes before them, and a length in the
	// latter case, as in Envoy.
	Metadata
)

// The namespaces of metadata that Envoy's filters write, and that formats show.
const (
	MetadataRBAC  = "envoy.filters.http.rbac"
	MetadataProxy = "envoy.filters.listener.proxy_protocol" // by its rules, which may name others
)

// Operator is what may follow an operator's name.
type Operator struct {
	Kind Kind
	// Words are those of a Choice: one list for each part of the argument, which colons part. The
	// first of a list stands for an absent part.
	Words [][]string
}

func list(kind Kind, names string) map[string]Operator {
	out := map[string]Operator{}
	for name := range strings.FieldsSeq(names) {
		out[name] = Operator{Kind: kind}
	}
	return out
}

// Operators are what our sidecar knows. Envoy's names mean what they mean there.
var Operators = func() map[string]Operator {
	out := map[string]Operator{
		"RESPONSE_CODE_DETAILS": {Choice, [][]string{{"", "ALLOW_WHITESPACES"}}},
		"GRPC_STATUS":           {Choice, [][]string{{"CAMEL_STRING", "SNAKE_STRING", "NUMBER"}}},
		"QUERY_PARAMS":          {Choice, [][]string{{"ORIG", "DECODED"}}},
		"PATH":                  {Choice, [][]string{{"WQ", "NQ"}, {"ORIG_OR_PATH", "ORIG", "PATH"}}},
		"REQUESTED_SERVER_NAME": {Choice, [][]string{{"SNI_ONLY", "SNI_FIRST", "HOST_FIRST"}, {"ORIG_OR_HOST", "ORIG", "HOST"}}},
		"QUERY_PARAM":           {Kind: Name},
		"ENVIRONMENT":           {Kind: Name},
		"DYNAMIC_METADATA":      {Kind: Metadata},
		"CLUSTER_METADATA":      {Kind: Metadata},
		"UPSTREAM_METADATA":     {Kind: Metadata},
		"METADATA":              {Kind: Metadata},
		"COMMON_DURATION":       {Kind: Span},
		"COALESCE":              {Kind: First},
	}
	for kind, names := range map[Kind]string{
		Header: "REQ REQUEST_HEADER RESP RESPONSE_HEADER TRAILER RESPONSE_TRAILER REQ_WITHOUT_QUERY",
		Time: "START_TIME START_TIME_LOCAL EMIT_TIME EMIT_TIME_LOCAL DOWNSTREAM_PEER_CERT_V_START DOWNSTREAM_PEER_CERT_V_END " +
			"UPSTREAM_PEER_CERT_V_START UPSTREAM_PEER_CERT_V_END",
		Host: "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT " +
			"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT " +
			"DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT",
		Number: "RESPONSE_CODE BYTES_RECEIVED BYTES_SENT DURATION REQUEST_DURATION REQUEST_TX_DURATION RESPONSE_DURATION " +
			"RESPONSE_TX_DURATION UPSTREAM_CONNECTION_POOL_READY_DURATION REQUEST_HEADERS_BYTES RESPONSE_HEADERS_BYTES " +
			"RESPONSE_TRAILERS_BYTES UPSTREAM_REQUEST_ATTEMPT_COUNT UPSTREAM_LOCAL_PORT UPSTREAM_REMOTE_PORT " +
			"DOWNSTREAM_REMOTE_PORT DOWNSTREAM_DIRECT_REMOTE_PORT DOWNSTREAM_LOCAL_PORT DOWNSTREAM_DIRECT_LOCAL_PORT " +
			"UPSTREAM_WIRE_BYTES_SENT UPSTREAM_WIRE_BYTES_RECEIVED UPSTREAM_HEADER_BYTES_SENT UPSTREAM_HEADER_BYTES_RECEIVED " +
			"UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED " +
			"DOWNSTREAM_WIRE_BYTES_SENT DOWNSTREAM_WIRE_BYTES_RECEIVED DOWNSTREAM_HEADER_BYTES_SENT DOWNSTREAM_HEADER_BYTES_RECEIVED " +
			"DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED " +
			"CONNECTION_ID UPSTREAM_CONNECTION_ID DOWNSTREAM_HANDSHAKE_DURATION GRPC_STATUS_NUMBER HAUBERK_RETRIES HAUBERK_UPSTREAM_DURATION",
		Text: "PROTOCOL UPSTREAM_PROTOCOL RESPONSE_FLAGS RESPONSE_FLAGS_LONG CONNECTION_TERMINATION_DETAILS " +
			"UPSTREAM_HOST UPSTREAM_HOST_NAME UPSTREAM_HOST_NAME_WITHOUT_PORT " +
			"UPSTREAM_HOSTS_ATTEMPTED UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT " +
			"UPSTREAM_HOST_NAMES_ATTEMPTED UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT " +
			"UPSTREAM_REMOTE_ADDRESS UPSTREAM_LOCAL_ADDRESS UPSTREAM_CLUSTER UPSTREAM_CLUSTER_RAW " +
			"UPSTREAM_TRANSPORT_FAILURE_REASON UPSTREAM_SERVER_NAME UPSTREAM_TLS_VERSION UPSTREAM_TLS_CIPHER UPSTREAM_TLS_GROUP " +
			"UPSTREAM_LOCAL_URI_SAN UPSTREAM_LOCAL_DNS_SAN UPSTREAM_LOCAL_IP_SAN UPSTREAM_PEER_URI_SAN UPSTREAM_PEER_DNS_SAN UPSTREAM_PEER_IP_SAN " +
			"UPSTREAM_PEER_SUBJECT UPSTREAM_PEER_ISSUER UPSTREAM_PEER_CERT " +
			"UPSTREAM_DETECTED_CLOSE_TYPE DOWNSTREAM_DETECTED_CLOSE_TYPE DOWNSTREAM_LOCAL_CLOSE_REASON UPSTREAM_LOCAL_CLOSE_REASON " +
			"ROUTE_NAME FILTER_CHAIN_NAME DOWNSTREAM_REMOTE_ADDRESS DOWNSTREAM_DIRECT_REMOTE_ADDRESS " +
			"DOWNSTREAM_LOCAL_ADDRESS DOWNSTREAM_DIRECT_LOCAL_ADDRESS DOWNSTREAM_LOCAL_URI_SAN DOWNSTREAM_PEER_URI_SAN " +
			"DOWNSTREAM_LOCAL_DNS_SAN DOWNSTREAM_LOCAL_IP_SAN DOWNSTREAM_LOCAL_EMAIL_SAN DOWNSTREAM_LOCAL_OTHERNAME_SAN DOWNSTREAM_LOCAL_SUBJECT " +
			"DOWNSTREAM_PEER_DNS_SAN DOWNSTREAM_PEER_IP_SAN DOWNSTREAM_PEER_EMAIL_SAN DOWNSTREAM_PEER_OTHERNAME_SAN DOWNSTREAM_PEER_SUBJECT " +
			"DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256 DOWNSTREAM_PEER_ISSUER_SERIAL TLS_JA3_FINGERPRINT TLS_JA4_FINGERPRINT " +
			"DOWNSTREAM_PEER_ISSUER DOWNSTREAM_PEER_SERIAL DOWNSTREAM_PEER_CERT DOWNSTREAM_PEER_FINGERPRINT_256 " +
			"DOWNSTREAM_PEER_FINGERPRINT_1 DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256 DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1 " +
			"DOWNSTREAM_PEER_CHAIN_SERIALS DOWNSTREAM_TLS_VERSION DOWNSTREAM_TLS_CIPHER DOWNSTREAM_TLS_GROUP " +
			"DOWNSTREAM_TRANSPORT_FAILURE_REASON STREAM_ID UNIQUE_ID TRACE_ID SPAN_ID HOSTNAME ACCESS_LOG_TYPE LOCAL_REPLY_BODY " +
			"HAUBERK_DIRECTION HAUBERK_LISTENER HAUBERK_SERVICE HAUBERK_WORKLOAD HAUBERK_SRC_ID HAUBERK_DST_ID " +
			"HAUBERK_DECISION HAUBERK_RULE HAUBERK_SHADOW_RULE HAUBERK_VIRTUAL_HOST HAUBERK_FAILURE",
	} {
		for name, o := range list(kind, names) {
			out[name] = o
		}
	}
	return out
}()

const (
	stateReason    = "there is no filter state"
	internalReason = "there are no internal listeners"
	quicReason     = "only HTTP/3 has it, and HTTP/3 is not implemented"
	celReason      = "CEL is not implemented"
)

// refused says why operators of Envoy's are none of ours.
var refused = map[string]string{
	"BYTES_RETRANSMITTED": quicReason, "PACKETS_RETRANSMITTED": quicReason, "ROUNDTRIP_DURATION": quicReason,
	"FILTER_STATE": stateReason, "UPSTREAM_FILTER_STATE": stateReason,
	"CUSTOM_FLAGS": "no filter sets flags of its own; use RESPONSE_FLAGS", "CEL": celReason, "TYPED_CEL": celReason,
	"VIRTUAL_CLUSTER_NAME":      "virtual clusters are not implemented; use ROUTE_NAME",
	"DOWNSTREAM_TLS_SESSION_ID": "sessions are never resumed", "UPSTREAM_TLS_SESSION_ID": "sessions are never resumed",
	"UPSTREAM_CONNECTION_IDS_ATTEMPTED":           "of attempts before the last the hosts are known alone; use UPSTREAM_HOSTS_ATTEMPTED",
	"UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID":         internalReason,
	"DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID":        internalReason,
	"DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID": internalReason,
}

// Refused lists the operators of Envoy's that are refused, with the reason.
func Refused() map[string]string { return refused }

// ShowsMetadata tells whether something may write metadata of the namespace that are texts: RBAC of a
// request, and of a connection what rules of the PROXY protocol name too, which is none of Envoy's own
// namespaces but that filter's.
func ShowsMetadata(namespace string, connection bool) bool {
	return namespace == MetadataRBAC ||
		connection && (namespace == MetadataProxy || namespace != "" && !strings.HasPrefix(namespace, "envoy."))
}

// HeaderNames splits the argument of a Header operator into names in lower
// case; the second is empty when there is no alternative.
func HeaderNames(argument string) (name, alternative string, err error) {
	name, alternative, both := strings.Cut(strings.ToLower(argument), "?")
	if name == "" || both && alternative == "" {
		return "", "", errors.New("a header name is empty")
	}
	if strings.Contains(alternative, "?") {
		return "", "", errors.New("has more than one alternative")
	}
	return name, alternative, nil
}

// Choose reads the argument of a Choice: one word for each part, the default where it has none.
func (o Operator) Choose(argument string) ([]string, error) {
	out := make([]string, len(o.Words))
	for i, words := range o.Words {
		out[i] = words[0]
	}
	if argument == "" {
		return out, nil
	}
	parts := strings.Split(argument, ":")
	if len(parts) > len(out) {
		return nil, fmt.Errorf("%q has more than %d parts", argument, len(out))
	}
	for i, p := range parts {
		if p == "" && i < len(parts)-1 {
			continue
		}
		if p == "" || !slices.Contains(o.Words[i], p) {
			return nil, fmt.Errorf("%q is none of %s", p, strings.TrimPrefix(strings.Join(o.Words[i], ", "), ", "))
		}
		out[i] = p
	}
	return out, nil
}

// PrefixBits reads the argument of a Host operator: how many bits of the address
// are shown, -1 for all of it and no network.
func PrefixBits(argument string) (int, error) {
	if argument == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(argument)
	if err != nil || n < 0 || n > 128 || strconv.Itoa(n) != argument {
		return 0, fmt.Errorf("%q is no number of bits from 0 to 128", argument)
	}
	return n, nil
}

// Moments are the words for moments of an exchange or connection in a Span, in
// the order of their numbers.
var Moments = []string{
	"DS_RX_BEG", "DS_RX_END", "US_CX_BEG", "US_CX_END", "US_HS_END", "US_TX_BEG", "US_TX_END", "US_RX_BEG",
	"US_RX_BODY_BEG", "US_RX_END", "DS_TX_BEG", "DS_TX_END", "DS_CX_BEG", "DS_CX_END",
}

// SpanBetween reads the argument of a Span: the numbers of two moments, and how
// many nanoseconds the unit has.
func SpanBetween(argument string) (start, end int, unit int64, err error) {
	parts := strings.Split(argument, ":")
	if len(parts) != 3 {
		return 0, 0, 0, fmt.Errorf("%q is not START:END:PRECISION", argument)
	}
	start, end = slices.Index(Moments, parts[0]), slices.Index(Moments, parts[1])
	for i, at := range []int{start, end} {
		if at < 0 {
			return 0, 0, 0, fmt.Errorf("%q is none of %s", parts[i], strings.Join(Moments, ", "))
		}
	}
	switch parts[2] {
	case "ms":
		unit = 1e6
	case "us":
		unit = 1e3
	case "ns":
		unit = 1
	default:
		return 0, 0, 0, fmt.Errorf("precision %q is none of ms, us, ns", parts[2])
	}
	return start, end, unit, nil
}

// IsNumber tells whether the value of an operator with an argument is a number.
func IsNumber(name, argument string) bool {
	kind := Operators[name].Kind
	return kind == Number || kind == Span || name == "GRPC_STATUS" && argument == "NUMBER"
}

func check(name, argument string, hasArgument bool, limit int) error {
	o, ok := Operators[name]
	if !ok {
		if why := refused[name]; why != "" {
			return fmt.Errorf("operator %%%s%% is refused: %s", name, why)
		}
		return fmt.Errorf("operator %%%s%% is unknown; docs/METRICS.md lists the operators", name)
	}
	var err error
	switch {
	case argument == "" && (o.Kind == Header || o.Kind == Name || o.Kind == Span || o.Kind == First || o.Kind == Metadata):
		return fmt.Errorf("%%%s%% needs an argument in parentheses", name)
	case hasArgument && (o.Kind == Text || o.Kind == Number):
		return fmt.Errorf("%%%s%% takes no argument", name)
	case limit != 0 && o.Kind == Metadata && (name == "CLUSTER_METADATA" || name == "UPSTREAM_METADATA"):
		return fmt.Errorf("%%%s%% takes no length, nor does Envoy take one; METADATA does", name)
	case limit != 0 && IsNumber(name, argument):
		return fmt.Errorf("%%%s%% is a number and takes no length", name)
	case o.Kind == Header:
		_, _, err = HeaderNames(argument)
	case o.Kind == Time:
		_, err = ParseTime(argument)
	case o.Kind == Host:
		_, err = PrefixBits(argument)
	case o.Kind == Choice:
		_, err = o.Choose(argument)
	case o.Kind == Span:
		_, _, _, err = SpanBetween(argument)
	case o.Kind == First:
		_, err = Alternatives(argument)
	case o.Kind == Metadata:
		_, err = MetadataOf(name, argument)
	}
	if err != nil {
		return fmt.Errorf("%%%s(%s)%%: %w", name, argument, err)
	}
	return nil
}
