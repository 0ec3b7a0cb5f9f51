package http2

import (
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// TestWhoEndsADrainedConnection: the client that closes it in time, as in Envoy, or else the server.
func TestWhoEndsADrainedConnection(t *testing.T) {
	for _, closes := range []bool{true, false} {
		cfg := Default()
		cfg.Linger = time.Minute
		if !closes {
			cfg.Linger = time.Millisecond
		}
		srv := serve(t, cfg, ok)
		r := rawClient(t, srv.addr)
		r.get(1)
		r.wantStatus(1, "200")
		r.next(xhttp2.FrameData)
		sc := srv.conn(0)
		sc.Drain()
		r.next(xhttp2.FrameGoAway)
		ping := r.next(xhttp2.FramePing).(*xhttp2.PingFrame)
		r.must(r.fr.WritePing(true, ping.Data))
		r.next(xhttp2.FrameGoAway)
		if closes {
			r.must(r.c.Close())
		}
		if err := srv.ended(); err != nil {
			t.Error(err)
		}
		if byPeer, busy := sc.Ended(); byPeer != closes || busy {
			t.Errorf("the client closes %v: ended by it %v, with streams %v", closes, byPeer, busy)
		}
	}
}

// TestClientLeaves: of a client that has sent GOAWAY the connection ends when there is nothing on
// it that was asked, as soon as that was answered; what came with it, and what comes meanwhile, is served.
func TestClientLeaves(t *testing.T) {
	for _, code := range []xhttp2.ErrCode{xhttp2.ErrCodeNo, xhttp2.ErrCodeProtocol} {
		hold := make(chan struct{})
		srv := serve(t, nil, func(s *Stream) {
			<-hold
			ok(s)
		})
		r := rawClient(t, srv.addr)
		r.get(1)
		r.must(r.fr.WriteGoAway(0, code, nil))
		r.get(3)
		r.must(r.fr.WritePing(false, [8]byte{}))
		r.next(xhttp2.FramePing)
		close(hold)
		for range 2 {
			r.next(xhttp2.FrameHeaders)
			r.next(xhttp2.FrameData)
		}
		if g := r.next(xhttp2.FrameGoAway).(*xhttp2.GoAwayFrame); g.LastStreamID != 3 || g.ErrCode != 0 {
			t.Errorf("%v: GOAWAY %v", code, g)
		}
		r.wantEnd()
		if err := srv.ended(); err != nil {
			t.Error(err)
		}
	}
}
