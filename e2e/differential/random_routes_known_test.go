//go:build e2e

package differential

import (
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// knownOfRoutes names the reason of a difference, which docs/differential.md has.
func knownOfRoutes(c *Config, x *Case, d Difference) string {
	head, body, _ := strings.Cut(x.Send, "\n\n")
	method, _, _ := strings.Cut(head, " ")
	// is tells whether the difference is one of a field, or of one in any message, and of values.
	is := func(field, envoy, hauberk string) bool {
		_, of, _ := strings.Cut(d.Field, ".")
		return (field == d.Field || field == "*."+of) && like(envoy, d.Envoy) && like(hauberk, d.Hauberk)
	}
	with := func(text string) bool { return strings.Contains(c.text(), text) }
	switch {
	case body != "" && (is("response.header.connection", "close", absent) || is("end", "closed", "") || is("log.received", "0", "5")):
		return "unread"
	case method == "HEAD" && (is("response.header.transfer-encoding", "chunked", absent) || is("response.header.content-length", absent, "0")):
		return "head-framing"
	case with("internal_redirect_policy") && (is("log.route", "*", "*") || is("log.first", "*", "*")):
		return "redirect-kept"
	case (d.Field == "log.empties" || d.Field == "log.values" || d.Field == "log.empty") && blanks.ReplaceAllString(d.Envoy, "$1") == d.Hauberk:
		return "white space around a value is no part of it"
	case with("%UPSTREAM_CLUSTER%") && d.Hauberk == "nowhere":
		return "the log has the name of the cluster that is not there"
	case with("%RESPONSE_CODE%") && strings.Contains(d.Field, ".header.") && d.Envoy == ofNoCode.ReplaceAllString(d.Hauberk, "0"):
		return "code-format"
	case is("log.cluster", "null", "*") && (with("cluster_header") || d.Hauberk == "nowhere"):
		return "the log has the name of the cluster that is not there"
	case is("*.header.x-forwarded-for", "*", "*") && strings.ReplaceAll(d.Envoy, "(this host)", "127.0.0.1") == d.Hauberk:
		return "loopback"
	case with("host_rewrite:") && (is("*.header.host", "*", "*") || is("*.header.:authority", "*", "*")) && (d.Envoy == "-" || strings.Replace(d.Envoy, "-", "", 1) == d.Hauberk),
		with("host_rewrite:") && (is("*.header.x-envoy-original-host", "*", absent) || is("*.header.x-forwarded-host", "*", absent)):
		return "what is missing of a host is left out, as Envoy's documentation of host_rewrite has it"
	case (with("status: 304") || with("status: 204")) && (is("response.header.content-length", "*", absent) || is("log.length", "*", "null") || is("log.sent", "*", "0") || c.HTTP2 && is("response.body", "*", "")):
		return "a 204 and a 304 have no content (RFC 9110 6.4.1)"
	case with("UNESCAPE_AND_REDIRECT") && (is("log.details", "path_normalization_failed", "path_normalization_redirect") || is("log.host", "null", "*") ||
		d.Field == "response.header.location" && d.Envoy == "/"+d.Hauberk):
		return "the log has the path as it came, and says that this is a redirect"
	case with("path_with_escaped_slashes_action") && slices.Contains([]string{"log.path", "log.path2"}, d.Field) && slash.ReplaceAllString(d.Hauberk, "/") == d.Envoy,
		with("REJECT_REQUEST") && is("log.host", "null", "*"):
		return "the log has the path as it came"
	case with("normalize_path") && (is("log.path", "*", "*") || is("log.path2", "*", "*")) && escape.ReplaceAllStringFunc(d.Envoy, strings.ToUpper) == d.Hauberk:
		return "escapes are normalised to capital digits (RFC 3986 6.2.2.1)"
	case strings.Contains(d.Field, ".header.") && trimmedList(d.Envoy) == d.Hauberk:
		return "white space around a value is no part of it"
	}
	return ""
}

var (
	ofNoCode = regexp.MustCompile(`\b[1-5][0-9][0-9]\b`)
	blanks   = regexp.MustCompile(` +(\||$)`)
	escape   = regexp.MustCompile(`%[0-9a-f]{2}`)
	slash    = regexp.MustCompile(`(?i)%2f|%5c`)
)

// trimmedList is a list of values without white space around each.
func trimmedList(list string) string {
	values := strings.Split(list, " | ")
	for i, v := range values {
		values[i] = strings.Trim(v, " ")
	}
	return strings.Join(values, " | ")
}

// text is the configuration without its cases.
func (c *Config) text() string {
	of := *c
	of.Cases = nil
	b, _ := yaml.Marshal(of)
	return string(b)
}
