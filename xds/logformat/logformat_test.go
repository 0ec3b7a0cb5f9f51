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
		"%PROTOCOL:x%":            "not a number of bytes",
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

// TestTimeFormats has what Envoy 1.40 shows of the same times.
func TestTimeFormats(t *testing.T) {
	saturday := time.Date(2026, 11, 28, 1, 57, 3, 475_700_000, time.UTC)
	for format, want := range map[string]string{
		"%:z|%Ez|%::z|%E*z|%z|%Z":         "+00:00|+00:00|+00:00:00|+00:00:00|+0000|UTC",
		"%k|%l|%I|%P|%p|%r":               " 1| 1|01|am|AM|01:57:03 AM",
		"%u|%w|%U|%W|%V|%G|%g|%C":         "6|6|47|47|48|2026|26|20",
		"%c|%x|%X":                        "Sat Nov 28 01:57:03 2026|11/28/26|01:57:03",
		"%E*S|%E6S|%E0S|%E*f|%E3f|%3f|%f": "03.4757|03.475700|03|4757|475|475|475700000",
		"%E4Y":                            "2026",
	} {
		if got := show(t, format, saturday); got != want {
			t.Errorf("%s is %q, want %q", format, got, want)
		}
	}
	for at, want := range map[time.Time]string{
		time.Date(2023, 1, 1, 0, 5, 0, 0, time.UTC):    "7 0 01 00 52 2022 22  0 12 00 0", // a Sunday, in the last year's last week
		time.Date(2024, 12, 30, 13, 5, 0, 0, time.UTC): "1 1 52 53 01 2025 25 13  1 00 0",
	} {
		if got := show(t, "%u %w %U %W %V %G %g %k %l %E*S %E*f", at); got != want {
			t.Errorf("%v is %q, want %q", at, got, want)
		}
	}
	for _, format := range []string{"%ES", "%Ef", "%:", "%E", "%E*", "%Q", "%O", "%+", "%:y", "%n"} {
		if _, err := ParseTime(format); err == nil {
			t.Errorf("%s is taken", format)
		}
	}
}

func show(t *testing.T, format string, at time.Time) string {
	t.Helper()
	parts, err := ParseTime(format)
	if err != nil {
		t.Fatal(err)
	}
	var b []byte
	for i := range parts {
		b = parts[i].Append(b, at)
	}
	return string(b)
}
