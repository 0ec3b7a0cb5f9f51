//go:build e2e

package differential

import (
	"path"
	"slices"
	"strings"
)

// pathPrefix is one that routes have.
func (m *rbacMaker) pathPrefix() string {
	p := one(m.r, "/a", "/a/", "/admin", "/A", "/a/b", "/x")
	m.paths = append(m.paths, p)
	return p
}

// path is one that rules talk about.
func (m *rbacMaker) path() string {
	p := one(m.r, "/", "/a", "/a/", "/A", "/a/b", "/admin", "/Admin/x", "/admin/", "/%61dmin", "/a%2Fb", "/a%2fb", "/a//b", "//a", "/a/../b", "/a;x=1", "/a/b.html", "/ü", "/a?x", "/a+b", "/a%20b", "/%2e%2e/a",
		"/"+strings.Repeat("long/", 30))
	if m.normal {
		p = capitalEscapes(p)
	}
	if m.h2 || !strings.Contains(p, "ü") {
		m.paths = append(m.paths, p)
	}
	return p
}

func (m *rbacMaker) template() string {
	t := one(m.r, "/*", "/**", "/a/*", "/a/**", "/admin/**", "/{x}", "/{x=**}", "/a/{x=*}", "/a/{x}/b", "/{x}/{y}", "/a/*.html", "/a/{x=*/b}", "/*/b", "/a/b", "/a/**.html", "/a%2Fb", "/a/{x=**}")
	m.paths = append(m.paths, strings.NewReplacer("{x}", one(m.r, "q", "a=b", "a%2Fb", ""), "{y}", "w", "{x=**}", one(m.r, "q/r", "", "q"), "{x=*}", "q", "{x=*/b}", "q/b", "**", one(m.r, "q/r/s", "", "."), "*", one(m.r, "q", "", "*", "a;b")).Replace(t))
	return t
}

func (m *rbacMaker) serverName() string {
	n := one(m.r, "api.example", "a.example", "A.Example", "", "b.a.example", "xn--nxasmq6b.example", strings.Repeat("a", 60)+".example")
	m.names = append(m.names, n)
	return n
}

func (m *rbacMaker) peerName() string {
	return one(m.r, webID, "spiffe://differential.mesh/ns/default/dc/dc1/svc/api", "spiffe://differential.mesh/", "web.example", "api.example", "a.example", "CN=web", "CN=api", "CN=subject", "", "SPIFFE://differential.mesh/",
		"*.wild.example", "x.wild.example", "http://several.example/a,b;c", "http://several.example/a", "api@api.example", "10.0.0.7", `CN=Ü \+ \"q\"`, "differential CA", `O=a\, b`, "svc/web")
}

// field is a header field that rules talk about, and a value of it.
func (m *rbacMaker) field() (name, value string) {
	name = one(m.r, "x-a", "x-a", "X-B", "x-role", ":path", ":method", ":authority", ":scheme", "host", "content-type", "x-forwarded-for", "cookie", "user-agent", "x-forwarded-proto", "accept", "x_under", "x-envoy-internal", "x-request-id", "referer", "authorization", "x-forwarded-client-cert", "from")
	if !m.h2 && chance(m.r, 6) {
		return m.hopField()
	}
	switch name {
	case ":path":
		return name, m.path()
	case ":method":
		return name, one(m.r, "GET", "POST", "get", "HEAD", "DELETE", "")
	case ":authority", "host":
		return name, one(m.r, "test.example", "test.example:80", "TEST.example", "other.example", "test.example.", "")
	case ":scheme", "x-forwarded-proto":
		return name, one(m.r, "http", "https", "HTTP", "")
	case "x-forwarded-for":
		if m.edge {
			return "x-a", "a" // docs/differential.md has what is added for a client on loopback
		}
		return name, one(m.r, "10.1.2.3", "127.0.0.1", "192.0.2.7", "10.1.2.3,127.0.0.1", "")
	}
	if name == "x-forwarded-client-cert" {
		value = one(m.r, "", webID, "By=x;URI="+webID, "Subject=", "DNS=web.example", "Hash=")
		m.fields = append(m.fields, [2]string{name, "By=spiffe://x;URI=" + webID})
		return name, value
	}
	value = one(m.r, "", "a", "A", "admin", "Admin", "user", "a,b", "a, b", "0", "5", "-5", "007", "+5", "9223372036854775807", "9223372036854775808", "1e3", "5 6", "ü", "a\tb", "a=1; b=2", strings.Repeat("v", 200))
	m.fields = append(m.fields, [2]string{name, value})
	return name, value
}

