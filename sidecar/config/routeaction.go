package config

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/xds/names"
)

// mutator is a message with Envoy's four fields of header mutations.
type mutator interface {
	GetRequestHeadersToAdd() []*corev3.HeaderValueOption
	GetRequestHeadersToRemove() []string
	GetResponseHeadersToAdd() []*corev3.HeaderValueOption
	GetResponseHeadersToRemove() []string
}

func mutations(m mutator, path string) (out route.HeaderMutations, err error) {
	if out.RequestAdd, err = headerAdds(m.GetRequestHeadersToAdd(), path+".request_headers_to_add"); err != nil {
		return out, err
	}
	if out.ResponseAdd, err = headerAdds(m.GetResponseHeadersToAdd(), path+".response_headers_to_add"); err != nil {
		return out, err
	}
	if out.RequestRemove, err = headerNames(m.GetRequestHeadersToRemove(), path+".request_headers_to_remove"); err != nil {
		return out, err
	}
	out.ResponseRemove, err = headerNames(m.GetResponseHeadersToRemove(), path+".response_headers_to_remove")
	return out, err
}

func headerAdds(ms []*corev3.HeaderValueOption, path string) ([]route.HeaderAdd, error) {
	var out []route.HeaderAdd
	for i, m := range ms {
		here := at(path, i)
		a := route.HeaderAdd{Name: m.GetHeader().GetKey(), Value: m.GetHeader().GetValue()}
		if err := mutable(a.Name, here+".header.key"); err != nil {
			return nil, err
		}
		if m.GetKeepEmptyValue() || a.Value == "" {
			return nil, fail(here, "headers with an empty value are not added; give it a value and remove keep_empty_value")
		}
		var err error
		if a.Action, err = appendAction(m, here); err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

func appendAction(m *corev3.HeaderValueOption, path string) (route.AppendAction, error) {
	//lint:ignore SA1019 deprecated, and in many configurations
	if b := m.GetAppend(); b != nil {
		if m.GetAppendAction() != corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD {
			return 0, fail(path+".append", "cannot be used together with append_action")
		}
		if !b.GetValue() {
			return route.OverwriteIfExistsOrAdd, nil
		}
	}
	switch m.GetAppendAction() {
	case corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD:
		return route.AppendIfExistsOrAdd, nil
	case corev3.HeaderValueOption_ADD_IF_ABSENT:
		return route.AddIfAbsent, nil
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
		return route.OverwriteIfExistsOrAdd, nil
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
		return route.OverwriteIfExists, nil
	}
	return 0, fail(path+".append_action", "unknown value %d", m.GetAppendAction())
}

func headerNames(names []string, path string) ([]string, error) {
	var out []string
	for i, n := range names {
		if err := mutable(n, at(path, i)); err != nil {
			return nil, err
		}
		out = append(out, strings.ToLower(n))
	}
	return out, nil
}

// mutable refuses names that a route may not change: pseudo-headers, the
// authority, and the fields that frame a message.
func mutable(name, path string) error {
	switch n := strings.ToLower(name); {
	case n == "":
		return fail(path, "is empty")
	case n[0] == ':' || n == "host":
		return fail(path, "%q cannot be changed here; use host_rewrite_literal or prefix_rewrite", name)
	case n == "content-length" || n == "transfer-encoding" || n == "connection" || n == "te" || n == "trailer" || n == "upgrade":
		return fail(path, "%q frames the message and cannot be changed", name)
	}
	return nil
}

var retryConditions = map[string]route.RetryOn{
	"5xx":                    route.Retry5xx,
	"gateway-error":          route.RetryGatewayError,
	"reset":                  route.RetryReset,
	"reset-before-request":   route.RetryResetBeforeRequest,
	"connect-failure":        route.RetryConnectFailure,
	"refused-stream":         route.RetryRefusedStream,
	"retriable-4xx":          route.RetryRetriable4xx,
	"retriable-status-codes": route.RetryStatusCodes,

	names.RetryResetIdempotent: route.RetryResetIdempotent,
}

func retryPolicy(m *routev3.RetryPolicy, path string) (*route.RetryPolicy, error) {
	if m == nil {
		return nil, nil
	}
	out := &route.RetryPolicy{NumRetries: 1}
	for word := range strings.SplitSeq(m.GetRetryOn(), ",") {
		word = strings.TrimSpace(word)
		c, ok := retryConditions[word]
		if !ok && word != "" {
			return nil, fail(path+".retry_on", "unsupported condition %q", word)
		}
		out.On |= c
	}
	if n := m.GetNumRetries(); n != nil {
		out.NumRetries = n.GetValue()
	}
	for i, c := range m.GetRetriableStatusCodes() {
		if c < 100 || c > 599 {
			return nil, fail(at(path+".retriable_status_codes", i), "%d is not a status code", c)
		}
		out.StatusCodes = append(out.StatusCodes, int(c))
	}
	var err error
	if out.PerTryTimeout, err = duration(m.GetPerTryTimeout(), path+".per_try_timeout"); err != nil {
		return nil, err
	}
	if b := m.GetRetryBackOff(); b != nil {
		if out.BackOffBase, err = duration(b.GetBaseInterval(), path+".retry_back_off.base_interval"); err != nil {
			return nil, err
		}
		if out.BackOffMax, err = duration(b.GetMaxInterval(), path+".retry_back_off.max_interval"); err != nil {
			return nil, err
		}
		if out.BackOffMax != 0 && out.BackOffMax < out.BackOffBase {
			return nil, fail(path+".retry_back_off.max_interval", "is less than base_interval")
		}
	}
	out.IdempotentOnly, err = idempotentOnly(m.GetRetriableRequestHeaders(), path+".retriable_request_headers")
	return out, err
}

// idempotentOnly reads the one form of retriable_request_headers that the data
// path has: the request's method is one that may be sent twice.
func idempotentOnly(ms []*routev3.HeaderMatcher, path string) (bool, error) {
	if len(ms) == 0 {
		return false, nil
	}
	const want = `supported is one matcher of ":method" whose safe_regex lists only GET, HEAD, OPTIONS, PUT, DELETE and TRACE`
	if len(ms) != 1 {
		return false, fail(path, "has %d matchers; %s", len(ms), want)
	}
	m := ms[0]
	re := m.GetStringMatch().GetSafeRegex().GetRegex()
	if m.GetName() != ":method" || m.GetInvertMatch() || re == "" {
		return false, fail(at(path, 0), "%s", want)
	}
	re = strings.TrimSuffix(strings.TrimPrefix(re, "^"), "$")
	re = strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(re, "("), "?:"), ")")
	seen := map[string]bool{}
	for method := range strings.SplitSeq(re, "|") {
		seen[method] = true
	}
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"} {
		if !seen[method] {
			return false, fail(at(path, 0)+".string_match.safe_regex.regex", "%q lacks %s; %s", re, method, want)
		}
		delete(seen, method)
	}
	if len(seen) > 0 {
		return false, fail(at(path, 0)+".string_match.safe_regex.regex", "%q has more; %s", re, want)
	}
	return true, nil
}

