//go:build e2e

package differential

import (
	"regexp"
	"slices"
	"strings"
)

// knownHTTP2 is a difference by what brings it about: a construct of the case's name, which may
// end in "*".
type knownHTTP2 struct {
	odd            string
	field          string // an expression of the whole field
	envoy, hauberk string // of the whole values; empty is any
	why            string
}

var knownsHTTP2 = []knownHTTP2{
	{"*", `log.*\.details`, "http2.invalid.header.field|http2.violation.of.messaging.rule|http2.unknown.nghttp2.error|codec_error:The_user_callback_function_failed", "", "the sidecar names the rule that was broken"},
	{"*", `log.*\.details`, "http2.inbound_empty_frames_flood", "empty_frames_flood", "another name for the same refusal"},
	{"*", `log.*\.tried`, `\(frames\)`, `\(frames\),.*`, "the sidecar lists every host that was tried"},
	{"*", `end`, "closed", "GOAWAY .*", "Envoy ends a connection without saying why (RFC 9113 5.4.1)"},
	{"1-103", `stream\[1\]\.interim.*`, `\(absent\)`, "", "the sidecar forwards interim responses (RFC 9110 15.2), Envoy drops them"},
	{"i-*", `stream\[1\]\.interim.*`, `\(absent\)`, "", "the sidecar forwards interim responses (RFC 9110 15.2), Envoy drops them"},
	{"i-*", `log.*\.details`, `upstream_reset_after_response_started.*`, `upstream_reset_before_response_started.*`, "an interim answer is not yet the answer"},
	{"i-*", `log.*\.flags`, "UPE,URX", "UPE", "an answer of which an interim was forwarded has begun, and is not tried again"},
	{"i-*", `log.*\.flags_long`, "UpstreamProtocolError,UpstreamRetryLimitExceeded", "UpstreamProtocolError", "an answer of which an interim was forwarded has begun, and is not tried again"},
	{"HEAD", `(stream\[1\]|log.*\.(flags|flags_long|details))`, "RST_STREAM INTERNAL_ERROR|UPE|UpstreamProtocolError|upstream_reset_after_response_started.protocol_error.", "END_STREAM|-|via_upstream", "an answer that has no content is whole with its head"},
	{"a-204*", `(stream\[1\]|log.*\.(flags|flags_long|details))`, "RST_STREAM INTERNAL_ERROR|UPE|UpstreamProtocolError|upstream_reset_after_response_started.protocol_error.", "END_STREAM|-|via_upstream", "an answer that has no content is whole with its head"},
	{"a-304*", `(stream\[1\]|log.*\.(flags|flags_long|details))`, "RST_STREAM INTERNAL_ERROR|UPE|UpstreamProtocolError|upstream_reset_after_response_started.protocol_error.", "END_STREAM|-|via_upstream", "an answer that has no content is whole with its head"},
	{"HEAD", `response.header.transfer-encoding`, "chunked", `\(absent\)`, "Envoy says Transfer-Encoding: chunked in an answer to HEAD without a length"},
	{"late-*", `stream\[1\]`, "RST_STREAM INTERNAL_ERROR", "RST_STREAM (CANCEL|ENHANCE_YOUR_CALM)", "the client learns why its host gave up"},
	{"expect*", `stream\[.\]\.interim.*`, "|HTTP/2 100|none|stream", `\(absent\)`, "a request without content asks for nothing to go on with (RFC 9110 10.1.1)"},
	{"hpack-*", `log\[null\].*`, "", `\(absent\)`, "a head that cannot be decoded is no request"},
	{"continuation*", `log\[null\].*`, "", `\(absent\)`, "a head that cannot be decoded is no request"},
	{"padding-none", "end", "GOAWAY PROTOCOL_ERROR", "GOAWAY FRAME_SIZE_ERROR", "a frame that has no room for what it must have is of a wrong size (RFC 9113 4.2)"},
	{"head-short", "end", "GOAWAY PROTOCOL_ERROR", "GOAWAY FRAME_SIZE_ERROR", "a frame that has no room for what it must have is of a wrong size (RFC 9113 4.2)"},
	{"connect*", "end", "GOAWAY NO_ERROR", "open", "what is refused on a stream of HTTP/2 leaves nothing that others could be read for"},
	{"extended*", "end", "GOAWAY NO_ERROR", "open", "what is refused on a stream of HTTP/2 leaves nothing that others could be read for"},
	{"underscore*", `(log.*\.flags.*|stream.*)`, "DR|DownstreamRemoteReset|RST_STREAM INTERNAL_ERROR", "DPE|DownstreamProtocolError|RST_STREAM PROTOCOL_ERROR", "what is over the sidecar's limits is refused as what breaks the protocol is"},
	{"t-cookie", `.*\.trailer\.cookie`, "a=1; b=2", `\(absent\)`, "fields that trailers are not to have are dropped (RFC 9110 6.5.1)"},
	{"t-authorization", `.*\.trailer\.authorization`, "x", `\(absent\)`, "fields that trailers are not to have are dropped (RFC 9110 6.5.1)"},
	{"t-type", `.*\.trailer\.content-type`, "text/plain", `\(absent\)`, "fields that trailers are not to have are dropped (RFC 9110 6.5.1)"},
	{"1-te", `stream\[1\]\.response\.header\.te`, "trailers", `\(absent\)`, "no answer of HTTP/2 has TE (RFC 9113 8.2.2)"},
	{"1-http2-settings", `(stream\[1\]\.)?response\.header\.http2-settings`, "a", `\(absent\)`, "HTTP2-Settings is for one hop (RFC 7540 3.2.1)"},
	{"te-two", `upstream.*\.header\.connection`, `\(absent\)`, "TE", "Connection names TE, as RFC 9110 10.1.4 demands"},
	{"late-*", `log.*\.(flags|flags_long|details)`, "DC|DownstreamConnectionTermination|downstream_remote_disconnect", "UR|UpstreamRemoteReset|upstream_reset_after_response_started.*", "a client of HTTP/1 that leaves is noticed within 100 ms; its host was before"},
	{"te", `upstream.*\.header\.connection`, `\(absent\)`, "TE", "Connection names TE, as RFC 9110 10.1.4 demands"},
	{"http2-settings", `upstream.*\.header\.http2-settings`, "AAMAAABkAAQAAP__", `\(absent\)`, "HTTP2-Settings is for one hop (RFC 7540 3.2.1)"},
	{"a-204*", `log.*\.(flags|flags_long|details)`, "DC|DownstreamConnectionTermination|downstream_remote_disconnect|UR|UpstreamRemoteReset|upstream_reset_after_response_started.*", "-|via_upstream", "an answer that has no content is whole with its head"},
	{"a-304*", `log.*\.(flags|flags_long|details)`, "DC|DownstreamConnectionTermination|downstream_remote_disconnect|UR|UpstreamRemoteReset|upstream_reset_after_response_started.*", "-|via_upstream", "an answer that has no content is whole with its head"},
	{"HEAD", `log.*\.(flags|flags_long|details)`, "DC|DownstreamConnectionTermination|downstream_remote_disconnect|UR|UpstreamRemoteReset|upstream_reset_after_response_started.*", "-|via_upstream", "an answer that has no content is whole with its head"},
	{"*", `(stream\[1\]\.)?response\.header\.trailer`, "x-sum", `\(absent\)`, "the sidecar drops the field that announces trailers where it drops them"},
	{"*", `log.*\.details`, `rbac_access_denied_matched_policy\[denied\]`, "rbac_access_denied", "the sidecar says the policy in another field"},
	{"/refused", `log.*\.tried`, "null", `\(refused\)`, "the sidecar lists every host that was tried"},
	{"204*", `log.*\.(sent|length)`, "", "0|null", "a 204 has no content (RFC 9110 15.3.5)"},
	{"204*", `stream\[1\]\.response\.header\.content-length`, `[0-9]+`, `\(absent\)`, "a 204 has no content (RFC 9110 15.3.5)"},
	{"204*", `stream\[1\]\.response\.body`, "", "^$", "a 204 has no content (RFC 9110 15.3.5)"},
	{"204*", `log.*\.(grpc|passed)`, "", "", "an answer that has no content is whole with its head"},
	{"204*", `stream\[1\]\.response\.trailer.*`, "", `\(absent\)`, "an answer that has no content is whole with its head"},
	{"204*", `stream\[1\]`, "RST_STREAM INTERNAL_ERROR", "END_STREAM", "an answer that has no content is whole with its head"},
	{"204*", `log.*\.flags`, "UPE|UR", "-", "an answer that has no content is whole with its head"},
	{"204*", `log.*\.flags_long`, "Upstream(ProtocolError|RemoteReset)", "-", "an answer that has no content is whole with its head"},
	{"204*", `log.*\.details`, `upstream_reset_after_response_started.*`, "via_upstream", "an answer that has no content is whole with its head"},
	// A host may leave the stream open behind such a head. Envoy waits for more.
	{"204", `stream\[1\]`, "open", "END_STREAM", "an answer that has no content is whole with its head"},
	{"204", `log.*\.flags`, "DC", "-", "an answer that has no content is whole with its head"},
	{"204", `log.*\.flags_long`, "DownstreamConnectionTermination", "-", "an answer that has no content is whole with its head"},
	{"204", `log.*\.details`, "downstream_remote_disconnect", "via_upstream", "an answer that has no content is whole with its head"},
	{"t-*", `.*\.trailer\.(set-)?cookie`, "", `\(absent\)`, "fields that authenticate or direct are no trailers (RFC 9110 6.5.1)"},
	{"*", `log.*\.tried`, `\(origin\)`, `\(origin\),.*`, "the sidecar lists every host that was tried"},
	{"/brief", `log.*\.flags(_long)?`, "-", "DT|DurationTimeout", "the access log says that it was the longest duration"},
	{"host", `(stream\[1\]\.)?response\.header\.host`, "test.example", `\(absent\)`, "a field of requests says nothing in an answer (RFC 9110 7.2, 10.1.1)"},
	{"expect", `(stream\[1\]\.)?response\.header\.expect`, "100-continue", `\(absent\)`, "a field of requests says nothing in an answer (RFC 9110 7.2, 10.1.1)"},
	{"priority-self", `stream\[99\]`, `\(absent\)`, "RST_STREAM PROTOCOL_ERROR", "a stream does not depend on itself (RFC 7540 5.3.1)"},
	{"length-5", `log.*\.received`, "5", "0", "what is known to be malformed is not passed on (RFC 9113 8.1.1)"},
	{"length-5", `upstream.*\.body`, "hello", "", "what is known to be malformed is not passed on (RFC 9113 8.1.1)"},
	{"length-5", `upstream.*\.broken`, `\(absent\)`, "cut off", "what is known to be malformed is not passed on (RFC 9113 8.1.1)"},
	{"length-zeros", `log.*\.received`, "5", "0", "what is known to be malformed is not passed on (RFC 9113 8.1.1)"},
	{"length-zeros", `upstream.*\.body`, "hello", "", "what is known to be malformed is not passed on (RFC 9113 8.1.1)"},
	{"length-zeros", `upstream.*\.broken`, `\(absent\)`, "cut off", "what is known to be malformed is not passed on (RFC 9113 8.1.1)"},
	{"a-204-length-0", `log.*\.length`, "null", "0", "the log has the length that the host said"},
	{"extended*", `upstream.*\.header\.connection`, "upgrade", "Upgrade", "an option of Connection has no case (RFC 9110 7.6.1)"},
	{"t-none", "end", "GOAWAY COMPRESSION_ERROR", "open", "a block of nothing needs no table (RFC 7541 4.2)"},
	{"t-none", `log.*\.(flags|flags_long|details)`, `UPE|UpstreamProtocolError|upstream_reset_after_response_started\{protocol_error\}`, "-|via_upstream", "a block of nothing needs no table (RFC 7541 4.2), also where a smaller one was asked for"},
	{"t-none", `(stream\[1\]\.)?response\.broken|end|stream\[1\]`, "cut off|closed|RST_STREAM INTERNAL_ERROR", `\(absent\)||END_STREAM`, "a block of nothing needs no table (RFC 7541 4.2), also where a smaller one was asked for"},
	{"t-open", `log.*\.flags`, "DC", "UPE", "trailers end their stream (RFC 9113 8.1)"},
	{"t-open", `log.*\.flags_long`, "DownstreamConnectionTermination", "UpstreamProtocolError", "trailers end their stream (RFC 9113 8.1)"},
	{"t-open", `log.*\.details`, "downstream_remote_disconnect", `upstream_reset_after_response_started.protocol_error.`, "trailers end their stream (RFC 9113 8.1)"},
	{"length-*", `log.*\.details`, "http2.remote_reset", "content_length_mismatch", "the sidecar names the rule that was broken"},
	{"application/grpc*", `upstream.*\.header\.grpc-timeout`, "99999999H", "768[0-9]{5}M", "no time here is longer than 146 years"},
	{"length-zeros", `.*header\.content-length|log.*\.length`, "005", "5", "a length is written as a number"},
}

