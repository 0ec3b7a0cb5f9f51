package route

import (
	"regexp"
	"regexp/syntax"
	"strings"
	"testing"
)

// FuzzWideExpression: what an expression says of the first 256 characters it says of bytes,
// whatever it is turned into; of ASCII alone where it may have no regard to case, as that of
// other letters is no concern of bytes. What is no expression stays none.
func FuzzWideExpression(f *testing.F) {
	for _, seed := range [][2]string{
		{`/api/v\d+(/.*)?`, "/api/v1/x"}, {`(?i)[a-k\x4b\]-]+`, "aK]-"}, {`(?i:\pL)\PL\Q.*\E`, "a1.*"},
		{`[[:^alpha:]\d\-x]`, "-"}, {`[]a]\101(?P<n>b|\Bc)`, "]Ab"}, {`(?i)(?-i:a)[\P{Lu}-]`, "a-"}, {`\Qa`, "a"}, {`[^\]\\]`, "a"},
		{`(?i)[\x7f-\xff]`, "s"}, {`(?i)[^t-\377]`, "S"}, {`(?i)[~-\x{e9}-z]+`, "-z"}, {`(?i)\p{Cc}`, "s"},
		{"[\u00e9-\\xff]", "\xc3"}, {"[\xc0-\\377]+", "\xc0\xe9"}, {"a\\QĀ\\E|[^\x80-\\x{ff}]", "a"},
		{`\p{Lu}\p{lu}|[\P{La tin}]`, "A"}, {`\p{^Latin}\Q\p{lu}`, `1\p{lu}`}, {`\\pl[\\p{l}]`, `\pl{`},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if folds := strings.Contains(pattern, "(?"); folds && !isASCII(pattern+text) || len(pattern) > 200 || knownToGo(pattern) != pattern {
			return
		}
		_, err := syntax.Parse(latin1(pattern), syntax.Perl)
		re, wideErr := compileBytes(pattern)
		switch {
		case err != nil && wideErr == nil:
			t.Fatalf("%q is none (%v), and became %q", pattern, err, re)
		case err != nil || wideErr != nil:
			return // a number above 255, or classes that make it too large
		}
		plain, err := regexp.Compile(latin1(pattern))
		if err != nil {
			return // too large
		}
		if want, got := plain.MatchString(latin1(text)), re.MatchString(wide(text)); got != want {
			t.Errorf("%q, as %q: %q matches %t, was %t", pattern, re, text, got, want)
		}
	})
}
