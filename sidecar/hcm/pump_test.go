package hcm

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestRetryOfAnUpload: a request that is tried again while its body still comes is sent
// whole, or not at all.
func TestRetryOfAnUpload(t *testing.T) {
	got := make(chan string, 1)
	b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if req.Header.Get("x-envoy-attempt-count") == "1" {
			_, _ = io.CopyN(io.Discard, req.Body, replayLimit*3/4)
			_, _ = io.WriteString(c, "HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			_, _ = io.Copy(io.Discard, r)
			return
		}
		body, err := io.ReadAll(req.Body)
		select {
		case got <- fmt.Sprint(string(body), err):
		default:
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	}))
	b.cfg.Routes.VirtualHosts[0].AttemptCountInRequest = true
	b.route().Forward.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, BackOffBase: time.Nanosecond}
	b.start()
	var whole strings.Builder
	for i := range 32 {
		fmt.Fprintf(&whole, "%04d%s", i, strings.Repeat(".", 4<<10-4))
	}
	retried := 0
	for range 100 {
		c := b.dial()
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
			for rest := whole.String(); rest != ""; rest = rest[4<<10:] {
				if _, err := fmt.Fprintf(c, "1000\r\n%s\r\n", rest[:4<<10]); err != nil {
					return
				}
			}
			_, _ = io.WriteString(c, "0\r\n\r\n")
		}()
		resp, _ := c.answer("POST")
		if resp.StatusCode == 200 {
			retried++
			if body := <-got; body != whole.String()+"<nil>" {
				t.Fatalf("the second host got %d bytes of %d, ending in %q", len(body), whole.Len(), body[max(0, len(body)-40):])
			}
		}
		_ = c.Close()
		<-sent
	}
	if retried == 0 {
		t.Error("no upload was tried again")
	}
}