// refusedHTTP2 are constructs that the sidecar refuses for a reason of its own, where Envoy passes
// them on or ends more or less for them: all of the stream differs, and of the connection where
// that is not told apart.
var refusedHTTP2 = map[string]string{
	"space-before":         "whitespace around a value malforms a message (RFC 9113 8.2.1)",
	"space-after":          "whitespace around a value malforms a message (RFC 9113 8.2.1)",
	"tab-after":            "whitespace around a value malforms a message (RFC 9113 8.2.1)",
	"a-status-0":           "a status has three digits from 100 to 599 (RFC 9110 15)",
	"a-status-99":          "a status has three digits from 100 to 599 (RFC 9110 15)",
	"a-status-600":         "a status has three digits from 100 to 599 (RFC 9110 15)",
	"a-status-999":         "a status has three digits from 100 to 599 (RFC 9110 15)",
	"1-status":             "a status has three digits from 100 to 599 (RFC 9110 15)",
	"1-600":                "a status has three digits from 100 to 599 (RFC 9110 15)",
	"a-te":                 "no answer of HTTP/2 has TE (RFC 9113 8.2.2)",
	"t-host":               "fields that route or frame are no trailers (RFC 9110 6.5.1)",
	"t-length":             "fields that route or frame are no trailers (RFC 9110 6.5.1)",
	"t-trailer":            "fields that route or frame are no trailers (RFC 9110 6.5.1)",
	"t-te":                 "fields that route or frame are no trailers (RFC 9110 6.5.1)",
	"again":                "a head on a stream that is over ends the connection (RFC 9113 5.1)",
	"behind-reset":         "content on a stream that is over is an error (RFC 9113 5.1)",
	"priority-0":           "a priority of no stream ends the connection (RFC 9113 6.3)",
	"priority-itself":      "a stream does not depend on itself (RFC 7540 5.3.1)",
	"window-0":             "a window that grows by nothing is an error of its stream (RFC 9113 6.9), which Envoy takes for the connection's",
	"window-2147483647":    "a window that overflows is an error of its stream (RFC 9113 6.9.1), which Envoy takes for the connection's",
	"window-2147418113":    "a window that overflows is an error of its stream (RFC 9113 6.9.1), which Envoy takes for the connection's",
	"size-priority":        "a priority of another size is an error of its stream (RFC 9113 6.3), which Envoy takes for the connection's",
	"scheme-ftp":           "a host may take a scheme that is not HTTP's for another resource than was decided over (RFC 9110 4.2)",
	"extended":             "a host that does not take an upgrade gives no answer of its protocol (RFC 8441 5)",
	"extended-other":       "a host that does not take an upgrade gives no answer of its protocol (RFC 8441 5)",
	"extended-length":      "a request for a tunnel has no content that a length could be of (RFC 9110 9.3.6)",
	"connect-no-port":      "CONNECT without a port is malformed (RFC 9110 9.3.6)",
	"scheme-upper":         "a scheme is written in lower case (RFC 3986 3.1), and what is not HTTP's to the letter is refused",
	"length-0":             "where no content is announced the message may still turn out to be malformed, and such a one is not forwarded (RFC 9113 8.1.1)",
	"h-push":               "nothing is to be pushed (RFC 9113 6.6)",
	"r-REFUSED_STREAM":     "a stream that a host refused before it told how many it takes goes to it again (RFC 9113 8.7)",
	"h-goaway-0":           "a request that a host did not look at goes to another connection (RFC 9113 8.7)",
	"h-goaway-error-0":     "a request that a host did not look at goes to another connection (RFC 9113 8.7)",
	"1-trailer-host":       "fields that route or frame are no trailers (RFC 9110 6.5.1)",
	"padding-long":         "padding that is longer than its frame ends the connection (RFC 9113 6.1)",
	"path-fragment":        "a fragment breaks the request line (RFC 9112 3.2)",
	"host-other":           "a request with two different hosts is refused",
	"expect-other":         "an expectation that is not understood is a 417 (RFC 9110 10.1.1)",
	"expect-empty":         "an expectation that is not understood is a 417 (RFC 9110 10.1.1)",
	"settings-ack":         "an acknowledgement of nothing breaks no rule of RFC 9113, and is counted",
	"fields-10":            "what is over the limits is answered (RFC 6585 5), or refused as what breaks the protocol is",
	"fields-20":            "what is over the limits is answered (RFC 6585 5), or refused as what breaks the protocol is",
	"t-20":                 "what is over the limits is answered (RFC 6585 5), or refused as what breaks the protocol is",
	"long":                 "what is over the limits is answered (RFC 6585 5), or refused as what breaks the protocol is",
	"longer":               "what is over the limits is answered (RFC 6585 5), or refused as what breaks the protocol is",
	"longest":              "what is over the limits is answered (RFC 6585 5), or refused as what breaks the protocol is",
	"authority-port-large": "no authority has such a port (RFC 9110 4.2)",
	"empty-data":           "content on a stream that is over is an error (RFC 9113 5.1)",
	"padding-none":         "a frame that has no room for what it must have is of a wrong size (RFC 9113 4.2)",
	"head-short":           "a frame that has no room for what it must have is of a wrong size (RFC 9113 4.2)",
	"a-status-2":           "a status has three digits from 100 to 599 (RFC 9110 15)",
	"a-status-plus":        "a status has three digits from 100 to 599 (RFC 9110 15)",
	"a-status-4":           "a status has three digits from 100 to 599 (RFC 9110 15)",
	"1-101":                "who did not ask for another protocol gets none (RFC 9110 15.2.2), and HTTP/2 has none (RFC 9113 8.6)",
	"options-star":         "the sidecar has no rule of its own for an asterisk: no route matches it",
}

