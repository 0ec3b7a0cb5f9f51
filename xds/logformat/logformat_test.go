package logformat

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	have, err := Parse("100%% [%START_TIME(%Y%%)%] %REQ(X-A?X-B):8%\n")
	want := []Piece{{Literal: "100% ["}, {Name: "START_TIME", Argument: "%Y%%"}, {Literal: "] "},
		{Name: "REQ", Argument: "X-A?X-B", Max: 8}, {Literal: "\n"}}
	if err != nil || len(have) != len(want) {
		t.Fatalf("%v %v", have, err)
	}
	for i := range want {
		if have[i] != want[i] {
			t.Errorf("piece %d is %+v, want %+v", i, have[i], want[i])
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"%":                       "no operator",
		"%%%":                     "no operator",
		"%NOPE%":                  "%NOPE% is unknown",
		"%PROTOCOL":               "no closing",
		"%PROTOCOL(x)%":           "takes no argument",
		"%PROTOCOL:x%":            "not a positive number",
		"%RESPONSE_CODE:3%":       "takes no length",
		"%REQ%":                   "needs an argument",
		"%GRPC_STATUS(NUMBER):1%": "is a number and takes no length",
		"%REQ(?)%":                "name is empty",
		"%REQ(x?)%":               "name is empty",
		"%REQ(x%":                 "closing parenthesis",
		"%REQ(x?y?z)%":            "more than one alternative",
		"%START_TIME(%Q)%":        "%Q is unknown",
		"%START_TIME(%E3)%":       "%E must be",
		"%START_TIME(%4g)%":       "followed by f",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// A literal in a time format stays what it is.
func TestTimeLiterals(t *testing.T) {
	parts, err := ParseTime("%Y年%m月 é")
	var out []byte
	for i := range parts {
		out = parts[i].Append(out, time.Unix(0, 0).UTC())
	}
	if err != nil || string(out) != "1970年01月 é" {
		t.Errorf("%q %v", out, err)
	}
}

// FuzzParse: parsing ends, and what is parsed is made of known operators.
func FuzzParse(f *testing.F) {
	f.Add("%REQ(:PATH?X):3% %START_TIME(%E3S)% %% x")
	f.Fuzz(func(t *testing.T, text string) {
		pieces, err := Parse(text)
		if err != nil {
			return
		}
		for _, p := range pieces {
			if _, ok := Operators[p.Name]; p.Name != "" && !ok {
				t.Errorf("%q", p.Name)
			}
		}
	})
}
