package route

import (
	"math/big"
	"regexp"
	"regexp/syntax"
	"strings"
	"testing"
	"time"
)

// FuzzResetHeader: a wait is the number that a response has, or how far its time is ahead, also of
// numbers that no type holds; what is no number asks for none.
func FuzzResetHeader(f *testing.F) {
	for _, v := range []string{"10", "1020", "900", "0", "soon", "18446744073709551615", "18446744073709551616", "-1", "+5", "1_0", "007", " 5", "5.0", ""} {
		f.Add(v, false)
		f.Add(v, true)
	}
	digits := regexp.MustCompile(`\A[0-9]+\z`)
	now := time.Unix(1000, 0)
	f.Fuzz(func(t *testing.T, v string, unix bool) {
		h := ResetHeader{Name: "x-reset", Unix: unix}
		got, ok := h.interval(response(429, "x-reset", v), now)
		n, _ := new(big.Int).SetString("0"+strings.TrimLeft(v, "0"), 10)
		want := digits.MatchString(v) && n.IsUint64()
		if unix && want {
			n.Sub(n, big.NewInt(now.Unix()))
			want = n.Sign() >= 0
		}
		if ok != want || !ok && got != 0 {
			t.Fatalf("%q: %v %v", v, got, ok)
		}
		if longest := big.NewInt(1 << 32); ok && n.Cmp(longest) > 0 {
			n = longest
		}
		if ok && got != time.Duration(n.Int64())*time.Second {
			t.Errorf("%q: %v, want %v s", v, got, n)
		}
		p := RetryPolicy{RateLimited: &RateLimitedBackOff{Headers: []ResetHeader{h}}}
		d, waits := p.RateLimitedBackOff(response(429, "x-reset", v), now)
		if waits != (ok && got > 0 && got <= defaultRateLimitedMax) || waits && (d < got || d > got*3/2) {
			t.Errorf("%q: waits %v (%v) for %v", v, d, waits, got)
		}
	})
}

// FuzzRegex: of ASCII an expression says what Go's own, anchored at both ends, says of it.
func FuzzRegex(f *testing.F) {
	for _, seed := range [][2]string{
		{`/api/v\d+(/.*)?`, "/api/v1/x"}, {`a|b`, "ab"}, {`a)(b`, "ab"}, {`(?i)[a-k]+`, "aK"}, {`\Qa`, "a"}, {`\Qa\E|b`, "b"}, {`^a$`, "a"},
		{`a$|b`, "a\n"}, {`(?m)^a$`, "a\nb"}, {`.*`, "a\nb"}, {`(?s).*`, "a\nb"}, {`a{2,3}?`, "aaa"}, {`[^a]*`, "bcd"}, {`(?U)a+`, "aa"}, {`\bfoo\b`, "foo"},
		{`[[:alpha:]]+\.\x2e`, "ab.."}, {`(?P<n>x)(?:y)`, "xy"}, {``, ""}, {`(?i:k)`, "K"}, {`a\`, "a"}, {`\z`, ""}, {`(?x)`, ""},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if !isASCII(pattern+text) || len(pattern) > 200 || knownToGo(pattern) != pattern {
			return
		}
		parsed, err := syntax.Parse(pattern, syntax.Perl)
		re, ours := Regex(pattern)
		if err != nil || ours != nil {
			if (err == nil) != (ours == nil) && (err != nil || parsed.MaxCap() == 0 && !strings.ContainsAny(pattern, `{\[`)) {
				t.Errorf("%q: %v, Go says %v", pattern, ours, err)
			}
			return // classes of all characters and repetitions may become too large
		}
		plain, err := regexp.Compile(pattern)
		if err != nil {
			return
		}
		plain = regexp.MustCompile(`\A(?:` + ended(plain.String()) + `)\z`)
		if got, want := FullMatch(re, text), plain.MatchString(text); got != want {
			t.Errorf("%q matches %q: %v", pattern, text, got)
		}
	})
}

// ended ends a quotation that nothing ended.
func ended(pattern string) string {
	if _, err := regexp.Compile("(?:" + pattern + ")"); err != nil {
		return pattern + `\E`
	}
	return pattern
}
