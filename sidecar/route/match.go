package route

import (
	"strconv"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// matcher evaluates the matches of one request.
type matcher struct {
	req         *message.Request
	path, query string
	fraction    uint32
}

// cut splits a request target where Envoy's path matchers do: they see neither
// query nor fragment.
func cut(target string) (path, query string) {
	for i := range len(target) {
		switch target[i] {
		case '#':
			return target[:i], ""
		case '?':
			query, _, _ = strings.Cut(target[i+1:], "#")
			return target[:i], query
		}
	}
	return target, ""
}

// matches evaluates a whole match.
func (m *matcher) matches(e *entry) bool {
	return m.pathMatches(e) && (e.pathOnly || m.rest(&e.route.Match))
}

func (m *matcher) pathMatches(e *entry) bool {
	if e.kind == isRegex {
		return m.path != "" && fullMatch(e.route.Match.Regex, m.path)
	}
	n := len(e.text)
	switch {
	case len(m.path) < n:
		return false
	case e.kind == isPath && len(m.path) != n:
		return false
	case e.kind == isSeparatedPrefix && len(m.path) != n && m.path[n] != '/':
		return false
	case e.fold:
		return equalFold(m.path[:n], e.text)
	}
	return m.path[:n] == e.text
}

// rest evaluates everything but the path.
func (m *matcher) rest(c *Match) bool {
	if c.RuntimeFraction != 0 && uint64(m.fraction)*1_000_000>>32 >= uint64(c.RuntimeFraction) {
		return false
	}
	for i := range c.Headers {
		if !c.Headers[i].Match(m.req) {
			return false
		}
	}
	for i := range c.Query {
		if !c.Query[i].match(m.query) {
			return false
		}
	}
	return true
}

// Match evaluates a header matcher on a request. A header that is missing never
// matches, inverted or not, unless presence is what is asked or the matcher
// takes a missing header as empty: these are Envoy's rules, and authorization
// depends on them.
func (h *HeaderMatch) Match(req *message.Request) bool {
	value, ok := req.Header(h.Name)
	if h.Present != nil || (h.Value == nil && h.Range == nil) {
		want := h.Present == nil || *h.Present
		if !ok && h.MissingAsEmpty {
			ok = true
		}
		return (ok == want) != h.Invert
	}
	if !ok && !h.MissingAsEmpty {
		return false
	}
	var hit bool
	if h.Value != nil {
		hit = h.Value.Match(value)
	} else if n, err := strconv.ParseInt(value, 10, 64); err == nil {
		hit = h.Range[0] <= n && n < h.Range[1]
	}
	return hit != h.Invert
}

// match looks a parameter up in a raw query. As in Envoy the first occurrence
// decides and nothing is percent-decoded.
func (q *QueryMatch) match(query string) bool {
	value, ok := parameter(query, q.Name)
	if q.Value == nil {
		return ok == (q.Present == nil || *q.Present)
	}
	return ok && q.Value.Match(value)
}

func parameter(query, name string) (value string, ok bool) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if len(pair) >= len(name) && pair[:len(name)] == name {
			if len(pair) == len(name) {
				return "", true
			}
			if pair[len(name)] == '=' {
				return pair[len(name)+1:], true
			}
		}
	}
	return "", false
}

// AppendPath appends the path and query that the upstream is to get: with
// PrefixRewrite set the matched part replaced, otherwise as received. Route
// must have matched the path.
func (r *Route) AppendPath(dst []byte, target string) []byte {
	if r.Forward == nil || r.Forward.PrefixRewrite == "" {
		return append(dst, target...)
	}
	return r.appendRewritten(dst, target, r.Forward.PrefixRewrite)
}

func (r *Route) appendRewritten(dst []byte, target, replacement string) []byte {
	matched := 0
	switch m := &r.Match; {
	case m.Prefix != nil:
		matched = len(*m.Prefix)
	case m.PathSeparatedPrefix != nil:
		matched = len(*m.PathSeparatedPrefix)
	default:
		path, _ := cut(target)
		matched = len(path)
	}
	dst = append(dst, replacement...)
	return append(dst, target[min(matched, len(target)):]...)
}
