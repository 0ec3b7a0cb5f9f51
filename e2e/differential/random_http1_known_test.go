//go:build e2e

package differential

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// http1Judge tells what may differ of a case, by what was sent and what the sidecar says of it.
type http1Judge struct {
	envoy, hauberk observation

	// from is the first record from which on nothing is compared, for the reason.
	from, fromUpstream int
	reason             string
	goesOn             bool // the sidecar answers more than Envoy, for that reason
}

// look implements domain.
func (j *http1Judge) look(c *Config, x *Case, envoy, hauberk *program, got [2]observation) string {
	j.envoy, j.hauberk = got[0], got[1]
	var out strings.Builder
	_ = finalOnly(j.envoy, x)
	out.WriteString(finalOnly(j.hauberk, x))
	j.cuts(c, x)
	for _, wire := range hauberk.origins.wires() {
		if complaint := oneReading(wire, hauberk.origins.requests()); complaint != "" {
			fmt.Fprintf(&out, "\n    %s in %q", complaint, wire)
		}
	}
	if e, h := requestsOf(got[0]), requestsOf(got[1]); h > e && !j.goesOn {
		fmt.Fprintf(&out, "\n    %d requests come to the origin, of Envoy %d (%s): %q", h, e, j.reason, x.Raw)
	}
	out.WriteString(beyond(x.Raw, got))
	return out.String()
}

// beyond are requests that the sidecar forwards and net/http does not find in what the client
// sent, as far as it can read that: whatever the two programs make of it, what is content is
// no request. Only what both Envoy and net/http take for the request /smuggled is one.
func beyond(raw string, got [2]observation) (complaint string) {
	messages, asked, whole := messagesOf(raw)
	forwards := func(o observation, text string) bool {
		for i := range requestsOf(o) {
			if strings.Contains(o[numbered("upstream", i)+".start"], text) {
				return true
			}
		}
		return false
	}
	named := slices.ContainsFunc(asked, func(q string) bool { return strings.Contains(q, "/smuggled") })
	if forwards(got[1], "/smuggled") && !(named && forwards(got[0], "/smuggled")) {
		complaint += fmt.Sprintf("\n    content is forwarded as a request: %q", raw)
	}
	if !whole {
		return complaint // the rest is something that net/http does not take
	}
	next := 0
	for i := range requestsOf(got[1]) {
		start := plain(got[1][numbered("upstream", i)+".start"])
		at := next
		for at < len(asked) && !sameRequest(asked[at], start) {
			at++
		}
		switch {
		case at < len(asked):
			next = at + 1
		case next > 0 && sameRequest(asked[next-1], start): // tried once more
		default:
			return complaint + fmt.Sprintf("\n    %s comes to the origin, which is not of %q in %q", start, asked, messages)
		}
	}
	return complaint
}

// escaped is an escape of what normalisation may write otherwise, as plain has it.
var escaped = regexp.MustCompile(`x[257][0-9A-Fa-f]`)

// sameRequest tells whether what was asked, by method and path, is a request line of what came
// to an origin, where a path may have been normalised.
func sameRequest(asked, start string) bool {
	method, path, _ := strings.Cut(asked, " ")
	words := strings.SplitN(start, " ", 3)
	if len(words) < 3 || words[0] != method {
		return false
	}
	odd := strings.ContainsAny(path, "\\%.*") || escaped.MatchString(path) || strings.Contains(path, "//")
	return odd || method == "CONNECT" || strings.HasSuffix(words[1], path)
}

// messagesOf splits what a client sent as net/http reads it, with what is asked for by each
// message. The last is all the rest where net/http reads no request, which whole tells.
func messagesOf(raw string) (messages, asked []string, whole bool) {
	for raw != "" {
		blank := len(raw) - len(strings.TrimLeft(raw, "\r\n")) // RFC 9112 2.2
		rest := strings.NewReader(plain(raw[blank:]))
		r := bufio.NewReader(rest)
		q, err := http.ReadRequest(r)
		if err == nil {
			_, err = io.Copy(io.Discard, q.Body)
		}
		if err != nil {
			return append(messages, raw), asked, blank == len(raw)
		}
		target := q.URL.RequestURI()
		if q.Method == "CONNECT" || q.Header.Get("Upgrade") != "" {
			return append(messages, raw), append(asked, q.Method+" "+target), false // the rest may be anything
		}
		asked = append(asked, q.Method+" "+target)
		n := len(raw) - rest.Len() - r.Buffered()
		messages, raw = append(messages, raw[:n]), raw[n:]
	}
	return messages, asked, true
}

