//go:build e2e

package differential

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// knownRetries are the differences of docs/differential.md and of the documents it is beside.
func knownRetries(c *Config, x *Case, d Difference) string {
	field := d.Field[strings.LastIndexByte(d.Field, '.')+1:]
	upstream := strings.HasPrefix(d.Field, "upstream")
	log, _, _ := strings.Cut(d.Field, ".")
	logged := strings.HasPrefix(log, "log")
	cut := slices.ContainsFunc(x.Respond, func(a Answer) bool { return a.Raw != "" && a.End == "reset" })
	switch {
	case ofNamedClient(d):
		return "an attempt is made for whom its request is, also where a hop names that client; Envoy has the connection's peer"
	case refusedAtFirst(x):
		return "a stream that a host refused before it told how many it takes goes to it again (RFC 9113 8.7)"
	case logged && field == "tried" && (d.Envoy == "null" || strings.HasSuffix(d.Hauberk, ","+d.Envoy)):
		return "the sidecar lists every host that was tried, Envoy only that of the last attempt"
	case d.Field == "log.flags" && without(d.Hauberk, "DT") == d.Envoy, d.Field == "log.flags_long" && without(d.Hauberk, "DurationTimeout") == d.Envoy:
		return "the access log says that it was the longest duration"
	case cut && logged && field == "details" && d.Envoy == "upstream_reset_after_response_started{protocol_error}" && d.Hauberk == "upstream_reset_after_response_started{connection_termination}",
		cut && logged && field == "flags" && strings.Replace(d.Envoy, "UPE", "UC", 1) == d.Hauberk,
		cut && logged && field == "flags_long" && strings.Replace(d.Envoy, "UpstreamProtocolError", "UpstreamConnectionTermination", 1) == d.Hauberk:
		return "Envoy takes a message that is cut off for a protocol error, the sidecar for a closed connection"
	case d.Field == "response.header.transfer-encoding" && d.Envoy == "chunked" && d.Hauberk == absent && strings.HasPrefix(x.Send, "HEAD"):
		return "Envoy says Transfer-Encoding: chunked in an answer to HEAD without a length"
	case d.Field == "end" && d.Envoy == "RST_STREAM INTERNAL_ERROR" && resetBy(x, strings.TrimPrefix(d.Hauberk, "RST_STREAM ")):
		return "the client is told what the host reset its stream with once an answer has begun: gRPC makes a status of it"
	case c.Stateful && !c.HTTP2 && hasBody(x) && (d.Field == "end" && d.Envoy == "closed" && d.Hauberk == "" ||
		d.Field == "response.header.connection" && d.Envoy == "close" && d.Hauberk == absent || d.Field == "log.received" && d.Envoy == "0"):
		return "Envoy closes the connection when it answers before it has read the whole request; the sidecar reads the rest and keeps it"
	case upstream && field == "grpc-timeout" && milliseconds(d.Envoy) > 0 && max(milliseconds(d.Envoy)-milliseconds(d.Hauberk), milliseconds(d.Hauberk)-milliseconds(d.Envoy)) < 60:
		return "the clock"
	case upstream && d.Hauberk == absent && (field == "x-envoy-is-timeout-retry" || field == "x-envoy-attempt-count") && strings.Contains(strings.ToLower(x.Send+strings.Join(x.More, "\n")), field+": "+d.Envoy):
		return "from a client that is not internal every x-envoy-* header is removed, not only those that Envoy knows"
	case upstream && field == "connection" && d.Envoy == absent && d.Hauberk == "TE":
		return "TE is for the next hop alone (RFC 9110 10.1.4)"
	case upstream && field == "x-forwarded-for" && c.HCM["use_remote_address"] != nil && strings.Replace(d.Envoy, "(this host)", "127.0.0.1", 1) == d.Hauberk:
		return "the sidecar says 127.0.0.1 where Envoy puts its own address for a client on loopback"
	}
	return ""
}

// refusedAtFirst tells whether the first attempt was refused and is where Envoy gives up, and the
// sidecar made one more.
func refusedAtFirst(x *Case) bool {
	return len(x.Respond) > 0 && slices.Equal(x.Respond[0].Frames, []string{"RST_STREAM * REFUSED_STREAM"}) &&
		x.Seen[0]["log.details"] == "upstream_reset_before_response_started{remote_refused_stream_reset}" && x.Seen[0]["upstream[1].start"] == "" &&
		x.Seen[1]["upstream[1].start"] != "" && x.Seen[1]["upstream[2].start"] == ""
}

// resetBy tells whether an answer ends in a reset by a code.
func resetBy(x *Case, code string) bool {
	return slices.ContainsFunc(x.Respond, func(a Answer) bool {
		return len(a.Frames) > 0 && a.Frames[len(a.Frames)-1] == "RST_STREAM * "+code
	})
}

// milliseconds of a grpc-timeout, 0 for none.
func milliseconds(v string) int {
	n, _ := strconv.Atoi(strings.TrimSuffix(v, "m"))
	return n
}

func hasBody(x *Case) bool {
	_, body, _ := strings.Cut(x.Send, "\n\n")
	return body != ""
}

// without is a list without a flag, "-" where nothing is left.
func without(flags, flag string) string {
	left := slices.DeleteFunc(strings.Split(flags, ","), func(f string) bool { return f == flag })
	return cmp.Or(strings.Join(left, ","), "-")
}
