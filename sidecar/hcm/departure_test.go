package hcm

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	xhttp2 "golang.org/x/net/http2"
)

// TestClientsLeaveMidRequest: a client that goes away while its request's body is being
// sent on, and no answer is there, takes its exchange with it and nothing else. Whoever
// sends the body has let go of the connection before that is given back.
func TestClientsLeaveMidRequest(t *testing.T) {
	for _, up := range []int{1, 2} {
		arrived := make(chan struct{}, 1000)
		b := versionedBed(t, 2, up, func(_ http.ResponseWriter, r *http.Request) {
			if r.Method == "POST" {
				arrived <- struct{}{}
				_, _ = io.Copy(io.Discard, r.Body) // until it breaks
			}
		})
		b.start()
		c := b.httpClient(2)
		for range 10 {
			var wg sync.WaitGroup
			ctx, cancel := context.WithCancel(t.Context())
			for range 20 {
				r, w := io.Pipe()
				wg.Go(func() {
					req, _ := http.NewRequestWithContext(ctx, "POST", "http://"+b.addr, r)
					if resp, err := c.Do(req); err == nil {
						_ = resp.Body.Close()
						t.Errorf("answered with %d", resp.StatusCode)
					}
					_ = r.Close()
				})
				wg.Go(func() { _, _ = w.Write([]byte("the beginning")) })
			}
			for range 20 {
				<-arrived
			}
			cancel()
			wg.Wait()
		}
		resp, err := c.Get("http://" + b.addr)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		_ = resp.Body.Close()
	}
}

// TestMalformedBodyIsNoDeparture: a client of HTTP/2 that breaks the protocol while its request
// is forwarded did not just leave. Nobody answers it: the codec has reset the stream, or ended
// the connection.
func TestMalformedBodyIsNoDeparture(t *testing.T) {
	for _, tc := range []struct {
		name, reason string
		breaks       func(*frames)
	}{
		{"less than was announced", "content_length_mismatch", func(f *frames) { f.data("short") }},
		{"trailers with a pseudo-header", "unknown_pseudo_header", func(f *frames) {
			_ = f.framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}, EndHeaders: true, EndStream: true})
		}},
		{"the connection", "window_update_of_0", func(f *frames) {
			_ = f.framer.WriteWindowUpdate(0, 0)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			arrived := make(chan struct{})
			b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				close(arrived)
				_, _ = io.Copy(io.Discard, r.Body)
			}))
			b.start()
			f := b.dialHTTP2()
			f.framer.AllowIllegalWrites = true
			f.headers(":method: POST", ":scheme: http", ":authority: h", ":path: /", "content-length: 10")
			f.settle()
			<-arrived // it is being forwarded
			tc.breaks(f)
			f.write()
			if line := b.logged(1)[0]; !strings.HasPrefix(line, "POST / 0 DPE "+tc.reason+" ") {
				t.Error(line)
			}
		})
	}
}
