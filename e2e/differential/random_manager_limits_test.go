//go:build e2e

package differential

import "slices"

func (m *manager) bucket() dict {
	out := dict{"max_tokens": m.IntN(4), "fill_interval": "600s"}
	if chance(m.Rand, 3) {
		out["tokens_per_fill"] = one(m.Rand, 1, 2)
	}
	return out
}

func (m *manager) limit() dict {
	m.c.Stateful = true
	out := dict{"@type": filterTypes + "local_ratelimit.v3.LocalRateLimit", "stat_prefix": "l"}
	if !chance(m.Rand, 5) {
		out["token_bucket"] = m.bucket()
	}
	if !chance(m.Rand, 5) {
		out["filter_enabled"] = m.runtimePercent()
	}
	if !chance(m.Rand, 5) {
		out["filter_enforced"] = m.runtimePercent()
	}
	if chance(m.Rand, 3) {
		out["status"] = dict{"code": one(m.Rand, 200, 400, 429, 503, 409)}
	}
	if chance(m.Rand, 3) {
		out["response_headers_to_add"] = []any{m.option(responseOperators)}
	}
	if chance(m.Rand, 3) {
		out["request_headers_to_add_when_not_enforced"] = []any{m.option(requestOperators)}
	}
	for _, f := range []string{"rate_limited_as_resource_exhausted", "enable_retry_after_header", "local_rate_limit_per_downstream_connection"} {
		if chance(m.Rand, 4) {
			out[f] = true
		}
	}
	if m.local && out["local_rate_limit_per_downstream_connection"] == nil && chance(m.Rand, 3) {
		out["local_cluster_rate_limit"] = dict{}
	}
	if chance(m.Rand, 2) {
		out["enable_x_ratelimit_headers"] = one(m.Rand, "OFF", "DRAFT_VERSION_03")
	}
	if !chance(m.Rand, 3) {
		m.descriptors(out)
	}
	if chance(m.Rand, 3) {
		out["rate_limits"] = m.rateLimits(true)
	} else if chance(m.Rand, 3) {
		out["stage"] = 1
	}
	if chance(m.Rand, 4) {
		out["vh_rate_limits"] = one(m.Rand, "OVERRIDE", "INCLUDE", "IGNORE")
	}
	return out
}

// descriptors are some of those that requests may have.
func (m *manager) descriptors(out dict) {
	entry := func(key string, value ...string) dict {
		e := dict{"key": key}
		if len(value) > 0 {
			e["value"] = value[0]
		}
		return e
	}
	all := [][]any{
		{entry("a", "1")}, {entry("generic_key", "g")}, {entry("a")}, {entry("source_cluster", "test")}, {entry("destination_cluster")}, {entry("destination_cluster", "other")},
		{entry("remote_address")}, {entry("remote_address", "127.0.0.1")}, {entry("masked_remote_address")}, {entry("masked_remote_address", "10.0.0.0/8")},
		{entry("q")}, {entry("q", "A")}, {entry("header_match", "g")}, {entry("query_match", "g")}, {entry("remote_address_match", "g")},
		{entry("a"), entry("generic_key", "g")}, {entry("a", "1"), entry("q")}, {entry("remote_address"), entry("a")}, {entry("generic_key", "g"), entry("source_cluster", "test")},
	}
	var list []any
	for i, n := 0, 1+m.IntN(6); i < n; i++ {
		at := m.IntN(len(all))
		if all[at] == nil {
			continue
		}
		d := dict{"entries": all[at], "token_bucket": m.bucket()}
		whole := !slices.ContainsFunc(all[at], func(e any) bool { return e.(dict)["value"] == nil })
		if whole && chance(m.Rand, 4) {
			d["shadow_mode"] = true
		}
		list, all[at] = append(list, d), nil
	}
	out["descriptors"] = list
	if chance(m.Rand, 2) {
		out["always_consume_default_token_bucket"] = chance(m.Rand, 2)
	}
	if chance(m.Rand, 3) {
		out["max_dynamic_descriptors"] = one(m.Rand, 1, 2)
	}
}

