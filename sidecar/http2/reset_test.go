package http2

import (
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// A proxy's connections are shared by clients that know nothing of each other: what each
// may honestly do must not add up to abuse. The first four take more streams than the
// bucket admits.
const manyResets = 1200

// TestResetsOfWholeAnswers: a client that leaves the rest of a request unsent once its
// answer is whole (RFC 9113 8.1).
func TestResetsOfWholeAnswers(t *testing.T) {
	var n counts
	r := rawClient(t, serve(t, n.cfg(), ok).addr)
	for i := range uint32(manyResets) {
		r.headers(2*i+1, false, post...)
		for end := false; !end; { // the server may reset the last stream as well
			_ = r.c.SetReadDeadline(time.Now().Add(5 * time.Second))
			f, err := r.fr.ReadFrame()
			if err != nil {
				t.Fatalf("after %d: %v", i, err)
			}
			if f, ok := f.(*xhttp2.GoAwayFrame); ok {
				t.Fatalf("after %d: %v %q", i, f, f.DebugData())
			}
			d, ok := f.(*xhttp2.DataFrame)
			end = ok && d.StreamEnded()
		}
		r.must(r.fr.WriteRSTStream(2*i+1, xhttp2.ErrCodeNo))
	}
	if got := n[GlitchReset].Load(); got != 0 {
		t.Errorf("%d resets are counted as abuse", got)
	}
}

// TestResetsAfterTheAnswerBegan: a download that is given up.
func TestResetsAfterTheAnswerBegan(t *testing.T) {
	var n counts
	r := rawClient(t, serve(t, n.cfg(), func(s *Stream) {
		_ = s.WriteHead(&message.Response{Status: 200, ContentLength: message.UnknownLength}, false)
		_ = s.Flush()
		for {
			if _, _, err := s.Next(); err != nil {
				return
			}
		}
	}).addr)
	for i := range uint32(manyResets) {
		r.headers(2*i+1, false, post...)
		r.wantStatus(2*i+1, "200")
		r.must(r.fr.WriteRSTStream(2*i+1, xhttp2.ErrCodeCancel))
	}
	r.get(2*manyResets + 1)
	r.wantStatus(2*manyResets+1, "200")
	if got := n[GlitchReset].Load(); got != 0 {
		t.Errorf("%d resets are counted as abuse", got)
	}
}

// TestEarlyAnswers: a server that answers before it has read the request's end says so
// with NO_ERROR, which crosses with that end.
func TestEarlyAnswers(t *testing.T) {
	r, cc := rawServer(t, nil)
	for i := range manyResets {
		st, err := cc.Open(newRequest("POST", "/"), false)
		if err != nil {
			t.Fatalf("after %d: %v", i, err)
		}
		if err := st.WriteData([]byte("body"), true); err != nil {
			t.Fatalf("after %d: %v", i, err)
		}
		_ = st.Flush()
		r.next(xhttp2.FrameHeaders)
		r.next(xhttp2.FrameData)
		r.headers(st.ID(), true, ":status", "503")
		r.must(r.fr.WriteRSTStream(st.ID(), xhttp2.ErrCodeNo))
		var resp message.Response
		if _, err := st.ReadHead(&resp); err != nil {
			t.Fatalf("after %d: %v", i, err)
		}
		st.Close()
	}
}

// TestResetsOfTunnels: each client that resets its connection resets its tunnel.
func TestResetsOfTunnels(t *testing.T) {
	s := serve(t, ForTunnels(), func(s *Stream) {
		_ = s.WriteHead(&message.Response{Status: 200, ContentLength: message.UnknownLength}, false)
		_ = s.Flush()
		for {
			if _, last, err := s.Next(); last || err != nil {
				return
			}
		}
	})
	cc := dialClient(t, s.addr, ForTunnels())
	for i := range manyResets {
		st, err := cc.Open(requests()["connect"], false)
		if err != nil {
			t.Fatalf("after %d: %v", i, err)
		}
		_ = st.Flush()
		var r message.Response
		if _, err := st.ReadHead(&r); err != nil {
			t.Fatalf("after %d: %v", i, err)
		}
		st.Close()
	}
}

// TestMalformedAnswers: a host whose answers are no good harms nobody but those who ask
// it for them.
func TestMalformedAnswers(t *testing.T) {
	r, cc := rawServer(t, nil)
	for i := range manyResets {
		st, err := cc.Open(newRequest("GET", "/"), true)
		if err != nil {
			t.Fatalf("after %d: %v", i, err)
		}
		_ = st.Flush()
		r.next(xhttp2.FrameHeaders)
		r.headers(st.ID(), true, "x", "y")
		r.wantReset(st.ID(), ProtocolError)
		var resp message.Response
		if _, err := st.ReadHead(&resp); err == nil {
			t.Fatal("it was taken")
		}
		st.Close()
	}
}

// held is a server whose requests wait until they are reset, but for GET.
func held(t *testing.T, n *counts) *server {
	cfg := n.cfg()
	cfg.ResetBurst, cfg.ResetRate = 5, 0
	return serve(t, cfg, func(s *Stream) {
		if s.Request().Method == "GET" {
			ok(s)
			return
		}
		for {
			if _, _, err := s.Next(); err != nil {
				return
			}
		}
	})
}

// TestResetsOfLongWaits: whoever gives up after a while has occupied a stream for as
// long; nothing can be had that way which the limit on streams does not admit.
func TestResetsOfLongWaits(t *testing.T) {
	var n counts
	s := held(t, &n)
	r := rawClient(t, s.addr)
	sc := s.conn(0)
	for i := range uint32(20) {
		id := 2*i + 1
		r.headers(id, false, post...)
		eventually(t, "the stream", func() bool {
			sc.mu.Lock()
			defer sc.mu.Unlock()
			if s := sc.streams[id]; s != nil {
				s.since -= int64(2 * time.Second)
				return true
			}
			return false
		})
		r.must(r.fr.WriteRSTStream(id, xhttp2.ErrCodeCancel))
	}
	r.get(101)
	r.wantStatus(101, "200")
	if got := n[GlitchReset].Load(); got != 0 {
		t.Errorf("%d resets are counted as abuse", got)
	}
}

// TestResetsAmongAnswers: as long as no more requests are given up at once than are
// answered, they may go on; more end the connection.
func TestResetsAmongAnswers(t *testing.T) {
	var n counts
	r := rawClient(t, held(t, &n).addr)
	id := uint32(1)
	reset := func() {
		r.headers(id, false, post...)
		r.must(r.fr.WriteRSTStream(id, xhttp2.ErrCodeCancel))
		id += 2
	}
	for range 50 {
		r.get(id)
		r.wantStatus(id, "200")
		r.next(xhttp2.FrameData)
		id += 2
		reset()
	}
	if got := n[GlitchReset].Load(); got != 49 && got != 50 { // the last may be on its way
		t.Errorf("%d resets were counted", got)
	}
	for range 6 {
		reset()
	}
	r.wantGoAway(EnhanceYourCalm)
}

// TestUploadIsCancelled: what is left of a request whose answer is whole is cancelled, as by
// Envoy: that nothing is wrong with it is for a server to say (RFC 9113 8.1).
func TestUploadIsCancelled(t *testing.T) {
	r, cc := rawServer(t, nil)
	st, err := cc.Open(newRequest("POST", "/"), false)
	if err != nil {
		t.Fatal(err)
	}
	_ = st.Flush()
	r.next(xhttp2.FrameHeaders)
	r.headers(st.ID(), true, ":status", "200")
	var resp message.Response
	if end, err := st.ReadHead(&resp); err != nil || !end {
		t.Fatal(end, err)
	}
	st.Close()
	if code := r.next(xhttp2.FrameRSTStream).(*xhttp2.RSTStreamFrame).ErrCode; code != xhttp2.ErrCodeCancel {
		t.Errorf("the server is told %v", code)
	}
}