// endingHTTP2 are those of refusedHTTP2 that end the connection: other streams of it differ too.
var endingHTTP2 = []string{"again", "behind-reset", "padding-long", "padding-none", "head-short", "empty-data"}

// goneOnHTTP2 are those of refusedHTTP2 for which Envoy ends the connection, and the sidecar no
// more than the stream: what the client asks on its other streams is still answered.
var goneOnHTTP2 = []string{"window-0", "window-2147483647", "window-2147418113", "size-priority", "settings-ack"}

// retriedHTTP2 are those of refusedHTTP2 for which the sidecar tries once more: only they may
// have a request that Envoy does not send, and an answer that is better than Envoy's.
var retriedHTTP2 = []string{"r-REFUSED_STREAM", "h-goaway-0", "h-goaway-error-0"}

// expressionsHTTP2 are those of knownsHTTP2, which parallel tests read.
var expressionsHTTP2 = func() map[string]*regexp.Regexp {
	all := map[string]*regexp.Regexp{}
	for _, k := range knownsHTTP2 {
		for _, e := range []string{k.field, k.envoy, k.hauberk} {
			all[e] = regexp.MustCompile("^(?s:" + e + ")$")
		}
	}
	return all
}()

func matchesHTTP2(expression, value string) bool {
	return expression == "" || expressionsHTTP2[expression].MatchString(value)
}