// rateLimits describe requests: those of a filter's own say how many tokens they take, those of routes
// have stages.
func (m *manager) rateLimits(own bool) []any {
	var out []any
	for range 1 + m.IntN(2) {
		l := dict{"actions": []any{m.limitAction()}}
		if chance(m.Rand, 4) {
			l["actions"] = []any{m.limitAction(), m.limitAction()}
		}
		if chance(m.Rand, 4) {
			l["x_ratelimit_option"] = one(m.Rand, "OFF", "DRAFT_VERSION_03")
		}
		switch {
		case own && chance(m.Rand, 3):
			l["hits_addend"] = m.hits()
		case !own && chance(m.Rand, 3):
			l["stage"] = one(m.Rand, 0, 1)
		}
		out = append(out, l)
	}
	return out
}

func (m *manager) hits() dict {
	out := dict{"number": m.IntN(4)}
	if chance(m.Rand, 2) {
		out = dict{"format": one(m.Rand, "%REQ(X-COST)%", "%REQ(X-NONE?X-COST)%", "%QUERY_PARAM(a)%", "%BYTES_RECEIVED%")}
		m.want("X-Cost", "0", "1", "2", "3", "x", "-1", "", "1.9", "1e0", "0x2", "+1", "1000000001")
	}
	if chance(m.Rand, 3) {
		out["is_negative_hits"] = true
	}
	return out
}

func (m *manager) limitAction() dict {
	query := dict{"name": one(m.Rand, "a", "e", "gone")}
	switch m.IntN(3) {
	case 0:
		query["present_match"] = chance(m.Rand, 2)
	case 1:
		query["string_match"] = dict{"exact": one(m.Rand, "1", "A", "")}
	}
	addresses := dict{"ranges": []any{dict{"address_prefix": one(m.Rand, "10.0.0.0", "127.0.0.0", "203.0.113.0"), "prefix_len": 8}}}
	if chance(m.Rand, 3) {
		addresses["invert_match"] = true
	}
	switch m.IntN(12) {
	case 0, 1, 2:
		return dict{"request_headers": dict{"header_name": "X-A", "descriptor_key": "a", "skip_if_absent": chance(m.Rand, 2)}}
	case 3:
		return dict{"header_value_match": dict{"descriptor_value": "g", "descriptor_key": one(m.Rand, "generic_key", ""), "expect_match": chance(m.Rand, 2), "headers": []any{m.headerMatcher()}}}
	case 4:
		return dict{"source_cluster": dict{}}
	case 5:
		return dict{"destination_cluster": dict{}}
	case 6:
		return dict{"remote_address": dict{}}
	case 7:
		return dict{"masked_remote_address": dict{"v4_prefix_mask_len": one(m.Rand, 0, 8, 31, 32), "v6_prefix_mask_len": one(m.Rand, 0, 32, 64)}}
	case 8:
		return dict{"query_parameters": dict{"query_parameter_name": one(m.Rand, "a", "e"), "descriptor_key": "q", "skip_if_absent": chance(m.Rand, 2)}}
	case 9:
		return dict{"query_parameter_value_match": dict{"descriptor_value": "g", "descriptor_key": one(m.Rand, "generic_key", ""), "expect_match": chance(m.Rand, 2), "query_parameters": []any{query}}}
	case 10:
		return dict{"remote_address_match": dict{"descriptor_value": "g", "descriptor_key": one(m.Rand, "generic_key", ""), "address_matcher": addresses}}
	}
	return dict{"generic_key": dict{"descriptor_value": "g"}}
}

// madeKeys are runtime keys of a group.
var madeKeys = dict{"all": 100, "none": 0, "more": 250, "text": "100", "struct": dict{"numerator": 100}, "least": dict{"numerator": 0, "denominator": "MILLION"}, "one": 1, "code": 404, "status": 418, "grpc": 7, "negative": -5, "decimal": 0.5}

// shareKey is a runtime key, which leaves nothing to chance either.
func (m *manager) shareKey() string {
	return one(m.Rand, "no.such.key", "no.such.key", "made.all", "made.none", "made.more", "made.text", "made.struct", "made.least", "made.negative")
}

// slowed has answers come slowly, but not so much that it is seen.
func (m *manager) slowed(fault dict) {
	if !chance(m.Rand, 4) {
		return
	}
	limit := dict{"percentage": m.percent()}
	if chance(m.Rand, 2) {
		limit["fixed_limit"] = dict{"limit_kbps": one(m.Rand, 1, 1000)}
	} else {
		limit["header_limit"] = dict{}
		m.want("X-Envoy-Fault-Throughput-Response", "0", "1", "1000", "x", "", "-1", "+5", "99999999999999999999")
		m.want("X-Envoy-Fault-Throughput-Response-Percentage", "0", "100", "x")
	}
	fault["response_rate_limit"] = limit
}

