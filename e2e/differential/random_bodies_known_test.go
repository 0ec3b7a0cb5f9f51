//go:build e2e

package differential

import (
	"regexp"
	"slices"
	"strings"
)

// knownsOfBodies are differences of docs/differential.md, by all that brings them about: words of
// the case's name.
var knownsOfBodies = []struct {
	odds           string
	field          *regexp.Regexp // the whole field
	envoy, hauberk *regexp.Regexp // the whole values
	why            string
}{
	{"", whole(`log.*\.tried`), whole(`\((\w+)\)`), whole(`\((\w+)\)(,\(\w+\))+`), "the sidecar lists every host that was tried"},
	{"host2", whole(`upstream.*\.broken`), whole(`(END_STREAM )?RST_STREAM INTERNAL_ERROR`), whole(`(END_STREAM )?RST_STREAM CANCEL`), "a request that nobody wants any more is cancelled (RFC 9113 7); Envoy says that it has failed itself"},
	{"host2", whole(`upstream.*\.broken`), whole(`END_STREAM RST_STREAM \w+`), whole(`END_STREAM RST_STREAM CANCEL`), "a request that nobody wants any more is cancelled (RFC 9113 7)"},
	{"client1 answer-trailers", whole(`response.*\.trailer\.x-end`), whole("2"), whole(`\(absent\)`), "a client of HTTP/1 gets trailers when it asks for them (RFC 9110 6.5.1)"},
	{"client2 within-answer", whole(`stream\[\d\]`), whole("RST_STREAM INTERNAL_ERROR"), whole("RST_STREAM (CANCEL|ENHANCE_YOUR_CALM)"), "the client learns why its host gave up"},
	{"client2 within-both", whole(`stream\[\d\]`), whole("RST_STREAM INTERNAL_ERROR"), whole("RST_STREAM (CANCEL|ENHANCE_YOUR_CALM)"), "the client learns why its host gave up"},
	{"client2 early", whole(`response\.(body|trailer\.x-end)|stream\[1\]|vain`), whole(`[a-z]*|\d+ bytes.*|RST_STREAM INTERNAL_ERROR|c await \d+`), whole(`\d+ bytes.*|END_STREAM RST_STREAM NO_ERROR|\(absent\)|2`), "an answer is sent whole before its request is reset; Envoy loses what waits for a window"},
	{"client1 too-large", whole(`response\.header\.connection|end`), whole("close|closed"), whole(`\(absent\)|open`), "Envoy closes the connection when it answers before it has read the whole request; the sidecar reads the rest and keeps it"},
	{"too-large", whole(`log\.received`), whole(`\d+`), whole(`\d+`), "how much was read of what is refused depends on how it arrives"},
	{"500 host2", whole(`upstream\.broken`), whole("END_STREAM RST_STREAM INTERNAL_ERROR"), whole(`\(absent\)`), "an answer that is not used is read to its end; Envoy resets its stream"},
	{"host-cut until-close", whole(`log\.(details|flags|flags_long)|response\.broken|stream\[1\]|end`), whole(`via_upstream|-|\(absent\)|whole|END_STREAM.*|open`), whole(`upstream_reset_after_response_started.*|UC|UpstreamConnectionTermination|cut off|closed|RST_STREAM.*`), "a reset is not the end of a body that lasts until the close (RFC 9112 8); Envoy takes what came for all of it"},
	{"client2 within-request", whole(`response\.body|stream\[1\]`), whole(`[a-z]*|\d+ bytes.*|RST_STREAM INTERNAL_ERROR`), whole(`[a-z ]+|\d+ bytes.*|END_STREAM RST_STREAM NO_ERROR`), "an answer is sent whole before its request is reset; Envoy loses what waits for a window"},
	{"client2 until-close within-both", whole(`response\.body|stream\[1\]`), whole(`[a-z]*|\d+ bytes.*|RST_STREAM INTERNAL_ERROR`), whole(`[a-z]+|\d+ bytes.*|END_STREAM RST_STREAM NO_ERROR`), "an answer is sent whole before its request is reset; Envoy loses what waits for a window"},
	{"client2 too-large", whole(`stream\[1\]`), whole("END_STREAM"), whole("END_STREAM RST_STREAM NO_ERROR"), "what is announced to be too large is refused before it comes"},
	{"client-reset-NO_ERROR", whole(`log\.(details|flags|flags_long)`), whole("null|via_upstream|-"), whole("http2.remote_reset|DR|DownstreamRemoteReset"), "a client that resets its stream has done so, whatever its code"},
	{"/buffered request-trailers", whole(`upstream\.(framing|header\.(content-length|transfer-encoding)|trailer\.x-sum)`), whole(`length|\d+|\(absent\)`), whole(`chunked|\(absent\)|1`), "a request that has trailers stays in chunks: one with a length has none"},
	{"/duration", whole(`log\.flags(_long)?`), whole("-"), whole("DT|DurationTimeout"), "the access log says that it was the longest duration"},
	{"te", whole(`upstream.*\.header\.connection`), whole(`\(absent\)`), whole("TE"), "Connection names TE, as RFC 9110 10.1.4 demands"},
}

func whole(expression string) *regexp.Regexp { return regexp.MustCompile("^(?s:" + expression + ")$") }

// knownOfBodies implements domain.
func knownOfBodies(_ *Config, x *Case, d Difference) string {
	said := strings.Fields(x.Name)
	for _, k := range knownsOfBodies {
		all := !slices.ContainsFunc(strings.Fields(k.odds), func(odd string) bool { return !slices.Contains(said, odd) })
		if all && k.field.MatchString(d.Field) && k.envoy.MatchString(d.Envoy) && k.hauberk.MatchString(d.Hauberk) {
			return k.why
		}
	}
	return ""
}
