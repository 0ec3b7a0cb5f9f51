//go:build e2e

package differential

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestRandomRoutes: random route tables and requests that may match them.
func TestRandomRoutes(t *testing.T) {
	random(t, domain{rounds: 2, group: randomRoutes, known: knownOfRoutes})
}

// routeMaker makes one configuration by r. What its matchers would take is kept, so that
// requests hit or miss them closely.
type routeMaker struct {
	r     *rand.Rand
	http2 bool
	hits  []routeHit
}

// routeHit is a request that a route was made for.
type routeHit struct {
	method, host, path string
	query, lines       []string
	body               string
}

// routeRing is a cluster whose host a hash chooses, by names that are the same for both.
var routeRing = dict{"name": "ring", "lb_policy": "RING_HASH", "endpoints": []any{"origin", "other", "third"}}

func randomRoutes(r *rand.Rand) *Group {
	g := &Group{About: "random routes", Clusters: []map[string]any{routeRing}}
	for i := range 8 {
		m := &routeMaker{r: r, http2: chance(r, 3)}
		c := Config{Name: fmt.Sprintf("routes-%d", i), About: "random", HTTP2: m.http2}
		m.table(&c)
		for n := range 8 {
			c.Cases = append(c.Cases, m.send(fmt.Sprintf("case-%d", n)))
		}
		g.Configs = append(g.Configs, c)
	}
	return g
}

// table makes virtual hosts and what surrounds them.
func (m *routeMaker) table(c *Config) {
	c.HCM, c.RouteConfig = m.manager(), dict{"validate_clusters": false}
	domains := []string{"a.example", "*.example", "*.a.example", "a.*", "a.example:80", "B.example", "b.example.", "*", "*-x.example", "x.a.*", "test.example", "[::1]", "a.example:8080", "*:80"}
	m.r.Shuffle(len(domains), func(i, j int) { domains[i], domains[j] = domains[j], domains[i] })
	n := 1 + m.r.IntN(3)
	for i := range n {
		take := min(1+m.r.IntN(4), len(domains))
		of := domains[:take:take]
		domains = domains[take:]
		if i == n-1 && !chance(m.r, 4) && slices.Contains(domains, "*") {
			of = append(of, "*")
		}
		h := dict{"name": fmt.Sprintf("host-%d", i), "domains": of}
		var routes []any
		for k := range 1 + m.r.IntN(4) {
			routes = append(routes, m.route(fmt.Sprintf("r%d-%d", i, k), of, false))
		}
		if !chance(m.r, 3) {
			routes = append(routes, m.route("rest", of, true)) // so that near misses go somewhere too
		}
		h["routes"] = routes
		if chance(m.r, 4) {
			h["metadata"] = dict{"filter_metadata": dict{"m": dict{"k": "of the host"}}}
		}
		m.mutations(h, 3)
		if chance(m.r, 12) {
			h["include_request_attempt_count"] = true
		}
		if chance(m.r, 12) {
			h["include_attempt_count_in_response"] = true
		}
		if chance(m.r, 20) {
			h["require_tls"] = one(m.r, "ALL", "EXTERNAL_ONLY", "NONE")
		}
		c.VirtualHosts = append(c.VirtualHosts, h)
	}
	m.mutations(c.RouteConfig, 3)
	for _, name := range []string{"most_specific_header_mutations_wins", "ignore_port_in_host_matching", "ignore_path_parameters_in_path_matching"} {
		if chance(m.r, 4) {
			c.RouteConfig[name] = true
		}
	}
	if chance(m.r, 10) {
		c.RouteConfig["internal_only_headers"] = []string{"x-a", "X-List"}
	}
	if chance(m.r, 12) {
		c.RouteConfig["vhost_header"] = "x-site"
	}
}

// manager is what the connection manager does to hosts and paths.
func (m *routeMaker) manager() dict {
	h := dict{}
	for _, name := range []string{"normalize_path", "merge_slashes"} {
		if chance(m.r, 3) {
			h[name] = true
		}
	}
	if chance(m.r, 4) {
		h["path_with_escaped_slashes_action"] = one(m.r, "KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD")
	}
	switch m.r.IntN(6) {
	case 0:
		h["strip_any_host_port"] = true
	case 1:
		h["strip_matching_host_port"] = true
	}
	if chance(m.r, 4) {
		h["strip_trailing_host_dot"] = true
	}
	if chance(m.r, 6) {
		h["use_remote_address"] = true
	}
	if chance(m.r, 10) {
		h["always_set_request_id_in_response"] = true
	}
	if chance(m.r, 10) {
		h["preserve_external_request_id"] = true
	}
	return h
}

// route is a match and an action, with whatever else a route has.
func (m *routeMaker) route(name string, domains []string, all bool) dict {
	hit := routeHit{method: "GET", host: strings.Replace(one(m.r, domains...), "*", one(m.r, "b", "x.b", "a", "example"), 1)}
	match, kind := dict{"prefix": "/"}, "prefix"
	if hit.path = m.path(3); !all {
		match, kind = m.match(&hit)
	}
	out := dict{"name": name, "match": match}
	switch {
	case chance(m.r, 5):
		out["redirect"] = m.redirect(kind)
	case chance(m.r, 4):
		out["direct_response"] = m.direct()
	default:
		out["route"] = m.forward(kind)
	}
	m.mutations(out, 2)
	if chance(m.r, 6) {
		out["metadata"] = dict{"filter_metadata": dict{"m": dict{"k": one(m.r, "v", "", "é"), "n": dict{"in": 15}}}}
	}
	m.hits = append(m.hits, hit)
	return out
}

