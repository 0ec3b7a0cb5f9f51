package hcm

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestRequestTimeEndsWithTheAnswer: request_timeout bounds the wait for an answer to a request
// that is slow. Once the answer has begun, both sides may take their time.
func TestRequestTimeEndsWithTheAnswer(t *testing.T) {
	b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.WriteString(w, "first ")
		_ = http.NewResponseController(w).Flush()
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	}))
	b.cfg.RequestTimeout = 100 * time.Millisecond
	b.start()
	c := b.dial()
	c.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	time.Sleep(200 * time.Millisecond)
	c.send("2\r\ncd\r\n0\r\n\r\n")
	if body, err := io.ReadAll(resp.Body); string(body) != "first abcd" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
	b.wantLog("200 - via_upstream")
}

// TestTryIdleTimeIsTheHosts: the idle time of an attempt runs once the request is there as a
// whole. Until then it is the client that does not move, which is not held against the host,
// and no reason to send the request again.
func TestTryIdleTimeIsTheHosts(t *testing.T) {
	for name, tc := range map[string]struct {
		hangs  bool
		status int
		log    string
	}{
		"the client takes its time":    {false, 200, "200 - via_upstream"},
		"the host takes its time then": {true, 504, "504 URX,UT upstream_per_try_idle_timeout"},
	} {
		t.Run(name, bubble(func(t *testing.T) {
			b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
				if _, _, err := readRequest(r); err == nil && !tc.hangs {
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
				_, _ = r.ReadByte()
			}))
			b.route().Forward.Retry = &route.RetryPolicy{On: route.RetryReset | route.RetryGatewayError, NumRetries: 2,
				BackOffBase: time.Millisecond, PerTryIdleTimeout: 100 * time.Millisecond}
			if tc.hangs {
				b.route().Forward.Retry.NumRetries = 0
			}
			b.start()
			c := b.dial()
			c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello")
			time.Sleep(250 * time.Millisecond)
			c.send("world")
			if resp, _ := c.answer("POST"); resp.StatusCode != tc.status {
				t.Errorf("status %d", resp.StatusCode)
			}
			b.wantLog(tc.log)
			if line := b.logged(1)[0]; !strings.Contains(line, "retries=0") {
				t.Error(line)
			}
		}))
	}
}

// TestTryTimeEndsWithAnInterimResponse: the host has the request and is at work. As the
// exchange is bound to it by then, to end the attempt would only lose the answer.
func TestTryTimeEndsWithAnInterimResponse(t *testing.T) {
	b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if _, _, err := readRequest(r); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\n")
		time.Sleep(250 * time.Millisecond)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}))
	b.route().Forward.Retry = &route.RetryPolicy{PerTryTimeout: 100 * time.Millisecond}
	b.start()
	c := b.dial()
	c.send(simpleGet)
	if line, _ := c.r.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 103") {
		t.Fatalf("%q", line)
	}
	_, _ = c.r.ReadString('\n')
	if resp, body := c.answer("GET"); resp.StatusCode != 200 || body != "ok" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	b.wantLog("200 - via_upstream")
}