func redirect(m *routev3.RedirectAction, path string) (*route.Redirect, error) {
	out := &route.Redirect{
		Scheme:        m.GetSchemeRedirect(),
		Host:          m.GetHostRedirect(),
		Port:          int(m.GetPortRedirect()),
		Path:          m.GetPathRedirect(),
		PrefixRewrite: m.GetPrefixRewrite(),
		StripQuery:    m.GetStripQuery(),
	}
	if m.GetHttpsRedirect() {
		out.Scheme = "https"
	}
	switch m.GetResponseCode() {
	case routev3.RedirectAction_MOVED_PERMANENTLY:
		out.Code = 301
	case routev3.RedirectAction_FOUND:
		out.Code = 302
	case routev3.RedirectAction_SEE_OTHER:
		out.Code = 303
	case routev3.RedirectAction_TEMPORARY_REDIRECT:
		out.Code = 307
	case routev3.RedirectAction_PERMANENT_REDIRECT:
		out.Code = 308
	default:
		return nil, fail(path+".response_code", "unknown value %d", m.GetResponseCode())
	}
	return out, nil
}

// maxDirectBody is Envoy's default bound for direct responses.
const maxDirectBody = 4096

func directResponse(m *routev3.DirectResponseAction, path string) (*route.DirectResponse, error) {
	if m.GetBody().GetFilename() != "" {
		return nil, fail(path+".body.filename", "unsupported; write the body into inline_string")
	}
	out := &route.DirectResponse{Status: int(m.GetStatus()), Body: []byte(inline(m.GetBody()))}
	if len(out.Body) > maxDirectBody {
		return nil, fail(path+".body", "has %d bytes; %d are allowed", len(out.Body), maxDirectBody)
	}
	return out, nil
}