func requestsOf(o observation) (n int) {
	for n = 0; o[numbered("upstream", n)+".start"] != ""; n++ {
	}
	return n
}

// oneReading reads what came on a connection to an origin as net/http does: the same requests
// as the origin read, and nothing after them.
func oneReading(wire string, all []seen) string {
	r := bufio.NewReader(strings.NewReader(plain(wire)))
	for {
		if _, err := r.Peek(1); err != nil {
			return ""
		}
		q, err := http.ReadRequest(r)
		if err != nil && strings.Contains(err.Error(), "bad trailer key") {
			return "" // Trailer is only said
		}
		if err != nil && strings.Contains(err.Error(), "invalid host: ") {
			return "" // of an absolute target, which is what Host says to both
		}
		if err != nil {
			return "net/http reads no request: " + err.Error()
		}
		body, err := io.ReadAll(q.Body)
		complaint := fmt.Sprintf("net/http reads %s %s, which the origin did not", q.Method, q.RequestURI)
		cut := false
		for _, s := range all {
			if !strings.HasPrefix(plain(s.Start), q.Method+" "+q.RequestURI+" ") {
				continue
			}
			cut = cut || s.Broken != "" || q.Header.Get("Upgrade") != "" || q.Method == "CONNECT"
			if complaint = sameReading(q, string(body), err, s); complaint == "" {
				break
			}
		}
		switch {
		case complaint != "" && cut:
			return "" // nothing more can be said of the connection
		case complaint != "":
			return complaint
		}
	}
}

// sameReading compares a request with what an origin read.
func sameReading(q *http.Request, body string, err error, s seen) string {
	switch {
	case s.Framing == "none" && (body != "" || err != nil):
		return "" // answered before it was read
	case err != nil:
		return "net/http: " + err.Error()
	case body != plain(s.Body):
		return fmt.Sprintf("net/http has a body of %q, the origin %q", body, s.Body)
	case count(q.Header)+1 != len(s.Headers)-framingLines(s):
		return fmt.Sprintf("net/http has %d fields, the origin %d", count(q.Header)+1, len(s.Headers))
	case count(q.Trailer) != len(s.Trailers):
		return fmt.Sprintf("net/http has the trailers %v, the origin %v", q.Trailer, s.Trailers)
	}
	return ""
}

// plain has no percent signs: net/http takes no target that is encoded otherwise than it would.
func plain(s string) string { return strings.ReplaceAll(s, "%", "x") }

func count(h http.Header) (n int) {
	for _, v := range h {
		n += len(v)
	}
	return n
}

// framingLines are those fields that net/http takes out of a header.
func framingLines(s seen) (n int) {
	for _, h := range s.Headers {
		if strings.EqualFold(h.Name, "transfer-encoding") || strings.EqualFold(h.Name, "trailer") {
			n++
		}
	}
	return n
}

// known implements domain.
func (j *http1Judge) known(_ *Config, x *Case, d Difference) string { return j.why(x, d) }