var (
	streamHTTP2 = regexp.MustCompile(`^stream\[(\d+)\]`)
	pathHTTP2   = regexp.MustCompile(`^(?:log|upstream)\[[^\]]*/s(\d+)(?:[^\d\]][^\]]*)?\]`)
	againHTTP2  = regexp.MustCompile(`^upstream(\[/[^\]]*\])?\[\d+\]\.`)
)

// streamOf is the stream that a field tells of, or "" where it does not say: an answer of
// HTTP/1, the end of the connection, and a path that tells no stream.
func streamOf(field string) string {
	for _, re := range []*regexp.Regexp{streamHTTP2, pathHTTP2} {
		if m := re.FindStringSubmatch(field); m != nil {
			return m[1]
		}
	}
	return ""
}

// laxerHTTP2 tells whether the sidecar does what Envoy refuses: a host hears what Envoy does
// not tell it, or a client has success where Envoy gives it none.
func laxerHTTP2(d Difference) bool {
	if strings.HasPrefix(d.Field, "upstream") {
		return d.Envoy == absent && !strings.HasSuffix(d.Field, ".broken")
	}
	if !strings.HasSuffix(d.Field, "response.start") {
		return false
	}
	_, e, _ := strings.Cut(d.Envoy, " ")
	_, h, _ := strings.Cut(d.Hauberk, " ")
	return strings.HasPrefix(h, "2") && (d.Envoy == absent || strings.HasPrefix(e, "4") || strings.HasPrefix(e, "5"))
}

