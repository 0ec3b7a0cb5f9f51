package http2

import (
	"hash/maphash"
	"strconv"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// encoder is the HPACK encoder of one direction. What is different in every message is
// written as a literal; only fields that tend to repeat enter the dynamic table, and
// those at their second sight. Values that are secrets never do (RFC 7541 7.1).
type encoder struct {
	table   dynamicTable
	max     int // our own bound on the table
	huffman bool
	// A change of the table's size is announced at the start of the next block; when it
	// shrank and grew since, both sizes are (RFC 7541 4.2).
	resized bool
	lowest  int
	// seen are the hashes of fields that were not in the table, the latest last.
	seen   [16]uint32
	seenAt uint8
}

func (e *encoder) init(tableSize uint32, huffman bool) {
	e.max, e.huffman = int(tableSize), huffman
	e.table.max = initialTable
	e.resize(initialTable)
}

// resize follows the peer's SETTINGS_HEADER_TABLE_SIZE.
func (e *encoder) resize(peer uint32) {
	n := min(int(peer), e.max)
	if n == e.table.max {
		return
	}
	if !e.resized {
		e.resized, e.lowest = true, n
	}
	e.lowest = min(e.lowest, n)
	e.table.setMax(n)
}

// begin starts a block.
func (e *encoder) begin(dst []byte) []byte {
	if !e.resized {
		return dst
	}
	if e.lowest < e.table.max {
		dst = appendInt(dst, 0x20, 5, e.lowest)
	}
	e.resized = false
	return appendInt(dst, 0x20, 5, e.table.max)
}

type idSet uint64

func setOf(ids ...message.ID) (s idSet) {
	for _, id := range ids {
		s |= 1 << id
	}
	return s
}

func (s idSet) has(id message.ID) bool { return s&(1<<id) != 0 }

var (
	// repeating fields are worth a place in the table.
	repeating = setOf(message.Host, message.ContentType, message.ContentEncoding, message.Accept,
		message.AcceptEncoding, message.UserAgent, message.Server, message.Via, message.CacheControl, message.Origin,
		message.TE, message.XForwardedProto, message.XForwardedHost, message.XForwardedClientCert,
		message.GRPCStatus, message.XEnvoyInternal, message.XEnvoyAttemptCount, message.XEnvoyExpectedTimeout)
	// secret fields are never indexed, on any hop.
	secret = setOf(message.Authorization, message.ProxyAuthorization, message.Cookie, message.SetCookie)
	// notSent are the fields that the message model keeps elsewhere, or that HTTP/2 does
	// not have (RFC 9113 8.2.2).
	notSent = setOf(message.Host, message.Connection, message.KeepAlive, message.ProxyConnection,
		message.TransferEncoding, message.Upgrade, message.TE, message.HTTP2Settings, message.Expect,
		message.ContentLength, message.Fake)
)

// repeatingNames are those without an id.
func repeatingName(name string) bool {
	switch name {
	case "grpc-encoding", "grpc-accept-encoding", "accept-language":
		return true
	}
	return false
}

const maxIndexedValue = 512

var hashSeed = maphash.MakeSeed()

// field writes a field whose name is lower-case or has an id.
func (e *encoder) field(dst []byte, id message.ID, name, value string) []byte {
	index := 0
	if id == message.Other || id == message.XEnvoyOther {
		index = int(staticByName[name])
	} else {
		index = int(staticByID[id])
		name = id.String()
	}
	if (repeating.has(id) || id == message.Other && repeatingName(name)) && e.table.max > 0 && len(value) <= maxIndexedValue {
		return e.repeatable(dst, index, id, name, value)
	}
	if secret.has(id) {
		return e.literal(dst, 0x10, 4, index, name, value)
	}
	return e.literal(dst, 0, 4, index, name, value)
}

// repeatable writes a field through the dynamic table.
func (e *encoder) repeatable(dst []byte, index int, id message.ID, name, value string) []byte {
	hash := uint32(maphash.String(hashSeed, value)) ^ uint32(id)<<24 ^ uint32(len(name))<<16
	for i := range e.table.len() {
		if t := e.table.at(i); t.hash == hash && t.id == id &&
			string(e.table.value(t)) == value && string(e.table.name(t)) == name {
			return appendInt(dst, 0x80, 7, staticLen+1+i)
		}
	}
	for _, h := range e.seen {
		if h == hash {
			dst = e.literal(dst, 0x40, 6, index, name, value)
			e.table.add(name, value, tableEntry{hash: hash, id: id})
			return dst
		}
	}
	e.seen[e.seenAt&15] = hash
	e.seenAt++
	return e.literal(dst, 0, 4, index, name, value)
}

func (e *encoder) literal(dst []byte, first byte, prefix uint, index int, name, value string) []byte {
	dst = appendInt(dst, first, prefix, index)
	if index == 0 {
		dst = e.str(dst, name)
	}
	return e.str(dst, value)
}

func (e *encoder) str(dst []byte, s string) []byte {
	if e.huffman {
		if n := huffmanLen(s); n < len(s) {
			return appendHuffman(appendInt(dst, 0x80, 7, n), s)
		}
	}
	return append(appendInt(dst, 0, 7, len(s)), s...)
}

// appendInt writes an integer with an n-bit prefix (RFC 7541 5.1).
func appendInt(dst []byte, first byte, n uint, v int) []byte {
	full := 1<<n - 1
	if v < full {
		return append(dst, first|byte(v))
	}
	dst = append(dst, first|byte(full))
	for v -= full; v >= 0x80; v >>= 7 {
		dst = append(dst, byte(v)|0x80)
	}
	return append(dst, byte(v))
}

// fields writes all fields that are sent.
func (e *encoder) fields(dst []byte, f *message.Fields) []byte {
	for i := range f.Slots() {
		name, value, ok := f.At(i)
		if !ok {
			continue
		}
		switch id := f.IDAt(i); {
		case notSent.has(id):
		case id == message.Other || id == message.XEnvoyOther:
			dst = e.field(dst, id, lower(name), value)
		default:
			dst = e.field(dst, id, "", value)
		}
	}
	return dst
}

// lower returns a name in lower case; names that came with HTTP/2 are.
func lower(name string) string {
	for i := 0; i < len(name); i++ {
		if c := name[i]; c >= 'A' && c <= 'Z' {
			return lowered(name)
		}
	}
	return name
}

func lowered(name string) string {
	b := []byte(name)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}

// length writes Content-Length where the message announces one.
func (e *encoder) length(dst []byte, f *message.Fields, n int64) []byte {
	if n < 0 || n == 0 && !f.Has(message.ContentLength) {
		return dst
	}
	var digits [20]byte
	return e.field(dst, message.ContentLength, "", message.View(strconv.AppendInt(digits[:0], n, 10)))
}

// request writes a request's block; writableRequest has passed it.
func (e *encoder) request(dst []byte, r *message.Request) []byte {
	dst = e.begin(dst)
	connect := r.Method == "CONNECT"
	method := r.Method
	if r.Upgrade != "" {
		method = "CONNECT"
	}
	switch method {
	case "GET":
		dst = append(dst, 0x80|indexMethodGET)
	case "POST":
		dst = append(dst, 0x80|indexMethodPOST)
	default:
		dst = e.literal(dst, 0, 4, indexMethodGET, "", method)
	}
	if !connect {
		scheme := byte(0x80 | indexSchemeHTTP)
		if r.Scheme == "https" {
			scheme++
		}
		dst = append(dst, scheme)
		if r.Path == "/" {
			dst = append(dst, 0x80|indexPathRoot)
		} else {
			dst = e.literal(dst, 0, 4, indexPathRoot, "", r.Path)
		}
	}
	if r.Upgrade != "" {
		dst = e.literal(dst, 0, 4, 0, ":protocol", r.Upgrade)
	}
	if e.table.max > 0 {
		dst = e.repeatable(dst, indexAuthority, message.Host, ":authority", r.Authority)
	} else {
		dst = e.literal(dst, 0, 4, indexAuthority, "", r.Authority)
	}
	if !connect && r.Upgrade == "" {
		dst = e.length(dst, &r.Fields, r.ContentLength)
	}
	if r.AcceptTrailers {
		dst = e.field(dst, message.TE, "", "trailers")
	}
	if r.ExpectContinue {
		dst = e.field(dst, message.Expect, "", "100-continue")
	}
	return e.fields(dst, &r.Fields)
}

// response writes a response's block; writableResponse has passed it. length is set
// where the status may have a Content-Length.
func (e *encoder) response(dst []byte, status int, r *message.Response, length bool) []byte {
	dst = e.begin(dst)
	switch status {
	case 200:
		dst = append(dst, 0x80|indexStatus200)
	case 204:
		dst = append(dst, 0x80|(indexStatus200+1))
	case 206:
		dst = append(dst, 0x80|(indexStatus200+2))
	case 304:
		dst = append(dst, 0x80|(indexStatus200+3))
	case 400:
		dst = append(dst, 0x80|(indexStatus200+4))
	case 404:
		dst = append(dst, 0x80|(indexStatus200+5))
	case 500:
		dst = append(dst, 0x80|(indexStatus200+6))
	default:
		digits := [3]byte{byte('0' + status/100), byte('0' + status/10%10), byte('0' + status%10)}
		dst = e.literal(dst, 0, 4, indexStatus200, "", message.View(digits[:]))
	}
	if length {
		dst = e.length(dst, &r.Fields, r.ContentLength)
	}
	return e.fields(dst, &r.Fields)
}