// http1Refusals are the rules by which only the sidecar refuses a request (class strict of
// docs/differential.md, or the one that is named), by the details of its log, with what a
// message has to have that breaks them.
var http1Refusals = map[string]*regexp.Regexp{
	"bad_line_end":                  regexp.MustCompile(`(^|[^\r])\n|\r([^\n]|$)`),
	"folded_field":                  regexp.MustCompile(`\n[ \t]`),
	"repeated_host":                 regexp.MustCompile(`(?is)\nhost:.*\nhost:`),
	"host_mismatch":                 regexp.MustCompile(`(?im)^(\S+ https?://|CONNECT )`), // hosts
	"bad_target":                    regexp.MustCompile(`(?m)^(\S+ [^/ ]|\S+ \S*[^!-~]|\S+ \S*#)`),
	"chunk_extensions_too_long":     regexp.MustCompile(`(?m)^[0-9a-fA-F]+;[^\r\n]{100}`),
	"bad_chunk_extension":           regexp.MustCompile(`(?m)^[0-9a-fA-F]+;`),
	"bad_chunk_size":                regexp.MustCompile(`(?i)\ntransfer-encoding:`),
	"bad_chunk_end":                 regexp.MustCompile(`(?i)\ntransfer-encoding:`),
	"forbidden_trailer":             regexp.MustCompile(`(?is)\ntransfer-encoding:.*\n0.*\n(content-length|transfer-encoding|host|connection|te|trailer)`),
	"transfer_encoding_in_http_1_0": regexp.MustCompile(`(?is) HTTP/1\.0\r\n(.*\n)?transfer-encoding:`),
	"bad_transfer_encoding":         regexp.MustCompile(`(?im)^transfer-encoding:`), // te
	"http.invalid_authority":        regexp.MustCompile(`(?im)^host:`),
	"bad_expect":                    regexp.MustCompile(`(?im)^expect:`),
	"bad_upgrade":                   regexp.MustCompile(`(?im)^upgrade:`),
	"upgrade_with_body":             regexp.MustCompile(`(?im)^upgrade:`),
	"upgrade_with_connect":          regexp.MustCompile(`(?im)^CONNECT `),
	"unsupported_version":           regexp.MustCompile(`(?im) HTTP/[0-9]\.[0-9]\r?$`), // version
	"bad_version":                   regexp.MustCompile(`(?im)^\S+ .*$`),
	"bad_request_line":              regexp.MustCompile(`(?m)^(\r|\S+\t|\S+  |\S+ \S+\r| |\S+\r)`),
	"bad_method":                    regexp.MustCompile(`(?m)^\S+\t`),
	"bad_connection":                regexp.MustCompile(`(?im)^connection:.*[" ]`),
	"bad_field_name":                regexp.MustCompile("(?m)^[^\r\n:]*[^!#$%&'*+.^_`|~0-9A-Za-z\r\n:-]|^[^:]*\r?$|^:"),
	"repeated_content_length":       regexp.MustCompile(`(?is)\ncontent-length:.*\ncontent-length:`),
	"bad_content_length":            regexp.MustCompile(`(?im)^content-length:`),
	"http1.content_length_and_chunked_not_allowed": regexp.MustCompile(`(?im)^transfer-encoding:`),
	"http1.trailers_too_large":                     regexp.MustCompile(`(?is)\ntransfer-encoding:.*\n\S+: \S{900}`),
	"max_forwards":                                 regexp.MustCompile(`(?im)^max-forwards: *0`),
	"uri_too_long":                                 regexp.MustCompile(`(?m)^\S+ \S{900}`),
	"body_not_allowed":                             regexp.MustCompile(`(?m)^CONNECT `),
	"http1.connection_header_rejected":             regexp.MustCompile(`(?im)^connection:.*x-forwarded`),
}

// cuts finds where the two conversations part: what follows is not compared. Who of the two
// refuses is not told by Envoy: only the sidecar's own rules do so, and what Envoy does with
// its connection.
func (j *http1Judge) cuts(c *Config, x *Case) {
	j.from, j.reason, j.goesOn = 1000, "", false
	for i := 0; i < 10 && j.from == 1000; i++ {
		if why, after := j.parts(c, x, i); why != "" {
			j.from, j.reason = i+after, why
		}
	}
	j.fromUpstream = j.upstreams(j.from)
}

// upstreams is how many requests came to the origin from the first n of the client.
func (j *http1Judge) upstreams(n int) (sum int) {
	for i := range min(n, 10) {
		if up := j.hauberk[numbered("log", i)+".upstream"]; up != "null" && up != "" {
			sum++
		}
	}
	return sum
}

