package telemetry

import (
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// Of a field that comes several times Envoy shows the first value, but for the fields that
// it knows by name: it keeps one of each, to which it appends what else comes under the
// name. A line that had only the first would show half of x-forwarded-for.
var (
	listsOfBoth     = `cache-control content-encoding content-type keep-alive proxy-status via x-envoy-attempt-count x-envoy-decorator-operation x-request-id `
	listsOfRequest  = nameSet(listsOfBoth + `accept accept-encoding access-control-request-headers access-control-request-method access-control-request-private-network authorization grpc-accept-encoding grpc-timeout if-match if-modified-since if-none-match if-range if-unmodified-since origin pragma referer user-agent x-client-trace-id x-envoy-downstream-service-cluster x-envoy-downstream-service-node x-envoy-external-address x-envoy-original-host x-envoy-original-path x-forwarded-client-cert x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto`)
	listsOfResponse = nameSet(listsOfBoth + `access-control-allow-credentials access-control-allow-headers access-control-allow-methods access-control-allow-origin access-control-expose-headers access-control-max-age age date etag expires grpc-message grpc-status last-modified location vary x-envoy-degraded x-envoy-immediate-health-check-fail x-envoy-ratelimited x-envoy-upstream-canary x-envoy-upstream-healthchecked-cluster x-envoy-upstream-service-time`)
	listsOfTrailers = nameSet(`grpc-message grpc-status`)
)

func nameSet(names string) map[string]bool {
	out := map[string]bool{}
	for name := range strings.FieldsSeq(names) {
		out[name] = true
	}
	return out
}

// shown is a field as operators show it.
type shown struct {
	name message.Name
	list bool // all its values, with commas between
}

// show makes a field shown that shows every value where its name is one of lists.
func show(name string, lists map[string]bool) shown { return shown{message.NameOf(name), lists[name]} }

// append appends the field's value; ok is false where h has none.
func (s *shown) append(dst []byte, h Headers) (out []byte, ok bool) {
	if h == nil || s.name == (message.Name{}) {
		return dst, false
	}
	start := len(dst)
	value, next, ok := h.HeaderFrom(s.name, 0)
	dst = append(dst, value...)
	for more := ok && s.list; more; {
		if value, next, more = h.HeaderFrom(s.name, next); !more || value == "" {
			continue // an empty one is in no list
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = append(dst, value...)
	}
	return dst, ok
}

// AppendRequestField appends a field of a request as %REQ% shows it; ok is false where
// there is none. The name is in lower case.
func AppendRequestField(dst []byte, h Headers, name string) (out []byte, ok bool) {
	s := show(name, listsOfRequest)
	return s.append(dst, h)
}
