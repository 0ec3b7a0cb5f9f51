//go:build e2e

package differential

import "strings"

var routeFormats = []string{"v", "", "%REQ(x-a)%", "%REQ(x-none)%", "%REQ(x-none?x-b)%", "%REQ(x-list):2%", "%REQ(:PATH)%", "%REQ(:METHOD)%", "%REQ(:AUTHORITY)%", "%PROTOCOL%", "%ROUTE_NAME%", "%%", "100%%",
	"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "%QUERY_PARAM(q)%", "%QUERY_PARAMS%", "%PATH(NQ)%", "%PATH(WQ:ORIG)%", "%PATH(NQ:PATH):3%", "%METADATA(ROUTE:m:k)%", "%METADATA(ROUTE:m:n)%", "%METADATA(ROUTE:m:none)%",
	"a %REQ(x-a)% b %REQ(x-b)%.", "%REQ(X-A):65536%", "%REQ(x-a):1%%REQ(x-b):1%", "é", "%REQUESTED_SERVER_NAME%", "%REQUESTED_SERVER_NAME(HOST_FIRST)%", "%REQ(host)%", "%REQ(cookie)%", "%UPSTREAM_CLUSTER%", "%FILTER_CHAIN_NAME%",
	"%REQ(x-envoy-original-path?:path)%", "%COALESCE({\"operators\": [{\"command\": \"REQ\", \"param\": \"x-a\"}, \"ROUTE_NAME\"]})%", "%GRPC_STATUS%", "%RESPONSE_FLAGS%", "%RESPONSE_CODE_DETAILS%", "%REQ(x-forwarded-proto)%", "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
	"%ACCESS_LOG_TYPE%", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "%RESPONSE_FLAGS_LONG%", "%REQ(:SCHEME)%", "%METADATA(VIRTUAL_HOST:m:k)%", "%DOWNSTREAM_PEER_URI_SAN%", "%REQ(x-b?x-a):3%", "%QUERY_PARAM(e)%|%QUERY_PARAM(Q)%", "%PATH(WQ)%", "%PATH(NQ:ORIG)%", "%ENVIRONMENT(HAUBERK_NONE)%"}

var routeAnswerFormats = append([]string{"%RESP(x-a)%", "%RESP(x-list)%", "%RESP(x-none?server)%", "%RESP(content-length)%", "%RESP(x-empty)%", "%UPSTREAM_HOST%", "%RESPONSE_CODE%", "%RESP(:status)%", "%RESP(location)%", "%RESP(content-type)%:%RESP(x-a):1%", "%UPSTREAM_PROTOCOL%", "%TRAILER(x-a)%"}, routeFormats...)

// mutations of headers at one level, once in n times for requests and for answers.
func (m *routeMaker) mutations(of dict, n int) {
	names := []string{"x-a", "X-A", "x-b", "x-list", "x-new", "x-empty", "user-agent", "cookie", "accept", "Accept-Encoding", "authorization", "referer", "via", "origin", "x-forwarded-host", "content-type", "accept-language"}
	if chance(m.r, n) {
		of["request_headers_to_add"] = m.adds(names, routeFormats)
	}
	if chance(m.r, 2*n) {
		of["request_headers_to_remove"] = []string{one(m.r, append([]string{"x-request-id"}, names...)...)}
	}
	names = append(names[:6], "server", "location", "content-type", "set-cookie", "x-origin", "cache-control", "Via", "content-encoding", "grpc-status", "x-request-id")
	if chance(m.r, n) {
		of["response_headers_to_add"] = m.adds(names, routeAnswerFormats)
	}
	if chance(m.r, 2*n) {
		of["response_headers_to_remove"] = []string{one(m.r, append([]string{"x-origin", "x-envoy-upstream-service-time", "date"}, names...)...)}
	}
}

func (m *routeMaker) adds(names, values []string) (out []any) {
	for range 1 + m.r.IntN(4) {
		add := dict{"header": dict{"key": one(m.r, names...), "value": one(m.r, values...)}}
		if !chance(m.r, 3) {
			add["append_action"] = one(m.r, "APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS")
		} else if chance(m.r, 4) {
			add["append"] = chance(m.r, 2)
		}
		if chance(m.r, 4) {
			add["keep_empty_value"] = true
		}
		out = append(out, add)
	}
	return out
}

