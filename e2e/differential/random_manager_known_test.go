//go:build e2e

package differential

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// knownOfManagers says why a field differs that docs/differential.md has as a difference.
func knownOfManagers(c *Config, x *Case, d Difference) string {
	head, body, _ := strings.Cut(x.Send, "\n\n")
	head = strings.ToLower(head)
	format := c.LogFields[strings.TrimPrefix(d.Field, "log.")]
	if c.HCM["represent_ipv4_remote_address_as_ipv4_mapped_ipv6"] == true {
		d.Hauberk = strings.ReplaceAll(d.Hauberk, "::ffff:127.0.0.1", "127.0.0.1")
	}
	switch {
	case leveled(d.Envoy) == leveled(d.Hauberk):
		return "the sidecar says 127.0.0.1 where Envoy puts its own address for a client on loopback; ids are random"
	case strings.Contains(d.Field, ".header.") && bared(d.Envoy) == bared(d.Hauberk):
		return "white space around a value is no part of it (RFC 9110 5.5)"
	case strings.HasPrefix(d.Field, "upstream") && strings.HasSuffix(d.Field, "header.connection") && d.Envoy == absent && d.Hauberk == "TE":
		return "Connection names TE, as RFC 9110 10.1.4 demands"
	case d.Field == "upstream.header.x-envoy-downstream-service-cluster" && d.Hauberk == absent:
		return "the sidecar takes this header of Envoy's own from every client, Envoy only at an edge"
	case strings.HasPrefix(head, "head ") && (d.Field == "response.header.transfer-encoding" && d.Envoy == "chunked" && d.Hauberk == absent || d.Field == "response.header.content-length" && d.Envoy == absent):
		return "Envoy says Transfer-Encoding: chunked in an answer to HEAD without a length"
	case body != "" && (d.Field == "response.header.connection" && d.Envoy == "close" && d.Hauberk == absent || d.Field == "end" && d.Envoy == "closed" && d.Hauberk == "" || d.Field == "log.received" && (less(d.Envoy, d.Hauberk) || d.Hauberk == "0") || strings.Contains(format, "%BYTES_RECEIVED%")): // whoever is faster
		return "Envoy closes the connection when it answers before it has read the whole request; the sidecar reads the rest and keeps it"
	case d.Field == "log.tried" && strings.HasPrefix(d.Hauberk, d.Envoy+","):
		return "the sidecar lists every host that was tried, as Envoy's documentation has it; Envoy only that of the last attempt"
	case d.Field == "log.host" && d.Envoy == "null":
		return "Envoy does not know the host of a request whose path it refuses at once"
	case d.Field == "response.header.grpc-message" && strings.TrimSpace(strings.ReplaceAll(d.Hauberk, "%20", " ")) == strings.TrimSpace(d.Envoy):
		return "a space at either end is encoded: no value begins or ends with one (RFC 9113 8.2.1)"
	case strings.HasPrefix(d.Field, "upstream") && strings.Contains(d.Field, ".header.x-envoy-fault-") && d.Hauberk == absent:
		return "headers that choose faults go no further than where they are asked for"
	case strings.HasSuffix(d.Field, "].header.tracestate") && d.Envoy == "" && d.Hauberk == absent:
		return "Envoy sends an empty field where a trace has no state"
	case d.Field == "log.cut" && d.Hauberk == "12" && slices.ContainsFunc(hostAddresses, func(a string) bool { return strings.HasPrefix(a, d.Envoy) }):
		return "the sidecar says 127.0.0.1 where Envoy puts its own address for a client on loopback"
	case strings.Contains(d.Field, ".header.x-b3-sampled") && strings.Contains(head, "traceparent: ff-"):
		return "version ff is invalid (W3C Trace Context 3.2.2.1); Envoy's tracer of Zipkin reads it"
	case strings.Contains(format, "SCHEME") && c.HCM["scheme_header_transformation"] != nil && strings.Contains(head, "/refused"):
		return "the scheme is that of the connection to the host, which there is none of"
	case strings.HasPrefix(d.Field, "response.header.access-control-") && (d.Hauberk == absent || ofOrigin(x, d)) && strings.Contains(fmt.Sprint(c.Routes, c.VHost, c.RouteConfig), "shadow_enabled"):
		return "a policy with shadow_enabled alone is not enforced, as Envoy's documentation of filter_enabled has it"
	case (strings.HasPrefix(d.Field, "response.header.") || d.Field == "log.values" || d.Field == "log.cut" || strings.Contains(format, "%RESP")) && withoutCode(c, x, bared(d.Envoy), bared(d.Hauberk)):
		return "the sidecar knows the code of its own answer when headers are formatted, Envoy says 0"
	case strings.HasPrefix(d.Field, "log.") && strings.Contains(d.Envoy, "_matched_policy[") && matched.ReplaceAllString(d.Envoy, "") == d.Hauberk:
		return "the sidecar says the policy in another field"
	case (d.Field == "response.header.proxy-status" || strings.HasPrefix(d.Field, "response.header.") && strings.Contains(c.text(), "%RESPONSE_FLAGS")) && strings.Contains(d.Envoy, ",") && sorted(bared(d.Envoy)) == sorted(bared(d.Hauberk)), strings.Contains(format, "%RESPONSE_FLAGS") && sorted(d.Envoy) == sorted(d.Hauberk):
		return "flags are a set; Envoy writes them in the order they were found"
	case strings.Contains(body, "\n0\nX-") && (slices.Contains([]string{"upstream.framing", "upstream.header.transfer-encoding"}, d.Field) && d.Hauberk == "chunked" ||
		d.Field == "upstream.header.content-length" && d.Hauberk == absent || strings.HasPrefix(d.Field, "upstream.trailer.") && d.Envoy == absent):
		return "a message with trailers that was held as a whole goes on in chunks; Envoy gives it a length, and drops them"
	case strings.HasPrefix(d.Field, "attempt") && strings.HasSuffix(d.Field, ".sni") && d.Envoy == "null" && x.TLS != nil && d.Hauberk == x.TLS.SNI:
		return "the sidecar knows the name from the handshake; Envoy only from the listener filter tls_inspector"
	case strings.HasPrefix(d.Field, "attempt") && strings.HasSuffix(d.Field, ".host") && d.Envoy == "null":
		return "Envoy knows the host of an attempt only once it has a connection"
	case d.Field == "response.header.proxy-status" && d.Envoy == absent && strings.HasSuffix(d.Hauberk, "; error=http_request_error"):
		return "Envoy marks a request its codec refuses only when it has answered, and so says nothing in Proxy-Status"
	case ofNamedClient(d):
		return "an attempt is made for whom its request is, also where a hop names that client; Envoy has the connection's peer"
	case d.Field == "upstream.header.x-envoy-expected-rq-timeout-ms" && d.Envoy == absent && x.TLS != nil && strings.Contains(head, "x-envoy-expected-rq-timeout-ms: "+d.Hauberk):
		return "who proves to be of the mesh may say what it knows of a request"
	case c.HCM["append_x_forwarded_port"] == true && strings.HasSuffix(d.Field, "header.x-forwarded-port") && less("0", d.Envoy) && less("0", d.Hauberk):
		return "each program has its own ports"
	}
	return ""
}