// hopField is of one connection alone, and what it names besides: rules do not see all of it.
func (m *rbacMaker) hopField() (name, value string) {
	f := one(m.r, [2]string{"connection", "x-a"}, [2]string{"connection", "X-Role, keep-alive"}, [2]string{"connection", "keep-alive"}, [2]string{"keep-alive", "timeout=5"},
		[2]string{"te", "trailers"}, [2]string{"te", "gzip"}, [2]string{"proxy-connection", "keep-alive"}, [2]string{"content-length", "0"}, [2]string{"via", "1.1 a"}, [2]string{"proxy-authorization", "a"})
	m.fields = append(m.fields, f)
	return f[0], f[1]
}

func (m *rbacMaker) header() dict {
	r := m.r
	name, value := m.field()
	h := dict{"name": name}
	switch r.IntN(12) {
	case 0:
		h["range_match"] = one(r, dict{"start": 0, "end": 10}, dict{"start": -10, "end": 0}, dict{"start": 5, "end": 6}, dict{"start": "-9223372036854775808", "end": "9223372036854775807"}, dict{"start": 7, "end": 8})
	case 1:
		h["present_match"] = !chance(r, 3)
	case 2:
	case 3:
		if value != "" {
			h[one(r, "exact_match", "prefix_match", "suffix_match", "contains_match")] = value
		}
	case 4:
		h["safe_regex_match"] = dict{"regex": m.regex(value)}
	default:
		h["string_match"] = m.text(func() string { return value })
	}
	if chance(r, 3) {
		h["invert_match"] = true
	}
	if chance(r, 3) {
		h["treat_missing_header_as_empty"] = true
	}
	return h
}

// text is a matcher of a text, or of a part of it.
func (m *rbacMaker) text(of func() string) dict {
	r, s := m.r, of()
	out := dict{}
	from, to := r.IntN(len(s)+1), r.IntN(len(s)+1)
	if from > to {
		from, to = to, from
	}
	switch kind := r.IntN(6); {
	case kind == 1 && to > 0:
		out["prefix"] = strings.ToValidUTF8(s[:to], "?")
	case kind == 2 && from < len(s):
		out["suffix"] = strings.ToValidUTF8(s[from:], "?")
	case kind == 3 && from < to:
		out["contains"] = strings.ToValidUTF8(s[from:to], "?")
	case kind == 4:
		out["safe_regex"] = dict{"google_re2": dict{}, "regex": m.regex(s)}
		return out
	default:
		out["exact"] = s
	}
	if chance(r, 3) {
		out["ignore_case"] = true
	}
	return out
}

func (m *rbacMaker) regex(s string) string {
	if len(s) > 30 {
		s = s[:30] // Envoy takes expressions of a hundred steps
	}
	quoted := regexpQuote(s)
	return one(m.r, ".*", ".+", "a|b", "(?i)"+quoted, quoted+".*", ".*"+quoted, "[^/]+", "/[a-z]+(/.*)?", "^"+quoted+"$", `\d+`, `-?[0-9]{1,3}`, `[[:alpha:]]*`, `(?s).*`, "("+quoted+")?", `\pL+`, ".{1,5}", `[^a]*`, "()", `\S*`, `(a*)*b?`)
}

func regexpQuote(s string) string {
	var b strings.Builder
	for _, c := range s {
		if strings.ContainsRune(`\.+*?()|[]{}^$`, c) {
			b.WriteByte('\\')
		}
		b.WriteRune(c)
	}
	return b.String()
}

