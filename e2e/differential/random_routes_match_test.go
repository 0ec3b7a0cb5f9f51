//go:build e2e

package differential

import (
	"fmt"
	"strings"
)

var (
	routeHeaders  = []string{"x-a", "X-A", "x-b", "x-list", "x-num", "x-empty", "user-agent", "accept", "cookie"}
	routeValues   = []string{"v", "V", "vw", "v,w", "w, v", "", "é", "12", "-5", "+5", "007", "9223372036854775807", "9223372036854775808", "1.0", "a b", "x=1; y=2", "v=1", strings.Repeat("l", 300)}
	routeSegments = []string{"a", "b", "c", "A", "aB", "x.y", "a;p=1", "%61", "a%2Fb", "%C3%A9", "a-b_c~d", "12", "from", "a=b", "a:b", "a*b", "a@b", "a+b", "a%20b", "(a)", "a'b", "a,b", "$a", "!"}
)

func (m *routeMaker) path(most int) string {
	var b strings.Builder
	for range 1 + m.r.IntN(most) {
		b.WriteString("/" + one(m.r, routeSegments[:2+m.r.IntN(len(routeSegments)-1)]...))
	}
	return b.String()
}

// match is a matcher, the kind of its path, and a request that it takes.
func (m *routeMaker) match(hit *routeHit) (match dict, kind string) {
	match = dict{}
	kind = m.matchPath(match, hit)
	if chance(m.r, 4) {
		match["case_sensitive"] = !chance(m.r, 3)
		if !chance(m.r, 3) && kind != "safe_regex" {
			hit.path = strings.ToUpper(hit.path)
		}
	}
	if kind == "connect_matcher" {
		return match, kind
	}
	if chance(m.r, 3) {
		var of []any
		for range 1 + m.r.IntN(1+m.r.IntN(3)) {
			of = append(of, m.header(hit))
		}
		match["headers"] = of
	}
	if chance(m.r, 5) {
		var of []any
		for range 1 + m.r.IntN(2) {
			of = append(of, m.queryMatcher(hit))
		}
		match["query_parameters"] = of
	}
	if chance(m.r, 10) {
		s, value := m.stringMatch()
		name := one(m.r, "x", "y", "v")
		match["cookies"] = []any{dict{"name": name, "string_match": s, "invert_match": chance(m.r, 4)}}
		hit.lines = append(hit.lines, "Cookie: "+one(m.r, "", "y=9; ")+name+"="+value)
	}
	if chance(m.r, 15) {
		match["grpc"] = dict{}
		hit.method, hit.body = "POST", "hello"
		hit.lines = append(hit.lines, "Content-Type: application/grpc"+one(m.r, "", "+proto", "-web", "; x"))
	}
	if chance(m.r, 20) {
		match["tls_context"] = dict{one(m.r, "presented", "validated"): chance(m.r, 2)}
	}
	if chance(m.r, 8) {
		match["runtime_fraction"] = dict{"default_value": one(m.r, dict{"numerator": 100}, dict{"numerator": 100}, dict{"numerator": 0}, dict{"numerator": 10000, "denominator": "TEN_THOUSAND"}, dict{"numerator": 1000, "denominator": "HUNDRED"})}
	}
	return match, kind
}

// A template and a path that it matches.
type routeTemplate struct{ template, path, rewrite string }

var routeTemplates = []routeTemplate{
	{"/{x}", "/a", "/n/{x}"},
	{"/a/{x}/**", "/a/b/c/d", "/{x}"},
	{"/*/b/{y=*}", "/a/b/c", "/{y}/{y}"},
	{"/{v=**}", "/a/b", "/p/{v}.x"},
	{"/a/{x=b/*}/c", "/a/b/q/c", "/{x}-z"},
	{"/**", "/a/b/c", "/fixed"},
	{"/a/{x}.html", "/a/b.html", "/{x}"},
	{"/{x}/{y}/{z=**}", "/a/b/c/d", "/{z}/{y}/{x}"},
	{"/{x=*}/a/{rest=**}", "/b/a/", "/{rest}"},
	{"/a/*/**.m3u8", "/a/b/c/d.m3u8", "/x"},
	{"/a/{p=**}.mpd", "/a/b/c.mpd", "/{p}"},
	{"/a:{x}", "/a:b", "/{x}"},
	{"/a%20b/{x}", "/a%20b/c", "/{x}"},
}

