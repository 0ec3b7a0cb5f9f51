package tracing

import (
	"encoding/hex"
	"math/rand/v2"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// ID is the id of a trace; Zipkin's may be of 64 bits, which are the last ones.
type ID [16]byte

// SpanID is the id of a span.
type SpanID [8]byte

// parent is the context that a request came with.
type parent struct {
	trace   ID
	wide    bool // the trace id has 128 bits
	span    SpanID
	before  SpanID // Zipkin: the parent of span
	sampled bool
}

// presence says what was found of a context.
type presence uint8

const (
	absent  presence = iota
	present          // and the parent is valid
	broken           // something that cannot be read
)

func newSpanID() (id SpanID) {
	for id == (SpanID{}) {
		put(id[:], rand.Uint64())
	}
	return id
}

func newTraceID() (id ID) {
	for id == (ID{}) {
		put(id[:8], rand.Uint64())
		put(id[8:], rand.Uint64())
	}
	return id
}

func put(b []byte, v uint64) {
	for i := range b {
		b[i] = byte(v >> (56 - 8*i))
	}
}

// unhex decodes all of s into b. Only lower case is allowed by W3C; B3 and Envoy take
// both.
func unhex(b []byte, s string) bool {
	if len(s) != 2*len(b) {
		return false
	}
	for i := range b {
		hi, ok1 := nibble(s[2*i])
		lo, ok2 := nibble(s[2*i+1])
		if !ok1 || !ok2 {
			return false
		}
		b[i] = hi<<4 | lo
	}
	return true
}

func nibble(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// readW3C reads traceparent (W3C Trace Context 3.2).
func readW3C(f *message.Fields) (p parent, found presence) {
	v, ok := f.ByID(message.Traceparent)
	if !ok {
		return p, absent
	}
	return parseTraceparent(v)
}

// parseTraceparent reads a version with its 55 bytes; those of a version that is not
// known may go on.
func parseTraceparent(v string) (p parent, found presence) {
	const size = 55
	var version, flags [1]byte
	if len(v) < size || v[2] != '-' || v[35] != '-' || v[52] != '-' ||
		!unhex(version[:], v[:2]) || !unhex(p.trace[:], v[3:35]) || !unhex(p.span[:], v[36:52]) || !unhex(flags[:], v[53:size]) {
		return p, broken
	}
	switch {
	case version[0] == 0xff, version[0] == 0 && len(v) > size, len(v) > size && v[size] != '-',
		p.trace == ID{}, p.span == SpanID{}:
		return p, broken
	}
	p.wide, p.sampled = true, flags[0]&1 == 1
	return p, present
}

// appendTraceparent writes traceparent.
func appendTraceparent(dst []byte, s *Span) []byte {
	dst = append(dst, "00-"...)
	dst = hex.AppendEncode(dst, s.Trace[:])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, s.ID[:])
	if s.Sampled {
		return append(dst, "-01"...)
	}
	return append(dst, "-00"...)
}

// readB3 reads Zipkin's headers, the single one first. decided tells that they say
// whether the trace is sampled, also where they name none.
func readB3(f *message.Fields) (p parent, found presence, sampled, decided bool) {
	if v, ok := f.ByID(message.B3); ok {
		return parseB3(v)
	}
	if v, ok := f.Get("x-b3-sampled"); ok {
		sampled, decided = v == "1" || v == "true", true
	}
	if v, ok := f.Get("x-b3-flags"); ok && v == "1" {
		sampled, decided = true, true // debug implies it
	}
	trace, ok1 := f.Get("x-b3-traceid")
	span, ok2 := f.Get("x-b3-spanid")
	if !ok1 || !ok2 {
		return p, absent, sampled, decided
	}
	if !p.readIDs(trace, span) {
		return p, broken, sampled, decided
	}
	if v, ok := f.Get("x-b3-parentspanid"); ok && v != "" && !unhex(p.before[:], v) {
		return p, broken, sampled, decided
	}
	p.sampled = sampled
	return p, present, sampled, decided
}

func (p *parent) readIDs(trace, span string) bool {
	p.wide = len(trace) == 32
	low := p.trace[8:]
	if p.wide {
		low = p.trace[:]
	}
	return unhex(low, trace) && unhex(p.span[:], span) && p.trace != ID{} && p.span != SpanID{}
}

// parseB3 reads TRACEID-SPANID[-SAMPLED[-PARENTID]] or SAMPLED.
func parseB3(v string) (p parent, found presence, sampled, decided bool) {
	flag := func(c byte) bool {
		sampled, decided = c != '0', c == '0' || c == '1' || c == 'd'
		return decided
	}
	if len(v) == 1 {
		if !flag(v[0]) {
			return p, broken, false, false
		}
		return p, absent, sampled, true
	}
	at := 16
	if len(v) > 32 && v[32] == '-' {
		at = 32
	}
	if len(v) < at+17 || v[at] != '-' || !p.readIDs(v[:at], v[at+1:at+17]) {
		return p, broken, false, false
	}
	rest := v[at+17:]
	switch {
	case rest == "":
		return p, present, false, false
	case len(rest) != 2 && len(rest) != 19, rest[0] != '-', !flag(rest[1]),
		len(rest) == 19 && (rest[2] != '-' || !unhex(p.before[:], rest[3:])):
		return p, broken, false, false
	}
	p.sampled = sampled
	return p, present, sampled, true
}

// appendTrace writes a trace id as Zipkin does.
func appendTrace(dst []byte, s *Span) []byte {
	if s.wide {
		return hex.AppendEncode(dst, s.Trace[:])
	}
	return hex.AppendEncode(dst, s.Trace[8:])
}

// appendB3 writes the single header.
func appendB3(dst []byte, s *Span) []byte {
	dst = append(appendTrace(dst, s), '-')
	dst = hex.AppendEncode(dst, s.ID[:])
	if s.Sampled {
		dst = append(dst, "-1"...)
	} else {
		dst = append(dst, "-0"...)
	}
	if s.Parent != (SpanID{}) {
		dst = hex.AppendEncode(append(dst, '-'), s.Parent[:])
	}
	return dst
}
