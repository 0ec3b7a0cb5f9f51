package telemetry

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestPlainPrefix: looking at eight bytes at a time finds what looking at each finds,
// at every place in a value.
func TestPlainPrefix(t *testing.T) {
	naive := func(s []byte, quotes bool) int {
		for i, c := range s {
			if escapedSize(c, quotes) != 1 || c == '\t' {
				return i
			}
		}
		return len(s)
	}
	check := func(s []byte, quotes bool) {
		t.Helper()
		// A prefix in whole steps may end up to seven bytes early.
		if got, want := plainPrefix(s, quotes), naive(s, quotes); got > want || got <= want-8 || want == len(s) && got != want {
			t.Fatalf("%q, quotes %v: %d bytes, want up to %d", s, quotes, got, want)
		}
		if n := len(s); n <= 8 {
			// What stands before is not asked.
			if got := shortPlain(append([]byte("\x00\"\\\x7f\t\xff  "), s...), n, quotes); got != (naive(s, quotes) == n) {
				t.Fatalf("%q, quotes %v: plain %v", s, quotes, got)
			}
		}
	}
	for length := range 20 {
		for at := range length {
			for c := range 256 {
				s := make([]byte, length)
				for i := range s {
					s[i] = byte(0x20 + rand.IntN(2)) // a borrow must not pass to a neighbour
				}
				s[at] = byte(c)
				check(s, true)
				check(s, false)
			}
		}
	}
}

// TestSecondCache: the text is that of the time package, also where the second
// changes and where it goes back.
func TestSecondCache(t *testing.T) {
	var c secondCache
	for _, ns := range []int64{0, 1, 999_999, 1e6, 999_999_999, 1e9, 1_764_123_456_789_000_000, 1_764_123_456_000_000_000, 1_764_123_455_123_456_789, -1, -1e9, -1_500_000_000} {
		at := time.Unix(0, ns).UTC()
		if got, want := string(c.append(nil, at)), at.Format("2006-01-02T15:04:05.000Z"); got != want {
			t.Errorf("%d: %s, want %s", ns, got, want)
		}
	}
	now, before := time.Unix(100, 0).UTC(), time.Unix(99, 0).UTC()
	buf := c.append(nil, now)
	if n := testing.AllocsPerRun(100, func() { buf = c.append(c.append(buf[:0], before), now) }); n > 0 {
		t.Errorf("seconds that alternate: %v allocations", n)
	}
}

// TestQuoteWhatIsNoUTF8: as in Envoy its bytes can still be told apart, each as the character
// of its number; what is UTF-8 stays as it is.
func TestQuoteWhatIsNoUTF8(t *testing.T) {
	for in, want := range map[string]string{
		"":                 `""`,
		"h\u00e9 \u20ac":   "\"h\u00e9 \u20ac\"",
		"h\xc3":            `"h\u00c3"`,
		"\u00e9\xff\"\\\n": `"\u00c3\u00a9\u00ff\"\\\n"`,
		"\x80\x9f\x7f":     `"\u0080\u009f\u007f"`,
		"\ufffd":           "\"\ufffd\"",
	} {
		if got := string(quoteFrom([]byte("x"+in), 1)); got != "x"+want {
			t.Errorf("%q is %s, want x%s", in, got, want)
		}
	}
}

// TestHeaderOfAnotherHeader: as in Envoy a value is what the other was, tabs and bytes beyond
// ASCII (RFC 9110 5.5) included. What no field value may have is escaped.
func TestHeaderOfAnotherHeader(t *testing.T) {
	f, err := ParseFormat("<%REQ(X-A)%>")
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"h\u00e9\xff \"\\\tlong enough": "<h\u00e9\xff \"\\\tlong enough>",
		"\u00e9\r\nX: \x00\x7f":         "<\u00e9\\x0d\\x0aX: \\x00\\x7f>",
		"\t\u00e9":                      "<\t\u00e9>",
	} {
		if got := string(f.AppendHeader(nil, &Record{RequestHeaders: headers{"x-a": in}})); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}
