package authz

import (
	"regexp"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/percent"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// An escape of a path is the same with capital hexadecimal digits and with small ones (RFC 3986
// 6.2.2.1). Where paths are normalised they have capital ones, whatever came: a rule that was
// written with small ones would hold for nothing, and one that denies would let pass. A text is
// compared digit by digit, in place. An expression cannot be, and sees the path once more with all
// digits small: that path is made at most once for a filter, and only if it has such an escape.

// spell prepares the rules for paths that were normalised.
func (r *ruleSet) spell() {
	if r == nil {
		return
	}
	for i := range r.policies {
		spellAll(r.policies[i].permissions)
		spellAll(r.policies[i].principals)
	}
	if r.ordered != nil {
		for i := range r.ordered.cases {
			r.ordered.cases[i].when.spell()
		}
	}
}

func spellAll(ms []matcher) {
	for i := range ms {
		ms[i].spell()
	}
}

func (m *matcher) spell() {
	spellAll(m.sub)
	switch {
	case m.kind == kindTemplate:
		m.spelled = spellTemplate(m.tmpl)
	case m.kind == kindURLPath, m.kind == kindLine && m.header.path:
		m.str.spell()
	case m.kind == kindHeader && m.header.path && m.header.str != nil:
		m.header.str.spell()
	}
}

// spell finds the texts that the pattern is where it stands in a path with capitals. One that is
// looked for anywhere may begin within an escape.
func (m *stringMatcher) spell() {
	p := m.pattern
	if m.spelled = nil; m.kind == regex || m.fold {
		return
	}
	for n := 0; n <= 2 && n <= len(p) && (n == 0 || percent.Digit(p[n-1]) < 16); n++ {
		if s := strings.ToUpper(p[:n]) + capitalEscapes(p[n:]); s != p {
			m.spelled = append(m.spelled, s)
		}
	}
}

// matchPath matches path, which is the beginning of the request's whole path, in any spelling.
func (m *stringMatcher) matchPath(whole, path string, in *input) bool {
	switch {
	case m.match(path):
		return true
	case !in.capitals:
		return false
	case m.kind == regex:
		small, differs := in.smallPath(whole)
		return differs && m.match(small[:len(path)])
	}
	return m.spelled != nil && m.matchDigits(path)
}

// matchDigits is match without regard to the case of escapes' digits.
func (m *stringMatcher) matchDigits(path string) bool {
	n := len(m.pattern)
	if len(path) < n || strings.IndexByte(path, '%') < 0 {
		return false
	}
	// What stands behind a question mark was not normalised, and counts as it is.
	query := strings.IndexByte(path, '?')
	if query < 0 {
		query = len(path)
	}
	switch m.kind {
	case exact:
		return len(path) == n && m.digitsAt(path, 0, query)
	case prefix:
		return m.digitsAt(path, 0, query)
	case suffix:
		return m.digitsAt(path, len(path)-n, query)
	}
	for _, s := range m.spelled {
		for from := 0; ; from++ {
			next := strings.Index(path[from:], s)
			if next < 0 {
				break
			}
			if from += next; m.digitsAt(path, from, query) {
				return true
			}
		}
	}
	return false
}

// digitsAt tells whether the pattern stands at a place of a path.
func (m *stringMatcher) digitsAt(path string, at, query int) bool {
	for i := range len(m.pattern) {
		c := path[at+i]
		if c != m.pattern[i] && (c < 'A' || 'F' < c || lower(c) != m.pattern[i] || at+i >= query || !isDigit(path, at+i)) {
			return false
		}
	}
	return true
}

// isDigit tells whether a byte of a path is one of an escape.
func isDigit(path string, i int) bool {
	_, first := percent.Octet(path, i-1)
	_, second := percent.Octet(path, i-2)
	return first || second
}

// templateSpellings stand in for a template, either nil where it is not needed.
type templateSpellings struct{ capital, small *route.Template }

// cutting templates have a literal beside a wildcard in one segment: it may have a part of an escape.
var cutting = regexp.MustCompile(`[^/]\{|[*}][^/*}]`)

func spellTemplate(t *route.Template) *templateSpellings {
	out, text := &templateSpellings{}, t.String()
	if c := capitalEscapes(text); c != text {
		out.capital, _ = route.NewTemplate(c) // digits make no other template
	}
	if cutting.MatchString(text) {
		if out.small = t; strings.Contains(text, "%") {
			out.small, _ = route.NewTemplate(lowerEscapes(text))
		}
	}
	return out
}

// matchTemplate is stringMatcher.matchPath for a template.
func (m *matcher) matchTemplate(whole, path string, in *input) bool {
	s := m.spelled
	switch {
	case m.tmpl.Match(path):
		return true
	case !in.capitals || s == nil:
		return false
	case s.capital != nil && s.capital.Match(path):
		return true
	case s.small == nil:
		return false
	}
	small, differs := in.smallPath(whole)
	return differs && s.small.Match(small[:len(path)])
}

// smallPath is the request's whole path with the digits of its escapes small.
func (in *input) smallPath(whole string) (small string, differs bool) {
	if in.whole != whole {
		in.whole, in.small = whole, ""
		if small := lowerEscapes(whole); small != whole {
			in.small = small
		}
	}
	return in.small, in.small != ""
}

// lowerEscapes writes the escapes of a path with small digits, up to a question mark.
func lowerEscapes(path string) string { return rewriteEscapes(path, 'A', 'F', false) }

// capitalEscapes writes those of a pattern with capitals, one that its end cuts among them.
func capitalEscapes(p string) string { return rewriteEscapes(p, 'a', 'f', true) }

func rewriteEscapes(s string, lo, hi byte, cut bool) string {
	var b []byte
	i := strings.IndexByte(s, '%')
	if i < 0 || strings.IndexByte(s[:i], '?') >= 0 {
		return s
	}
	for ; i+1 < len(s) && s[i] != '?'; i++ {
		if _, escape := percent.Octet(s, i); !escape && !(cut && s[i] == '%' && i+2 == len(s)) {
			continue
		}
		for k := i + 1; k <= i+2 && k < len(s); k++ {
			if c := s[k]; lo <= c && c <= hi {
				if b == nil {
					b = []byte(s)
				}
				b[k] = c ^ 0x20
			}
		}
	}
	if b == nil {
		return s
	}
	return string(b)
}
