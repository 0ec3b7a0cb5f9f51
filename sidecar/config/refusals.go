package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// shownRefusals bounds the text of an error; a generated file has the same fault in each
// of its thousand clusters.
const shownRefusals = 30

// Refusals are all that a bootstrap was refused for.
type Refusals []error

func (r Refusals) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "refused in %d places:", len(r))
	for _, err := range r[:min(len(r), shownRefusals)] {
		b.WriteString("\n  " + err.Error())
	}
	if more := len(r) - shownRefusals; more > 0 {
		fmt.Fprintf(&b, "\n  and %d more", more)
	}
	return b.String()
}

func (r Refusals) Unwrap() []error { return r }

// together is nil of nothing, and a single refusal as it is.
func together(errs []error) error {
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	return Refusals(errs)
}

// violations flattens what the generated validation of a message says, which names Go's
// fields and repeats itself at each level, to a path and a reason each.
func violations(err error, path string) []error {
	var many interface{ AllErrors() []error }
	if errors.As(err, &many) {
		var out []error
		for _, e := range many.AllErrors() {
			out = append(out, violations(e, path)...)
		}
		return out
	}
	var one interface {
		Field() string
		Reason() string
		Cause() error
	}
	if !errors.As(err, &one) {
		return []error{&FieldError{Path: path, Reason: err.Error()}}
	}
	path = under(path, protoName(one.Field()))
	if one.Cause() != nil {
		return violations(one.Cause(), path)
	}
	return []error{&FieldError{Path: path, Reason: one.Reason()}}
}

// protoName turns the name of a field of Go, with an index or a key, into that of the message.
func protoName(field string) string {
	name, index, indexed := strings.Cut(field, "[")
	var b strings.Builder
	var last rune
	for _, r := range strings.ReplaceAll(name, "5Xx", "5xx") {
		if unicode.IsUpper(r) && last != 0 && last != '_' {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
		last = r
	}
	if indexed {
		b.WriteString("[" + index)
	}
	return b.String()
}
