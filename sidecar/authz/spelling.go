package authz

import "github.com/hauberk-mesh/hauberk/sidecar/percent"

// An escape of a path is the same with capital hexadecimal digits and with small ones (RFC 3986
// 6.2.2.1). Where paths are normalised they have capital ones, whatever came: a rule that was
// written with small ones would hold for nothing, and one that denies would let pass.

// matchPath matches a path or its other spelling.
func (m *matcher) matchPath(path string, capitals bool) bool {
	if m.pathIs(path) {
		return true
	}
	if !capitals {
		return false
	}
	small, differs := smallEscapes(path)
	return differs && m.pathIs(small)
}

func (m *matcher) pathIs(path string) bool {
	if m.tmpl != nil {
		return m.tmpl.Match(path)
	}
	return m.str.match(path)
}

// matchesSmall is matches of the other spelling of a path.
func (h *headerMatcher) matchesSmall(path string) bool {
	small, differs := smallEscapes(path)
	return differs && h.matches(small)
}

// smallEscapes writes the escapes of a path with small digits. What stands behind a question mark
// was not normalised, and stays.
func smallEscapes(path string) (small string, differs bool) {
	var b []byte
	for i := 0; i+2 < len(path) && path[i] != '?'; i++ {
		if _, escape := percent.Octet(path, i); !escape {
			continue
		}
		for k := i + 1; k <= i+2; k++ {
			if c := path[k]; 'A' <= c && c <= 'F' {
				if b == nil {
					b = []byte(path)
				}
				b[k] = lower(c)
			}
		}
	}
	return string(b), b != nil
}
