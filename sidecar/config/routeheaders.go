package config

import (
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// mutator is a message with Envoy's four fields of header mutations.
type mutator interface {
	GetRequestHeadersToAdd() []*corev3.HeaderValueOption
	GetRequestHeadersToRemove() []string
	GetResponseHeadersToAdd() []*corev3.HeaderValueOption
	GetResponseHeadersToRemove() []string
}

// mutations returns nil where there are none.
func mutations(m mutator, path string) (_ *route.HeaderMutations, err error) {
	if len(m.GetRequestHeadersToAdd())+len(m.GetRequestHeadersToRemove())+
		len(m.GetResponseHeadersToAdd())+len(m.GetResponseHeadersToRemove()) == 0 {
		return nil, nil
	}
	out := &route.HeaderMutations{}
	if out.RequestAdd, err = headerAdds(m.GetRequestHeadersToAdd(), under(path, "request_headers_to_add"), ofRequest); err != nil {
		return nil, err
	}
	if out.ResponseAdd, err = headerAdds(m.GetResponseHeadersToAdd(), under(path, "response_headers_to_add"), ofResponse); err != nil {
		return nil, err
	}
	if out.RequestRemove, err = headerNames(m.GetRequestHeadersToRemove(), under(path, "request_headers_to_remove"), ofRequest); err != nil {
		return nil, err
	}
	out.ResponseRemove, err = headerNames(m.GetResponseHeadersToRemove(), under(path, "response_headers_to_remove"), ofResponse)
	return out, err
}

func headerAdds(ms []*corev3.HeaderValueOption, path string, of headersOf) ([]route.HeaderAdd, error) {
	var out []route.HeaderAdd
	for i, m := range ms {
		a, err := headerAdd(m, at(path, i), of)
		if err != nil {
			return nil, err
		}
		out = append(out, *a)
	}
	return out, nil
}

func headerAdd(m *corev3.HeaderValueOption, path string, of headersOf) (*route.HeaderAdd, error) {
	out := &route.HeaderAdd{Name: m.GetHeader().GetKey(), Value: m.GetHeader().GetValue(), KeepEmpty: m.GetKeepEmptyValue()}
	if err := mutable(out.Name, path+".header.key", of); err != nil {
		return nil, err
	}
	if keep, _ := http1.KeepTrailer(message.IDOf(out.Name)); of == ofTrailers && !keep {
		return nil, fail(path+".header.key", "%q is no trailer (RFC 9110 6.5.1)", out.Name)
	}
	if err := checkValue(out.Value, path+".header.value"); err != nil {
		return nil, err
	}
	var err error
	out.Action, err = appendAction(m, path)
	return out, err
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

// headerSteps reads a list of mutations in order.
func headerSteps(ms []*mutationv3.HeaderMutation, path string, of headersOf) ([]route.HeaderMutation, error) {
	var out []route.HeaderMutation
	for i, m := range ms {
		here := at(path, i)
		var step route.HeaderMutation
		var err error
		switch a := m.GetAction().(type) {
		case *mutationv3.HeaderMutation_Remove:
			step.Remove, err = strings.ToLower(a.Remove), mutable(a.Remove, here+".remove", of)
		case *mutationv3.HeaderMutation_Append:
			step.Add, err = headerAdd(a.Append, here+".append", of)
		case *mutationv3.HeaderMutation_RemoveOnMatch_:
			step.RemoveIf, err = stringMatch(a.RemoveOnMatch.GetKeyMatcher(), here+".remove_on_match.key_matcher")
		default:
			err = fail(here, "has no action")
		}
		if err != nil {
			return nil, err
		}
		out = append(out, step)
	}
	return out, nil
}

func headerNames(names []string, path string, of headersOf) ([]string, error) {
	var out []string
	for i, n := range names {
		if err := mutable(n, at(path, i), of); err != nil {
			return nil, err
		}
		out = append(out, strings.ToLower(n))
	}
	return out, nil
}

// internalOnly reads the names of headers that only internal clients may send. A name that no
// header has would let every client send what the configuration's author meant.
func internalOnly(names []string, path string) ([]string, error) {
	var out []string
	for i, n := range names {
		here := at(path, i)
		switch {
		case n == "":
			return nil, fail(here, "is empty")
		case n[0] == ':' || strings.EqualFold(n, "host"):
			return nil, fail(here, "%q is a part of every request; no client may leave it out", n)
		case strings.EqualFold(n, "x-forwarded-proto"):
			return nil, fail(here, "no host would learn how a request came; Envoy finds no route without it")
		case strings.ContainsFunc(n, notInNames):
			return nil, fail(here, "%q is no name of a header (RFC 9110 5.1)", n)
		}
		if err := mutable(n, here, ofRequest); err != nil {
			return nil, err
		}
		out = append(out, strings.ToLower(n))
	}
	return out, nil
}

// vhostHeader reads the name of the header that is in the host's place, "" for the host. By one that
// no request has when it is looked for, no virtual host would ever be found.
func vhostHeader(name, path string) (string, error) {
	lower := strings.ToLower(name)
	switch {
	case strings.ContainsFunc(strings.TrimPrefix(lower, ":"), notInNames) || lower == ":":
		return "", fail(path, "%q is no name of a header (RFC 9110 5.1)", name)
	case strings.HasPrefix(lower, "x-envoy-"):
		return "", fail(path, "%q is of those that are removed from what clients send", name)
	}
	return lower, nil
}

// notInNames tells what is not in a token (RFC 9110 5.6.2).
func notInNames(r rune) bool {
	return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
}

// headersOf tells whose headers are changed.
type headersOf uint8

const (
	ofRequest headersOf = iota
	ofResponse
	ofTrailers
)

// mutable refuses names that a route may not change: pseudo-headers, the authority, and the
// fields that frame a message or say what it asks of the next hop. Of those a response may
// name all but its length: as in Envoy the connection settles them afterwards, so that
// nothing comes of "connection: close" there, and a Trailer is a field as others are.
func mutable(name, path string, of headersOf) error {
	switch n := strings.ToLower(name); {
	case n == "":
		return fail(path, "is empty")
	case of == ofTrailers && n[0] != ':':
	case n[0] == ':' || n == "host":
		return fail(path, "%q cannot be changed here; use host_rewrite_literal or prefix_rewrite", name)
	case n == "content-length", of == ofRequest && (n == "transfer-encoding" || n == "connection" || n == "te" || n == "upgrade"):
		return fail(path, "%q frames the message and cannot be changed", name)
	}
	return nil
}
