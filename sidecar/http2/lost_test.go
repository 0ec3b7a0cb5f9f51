package http2

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// recording is a handler that notes what it is told of.
type recording struct {
	handlerFunc
	mu   sync.Mutex
	lost []string
}

func (h *recording) StreamLost(req *message.Request, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	path := "-"
	if req != nil {
		path = req.Path
	}
	var s *StreamError
	var c *ConnError
	var a *http1.Error
	switch {
	case errors.As(err, &s):
		path += fmt.Sprintf(" stream %v %v %s", s.Remote, s.Code, s.Reason)
	case errors.As(err, &c):
		path += " connection " + c.Reason
	case errors.As(err, &a):
		path += fmt.Sprintf(" answer %d", a.Status)
	}
	h.lost = append(h.lost, path)
}

func (h *recording) told() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.lost)
}

// TestLostRequestsAreTold: of each request that no handler gets, once and in order, and of
// no other.
func TestLostRequestsAreTold(t *testing.T) {
	h := &recording{handlerFunc: ok}
	r := rawClient(t, serveWith(t, nil, h).addr)
	at := func(path string, more ...string) []string {
		return append([]string{":method", "POST", ":scheme", "http", ":authority", "a", ":path", path}, more...)
	}
	// What is written at once arrives at once.
	var batch writes
	r.fr = xhttp2.NewFramer(&batch, r.c)
	r.fr.AllowIllegalWrites = true
	r.headers(1, true, at("/1")...)
	r.headers(3, true, at("/3", "connection", "close")...)
	r.headers(5, true, at("/5", "expect", "no")...)
	r.headers(7, false, at("/7")...)
	r.must(r.fr.WriteRSTStream(7, xhttp2.ErrCodeCancel))
	r.headers(9, false, at("/9", "content-length", "3")...)
	r.must(r.fr.WriteData(9, true, []byte("x")))
	r.must(r.fr.WritePing(false, [8]byte{}))
	_, err := r.c.Write(batch)
	r.must(err)
	want := []string{"- stream false PROTOCOL_ERROR connection_specific_field", "- answer 417",
		"/7 stream true CANCEL ", "/9 stream false PROTOCOL_ERROR content_length_mismatch"}
	eventually(t, "what is lost is told", func() bool { return slices.Equal(h.told(), want) })
}

// writes is what would be written.
type writes []byte

func (w *writes) Write(p []byte) (int, error) {
	*w = append(*w, p...)
	return len(p), nil
}

