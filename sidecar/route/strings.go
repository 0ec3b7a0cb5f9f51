package route

import "strings"

// Match reports whether s satisfies the matcher. It does not allocate. A matcher
// without a pattern matches nothing, so that a mistake never opens a door.
func (m *StringMatch) Match(s string) bool {
	switch {
	case m.Exact != nil:
		if m.IgnoreCase {
			return len(s) == len(*m.Exact) && equalFold(s, *m.Exact)
		}
		return s == *m.Exact
	case m.Prefix != nil:
		return hasPrefix(s, *m.Prefix, m.IgnoreCase)
	case m.Suffix != nil:
		n := len(s) - len(*m.Suffix)
		return n >= 0 && hasPrefix(s[n:], *m.Suffix, m.IgnoreCase)
	case m.Contains != nil:
		if m.IgnoreCase {
			return containsFold(s, *m.Contains)
		}
		return strings.Contains(s, *m.Contains)
	case m.Regex != nil:
		return FullMatch(m.Regex, s)
	}
	return false
}

func hasPrefix(s, prefix string, fold bool) bool {
	if len(s) < len(prefix) {
		return false
	}
	if fold {
		return equalFold(s[:len(prefix)], prefix)
	}
	return s[:len(prefix)] == prefix
}

// equalFold folds ASCII only, as Envoy does: header values and paths are bytes,
// and Unicode folding would let U+212A stand for "k".
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func containsFold(s, sub string) bool {
	for i := 0; i+len(sub) <= len(s); i++ {
		if equalFold(s[i:i+len(sub)], sub) {
			return true
		}
	}
	return false
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}
