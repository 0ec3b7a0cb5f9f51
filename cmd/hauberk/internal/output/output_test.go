package output

import (
	"strings"
	"testing"
)

// Nodes choose much of what is printed: it must neither command the terminal nor
// forge lines and columns.
func TestTextOfOthers(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                 "plain",
		"größe 日本":              "größe 日本",
		"\x1b[2Jgone":           `\x1b[2Jgone`,
		"a\nproblem: b\tc":      `a\nproblem: b\tc`,
		"\u009b2J":              `\u009b2J`,
		"\u202egnp":             `\u202egnp`,
		"cut \xff":              `cut \xff`,
		`C:\path "quoted" it's`: `C:\path "quoted" it's`,
	} {
		if got := Text(in); got != want {
			t.Errorf("%q is printed as %q, want %q", in, got, want)
		}
	}
	var b strings.Builder
	if err := Table(&b, []string{"SIDECAR", "VERSION"}, [][]string{{"n1", "1.0\x1b]0;x\a\nn2  1.1"}}); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); strings.ContainsAny(got, "\x1b\a") || strings.Count(got, "\n") != 2 {
		t.Errorf("table %q", got)
	}
}
