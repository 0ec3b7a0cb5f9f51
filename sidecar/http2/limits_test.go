package http2

import (
	"slices"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// strict ends connections for malformed messages, as Envoy does unless told otherwise.
func strict() *Config {
	cfg := Default()
	cfg.MalformedEndsConnection = true
	return cfg
}

// TestLargeAnswersEndOneStream: a response whose head or trailers are more than is taken
// is well-formed. It ends its own stream, and no other, whatever malformed ones end.
func TestLargeAnswersEndOneStream(t *testing.T) {
	r, cc := rawServer(t, strict())
	open := func() *Stream {
		st, err := cc.Open(newRequest("GET", "/"), true)
		if err != nil {
			t.Fatal(err)
		}
		_ = st.Flush()
		r.next(xhttp2.FrameHeaders)
		return st
	}
	a, b, c := open(), open(), open()
	for _, s := range []*Stream{a, b, c} {
		defer s.Close()
	}
	var resp message.Response
	r.headers(1, true, append([]string{":status", "200"}, many("x", "v", 101)...)...)
	if _, err := a.ReadHead(&resp); err == nil {
		t.Error("the head was taken")
	}
	r.wantReset(1, ProtocolError)
	r.headers(3, false, ":status", "200")
	r.headers(3, true, many("x", "v", 101)...)
	r.wantReset(3, ProtocolError)
	r.headers(5, true, ":status", "204")
	if _, err := c.ReadHead(&resp); err != nil {
		t.Errorf("the other stream: %v", err)
	}
}

// TestWrongLengthEndsOneStream: DATA that is more or less than was announced ends its own
// stream (RFC 9113 8.1.1), and none of the others of who shares the connection, whatever
// malformed heads end.
func TestWrongLengthEndsOneStream(t *testing.T) {
	whole := func(s *Stream) {
		for last := false; !last; {
			var err error
			if _, last, err = s.Next(); err != nil {
				return
			}
		}
		ok(s)
	}
	for name, send := range map[string]func(r *raw, id uint32){
		"more":                 func(r *raw, id uint32) { r.must(r.fr.WriteData(id, false, []byte("1234"))) },
		"more, with the end":   func(r *raw, id uint32) { r.must(r.fr.WriteData(id, true, []byte("1234"))) },
		"less":                 func(r *raw, id uint32) { r.must(r.fr.WriteData(id, true, []byte("12"))) },
		"nothing, but the end": func(r *raw, id uint32) { r.must(r.fr.WriteData(id, true, nil)) },
	} {
		t.Run(name, func(t *testing.T) {
			r := rawClient(t, serve(t, strict(), whole).addr)
			r.headers(1, false, append(slices.Clone(post), "content-length", "3")...)
			send(r, 1)
			r.wantReset(1, ProtocolError)
			r.get(3)
			r.wantStatus(3, "200")

			host, cc := rawServer(t, strict())
			var streams [2]*Stream
			for i := range streams {
				s, err := cc.Open(newRequest("GET", "/"), true)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				_ = s.Flush()
				host.next(xhttp2.FrameHeaders)
				streams[i] = s
			}
			host.headers(1, false, ":status", "200", "content-length", "3")
			send(host, 1)
			host.wantReset(1, ProtocolError)
			host.headers(3, true, ":status", "200")
			var resp message.Response
			if _, err := streams[1].ReadHead(&resp); err != nil {
				t.Errorf("the other stream: %v", err)
			}
		})
	}
}

// TestUnderscoreEndsOneStream: a name with an underscore is well-formed too.
func TestUnderscoreEndsOneStream(t *testing.T) {
	cfg := strict()
	cfg.Underscores = http1.RejectUnderscores
	r := rawClient(t, serve(t, cfg, ok).addr)
	r.get(1, "x_user", "v")
	r.wantReset(1, ProtocolError)
	r.headers(3, false, post...)
	r.wantStatus(3, "200")
	r.next(xhttp2.FrameData)
	r.get(5, "x_user", "v", "upgrade", "v") // malformed as well
	r.wantGoAway(ProtocolError)
}

// TestLongField: a field may be as long as the limit on heads lets it; one that is longer
// is answered, as a head that is, and leaves the connection in step.
func TestLongField(t *testing.T) {
	cfg := Default()
	cfg.Limits.HeadBytes = 256 << 10 // max_request_headers_kb: 256
	s := serve(t, cfg, ok)
	cc := dialClient(t, s.addr, nil)
	for _, c := range []struct{ size, status int }{{70 << 10, 200}, {250 << 10, 200}, {270 << 10, 431}, {10, 200}} {
		req := newRequest("GET", "/")
		req.Fields.Add("x-token", strings.Repeat("\x7e", c.size)) // which Huffman codes would make longer
		resp, _, err := exchange(cc, req, "")
		if err != nil || resp.Status != c.status {
			t.Errorf("a field of %d bytes: %d, %v", c.size, resp.Status, err)
		}
	}
}

// TestFieldTooLong: a bound of single fields counts what comes, and ends the connection.
func TestFieldTooLong(t *testing.T) {
	cfg := Default()
	cfg.Limits.HeadBytes, cfg.MaxFieldBytes = 256<<10, 64<<10
	s := serve(t, cfg, ok)
	for _, c := range []struct {
		name, value string
		refused     bool
	}{
		{"x-token", strings.Repeat("\x7e", 64<<10), false},
		{"x-token", strings.Repeat("\x7e", 64<<10+1), true},
		{strings.Repeat("n", 64<<10+1), "v", true},
	} {
		req := newRequest("GET", "/")
		req.Fields.Add(c.name, c.value)
		resp, _, err := exchange(dialClient(t, s.addr, nil), req, "")
		if (err != nil) != c.refused || err == nil && resp.Status != 200 {
			t.Errorf("a name of %d bytes and a value of %d: %v, %v", len(c.name), len(c.value), resp, err)
		}
	}
}

// TestExpectationWithoutCase: RFC 9110 10.1.1.
func TestExpectationWithoutCase(t *testing.T) {
	r := rawClient(t, serve(t, nil, func(s *Stream) {
		for {
			if _, last, err := s.Next(); last || err != nil {
				break
			}
		}
		ok(s)
	}).addr)
	for i, v := range []string{"100-continue", "100-Continue", "100-CONTINUE"} {
		id := uint32(2*i + 1)
		r.headers(id, false, append(append([]string(nil), post...), "expect", v)...)
		r.must(r.fr.WriteData(id, true, []byte("x")))
		r.wantStatus(id, "200")
		r.next(xhttp2.FrameData)
	}
}