// TestLostWithTheConnection: what waits for a handler while the connection ends is told, too,
// before Serve returns.
func TestLostWithTheConnection(t *testing.T) {
	cfg := Default()
	cfg.MaxConcurrentStreams = 1
	began, end := make(chan struct{}), make(chan struct{})
	h := &recording{handlerFunc: func(*Stream) { close(began); <-end }}
	srv := serveWith(t, cfg, h)
	r := rawClient(t, srv.addr)
	r.headers(1, false, get...)
	<-began
	r.must(r.fr.WriteRSTStream(1, xhttp2.ErrCodeCancel))
	r.get(3) // its turn has not come: the first's handler is still at work
	r.must(r.fr.WriteRSTStream(3, xhttp2.ErrCodeCancel))
	r.headers(5, true, ":method", "GET")
	eventually(t, "a refusal is told", func() bool { return len(h.told()) == 1 })
	_ = r.c.Close()
	close(end)
	_ = srv.ended()
	want := []string{"- stream false PROTOCOL_ERROR no_authority", "/ stream true CANCEL "}
	if got := h.told(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestBadContentIsOneMessagesFault: content that is not what its head has announced ends its
// stream, also where a malformed head ends the connection, which others share.
func TestBadContentIsOneMessagesFault(t *testing.T) {
	cfg := Default()
	cfg.MalformedEndsConnection = true
	t.Run("requests", func(t *testing.T) {
		srv := serve(t, cfg, func(s *Stream) {
			for last := s.Request().Body == nil; !last; {
				var err error
				if _, last, err = s.Next(); err != nil {
					return
				}
			}
			ok(s)
		})
		for _, body := range []string{"", "1", "12345"} {
			r := rawClient(t, srv.addr)
			r.headers(1, false, append(slices.Clone(get), "content-length", "3")...)
			r.must(r.fr.WriteData(1, true, []byte(body)))
			r.wantReset(1, ProtocolError)
			r.get(3)
			r.wantStatus(3, "200")
		}
	})
	for name, send := range map[string]func(*raw){
		"too little": func(r *raw) {
			r.headers(1, false, ":status", "200", "content-length", "3")
			r.must(r.fr.WriteData(1, true, []byte("1")))
		},
		"too much": func(r *raw) {
			r.headers(1, false, ":status", "200", "content-length", "3")
			r.must(r.fr.WriteData(1, false, []byte("12345")))
		},
		"of a 204": func(r *raw) {
			r.headers(1, false, ":status", "204")
			r.must(r.fr.WriteData(1, true, []byte("12345")))
		},
		"behind an interim response": func(r *raw) {
			r.headers(1, false, ":status", "103")
			r.must(r.fr.WriteData(1, false, []byte("12345")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, cc := rawServer(t, cfg)
			var done [2]chan error
			for i := range done {
				done[i] = make(chan error, 1)
				go func() {
					_, _, err := exchange(cc, newRequest("GET", "/"), "")
					done[i] <- err
				}()
				r.next(xhttp2.FrameHeaders)
			}
			send(r)
			var s *StreamError
			if err := <-done[0]; !errors.As(err, &s) || s.Remote || s.Code != ProtocolError {
				t.Errorf("the bad one: %v", err)
			}
			r.headers(3, true, ":status", "200")
			if err := <-done[1]; err != nil {
				t.Errorf("the good one: %v", err)
			}
		})
	}
}

// TestServersThatGoOn: what a server says on a stream that it has ended, or in trailers what we
// do not take, is that stream's fault: the requests of others share the connection. Each costs
// it one of its glitches.
func TestServersThatGoOn(t *testing.T) {
	cfg := Default()
	cfg.MalformedEndsConnection = true
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, say := range map[string]func(*raw){
		"DATA after END": func(r *raw) {
			r.headers(1, true, ":status", "200")
			r.must(r.fr.WriteData(1, true, []byte("more")))
		},
		"HEADERS after END": func(r *raw) {
			r.headers(1, true, ":status", "200")
			r.headers(1, true, "a", "b")
		},
		"HEADERS after RST_STREAM": func(r *raw) {
			r.must(r.fr.WriteRSTStream(1, xhttp2.ErrCodeNo))
			r.headers(1, true, ":status", "200")
		},
		"host in trailers":           func(r *raw) { r.headers(1, false, ":status", "200"); r.headers(1, true, "host", "a") },
		"content-length in trailers": func(r *raw) { r.headers(1, false, ":status", "200"); r.headers(1, true, "content-length", "0") },
		"te in trailers":             func(r *raw) { r.headers(1, false, ":status", "200"); r.headers(1, true, "te", "trailers") },
		"te":                         func(r *raw) { r.headers(1, true, ":status", "200", "te", "trailers") },
	} {
		t.Run(name, func(t *testing.T) {
			r, cc := rawServer(t, cfg)
			var done [2]chan error
			for i := range done {
				done[i] = make(chan error, 1)
				go func() {
					_, _, err := exchange(cc, newRequest("GET", "/"), "")
					done[i] <- err
				}()
				r.next(xhttp2.FrameHeaders)
			}
			say(r)
			<-done[0]
			r.headers(3, true, ":status", "200")
			if err := <-done[1]; err != nil {
				t.Errorf("the other: %v", err)
			}
		})
	}
	few := *cfg
	few.MaxGlitches = 5
	r, cc := rawServer(t, &few)
	done := make(chan error, 2)
	for range 2 {
		go func() { _, _, err := exchange(cc, newRequest("GET", "/"), ""); done <- err }()
		r.next(xhttp2.FrameHeaders)
	}
	r.headers(1, true, ":status", "200")
	for range 7 {
		_ = r.fr.WriteData(1, true, []byte("more"))
	}
	r.wantGoAway(EnhanceYourCalm)
	<-done
	<-done

	// Where there is no other, the connection ends.
	r, cc = rawServer(t, cfg)
	go func() { _, _, err := exchange(cc, newRequest("GET", "/"), ""); done <- err }()
	r.next(xhttp2.FrameHeaders)
	r.headers(1, true, ":status", "200")
	_ = r.fr.WriteData(1, true, []byte("more"))
	r.wantGoAway(StreamClosed)
	<-done
}
