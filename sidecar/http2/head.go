package http2

import (
	"sync"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// headKind is what a header block is.
type headKind uint8

const (
	requestHead headKind = iota
	responseHead
	trailerHead
	discardedHead // decoded for the table's sake only
)

// How a field's name and value were judged; kept in the dynamic table, so that a
// field is judged once.
const (
	nameJudged = 1 << iota
	nameBad
	nameUnderscore
	valueBad

	judged = nameJudged
)

// The pseudo-headers (RFC 9113 8.3, RFC 8441 4).
const (
	pseudoMethod = iota
	pseudoScheme
	pseudoAuthority
	pseudoPath
	pseudoProtocol
	pseudoStatus
	numPseudo
)

type span struct{ off, n int }

// head gathers a header block's fields: it judges them and notes them in a
// message.Fields, whose arena it fills at the end. The first fault is kept; the block
// is decoded to its end whatever happens, because it changes the decoder's table.
type head struct {
	cfg  *Config
	kind headKind
	// underscores is what happens to names that have one: a client's, in its heads and
	// trailers.
	underscores http1.Underscores
	fields      *message.Fields
	arena       []byte

	size, count int
	literals    int    // bytes of those that were read, kept or not
	over        bool   // beyond the limits: what follows is not kept
	tooMany     bool   // of them that of the number of fields
	malformed   string // the first fault
	unwanted    bool   // that is against our limits or rules, not the protocol's
	regular     bool   // a field that is not a pseudo-header was seen
	seen        uint8  // pseudo-headers, one bit each
	pseudo      [numPseudo]span
	length      int64 // Content-Length, -1 for none
	cookies     []span
	host        span
	hosts       int
	expect      bool
	badExpect   bool
	trailers    bool // te: trailers
}

// headPool: no connection keeps a head between blocks.
var headPool = sync.Pool{New: func() any { return new(head) }}

// keepArena is how large an arena stays between blocks: what a head beyond the limits needs, which
// who floods sends by the thousand. There are as many as blocks are read at a time.
const keepArena = 128 << 10

func (h *head) begin(kind headKind, f *message.Fields) {
	arena, cookies := h.arena[:0], h.cookies[:0]
	if cap(arena) > keepArena {
		arena = nil
	}
	cfg, underscores := h.cfg, h.underscores
	*h = head{} // in its place: with members it would be made on the stack first
	h.cfg, h.underscores, h.kind, h.fields, h.arena, h.cookies, h.length = cfg, underscores, kind, f, arena, cookies, -1
}

func (h *head) fault(reason string) {
	if h.malformed == "" || h.unwanted {
		h.malformed, h.unwanted = reason, false
	}
}

// refuse is fault for what is well-formed, and not taken.
func (h *head) refuse(reason string) {
	if h.malformed == "" {
		h.malformed, h.unwanted = reason, true
	}
}

// room counts a field, pseudo-headers too, against the limits and tells whether it is to be
// kept.
func (h *head) room(nameLen, valLen int) bool {
	if h.over || h.kind == discardedHead {
		return false
	}
	h.size += nameLen + valLen
	h.count++
	limit := h.cfg.Limits.HeadBytes
	if h.kind == trailerHead {
		limit = h.cfg.Limits.TrailerBytes
	}
	h.tooMany = h.count > h.cfg.Limits.Fields
	h.over = h.tooMany || h.size > limit
	return !h.over
}

// judgeName checks a field name: a token without upper-case letters, or a
// pseudo-header's (RFC 9113 8.2.1).
func (h *head) judgeName(name []byte) (message.ID, uint8) {
	flags := uint8(nameJudged)
	if len(name) == 0 {
		return message.Other, flags | nameBad
	}
	rest := name
	if name[0] == ':' {
		rest = name[1:]
	}
	for _, c := range rest {
		if nameClass[c] != nameOK {
			if nameClass[c] == nameNot {
				return message.Other, flags | nameBad
			}
			flags |= nameUnderscore
		}
	}
	if name[0] == ':' {
		return message.Fake, flags &^ nameUnderscore
	}
	return message.IDOf(message.View(name)), flags
}

// judgeValue checks a field value: no control characters, and no whitespace around it
// (RFC 9113 8.2.1).
func (h *head) judgeValue(v []byte) uint8 {
	n := len(v)
	if n == 0 {
		return 0
	}
	if v[0] == ' ' || v[0] == '\t' || v[n-1] == ' ' || v[n-1] == '\t' || !http1.ValidValue(v) {
		return valueBad
	}
	if h.cfg.RejectObsText {
		for _, c := range v {
			if c >= 0x80 {
				return valueBad
			}
		}
	}
	return 0
}

const (
	nameNot uint8 = iota
	nameOK
	nameWithUnderscore
)

// nameClass classes the bytes of a field name: tchar without upper-case letters.
var nameClass = func() (t [256]uint8) {
	for c := range 256 {
		if b := string([]byte{byte(c)}); http1.ValidMethod(b) && (c < 'A' || c > 'Z') {
			t[c] = nameOK
		}
	}
	t['_'] = nameWithUnderscore
	return t
}()

// field takes a field that lies in the arena at off.
func (h *head) field(id message.ID, off, nameLen, valLen int, flags uint8) {
	switch {
	case flags&nameBad != 0:
		h.fault("bad_field_name")
		return
	case flags&valueBad != 0:
		h.fault("bad_field_value")
		return
	case id == message.Fake:
		h.pseudoField(off, nameLen, valLen)
		return
	}
	h.regular = true
	v := span{off + nameLen, valLen}
	if flags&nameUnderscore != 0 && h.underscores != http1.AllowUnderscores {
		if h.underscores == http1.RejectUnderscores {
			h.refuse("underscore_in_field_name")
		}
		return
	}
	if h.kind == trailerHead {
		keep, refuse := http1.KeepTrailer(id)
		switch {
		case connectionSpecific.has(id), id == message.TE && !message.EqualFold(message.View(h.bytes(v)), "trailers"):
			h.fault("forbidden_trailer")
		case id == message.ContentLength:
			h.trailingLength(v)
		case refuse: // RFC 9110 6.5.1 forbids it, which malforms no message of HTTP/2
			h.refuse("forbidden_trailer")
		}
		if keep {
			h.fields.Note(id, off, nameLen, v.off, v.n, false)
		}
		return
	}
	if id != message.Other && !h.special(id, v) {
		return
	}
	h.fields.Note(id, off, nameLen, v.off, v.n, false)
}

// connectionSpecific fields malform a message (RFC 9113 8.2.2).
var connectionSpecific = setOf(message.Connection, message.KeepAlive, message.ProxyConnection, message.TransferEncoding, message.Upgrade)

// trailingLength takes Content-Length in trailers, which is not to be there; trailerBlock sees
// whether it is not even so.
func (h *head) trailingLength(v span) {
	n, ok := http1.ParseLength(h.bytes(v))
	if !ok {
		h.fault("forbidden_trailer")
	}
	h.length = n
	h.refuse("forbidden_trailer")
}

// special looks at the fields that frame, connect or come in pieces; keep is false for
// those that end here.
func (h *head) special(id message.ID, v span) (keep bool) {
	switch id {
	case message.Connection, message.KeepAlive, message.ProxyConnection, message.TransferEncoding, message.Upgrade:
		h.fault("connection_specific_field") // RFC 9113 8.2.2
		return false
	case message.TE:
		switch said := h.bytes(v); {
		case !message.EqualFold(message.View(said), "trailers"): // RFC 9110 10.1.4, RFC 5234 2.3
			h.fault("bad_te")
		case h.kind != requestHead:
			h.refuse("bad_te") // some servers send back what they were sent
		case string(said) == "trailers": // in other letters it is dropped, as in Envoy
			h.trailers = true
		}
		return false
	case message.HTTP2Settings:
		return false
	case message.Expect:
		if h.expect || !message.EqualFold(message.View(h.bytes(v)), "100-continue") { // RFC 9110 10.1.1
			h.badExpect = true
		}
		h.expect = true
		return false
	case message.ContentLength:
		n, ok := http1.ParseLength(h.bytes(v))
		switch {
		case !ok:
			h.fault("bad_content_length")
		case h.length >= 0:
			h.fault("repeated_content_length")
		}
		h.length = n
	case message.Host:
		h.host = v
		h.hosts++
	case message.Cookie:
		h.cookies = append(h.cookies, v)
		return false
	}
	return true
}

func (h *head) bytes(s span) []byte { return h.arena[s.off : s.off+s.n] }

func (h *head) pseudoField(off, nameLen, valLen int) {
	p := -1
	switch string(h.arena[off : off+nameLen]) {
	case ":method":
		p = pseudoMethod
	case ":scheme":
		p = pseudoScheme
	case ":authority":
		p = pseudoAuthority
	case ":path":
		p = pseudoPath
	case ":protocol":
		p = pseudoProtocol
	case ":status":
		p = pseudoStatus
	}
	switch {
	case p < 0 || h.kind == trailerHead || (p == pseudoStatus) != (h.kind == responseHead):
		h.fault("unknown_pseudo_header")
	case h.regular:
		h.fault("late_pseudo_header")
	case h.seen&(1<<p) != 0:
		h.fault("repeated_pseudo_header")
	}
	if p >= 0 {
		h.seen |= 1 << p
		h.pseudo[p] = span{off + nameLen, valLen}
	}
}

func (h *head) has(p int) bool { return h.seen&(1<<p) != 0 }

// load moves what was gathered into the fields.
func (h *head) load() {
	if len(h.cookies) > 0 {
		// Crumbs are joined before anything else sees them (RFC 9113 8.2.3).
		const name = "cookie"
		off := len(h.arena)
		h.arena = append(h.arena, name...)
		start := off + len(name)
		for _, c := range h.cookies {
			if len(h.arena) > start { // as in Envoy: the first ones may be empty
				h.arena = append(h.arena, "; "...)
			}
			h.arena = append(h.arena, h.bytes(c)...)
		}
		if len(h.arena) > start { // as in Envoy: else there is none
			h.fields.Note(message.Cookie, off, len(name), start, len(h.arena)-start, false)
		}
	}
	h.fields.Load(h.arena)
	switch h.kind {
	case requestHead:
		h.fields.JoinSingles(message.RequestSingles)
	case responseHead:
		h.fields.JoinSingles(message.ResponseSingles)
	}
}

func (h *head) str(p int) string {
	s := h.pseudo[p]
	return h.fields.Span(s.off, s.n)
}

// request judges the head as a request's and fills it in. refusal is the answer to a
// request that is refused for something else than being malformed; nil otherwise.
func (h *head) request(req *message.Request, end, tls bool) (refusal *http1.Error) {
	switch {
	case h.tooMany:
		return http1.ErrTooManyFields
	case h.over:
		return http1.ErrHeadTooLarge
	case h.malformed != "":
		return nil
	}
	h.load()
	req.Version = message.HTTP2
	req.Scheme = "http" // the transport's, unless the client says another
	if tls {
		req.Scheme = "https"
	}
	req.AcceptTrailers = h.trailers
	if refusal := h.target(req); refusal != nil || h.malformed != "" {
		return refusal
	}
	if h.badExpect {
		return http1.ErrExpect
	}
	req.ExpectContinue = h.expect && !end
	switch {
	case end && h.length > 0:
		h.fault("content_length_mismatch") // RFC 9113 8.1.1
	case end:
		req.ContentLength = 0
	case req.Method == "CONNECT" || req.Upgrade != "":
		if h.length >= 0 {
			h.refuse("content_length_with_connect") // RFC 9110 9.3.6
		}
		req.ContentLength = message.UnknownLength
	default:
		req.ContentLength = h.length
	}
	return nil
}

// target settles method, path and authority (RFC 9113 8.3.1, 8.5; RFC 8441 4).
func (h *head) target(req *message.Request) (refusal *http1.Error) {
	if !h.has(pseudoMethod) {
		h.fault("no_method")
		return nil
	}
	if req.Method = h.str(pseudoMethod); !http1.ValidMethod(req.Method) {
		h.fault("bad_method")
		return nil
	}
	h.authority(req)
	connect := req.Method == "CONNECT"
	switch {
	case h.has(pseudoProtocol):
		if !h.cfg.AllowConnect || !connect {
			h.fault("protocol_without_connect")
			return nil
		}
		if req.Upgrade = h.str(pseudoProtocol); !http1.ValidMethod(req.Upgrade) { // a token too
			h.fault("bad_protocol")
			return nil
		}
		// The model's form of an upgrade is HTTP/1's.
		req.Method = "GET"
	case connect:
		if h.has(pseudoScheme) || h.has(pseudoPath) {
			h.fault("connect_with_path")
		} else if !http1.HasPort(req.Authority) {
			h.fault("connect_without_port")
		}
		return nil
	}
	return h.schemeAndPath(req)
}

func (h *head) schemeAndPath(req *message.Request) (refusal *http1.Error) {
	if !h.has(pseudoScheme) || !h.has(pseudoPath) {
		h.fault("missing_pseudo_header")
		return nil
	}
	switch scheme := h.str(pseudoScheme); {
	case scheme != "http" && scheme != "https":
		h.fault("bad_scheme")
		return nil
	case h.cfg.StrictScheme && scheme != req.Scheme:
		h.fault("scheme_mismatch")
		return nil
	case scheme == "https": // the client's word, as in Envoy; a string of its own, for copies
		req.Scheme = "https"
	default:
		req.Scheme = "http"
	}
	req.Path = h.str(pseudoPath)
	valid, fragment := http1.ValidPath(req.Path)
	switch {
	case len(req.Path) > h.cfg.Limits.LineBytes:
		return http1.ErrURITooLong
	case fragment:
		return http1.ErrTarget // of this request alone, as in Envoy
	case !valid,
		req.Path[0] != '/' && (req.Path != "*" || req.Method != "OPTIONS"):
		h.fault("bad_path")
	}
	return nil
}

// authority takes :authority, or Host where there is none, and refuses two that
// differ.
func (h *head) authority(req *message.Request) {
	if h.hosts > 1 {
		h.fault("repeated_host")
		return
	}
	host := h.fields.Span(h.host.off, h.host.n)
	switch {
	case h.has(pseudoAuthority):
		req.Authority = h.str(pseudoAuthority)
		if h.hosts == 1 && !http1.SameHost(host, req.Authority) {
			h.fault("host_mismatch")
			return
		}
	case h.hosts == 1 && req.Method != "CONNECT":
		req.Authority = host
	default:
		h.fault("no_authority")
		return
	}
	if !http1.ValidAuthority(req.Authority) {
		h.fault("bad_authority")
	}
}

// response judges the head as a response's and fills it in. method is the request's.
func (h *head) response(r *message.Response, method string, upgrade, end bool) {
	switch {
	case h.tooMany:
		h.refuse(http1.ErrTooManyFields.Reason)
	case h.over:
		h.refuse(http1.ErrHeadTooLarge.Reason)
	}
	if h.malformed != "" {
		return
	}
	if !h.has(pseudoStatus) {
		h.fault("no_status")
		return
	}
	v := h.bytes(h.pseudo[pseudoStatus])
	if len(v) != 3 || v[0] < '1' || v[0] > '5' || v[1] < '0' || v[1] > '9' || v[2] < '0' || v[2] > '9' {
		h.fault("bad_status")
		return
	}
	r.Version = message.HTTP2
	r.Status = int(v[0]-'0')*100 + int(v[1]-'0')*10 + int(v[2]-'0')
	r.ContentLength = h.length
	connect := (method == "CONNECT" || upgrade) && r.Status >= 200 && r.Status < 300
	if connect {
		// What follows is a tunnel: a length means nothing, and is to be ignored (RFC 9110
		// 9.3.6).
		h.length, r.ContentLength = -1, message.UnknownLength
	}
	switch {
	case r.Status == 101:
		h.fault("status_101") // RFC 9113 8.6
	case r.Status < 200 && end:
		h.fault("interim_response_ends_stream")
	case r.Status < 200 && h.length > 0, r.Status == 204 && h.length > 0:
		h.fault("body_not_allowed")
	case end && h.length > 0 && method != "HEAD" && r.Status != 304:
		h.fault("content_length_mismatch")
	case end && h.length < 0 && method != "HEAD" && r.Status != 304 && r.Status != 204 && !connect:
		r.ContentLength = 0
	}
	h.load()
}

// trailer judges the head as trailers.
func (h *head) trailer() {
	switch {
	case h.tooMany:
		h.refuse(http1.ErrTooManyFields.Reason)
	case h.over:
		h.refuse(http1.ErrTrailersTooLarge.Reason)
	}
	if h.malformed == "" {
		h.load()
	}
}
