// Package pattern bounds the regular expressions of configuration entries.
package pattern

import (
	"fmt"
	"regexp/syntax"
)

// MaxSize is the largest program that an expression may be compiled to, in instructions;
// a class of characters counts as one more for every ten ranges that it has. A sidecar
// goes through as many steps for every byte of a path or a header. Envoy measures RE2's
// own program, which is up to a few times as large, and the bootstrap that is written
// for it allows that.
const MaxSize = 1000

// Check says why an expression is not one (RE2 syntax), or that it is too large.
func Check(expr string) error {
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return fmt.Errorf("not a regular expression (RE2): %w", err)
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return fmt.Errorf("not a regular expression (RE2): %w", err)
	}
	if n := size(prog); n > MaxSize {
		return fmt.Errorf("the regular expression is compiled to %d instructions, and %d are the most; write a simpler one", n, MaxSize)
	}
	return nil
}

func size(prog *syntax.Prog) int {
	n := len(prog.Inst)
	for i := range prog.Inst {
		n += len(prog.Inst[i].Rune) / 20 // each range is two runes
	}
	return n
}