// parts tells why the conversations part with request i, or after it.
func (j *http1Judge) parts(c *Config, x *Case, i int) (why string, after int) {
	log := numbered("log", i) + "."
	e, h := j.envoy, j.hauberk
	closes := func(o observation) bool {
		return strings.EqualFold(o[numbered("response", i)+".header.connection"], "close")
	}
	details := h[log+"details"]
	messages, _, _ := messagesOf(x.Raw)
	said := messages[min(i, len(messages)-1)]
	var answer string
	if k := j.upstreams(i); k < len(x.Respond) {
		answer = x.Respond[k].Raw
	}
	switch re := http1Refusals[details]; {
	case h[log+"method"] == "M-SEARCH" && e[log+"method"] == "null" && e[log+"code"] == "400":
		j.goesOn = true
		return "M-SEARCH is a method", 0
	case re != nil && re.MatchString(said):
		return "strict: " + details, 0
	case h[log+"protocol"] == "HTTP/1.0" && e[log+"details"] == "upgrade_failed":
		j.goesOn = true
		return "an upgrade in HTTP/1.0 is ignored (RFC 9110 7.8)", 0
	case e[log+"flags"] == "DPE" && h[log+"flags"] == "DPE" && e[log+"details"] != details:
		return "both refuse it; which fault counts tells who looks first", 0
	case e[log+"details"] == "request_header_timeout" && h[log+"flags"] == "DPE":
		return "what is broken is refused as soon as it is here", 0
	case e[log+"flags"] == "DPE" && h[log+"flags"] == "DPE" && e[log+"attempts"] == "1" && h[log+"attempts"] == "0" && hasFraming.MatchString(said):
		return "a body whose fault came with its head goes to no host", 0
	case e[log+"details"] == "codec_error:Too_many_responses_queued.":
		j.goesOn = true
		return "Envoy ends a connection of which several answers were not taken", 0
	case details == "http1.too_many_headers" && mostLines(said) > maxFields(c):
		return "each line of a field counts", 0
	case e[log+"details"] == "absolute_path_rejected" && details != "route_not_found" && emptyPath.MatchString(said):
		j.goesOn = true
		return "an empty path is that of / (RFC 9110 4.2.3)", 0
	case details == "missing_host_header" && (namesHost.MatchString(said) || absolute.MatchString(said)):
		return "a missing Host is an error of the message", 0
	case strings.Contains(details, "{protocol_error}") && e[log+"details"] != details && answerFault(answer) != "":
		j.goesOn = true
		return "strict-origin: " + answerFault(answer), 0
	case strings.Contains(details, "{connection_termination}") && e[log+"details"] == strings.Replace(details, "connection_termination", "protocol_error", 1):
		return "cut", 0
	case details == "upstream_reset_after_response_started{connection_termination}" && e[log+"details"] == "via_upstream" && !hasFraming.MatchString(answer):
		return "a reset is no end of an answer (RFC 9112 8)", 0
	case details == "low_version" && e[log+"code"] == "501":
		return "a request of HTTP/1.0 is refused as such, whatever else is wrong with it", 0
	case details == "missing_host_header" && closes(h) && !closes(e):
		return "after a message that is refused nothing more of its connection is read", 1
	case closes(h) && !closes(e) && h[log+"protocol"] == "HTTP/1.0" && closesAll.MatchString(said):
		return "close is heard whatever else is said (RFC 9112 9.3)", 1
	case closes(e) && !closes(h) && h[log+"upstream"] == "null" && hasFraming.MatchString(said):
		j.goesOn = true
		return "unread", 1
	}
	return "", 0
}