// asksHTTP2 tells whether the client opens the stream in so many words.
func asksHTTP2(x *Case, stream string) bool {
	return slices.ContainsFunc(x.Frames, func(step string) bool {
		words := strings.Fields(step)
		return len(words) > 1 && words[0] == "HEADERS" && words[1] == stream
	})
}

// retriesHTTP2 tells whether a route of these has a policy of retries.
func retriesHTTP2(c *Config) bool {
	return slices.ContainsFunc(c.Routes, func(r map[string]any) bool {
		to, _ := r["route"].(map[string]any)
		return to["retry_policy"] != nil
	})
}

// overridesHTTP2 tells whether a malformed request ends its stream only, not the connection.
func overridesHTTP2(c *Config) bool {
	o, _ := c.HCM["http2_protocol_options"].(map[string]any)
	return o["override_stream_error_on_invalid_http_message"] == true
}

// excusedHTTP2 tells whether what is odd of a stream, which the sidecar refuses, is why a
// field differs. "0" is the connection, and with it all streams.
func excusedHTTP2(c *Config, x *Case, stream, odd string, d Difference) bool {
	of := streamOf(d.Field)
	own := stream == "0" || of == "" || of == stream
	switch {
	case slices.Contains(retriedHTTP2, odd):
		return own && (!laxerHTTP2(d) || !strings.HasPrefix(d.Field, "upstream") || againHTTP2.MatchString(d.Field))
	case own && retriesHTTP2(c) && againHTTP2.MatchString(d.Field):
		return true // an answer that is refused is a reset, for which the route has its policy
	case own && retriesHTTP2(c) && d.Envoy == absent && strings.HasSuffix(d.Field, "].response.start") && triedAgainHTTP2(x):
		return true // the answer to it
	case slices.Contains(goneOnHTTP2, odd):
		return own && !laxerHTTP2(d) || of != "" && of != stream && asksHTTP2(x, of)
	case slices.Contains(endingHTTP2, odd), !overridesHTTP2(c):
		return !laxerHTTP2(d)
	}
	return own && !laxerHTTP2(d)
}