// ruledFault has runtime keys say something of faults.
func (m *manager) ruledFault(fault dict) {
	abort, _ := fault["abort"].(dict)
	delay, _ := fault["delay"].(dict)
	for _, f := range []struct {
		field, key string
		read       bool // the sidecar takes no key that nothing reads, nor one in the place of what requests say
	}{
		{"delay_percent_runtime", m.shareKey(), delay != nil}, {"abort_percent_runtime", m.shareKey(), abort != nil}, {"response_rate_limit_percent_runtime", m.shareKey(), fault["response_rate_limit"] != nil},
		{"delay_duration_runtime", "made.one", delay["fixed_delay"] != nil}, {"abort_http_status_runtime", "made.status", abort["http_status"] != nil},
		{"abort_grpc_status_runtime", "made.grpc", abort["grpc_status"] != nil}, {"max_active_faults_runtime", "made.one", fault["max_active_faults"] != nil && (abort != nil || delay != nil)},
	} {
		if f.read && chance(m.Rand, 5) {
			fault[f.field] = one(m.Rand, f.key, f.key, "no.such.key")
		}
	}
}

// more are options that few have.
func (m *manager) more() {
	h := m.c.HCM
	if chance(m.Rand, 5) {
		status := dict{}
		for _, f := range []string{"remove_details", "remove_connection_termination_details", "remove_response_flags", "set_recommended_response_code", "use_node_id"} {
			if chance(m.Rand, 3) {
				status[f] = true
			}
		}
		if status["use_node_id"] == nil && chance(m.Rand, 3) {
			status["literal_proxy_name"] = one(m.Rand, "us", "a.b:c/d")
		}
		h["proxy_status_config"] = status
	}
	if chance(m.Rand, 6) {
		h["append_local_overload"] = true
	}
	if chance(m.Rand, 6) {
		m.c.RouteConfig["max_direct_response_body_size_bytes"] = one(m.Rand, 100, 4096)
	}
	m.c.Router = dict{}
	if chance(m.Rand, 4) {
		m.c.Router["suppress_envoy_headers"] = true
	}
	if chance(m.Rand, 4) {
		m.c.Router["respect_expected_rq_timeout"] = true
	}
	if m.traced && chance(m.Rand, 4) {
		m.c.Router["start_child_span"] = true
	}
	m.want("X-Envoy-Expected-Rq-Timeout-Ms", "5000", "0", "x", "", "2.5", "-1")
	if chance(m.Rand, 4) {
		m.c.UpstreamLog = dict{}
		if chance(m.Rand, 4) {
			m.c.UpstreamLog["flush_upstream_log_on_upstream_stream"] = true
		}
	}
	if m.c.MTLS != nil && chance(m.Rand, 3) {
		h["forward_client_cert_matcher"] = m.certificateRules()
		m.want("X-Mode", "one", "two")
	}
}

// certificateRules choose by a header what is told of the client's certificate.
func (m *manager) certificateRules() dict {
	action := func() dict {
		of := dict{"@type": apiType + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.ForwardClientCertConfig",
			"forward_client_cert_details": one(m.Rand, "SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY")}
		if chance(m.Rand, 2) {
			of["set_current_client_cert_details"] = dict{one(m.Rand, "dns", "uri", "cert", "subject", "issuer"): true, "format": one(m.Rand, "TEXT", "JSON")}
		}
		return dict{"action": dict{"name": "a", "typed_config": of}}
	}
	var matchers []any
	for _, mode := range []string{"one", "two"}[:1+m.IntN(2)] {
		input := dict{"name": "i", "typed_config": dict{"@type": apiType + "type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": "x-mode"}}
		matchers = append(matchers, dict{"predicate": dict{"single_predicate": dict{"input": input, "value_match": dict{"exact": mode}}}, "on_match": action()})
	}
	out := dict{"matcher_list": dict{"matchers": matchers}}
	if chance(m.Rand, 2) {
		out["on_no_match"] = action()
	}
	return out
}
