package route

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"
	"unicode/utf8"
)

const anchorStart, anchorEnd = `\A(?:`, `)\z`

// Regex compiles a pattern that must match a whole string, as every regex of
// xDS must. Go's regexp has the syntax of Envoy's RE2 but for \C, which is refused,
// and the names of classes (see named). Anchoring when the pattern is compiled lets
// a match stop early. FullMatch uses the result.
func Regex(pattern string) (*regexp.Regexp, error) {
	// Compiled by itself first, so that an unbalanced group cannot be closed
	// by the one that is put around it.
	wide, err := compileBytes(pattern)
	if err != nil {
		return nil, err
	}
	re, err := regexp.Compile(anchorStart + wide.String() + anchorEnd)
	if err != nil {
		// A quotation (\Q) that nothing ends takes the end of the group with it.
		re, err = regexp.Compile(anchorStart + wide.String() + `\E` + anchorEnd)
	}
	return re, err
}

// compileBytes compiles a pattern for texts that were made wide.
func compileBytes(pattern string) (*regexp.Regexp, error) {
	// What is no expression is not made one by what it is turned into. As ISO 8859-1, a
	// byte and the number of one (\xe9) are the same character, so [é-\xff] is in order.
	_, err := syntax.Parse(latin1(knownToGo(pattern)), syntax.Perl)
	var re *regexp.Regexp
	if err == nil {
		var expr string
		if expr, err = wideExpression(pattern); err == nil {
			re, err = regexp.Compile(expr)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("regex %q: %w", pattern, err)
	}
	return re, nil
}

// FullMatch tells whether an expression matches the whole of s, byte by byte as Envoy
// does: no character of several bytes is one, or the other case of a letter.
func FullMatch(re *regexp.Regexp, s string) bool {
	re, err := Whole(re)
	if err != nil {
		return false
	}
	if isASCII(s) {
		return re.MatchString(s)
	}
	b := wideTexts.Get().(*[]byte)
	*b = appendWide((*b)[:0], s)
	ok := re.Match(*b)
	wideTexts.Put(b)
	return ok
}

// unanchored holds the anchored form of expressions that were not made by
// Regex. There are as many as a program spells out, so it is never trimmed.
var unanchored sync.Map // string -> *regexp.Regexp

// Whole anchors what Regex did not make: an expression that matches somewhere
// inside a SPIFFE ID or a path must never count as a match.
func Whole(re *regexp.Regexp) (*regexp.Regexp, error) {
	p := re.String()
	if strings.HasPrefix(p, anchorStart) && strings.HasSuffix(p, anchorEnd) {
		return re, nil
	}
	if a, ok := unanchored.Load(p); ok {
		return a.(*regexp.Regexp), nil
	}
	a, err := Regex(p)
	if err == nil {
		unanchored.Store(p, a)
	}
	return a, err
}

// wideTexts keeps the space of texts that were made wide for a match.
var wideTexts = sync.Pool{New: func() any {
	b := make([]byte, 0, 256)
	return &b
}}

// A byte above ASCII is seen as a character of a block without letters that have two
// cases: as Envoy's, an expression that has no regard to case has so for ASCII alone.
// Between ASCII and the block are letters that have an ASCII one as their other case
// (U+017F is another s), so no range of an expression may go from one to the other.
// Those of the block take two bytes, and are in the order of what they stand for.
const above = 0x0600 - utf8.RuneSelf

// wideByte is the character that stands for a byte.
func wideByte(b byte) rune {
	if b < utf8.RuneSelf {
		return rune(b)
	}
	return above + rune(b)
}

// wide turns each byte into its character, which lets an expression see bytes.
func wide(s string) string {
	if isASCII(s) {
		return s
	}
	return string(appendWide(nil, s))
}

func appendWide(dst []byte, s string) []byte {
	for i := range len(s) {
		dst = utf8.AppendRune(dst, wideByte(s[i]))
	}
	return dst
}

// latin1 turns each byte into its character of ISO 8859-1.
func latin1(s string) string {
	b := make([]byte, 0, 2*len(s))
	for i := range len(s) {
		b = utf8.AppendRune(b, rune(s[i]))
	}
	return string(b)
}

// appendNarrow turns what is wide into bytes again.
func appendNarrow(dst []byte, wide string) []byte {
	for _, r := range wide {
		if r >= utf8.RuneSelf {
			r -= above
		}
		dst = append(dst, byte(r))
	}
	return dst
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
