package route

import (
	"regexp"
	"regexp/syntax"
	"testing"
)

// FuzzWideExpression: what an expression of ASCII says of texts of ASCII does not change,
// whatever it is turned into; what is no expression stays none.
func FuzzWideExpression(f *testing.F) {
	for _, seed := range [][2]string{
		{`/api/v\d+(/.*)?`, "/api/v1/x"}, {`(?i)[a-k\x4b\]-]+`, "aK]-"}, {`(?i:\pL)\PL\Q.*\E`, "a1.*"},
		{`[[:^alpha:]\d\-x]`, "-"}, {`[]a]\101(?P<n>b|\Bc)`, "]Ab"}, {`(?i)(?-i:a)[\P{Lu}-]`, "a-"}, {`\Qa`, "a"}, {`[^\]\\]`, "a"},
		{`(?i)[\x7f-\xff]`, "s"}, {`(?i)[^t-\377]`, "S"}, {`(?i)[~-\x{e9}-z]+`, "-z"}, {`(?i)\p{Cc}`, "s"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if !isASCII(pattern) || !isASCII(text) || len(pattern) > 200 {
			return
		}
		_, err := syntax.Parse(pattern, syntax.Perl)
		wide, wideErr := compileBytes(pattern)
		switch {
		case err != nil && wideErr == nil:
			t.Fatalf("%q is none (%v), and became %q", pattern, err, wide)
		case err != nil || wideErr != nil:
			return // a number above 255, or classes that make it too large
		}
		plain, err := regexp.Compile(pattern)
		if err != nil {
			return // too large
		}
		if want, got := plain.MatchString(text), wide.MatchString(text); got != want {
			t.Errorf("%q, as %q: %q matches %t, was %t", pattern, wide, text, got, want)
		}
	})
}