// send is a request that hits a route, or misses it narrowly.
func (m *routeMaker) send(name string) Case {
	hit := one(m.r, m.hits...)
	hit.query, hit.lines = slices.Clone(hit.query), slices.Clone(hit.lines)
	for range m.r.IntN(3) {
		m.miss(&hit)
	}
	host := hit.host
	switch m.r.IntN(16) {
	case 0:
		host = strings.ToUpper(host)
	case 1, 2, 3:
		if more := one(m.r, ":80", ":8080", ":443", ":0", ".", ".:80"); !strings.Contains(host, ":") {
			host += more
		}
	case 4:
		host = one(m.r, "127.0.0.1", "[::1]:80", "none.test", "example", ".example", "a..example")
	}
	path := hit.path
	if hit.method == "CONNECT" {
		if host = strings.TrimSuffix(host, "."); !strings.Contains(strings.TrimPrefix(host, "[::1]"), ":") {
			host += one(m.r, ":80", ":443")
		}
		path, hit.query = host, nil
	}
	if strings.Trim(path, "/") == "" {
		path = "/" // of slashes alone Envoy leaves two
	}
	if len(hit.query) > 0 {
		path += "?" + strings.Join(hit.query, one(m.r, "&", "&", "&&"))
	}
	if m.http2 && strings.HasPrefix(path, "//") {
		path = path[1:] // the client cannot
	}
	lines := append([]string{hit.method + " " + path, "Host: " + host}, hit.lines...)
	if chance(m.r, 4) {
		lines = append(lines, one(m.r, "X-Forwarded-Proto: https", "X-Forwarded-Proto: http", "X-Forwarded-Host: z.example", "X-Site: a.example", "X-Cluster: other", "X-Cluster: third", "X-Host: h.example", "X-Host: H.example:80", "X-Forwarded-For: 10.0.0.1"))
	}
	if m.http2 {
		for i, l := range lines[1:] { // the client sends names of two cases in any order
			n, v, _ := strings.Cut(l, ":")
			lines[i+1] = strings.ToLower(n) + ":" + v
		}
	}
	x := Case{Name: name, Send: strings.Join(lines, "\n") + "\n\n" + hit.body}
	switch m.r.IntN(10) {
	case 0:
		x.Respond = []Answer{{Send: "404 Not Found\nX-A: up\nX-List: 1\nX-List: 2\nX-Empty:\n\nno"}}
	case 1:
		x.Respond = []Answer{{Send: one(m.r, "302 Found", "307 Temporary Redirect", "303 See Other") + "\nLocation: " +
			one(m.r, "http://a.example", "http://b.example:80", "https://a.example", "", "http://[::1]") + one(m.r, "/a/b?q=1", "/from/x", "", "/b/../a/c") + "\nX-B: copied\n\n"}}
	}
	return x
}

// miss changes a request a little.
func (m *routeMaker) miss(hit *routeHit) {
	switch m.r.IntN(16) {
	case 0:
		hit.path += one(m.r, "/", "//", "/.", "/..", "/x", ";p=1", "%2F", "%2E%2E")
	case 1:
		hit.path = strings.ToUpper(hit.path)
	case 2:
		hit.path = strings.Replace(hit.path, "/", one(m.r, "//", "/./", "/x/../", "/;v/", "/%2F"), 1)
	case 3:
		hit.path = strings.Replace(hit.path, "a", one(m.r, "%61", "A", "%41", "aa", ""), 1)
	case 4:
		if hit.path = strings.TrimSuffix(hit.path, "/"); hit.path == "" {
			hit.path = "/"
		}
	case 5:
		if n := len(hit.path); n > 1 && strings.LastIndexByte(hit.path, '%') < n-3 { // no half of an escape
			hit.path = hit.path[:n-1]
		}
	case 6:
		hit.query = append(hit.query, m.parameter())
	case 7:
		if n := len(hit.query); n > 0 {
			hit.query = slices.Delete(hit.query, 0, 1)
		}
	case 8:
		slices.Reverse(hit.query)
	case 9:
		hit.lines = append(hit.lines, m.line())
	case 10:
		if n := len(hit.lines); n > 0 {
			i := m.r.IntN(n)
			hit.lines = slices.Delete(hit.lines, i, i+1)
		}
	case 11:
		if n := len(hit.lines); n > 0 {
			hit.lines = append(hit.lines, one(m.r, hit.lines...))
		}
	case 12:
		if n := len(hit.lines); n > 0 {
			i := m.r.IntN(n)
			name, value, _ := strings.Cut(hit.lines[i], ":")
			hit.lines[i] = name + ":" + one(m.r, strings.ToUpper(value), value+"x", "", value+","+value, " x"+strings.TrimSpace(value))
		}
	case 13:
		hit.method = one(m.r, "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "get")
		if hit.method == "POST" {
			hit.body = "hello"
		}
	case 14:
		hit.query = append(hit.query, one(m.r, "", "=", "a", "a=", "%61=v", "q=%76", "q=v&q=w", "q=a+b", "url=http://x/a//b/../c", "q=%zz", "q=é"))
	case 15:
		hit.lines = append(hit.lines, m.line(), m.line())
	}
}

func (m *routeMaker) line() string {
	return one(m.r, routeHeaders...) + ": " + one(m.r, routeValues...)
}

func (m *routeMaker) parameter() string {
	return one(m.r, "q", "Q", "e", "a", "q.r", "%71") + one(m.r, "", "=", "=v", "=V", "=vw", "=%76", "=v%26w", "=12", "==")
}
