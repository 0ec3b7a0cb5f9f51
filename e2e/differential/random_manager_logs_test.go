//go:build e2e

package differential

import "fmt"

// requestOperators are those that are known before there is an answer.
var requestOperators = []string{
	"%REQ(X-A)%", "%REQ(x-multi)%", "%REQ(X-EMPTY)%", "%REQ(X-NONE)%", "%REQ(X-NONE?X-A)%", "%REQ(X-EMPTY?X-A)%", "%REQ(X-B):2%", "%REQ(X-A?X-B):1%", "%REQ(X-A):100%",
	"%REQ(:METHOD)%", "%REQ(:PATH)%", "%REQ(:AUTHORITY)%", "%REQ(:SCHEME)%", "%REQUEST_HEADER(X-A)%", "%REQ(X-FORWARDED-FOR)%", "%REQ(X-FORWARDED-PROTO)%",
	"%REQ(VIA)%", "%REQ(TE)%", "%REQ(USER-AGENT)%", "%REQ(HOST)%",
	"%PROTOCOL%", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(8)%", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%", "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%", "%DOWNSTREAM_LOCAL_ADDRESS%",
	"%QUERY_PARAM(a)%", "%QUERY_PARAM(e)%", "%QUERY_PARAM(a):1%", "%QUERY_PARAMS%", "%QUERY_PARAMS(DECODED)%", "%QUERY_PARAMS(ORIG)%", "%PATH%", "%PATH(NQ)%", "%PATH(WQ:ORIG)%", "%PATH(NQ:PATH):3%", "%PATH(WQ:ORIG_OR_PATH)%",
	"%START_TIME(%Y)%", "%START_TIME(%Y-%m)%", "%ENVIRONMENT(HAUBERK_NONE)%", "%ENVIRONMENT(HAUBERK_NONE):2%",
	"%DOWNSTREAM_TLS_VERSION%", "%DOWNSTREAM_PEER_URI_SAN%", "%DOWNSTREAM_PEER_SUBJECT%", "%DOWNSTREAM_PEER_CERT_V_START(%j %e)%", "%FILTER_CHAIN_NAME%",
	"%COALESCE({\"operators\": [{\"command\": \"REQ\", \"param\": \"x-none\"}, {\"command\": \"REQ\", \"param\": \"x-a\"}, \"PROTOCOL\"]})%", "%COALESCE({\"operators\": [{\"command\": \"QUERY_PARAM\", \"param\": \"a\", \"max_length\": 1}]}):5%",
}

// lateOperators are those of the answer.
var lateOperators = []string{
	"%RESP(X-A)%", "%RESP(X-MULTI)%", "%RESP(X-NONE?X-A)%", "%RESP(X-A?X-B):1%", "%RESPONSE_HEADER(SERVER)%", "%RESP(CONTENT-TYPE)%", "%RESP(X-Q):3%",
	"%RESPONSE_CODE%", "%RESPONSE_FLAGS%", "%RESPONSE_FLAGS_LONG%",
	"%ROUTE_NAME%", "%UPSTREAM_CLUSTER%", "%UPSTREAM_CLUSTER_RAW%", "%UPSTREAM_PROTOCOL%", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "%UPSTREAM_HOST%",
	"%METADATA(ROUTE:a.b:k)%", "%CLUSTER_METADATA(a.b:k)%", "%CLUSTER_METADATA(a.b)%",
}

// responseOperators are those of headers of an answer.
var responseOperators = append(append([]string(nil), requestOperators...), lateOperators...)

// logOperators are those of a record.
var logOperators = append(append([]string(nil), responseOperators...),
	"%TRAILER(X-T)%", "%TRAILER(X-NONE?X-A):1%", "%RESPONSE_TRAILER(X-MULTI)%", "%GRPC_STATUS%", "%GRPC_STATUS(SNAKE_STRING)%", "%GRPC_STATUS(CAMEL_STRING)%", "%GRPC_STATUS(NUMBER)%", "%GRPC_STATUS_NUMBER%",
	"%DYNAMIC_METADATA(envoy.filters.http.rbac:shadow_engine_result)%", "%DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_effective_policy_id):2%", "%DYNAMIC_METADATA(envoy.filters.http.rbac:p_shadow_effective_policy_id)%",
	"%RESPONSE_CODE_DETAILS%", "%RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%", "%BYTES_RECEIVED%", "%BYTES_SENT%", "%RESPONSE_TRAILERS_BYTES%", "%ACCESS_LOG_TYPE%", "%LOCAL_REPLY_BODY%", "%LOCAL_REPLY_BODY%", "%CONNECTION_TERMINATION_DETAILS%", "%UPSTREAM_TRANSPORT_FAILURE_REASON%", "%UPSTREAM_HOST_NAME%",
	"%DOWNSTREAM_DETECTED_CLOSE_TYPE%", "%UPSTREAM_DETECTED_CLOSE_TYPE%", "%UPSTREAM_METADATA(envoy.lb:hash_key)%", "%EMIT_TIME(%Y)%", "%START_TIME_LOCAL(%Y)%")

// format is some text with some operators.
func (m *manager) format(operators []string) string {
	switch m.IntN(7) {
	case 0:
		return one(m.Rand, "v", "", "a,b", "100%%", " s ", "é")
	case 1:
		return one(m.Rand, operators...) + one(m.Rand, "", " ", "|", "%%") + one(m.Rand, operators...)
	case 2:
		return one(m.Rand, "[", "\"", "x ") + one(m.Rand, operators...) + one(m.Rand, "]", "", " ")
	}
	return one(m.Rand, operators...)
}