var answerFaults = []struct {
	name string
	re   *regexp.Regexp
}{
	{"line end", regexp.MustCompile(`(^|[^\r])\n|\r([^\n]|$)`)},
	{"fold", regexp.MustCompile(`\n[ \t]`)},
	{"101", regexp.MustCompile(`HTTP/1\.1 101`)},
	{"framed interim", regexp.MustCompile(`(?i)^HTTP/1\.1 1\d\d [^\n]*\n(content-length|transfer-encoding):`)},
	{"204 with content", regexp.MustCompile(`(?is)HTTP/1\.[01] 204.*\n(content-length: [^0]|transfer-encoding:)`)},
	{"coding", regexp.MustCompile(`(?im)^transfer-encoding:`)},
	{"length", regexp.MustCompile(`(?im)^content-length:`)},
	{"name", regexp.MustCompile("(?m)^[^\r\n:]*[^!#$%&'*+.^_`|~0-9A-Za-z\r\n:/ -][^\r\n:]*:|^[^:\r\n]*[^0-9\r\n][^:\r\n]*\r?$|^:|^\\S+[ \t]+:")},
}

var statusLine = regexp.MustCompile(`^HTTP/1\.[01] [1-5][0-9][0-9]( [^\r\n\x00-\x08]*)?\r\n`)

// answerFault is what an answer breaks of RFC 9112, or "".
func answerFault(raw string) string {
	if raw != "" && !statusLine.MatchString(raw) {
		return "status line"
	}
	for _, f := range answerFaults {
		if f.re.MatchString(raw) {
			return f.name
		}
	}
	return ""
}

var (
	emptyPath = regexp.MustCompile(`(?m)^\S+ (?i:https?)://[^/ ]*( |\?)`)
	absolute  = regexp.MustCompile(`(?m)^(CONNECT |\S+ (?i:https?)://)`)
	namesHost = regexp.MustCompile(`(?im)^connection:.*\bhost\b`)
)

// mostLines is how many lines the longest of the messages has, or more.
func mostLines(raw string) (most int) {
	for part := range strings.SplitSeq(raw, "\r\n\r\n") {
		most = max(most, strings.Count(part, "\n"))
	}
	return most
}

// maxFields is how many fields a request may have.
func maxFields(c *Config) int {
	common, _ := c.HCM["common_http_protocol_options"].(map[string]any)
	if n, ok := common["max_headers_count"].(int); ok {
		return n
	}
	return 100
}

// finalOnly takes interim answers out, which the sidecar forwards and Envoy drops: each has to be
// one of an origin's, or what a client waits for.
func finalOnly(o observation, x *Case) (complaint string) {
	messages := map[int]observation{}
	for k, v := range o {
		if m := indexed.FindStringSubmatch(k); m != nil && m[1] == "response" {
			i, _ := strconv.Atoi(m[2])
			if messages[i] == nil {
				messages[i] = observation{}
			}
			messages[i][m[3]] = v
			delete(o, k)
		}
	}
	final := 0
	for i := range len(messages) {
		start := messages[i]["start"]
		_, code, _ := strings.Cut(start, " ")
		if strings.HasPrefix(code, "1") && code != "101" {
			said := slices.ContainsFunc(x.Respond, func(a Answer) bool { return strings.Contains(a.Raw+strings.Join(a.Frames, "\n"), " "+code) })
			if !said && !(code == "100" && strings.Contains(strings.ToLower(x.Raw), "expect")) {
				complaint += "\n    nobody said " + start
			}
			continue
		}
		for k, v := range messages[i] {
			o[numbered("response", final)+"."+k] = v
		}
		final++
	}
	return complaint
}

var indexed = regexp.MustCompile(`^(log|response|upstream)(?:\[(\d+)\])?\.(.*)`)

func (j *http1Judge) why(x *Case, d Difference) string {
	m := indexed.FindStringSubmatch(d.Field)
	if m == nil { // how it ended
		return j.reason
	}
	i, _ := strconv.Atoi(m[2])
	if i >= map[string]int{"log": j.from, "response": j.from, "upstream": j.fromUpstream}[m[1]] {
		return j.reason
	}
	switch m[1] {
	case "log":
		return j.logged(x, numbered("log", i)+".", m[3], d)
	case "response":
		return j.answered(x, numbered("response", i)+".", m[3], d)
	}
	return j.forwarded(x, numbered("upstream", i)+".", m[3], d)
}

