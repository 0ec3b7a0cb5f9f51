package route

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// wideExpression turns an expression of bytes, whose syntax is valid, into one of the
// characters that stand for them: those that it has, the numbers of others (\xe9, \351),
// and classes of Unicode (\pL), which mean the first 256 characters (ISO 8859-1).
func wideExpression(pattern string) (string, error) {
	if isASCII(pattern) && !strings.Contains(pattern, `\`) {
		return pattern, nil
	}
	w := widener{rest: pattern}
	for w.rest != "" {
		if err := w.next(); err != nil {
			return "", err
		}
	}
	return w.out.String(), nil
}

type widener struct {
	rest    string
	out     strings.Builder
	inClass bool
	folds   bool   // without regard to case, from here on
	outer   []bool // the same of the groups around
}

// copy takes n bytes over.
func (w *widener) copy(n int) {
	n = min(n, len(w.rest))
	w.out.Write(appendWide(nil, w.rest[:n]))
	w.rest = w.rest[n:]
}

// next takes over one element of the expression.
func (w *widener) next() error {
	switch c := w.rest[0]; {
	case w.inClass:
		return w.element()
	case c == '\\':
		return w.escape()
	case c == '[':
		w.inClass = true
		w.copy(1)
		if strings.HasPrefix(w.rest, "^") {
			w.copy(1)
		}
		if strings.HasPrefix(w.rest, "]") {
			return w.span() // one of the class
		}
		return nil
	case c == '(':
		w.group()
		return nil
	case c == ')' && len(w.outer) > 0:
		last := len(w.outer) - 1
		w.folds, w.outer = w.outer[last], w.outer[:last]
	}
	w.copy(1)
	return nil
}

var perlClass = regexp.MustCompile(`\A(?:\[:\^?\w+:\]|\\[dDsSwW])`)

// element takes over one element of a class, or its end.
func (w *widener) element() error {
	if n := len(perlClass.FindString(w.rest)); n > 0 {
		w.copy(n)
		return nil
	}
	if m := byName.FindStringSubmatch(w.rest); m != nil {
		return w.class(m)
	}
	if w.rest[0] == ']' {
		w.inClass = false
		w.copy(1)
		return nil
	}
	return w.span()
}

// span takes over a character of a class, or a range.
func (w *widener) span() error {
	low, err := w.character()
	w.out.WriteString(low)
	if err != nil || len(w.rest) < 2 || w.rest[0] != '-' || w.rest[1] == ']' {
		return err
	}
	w.rest = w.rest[1:]
	high, err := w.character()
	if isASCII(low) && !isASCII(high) {
		// Two ranges, as U+017F is between the characters of the bytes: without
		// regard to case, one range would have S, which is another case of it.
		w.out.WriteString(`-\x7f` + string(wideByte(utf8.RuneSelf)))
	}
	w.out.WriteString("-" + high)
	return err
}

// group takes over what begins a group, or sets flags.
func (w *widener) group() {
	n, folds, set, within := 1, w.folds, true, true
	if named := strings.HasPrefix(w.rest, "(?P<") || strings.HasPrefix(w.rest, "(?<"); !named && strings.HasPrefix(w.rest, "(?") {
		n = 1 + strings.IndexAny(w.rest, ":)")
		within = w.rest[n-1] == ':'
		for _, flag := range w.rest[2 : n-1] {
			switch flag {
			case '-':
				set = false
			case 'i':
				folds = set
			}
		}
	}
	if within {
		w.outer = append(w.outer, w.folds)
	}
	w.folds = folds
	w.copy(n)
}

var (
	byNumber = regexp.MustCompile(`\A\\(?:x\{([[:xdigit:]]+)\}|x([[:xdigit:]]{2})|(0[0-7]{0,2}|[1-7][0-7]{1,2}))`)
	byName   = regexp.MustCompile(`\A\\([pP])(?:\{(\^?)([^}]*)\}|((?s:.)))`)

	unknownToGo = regexp.MustCompile(`\\[pP]\{\^?([A-Z]\w*[A-Z_]\w*)\}`)
)

// named finds a class of Unicode by the name that RE2 has for it. Go's regexp takes more:
// other names, and any case, with spaces (\p{upper case letter}); in Envoy these are errors.
func named(name string) *unicode.RangeTable {
	switch name {
	case "Any":
		return anyByte
	case "LC", "Cn":
		return nil // not in RE2
	}
	if t := unicode.Categories[name]; t != nil {
		return t
	}
	return unicode.Scripts[name]
}

var anyByte = &unicode.RangeTable{R16: []unicode.Range16{{Lo: 0, Hi: 0xff, Stride: 1}}, LatinOffset: 1}

// knownToGo puts another class for those that RE2 has and Go's regexp does not find, of
// scripts with an underscore or a capital letter inside the name. The result is for a look
// at the syntax alone. It keeps the braces, as what follows an escaped backslash is no class
// but text, whose last character may begin a range.
func knownToGo(pattern string) string {
	return unknownToGo.ReplaceAllStringFunc(pattern, func(class string) string {
		if named(unknownToGo.FindStringSubmatch(class)[1]) != nil {
			return `\p{Any}`
		}
		return class
	})
}

// escape takes over what a backslash begins, outside of a class.
func (w *widener) escape() error {
	if strings.HasPrefix(w.rest, `\Q`) {
		if end := strings.Index(w.rest, `\E`); end >= 0 {
			w.copy(end + 2)
		} else {
			w.copy(len(w.rest))
		}
		return nil
	}
	if m := byName.FindStringSubmatch(w.rest); m != nil {
		return w.class(m)
	}
	char, err := w.character()
	w.out.WriteString(char)
	return err
}

// character takes one character off, which may be escaped, and tells how to write it.
func (w *widener) character() (string, error) {
	var char string
	m := byNumber.FindStringSubmatch(w.rest)
	if m == nil {
		n := 1
		if w.rest[0] == '\\' {
			n = min(2, len(w.rest))
		}
		char, w.rest = w.rest[:n], w.rest[n:]
		return wide(char), nil
	}
	n, err := strconv.ParseUint(m[1]+m[2], 16, 32)
	if m[3] != "" {
		n, err = strconv.ParseUint(m[3], 8, 32)
	}
	switch {
	case err != nil || n > 0xff:
		return "", fmt.Errorf("%s is no byte; write the character itself", m[0])
	case n < utf8.RuneSelf:
		char = m[0]
	default:
		char = string(wideByte(byte(n)))
	}
	w.rest = w.rest[len(m[0]):]
	return char, nil
}

// class takes over a class of Unicode, as byName finds it.
func (w *widener) class(m []string) error {
	table := named(m[3] + m[4])
	if table == nil {
		return fmt.Errorf("RE2 has no class %s", m[0])
	}
	not := (m[1] == "P") != (m[2] != "")
	var has [256]bool
	for b := range has {
		has[b] = unicode.Is(table, rune(b))
	}
	w.rest = w.rest[len(m[0]):]
	if w.inClass {
		if not {
			w.exclude(&has)
		}
		w.ranges(&has)
		return nil
	}
	w.out.WriteByte('[')
	if not {
		w.out.WriteByte('^')
	}
	w.ranges(&has)
	w.out.WriteByte(']')
	return nil
}

// exclude makes a class what is not in it, nor, without regard to case, in another case.
func (w *widener) exclude(has *[256]bool) {
	for c := byte('a'); w.folds && c <= 'z'; c++ {
		both := has[c] || has[c-'a'+'A']
		has[c], has[c-'a'+'A'] = both, both
	}
	for b := range has {
		has[b] = !has[b]
	}
}

// ranges writes the elements of a class, of which there must be one: one that no text has
// is always there. All are ranges, so that a hyphen that follows begins none. Neighbours
// share one, as the text is kept, but not ASCII with what is above it (see span).
func (w *widener) ranges(has *[256]bool) {
	w.out.WriteString(`\x{10ffff}-\x{10ffff}`)
	for b := 0; b < len(has); b++ {
		if !has[b] {
			continue
		}
		first := b
		for b+1 < len(has) && b+1 != utf8.RuneSelf && has[b+1] {
			b++
		}
		fmt.Fprintf(&w.out, `\x{%x}-\x{%x}`, wideByte(byte(first)), wideByte(byte(b)))
	}
}
