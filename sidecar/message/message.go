package message

import "strconv"

// Version is a version of the protocol.
type Version uint8

// The versions.
const (
	HTTP11 Version = iota
	HTTP10
	HTTP2
	HTTP3
)

// String returns the version as access logs write it.
func (v Version) String() string {
	return [...]string{"HTTP/1.1", "HTTP/1.0", "HTTP/2", "HTTP/3"}[v]
}

// UnknownLength is the ContentLength of a body whose end its framing tells.
const UnknownLength = -1

// Request is a request. Its strings alias Fields' arena, with its lifetime.
type Request struct {
	Method string
	// Scheme is "http" or "https": with HTTP/2, or a target in absolute form, the client's
	// word, otherwise what its side of the connection, or a trusted hop's, was.
	Scheme string
	// Authority is the host the client named (Host or :authority), port included.
	Authority string
	// Path is the path with the query; "*" for OPTIONS; empty for CONNECT.
	Path    string
	Version Version
	// Fields has no hop-by-hop fields left, but the Connection of HTTP/1 that asks
	// for an upgrade, to be seen; what they said is in the members below. Host and Content-Length stay where they were received, for their
	// place and case and for whoever looks at them; Authority and ContentLength
	// decide what is sent.
	Fields Fields
	// ContentLength is the body's length, 0 without a body, UnknownLength when
	// its framing tells.
	ContentLength int64
	// Body is nil without a body.
	Body Body
	// ExpectContinue: the client waits for 100 before it sends the body.
	ExpectContinue bool
	// AcceptTrailers: the client sent "TE: trailers".
	AcceptTrailers bool
	// Upgrade is the protocol the client asks to switch to ("websocket"), from
	// Upgrade or an extended CONNECT; empty for none.
	Upgrade string
	// Close: the client wants the connection closed after this exchange.
	Close bool
}

// Reset prepares for the next message and keeps the memory. Member by member: a whole one
// would be made on the stack first, and copied.
func (r *Request) Reset() {
	r.Method, r.Scheme, r.Authority, r.Path = "", "", "", ""
	r.Version = HTTP11
	r.Fields.Reset()
	r.ContentLength = 0
	r.Body = nil
	r.ExpectContinue, r.AcceptTrailers, r.Close = false, false, false
	r.Upgrade = ""
}

// Header returns the value of a field or pseudo-header by lower-case name, as
// matchers see it: several fields of a name are joined with commas, and "host"
// is ":authority".
func (r *Request) Header(lower string) (value string, ok bool) {
	if lower == "" {
		return "", false
	}
	switch lower {
	case ":authority", "host":
		return r.Authority, r.Authority != ""
	case ":path":
		return r.Path, r.Path != ""
	case ":method":
		return r.Method, r.Method != ""
	case ":scheme":
		return r.Scheme, r.Scheme != ""
	}
	id := IDOf(lower)
	if value, ok = r.Fields.joined(id, lower); !ok {
		return r.hop(id)
	}
	return value, ok
}

// hops are the fields of one hop that tell what a client asks for. Rules, routes and logs find them,
// as in Envoy, where they mean something: a rule that denies them would hold for nothing otherwise.
const hops IDs = 1<<TE | 1<<Upgrade | 1<<Connection | 1<<Expect

// hop returns one of hops, of which the members tell, unless a filter has set it.
func (r *Request) hop(id ID) (value string, ok bool) {
	switch {
	case id == TE && r.AcceptTrailers:
		return "trailers", true
	case id == Upgrade && r.Upgrade != "":
		return r.Upgrade, true
	case id == Connection && r.Upgrade != "":
		return "upgrade", true
	case id == Expect && r.ExpectContinue: // where we have told the client to go on it is over
		return "100-continue", true
	}
	return "", false
}

// SetPath replaces path and query; the value is copied.
func (r *Request) SetPath(path string) { r.Path = r.Fields.Store(path) }

// SetAuthority replaces the authority; the value is copied.
func (r *Request) SetAuthority(a string) { r.Authority = r.Fields.Store(a) }

// PathOnly is the path without query, as authorization sees it.
func (r *Request) PathOnly() string {
	p, _ := SplitPath(r.Path)
	return p
}

// SplitPath cuts a path at its query; query is without the question mark.
func SplitPath(path string) (p, query string) {
	for i := 0; i < len(path); i++ {
		if path[i] == '?' {
			return path[:i], path[i+1:]
		}
	}
	return path, ""
}

// Idempotent tells whether the method may be sent twice (RFC 9110 9.2.2).
func (r *Request) Idempotent() bool {
	switch r.Method {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE":
		return true
	}
	return false
}

// Response is a response. Its strings alias Fields' arena, with its lifetime.
type Response struct {
	Status int
	// Reason is the phrase of HTTP/1, empty elsewhere.
	Reason  string
	Version Version
	// Fields has no hop-by-hop fields left; Content-Length stays to be seen,
	// ContentLength decides what is sent.
	Fields Fields
	// ContentLength is as announced, also where there is no body (HEAD, 304);
	// UnknownLength when not.
	ContentLength int64
	// Body is nil without a body.
	Body Body
	// Close: the sender closes the connection after this exchange.
	Close bool
	// Upgrade is the protocol switched to with 101.
	Upgrade string
}

// Reset is Request.Reset for a response.
func (r *Response) Reset() {
	r.Status, r.Reason, r.Version = 0, "", HTTP11
	r.Fields.Reset()
	r.ContentLength = 0
	r.Body = nil
	r.Close, r.Upgrade = false, ""
}

