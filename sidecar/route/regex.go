package route

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
)

const anchorStart, anchorEnd = `\A(?:`, `)\z`

// Regex compiles a pattern that must match a whole string, as every regex of
// xDS must. RE2 syntax is the same in Envoy and in Go's regexp. Anchoring when
// the pattern is compiled lets a match stop early.
func Regex(pattern string) (*regexp.Regexp, error) {
	// Compiled by itself first, so that an unbalanced group cannot be closed
	// by the one that is put around it.
	if _, err := regexp.Compile(pattern); err != nil {
		return nil, fmt.Errorf("regex %q: %w", pattern, err)
	}
	return regexp.Compile(anchorStart + pattern + anchorEnd)
}

// unanchored holds the anchored form of expressions that were not made by
// Regex. There are as many as a program spells out, so it is never trimmed.
var unanchored sync.Map // string -> *regexp.Regexp

// fullMatch anchors what Regex did not make: an expression that matches
// somewhere inside a SPIFFE ID or a path must never count as a match.
func fullMatch(re *regexp.Regexp, s string) bool {
	p := re.String()
	if strings.HasPrefix(p, anchorStart) && strings.HasSuffix(p, anchorEnd) {
		return re.MatchString(s)
	}
	if a, ok := unanchored.Load(p); ok {
		return a.(*regexp.Regexp).MatchString(s)
	}
	a, err := Regex(p)
	if err != nil {
		return false
	}
	unanchored.Store(p, a)
	return a.MatchString(s)
}