// logged is why a record differs.
func (j *http1Judge) logged(x *Case, log, field string, d Difference) string {
	switch {
	case field == "details" && (d.Envoy == "http1.codec_error" || d.Envoy == "http1.invalid_characters" || d.Envoy == "http1.invalid_url"):
		return "details"
	case field == "received" && d.Envoy == "0" && j.hauberk[log+"upstream"] == "null":
		return "unread"
	case j.hauberk[log+"details"] == "missing_host_header" && j.envoy[log+"details"] == "missing_host_header":
		return "a missing Host is an error of the message"
	case j.reason == "unread" && field == "received" && d.Envoy == "0":
		return "unread"
	case strings.HasPrefix(field, "path") && strings.EqualFold(d.Envoy, d.Hauberk) && strings.Contains(d.Envoy, "%2f"):
		return "escapes are normalised to capital digits (RFC 3986 6.2.2.1)"
	case strings.HasPrefix(field, "path") && strings.HasPrefix(j.hauberk[log+"details"], "path_normalization_") && unescapedSlashes.Replace(d.Hauberk) == d.Envoy:
		return "the log has the path as it came"
	case (field == "cluster" || field == "route") && d.Hauberk == "null" && strings.HasPrefix(j.hauberk[log+"details"], "path_normalization_") && strings.HasPrefix(j.envoy[log+"details"], "path_normalization_"):
		return "the sidecar refuses a path before a route is chosen"
	case field == "attempts" && d.Envoy == "1" && d.Hauberk == "2" && requestsOf(j.envoy) == requestsOf(j.hauberk):
		return "a request that met a closed connection is sent once more"
	case j.hauberk[log+"details"] == "path_normalization_redirect" && (field == "details" || strings.HasPrefix(field, "path")):
		return "the log has the path as it came, and says that this is a redirect"
	case j.envoy[log+"details"] == "absolute_path_rejected" && j.hauberk[log+"details"] == "route_not_found" && (slices.Contains([]string{"details", "client", "network"}, field) || strings.HasPrefix(field, "flags")):
		return "the sidecar has no rule of its own for an asterisk"
	case field == "received" && d.Hauberk == "0" && j.envoy[log+"details"] == j.hauberk[log+"details"] && (j.hauberk[log+"details"] == "websocket_handshake_unsuccessful" || behindUpgrade(x.Raw, d.Envoy)):
		return "what follows a request for a protocol is read once it is spoken"
	case field == "host" && d.Envoy == "null":
		return "Envoy does not know the host of a request that it refuses at once"
	}
	return ""
}

// behindUpgrade tells whether so many bytes follow a head that asks for another protocol.
func behindUpgrade(raw, n string) bool {
	for at := 0; ; {
		i := strings.Index(raw[at:], "\r\n\r\n")
		if i < 0 {
			return false
		}
		if upgrade.MatchString(raw[at:at+i]) && strconv.Itoa(len(raw)-at-i-4) == n {
			return true
		}
		at += i + 4
	}
}

var unescapedSlashes = strings.NewReplacer("%2F", "/", "%2f", "/", "%5C", "\\", "%5c", "\\")

var upgrade = regexp.MustCompile(`(?im)^upgrade:`)

