package proxytlv

import "testing"

func TestParse(t *testing.T) {
	for text, whole := range map[string]bool{
		"": true, "\x01\x00\x00": true, "\x01\x00\x01a": true, "\x01\x00\x01a\x02\x00\x00": true,
		"\x01": false, "\x01\x00": false, "\x01\x00\x01": false, "\x01\x00\x01a\x02": false, "\x01\xff\xffa": false,
	} {
		if l, ok := Parse([]byte(text)); ok != whole || ok && string(l) != text {
			t.Errorf("%q: %q, %t", text, l, ok)
		}
	}
}

func TestLists(t *testing.T) {
	var none List
	l := none.With(1, "a").With(2, "").With(1, "bc")
	var got string
	for kind, value := range l.All() {
		got += string('0'+rune(kind)) + value + " "
	}
	for what, pair := range map[string][2]string{
		"all":            {got, "1a 2 1bc "},
		"without":        {string(l.Without(none.With(1, "x"))), string(none.With(2, ""))},
		"all of a list":  {string((&Choice{All: true}).Of(l)), string(l)},
		"none of it":     {string((&Choice{}).Of(l)), ""},
		"one type":       {string((&Choice{Types: "\x01\x07"}).Of(l)), string(none.With(1, "a").With(1, "bc"))},
		"within its own": {string(l.Within(len(l))), string(l)},
		"within less":    {string(l.Within(8)), string(none.With(1, "a").With(2, ""))},
		"the short ones": {string(none.With(1, "long").With(2, "").Within(3)), string(none.With(2, ""))},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %q, want %q", what, pair[0], pair[1])
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("\x03\x00\x04abcd\x01\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, ok := Parse(b)
		if !ok {
			return
		}
		var again List
		for kind, value := range l.All() {
			again = again.With(kind, value)
		}
		if again != l {
			t.Errorf("%q became %q", l, again)
		}
		Sum(b, 0)
		if after, ok := Parse(b); !ok || len(after) != len(l) {
			t.Errorf("a checksum made %q of %q", after, l)
		}
	})
}
