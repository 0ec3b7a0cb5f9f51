package differential

import (
	"slices"
	"strings"
)

// absent is the value of a field that one of the two does not have.
const absent = "(absent)"

// Normalisations are what is not compared to the letter, and why.
var Normalisations = []struct{ What, How, Why string }{
	{"names of header fields", "without regard to case", "RFC 9110 5.1; Envoy writes them in lower case, the sidecar as they came"},
	{"reason phrases", "not compared", "RFC 9112 4: a client ignores them; Envoy writes its own, the sidecar the origin's"},
	{"order of header fields", "values of one name keep theirs; names among each other are not compared", "RFC 9110 5.3; each program puts its own fields elsewhere"},
	{"`date`", "a date or none", "the clock"},
	{"`x-request-id`", "a UUID, or what the client sent", "random"},
	{"`x-envoy-upstream-service-time`", "a number or none", "the clock"},
	{"`x-envoy-expected-rq-timeout-ms`", "to the next 50 ms, from 5 s on to the next second", "the clock"},
	{"the host's own address", "by that name", "it is another on each host"},
	{"order of response flags", "not compared", "a set; Envoy writes them in the order they were found, the sidecar in one of its own"},
	{"ports", "by the name of the listener or origin", "each program has its own"},
}

// verdict is what is wrong with a case: differences that it does not name, and
// named ones that are not there (any more).
func verdict(found, named []Difference) (unexpected, gone []Difference) {
	for _, d := range found {
		if !slices.ContainsFunc(named, func(n Difference) bool { return n.names(d) || n.covers(d) }) {
			unexpected = append(unexpected, d)
		}
	}
	for _, n := range named {
		if !slices.ContainsFunc(found, n.names) {
			gone = append(gone, n)
		}
		for _, prefix := range n.And {
			if !slices.ContainsFunc(found, func(d Difference) bool { return strings.HasPrefix(d.Field, prefix) }) {
				gone = append(gone, Difference{Field: prefix + "…"})
			}
		}
	}
	return unexpected, gone
}

func (n Difference) names(d Difference) bool {
	return n.Field == d.Field && like(n.Envoy, d.Envoy) && like(n.Hauberk, d.Hauberk)
}

// like tells whether a value is the one that is named, whose end may be "*".
func like(named, value string) bool {
	if prefix, ok := strings.CutSuffix(named, "*"); ok {
		return strings.HasPrefix(value, prefix)
	}
	return named == value
}

func (n Difference) covers(d Difference) bool {
	return slices.ContainsFunc(n.And, func(prefix string) bool { return strings.HasPrefix(d.Field, prefix) })
}
