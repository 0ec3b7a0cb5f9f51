package http2

import (
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// atOnce are as many streams as a connection has by default.
const atOnce = 1024

// inFlight is how many frames of each cross with the reset.
const inFlight = 4

// TestResetsCrossWithRequests: what clients had sent of their requests, when all of these were
// answered early at once, is no offence of the connection that they share.
func TestResetsCrossWithRequests(t *testing.T) {
	goOn := make(chan struct{})
	s := serve(t, nil, func(s *Stream) {
		if s.ID() < 2*atOnce {
			<-goOn
		}
		_ = s.WriteHead(&message.Response{Status: 503}, true)
		_ = s.Flush()
	})
	r := rawClient(t, s.addr)
	post := append([]string(nil), get...)
	post[1] = "POST"
	for i := range uint32(atOnce) {
		r.headers(2*i+1, false, post...)
	}
	eventually(t, "the requests are here", func() bool { return s.conn(0).Active() == atOnce })
	close(goOn)
	eventually(t, "the requests are answered", func() bool { return s.conn(0).Active() == 0 })
	for i := range uint32(atOnce) {
		for range inFlight {
			r.must(r.fr.WriteData(2*i+1, false, []byte("x")))
		}
		r.headers(2*i+1, true, "x-checksum", "y") // trailers
	}
	r.get(2*atOnce + 1)
	for {
		f, err := r.fr.ReadFrame()
		r.must(err)
		if g, ok := f.(*xhttp2.GoAwayFrame); ok {
			t.Fatalf("GOAWAY with %v, %q", g.ErrCode, g.DebugData())
		}
		if f.Header().StreamID == 2*atOnce+1 {
			return
		}
	}
}

// TestResetsCrossWithAnswers: what a host had sent of its answers, when all that had asked for
// them left at once, is no offence of the connection, which others share.
func TestResetsCrossWithAnswers(t *testing.T) {
	r, cc := rawServer(t, nil)
	last, err := cc.Open(newRequest("GET", "/"), true)
	r.must(err)
	for range atOnce - 1 {
		s, err := cc.Open(newRequest("GET", "/"), true)
		r.must(err)
		s.Close()
	}
	r.must(last.Flush())
	for i := range uint32(atOnce - 1) {
		r.headers(2*i+3, false, ":status", "200")
		for range inFlight {
			r.must(r.fr.WriteData(2*i+3, false, []byte("x")))
		}
	}
	r.headers(last.ID(), true, ":status", "200")
	var resp message.Response
	if _, err := last.ReadHead(&resp); err != nil {
		t.Error(err)
	}
	last.Close()
}

// TestManyLeaveAHostThatDoesNotRead: the resets that wait for the host to read are ours, and
// no flood of its.
func TestManyLeaveAHostThatDoesNotRead(t *testing.T) {
	r, cc := rawServer(t, nil)
	last, err := cc.Open(newRequest("GET", "/"), true)
	r.must(err)
	r.must(last.Flush())
	upload, err := cc.Open(newRequest("POST", "/"), false)
	r.must(err)
	r.must(r.fr.WriteWindowUpdate(0, 1<<30))
	r.must(r.fr.WriteWindowUpdate(upload.ID(), 1<<30))
	go func() {
		for upload.WriteData(make([]byte, 1<<20), false) == nil {
		}
	}()
	same, sent := 0, uint64(0)
	eventually(t, "the socket takes no more", func() bool {
		cc.mu.Lock()
		defer cc.mu.Unlock()
		if same++; cc.sentData != sent || !cc.w.writing || cc.room() {
			same, sent = 0, cc.sentData
		}
		return same == 20
	})
	var streams []*Stream
	for range atOnce - 2 {
		s, err := cc.Open(newRequest("GET", "/"), true)
		r.must(err)
		streams = append(streams, s)
	}
	for _, s := range streams {
		s.Close()
	}
	r.headers(last.ID(), false, ":status", "200")
	var resp message.Response
	if _, err := last.ReadHead(&resp); err != nil {
		t.Error(err)
	}
	r.must(r.fr.WritePing(false, [8]byte{})) // as one who wants to know whether we live
	r.must(r.fr.WriteData(last.ID(), true, []byte("x")))
	if _, end, err := last.Next(); !end || err != nil {
		t.Error(err)
	}
	last.Close()
	upload.Interrupt()
}