// ofNamedClient tells whether Envoy has the connection's peer in the record of an attempt.
func ofNamedClient(d Difference) bool {
	return strings.HasPrefix(d.Field, "attempt") && strings.HasPrefix(d.Envoy, "127.0.0.") && (strings.HasSuffix(d.Field, ".client") || strings.HasSuffix(d.Field, ".network"))
}

var matched = regexp.MustCompile(`_matched_policy\[[a-z]*\]`)

// withoutCode tells whether Envoy has 0 where the sidecar has the code of the answer, and else the same.
// An answer that is mapped to another code had one of its own.
func withoutCode(c *Config, x *Case, envoy, hauberk string) bool {
	var codes []string
	for field, start := range x.Seen[1] {
		if _, code, ok := strings.Cut(start, " "); ok && len(code) == 3 && strings.HasSuffix(field, "response.start") {
			codes = append(codes, code)
		}
	}
	if strings.Contains(fmt.Sprint(c.HCM["local_reply_config"]), "status_code:") {
		codes = append(codes, statusCode.FindAllString(hauberk, -1)...)
	}
	if strings.Contains(strings.ToLower(x.Send), "\ncontent-type: application/grpc") { // which is 200 in the end
		for _, code := range statusCode.FindAllString(hauberk, -1) {
			if strings.Contains(c.text(), "status: "+code) {
				codes = append(codes, code)
			}
		}
	}
	return slices.ContainsFunc(codes, func(code string) bool {
		like := strings.ReplaceAll(regexp.QuoteMeta(hauberk), code, "(?:0|"+code+")")
		return regexp.MustCompile("^(?s:" + like + ")$").MatchString(envoy)
	})
}

var statusCode = regexp.MustCompile(`[1-5][0-9]{2}`)

// ofOrigin tells whether the sidecar's field of an answer is what the origin said.
func ofOrigin(x *Case, d Difference) bool {
	return len(x.Respond) > 0 && strings.Contains(strings.ToLower(x.Respond[0].Send), "\n"+strings.TrimPrefix(d.Field, "response.header.")+": "+strings.ToLower(d.Hauberk)+"\n")
}

var anyUUID = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\(a UUID\)`)

// leveled has nothing of what differs between any two programs.
func leveled(v string) string {
	for _, a := range hostAddresses {
		first, _, _ := strings.Cut(a, ".")
		v = strings.ReplaceAll(v, first+".0.0.0/8", "127.0.0.0/8")
	}
	return anyUUID.ReplaceAllString(strings.ReplaceAll(v, "(this host)", "127.0.0.1"), "(a UUID)")
}

// bared is a value, or several, without white space around them.
func bared(v string) string {
	for _, between := range []string{",", "|"} {
		parts := strings.Split(v, between)
		for i := range parts {
			parts[i] = strings.TrimSpace(parts[i])
		}
		v = strings.Join(parts, between)
	}
	return v
}

// sorted are the letters of a text in their order.
func sorted(v string) string {
	b := []byte(v)
	slices.Sort(b)
	return string(b)
}

// less tells whether both are numbers, and the first is less.
func less(a, b string) bool {
	n, err := strconv.Atoi(a)
	m, err2 := strconv.Atoi(b)
	return err == nil && err2 == nil && n < m
}
