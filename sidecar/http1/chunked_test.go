package http1

import (
	"bytes"
	"io"
	"net/http/httputil"
	"strconv"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// chunkedSeeds are bodies, good and bad.
var chunkedSeeds = []string{
	"0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n", "3;x=y\r\nabc\r\n00\r\n\r\n", "3\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\nrest",
	"A\r\n0123456789\r\n0\r\n\r\n", "3;x=\"a\\\"b\"\r\nabc\r\n0;z\r\n\r\n", "3\nabc\n0\n\n", "3 \r\nabc\r\n0\r\n\r\n",
	"10000000000000003\r\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "0\r\nContent-Length: 3\r\n\r\n", "1\r\na\r\n1\r\n\n\r\n0\r\n\r\n",
}

// FuzzChunked: a body that the decoder takes, however it is cut, is the body that
// net/http's reader finds and that the grammar of RFC 9112 7.1 gives.
func FuzzChunked(f *testing.F) {
	for i, s := range chunkedSeeds {
		f.Add([]byte(s), i+1)
	}
	f.Fuzz(func(t *testing.T, raw []byte, step int) {
		if step < 1 || step > 1<<16 {
			step = 1
		}
		data, used, done, err := decodeChunked(raw, step)
		if err != nil || !done {
			return
		}
		want, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(raw)))
		if err != nil || !bytes.Equal(data, want) {
			t.Fatalf("%q: %q, net/http's %q %v", raw, data, want, err)
		}
		want, end, ok := grammar(raw)
		if !ok || !bytes.Equal(data, want) || used != end {
			t.Fatalf("%q: %q of %d bytes, by the grammar %q of %d %v", raw, data, used, want, end, ok)
		}
		// What we make of it is read as the same again, and by net/http.
		out, err := AppendLastChunk(AppendChunk(nil, data), nil)
		if err != nil {
			t.Fatal(err)
		}
		again, used, done, err := decodeChunked(out, step)
		if err != nil || !done || used != len(out) || !bytes.Equal(again, data) {
			t.Fatalf("%q: read back as %q %v %v", out, again, done, err)
		}
	})
}

func decodeChunked(raw []byte, step int) (data []byte, used int, done bool, err error) {
	p := &parsed{framing: Chunked}
	err = p.readBody(raw, 0, step, message.UnknownLength)
	return p.body, p.used, p.whole, err
}

// grammar reads a chunked body line by line, without a state machine. Extensions and
// trailers are what the decoder let pass.
func grammar(b []byte) (data []byte, end int, ok bool) {
	at := 0
	line := func() ([]byte, bool) {
		i := bytes.Index(b[at:], []byte("\r\n"))
		if i < 0 {
			return nil, false
		}
		l := b[at : at+i]
		at += i + 2
		return l, !bytes.ContainsAny(l, "\r\n\x00")
	}
	for {
		l, ok := line()
		size, _, _ := bytes.Cut(l, []byte(";"))
		n, err := strconv.ParseUint(string(size), 16, 63)
		if !ok || err != nil {
			return nil, 0, false
		}
		if n == 0 {
			break
		}
		if uint64(len(b)-at) < n+2 || string(b[at+int(n):at+int(n)+2]) != "\r\n" {
			return nil, 0, false
		}
		data = append(data, b[at:at+int(n)]...)
		at += int(n) + 2
	}
	for {
		l, ok := line()
		if !ok {
			return nil, 0, false
		}
		if len(l) == 0 {
			return data, at, true
		}
	}
}

// TestUnderscoresInTrailers: what holds for fields holds for trailers.
func TestUnderscoresInTrailers(t *testing.T) {
	const body = "0\r\nX_User: admin\r\nX-Other: 1\r\n\r\n"
	for u, want := range map[Underscores]string{AllowUnderscores: "X_User: admin; X-Other: 1; ", DropUnderscores: "X-Other: 1; ", RejectUnderscores: "underscore_in_field_name"} {
		d := BodyDecoder{Underscores: u}
		var trailers message.Fields
		for range 2 { // also of the next body
			d.Start(Chunked, 0, Limits{}.WithDefaults())
			_, _, _, err := d.Decode([]byte(body), &trailers)
			got := ""
			if err != nil {
				got = err.(*Error).Reason
			} else {
				for i := range trailers.Slots() {
					if name, value, ok := trailers.At(i); ok {
						got += name + ": " + value + "; "
					}
				}
			}
			if got != want {
				t.Errorf("%d: %q, want %q", u, got, want)
			}
		}
	}
}
