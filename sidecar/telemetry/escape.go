package telemetry

import (
	"encoding/binary"
	"slices"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// rewrite replaces dst[start:] by what longer makes of it, in place: size is how
// long that is. The old bytes move behind the space for the new ones, which never
// catch up with them.
func rewrite(dst []byte, start, size int, longer func(dst, src []byte) []byte) []byte {
	n := len(dst) - start
	dst = slices.Grow(dst, size)
	src := dst[start+size : start+size+n]
	copy(src, dst[start:])
	return longer(dst[:start], src)
}

// escapeFrom escapes dst[start:] in place, for a line of a log or for a field of a message.
// In a line bytes beyond ASCII are escaped too: some terminals take 0x80–0x9f for control
// codes.
func escapeFrom(dst []byte, start int, line bool) []byte {
	n := len(dst) - start
	if n < 8 && len(dst) >= 8 && shortPlain(dst, n, line) {
		return dst
	}
	plain := plainPrefix(dst[start:], line)
	if plain == n {
		return dst
	}
	start += plain
	size := 0
	for _, c := range dst[start:] {
		size += escapedSize(c, line)
	}
	return rewrite(dst, start, size, func(dst, src []byte) []byte {
		for _, c := range src {
			switch escapedSize(c, line) {
			case 1:
				dst = append(dst, c)
			case 2:
				dst = append(dst, '\\', c)
			default:
				dst = append(dst, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
			}
		}
		return dst
	})
}

// plainPrefix is the length of a part in front in which nothing is escaped: all of it,
// or up to fewer than eight bytes before the first that is, or a tab. Most values are plain
// as a whole, which eight bytes at a time, and the last eight again, tell.
func plainPrefix(s []byte, line bool) int {
	if len(s) < 8 {
		i := 0
		for i < len(s) && s[i] != '\t' && escapedSize(s[i], line) == 1 {
			i++
		}
		return i
	}
	for i := 0; ; i += 8 {
		at := min(i, len(s)-8)
		switch found := notPlain(binary.LittleEndian.Uint64(s[at:]), line); {
		case found != 0:
			return at
		case at+8 == len(s):
			return len(s)
		}
	}
}

// shortPlain tells of the last n bytes, at most eight, whether nothing in them is escaped,
// nor a tab. There are eight in all.
func shortPlain(b []byte, n int, line bool) bool {
	// Those before them move out, and zeros in behind: what is found in these does not count.
	x := binary.LittleEndian.Uint64(b[len(b)-8:]) >> (64 - 8*n)
	return notPlain(x, line)&(1<<(8*n)-1) == 0
}

// notPlain marks the bytes of x that are escaped, or a tab, in their highest bit. A byte
// above such a one may be marked wrongly.
func notPlain(x uint64, line bool) uint64 {
	found := below(x, 0x20) | below(x^ones*0x7f, 1)
	if line {
		found |= x&high | below(x^ones*'"', 1) | below(x^ones*'\\', 1)
	}
	return found
}

const ones, high = 0x0101010101010101, 0x8080808080808080

// below marks each byte of x that is less than n in its highest bit: a byte of which that
// is clear borrows into it. A byte above such a one may be marked wrongly.
func below(x, n uint64) uint64 { return (x - ones*n) &^ x & high }

func escapedSize(c byte, line bool) int {
	switch {
	case !line && (c == '\t' || c >= 0x80): // RFC 9110 5.5
		return 1
	case c < 0x20 || c >= 0x7f:
		return 4
	case line && (c == '"' || c == '\\'):
		return 2
	}
	return 1
}

// quoteFrom turns dst[start:] into a JSON string.
func quoteFrom(dst []byte, start int) []byte {
	size := 2
	for s := dst[start:]; len(s) > 0; {
		c, n := utf8.DecodeRune(s)
		if c == utf8.RuneError && n == 1 {
			return quoteBytesFrom(dst, start)
		}
		size += quotedSize(c, n)
		s = s[n:]
	}
	return rewrite(dst, start, size, func(dst, src []byte) []byte {
		dst = append(dst, '"')
		for len(src) > 0 {
			c, n := utf8.DecodeRune(src)
			dst = appendQuoted(dst, c, src[:n])
			src = src[n:]
		}
		return append(dst, '"')
	})
}

// quoteBytesFrom is quoteFrom for what is no UTF-8: as in Envoy each byte is the character
// of its number, so that what was sent can be told.
func quoteBytesFrom(dst []byte, start int) []byte {
	size := 2
	for _, c := range dst[start:] {
		if c >= 0x7f {
			size += len(`\u0080`)
			continue
		}
		size += quotedSize(rune(c), 1)
	}
	return rewrite(dst, start, size, func(dst, src []byte) []byte {
		dst = append(dst, '"')
		for i, c := range src {
			if c >= 0x7f {
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
				continue
			}
			dst = appendQuoted(dst, rune(c), src[i:i+1])
		}
		return append(dst, '"')
	})
}

// short is the letter by which JSON writes a control character (RFC 8259 7), or 0. All that
// have one are written so, as in Envoy: the length of a body depends on it.
func short(c rune) byte {
	switch c {
	case '\b':
		return 'b'
	case '\t':
		return 't'
	case '\n':
		return 'n'
	case '\f':
		return 'f'
	case '\r':
		return 'r'
	}
	return 0
}

func quotedSize(c rune, n int) int {
	switch {
	case c < 0x20 && short(c) != 0:
		return 2
	case c < 0x20 || c >= 0x7f && c < 0xa0, c == '\u2028' || c == '\u2029':
		return 6
	case c == '"' || c == '\\':
		return 2
	}
	return n
}

func appendQuoted(dst []byte, c rune, raw []byte) []byte {
	switch {
	case c == '"' || c == '\\':
		return append(dst, '\\', byte(c))
	case c < 0x20 && short(c) != 0:
		return append(dst, '\\', short(c))
	case c < 0x20 || c >= 0x7f && c < 0xa0:
		return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
	case c == '\u2028' || c == '\u2029':
		return append(append(dst, `\u202`...), hexDigits[c&15])
	}
	return append(dst, raw...)
}
