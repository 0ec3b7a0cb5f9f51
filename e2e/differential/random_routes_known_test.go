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
	case body != "" && (is("response.header.connection", "close", absent) || is("end", "closed", "") || is("log.received", "0", "5") || is("log.received", "5", "0")): // whoever is faster
		return "unread"
	case method == "HEAD" && (is("response.header.transfer-encoding", "chunked", absent) || is("response.header.content-length", absent, "0")):
		return "head-framing"
	case with("internal_redirect_policy") && len(x.Respond) > 0 && strings.Contains(x.Respond[0].Send, "Location: ") && (ofRedirect.MatchString(d.Field) || strings.HasPrefix(d.Field, "log[") && d.Envoy == absent): // which comes later
		return "redirect-kept"
	case with("internal_redirect_policy") && len(x.Respond) > 0 && strings.HasPrefix(d.Field, "response.header.") && (with("%ROUTE_NAME%") || with("- ROUTE_NAME") || with("\"ROUTE_NAME\"") || with("%UPSTREAM_CLUSTER%")):
		return "redirect-kept"
	case with("internal_redirect_policy") && strings.Contains(head, "10.0.0.1") && strings.ReplaceAll(d.Hauberk, "10.0.0.", "127.0.0.") == d.Envoy:
		return "a redirect's request has the client of the request before it; Envoy takes the proxy for it"
	case with("%UPSTREAM_CLUSTER%") && (with("cluster_header") || with("cluster: nowhere")) && strings.HasPrefix(d.Field, "response.header.") && (d.Envoy == absent || strings.Contains(d.Hauberk, d.Envoy)):
		return "the log has the name of the cluster that is not there"
	case with("%RESPONSE_CODE%") && withoutCode(c, x, d.Envoy, d.Hauberk):
		return "code-format"
	case c.byTemplate(x.Seen[1]["log.route"]) && beyondTemplates(x.Send) && x.Seen[0]["log.route"] != x.Seen[1]["log.route"]:
		return "a wildcard takes what a request may hold: Envoy's takes some octets of paths alone"
	case (d.Field == "log.empties" || strings.Contains(d.Field, ".header.")) && bared(d.Envoy) == bared(d.Hauberk):
		return "white space around a value is no part of it (RFC 9110 5.5)"
	case is("log.cluster", "null", "*") && (with("cluster_header") || d.Hauberk == "nowhere"):
		return "the log has the name of the cluster that is not there"
	case is("*.header.x-forwarded-for", "*", "*") && strings.ReplaceAll(d.Envoy, "(this host)", "127.0.0.1") == d.Hauberk:
		return "loopback"
	case (with("status: 304") || with("status: 204")) && (is("response.header.content-length", "*", absent) || is("log.length", "*", "null") || is("log.sent", "*", "0") || c.HTTP2 && is("response.body", "*", "") || is("end", "more bytes", "")):
		return "a 204 and a 304 have no content (RFC 9110 6.4.1)"
	case (with("REJECT_REQUEST") || with("UNESCAPE_AND_REDIRECT")) && slash.MatchString(head) &&
		(is("log.route", "*", "null") || is("log.cluster", "*", "null") || is("log.first", "*", "*") || d.Field == "log.empties" || d.Field == "log.values" || c.ofRoutes(strings.TrimPrefix(d.Field, "response.header."))):
		return "the sidecar refuses a path before a route is chosen"
	case with("UNESCAPE_AND_REDIRECT") && (is("log.details", "path_normalization_failed", "path_normalization_redirect") || is("log.host", "null", "*") ||
		d.Field == "response.header.location" && d.Envoy == "/"+d.Hauberk):
		return "the log has the path as it came, and says that this is a redirect"
	case with("UNESCAPE_AND_REDIRECT") && slash.MatchString(head) && (d.Field == "log.path" || d.Field == "log.path2") && asked(x) == strings.TrimSuffix(d.Hauberk, " -") && strings.HasPrefix(x.Seen[1]["log.details"], "path_normalization_"):
		return "the log has the path as it came"
	case with("path_with_escaped_slashes_action") && slices.Contains([]string{"log.path", "log.path2"}, d.Field) && slashes.ReplaceAllString(slash.ReplaceAllString(d.Hauberk, "/"), "/") == slashes.ReplaceAllString(d.Envoy, "/"),
		with("REJECT_REQUEST") && is("log.host", "null", "*"):
		return "the log has the path as it came"
	case with("merge_slashes") && (is("log.path", "//*", "/*") || is("log.path2", "//*", "/*") || is("*.start", "*", "*")) && strings.Replace(d.Envoy, "//", "/", 1) == d.Hauberk:
		return "slashes are merged into one; of those alone Envoy leaves two"
	case with("normalize_path") && (is("log.path", "*", "*") || is("log.path2", "*", "*")) && escape.ReplaceAllStringFunc(d.Envoy, strings.ToUpper) == d.Hauberk:
		return "escapes are normalised to capital digits (RFC 3986 6.2.2.1)"
	}
	return ""
}

var (
	ofRedirect = regexp.MustCompile(`^log(\[\d\])?\.(path|path2|route|first|cluster|host|method|query|empties)$`)
	escape     = regexp.MustCompile(`%[0-9a-f]{2}`)
	slashes    = regexp.MustCompile(`/+`)
	slash      = regexp.MustCompile(`(?i)%2f|%5c`)
)

// ofRoutes tells whether a header is one that routes, or what is around them, add to answers or remove.
func (c *Config) ofRoutes(name string) bool {
	b, _ := yaml.Marshal([]any{c.Routes, c.VHost, c.VirtualHosts, c.RouteConfig})
	return regexp.MustCompile(`(?mi)^[ -]*(key: )?"?` + regexp.QuoteMeta(name) + `"?$`).Match(b)
}

// asked is the target of a request.
func asked(x *Case) string {
	line, _, _ := strings.Cut(x.Send, "\n")
	_, target, _ := strings.Cut(line, " ")
	return target
}

// beyondTemplates tells whether the path of a request has what Envoy's wildcards of templates do not take.
func beyondTemplates(request string) bool {
	_, target, _ := strings.Cut(request, " ")
	path, _, _ := strings.Cut(strings.SplitN(target, "\n", 2)[0], "?")
	return strings.ContainsFunc(path, func(c rune) bool { return c > '~' || strings.ContainsRune("|[]{}\"<>^`\\", c) })
}

// byTemplate tells whether a route of this name matches by a template.
func (c *Config) byTemplate(name string) bool {
	for _, host := range append([]map[string]any{{"routes": c.Routes}}, c.VirtualHosts...) {
		b, _ := yaml.Marshal(host["routes"])
		var routes []map[string]any
		_ = yaml.Unmarshal(b, &routes)
		if slices.ContainsFunc(routes, func(r map[string]any) bool {
			match, _ := r["match"].(map[string]any)
			return r["name"] == name && match["path_match_policy"] != nil
		}) {
			return true
		}
	}
	return false
}

// text is the configuration without its cases.
func (c *Config) text() string {
	of := *c
	of.Cases = nil
	b, _ := yaml.Marshal(of)
	return string(b)
}