var routeSubstitutions = []dict{
	{"pattern": dict{"regex": "^/a"}, "substitution": "/n"},
	{"pattern": dict{"regex": "/"}, "substitution": "//"},
	{"pattern": dict{"regex": "^/([^/]+)(/.*)?$"}, "substitution": `/x\2/\1`},
	{"pattern": dict{"regex": "a*"}, "substitution": "/-"},
	{"pattern": dict{"regex": "(?i)A"}, "substitution": `<\0>`},
	{"pattern": dict{"regex": "b$"}, "substitution": ""},
	{"pattern": dict{"regex": "/(a|b)"}, "substitution": `/\1\1?z=\1`},
	{"pattern": dict{"regex": "."}, "substitution": `\0\\`},
	{"pattern": dict{"regex": "nothing"}, "substitution": "x"},
	{"pattern": dict{"regex": "$"}, "substitution": "/end"},
	{"pattern": dict{"regex": ";[^/]*"}, "substitution": ""},
}

var routeRewrites = []string{"/new", "/new?x=1", "%PATH(NQ)%/x", "/%REQ(x-a)%", "/m/%METADATA(ROUTE:m:k)%", "%REQ(:path)%", "/%ROUTE_NAME%/%QUERY_PARAM(q)%", "%REQ(x-none)%"}

// rewrites puts one path rewrite into an action.
func (m *routeMaker) rewrites(out dict, kind string, redirect bool) {
	template := strings.HasPrefix(kind, "/")
	switch m.r.IntN(7) {
	case 0, 1:
		if template {
			if !redirect {
				out["path_rewrite_policy"] = dict{"name": "r", "typed_config": dict{"@type": apiType + "extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig", "path_template_rewrite": kind}}
			}
			return
		}
		out["prefix_rewrite"] = one(m.r, "/", "/n", "/n/", "/n/m", "/n?x=1", "/%6E", "/n%2Fm")
	case 2:
		out["regex_rewrite"] = one(m.r, routeSubstitutions...)
	case 3:
		out["path_rewrite"] = one(m.r, routeRewrites...)
	}
}

func (m *routeMaker) forward(kind string) dict {
	out := dict{}
	switch m.r.IntN(10) {
	case 0:
		out["cluster_header"] = one(m.r, "x-cluster", "x-a", ":authority")
		if chance(m.r, 2) {
			out["cluster_not_found_response_code"] = one(m.r, "NOT_FOUND", "SERVICE_UNAVAILABLE", "INTERNAL_SERVER_ERROR")
		}
	case 1, 2, 3:
		out["weighted_clusters"] = m.split()
		if chance(m.r, 4) { // by a hash
			out["hash_policy"] = m.hashes()
			out["weighted_clusters"] = dict{"use_hash_policy": true, "clusters": []any{dict{"name": "origin", "weight": one(m.r, 0, 1, 3, 1000)}, dict{"name": "other", "weight": one(m.r, 1, 2, 999)}, dict{"name": "third", "weight": 1}}}
		}
	case 4:
		out["cluster"] = "ring"
		out["hash_policy"] = m.hashes()
	case 5:
		out["cluster"] = one(m.r, "refused", "nowhere", "http2")
	default:
		out["cluster"] = one(m.r, "origin", "other", "third", "http2")
	}
	m.rewrites(out, kind, false)
	rewritten := m.r.IntN(8)
	if out["cluster"] == "ring" {
		rewritten = 7 // its hash is of the host
	}
	switch rewritten {
	case 0:
		out["host_rewrite_literal"] = one(m.r, "new.example", "NEW.example:80", "a.example", "")
	case 1:
		out["host_rewrite_header"] = one(m.r, "x-host", "X-Host", "x-none", ":authority")
	case 2:
		out["host_rewrite_path_regex"] = one(m.r, dict{"pattern": dict{"regex": "^/([a-z]*).*$"}, "substitution": `h\1.example`}, dict{"pattern": dict{"regex": "^/.*"}, "substitution": "p.example:81"})
	case 3:
		out["auto_host_rewrite"] = chance(m.r, 2)
	case 4:
		out["host_rewrite"] = one(m.r, "%REQ(x-host?:authority)%", "f.example", "%ROUTE_NAME%.example", "%REQ(:METHOD)%.example:80")
	}
	if chance(m.r, 4) {
		out["append_x_forwarded_host"] = true
	}
	if chance(m.r, 6) {
		for _, k := range []string{"path_rewrite_policy", "prefix_rewrite", "regex_rewrite", "path_rewrite", "host_rewrite_literal", "host_rewrite_header", "host_rewrite_path_regex", "auto_host_rewrite", "host_rewrite"} {
			delete(out, k) // what they leave of the first request is in internalredirects.yaml
		}
		policy := dict{}
		if chance(m.r, 2) {
			policy["max_internal_redirects"] = one(m.r, 0, 1, 2)
		}
		if chance(m.r, 2) {
			policy["redirect_response_codes"] = []int{302, 303, 307}
		}
		if chance(m.r, 2) {
			policy["allow_cross_scheme_redirect"] = true
		}
		if chance(m.r, 3) {
			policy["response_headers_to_copy"] = []string{"x-b"}
		}
		out["internal_redirect_policy"] = policy
	}
	if chance(m.r, 10) {
		out["timeout"] = one(m.r, "0s", "15s", "7s")
	}
	return out
}

