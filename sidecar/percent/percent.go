// Package percent reads percent-encoding (RFC 3986 2.1). It allocates nothing.
package percent

// Octet is the octet that the escape at s[i] stands for; ok is false where there is no
// whole escape.
func Octet(s string, i int) (b byte, ok bool) {
	if i < 0 || i+2 >= len(s) || s[i] != '%' {
		return 0, false
	}
	hi, lo := Digit(s[i+1]), Digit(s[i+2])
	return hi<<4 | lo, hi < 16 && lo < 16
}

// At is the octet at s[i], and how many bytes of s it takes: 3 for an escape. As in Envoy,
// what is no escape stands for itself.
func At(s string, i int) (b byte, width int) {
	if b, ok := Octet(s, i); ok {
		return b, 3
	}
	return s[i], 1
}

// Append appends what s stands for.
func Append(dst []byte, s string) []byte {
	for i := 0; i < len(s); {
		b, n := At(s, i)
		dst, i = append(dst, b), i+n
	}
	return dst
}

// Equal tells whether s stands for want.
func Equal(s, want string) bool {
	for i := 0; i < len(s); {
		b, n := At(s, i)
		if want == "" || want[0] != b {
			return false
		}
		want, i = want[1:], i+n
	}
	return want == ""
}

// Digit is a hexadecimal digit's value, 255 for what is none.
func Digit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 255
}