// triedAgainHTTP2 tells whether the sidecar tried once more than Envoy, for the only stream.
func triedAgainHTTP2(x *Case) bool {
	count := func(o map[string]string) string { return o["log.attempts"] + o["log[/s1].attempts"] }
	return x.Logs != nil && *x.Logs == 1 && count(x.Seen[0]) == "1" && count(x.Seen[1]) == "2"
}

// notRetriedHTTP2 tells whether the sidecar gives up on a malformed answer, and Envoy tries once more.
func notRetriedHTTP2(x *Case) bool {
	return x.Seen[0]["log.attempts"] == "2" && x.Seen[1]["log.attempts"] == "1" && x.Seen[1]["log.flags"] == "UPE"
}

// knownOfHTTP2 are differences of docs/differential.md.
func knownOfHTTP2(c *Config, x *Case, d Difference) string {
	odds := strings.Fields(x.Name)
	of := streamOf(d.Field)
	has := func(odd string) bool {
		return odd == "*" || slices.ContainsFunc(odds, func(o string) bool {
			stream, o, _ := strings.Cut(o, ":")
			return like(odd, o) && (stream == "0" || of == "" || of == stream)
		})
	}
	for _, k := range knownsHTTP2 {
		if has(k.odd) && matchesHTTP2(k.field, d.Field) && matchesHTTP2(k.envoy, d.Envoy) && matchesHTTP2(k.hauberk, d.Hauberk) {
			return k.why
		}
	}
	if log := "log[/s" + of + "]."; of != "" && has("max-forwards") && x.Seen[1][log+"details"] == "max_forwards" && x.Seen[1][log+"upstream"] == "null" {
		return "a request that has no forward left goes no further (RFC 9110 7.6.2)"
	}
	if has("i-*") && retriesHTTP2(c) && !laxerHTTP2(d) && notRetriedHTTP2(x) {
		return "an answer of which an interim was forwarded has begun, and is not tried again"
	}
	for _, o := range odds {
		stream, odd, _ := strings.Cut(o, ":")
		if why := refusedHTTP2[odd]; why != "" && excusedHTTP2(c, x, stream, odd, d) {
			return why
		}
	}
	return ""
}

// lookHTTP2 implements domain: interim answers to a client of HTTP/1 are taken out, as the
// sidecar forwards them and Envoy does not (RFC 9110 15.2).
func lookHTTP2(_ *Config, x *Case, _, _ *program, got [2]observation) string {
	_ = finalOnly(got[0], x)
	return finalOnly(got[1], x)
}
