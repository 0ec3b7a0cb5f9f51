package route

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// checkBytes tells whether a pattern matches each byte of one text, and none of another.
func checkBytes(t *testing.T, pattern, match, none string) {
	t.Helper()
	re, err := Regex(pattern)
	if err != nil {
		t.Error(err)
		return
	}
	for i := range len(match + none) {
		b := (match + none)[i : i+1]
		if got := FullMatch(re, b); got != (i < len(match)) {
			t.Errorf("%q, as %q, matches %q: %t", pattern, re, b, got)
		}
	}
}

// Between ASCII and the characters of the bytes above it is U+017F, whose other case is S.
func TestFoldedRangesGoAcrossNothing(t *testing.T) {
	for _, c := range []struct {
		pattern, match, none string
	}{
		{`(?i)[\x7f-\xff]`, "\x7f\x80\xe9\xff", "sSkKiI~"}, {`(?i)[{-\xff]`, "{~\x7f\x80\xff", "sSkKiIz"}, {"(?i)[~-\xe9]", "~\x7f\x80\xe9", "sS}\xea"},
		{`(?i)[t-\x80]`, "tTzZ{\x7f\x80", "sS\x81"}, {`(?i)[t-\x80-z]`, "tT\x80-z", "sS\x81."}, {`(?i)[\x7f-\200a]`, "\x7f\x80aA", "sS\x81"},
		{`(?i)[^\x00-\x1f\x7f-\xff]`, "sSkKiI/ ", "\x1f\x7f\x80\xff"}, {`(?i)[^t-\xff]`, "sSrR ", "tTzZ\x7f\x80\xff"},
		{`(?i)\p{Cc}`, "\x1f\x7f\x80\x9f", "sSkK\xa0"}, {`(?i)[\p{Cc}-]`, "\x1f\x7f\x9f-", "sSkK\xa0"}, {`(?i)\P{Cc}`, "sSkK\xa0", "\x1f\x7f\x9f"},
		{`(?i)[\P{L}]`, "\x7f\x80 1", "sSkKiI\xe9"}, {`(?i)[\p{^L}]`, "\x7f\x80 1", "sS\xe9"}, {`(?i)[^\P{Any}]`, "sS\x7f\x80", ""},
		{`(?i)[[:^alpha:]]`, "1\x7f\x80\xff", "sSkKiI"}, {`(?i)[\W\x7f-\xff]`, "-\x7f\xff", "sSkKiI"}, {`(?i)[^\w]`, "-\x7f\xff", "sSkKiI"},
		{`(?i)[]-\xff]`, "]^`az\xff", "[@"}, {`(?i)[--\xff]`, "-.sS\xff", ",+"}, {`(?i)[\]-\xff]`, "]sS\xff", "[@"}, {`[\t-\xff]`, "\ts\xff", "\x08"}, {`[ -\x{ff}]`, " s\xff", "\x1f"},
	} {
		checkBytes(t, c.pattern, c.match, c.none)
	}
}

