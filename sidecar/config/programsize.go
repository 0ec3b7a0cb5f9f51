package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"regexp/syntax"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// programSize refuses an expression whose program is larger than it says it may be. What is counted are the
// steps that RE2's program has too: it has at least as many, and more for classes of several ranges. The ways between
// steps are none: RE2 makes lists of them.
func programSize(m *matcherv3.RegexMatcher, path string) error {
	most := m.GetGoogleRe2().GetMaxProgramSize()
	if most == nil {
		return nil
	}
	parsed, err := syntax.Parse(m.GetRegex(), syntax.Perl)
	if err != nil {
		return nil // it is refused where it is read
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil
	}
	size := uint32(0)
	anchored := program.StartCond()&syntax.EmptyBeginText != 0
	if !anchored {
		size = 2 // RE2 begins with a loop over what is before the match
	}
	for _, i := range program.Inst {
		switch i.Op {
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL, syntax.InstMatch:
			size++
		}
	}
	if size > most.GetValue() {
		return fail(path+".google_re2.max_program_size", "the program of %q has %d steps or more, and may have %d", m.GetRegex(), size, most.GetValue())
	}
	return nil
}
