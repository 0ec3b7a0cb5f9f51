package http1

import "encoding/binary"

// Character classes, one bit each.
const (
	isToken  = 1 << iota // tchar, RFC 9110 5.6.2
	isTarget             // what a request-target of HTTP/1 may have
	isHost               // unreserved, sub-delims and percent, RFC 3986 3.2.2
	isValue              // field-vchar, SP and HTAB, RFC 9110 5.5
	isHex
	isDigit
	isPath // what a :path of HTTP/2 may have, and so a target that is written
)

var class = func() (t [256]uint8) {
	for c := range 256 {
		b := byte(c)
		alpha := b|0x20 >= 'a' && b|0x20 <= 'z'
		digit := b >= '0' && b <= '9'
		in := func(set string) bool {
			for i := range len(set) {
				if set[i] == b {
					return true
				}
			}
			return false
		}
		if alpha || digit || in("!#$%&'*+-.^_`|~") {
			t[c] |= isToken
		}
		// Browsers and libraries send more than RFC 3986 2 has, JSON and markup in a query
		// among them, and Envoy takes it. No controls, no space and no fragment: they end
		// a target or its line for some parsers. Non-ASCII is for HTTP/2 alone, which
		// needs nothing to tell it where a path ends.
		if b > 0x20 && b < 0x7f && b != '#' {
			t[c] |= isTarget | isPath
		}
		if b >= 0x80 {
			t[c] |= isPath
		}
		if alpha || digit || in("-._~!$&'()*+,;=%") {
			t[c] |= isHost
		}
		if b >= 0x20 && b != 0x7f || b == '\t' {
			t[c] |= isValue
		}
		if digit || b|0x20 >= 'a' && b|0x20 <= 'f' {
			t[c] |= isHex
		}
		if digit {
			t[c] |= isDigit
		}
	}
	return t
}()

func all[T string | []byte](b T, want uint8) bool {
	for i := 0; i < len(b); i++ {
		if class[b[i]]&want == 0 {
			return false
		}
	}
	return true
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// validValue looks at eight bytes at once, the last eight again where they overlap: a
// byte below 0x20 or equal to 0x7f stops it, and only HTAB among those is let through.
func validValue(b []byte) bool {
	if len(b) < 8 {
		return all(b, isValue)
	}
	for p := b; ; p = p[8:] {
		if len(p) < 8 {
			p = b[len(b)-8:]
		}
		w := binary.LittleEndian.Uint64(p)
		low := (w - ones*0x20) & ^w & highs
		x := w ^ ones*0x7f
		del := (x - ones) & ^x & highs
		if low|del != 0 && !all(p[:8], isValue) {
			return false
		}
		if len(p) == 8 {
			return true
		}
	}
}

// trim removes optional whitespace, which is SP and HTAB and nothing else
// (RFC 9110 5.6.3).
func trim[T string | []byte](b T) (start, end int) {
	end = len(b)
	for start < end && (b[start] == ' ' || b[start] == '\t') {
		start++
	}
	for end > start && (b[end-1] == ' ' || b[end-1] == '\t') {
		end--
	}
	return start, end
}

// validHost checks uri-host [ ":" port ] (RFC 9110 7.2): no user, no empty host.
func validHost[T string | []byte](h T) bool {
	host, port := splitHost(h)
	if len(host) == 0 {
		return false
	}
	if len(port) > 5 || !all(port, isDigit) {
		return false
	}
	n := 0
	for i := 0; i < len(port); i++ {
		n = n*10 + int(port[i]-'0')
	}
	if n > 65535 {
		return false
	}
	if host[0] == '[' {
		return validIPv6(host)
	}
	for i := 0; i < len(host); i++ {
		if class[host[i]]&isHost == 0 {
			return false
		}
		if host[i] == '%' && (i+2 >= len(host) || class[host[i+1]]&class[host[i+2]]&isHex == 0) {
			return false
		}
	}
	return true
}

func splitHost[T string | []byte](h T) (host, port T) {
	for i := len(h) - 1; i >= 0; i-- {
		switch {
		case h[i] == ':':
			return h[:i], h[i+1:]
		case h[i] < '0' || h[i] > '9':
			return h, h[len(h):]
		}
	}
	return h, h[len(h):]
}

// validIPv6 checks the alphabet and the shape of an IP literal; whoever connects
// to it parses it.
func validIPv6[T string | []byte](h T) bool {
	if len(h) < 4 || h[len(h)-1] != ']' {
		return false
	}
	colons := 0
	for i := 1; i < len(h)-1; i++ {
		if h[i] == ':' {
			colons++
		} else if class[h[i]]&isHex == 0 && h[i] != '.' {
			return false
		}
	}
	return colons >= 2
}

// parseLength reads 1*DIGIT up to 2^63-1 (RFC 9110 8.6).
func parseLength(b []byte) (int64, bool) {
	if len(b) == 0 {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' || n > (1<<63-1)/10 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return int64(n), n <= 1<<63-1
}

// equalFold compares with a lower-case word.
func equalFold[T string | []byte](b T, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c != lower[i] && (c < 'A' || c > 'Z' || c|0x20 != lower[i]) {
			return false
		}
	}
	return true
}
