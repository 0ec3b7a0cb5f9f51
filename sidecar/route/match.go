package route

import (
	"strconv"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// matcher evaluates the matches of one request.
type matcher struct {
	req         *message.Request
	client      *Client
	path, query string
	share       uint32
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

// WithoutParameters cuts what follows a semicolon off each segment of a path (RFC 3986
// 3.3). It allocates only where a segment follows one that has parameters.
func WithoutParameters(path string) string {
	plain, rest, _ := strings.Cut(path, ";")
	i := strings.IndexByte(rest, '/')
	if i < 0 {
		return plain
	}
	out := append(make([]byte, 0, len(path)), plain...)
	for i >= 0 {
		plain, rest, _ = strings.Cut(rest[i:], ";")
		out = append(out, plain...)
		i = strings.IndexByte(rest, '/')
	}
	return message.View(out)
}

// matches evaluates a whole match.
func (m *matcher) matches(e *entry) bool {
	return m.pathMatches(e) && (e.pathOnly || m.rest(&e.route.Match))
}

func (m *matcher) pathMatches(e *entry) bool {
	switch e.kind {
	case isRegex:
		return m.path != "" && FullMatch(e.route.Match.Regex, m.path)
	case isTemplate:
		// A template sees the parameters of a path, whatever is ignored, as in Envoy.
		path, _ := cut(m.req.Path)
		return path != "" && e.route.Match.Template.Match(path)
	case isConnect:
		return isConnectRequest(m.req)
	}
	n := len(e.text)
	switch {
	case len(m.path) < n || m.path == "":
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

// isConnectRequest: extended CONNECT requests (RFC 8441) are upgrades here, of which one is for
// a tunnel too (RFC 9298).
func isConnectRequest(r *message.Request) bool {
	return r.Method == "CONNECT" || message.EqualFold(r.Upgrade, "connect-udp")
}

// rest evaluates everything but the path.
func (m *matcher) rest(c *Match) bool {
	if c.Share != nil && !c.Share.Holds(m.share) {
		return false
	}
	if c.GRPC && !IsGRPC(m.req) {
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
	for i := range c.Cookies {
		if !c.Cookies[i].match(m.req) {
			return false
		}
	}
	return c.TLS == nil || c.TLS.match(m.client)
}

// IsGRPC tells a gRPC request by its content type: application/grpc, alone or with
// a message format behind a plus sign, but not application/grpc-web. A request without a
// path is none: to a CONNECT, gRPC's 200 for whatever goes wrong would say that there is
// a tunnel.
func IsGRPC(r *message.Request) bool {
	const grpc = "application/grpc"
	if r.Path == "" {
		return false
	}
	v, ok := r.Fields.ByID(message.ContentType)
	return ok && strings.HasPrefix(v, grpc) && (len(v) == len(grpc) || v[len(grpc)] == '+')
}

// match: a certificate that was verified is one whose names are known.
func (t *TLSMatch) match(c *Client) bool {
	known := c != nil && c.Info != nil
	presented := known && c.Info.PeerCertHash != ""
	validated := presented && (c.Info.PeerID != "" || c.Info.Peer.Names() != nil)
	return (t.Presented == nil || *t.Presented == presented) && (t.Validated == nil || *t.Validated == validated)
}

func (c *CookieMatch) match(r *message.Request) bool {
	value, ok := Cookie(&r.Fields, c.Name)
	return (ok && c.Value.Match(value)) != c.Invert
}

// Cookie returns the value of the first cookie of a name, without the quotation
// marks that it may stand in (RFC 6265 4.1.1).
func Cookie(f *message.Fields, name string) (value string, ok bool) {
	for i := f.Find(message.Cookie, 0); i >= 0; i = f.Find(message.Cookie, i+1) {
		_, list, _ := f.At(i)
		for pair := range strings.SplitSeq(list, ";") {
			k, v, eq := strings.Cut(strings.TrimLeft(pair, " "), "=")
			if !eq || k != name {
				continue
			}
			if n := len(v); n >= 2 && v[0] == '"' && v[n-1] == '"' {
				v = v[1 : n-1]
			}
			return v, true
		}
	}
	return "", false
}

// Headers is a message whose headers are matched; *message.Request and
// *message.Response are. HeaderFrom goes through the values of a repeated field.
type Headers interface {
	HeaderFrom(name message.Name, from int) (value string, next int, ok bool)
}

// Match evaluates a header matcher on a message. A header that is missing never
// matches, inverted or not, unless presence is what is asked or the matcher
// takes a missing header as empty. A field that is there more than once matches
// when one of its values does; inverted, when none does. These are Envoy's rules,
// and authorization depends on them.
func (h *HeaderMatch) Match(m Headers) bool {
	name := message.NameOf(h.Name)
	value, next, ok := m.HeaderFrom(name, 0)
	if h.Present != nil || (h.Value == nil && h.Range == nil) {
		want := h.Present == nil || *h.Present
		return ((ok || h.MissingAsEmpty) == want) != h.Invert
	}
	if !ok && !h.MissingAsEmpty {
		return false
	}
	for !h.matches(value) {
		if value, next, ok = m.HeaderFrom(name, next); !ok {
			return h.Invert
		}
	}
	return !h.Invert
}

// matches judges one value.
func (h *HeaderMatch) matches(value string) bool {
	if h.Value != nil {
		return h.Value.Match(value)
	}
	n, err := strconv.ParseInt(value, 10, 64)
	return err == nil && h.Range[0] <= n && n < h.Range[1]
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