// nested is a JSON format.
func (m *manager) nested(depth int) any {
	switch k := m.IntN(6); {
	case k == 0 && depth > 0:
		out := dict{}
		for i := range m.IntN(4) {
			out[fmt.Sprint("k", i)] = m.nested(depth - 1)
		}
		return out
	case k == 1 && depth > 0:
		out := []any{}
		for range m.IntN(3) {
			out = append(out, m.nested(depth-1))
		}
		return out
	case k == 2:
		return one[any](m.Rand, 1, true, nil, "", -7, "\"<é>")
	}
	return m.format(append([]string{"%LOCAL_REPLY_BODY%"}, responseOperators...))
}

func (m *manager) bodyFormat() dict {
	out := dict{}
	if chance(m.Rand, 2) {
		out["json_format"] = dict{"a": m.nested(2), "b": m.nested(2), "body": "%LOCAL_REPLY_BODY%"}
	} else {
		out["text_format_source"] = dict{"inline_string": m.format(responseOperators) + "%LOCAL_REPLY_BODY%" + one(m.Rand, "", "\n")}
	}
	if chance(m.Rand, 3) {
		out["content_type"] = one(m.Rand, "text/html; charset=UTF-8", "x/y", "")
	}
	if chance(m.Rand, 3) {
		out["omit_empty_values"] = true
	}
	return out
}

func (m *manager) localReplies() dict {
	out := dict{}
	if chance(m.Rand, 2) {
		out["body_format"] = m.bodyFormat()
	}
	var mappers []any
	for range m.IntN(4) {
		one_ := dict{"filter": m.logFilter(2)}
		if chance(m.Rand, 2) {
			one_["status_code"] = one(m.Rand, 200, 404, 429, 500, 599)
		}
		if chance(m.Rand, 2) {
			one_["body"] = dict{"inline_string": one(m.Rand, "mapped", "", "m é")}
		}
		if chance(m.Rand, 3) {
			one_["body_format_override"] = m.bodyFormat()
		}
		if chance(m.Rand, 2) {
			one_["headers_to_add"] = []any{m.option(responseOperators)}
		}
		mappers = append(mappers, one_)
	}
	if mappers != nil {
		out["mappers"] = mappers
	}
	return out
}

func (m *manager) comparison(values ...int) dict {
	return dict{"comparison": dict{"op": one(m.Rand, "EQ", "GE", "LE", "NE"), "value": dict{"default_value": one(m.Rand, values...), "runtime_key": one(m.Rand, "no.such.key", "no.such.key", "made.code", "made.none", "made.decimal", "made.text")}}}
}

// logFilter is one of access logs.
func (m *manager) logFilter(depth int) dict {
	switch k := m.IntN(15); {
	case k <= 1 && depth > 0:
		return dict{"and_filter": dict{"filters": []any{m.logFilter(depth - 1), m.logFilter(depth - 1)}}}
	case k <= 3 && depth > 0:
		return dict{"or_filter": dict{"filters": []any{m.logFilter(depth - 1), m.logFilter(depth - 1)}}}
	case k <= 5:
		return dict{"status_code_filter": m.comparison(0, 200, 204, 400, 403, 404, 429, 503, 599)}
	case k == 6:
		// Small numbers of milliseconds would be met by chance.
		of := m.comparison(100000)
		of["comparison"].(dict)["value"].(dict)["runtime_key"] = "no.such.key"
		return dict{"duration_filter": of}
	case k == 7:
		return dict{"not_health_check_filter": dict{}}
	case k == 8:
		var flags []any
		for range m.IntN(3) {
			flags = append(flags, one(m.Rand, "NR", "FI", "RL", "UF", "UH", "LH", "URX", "DPE", "NC", "DI", "UPE"))
		}
		return dict{"response_flag_filter": dict{"flags": flags}}
	case k == 9:
		return dict{"header_filter": dict{"header": m.headerMatcher()}}
	case k == 10:
		var statuses []any
		for range 1 + m.IntN(2) {
			statuses = append(statuses, one(m.Rand, "OK", "UNAVAILABLE", "NOT_FOUND", "UNKNOWN", "UNIMPLEMENTED", "PERMISSION_DENIED"))
		}
		return dict{"grpc_status_filter": dict{"statuses": statuses, "exclude": chance(m.Rand, 2)}}
	case k == 11:
		return dict{"runtime_filter": dict{"runtime_key": m.shareKey(), "percent_sampled": m.percent(), "use_independent_randomness": chance(m.Rand, 2)}}
	case k == 12:
		return dict{"traceable_filter": dict{}}
	case k == 13:
		of := dict{"types": []any{one(m.Rand, "DownstreamEnd", "DownstreamStart", "NotSet")}}
		if chance(m.Rand, 3) {
			of["exclude"] = true
		}
		return dict{"log_type_filter": of}
	}
	return dict{"metadata_filter": dict{"matcher": dict{"filter": "envoy.filters.http.rbac", "path": []any{dict{"key": one(m.Rand, "shadow_engine_result", "enforced_engine_result", "p_shadow_engine_result", "enforced_effective_policy_id")}},
		"value": dict{"string_match": dict{"exact": one(m.Rand, "allowed", "denied", "one")}}}, "match_if_key_not_found": chance(m.Rand, 2)}}
}

func (m *manager) logs() {
	m.c.LogFields, m.c.LogFilters = map[string]string{}, dict{}
	for i := range 2 + m.IntN(6) {
		m.c.LogFields[fmt.Sprint("field", i)] = m.format(logOperators)
	}
	for i := range m.IntN(4) {
		m.c.LogFilters[fmt.Sprint("f", i)] = m.logFilter(2)
	}
}
