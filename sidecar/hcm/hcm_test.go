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
)

func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("X-Seen", r.Method+" "+r.RequestURI+" "+r.Host)
	fmt.Fprintf(w, "%s|%d|%s", r.Method, len(body), body)
}

func TestForward(t *testing.T) {
	b := newBed(t, httpOrigin(t, echo)).start()
	c := b.dial()
	for i := range 3 {
		resp, body := c.do("GET /a?b=1 HTTP/1.1\r\nHost: example.com\r\n\r\n")
		if resp.StatusCode != 200 || body != "GET|0|" || resp.Header.Get("X-Seen") != "GET /a?b=1 example.com" {
			t.Fatalf("%d: %d %q %v", i, resp.StatusCode, body, resp.Header)
		}
	}
	resp, body := c.do("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello")
	if resp.StatusCode != 200 || body != "POST|5|hello" {
		t.Fatalf("%d %q", resp.StatusCode, body)
	}
	_, body = c.do("POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	if body != "POST|5|hello" {
		t.Fatalf("%q", body)
	}
	_, body = c.do("HEAD /p HTTP/1.1\r\nHost: h\r\n\r\n")
	if body != "" {
		t.Fatalf("%q", body)
	}
	// In pieces, streamed.
	c.send("POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
	time.Sleep(20 * time.Millisecond)
	c.send("lo\r\n6\r\n world\r\n")
	time.Sleep(20 * time.Millisecond)
	_, body = c.do("0\r\n\r\n")
	if body != "POST|11|hello world" {
		t.Fatalf("%q", body)
	}
	// A large body, known length.
	big := strings.Repeat("x", 300<<10)
	_, body = c.do(fmt.Sprintf("PUT /p HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", len(big), big))
	if !strings.HasPrefix(body, fmt.Sprintf("PUT|%d|xx", len(big))) || len(body) != len("PUT|307200|")+len(big) {
		t.Fatalf("%d bytes", len(body))
	}
	// Pipelined.
	c.send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	r1, _ := c.answer("GET")
	r2, _ := c.answer("GET")
	if r1.Header.Get("X-Seen") != "GET /1 h" || r2.Header.Get("X-Seen") != "GET /2 h" {
		t.Fatalf("%v %v", r1.Header, r2.Header)
	}
	c.closed()
	lines := b.logged(10)
	if !strings.HasPrefix(lines[0], "GET /a?b=1 200 - via_upstream everything 127.0.0.1:") {
		t.Fatal(lines[0])
	}
}

func TestUpstreamBytes(t *testing.T) {
	got := make(chan string, 1)
	origin := rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		buf := make([]byte, 4096)
		n, _ := r.Read(buf)
		got <- string(buf[:n])
		io.WriteString(c, "HTTP/1.1 200 OK\r\nServer: o\r\nDate: d\r\nX-Mixed-Case: v\r\nContent-Length: 2\r\n\r\nok")
	})
	b := newBed(t, origin).start()
	resp, body := b.dial().do("GET /x HTTP/1.1\r\nX-First: 1\r\nHost: Example.com\r\nConnection: keep-alive, X-Hop\r\nX-Hop: secret\r\nKeep-Alive: 3\r\nTE: gzip\r\nx-envoy-retry-on: 5xx\r\nX-Last: 2\r\n\r\n")
	if body != "ok" || resp.Header.Get("Server") != "o" {
		t.Fatalf("%v %q", resp.Header, body)
	}
	want := "GET /x HTTP/1.1\r\nX-First: 1\r\nHost: Example.com\r\nX-Last: 2\r\nx-forwarded-proto: http\r\nx-envoy-expected-rq-timeout-ms: 5000\r\n\r\n"
	if g := <-got; g != want {
		t.Fatalf("got\n%q\nwant\n%q", g, want)
	}
}
