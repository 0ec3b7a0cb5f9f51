package http1

import (
	"bytes"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// RequestParser reads request heads.
type RequestParser struct {
	head headParser
	RequestParsing

	method, target, targetEnd int // offsets
	http10                    bool
	form                      targetForm
	authority, authorityEnd   int // of absolute-form and authority-form
	path                      int // where an absolute-form's path starts
	https                     bool
}

// RequestParsing are options of Envoy's Http1ProtocolOptions.
type RequestParsing struct {
	// AcceptHTTP10 allows HTTP/1.0 requests, DefaultHost is the Host of those that
	// have none.
	AcceptHTTP10 bool
	DefaultHost  string
	// RegisteredMethods refuses methods that are not registered.
	RegisteredMethods bool
	// IgnoreUpgrade, if set, tells which values of Upgrade are taken for absent.
	IgnoreUpgrade func(string) bool
}

type targetForm uint8

const (
	originForm targetForm = iota
	absoluteForm
	authorityForm
	asteriskForm
)

// Configure sets limits; it is called once, before the first message.
func (p *RequestParser) Configure(l Limits, u Underscores) {
	p.head.limits, p.head.underscores = l.WithDefaults(), u
}

// Reset prepares for the next message.
func (p *RequestParser) Reset() {
	p.head.reset()
	p.http10, p.https = false, false
}

// Started tells whether a byte of the message has been seen.
func (p *RequestParser) Started() bool { return p.head.scan > 0 }

// Parse reads the head at the start of buf, which is the same message with more
// bytes at each call. It returns the head's length and how its body is framed, or
// 0 when more is needed.
func (p *RequestParser) Parse(buf []byte, req *message.Request) (n int, body Framing, err error) {
	h := &p.head
	for !h.started {
		line, off, ok, err := h.next(buf, h.limits.LineBytes+64, ErrURITooLong)
		if !ok {
			// TLS on a plaintext port is refused at once: its bytes may hold no line end.
			if err == nil && len(buf) > h.line && buf[h.line] != '\r' {
				err = firstByte(buf[h.line])
			}
			return 0, NoBody, err
		}
		if len(line) == 0 {
			// One empty line may precede a request (RFC 9112 2.2).
			if h.skipped {
				return 0, NoBody, ErrRequestLine
			}
			h.skipped = true
			continue
		}
		if err := p.requestLine(line, off); err != nil {
			return 0, NoBody, bareCR(line, err)
		}
		h.started = true
	}
	done, err := h.fields(buf, &req.Fields)
	if !done {
		return 0, NoBody, err
	}
	body, err = p.finish(buf, req)
	if err != nil {
		return 0, NoBody, err
	}
	return h.line, body, nil
}

// firstByte judges a request line by its beginning.
func firstByte(b byte) error {
	switch {
	case class[b]&isToken != 0:
		return nil
	case b == ' ':
		return ErrRequestLine
	}
	return ErrMethod
}

func (p *RequestParser) requestLine(line []byte, off int) error {
	if err := firstByte(line[0]); err != nil {
		return err
	}
	sp := bytes.IndexByte(line, ' ')
	if sp <= 0 {
		return ErrRequestLine
	}
	if !all(line[:sp], isToken) {
		return ErrMethod
	}
	if p.RegisteredMethods && !registered[string(line[:sp])] {
		return ErrMethodUnknown
	}
	rest := line[sp+1:]
	end := bytes.IndexByte(rest, ' ')
	if end < 0 {
		return ErrRequestLine // HTTP/0.9, or a target with no version
	}
	if end == 0 {
		return ErrRequestLine
	}
	if err := p.version(rest[end+1:]); err != nil {
		return err
	}
	if end > p.head.limits.LineBytes {
		return ErrURITooLong
	}
	target := rest[:end]
	if !all(target, isTarget) {
		return ErrTarget
	}
	p.method = off + sp // end of the method, which starts at off
	p.target, p.targetEnd = off+sp+1, off+sp+1+end
	return p.targetForm(line[:sp], target)
}

func (p *RequestParser) version(v []byte) error {
	const http = "HTTP/"
	if len(v) != 8 || string(v[:5]) != http || class[v[5]]&class[v[7]]&isDigit == 0 || v[6] != '.' {
		return ErrVersion
	}
	switch {
	case v[5] == '1' && v[7] == '1':
		return nil
	case v[5] == '1' && v[7] == '0':
		p.http10 = true
		return nil
	}
	return ErrUnknownVersion
}

// targetForm tells which of the four forms the target has (RFC 9112 3.2).
func (p *RequestParser) targetForm(method, target []byte) error {
	p.form = originForm
	switch {
	case string(method) == "CONNECT":
		p.form = authorityForm
		p.authority, p.authorityEnd = p.target, p.targetEnd
		host, port := splitHost(target)
		if !validHost(target) || len(port) == 0 || len(host) == 0 {
			return ErrTarget
		}
		return nil
	case target[0] == '/':
		return nil
	case string(target) == "*":
		if string(method) != "OPTIONS" {
			return ErrTarget
		}
		p.form = asteriskForm
		return nil
	}
	skip := 0
	switch {
	case len(target) > 7 && equalFold(target[:7], "http://"):
		skip = 7
	case len(target) > 8 && equalFold(target[:8], "https://"):
		skip, p.https = 8, true
	default:
		return ErrTarget
	}
	end := skip
	for end < len(target) && target[end] != '/' && target[end] != '?' {
		end++
	}
	if !validHost(target[skip:end]) {
		return ErrTarget
	}
	p.form = absoluteForm
	p.authority, p.authorityEnd, p.path = p.target+skip, p.target+end, p.target+end
	return nil
}

// finish judges the head as a whole and fills in the request.
func (p *RequestParser) finish(buf []byte, req *message.Request) (Framing, error) {
	h := &p.head
	if p.http10 && !p.AcceptHTTP10 {
		return NoBody, ErrHTTP10
	}
	f := &req.Fields
	f.Load(buf[:h.line])
	f.JoinSingles(message.RequestSingles)
	methodStart := 0
	if h.skipped {
		methodStart = 2
	}
	req.Method = f.Span(methodStart, p.method-methodStart)
	if p.http10 {
		req.Version = message.HTTP10
	}
	if err := p.host(f, req); err != nil {
		return NoBody, err
	}
	body, err := p.framing(buf, req)
	if err != nil {
		return NoBody, err
	}
	return body, p.controls(buf, req, body)
}

// host settles the authority: exactly one Host, which an absolute target must not
// contradict (RFC 9112 3.2, 3.3).
func (p *RequestParser) host(f *message.Fields, req *message.Request) error {
	if p.head.hosts == 0 && p.http10 && p.DefaultHost != "" && p.form == originForm {
		req.Authority = p.DefaultHost
		req.Path = f.Span(p.target, p.targetEnd-p.target)
		return nil
	}
	if p.head.hosts == 0 {
		return ErrHostMissing
	}
	if p.head.hosts > 1 {
		return ErrHostRepeated
	}
	host, _ := f.ByID(message.Host)
	if !validHost(host) {
		return ErrHost
	}
	req.Authority = host
	switch p.form {
	case originForm:
		req.Path = f.Span(p.target, p.targetEnd-p.target)
	case asteriskForm:
		req.Path = "*"
	case absoluteForm, authorityForm:
		named := f.Span(p.authority, p.authorityEnd-p.authority)
		if !sameHost(named, host, p.defaultPort(named)) {
			return ErrHostMismatch
		}
		req.Authority = named
		if p.form == authorityForm {
			return nil
		}
		req.Scheme = "http"
		if p.https {
			req.Scheme = "https"
		}
		path := f.Span(p.path, p.targetEnd-p.path)
		switch {
		case path == "" && req.Method == "OPTIONS":
			path = "*"
		case path == "":
			path = "/"
		case path[0] == '?':
			path = f.Store2("/", path)
		}
		req.Path = path
	}
	return nil
}

// defaultPort is what may be missing on one side: the scheme's port, or for
// CONNECT the one that the target always has.
func (p *RequestParser) defaultPort(named string) string {
	if p.form == authorityForm {
		host, _ := splitHost(named)
		return named[len(host):]
	}
	if p.https {
		return ":443"
	}
	return ":80"
}

// framing decides where the body ends (RFC 9112 6.3).
func (p *RequestParser) framing(buf []byte, req *message.Request) (Framing, error) {
	h := &p.head
	if h.codings > 0 {
		if err := h.coding(buf, p.http10); err != nil {
			return NoBody, err
		}
		if p.form == authorityForm {
			return NoBody, ErrBodyForbidden
		}
		req.ContentLength = message.UnknownLength
		return Chunked, nil
	}
	req.ContentLength = h.length
	if h.length == 0 {
		return NoBody, nil
	}
	if p.form == authorityForm {
		return NoBody, ErrBodyForbidden
	}
	return Length, nil
}

// maxOptions is how many options of Connection a request may have, which is Envoy's rule.
const maxOptions = 9

// controls reads Connection, Expect, TE and Upgrade, then removes them.
func (p *RequestParser) controls(buf []byte, req *message.Request, body Framing) error {
	h, f := &p.head, &req.Fields
	if h.expects > 0 {
		f.DelID(message.Expect)
	}
	if h.expects > 0 && !p.http10 {
		// Anything that might be an Expect to one party and not to another would
		// make them disagree on whether a body follows.
		if h.expects > 1 || !equalFold(buf[h.expectOff:h.expectEnd], "100-continue") {
			return ErrExpect
		}
		req.ExpectContinue = body != NoBody
	}
	if !f.HasAny(hopByHopSet) {
		req.Close = p.http10
		return nil
	}
	if v, ok := f.Joined("te"); ok {
		req.AcceptTrailers = hasToken(v, "trailers")
	}
	upgrade, hasUpgrade := f.Joined("upgrade")
	connection := ""
	if hasUpgrade {
		connection, _ = f.Joined("connection")
	}
	c, err := strip(f, &h.limits)
	if err != nil {
		return err
	}
	if c.forwarded || c.named > maxOptions {
		// Who has such a field taken off hides a client, or means to.
		return ErrNominated
	}
	if c.host {
		return ErrHostMissing // it is for this hop alone, and the next has none
	}
	req.Close = c.close || p.http10 && !c.keepAlive
	// An Upgrade that Connection does not name is hop-by-hop noise, and h2c is
	// never offered onward: it would leave the exchange out of our sight.
	ignored := hasUpgrade && p.IgnoreUpgrade != nil && p.IgnoreUpgrade(upgrade)
	if hasUpgrade && c.upgrade && !ignored && !equalFold(upgrade, "h2c") {
		if p.http10 {
			// It is to be ignored (RFC 9110 7.8), but a client that knows no better may go
			// on in another protocol: what follows must not be read as a request.
			req.Close = true
			return nil
		}
		if req.Method == "CONNECT" {
			// Either is a tunnel, by rules of its own: who asks for both would choose between them.
			return ErrUpgradeConnect
		}
		if !protocols(upgrade) {
			return ErrUpgrade // to others it may look like one that a rule denies
		}
		if body != NoBody {
			return ErrUpgradeBody
		}
		req.Upgrade = upgrade
		// A rule may be about it, in the words that the client found. Nobody sends it on.
		f.AddID(message.Connection, connection)
	}
	return nil
}

// protocols checks the value of Upgrade (RFC 9110 7.8): names, which may have a version. Empty
// elements of the list are allowed (RFC 9110 5.6.1.2).
func protocols(list string) bool {
	for rest, more := list, true; more; {
		var one string
		one, rest, more = strings.Cut(rest, ",")
		s, e := trim(one)
		name, version, versioned := strings.Cut(one[s:e], "/")
		if !all(name, isToken) || !all(version, isToken) || versioned && (name == "" || version == "") {
			return false
		}
	}
	return true
}

// hasToken looks for a token in a comma-separated list, without parameters.
func hasToken(list, token string) bool {
	for start := 0; start <= len(list); {
		end := start
		for end < len(list) && list[end] != ',' {
			end++
		}
		s, e := trim(list[start:end])
		if equalFold(list[start+s:start+e], token) {
			return true
		}
		start = end + 1
	}
	return false
}

// sameHost compares authorities without case and without the scheme's default
// port, which clients add on one side only.
func sameHost(a, b, defaultPort string) bool {
	a, b = dropPort(a, defaultPort), dropPort(b, defaultPort)
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		x, y := a[i], b[i]
		if x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}

func dropPort(h, port string) string {
	if len(h) > len(port) && h[len(h)-len(port):] == port {
		return h[:len(h)-len(port)]
	}
	return h
}