// A byte and the number of one are of the same order.
func TestRangesOfBytesAndNumbers(t *testing.T) {
	for _, c := range []struct{ pattern, match, none string }{
		{"[\u00e9-\\xff]", "\xc3\xa9\xff", "\xa8"}, {"[\xc0-\\xff]", "\xc0\xe9\xff", "\xbf"}, {"[\x80-\\377]", "\x80\xff", "\x7f"},
		{"[\\x80-\xff]", "\x80\xff", "\x7f"}, {"[a-\xe9\\xff]", "a\xe9\xff", "\xea"}, {"(?i)[^\xe0-\\x{ff}]", "a\xc9", "\xe9"},
	} {
		checkBytes(t, c.pattern, c.match, c.none)
	}
	for _, bad := range []string{"[\xff-\\x80]", "[\\xff-\x80]", "[\xe9-a]", "[\\xe9-a]"} {
		if _, err := Regex(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// Classes of Unicode have the names that RE2 gives them, and no others that Go has.
func TestClassNames(t *testing.T) {
	for _, bad := range []string{
		`\p{Uppercase Letter}`, `[\p{Uppercase-Letter}]`, `\p{uppercase_letter}`, `\p{Letter}`, `\p{ Lu}`, `\p{L u}`, `\p{Lu }`, `\p{L-u}`, `\P{La tin}`, `[\P{ Latin}x]`,
		`\p{lu}`, `\p{LU}`, `\p{latin}`, `\P{LATIN}`, `\p{^lu}`, `\p{^ Lu}`, `\pl`, `\Pn`, `[\pl]`, `\p{any}`, `\p{A n y}`, `\p{}`, `\p{^}`, `\p{ }`,
		`\p{LC}`, `\p{Cn}`, `\p{Assigned}`, `\p{ASCII}`, `\p{digit}`, `\p{Old Italic}`, `\p{old_italic}`, `\p{OldItalic}`, `a|(?i)b\p{Greek_}`, "\\p{L\u00e9}", `\p{Lu`,
	} {
		if _, err := Regex(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	for _, bad := range []string{`\p{uppercase letter}`, `\P{^latin}`, `\pl`, `\p{Elvish}`} {
		if _, err := Regex("a|" + bad); err == nil || !strings.HasSuffix(strings.ReplaceAll(err.Error(), "`", ""), bad) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	good := []string{"Any", "^Any", "L", "^L"}
	for name := range unicode.Scripts {
		good = append(good, name)
	}
	for name := range unicode.Categories {
		if name != "LC" && name != "Cn" { // of Go alone
			good = append(good, name)
		}
	}
	for _, name := range good {
		for _, form := range []string{`\p{%s}`, `\P{%s}`, `[\p{%s}-]`, `(?i)[^\P{%s}a]`} {
			if _, err := Regex(fmt.Sprintf(form, name)); err != nil {
				t.Error(err)
			}
		}
	}
	for _, c := range []struct {
		pattern, value string
		want           bool
	}{
		{`\p{Old_Italic}|a`, "a", true}, {`\p{Old_Italic}`, "\xe9", false}, {`\P{Old_Italic}\p{^Old_Italic}`, "\xe9a", true}, {`[\p{Old_Italic}a]`, "a", true},
		{`\Q\p{Old_Italic}\E`, `\p{Old_Italic}`, true}, {`\\p{Old_Italic}`, `\p{Old_Italic}`, true}, {`\Q\p{lu}`, `\p{lu}`, true}, {`\\p{lu}`, `\p{lu}`, true}, {`[\\p{lu}]+`, `u{\`, true},
	} {
		re, err := Regex(c.pattern)
		if err != nil {
			t.Error(err)
		} else if got := FullMatch(re, c.value); got != c.want {
			t.Errorf("%s matches %q: %t", c.pattern, c.value, got)
		}
	}
}

// The text of an expression is kept, and each class of Unicode is spelled out in it.
func TestClassesAreShort(t *testing.T) {
	for _, p := range []string{`\pL`, `\PL`, `[\pL]`, `[\PL]`, `\p{Any}`, `\p{Lu}`, `\p{Cc}`, `\p{Common}`} {
		re, err := compileBytes(p)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(re.String()); n > 200 {
			t.Errorf("%s became %d bytes: %s", p, n, re)
		}
	}
}

var classElements = []string{
	"a", "s", "K", "-", `\-`, `\]`, `\n`, `\xe9`, "\xe9", `\x7f`, `\351`, `\101-\132`, "a-f", "Q-T", `\x80-\xc9`, "\xc0-\xff", "\xc0-\\xff", `\x{60}-\x{aa}`, `\x00-\x1f`, `~-\xff`, "{-\xc3",
	`[:alpha:]`, `[:^alpha:]`, `[:upper:]`, `[:^lower:]`, `[:word:]`, `\d`, `\W`, `\pL`, `\PL`, `\p{Lu}`, `\P{Lu}`, `\p{^Lu}`, `\p{Cc}`, `\P{Cc}`, `\p{Greek}`, `\P{Latin}`, `\p{Any}`,
}

// withoutCase spells out what a class that leaves letters out has without regard to case:
// what it leaves out in one case it does in the other.
var withoutCase = strings.NewReplacer(`[:^lower:]`, `[:^alpha:]`, `\P{Lu}`, `\P{L}\xaa\xb5\xba\xdf-\xf6\xf8-\xff`, `\p{^Lu}`, `\P{L}\xaa\xb5\xba\xdf-\xf6\xf8-\xff`)

// A class has the bytes that the same one of Go has of the first 256 characters. Go's is
// asked with regard to case, and for both cases of a letter where that is of ASCII: what
// Go does without regard to case is of letters beyond it too.
func TestRandomClasses(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1200 {
		var body string
		for range 1 + r.IntN(3) {
			body += classElements[r.IntN(len(classElements))]
		}
		pattern, like := "["+body+"]", body
		not, folds := r.IntN(3) == 0, r.IntN(2) == 0
		if not {
			pattern = "[^" + body + "]"
		}
		if folds {
			pattern, like = "(?i)"+pattern, withoutCase.Replace(body)
		}
		ref, refErr := regexp.Compile(`\A[` + latin1(like) + `]\z`)
		re, err := Regex(pattern)
		if (err == nil) != (refErr == nil) {
			t.Fatalf("%q: %v, want %v", pattern, err, refErr)
		}
		if err != nil {
			continue // a range in the wrong order
		}
		for b := range 256 {
			want := ref.MatchString(string(rune(b)))
			if folds && b < 0x80 && unicode.IsLetter(rune(b)) {
				want = want || ref.MatchString(string(rune(b^0x20)))
			}
			if got := FullMatch(re, string([]byte{byte(b)})); got != (want != not) {
				t.Fatalf("%q, as %q: byte %x matches %t", pattern, re, b, got)
			}
		}
	}
}
