//go:build e2e

package differential

import (
	"fmt"
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
	when           func(x *Case, d Difference) bool // what else has to be so; nil for nothing
}{
	{"", whole(`log.*\.tried`), whole(`\((\w+)\)`), whole(`\((\w+)\)(,\(\w+\))+`), "the sidecar lists every host that was tried", nil},
	{"host2", whole(`upstream.*\.broken`), whole(`(END_STREAM )?RST_STREAM INTERNAL_ERROR`), whole(`(END_STREAM )?RST_STREAM CANCEL`), "a request that nobody wants any more is cancelled (RFC 9113 7); Envoy says that it has failed itself", nil},
	{"host2", whole(`upstream.*\.broken`), whole(`END_STREAM RST_STREAM NO_ERROR`), whole(`END_STREAM RST_STREAM CANCEL`), "a request that nobody wants any more is cancelled (RFC 9113 7)", nil},
	{"client1 answer-trailers", whole(`response.*\.trailer\.x-end`), whole("2"), whole(`\(absent\)`), "a client of HTTP/1 gets trailers when it asks for them (RFC 9110 6.5.1)", asksForNoTrailers},
	{"client2 within-answer", whole(`stream\[\d\]`), whole("RST_STREAM INTERNAL_ERROR"), whole("RST_STREAM (CANCEL|ENHANCE_YOUR_CALM)"), "the client learns why its host gave up", nil},
	{"client2 within-both", whole(`stream\[\d\]`), whole("RST_STREAM INTERNAL_ERROR"), whole("RST_STREAM (CANCEL|ENHANCE_YOUR_CALM)"), "the client learns why its host gave up", nil},
	{"client2 early", whole(`response\.(body|trailer\.x-end)|stream\[1\]|vain`), whole(`[a-z]*|\d+ bytes.*|RST_STREAM INTERNAL_ERROR|c await \d+(; c await \d+)*|\(absent\)`), whole(`[a-z]+|\d+ bytes.*|END_STREAM RST_STREAM NO_ERROR|\(absent\)|2`), "an answer is sent whole before its request is reset; Envoy loses what waits for a window", lostBehindWindow},
	{"client1 too-large", whole(`response\.header\.connection|end`), whole("close|closed"), whole(`\(absent\)|open`), "Envoy closes the connection when it answers before it has read the whole request; the sidecar reads the rest and keeps it", nil},
	{"too-large", whole(`log\.received`), whole(`\d+`), whole(`\d+`), "how much was read of what is refused depends on how it arrives", nil},
	{"500 host2", whole(`upstream\.broken`), whole("END_STREAM RST_STREAM INTERNAL_ERROR"), whole(`\(absent\)`), "an answer that is not used is read to its end; Envoy resets its stream", nil},
	{"host-cut until-close", whole(`log\.(details|flags|flags_long)|response\.broken|stream\[1\]|end`), whole(`via_upstream|-|\(absent\)|whole|END_STREAM.*|open`), whole(`upstream_reset_after_response_started.*|UC|UpstreamConnectionTermination|cut off|closed|RST_STREAM.*`), "a reset is not the end of a body that lasts until the close (RFC 9112 8); Envoy takes what came for all of it", takenForWhole},
	{"client2 within-request", whole(`response\.body|stream\[1\]`), whole(`[ -~]*|RST_STREAM INTERNAL_ERROR`), whole(`[ -~]+|END_STREAM RST_STREAM NO_ERROR`), "an answer is sent whole before its request is reset; Envoy loses what waits for a window", lostBehindWindow},
	{"client2 until-close within-both", whole(`response\.body|stream\[1\]`), whole(`[a-z]*|\d+ bytes.*|RST_STREAM INTERNAL_ERROR`), whole(`[a-z]+|\d+ bytes.*|END_STREAM RST_STREAM NO_ERROR`), "an answer is sent whole before its request is reset; Envoy loses what waits for a window", lostBehindWindow},
	{"client2 too-large", whole(`stream\[1\]`), whole("END_STREAM"), whole("END_STREAM RST_STREAM NO_ERROR"), "what is announced to be too large is refused before it comes", nil},
	{"client-reset-NO_ERROR", whole(`log\.(details|flags|flags_long)`), whole("null|via_upstream|-"), whole("http2.remote_reset|DR|DownstreamRemoteReset"), "a client that resets its stream has done so, whatever its code", nil},
	{"/buffered request-trailers", whole(`upstream\.(framing|header\.(content-length|transfer-encoding)|trailer\.x-sum)`), whole(`length|\d+|\(absent\)`), whole(`chunked|\(absent\)|1`), "a request that has trailers stays in chunks: one with a length has none", nil},
	{"/duration", whole(`log\.flags(_long)?`), whole("-"), whole("DT|DurationTimeout"), "the access log says that it was the longest duration", nil},
	{"te", whole(`upstream.*\.header\.connection`), whole(`\(absent\)`), whole("TE"), "Connection names TE, as RFC 9110 10.1.4 demands", nil},
}

