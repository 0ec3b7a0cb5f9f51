package http1

import (
	"errors"
	"strconv"
	"unsafe"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// ErrUnwritable is a message that holds what may not go on the wire: a filter or
// a configured header put a control character or an invalid name into it.
var ErrUnwritable = errors.New("http1: message holds an invalid field")

// RequestOptions are what a request's head says of the connection.
type RequestOptions struct {
	Framing Framing // NoBody, Length or Chunked
	Close   bool
	// Upgrade asks to switch to this protocol (RFC 9110 7.8).
	Upgrade string
	// FullURL writes the target in absolute form (RFC 9112 3.2.2).
	FullURL bool
}

// settledInResponse are the fields that are written by what the serialiser knows, if at
// all; the others go out as they are. settledInRequest adds those of a request.
var (
	settledInResponse = message.Set(message.ContentLength, message.TransferEncoding, message.Connection, message.Upgrade,
		message.KeepAlive, message.ProxyConnection, message.Fake, message.Trailer)
	settledInRequest = settledInResponse | message.Set(message.Host, message.TE, message.Expect)
)

// AppendRequest writes a request's head. CONNECT has its authority for a target.
func AppendRequest(dst []byte, r *message.Request, o RequestOptions) ([]byte, error) {
	target := r.Path
	if r.Method == "CONNECT" {
		target = r.Authority // RFC 9112 3.2.3
	}
	if o.FullURL && r.Scheme != "http" && r.Scheme != "https" {
		return dst, ErrUnwritable
	}
	if !all(r.Method, isToken) || r.Method == "" || !all(target, isPath) || target == "" || !validHost(r.Authority) ||
		!all(o.Upgrade, isValue) {
		return dst, ErrUnwritable
	}
	dst = append(dst, r.Method...)
	dst = append(dst, ' ')
	if o.FullURL && target[0] == '/' && r.Authority != "" {
		dst = append(append(append(dst, r.Scheme...), "://"...), r.Authority...)
	}
	dst = append(dst, target...)
	dst = append(dst, " HTTP/1.1\r\n"...)
	f := &r.Fields
	if !f.Has(message.Host) {
		dst = appendField(dst, "Host", r.Authority)
	}
	framed := false
	for i := 0; i < f.Slots(); i++ {
		if dst, i = f.AppendLines(dst, i, settledInRequest); i == f.Slots() {
			break
		}
		name, value, ok := f.At(i)
		if !ok {
			continue
		}
		switch f.IDAt(i) {
		case message.Host:
			value = r.Authority
		case message.ContentLength:
			if framed = o.Framing == Length || o.Framing == NoBody; !framed {
				continue
			}
			// A request to switch protocols has no content; its length is not known, since
			// what follows it ends with the connection.
			dst = appendLength(dst, name, max(r.ContentLength, 0))
			continue
		case message.TransferEncoding, message.Connection, message.Upgrade, message.TE,
			message.KeepAlive, message.ProxyConnection, message.Expect, message.Fake:
			continue
		case message.Trailer:
			if o.Framing != Chunked {
				continue // no trailers can follow
			}
		}
		if !f.Checked(i) && !writable(f.IDAt(i), name, value) {
			return dst, ErrUnwritable
		}
		dst = appendField(dst, name, value)
	}
	switch {
	case o.Framing == Chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case o.Framing == Length && !framed:
		dst = appendLength(dst, "Content-Length", r.ContentLength)
	case o.Framing == NoBody && !framed && o.Upgrade == "" && expectsContent(r.Method):
		dst = append(dst, "Content-Length: 0\r\n"...)
	}
	if r.AcceptTrailers && o.Upgrade == "" {
		dst = append(dst, "TE: trailers\r\n"...)
	}
	if r.ExpectContinue {
		dst = append(dst, "Expect: 100-continue\r\n"...)
	}
	switch {
	case o.Upgrade != "":
		dst = appendField(dst, "Upgrade", o.Upgrade)
		dst = append(dst, "Connection: Upgrade\r\n"...)
	case o.Close && r.AcceptTrailers:
		dst = append(dst, "Connection: close, TE\r\n"...)
	case o.Close:
		dst = append(dst, "Connection: close\r\n"...)
	case r.AcceptTrailers:
		dst = append(dst, "Connection: TE\r\n"...)
	}
	return append(dst, '\r', '\n'), nil
}

// expectsContent tells whether the absence of content is said too: some origins
// answer 411 otherwise (RFC 9110 8.6).
func expectsContent(method string) bool {
	switch method {
	case "GET", "HEAD", "DELETE", "TRACE", "CONNECT":
		return false
	}
	return true
}

// ResponseOptions are what a response's head says of the connection.
type ResponseOptions struct {
	// Framing is NoBody, Length, Chunked, or UntilClose for an HTTP/1.0 client.
	Framing Framing
	// KnownLength writes Content-Length though no body follows (HEAD, 304).
	KnownLength bool
	Close       bool
	// KeepAlive says "Connection: keep-alive", which HTTP/1.0 clients wait for.
	KeepAlive bool
	// Upgrade is what is switched to, with a 101.
	Upgrade string
}

// AppendResponse writes a response's head.
func AppendResponse(dst []byte, r *message.Response, o ResponseOptions) ([]byte, error) {
	if r.Status < 100 || r.Status > 599 || !writableValue(r.Reason) || !writableValue(o.Upgrade) {
		return dst, ErrUnwritable
	}
	dst = append(dst, "HTTP/1.1 "...)
	dst = append(dst, byte('0'+r.Status/100), byte('0'+r.Status/10%10), byte('0'+r.Status%10), ' ')
	if r.Reason == "" {
		dst = append(dst, Reason(r.Status)...)
	} else {
		dst = append(dst, r.Reason...)
	}
	dst = append(dst, '\r', '\n')
	f := &r.Fields
	framed := false
	length := o.Framing == Length || o.KnownLength
	for i := 0; i < f.Slots(); i++ {
		if dst, i = f.AppendLines(dst, i, settledInResponse); i == f.Slots() {
			break
		}
		name, value, ok := f.At(i)
		if !ok {
			continue
		}
		switch f.IDAt(i) {
		case message.ContentLength:
			if length && !framed {
				dst = appendLength(dst, name, r.ContentLength)
				framed = true
			}
			continue
		case message.TransferEncoding, message.Connection, message.Upgrade, message.KeepAlive,
			message.ProxyConnection, message.Fake:
			continue
		case message.Trailer:
			if o.Framing != Chunked {
				continue // no trailers can follow
			}
		}
		if !f.Checked(i) && !writable(f.IDAt(i), name, value) {
			return dst, ErrUnwritable
		}
		dst = appendField(dst, name, value)
	}
	switch {
	case o.Framing == Chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case length && !framed:
		dst = appendLength(dst, "Content-Length", r.ContentLength)
	}
	switch {
	case o.Upgrade != "":
		dst = appendField(dst, "Upgrade", o.Upgrade)
		dst = append(dst, "Connection: Upgrade\r\n"...)
	case o.Close:
		dst = append(dst, "Connection: close\r\n"...)
	case o.KeepAlive:
		dst = append(dst, "Connection: keep-alive\r\n"...)
	}
	return append(dst, '\r', '\n'), nil
}

// AppendChunk writes data as one chunk; empty data writes nothing.
func AppendChunk(dst, data []byte) []byte {
	if len(data) == 0 {
		return dst
	}
	dst = AppendChunkHead(dst, len(data))
	dst = append(dst, data...)
	return append(dst, '\r', '\n')
}

// AppendChunkHead writes the size line of a chunk, for data that goes out apart.
func AppendChunkHead(dst []byte, n int) []byte {
	dst = strconv.AppendInt(dst, int64(n), 16)
	return append(dst, '\r', '\n')
}

// AppendLastChunk ends a chunked body; trailers may be nil.
func AppendLastChunk(dst []byte, trailers *message.Fields) ([]byte, error) {
	dst = append(dst, '0', '\r', '\n')
	if trailers != nil {
		for i := range trailers.Slots() {
			name, value, ok := trailers.At(i)
			if !ok || trailerUse(trailers.IDAt(i)) != forward {
				continue
			}
			if !trailers.Checked(i) && !writable(trailers.IDAt(i), name, value) {
				return dst, ErrUnwritable
			}
			dst = appendField(dst, name, value)
		}
	}
	return append(dst, '\r', '\n'), nil
}

// ProperCase writes the field names of a head, or of trailers, with capitals: each
// letter that begins a name or follows something that is neither letter nor digit. All
// others are small, however a name came.
// The first line is left alone.
func ProperCase(head []byte) {
	first, inName, begin := true, false, true
	for i, c := range head {
		switch {
		case c == '\n':
			inName, begin, first = true, true, false
			continue
		case first || !inName:
			continue
		case c == ':':
			inName = false
			continue
		}
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		switch {
		case letter && begin:
			head[i] = c &^ 0x20
		case letter:
			head[i] = c | 0x20
		}
		begin = !letter && (c < '0' || c > '9')
	}
}

func appendField(dst []byte, name, value string) []byte {
	dst = append(dst, name...)
	dst = append(dst, ':', ' ')
	dst = append(dst, value...)
	return append(dst, '\r', '\n')
}

func appendLength(dst []byte, name string, n int64) []byte {
	dst = append(dst, name...)
	dst = append(dst, ':', ' ')
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, '\r', '\n')
}

// writable tells whether a field may go on the wire. A known name may.
func writable(id message.ID, name, value string) bool {
	return (id.String() != "" || name != "" && all(name, isToken)) && writableValue(value)
}

func writableValue(v string) bool { return validValue(unsafe.Slice(unsafe.StringData(v), len(v))) }

// Reason is the phrase of a status code (RFC 9110 15).
func Reason(status int) string {
	if r := reasons[status]; r != "" {
		return r
	}
	return "Unknown"
}

var reasons = [600]string{
	100: "Continue", 101: "Switching Protocols", 103: "Early Hints",
	200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 206: "Partial Content",
	301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified", 307: "Temporary Redirect", 308: "Permanent Redirect",
	400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
	408: "Request Timeout", 409: "Conflict", 411: "Length Required", 413: "Content Too Large", 414: "URI Too Long",
	417: "Expectation Failed", 421: "Misdirected Request", 425: "Too Early", 426: "Upgrade Required",
	429: "Too Many Requests", 431: "Request Header Fields Too Large",
	500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
	504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}