func (m *routeMaker) matchPath(match dict, hit *routeHit) (kind string) {
	switch m.r.IntN(14) {
	case 0, 1, 2, 3:
		p := m.path(2) + one(m.r, "", "", "/")
		if chance(m.r, 3) {
			p = one(m.r, "/", "", "/a%2F", "/a?q", "/a/..", "//", "a")
		}
		match["prefix"], hit.path = p, p+one(m.r, "", "", "/", "x", "/c", m.path(2))
		if !strings.HasPrefix(hit.path, "/") {
			hit.path = "/" + hit.path
		}
		return "prefix"
	case 4, 5:
		p := m.path(3) + one(m.r, "", "", "/")
		match["path"], hit.path = p, p
		return "path"
	case 6, 7:
		p := m.path(2)
		match["path_separated_prefix"], hit.path = p, p+one(m.r, "", "/", m.path(2), "?x=1", "x")
		return "path_separated_prefix"
	case 8, 9, 10:
		k := one(m.r, [][2]string{{"/a.*", "/ab"}, {`/[ab]/\d+`, "/a/12"}, {"/(a|b)(/c)?", "/b/c"}, {".*", "/x"}, {"/a/?", "/a"}, {"(?i)/a/b", "/A/b"}, {"/[^/]+/c", "/a/c"},
			{`/\pL+`, "/abc"}, {"/[[:alpha:]]+(/.*)?", "/a/b"}, {"()", "/"}, {"/a{2,3}", "/aa"}, {`/a\.b`, "/a.b"}, {"^/a/b$", "/a/b"}, {"/(?:a|ab)(?:c|bcd)", "/abcd"}, {"/é", "/é"}, {"/.", "/é"}, {`/\w+\b.*`, "/a-b"}, {"/[^a]", "/b"}}...)
		match["safe_regex"], hit.path = dict{"regex": k[0]}, k[1]
		return "safe_regex"
	case 11, 12:
		k := one(m.r, routeTemplates...)
		match["path_match_policy"] = dict{"name": "t", "typed_config": dict{"@type": apiType + "extensions.path.match.uri_template.v3.UriTemplateMatchConfig", "path_template": k.template}}
		hit.path = k.path
		return k.rewrite
	}
	if chance(m.r, 3) {
		match["connect_matcher"] = dict{}
		if hit.path = "/a"; !m.http2 {
			hit.method = one(m.r, "CONNECT", "CONNECT", "GET")
		}
		return "connect_matcher"
	}
	match["prefix"], hit.path = "/", m.path(3)
	return "prefix"
}

// stringMatch is a matcher, and a value that it matches.
func (m *routeMaker) stringMatch() (dict, string) {
	value := one(m.r, routeValues...)
	out := dict{}
	matched := value
	if value == "" || chance(m.r, 3) {
		out["exact"] = value
	} else {
		switch m.r.IntN(4) {
		case 0:
			out["prefix"], matched = value, value+"x"
		case 1:
			out["suffix"], matched = value, "x"+value
		case 2:
			out["contains"], matched = value, "x"+value+"y"
		case 3:
			k := one(m.r, [][2]string{{"v.*", "vw"}, {"[0-9]+", "12"}, {"(?i)V", "v"}, {".", "v"}, {"(v|w|,)*", "v,w"}, {"()", ""}, {`\S+`, "é"}, {"[^v]", "w"}}...)
			return dict{"safe_regex": dict{"regex": k[0]}}, k[1]
		}
	}
	if chance(m.r, 3) {
		out["ignore_case"] = true
		matched = strings.ToUpper(matched)
	}
	return out, matched
}

func (m *routeMaker) header(hit *routeHit) dict {
	name := one(m.r, append([]string{":path", ":method", ":method", ":authority", "host", ":scheme"}, routeHeaders...)...)
	out := dict{"name": name}
	value := one(m.r, routeValues...)
	add := true
	switch m.r.IntN(10) {
	case 0:
		out["exact_match"] = value
	case 1:
		if value != "" {
			out["prefix_match"], value = value, value+"x"
		}
	case 2:
		if value != "" {
			out["suffix_match"], value = value, "x"+value
		}
	case 3:
		if value != "" {
			out["contains_match"], value = value, "x"+value+"y"
		}
	case 4:
		out["safe_regex_match"], value = dict{"regex": one(m.r, "v.*", ".*", "[a-z]+", "()")}, "vw"
	case 5:
		k := one(m.r, [][2]int64{{-10, 10}, {0, 1 << 62}, {-9223372036854775808, 9223372036854775807}, {12, 13}, {12, 12}, {13, 12}}...)
		out["range_match"], value = dict{"start": fmt.Sprint(k[0]), "end": fmt.Sprint(k[1])}, one(m.r, "12", "-5", "007", "+5", "1.0", " 12", "12x", "9223372036854775806", "9223372036854775807", "")
	case 6:
		add = !chance(m.r, 3)
		out["present_match"] = add
	case 7:
		// Nothing is asked but that it is there.
	default:
		out["string_match"], value = m.stringMatch()
	}
	if chance(m.r, 4) {
		out["invert_match"] = true
		add = chance(m.r, 2)
	}
	if chance(m.r, 4) {
		out["treat_missing_header_as_empty"] = true
		add = add && chance(m.r, 2)
	}
	switch {
	case strings.HasPrefix(name, ":") && !chance(m.r, 3):
		// What it has mostly.
		is := map[string]string{":method": hit.method, ":path": hit.path, ":authority": hit.host, ":scheme": "http"}[name]
		return dict{"name": name, "string_match": one(m.r, dict{"exact": is}, dict{"exact": strings.ToUpper(is), "ignore_case": true}, dict{"prefix": is}, dict{"contains": is})}
	case strings.HasPrefix(name, ":") || name == "host":
	case add:
		hit.lines = append(hit.lines, name+": "+value)
	}
	return out
}

func (m *routeMaker) queryMatcher(hit *routeHit) dict {
	name := one(m.r, "q", "Q", "e", "a", "q.r")
	out := dict{"name": name}
	switch m.r.IntN(3) {
	case 0:
		out["present_match"] = !chance(m.r, 4)
		hit.query = append(hit.query, name+one(m.r, "", "=", "=v"))
	case 1:
		s, value := m.stringMatch()
		out["string_match"] = s
		hit.query = append(hit.query, name+"="+strings.NewReplacer(" ", "%20", "+", "%2B", "é", "%C3%A9").Replace(value))
	case 2:
		hit.query = append(hit.query, name+one(m.r, "", "=", "=v"))
	}
	return out
}
