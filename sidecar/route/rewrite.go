package route

import (
	"cmp"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// AppendPath appends the path and query that the upstream is to get, and tells
// whether anything is rewritten; without, they are as received. The route must
// have matched the path.
func (s *Selected) AppendPath(dst []byte, req *message.Request, facts Facts, scratch *[]byte) ([]byte, bool) {
	start := len(dst)
	w := s.Route.Forward.Rewrite
	if w == nil || req.Path == "" { // CONNECT has no path (RFC 9110 9.3.6)
		return append(dst, req.Path...), false
	}
	path, _ := cut(req.Path)
	switch {
	case w.Prefix != "":
		if rest, ok := s.Route.behindMatch(path); ok {
			dst = append(append(dst, w.Prefix...), rest...)
		}
	case w.Regex != nil:
		dst = w.Regex.Append(dst, path)
	case w.Template != nil:
		dst = w.Template.appendPath(dst, path)
	case w.Path != "":
		dst = append(dst, s.entry.forward.path.In(facts, scratch)...)
	}
	if len(dst) == start {
		// A rewrite that leaves nothing is none, as in Envoy.
		return append(dst, req.Path...), false
	}
	dst = append(dst, req.Path[len(path):]...)
	if dst[start] != '/' {
		// A request target begins with a slash (RFC 9112 3.2.1).
		dst = append(dst, 0)
		copy(dst[start+1:], dst[start:])
		dst[start] = '/'
	}
	return dst, true
}

// behindMatch is what of a path follows the part that the route's match stands for. It
// is false where the path does not begin with that part: it matched without its
// parameters, and has them in between.
func (r *Route) behindMatch(path string) (rest string, ok bool) {
	var text string
	switch m := &r.Match; {
	case m.Prefix != nil:
		text = *m.Prefix
	case m.Path != nil:
		text = *m.Path
	case m.PathSeparatedPrefix != nil:
		text = *m.PathSeparatedPrefix
	default:
		return "", true
	}
	if !hasPrefix(path, text, r.Match.CaseInsensitive) {
		return "", false
	}
	return path[len(text):], true
}

// Rewrites tells whether the route may change a request's authority or path.
func (s *Selected) Rewrites() bool { return s.Route.Forward.Rewrite != nil }

// AppendHost appends the authority that the upstream is to get; false leaves it as
// it is. It comes before the path is rewritten, which it may depend on.
func (s *Selected) AppendHost(dst []byte, req *message.Request, facts Facts, scratch *[]byte) ([]byte, bool) {
	start := len(dst)
	switch w := s.Route.Forward.Rewrite; {
	case w == nil:
	case w.Host != "":
		dst = append(dst, w.Host...)
	case w.HostFormat != "":
		dst = append(dst, s.entry.forward.host.In(facts, scratch)...)
	case w.HostHeader != "":
		v, _ := req.HeaderValue(w.HostHeader, 0)
		dst = append(dst, v...)
	case w.HostRegex != nil:
		path, _ := cut(req.Path)
		dst = w.HostRegex.Append(dst, path)
	}
	return dst, len(dst) > start
}

// LastForwardedHost tells whether host is the last element of x-forwarded-host:
// then it is not appended again.
func LastForwardedHost(f *message.Fields, host string) bool {
	v, ok := f.Joined("x-forwarded-host")
	if i := strings.LastIndexByte(v, ','); i >= 0 {
		v = v[i+1:]
	}
	return ok && strings.TrimSpace(v) == host
}

// Location is where a redirect leads (a rare thing: it allocates). forwardedProto
// is what x-forwarded-proto says: a default port goes when the scheme changes. Where a
// part of the path was rewritten, rewritten is the path that came of it, with the
// request's query; else it is empty. Path is that of RedirectPath.
func (r *Route) Location(req *message.Request, forwardedProto, path string) (location, rewritten string) {
	d := r.Redirect
	scheme, host, port := req.Scheme, d.Host, ""
	if d.Scheme != "" {
		scheme = d.Scheme
	}
	if d.Port != 0 {
		port = ":" + strconv.Itoa(d.Port)
	}
	if host == "" {
		host = redirectHost(req.Authority, port != "", scheme != forwardedProto, forwardedProto)
	}
	path, rewritten = r.redirectPath(req.Path, path)
	return scheme + "://" + host + port + path, rewritten
}

func redirectHost(authority string, newPort, newScheme bool, proto string) string {
	at := portStart(authority)
	if at < 0 {
		return authority
	}
	old := authority[at:]
	if newPort || newScheme && (strings.EqualFold(proto, "https") && old == ":443" || strings.EqualFold(proto, "http") && old == ":80") {
		return authority[:at]
	}
	return authority
}

// RedirectPath is what a redirect's operators make of its path, empty for nothing.
func (s *Selected) RedirectPath(facts Facts, scratch *[]byte) string {
	if s.Route.Redirect.PathRewrite == "" {
		return ""
	}
	return s.entry.forward.path.In(facts, scratch)
}

// DirectBody is how the body of a direct response is made, nil where it is as it is.
func (s *Selected) DirectBody() *telemetry.Body {
	if s.entry.forward == nil {
		return nil
	}
	return s.entry.forward.body
}

func (r *Route) redirectPath(target, made string) (out, rewritten string) {
	d, changed := r.Redirect, false
	whole := cmp.Or(d.Path, made)
	path, _ := cut(target)
	rest := target[len(path):]
	out, ownQuery := path, strings.Contains(whole, "?")
	switch {
	case whole != "":
		out = whole
		if ownQuery {
			rest = ""
		}
	case d.PrefixRewrite != "":
		if behind, ok := r.behindMatch(path); ok {
			out, changed = d.PrefixRewrite+behind, true
		}
	case d.RegexRewrite != nil:
		if s := d.RegexRewrite.Append(nil, path); len(s) > 0 {
			out, changed = string(s), true
		}
	}
	if out == "" || out[0] != '/' {
		out = "/" + out
	}
	out += rest
	if changed {
		rewritten = out
	}
	if d.StripQuery && !ownQuery {
		out, _, _ = strings.Cut(out, "?")
	}
	return out, rewritten
}

// portStart is where the port of an authority begins, with its colon, or -1.
func portStart(authority string) int {
	at := strings.LastIndexByte(authority, ':')
	if at < 0 || strings.LastIndexByte(authority, ']') > at {
		return -1
	}
	return at
}

// AddrPort is the address and port of a TCP or UDP address, invalid for others.
func AddrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
