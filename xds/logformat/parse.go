// Package logformat is the grammar of access-log formats, as Envoy's v3 API
// writes them: literals and %OPERATORS%. The control plane checks with it what
// the sidecar compiles with it, so that no format it sends is refused.
package logformat

import (
	"fmt"
	"strconv"
	"strings"
)

// Piece is a literal or an operator.
type Piece struct {
	Literal string
	// Name of the operator, empty for a literal.
	Name, Argument string
	// Max is the longest value kept, in bytes; 0 for all, Nothing for none.
	Max int
}

// Nothing is the Max of a length of 0: of a value nothing is left, and it is one all the same.
const Nothing = -1

// Parse cuts a format into literals and operators: %NAME%, %NAME(ARGUMENT)%,
// %NAME(ARGUMENT):LENGTH%, and %% for a percent sign. An unknown operator, or
// one with an argument that does not fit, is an error that names it and the byte
// at which it begins, counted from 1.
func Parse(text string) ([]Piece, error) {
	pieces, err := ParseOfConnection(text)
	if err != nil {
		return nil, err
	}
	for i := range pieces {
		if err := pieces[i].ofRequest(); err != nil {
			return nil, fmt.Errorf("access log format: %%%s(%s)%%: %w", pieces[i].Name, pieces[i].Argument, err)
		}
	}
	return pieces, nil
}

// ParseOfConnection is Parse for the logs of listeners and TCP proxies, which show more metadata.
func ParseOfConnection(text string) ([]Piece, error) {
	var pieces []Piece
	whole, literal := len(text), ""
	flush := func() {
		if literal != "" {
			pieces = append(pieces, Piece{Literal: literal})
			literal = ""
		}
	}
	for text != "" {
		i := strings.IndexByte(text, '%')
		if i < 0 {
			literal += text
			break
		}
		literal += text[:i]
		text = text[i+1:]
		if strings.HasPrefix(text, "%") {
			literal += "%"
			text = text[1:]
			continue
		}
		o, rest, err := parseOperator(text)
		if err != nil {
			return nil, fmt.Errorf("access log format, byte %d: %w", whole-len(text), err)
		}
		flush()
		pieces = append(pieces, o)
		text = rest
	}
	flush()
	return pieces, nil
}

// parseOperator reads one operator; text starts after its percent sign.
func parseOperator(text string) (o Piece, rest string, err error) {
	n := 0
	for n < len(text) && (text[n] == '_' || 'A' <= text[n] && text[n] <= 'Z' || '0' <= text[n] && text[n] <= '9') {
		n++
	}
	name, rest := text[:n], text[n:]
	if name == "" {
		return o, "", fmt.Errorf("no operator after %% at %q; write %%%% for a percent sign", clip(text))
	}
	argument, hasArgument := "", false
	if strings.HasPrefix(rest, "(") {
		end := closingParen(rest)
		if end < 0 {
			return o, "", fmt.Errorf("%%%s( has no closing parenthesis followed by %%", name)
		}
		argument, hasArgument, rest = rest[1:end], true, rest[end+1:]
	}
	limit := 0
	if strings.HasPrefix(rest, ":") {
		end := strings.IndexByte(rest, '%')
		if end < 0 {
			return o, "", fmt.Errorf("%%%s has no closing %%", name)
		}
		limit, err = strconv.Atoi(rest[1:end])
		if err != nil || limit < 0 {
			return o, "", fmt.Errorf("length %q of %%%s%% is not a number of bytes", rest[1:end], name)
		}
		if limit == 0 {
			limit = Nothing
		}
		rest = rest[end:]
	}
	if !strings.HasPrefix(rest, "%") {
		return o, "", fmt.Errorf("%%%s has no closing %%", name)
	}
	if err := check(name, argument, hasArgument, limit); err != nil {
		return o, "", err
	}
	return Piece{Name: name, Argument: argument, Max: limit}, rest[1:], nil
}

// closingParen finds the parenthesis that ends an argument: the first one that
// the end of the operator follows. A time format has percent signs inside.
func closingParen(s string) int {
	for i := 1; i < len(s); i++ {
		if s[i] != ')' {
			continue
		}
		tail := s[i+1:]
		if strings.HasPrefix(tail, "%") {
			return i
		}
		if digits, ok := strings.CutPrefix(tail, ":"); ok {
			if d := strings.TrimLeft(digits, "0123456789"); len(d) < len(digits) && strings.HasPrefix(d, "%") {
				return i
			}
		}
	}
	return -1
}

func clip(s string) string {
	if len(s) > 16 {
		return s[:16] + "…"
	}
	return s
}