// split has one leg that gets all.
func (m *routeMaker) split() dict {
	var legs []any
	at := m.r.IntN(3)
	for i, name := range []string{"origin", "other", "third"} {
		leg := dict{"name": name, "weight": 0}
		if i == at {
			leg["weight"] = one(m.r, 1, 100, 4294967295)
		}
		if chance(m.r, 4) {
			delete(leg, "name")
			leg["cluster_header"] = "x-cluster"
		}
		m.mutations(leg, 3)
		if chance(m.r, 4) {
			leg["host_rewrite_literal"] = "leg.example"
		}
		legs = append(legs, leg)
	}
	return dict{"clusters": legs}
}

// hashes ends with what every request has, so that none goes anywhere by chance.
func (m *routeMaker) hashes() (out []any) {
	for range 1 + m.r.IntN(3) {
		h := one(m.r, dict{"header": dict{"header_name": "x-a"}}, dict{"header": dict{"header_name": ":path"}}, dict{"query_parameter": dict{"name": "q"}}, dict{"cookie": dict{"name": "x"}},
			dict{"header": dict{"header_name": "x-list", "regex_rewrite": dict{"pattern": dict{"regex": "[vw]"}, "substitution": "z"}}}, dict{"query_parameter": dict{"name": "Q"}}, dict{"header": dict{"header_name": "user-agent"}})
		copied := dict{"terminal": chance(m.r, 3)}
		for k, v := range h {
			copied[k] = v
		}
		out = append(out, copied)
	}
	return append(out, dict{"header": dict{"header_name": ":authority"}})
}

func (m *routeMaker) redirect(kind string) dict {
	out := dict{}
	switch m.r.IntN(5) {
	case 0:
		out["https_redirect"] = true
	case 1:
		out["scheme_redirect"] = one(m.r, "https", "http", "HTTPS", "ftp")
	}
	if chance(m.r, 3) {
		out["host_redirect"] = one(m.r, "to.example", "to.example:80", "[::1]", "TO.example")
	}
	if chance(m.r, 4) {
		out["port_redirect"] = one(m.r, 80, 443, 8080, 65535)
	}
	switch m.r.IntN(6) {
	case 0:
		out["path_redirect"] = one(m.r, "/p", "/p?x=1", "/p#f", "/é")
	default:
		m.rewrites(out, kind, true)
	}
	if chance(m.r, 3) {
		out["response_code"] = one(m.r, "MOVED_PERMANENTLY", "FOUND", "SEE_OTHER", "TEMPORARY_REDIRECT", "PERMANENT_REDIRECT")
	}
	if chance(m.r, 4) {
		out["strip_query"] = true
	}
	return out
}

func (m *routeMaker) direct() dict {
	out := dict{"status": one(m.r, 200, 201, 204, 299, 304, 404, 503, 599)}
	if !chance(m.r, 3) {
		out["body"] = dict{"inline_string": one(m.r, "direct", "", "é", "{\"a\": 1}")}
	}
	if chance(m.r, 4) {
		out["body_format"] = one(m.r,
			dict{"text_format_source": dict{"inline_string": "%LOCAL_REPLY_BODY% %REQ(x-a)% %PROTOCOL% %ROUTE_NAME%"}},
			dict{"json_format": dict{"path": "%REQ(:path)%", "body": "%LOCAL_REPLY_BODY%", "n": dict{"q": "%QUERY_PARAM(q)%"}}},
			dict{"text_format_source": dict{"inline_string": "<%REQ(x-none)%>"}, "content_type": "text/html"},
			dict{"text_format_source": dict{"inline_string": "%METADATA(ROUTE:m:k)%|%PATH(NQ)%"}})
	}
	return out
}