func (m *rbacMaker) cidr() dict {
	r := m.r
	return one(r, dict{"address_prefix": "127.0.0.0", "prefix_len": 8}, dict{"address_prefix": "127.0.0.1", "prefix_len": 32}, dict{"address_prefix": "10.0.0.0", "prefix_len": 8}, dict{"address_prefix": "0.0.0.0", "prefix_len": 0},
		dict{"address_prefix": "10.1.2.3"}, dict{"address_prefix": "::", "prefix_len": 0}, dict{"address_prefix": "::1", "prefix_len": 128}, dict{"address_prefix": "192.0.2.9", "prefix_len": 24},
		dict{"address_prefix": "10.1.2.3", "prefix_len": 32}, dict{"address_prefix": "2001:db8::1", "prefix_len": 32}, dict{"address_prefix": "10.1.2.2", "prefix_len": 31}, dict{"address_prefix": "128.0.0.0", "prefix_len": 1})
}

// value is one of metadata.
func (m *rbacMaker) value(depth int) any {
	r := m.r
	switch n := r.IntN(9); {
	case n == 0:
		return nil
	case n == 1:
		return chance(r, 2)
	case n == 2:
		return one(r, 0.0, 1, 1.5, -1, 1e300)
	case n == 3 && depth < 3:
		return []any{m.value(depth + 1), m.value(depth + 1)}
	case n == 4:
		return []any{}
	case n <= 6 && depth < 3:
		return dict{one(r, "a", "b"): m.value(depth + 1)}
	default:
		return one(r, "", "a", "A", "public")
	}
}

func (m *rbacMaker) valueMatch(depth int) dict {
	r := m.r
	switch n := r.IntN(8); {
	case n == 0:
		return dict{"null_match": dict{}}
	case n == 1:
		return dict{"bool_match": chance(r, 2)}
	case n == 2:
		return dict{"double_match": one(r, dict{"exact": 1}, dict{"exact": 0}, dict{"range": dict{"start": 0, "end": 1}}, dict{"range": dict{"start": 1, "end": 1.5}}, dict{"range": dict{"start": 5, "end": 1}})}
	case n == 3 && depth < 3:
		return dict{"list_match": dict{"one_of": m.valueMatch(depth + 1)}}
	case n == 4 && depth < 3:
		return dict{"or_match": dict{"value_matchers": []any{m.valueMatch(depth + 1), m.valueMatch(depth + 1)}}}
	case n == 5:
		return dict{"present_match": !chance(r, 3)}
	default:
		return dict{"string_match": m.text(func() string { return one(r, "", "a", "public") })}
	}
}

func (m *rbacMaker) sourced() dict {
	if chance(m.r, 3) {
		return dict{"metadata_source": "DYNAMIC", "metadata_matcher": m.dynamic()}
	}
	out := dict{"filter": one(m.r, "app", "app", "envoy.filters.http.rbac", "none"), "path": m.keys("a", "b", "c"), "value": m.valueMatch(0)}
	if chance(m.r, 3) {
		out["invert"] = true
	}
	return dict{"metadata_source": "ROUTE", "metadata_matcher": out}
}

func (m *rbacMaker) keys(among ...string) (out []any) {
	for range 1 + m.r.IntN(2) {
		out = append(out, dict{"key": one(m.r, among...)})
	}
	return out
}

// dynamic asks for what filters have found.
func (m *rbacMaker) dynamic() dict {
	r := m.r
	out := dict{"filter": "envoy.filters.http.rbac", "path": []any{dict{"key": one(r, "shadow_engine_result", "two_shadow_engine_result", "shadow_effective_policy_id", "two_shadow_effective_policy_id", "enforced_engine_result", "enforced_effective_policy_id", "one_enforced_engine_result", "one_enforced_effective_policy_id")}},
		"value": one(r, m.valueMatch(0), dict{"string_match": dict{"exact": one(r, "allowed", "denied", "a", "b")}})}
	switch r.IntN(6) {
	case 0:
		out["filter"], out["path"], out["value"] = "envoy.common", []any{dict{"key": "access_log_hint"}}, dict{"bool_match": chance(r, 2)}
	case 1:
		out["filter"] = "none"
	case 2:
		out["path"] = []any{dict{"key": "shadow_engine_result"}, dict{"key": "a"}}
	}
	if chance(r, 3) {
		out["invert"] = true
	}
	return out
}

