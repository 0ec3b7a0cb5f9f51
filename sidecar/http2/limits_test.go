package http2

import (
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
