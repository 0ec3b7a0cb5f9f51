package hcm

import "github.com/hauberk-mesh/hauberk/sidecar/percent"

// pathVerdict is what becomes of a request after its path was looked at.
type pathVerdict uint8

const (
	pathKept pathVerdict = iota
	pathChanged
	pathRejected
	pathRedirect
)

// pathRules are the connection manager's options on paths.
type pathRules struct {
	normalize, merge bool
	slashes          EscapedSlashes
}

// pathClass tells what a byte of a path may be to the rules: nothing, of those that are
// looked at with what is around them, or one that is no URI's (RFC 3986 3.3), which
// normalisation encodes.
var pathClass = func() (t [256]uint8) {
	for _, c := range []byte(`/?%\`) {
		t[c] = pathMark
	}
	for _, c := range []byte("\"<>^`{|}") {
		t[c] = pathEncoded
	}
	for c := 0x80; c < len(t); c++ {
		t[c] = pathEncoded
	}
	return t
}()

const (
	pathMark uint8 = iota + 1
	pathEncoded
)

// plain tells that nothing in the path can concern any rule: the usual case,
// decided in one pass.
func (r *pathRules) plain(path string) bool {
	for i := 0; i < len(path); i++ {
		if pathClass[path[i]] == 0 {
			continue
		}
		switch path[i] {
		case '/':
			if i+1 < len(path) && (path[i+1] == '/' || path[i+1] == '.') {
				return false
			}
		case '?':
			return true
		default:
			return false
		}
	}
	return true
}

// apply rewrites path into dst in Envoy's order: escaped slashes, normalisation,
// merging. What authorization and routing see is exactly what is forwarded.
func (r *pathRules) apply(dst []byte, path string) ([]byte, pathVerdict) {
	if path == "*" || r.plain(path) {
		return dst, pathKept
	}
	end := 0
	for end < len(path) && path[end] != '?' {
		end++
	}
	start := len(dst)
	dst, verdict := r.escapes(dst, path[:end])
	if verdict == pathRejected {
		return dst, verdict
	}
	if r.normalize {
		dst = removeDots(dst, start)
	}
	if r.merge {
		dst = mergeSlashes(dst, start)
	}
	if string(dst[start:]) == path[:end] {
		return dst, pathKept
	}
	return append(dst, path[end:]...), max(verdict, pathChanged)
}

// escapes copies a path and treats percent-encoding (RFC 3986 6.2.2) and
// backslashes. A percent sign that begins no escape stays, as in Envoy, and what is decoded
// behind it may not make one of it: nobody has looked at what that would stand for.
func (r *pathRules) escapes(dst []byte, path string) ([]byte, pathVerdict) {
	verdict, start := pathKept, len(dst)
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '\\' && r.normalize {
			c = '/'
		}
		b, escape := percent.Octet(path, i)
		if !escape {
			if r.normalize && pathClass[c] == pathEncoded {
				dst = append(dst, '%', hexDigits[c>>4], hexDigits[c&15])
			} else {
				dst = append(dst, c)
			}
			continue
		}
		switch {
		case (b == '/' || b == '\\') && r.slashes != KeepEscaped:
			switch r.slashes {
			case RejectEscaped:
				return dst, pathRejected
			case UnescapeAndRedirect:
				verdict = pathRedirect
			}
			if b == '\\' && r.normalize {
				b = '/'
			}
			dst = append(dst, b)
		case r.normalize && b == 0:
			return dst, pathRejected
		case r.normalize && unreserved(b):
			if percent.Digit(b) < 16 && unfinished(dst[start:]) {
				return dst, pathRejected
			}
			dst = append(dst, b)
		case r.normalize:
			dst = append(dst, '%', upper(path[i+1]), upper(path[i+2]))
		default:
			dst = append(dst, path[i:i+3]...)
		}
		i += 2
	}
	return dst, verdict
}

// removeDots is remove_dot_segments (RFC 3986 5.2.4) in place, from start. Dots that have
// parameters (RFC 3986 3.3) are dots, as in Envoy: to a server that takes parameters away,
// "/a/..;/b" is "/b", and a rule is about what the server sees.
func removeDots(b []byte, start int) []byte {
	out := start
	for i := start; i < len(b); {
		// b[i] is a slash, or the first byte.
		end := i + 1
		for end < len(b) && b[end] != '/' {
			end++
		}
		segment := b[i:end]
		last := end == len(b)
		switch dots(segment) {
		case 1:
			if last {
				b[out] = '/'
				out++
			}
		case 2:
			for out > start {
				out--
				if b[out] == '/' {
					break
				}
			}
			if last {
				b[out] = '/'
				out++
			}
		default:
			out += copy(b[out:], segment)
		}
		i = end
	}
	if out == start {
		b[out] = '/'
		out++
	}
	return b[:out]
}

// dots tells how many dots a segment consists of, with its slash and without its
// parameters; 0 where of anything else, or of more than two.
func dots(segment []byte) int {
	n := 1
	for n < len(segment) && segment[n] == '.' {
		n++
	}
	if n > 3 || n < len(segment) && segment[n] != ';' {
		return 0
	}
	return n - 1
}

func mergeSlashes(b []byte, start int) []byte {
	out := start
	for i := start; i < len(b); i++ {
		if b[i] == '/' && out > start && b[out-1] == '/' {
			continue
		}
		b[out] = b[i]
		out++
	}
	return b[:out]
}

// onThisHost is a path as a place to go to: what begins with two slashes names another host
// (RFC 3986 4.2), and to a browser a backslash is a slash.
func onThisHost(path []byte) []byte {
	slash := func(i int) bool { return i < len(path) && (path[i] == '/' || path[i] == '\\') }
	for slash(0) && slash(1) {
		path = path[1:]
	}
	if slash(0) {
		path[0] = '/'
	}
	return path
}

const hexDigits = "0123456789ABCDEF"

// unfinished tells that a path ends in the beginning of an escape. Whole ones were appended as
// such.
func unfinished(b []byte) bool {
	n := len(b)
	return n > 0 && b[n-1] == '%' || n > 1 && b[n-2] == '%' && percent.Digit(b[n-1]) < 16
}

func upper(c byte) byte {
	if c >= 'a' && c <= 'f' {
		return c - 0x20
	}
	return c
}

func unreserved(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}