// request is one that rules of the configuration may be of.
func (m *rbacMaker) request(c *Config) Case {
	r := m.r
	var x Case
	if m.tls {
		x.TLS = &ClientTLS{SNI: m.sni(), Cert: one(r, "web", "web", "api", "announced", "several", "subject", "none", "odd", "deep")}
		if x.TLS.Cert == "none" && !c.MTLS.Optional {
			x.TLS.Cert = "web"
		}
	}
	if !m.http {
		x.Raw = m.announcement() + "tcp hello\n"
		if m.proxy {
			x.More = []string{"tcp more\n"} // Envoy's listener filters do not wait for a client that says no more
		}
		return x
	}
	if c.Before != nil {
		// The log of a connection manager does not have, in Envoy, who is denied before it.
		x.Logs, x.Unsteady = new(int), []string{"log"}
	}
	method := one(r, "GET", "GET", "GET", "POST", "HEAD", "DELETE", "get", "OPTIONS")
	if m.proxy && method == "HEAD" {
		method = "PUT" // what is read of a raw case does not know of it
	}
	target := m.target()
	lines := m.lines()
	if m.h2 {
		x.Frames = []string{m.frame(method, target, lines)}
		return x
	}
	if !m.h2 && chance(r, 8) && !slices.ContainsFunc(lines, func(l [2]string) bool { return l[0] == "host" }) {
		target = "http://test.example" + target
	}
	x.Send = method + " " + target
	for _, l := range lines {
		x.Send += "\n" + l[0] + ":" + one(r, " ", " ", "", "  ") + l[1]
	}
	x.Send += "\n"
	if m.proxy {
		head, _ := request(x.Send)
		x.Raw, x.Send = m.announcement()+head, ""
	}
	return x
}

// announcement is a PROXY header, where there is to be one.
func (m *rbacMaker) announcement() string {
	if !m.proxy {
		return ""
	}
	return one(m.r, "PROXY TCP4 10.1.2.3 10.0.0.1 1000 80\r\n", "PROXY TCP4 192.0.2.7 127.0.0.1 65535 1024\r\n", "PROXY TCP6 2001:db8::7 ::1 1 443\r\n", "PROXY UNKNOWN\r\n")
}

// mutations change fields that rules may be of.
func (m *rbacMaker) mutations() (out []any) {
	r := m.r
	for range 1 + r.IntN(2) {
		name, value := m.field()
		if strings.HasPrefix(name, ":") || hopNames[name] || name == "host" || name == "x-request-id" || strings.HasPrefix(name, "x-forwarded-") {
			name, value = "x-a", "a"
		}
		if chance(r, 3) {
			out = append(out, dict{"remove": name})
			continue
		}
		out = append(out, dict{"append": dict{"header": dict{"key": name, "value": strings.NewReplacer("%", "%%").Replace(value)},
			"append_action": one(r, "APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS")}})
	}
	return out
}

var hopNames = map[string]bool{"connection": true, "keep-alive": true, "te": true, "proxy-connection": true, "content-length": true}

// detection is how a client is found that others name.
func (m *rbacMaker) detection() dict {
	const xff = apiType + "extensions.http.original_ip_detection.xff.v3.XffConfig"
	switch m.r.IntN(3) {
	case 0:
		return dict{"name": "xff", "typed_config": dict{"@type": xff, "xff_num_trusted_hops": one(m.r, 0, 1, 2)}}
	case 1:
		return dict{"name": "xff", "typed_config": dict{"@type": xff, "skip_xff_append": chance(m.r, 2), "xff_trusted_cidrs": dict{"cidrs": []any{m.cidr(), dict{"address_prefix": "127.0.0.0", "prefix_len": 8}}}}}
	}
	return dict{"name": "header", "typed_config": dict{"@type": apiType + "extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig", "header_name": "x-a", "allow_extension_to_set_address_as_trusted": chance(m.r, 2)}}
}

