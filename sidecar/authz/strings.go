package authz

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

type stringKind uint8

const (
	exact stringKind = iota
	prefix
	suffix
	contains
	regex
)

// stringMatcher is a compiled StringMatcher.
type stringMatcher struct {
	kind    stringKind
	pattern string
	fold    bool
	regex   *regexp.Regexp
	spelled []string // see spell; nil where the pattern has no other spelling
}

func compileString(m *route.StringMatch) (*stringMatcher, error) {
	var out stringMatcher
	set := 0
	for k, p := range [...]*string{exact: m.Exact, prefix: m.Prefix, suffix: m.Suffix, contains: m.Contains} {
		if p != nil {
			set++
			out.kind, out.pattern, out.fold = stringKind(k), *p, m.IgnoreCase
		}
	}
	if m.Regex != nil {
		set++
		re, err := route.Whole(m.Regex)
		if err != nil {
			return nil, fmt.Errorf("regex %q cannot be anchored: %w", m.Regex, err)
		}
		out.kind, out.regex = regex, re
		if m.IgnoreCase {
			return nil, errors.New("ignore_case has no effect on a regex; write (?i) into the regex instead")
		}
	}
	if set != 1 {
		return nil, fmt.Errorf("a string match needs exactly one pattern, has %d", set)
	}
	if out.pattern == "" && (out.kind == prefix || out.kind == suffix || out.kind == contains) {
		return nil, errors.New("an empty prefix, suffix or contains matches every value; use any instead")
	}
	return &out, nil
}

func (m *stringMatcher) match(s string) bool {
	n := len(m.pattern)
	switch m.kind {
	case exact:
		return len(s) == n && m.equal(s)
	case prefix:
		return len(s) >= n && m.equal(s[:n])
	case suffix:
		return len(s) >= n && m.equal(s[len(s)-n:])
	case contains:
		if !m.fold {
			return strings.Contains(s, m.pattern)
		}
		for i := 0; i+n <= len(s); i++ {
			if m.equal(s[i : i+n]) {
				return true
			}
		}
		return false
	case regex:
		return route.FullMatch(m.regex, s)
	}
	return false
}

// equal compares strings of one length. Case is folded in ASCII only, as Envoy
// does: Unicode folding would let "ſ" pass for "s".
func (m *stringMatcher) equal(s string) bool {
	if !m.fold {
		return s == m.pattern
	}
	for i := 0; i < len(s); i++ {
		if lower(s[i]) != lower(m.pattern[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
