package tlscontext

import "testing"

// TestCoversASCII: names are the same in any case, as far as ASCII has one (RFC 4343 3).
func TestCoversASCII(t *testing.T) {
	for _, tc := range []struct {
		name, host string
		want       bool
	}{
		{"KEY.example", "key.EXAMPLE", true}, {"*.Example", "key.example", true},
		{"key.example", "\u212aey.example", false}, {"\u212aey.example", "key.example", false},
		{"\ufffd.example", "\xff.example", false}, {"*.example", "\xff.example", false},
	} {
		if got := covers(tc.name, tc.host); got != tc.want {
			t.Errorf("%q for %q: %v", tc.name, tc.host, got)
		}
	}
}
