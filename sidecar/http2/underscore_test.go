package http2

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
)

// TestUnderscoreByIndex: an underscore counts wherever the name comes from, also with a
// new value beside a name of the dynamic table.
func TestUnderscoreByIndex(t *testing.T) {
	got := make(chan string, 2)
	handler := func(s *Stream) {
		v, _ := s.Request().Fields.Get("x_user")
		got <- v
		ok(s)
	}
	cfg := Default()
	cfg.Underscores = http1.RejectUnderscores
	r := rawClient(t, serve(t, cfg, handler).addr)
	r.get(1, "x_user", "one") // enters the table
	r.wantReset(1, ProtocolError)
	r.get(3, "x_user", "two")
	r.wantReset(3, ProtocolError)

	cfg = Default()
	cfg.Underscores = http1.DropUnderscores
	r = rawClient(t, serve(t, cfg, handler).addr)
	r.get(1, "x_user", "one")
	r.get(3, "x_user", "two")
	for range 2 {
		if v := <-got; v != "" {
			t.Errorf("x_user %q reached the handler", v)
		}
	}
}

// TestUnderscoreInTrailers: the trailers of a request are its client's as its head is;
// those of a response are a server's, whose names are left alone.
func TestUnderscoreInTrailers(t *testing.T) {
	for u, want := range map[http1.Underscores]string{
		http1.AllowUnderscores: "kept", http1.DropUnderscores: "none", http1.RejectUnderscores: "",
	} {
		cfg := Default()
		cfg.Underscores = u
		got := make(chan string, 1)
		s := serve(t, cfg, func(s *Stream) {
			v := "none"
			for {
				if _, last, err := s.Next(); last || err != nil {
					break
				}
			}
			if tr := s.Trailers(); tr != nil {
				v, _ = tr.Get("x_user")
			}
			got <- v
			ok(s)
		})
		r := rawClient(t, s.addr)
		r.headers(1, false, post...)
		r.headers(1, true, "x_user", "kept")
		if u == http1.RejectUnderscores {
			r.wantReset(1, ProtocolError)
		} else if v := <-got; v != want {
			t.Errorf("mode %d: trailer x_user is %q, want %q", u, v, want)
		}
	}
}
