package hcm

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestBodyRefusedBeforeItIsForwarded: what came with the head and is malformed reaches
// no origin, which could answer it before it is refused.
func TestBodyRefusedBeforeItIsForwarded(t *testing.T) {
	b := newBed(t, httpOrigin(t, func(http.ResponseWriter, *http.Request) { t.Error("the origin was asked") })).start()
	c := b.dial()
	if resp, _ := c.do("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nx\r\n"); resp.StatusCode != 400 || !resp.Close {
		t.Errorf("%d %v", resp.StatusCode, resp.Close)
	}
	c.closed()
	b.wantLog("400 DPE bad_chunk_size")
}

// TestRefusedHEAD: an answer to HEAD has no content, a refusal neither.
func TestRefusedHEAD(t *testing.T) {
	b := newBed(t, httpOrigin(t, func(http.ResponseWriter, *http.Request) { t.Error("the origin was asked") })).start()
	c := b.dial()
	if resp, _ := c.do("HEAD / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"); resp.StatusCode != 400 || !resp.Close {
		t.Errorf("%d %v", resp.StatusCode, resp.Close)
	}
	c.closed()
}

// TestContentBehindLengthZero: the head of such a message would be a whole request to an
// origin of HTTP/1. It reaches none, whether the content comes with the head or later,
// and whatever is to be done about malformed heads.
func TestContentBehindLengthZero(t *testing.T) {
	for _, byStream := range []bool{false, true} {
		for _, later := range []bool{false, true} {
			b := newBed(t, httpOrigin(t, func(http.ResponseWriter, *http.Request) {
				t.Errorf("by stream %v, later %v: the origin was asked", byStream, later)
			}))
			b.cfg.HTTP2 = http2.Default()
			b.cfg.HTTP2.MalformedEndsConnection = !byStream
			b.start()
			f := b.dialHTTP2()
			f.headers(":method: POST", ":scheme: http", ":authority: h", ":path: /", "content-length: 0")
			if later {
				f.settle()
			}
			f.data("GET /admin HTTP/1.1\r\n\r\n")
			if got := f.outcome(); got != "RST_STREAM PROTOCOL_ERROR" && got != "HEADERS 400" {
				t.Errorf("by stream %v, later %v: %s", byStream, later, got)
			}
		}
	}
}

// TestBodyRefusedWhileTheAnswerIsAwaited: whoever waits for the response learns from an
// interrupted read that the body was refused, and must then find out why, every time.
func TestBodyRefusedWhileTheAnswerIsAwaited(t *testing.T) {
	b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.ReadAll(r.Body) })).start()
	for i := range 300 {
		c := b.dial()
		c.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n")
		c.send("a\r\nx")
		if resp, body := c.answer("POST"); resp.StatusCode != 400 {
			t.Fatalf("%d: %d %q", i, resp.StatusCode, body)
		}
		_ = c.Close()
	}
}

// TestClientsThatLeaveDuringAnUpload: the attempt's connection stays its own until
// nobody sends the body any more.
func TestClientsThatLeaveDuringAnUpload(t *testing.T) {
	b := newBed(t, rawOrigin(t, func(_ int, _ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })).start()
	var wg sync.WaitGroup
	for range 200 {
		c := b.dial()
		c.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
		wg.Go(func() {
			// The body's reader and the look at waiting clients see it at one moment.
			time.Sleep(time.Duration(watchEvery) - time.Millisecond)
			_ = c.Close()
		})
	}
	wg.Wait()
	for _, line := range b.logged(200) {
		if !strings.Contains(line, "downstream_remote_disconnect") {
			t.Fatal(line)
		}
	}
}

// TestRequestTimeoutOfStreamedBodies: request_timeout bounds the time until the whole
// request is there, also of a body that is sent on while it comes, and nothing else.
func TestRequestTimeoutOfStreamedBodies(t *testing.T) {
	bubble(func(t *testing.T) {
		b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body)
			time.Sleep(1500 * time.Millisecond)
		}))
		b.cfg.RequestTimeout = time.Second
		b.start()
		for _, head := range []string{"Transfer-Encoding: chunked\r\n\r\n", "Content-Length: 100000\r\n\r\n"} {
			c := b.dial()
			c.send("POST / HTTP/1.1\r\nHost: h\r\n" + head)
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(20 * time.Millisecond):
						_, _ = io.WriteString(c.Conn, "1\r\na\r\n")
					}
				}
			})
			resp, body := c.answer("POST")
			close(stop)
			wg.Wait()
			if resp.StatusCode != 408 || body != "request timeout" || !resp.Close {
				t.Errorf("%q: %d %q", head, resp.StatusCode, body)
			}
			c.closed()
		}
		// The answer may take longer than the request.
		if resp, _ := b.dial().do(simpleGet); resp.StatusCode != 200 {
			t.Errorf("%d", resp.StatusCode)
		}
		c := b.dial()
		c.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
		time.Sleep(20 * time.Millisecond)
		if resp, _ := c.do("0\r\n\r\n"); resp.StatusCode != 200 {
			t.Errorf("%d", resp.StatusCode)
		}
	})(t)
}

// TestTimeoutsOfManyAtOnce: an interruption that comes while the attempt gives its
// connection back finds either the connection or nothing (for the race detector).
func TestTimeoutsOfManyAtOnce(t *testing.T) {
	b := newBed(t, rawOrigin(t, func(_ int, _ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) }))
	b.cfg.StreamIdleTimeout = 200 * time.Millisecond
	b.start()
	for range 3 {
		var all []*testClient
		for range 100 {
			c := b.dial()
			c.send(simpleGet)
			all = append(all, c)
		}
		for _, c := range all {
			if resp, _ := c.answer("GET"); resp.StatusCode != 504 {
				t.Fatal(resp.StatusCode)
			}
			_ = c.Close()
		}
	}
}

// TestUnderscoresInTrailers: what is said of header names holds for trailers, where those
// are passed on.
func TestUnderscoresInTrailers(t *testing.T) {
	for _, tc := range []struct {
		what   UnderscoreNames
		drop   bool // trailers
		status int
		want   string // that the origin gets
	}{
		{AllowUnderscores, false, 200, "X-A X_user"},
		{DropUnderscores, false, 200, "X-A"},
		{RejectUnderscores, false, 400, "Bad Request"},
		{RejectUnderscores, true, 200, ""},
	} {
		b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			got := strings.Join(slices.Sorted(maps.Keys(req.Trailer)), " ")
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(got), got)
		}))
		b.cfg.UnderscoreNames, b.cfg.EnableTrailers = tc.what, !tc.drop
		b.start()
		resp, got := b.dial().do("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX_User: admin\r\nX-A: 1\r\n\r\n")
		if resp.StatusCode != tc.status || got != tc.want {
			t.Errorf("%+v: %d, the origin got %q", tc, resp.StatusCode, got)
		}
	}
}

// TestBadRequestEndsTheConnection: of HTTP/1, whoever answers with it, unless it is said not to.
func TestBadRequestEndsTheConnection(t *testing.T) {
	for _, keep := range []bool{false, true} {
		for _, status := range []int{400, 403} {
			b := newBed(t)
			b.cfg.KeepAfterBadRequest = keep
			b.route().Forward, b.route().Direct = nil, &route.DirectResponse{Status: status}
			b.start()
			c := b.dial()
			if resp, _ := c.do(simpleGet); resp.StatusCode != status || resp.Close == (keep || status != 400) {
				t.Errorf("keep %v: %d, closes %v", keep, resp.StatusCode, resp.Close)
			}
			if keep {
				_, _ = c.do(simpleGet)
			}
		}
	}
}