// frame is a request of HTTP/2, whose names are in lower case.
func (m *rbacMaker) frame(method, target string, lines [][2]string) string {
	host, rest := "test.example", ""
	for _, l := range lines {
		switch name := strings.ToLower(l[0]); name {
		case "host":
			host = l[1]
		default:
			rest += "\n" + name + ": " + l[1]
		}
	}
	scheme := one(m.r, "http", "http", "https")
	return "HEADERS 1 END\n:method: " + method + "\n:scheme: " + scheme + "\n:authority: " + host + "\n:path: " + target + rest
}

func (m *rbacMaker) sni() string {
	var known []string
	for _, n := range m.names {
		if n != "" {
			known = append(known, n)
		}
	}
	if len(known) > 0 && !chance(m.r, 4) {
		n := one(m.r, known...)
		return one(m.r, n, n, strings.ToUpper(n), "x."+n)
	}
	return one(m.r, "", "api.example")
}

// target is a path of the configuration, or one that is nearly it.
func (m *rbacMaker) target() string {
	r := m.r
	p := one(r, append(m.paths, "/", "/a", "/admin/x")...)
	p, _, _ = strings.Cut(p, "?")
	switch r.IntN(16) {
	case 0:
		p = strings.ToUpper(p)
	case 1:
		p += "/"
	case 2:
		p += one(r, "x", "/x", ".html", ";a=b", "%20", "%00", "%", "|", "[", "*", "~", "'", `\`)
	case 3:
		p = "/" + p
	case 4:
		p = "/x/.." + p
	case 5:
		p = "/." + p
	case 6:
		p = "/x/%2e%2e" + p
	case 7:
		p = strings.Replace(p, "/", "//", 1)
	case 8:
		p = strings.Replace(p, "a", "%61", 1)
	case 9:
		p = "/" + strings.Replace(p[1:], "/", one(r, "%2F", "%2f", "%5c", `\`), 1)
	case 10:
		p = "/%2e" + p
	case 11:
		p += "/.."
	}
	if path.Clean(strings.NewReplacer("%2e", ".", "%2E", ".", "%2F", "/", "%2f", "/", "%5c", "/", "%5C", "/", `\`, "/").Replace(p)) == "/" {
		p = "/" // docs/differential.md has what becomes of slashes alone
	}
	if m.normal {
		p = capitalEscapes(p)
	}
	switch r.IntN(9) {
	case 0:
		p += "?x"
	case 1:
		p += "?a=/admin/../b"
	case 2:
		p += "?"
	}
	return p
}

// lines are fields of the configuration, some of them twice, and some of whom it is from.
func (m *rbacMaker) lines() (out [][2]string) {
	r := m.r
	for range r.IntN(4) {
		if len(m.fields) == 0 {
			break
		}
		f := one(r, m.fields...)
		switch r.IntN(6) {
		case 0:
			f[1] = one(r, "", "a", "5", "user", strings.ToUpper(f[1]))
		case 1:
			f[0] = strings.ToUpper(f[0])
		case 2:
			out = append(out, [2]string{f[0], one(r, "", "a", "b", f[1])})
		}
		out = append(out, f)
	}
	if chance(r, 3) {
		out = append(out, [2]string{"x-forwarded-for", one(r, "10.1.2.3", "10.1.2.3, 192.0.2.7", "192.0.2.7,127.0.0.1", "2001:db8::7", "", "nonsense", "10.1.2.3:80", "[2001:db8::7]:80", "10.1.2.3,,127.0.0.1")})
	}
	if chance(r, 4) {
		out = append(out, [2]string{"host", one(r, "test.example:80", "TEST.example", "other.example", "test.example.", "test.example:8080", "10.0.0.1", "[::1]:80")})
	}
	if chance(r, 10) {
		out = append(out, [2]string{"x-forwarded-proto", one(r, "https", "http", "HTTPS", "ftp")})
	}
	return out
}

// capitalEscapes are what escapes have where paths are normalised, which docs/differential.md tells of.
func capitalEscapes(p string) string {
	return escape.ReplaceAllStringFunc(p, strings.ToUpper)
}