// answered is why an answer differs.
func (j *http1Judge) answered(x *Case, response, field string, d Difference) string {
	head := strings.HasPrefix(x.Raw, "HEAD ")
	log := strings.Replace(response, "response", "log", 1)
	switch {
	case field == "header.etag" && d.Envoy == strings.ReplaceAll(d.Hauberk, " | ", ","):
		return "lines of one name are a list (RFC 9110 5.3)"
	case field == "header.content-length" && d.Hauberk == strings.TrimLeft(d.Envoy, "0"):
		return "a length is written in one way"
	case field == "broken" && d.Envoy == absent && j.hauberk[response+"framing"] == "close" && strings.Contains(x.Raw, "HTTP/1.0"):
		return "an answer that was cut and ends with the connection ends with a reset"
	case field == "header.x-envoy-upstream-service-time" && d.Envoy == absent && strings.Contains(strings.ToLower(x.Raw), "upgrade:"):
		return "refused-upgrade"
	case field == "start" && strings.Replace(d.Envoy, "HTTP/1.0", "HTTP/1.1", 1) == d.Hauberk:
		return "http10"
	case head && field == "header.transfer-encoding" && d.Envoy == "chunked" && d.Hauberk == absent,
		head && field == "header.content-length" && d.Envoy == absent && (j.envoy[response+"header.transfer-encoding"] == "chunked" || strings.HasPrefix(j.envoy[response+"start"], "HTTP/1.0")):
		return "head-framing"
	case field == "header.connection" && j.reason == "unread" && d.Envoy == "close":
		return "unread"
	case field == "header.connection" && (strings.HasPrefix(j.reason, "after a message") || strings.HasPrefix(j.reason, "close is heard")) && d.Hauberk == "close":
		return j.reason
	case field == "header.trailer" && d.Hauberk == absent:
		return "trailers"
	case field == "header.te" && d.Hauberk == absent:
		return "te-hop"
	case field == "header.x-a" && d.Hauberk == absent && slices.ContainsFunc(x.Respond, func(a Answer) bool { return strings.Contains(a.Raw, "Connection: X-A") }):
		return "fields that Connection names are for one hop (RFC 9110 7.6.1)"
	case field == "header.x-request-id" && d.Hauberk == absent && j.envoy[log+"details"] == "missing_host_header" && j.hauberk[log+"details"] == "missing_host_header":
		return "a missing Host is an error of the message"
	case field == "header.x-request-id" && d.Envoy == absent && strings.Contains(x.Raw, "OPTIONS *"):
		return "the sidecar has no rule of its own for an asterisk"
	}
	return ""
}

var closesAll = regexp.MustCompile(`(?im)^connection:.*\bclose`)

var hasFraming = regexp.MustCompile(`(?im)^(content-length|transfer-encoding):`)

var namesLength = regexp.MustCompile(`(?im)^connection:.*(content-length|transfer-encoding)`)

// forwarded is why a request differs at the origin.
func (j *http1Judge) forwarded(x *Case, upstream, field string, d Difference) string {
	switch {
	case field == "header.trailer" && d.Hauberk == absent:
		return "trailers"
	case field == "start" && strings.EqualFold(d.Envoy, d.Hauberk) && strings.Contains(x.Raw, "%2f"):
		return "escapes are normalised to capital digits (RFC 3986 6.2.2.1)"
	case field == "header.http2-settings" && d.Hauberk == absent:
		return "HTTP2-Settings is for one hop (RFC 7540 3.2.1)"
	case field == "header.content-length" && d.Hauberk == strings.TrimLeft(d.Envoy, "0"):
		return "a length is written in one way"
	case field == "header.expect" && d.Hauberk == absent && strings.Contains(x.Raw, "HTTP/1.0"):
		return "HTTP/1.0 has no expectations (RFC 9110 10.1.1)"
	case field == "header.expect" && d.Hauberk == absent && (j.hauberk[upstream+"framing"] == "none" || j.hauberk[upstream+"header.content-length"] == "0"):
		return "nobody is told to go on with content that there is none of (RFC 9110 10.1.1)"
	case field == "header.expect" && d.Hauberk == absent && j.hauberk[upstream+"body"] != "" && j.hauberk[upstream+"broken"] == "":
		return "who has the content asks nobody whether to send it (RFC 9110 10.1.1)"
	case field == "header.max-forwards":
		return "each intermediary takes its forward off (RFC 9110 7.6.2)"
	case field == "header.connection" && d.Hauberk == "Upgrade" && strings.Contains(strings.ToLower(d.Envoy), "upgrade"):
		return "Connection says what this hop has to know (RFC 9110 7.6.1)"
	case field == "header.connection" && d.Hauberk == "TE" && j.hauberk[upstream+"header.te"] == "trailers":
		return "TE is named by Connection (RFC 9110 10.1.4)"
	case namesLength.MatchString(x.Raw) && (field == "framing" || field == "header.content-length" || field == "header.transfer-encoding"):
		return "Connection takes off no field that is for all (RFC 9110 7.6.1)"
	case field == "header.te" && d.Envoy == "" && d.Hauberk == absent:
		return "te-hop"
	}
	return ""
}
