package listener

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"
)

// TestLongRequestLine: a line that is longer than what is looked at is none of HTTP, whether or
// not its end came together with its beginning.
func TestLongRequestLine(t *testing.T) {
	for n, want := range map[int]string{0: "http/1.1", 1: ""} {
		const end = " HTTP/1.1\r\n"
		line := "GET /" + strings.Repeat("a", maxRequestLine-len("GET /")-len(end)+n) + end
		if got, err := httpProtocol([]byte(line)); got != want || err != nil {
			t.Errorf("%d bytes: %q, %v", len(line), got, err)
		}
		if got, err := httpProtocol([]byte(line)[:maxRequestLine]); got != want || err != nil {
			t.Errorf("the first of %d bytes: %q, %v", len(line), got, err)
		}
	}
}

// requestLine is what is recognised, of lines that are not too long.
var requestLine = regexp.MustCompile(`\A[-_A-Za-z]{1,32}(?: [^\n]*)? HTTP/(1\.[01])\r?\n`)

// FuzzHTTPProtocol: what is decided of the first bytes stays so with more of them, and is what an
// expression says of them.
func FuzzHTTPProtocol(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\n", "POST /a HTTP/1.0\n", http2Preface, "\x16\x03\x01", "GET / HTTP/3\r\n", "SSH-2.0-x\r\n", "GET\x00/ HTTP/1.1\r\n",
		"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "M-SEARCH * HTTP/1.1\r\nA", " GET / HTTP/1.1\r\n", "GET HTTP/1.1\n", "HTTP/1.1\n", "GET  HTTP/1.1\r\r\n", "PRI", "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		decided, was := false, ""
		for i := range min(len(b), 600) + 1 {
			p, err := httpProtocol(b[:i])
			if more := errors.Is(err, errMoreBytes); more != (err != nil) || more && p != "" || decided && (more || p != was) {
				t.Fatalf("%q: %q %v, was %q", b[:i], p, err, was)
			}
			decided, was = err == nil, p
		}
		if len(b) > 600 {
			return
		}
		want := ""
		if m := requestLine.FindSubmatch(b); m != nil {
			want = "http/" + string(m[1])
		} else if bytes.HasPrefix(b, []byte(http2Preface)) {
			want = "h2c"
		}
		if was != want {
			t.Errorf("%q is %q, want %q", b, was, want)
		}
	})
}