func whole(expression string) *regexp.Regexp { return regexp.MustCompile("^(?s:" + expression + ")$") }

// knownOfBodies implements domain.
func knownOfBodies(_ *Config, x *Case, d Difference) string {
	said := strings.Fields(x.Name)
	for _, k := range knownsOfBodies {
		all := !slices.ContainsFunc(strings.Fields(k.odds), func(odd string) bool { return !slices.Contains(said, odd) })
		if all && k.field.MatchString(d.Field) && k.envoy.MatchString(d.Envoy) && k.hauberk.MatchString(d.Hauberk) && (k.when == nil || k.when(x, d)) {
			return k.why
		}
	}
	return ""
}

// lostBehindWindow tells whether Envoy sent no less of an answer than the client's windows took at once,
// and not the rest, where the sidecar sent all of it. The rest may be the end alone: nghttp2 has that wait
// too while there is no window, and a client gives a small one back piece by piece.
func lostBehindWindow(x *Case, d Difference) bool {
	e, h := x.Seen[0], x.Seen[1]
	if e["stream[1]"] != "RST_STREAM INTERNAL_ERROR" || h["stream[1]"] != "END_STREAM RST_STREAM NO_ERROR" {
		return false
	}
	got, all := lengthOfBody(e["response.body"]), lengthOfBody(h["response.body"])
	if w := clientWindow(x); got > all || got < w || got == all && w > smallWindow {
		return false
	}
	if said := shown(piece(0, all)); h["response.body"] == said && e["response.body"] != shown(piece(0, got)) ||
		h["response.body"] != said && !strings.HasPrefix(h["response.body"], e["response.body"]) {
		return false
	}
	switch d.Field {
	case "response.trailer.x-end":
		return d.Envoy == absent && d.Hauberk == "2"
	case "vain": // what did not come
		return d.Hauberk == absent && !slices.ContainsFunc(strings.Split(d.Envoy, "; "), func(step string) bool {
			var n int
			_, err := fmt.Sscanf(step, "c await %d", &n)
			return err != nil || n <= got
		})
	}
	return true
}

// shown is how a body is told that came as these bytes.
func shown(b []byte) string {
	t := newTurn(&actor{}, 0)
	defer close(t.steps)
	t.m = &Message{}
	t.take(b)
	return t.message().Body
}

// lengthOfBody is how long a body is that is told so.
func lengthOfBody(told string) int {
	var n int
	if _, err := fmt.Sscanf(told, "%d bytes, ", &n); err == nil {
		return n
	}
	return len(told)
}

// smallWindow is the largest that a piece of a small body may fill.
const smallWindow = 4000

// clientWindow is how much the client of HTTP/2 takes before it gives anything back.
func clientWindow(x *Case) int {
	n := 65535 // that of the connection
	for _, step := range x.Acts {
		var own int
		if _, err := fmt.Sscanf(step, "c window %d", &own); err == nil {
			n = min(n, own)
		}
	}
	return n
}

// asksForNoTrailers tells whether the request, whose answer's field differs, does not say TE.
func asksForNoTrailers(x *Case, d Difference) bool {
	asked := 0
	for _, step := range x.Acts {
		words := strings.Fields(step)
		if words[0] != "c" || strings.ToUpper(words[1]) != words[1] {
			continue
		}
		if strings.HasPrefix(d.Field, numbered("response", asked)+".") {
			return !slices.Contains(words, "te=trailers")
		}
		asked++
	}
	return false
}

// takenForWhole tells whether Envoy took what came before a reset for all of an answer.
func takenForWhole(x *Case, _ Difference) bool {
	return x.Seen[0]["log.details"] == "via_upstream" && strings.HasPrefix(x.Seen[1]["log.details"], "upstream_reset_after_response_started")
}
