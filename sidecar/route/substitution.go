package route

import (
	"fmt"
	"strings"
)

// NewSubstitution checks a pattern, which need not match a whole string, and the
// template that replaces what it matches.
func NewSubstitution(pattern, template string) (*Substitution, error) {
	re, err := compileBytes(pattern)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(template); i++ {
		if template[i] != '\\' {
			continue
		}
		i++
		switch {
		case i == len(template):
			return nil, fmt.Errorf("substitution %q: ends in a backslash", template)
		case template[i] == '\\':
		case template[i] < '0' || template[i] > '9':
			return nil, fmt.Errorf(`substitution %q: \%c is neither a group nor a backslash`, template, template[i])
		case int(template[i]-'0') > re.NumSubexp():
			return nil, fmt.Errorf(`substitution %q: the pattern has no group %c`, template, template[i])
		}
	}
	return &Substitution{re, template}, nil
}

// Append appends s with every match of the pattern replaced. It allocates: Go's
// regexp has no other way to tell where groups matched.
func (r *Substitution) Append(dst []byte, s string) []byte {
	s = wide(s)
	last := 0
	for _, m := range r.Pattern.FindAllStringSubmatchIndex(s, -1) {
		dst = appendNarrow(dst, s[last:m[0]])
		dst = r.expand(dst, s, m)
		last = m[1]
	}
	return appendNarrow(dst, s[last:])
}

func (r *Substitution) expand(dst []byte, s string, m []int) []byte {
	for rest := r.Template; ; {
		literal, after, more := strings.Cut(rest, `\`)
		dst = append(dst, literal...)
		if !more {
			return dst
		}
		if c := after[0]; c == '\\' {
			dst = append(dst, c)
		} else if g := 2 * int(c-'0'); m[g] >= 0 {
			dst = appendNarrow(dst, s[m[g]:m[g+1]])
		}
		rest = after[1:]
	}
}