// Header returns the value of a field, or ":status", as matchers see it.
func (r *Response) Header(lower string) (value string, ok bool) {
	if lower == ":status" {
		if r.Status < 100 || r.Status > 999 {
			return "", false
		}
		digits := [3]byte{byte('0' + r.Status/100), byte('0' + r.Status/10%10), byte('0' + r.Status%10)}
		return r.Fields.Store(View(digits[:])), true
	}
	if value, ok = r.Fields.Joined(lower); !ok && r.implied(lower) {
		var digits [20]byte
		return r.Fields.Store(View(strconv.AppendInt(digits[:0], r.ContentLength, 10))), true
	}
	return value, ok
}

// implied tells whether a field that is not there is one that the codec will write: the
// length of an answer of our own, whose readers, as in Envoy, find it.
func (r *Response) implied(lower string) bool {
	return r.ContentLength > 0 && lower == "content-length" && !r.Fields.Has(ContentLength)
}

// Body is a body to be pulled: whoever does not call Next exerts back-pressure
// down to the peer. It has one reader.
type Body interface {
	// Next returns the next bytes; it waits for them. They are valid until the
	// next call. last is set with the final bytes, or on their own with none;
	// after that only Trailers may be called.
	Next() (chunk []byte, last bool, err error)
	// Ready tells whether Next would return without waiting. It leaves the last chunk valid.
	Ready() bool
	// Trailers are the fields after the body; nil for none. They are known once
	// Next has returned last.
	Trailers() *Fields
}

// HeaderValue returns the n-th value of a field by lower-case name; pseudo-headers
// have one. It is how access logs read a request.
func (r *Request) HeaderValue(lower string, n int) (value string, ok bool) {
	if lower == "host" || lower != "" && lower[0] == ':' || hops>>IDOf(lower)&1 != 0 {
		if n > 0 {
			return "", false
		}
		return r.Header(lower)
	}
	return r.Fields.HeaderValue(lower, n)
}

// HeaderValue returns the n-th value of a field by lower-case name.
func (r *Response) HeaderValue(lower string, n int) (value string, ok bool) {
	if lower == ":status" {
		if n > 0 {
			return "", false
		}
		return r.Header(lower)
	}
	return r.Fields.HeaderValue(lower, n)
}

// HeaderValue returns the n-th value of a field by lower-case name.
func (f *Fields) HeaderValue(lower string, n int) (value string, ok bool) {
	i := f.find(lower, 0)
	for ; i >= 0 && n > 0; n-- {
		i = f.find(lower, i+1)
	}
	if i < 0 {
		return "", false
	}
	_, value, _ = f.At(i)
	return value, true
}

// HeaderFrom returns the first value of a field at or after
// position from, and the position to go on from: a loop from 0 sees every value
// once. Pseudo-headers have one value. It allocates nothing.
func (r *Request) HeaderFrom(name Name, from int) (value string, next int, ok bool) {
	if (hops|1<<Host|1<<Fake)>>name.id&1 != 0 {
		if from > 0 {
			return "", from, false
		}
		value, ok = r.Header(name.lower)
		return value, 1, ok
	}
	return r.Fields.HeaderFrom(name, from)
}

// HeaderFrom is Request.HeaderFrom for a response.
func (r *Response) HeaderFrom(name Name, from int) (value string, next int, ok bool) {
	if name.lower == ":status" || name.id == ContentLength && r.implied(name.lower) {
		if from > 0 {
			return "", from, false
		}
		value, ok = r.Header(name.lower)
		return value, 1, ok
	}
	return r.Fields.HeaderFrom(name, from)
}

// HeaderFrom is Request.HeaderFrom for fields on their own.
func (f *Fields) HeaderFrom(name Name, from int) (value string, next int, ok bool) {
	i := f.findNamed(name.id, name.lower, from)
	if i < 0 {
		return "", from, false
	}
	_, value, _ = f.At(i)
	return value, i + 1, true
}

// Header is Joined: it makes Fields on their own, a message's trailers, readable as
// a message is.
func (f *Fields) Header(lower string) (value string, ok bool) { return f.Joined(lower) }

// Bytes is the length of all names and values.
func (f *Fields) Bytes() int {
	n := 0
	for i := range f.Slots() {
		if name, value, ok := f.At(i); ok {
			n += len(name) + len(value)
		}
	}
	return n
}

// Bytes is the length of all names and values, those of the pseudo-headers included. The
// authority counts as it is sent, and as one whatever the request's version calls it.
func (r *Request) Bytes() int {
	n := r.Fields.Bytes()
	for _, p := range [...][2]string{{":method", r.Method}, {":scheme", r.Scheme}, {":path", r.Path}} {
		if p[1] != "" {
			n += len(p[0]) + len(p[1])
		}
	}
	if host, ok := r.Fields.ByID(Host); ok {
		n -= len("host") + len(host)
	}
	if r.Authority != "" {
		n += len(":authority") + len(r.Authority)
	}
	if r.AcceptTrailers || r.Upgrade != "" || r.ExpectContinue {
		n += r.hopBytes()
	}
	return n
}

// hopBytes are those of the hops that are not among the fields.
func (r *Request) hopBytes() (n int) {
	for _, name := range [...]string{"te", "upgrade", "connection", "expect"} {
		if id := IDOf(name); !r.Fields.Has(id) {
			if value, ok := r.hop(id); ok {
				n += len(name) + len(value)
			}
		}
	}
	return n
}

// Bytes is the length of all names and values, that of the status included; 0 where there
// is no response.
func (r *Response) Bytes() int {
	if r.Status == 0 {
		return 0
	}
	n := r.Fields.Bytes() + len(":status") + len("200")
	if r.implied("content-length") {
		n += len("content-length")
		for left := r.ContentLength; left > 0; left /= 10 {
			n++
		}
	}
	return n
}
