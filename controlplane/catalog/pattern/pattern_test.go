package pattern

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for expr, want := range map[string]string{
		`/v[0-9]+/(users|orders)/[^/]+`: "",
		`/[a-z]{900}`:                   "",
		`[\p{L}\p{N}_-]+`:               "",
		`/[a-z]{1000}`:                  "compiled to 1003 instructions, and 1000 are the most",
		`(.{100}){9}.{100}`:             "and 1000 are the most",
		`\p{L}{100}`:                    "and 1000 are the most",
		`(`:                             "not a regular expression (RE2): error parsing regexp: missing closing )",
		`(?=a)`:                         "not a regular expression (RE2)",
		`a{1001}`:                       "not a regular expression (RE2)",
	} {
		switch err := Check(expr); {
		case want == "" && err != nil:
			t.Errorf("%s: %v", expr, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %s", expr, err, want)
		}
	}
}
