package http2

import (
	"strings"
	"testing"
)

// TestSinglesAreJoined: a handler sees one content-type, whatever a client sends: a rule that
// finds the one it wants among several would let the others through.
func TestSinglesAreJoined(t *testing.T) {
	got := make(chan string, 1)
	srv := serve(t, Default(), func(s *Stream) {
		v, _ := s.Request().Fields.Get("content-type")
		got <- strings.Clone(v)
		ok(s)
	})
	r := rawClient(t, srv.addr)
	r.headers(1, true, append(append([]string(nil), get...), "content-type", "application/json", "content-type", "", "x", "y", "content-type", "text/xml")...)
	r.wantStatus(1, "200")
	if v := <-got; v != "application/json,text/xml" {
		t.Errorf("%q", v)
	}
	_ = r.c.Close()
}
