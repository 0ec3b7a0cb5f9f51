package authz

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

type kind uint8

const (
	kindAny kind = iota
	kindAnd
	kindOr
	kindNot
	kindHeader
	kindURLPath
	kindDestination
	kindPort
	kindSNI
	kindAuthenticated
	kindPeerName
	kindDirect
	kindConnection
	kindRemote
	kindTemplate
	kindLine
	kindURISAN
	kindServerName
	kindMetadata
)

// matcher is a compiled permission or principal. A tree of values with a switch
// costs neither an allocation nor an indirect call per node.
type matcher struct {
	kind     kind
	sub      []matcher
	str      *stringMatcher
	header   *headerMatcher
	tmpl     *route.Template
	spelled  *templateSpellings // of tmpl
	prefix   netip.Prefix
	among    []netip.Prefix // sorted, in place of prefix
	lo, hi   uint32         // port in [lo, hi)
	metadata *metadataMatcher
}

func anyOf(ms []matcher, in *input) bool {
	for i := range ms {
		if ms[i].match(in) {
			return true
		}
	}
	return false
}

func (m *matcher) match(in *input) bool {
	switch m.kind {
	case kindAny:
		return true
	case kindAnd:
		for i := range m.sub {
			if !m.sub[i].match(in) {
				return false
			}
		}
		return true
	case kindOr:
		return anyOf(m.sub, in)
	case kindNot:
		return !m.sub[0].match(in)
	case kindHeader:
		return m.header.match(in)
	case kindURLPath:
		whole, path, ok := in.path()
		return ok && m.str.matchPath(whole, path, in)
	case kindTemplate:
		whole, path, ok := in.path()
		return ok && m.matchTemplate(whole, path, in)
	case kindDestination:
		return m.prefix.Contains(Bare(in.peer.Destination.Addr()))
	case kindPort:
		port := uint32(in.peer.Destination.Port())
		return port >= m.lo && port < m.hi
	case kindSNI:
		return m.str.match(in.peer.Info.SNI)
	case kindAuthenticated:
		return in.peer.Info.PeerID != "" || in.peer.Info.Peer.Names() != nil
	case kindPeerName:
		return m.matchPeer(in.peer.Info)
	case kindDirect:
		return m.contains(Bare(in.peer.Direct))
	case kindConnection:
		return m.prefix.Contains(addrPort(in.peer.Info.Remote).Addr())
	case kindRemote:
		return m.contains(Bare(in.peer.Remote))
	case kindLine:
		return m.matchLine(in)
	case kindURISAN:
		return m.matchURISAN(in.peer.Info)
	case kindServerName:
		return in.peer.Info.SNI != "" && m.str.match(in.peer.Info.SNI)
	case kindMetadata:
		return m.metadata.match(in)
	}
	return false
}

// matchPeer matches the name of a peer. The mesh knows one by its only SPIFFE ID, and by
// no name else that its certificate may have; a foreign context by any of them.
func (m *matcher) matchPeer(info *stream.Info) bool {
	names := info.Peer.Names()
	if names == nil {
		return info.PeerID != "" && m.str.match(info.PeerID)
	}
	for _, name := range names {
		if m.str.match(name) {
			return true
		}
	}
	return false
}

// path is the path that rules about paths are asked of, and of which text it is the beginning. Where
// the route was found by a path without parameters it has none either, as in Envoy: a rule about a
// path is about the requests that the route takes for that path.
func (in *input) path() (whole, path string, ok bool) {
	if whole, ok = in.req.Header(":path"); !ok {
		return "", "", false
	}
	path = trimQuery(whole)
	if strings.IndexByte(path, ';') < 0 || in.metadata == nil || !in.metadata.IgnoresParameters() {
		return whole, path, true
	}
	if in.parameters != path {
		in.parameters, in.without = path, route.WithoutParameters(path)
	}
	return in.without, in.without, true
}

// trimQuery cuts a path at its query or fragment.
func trimQuery(path string) string {
	for _, c := range [...]byte{'?', '#'} {
		if i := strings.IndexByte(path, c); i >= 0 {
			path = path[:i]
		}
	}
	return path
}

// headerMatcher is Envoy's HeaderMatcher. A header that is absent matches only
// what asks for its absence (present_match, inverted one way or the other): every
// other matcher, inverted or not, does not match it, unless it is to be taken for
// an empty one. A field that is there more than once matches when one of its values
// does; inverted, when none does.
type headerMatcher struct {
	name           message.Name
	str            *stringMatcher
	lo, hi         int64
	isRange        bool
	present        bool // wanted presence, when neither str nor isRange is set
	invert         bool
	missingAsEmpty bool
	path           bool // the name is :path
}

func (h *headerMatcher) match(in *input) bool {
	r := in.req
	value, next, ok := r.HeaderFrom(h.name, 0)
	presence := h.str == nil && !h.isRange
	switch {
	case !ok && !h.missingAsEmpty:
		return presence && h.present == h.invert
	case presence:
		return h.present != h.invert
	}
	for !h.matches(value, in) {
		if value, next, ok = r.HeaderFrom(h.name, next); !ok {
			return h.invert
		}
	}
	return !h.invert
}

// matches judges one value.
func (h *headerMatcher) matches(value string, in *input) bool {
	switch {
	case h.str != nil && h.path:
		return h.str.matchPath(value, value, in)
	case h.str != nil:
		return h.str.match(value)
	}
	n, err := strconv.ParseInt(value, 10, 64)
	return err == nil && n >= h.lo && n < h.hi
}
