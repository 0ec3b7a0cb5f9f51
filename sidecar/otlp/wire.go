package otlp

import (
	"encoding/binary"
	"unicode/utf8"
)

// OTLP is protobuf (opentelemetry.proto.*.v1 and collector.*.v1), written by hand: what
// is told is encoded where it arises, without a message in between, and the data path
// stays clear of protobuf's runtime.

// Types of fields on the wire; Fixed32 is for AppendTag.
const (
	varint    = 0
	fixed64   = 1
	delimited = 2
	Fixed32   = 5
)

// AppendTag appends the key of a field.
func AppendTag(dst []byte, field, wire int) []byte {
	return binary.AppendUvarint(dst, uint64(field<<3|wire))
}

// AppendBytes appends a field of bytes or of a string.
func AppendBytes[T ~string | ~[]byte](dst []byte, field int, v T) []byte {
	dst = binary.AppendUvarint(AppendTag(dst, field, delimited), uint64(len(v)))
	return append(dst, v...)
}

// AppendVarint appends a field of an integer.
func AppendVarint(dst []byte, field int, v uint64) []byte {
	return binary.AppendUvarint(AppendTag(dst, field, varint), v)
}

// AppendFixed64 appends a field of eight bytes.
func AppendFixed64(dst []byte, field int, v uint64) []byte {
	return binary.LittleEndian.AppendUint64(AppendTag(dst, field, fixed64), v)
}

// Nested is a message within a message, which has no length yet.
type Nested struct{ start int }

const lengthSpace = 5 // bytes of the length of a message below 4 GB

// Begin begins a message within a message; End gives it its length.
func Begin(dst []byte, field int) ([]byte, Nested) {
	dst = AppendTag(dst, field, delimited)
	return append(dst, make([]byte, lengthSpace)...), Nested{len(dst)}
}

// End ends the message that dst ends in.
func (n Nested) End(dst []byte) []byte {
	body := dst[n.start+lengthSpace:]
	var head [binary.MaxVarintLen64]byte
	size := binary.PutUvarint(head[:], uint64(len(body)))
	copy(dst[n.start:], head[:size])
	copy(dst[n.start+size:], body)
	return dst[:len(dst)-lengthSpace+size]
}

// Fields of ExportTraceServiceResponse and ExportLogsServiceResponse, and of their
// partial success.
const responsePartial, partialRejected, partialText = 1, 1, 2

// rejected reads how many items a collector did not take from its answer; one that
// cannot be read rejects none.
func rejected(answer []byte) (n int64, why string) {
	fields(answer, func(field int, v uint64, b []byte) {
		if field == responsePartial {
			fields(b, func(field int, v uint64, b []byte) {
				switch field {
				case partialRejected:
					n = int64(v)
				case partialText:
					why = string(b)
				}
			})
		}
	})
	return n, why
}

// fields walks the fields of a message as far as it can be read.
func fields(b []byte, each func(field int, v uint64, body []byte)) {
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		if n <= 0 {
			return
		}
		b = b[n:]
		var v uint64
		var body []byte
		switch key & 7 {
		case varint:
			if v, n = binary.Uvarint(b); n <= 0 {
				return
			}
			b = b[n:]
		case delimited:
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return
			}
			body, b = b[n:n+int(size)], b[n+int(size):]
		case fixed64:
			if len(b) < 8 {
				return
			}
			b = b[8:]
		case Fixed32:
			if len(b) < 4 {
				return
			}
			b = b[4:]
		default:
			return
		}
		each(int(key>>3), v, body)
	}
}

// Valid is s where it is UTF-8, as a protobuf string has to be.
func Valid(s []byte) []byte {
	if utf8.Valid(s) {
		return s
	}
	var out []byte
	for len(s) > 0 {
		c, n := utf8.DecodeRune(s)
		out = utf8.AppendRune(out, c)
		s = s[n:]
	}
	return out
}
