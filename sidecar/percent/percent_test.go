package percent

import (
	"net/url"
	"testing"
)

func TestAppend(t *testing.T) {
	for s, want := range map[string]string{
		"": "", "a": "a", "%41": "A", "%2f%2F": "//", "a%20b": "a b", "%": "%", "%4": "%4", "x%4": "x%4",
		"%zz": "%zz", "%4g": "%4g", "%%41": "%A", "%00": "\x00", "%ff": "\xff", "%25%34%31": "%41",
	} {
		if got := string(Append(nil, s)); got != want {
			t.Errorf("%q stands for %q, want %q", s, got, want)
		}
		if !Equal(s, want) || Equal(s, want+"x") || want != "" && Equal(s, want[1:]) {
			t.Errorf("%q and %q are compared otherwise", s, want)
		}
	}
	for _, i := range []int{-1, 0, 2, 9} {
		if b, ok := Octet("ab%4", i); ok {
			t.Errorf("at %d: %q", i, b)
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	dst, equal := make([]byte, 0, 64), false
	if n := testing.AllocsPerRun(100, func() { dst, equal = Append(dst[:0], "a%20b%zz"), Equal("a%20b", "a b") }); n != 0 || !equal {
		t.Errorf("%v allocations, equal %v", n, equal)
	}
}

// FuzzAppend: where the standard library can decode, the result is the same.
func FuzzAppend(f *testing.F) {
	for _, s := range []string{"a%20b", "%", "%%41", "%4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := string(Append(nil, s))
		if want, err := url.PathUnescape(s); err == nil && got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
		if !Equal(s, got) || len(got) > len(s) {
			t.Errorf("%q: %q", s, got)
		}
	})
}
