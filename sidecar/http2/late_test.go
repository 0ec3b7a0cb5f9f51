package http2

import (
	"errors"
	"testing"

	xhttp2 "golang.org/x/net/http2"
)

// patient serves all but POST, which it waits for.
func patient(s *Stream) {
	if s.Request().Method == "POST" {
		for {
			if _, _, err := s.Next(); err != nil {
				return
			}
		}
	}
	ok(s)
}

// resetByUs has the server reset stream 1, whose request goes on, and waits to hear of it.
func resetByUs(r *raw) {
	r.headers(1, false, post...)
	r.must(r.fr.WriteWindowUpdate(1, 0))
	r.wantReset(1, ProtocolError)
}

// TestFramesBehindOurReset: what comes on a stream that we have reset may have been under way,
// but no more than there can have been.
func TestFramesBehindOurReset(t *testing.T) {
	for _, f := range []struct {
		name  string
		frame func(r *raw) []byte
	}{
		{"DATA", func(r *raw) []byte {
			return r.frames(func(fr *xhttp2.Framer) { _ = fr.WriteData(1, false, make([]byte, 16000)) })
		}},
		{"a byte of DATA", func(r *raw) []byte {
			return r.frames(func(fr *xhttp2.Framer) { _ = fr.WriteData(1, false, []byte("x")) })
		}},
		{"ends", func(r *raw) []byte {
			return r.frames(func(fr *xhttp2.Framer) { _ = fr.WriteData(1, true, nil) })
		}},
		{"heads", func(r *raw) []byte {
			b := r.block("a", "b")
			return r.frames(func(fr *xhttp2.Framer) {
				_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: b, EndHeaders: true, EndStream: true})
			})
		}},
	} {
		t.Run(f.name, func(t *testing.T) {
			var n counts
			cfg := n.cfg()
			cfg.StreamWindow = 65535
			srv := serve(t, cfg, patient)
			r := rawClient(t, srv.addr)
			resetByUs(r)
			r.write(f.frame(r), 100_000)
			_ = r.c.Close() // where it is not ended
			var ce *ConnError
			if err := srv.ended(); !errors.As(err, &ce) || ce.Code != EnhanceYourCalm || n[GlitchClosedStream].Load() == 0 {
				t.Errorf("the connection ended with %v; %d counted", err, n[GlitchClosedStream].Load())
			}
		})
	}
}

// TestUnderWayBehindOurReset: a client that sends all that it may before it hears of the reset
// has done nothing wrong.
func TestUnderWayBehindOurReset(t *testing.T) {
	var n counts
	cfg := n.cfg()
	cfg.StreamWindow = 65535
	srv := serve(t, cfg, patient)
	r := rawClient(t, srv.addr)
	r.headers(1, false, post...)
	r.must(r.fr.WriteWindowUpdate(1, 0))
	for left := 65535; left > 0; left -= 8191 {
		r.must(r.fr.WriteData(1, false, make([]byte, min(left, 8191))))
	}
	r.headers(1, true, "sum", "1")
	r.get(3)
	r.wantReset(1, ProtocolError)
	r.wantStatus(3, "200")
	if got := n[GlitchClosedStream].Load(); got != 0 {
		t.Errorf("%d glitches", got)
	}
}
