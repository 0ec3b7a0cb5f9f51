//go:build e2e

package smuggling

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/e2e/conformance/bed"
)

// hostile is an origin that answers /case with what the case has it say, and /after
// with an ordinary response.
type hostile struct {
	addr  string
	after string // how /after is seen
	// byStream: what is malformed over HTTP/2 is the end of its stream alone.
	byStream bool

	mu    sync.Mutex
	c     *testCase
	conn  net.Conn // that /case came on
	other net.Conn // that /after came on
}

const after = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nafter"

func newHostile(t *testing.T, serve func(h *hostile, c net.Conn)) *hostile {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	h := &hostile{addr: l.Addr().String(), after: after}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(h, c)
		}
	}()
	return h
}

// came notes on which connection a request came, and returns the case where it is for that.
func (h *hostile) came(path string, conn net.Conn) *testCase {
	h.mu.Lock()
	defer h.mu.Unlock()
	if path == "/case" {
		h.conn = conn
		return h.c
	}
	h.other = conn
	return nil
}

func (h *hostile) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		c := h.came(req.URL.Path, conn)
		if c == nil {
			_, _ = io.WriteString(conn, after)
			continue
		}
		for i, part := range c.reply {
			if i > 0 {
				time.Sleep(20 * time.Millisecond) // the first is answered and done
			}
			_, _ = io.WriteString(conn, part)
		}
		if c.end {
			return
		}
	}
}

// TestResponses lets a hostile origin answer, and looks at what the client sees, at
// what the next requests get, and at what becomes of the origin's connection.
func TestResponses(t *testing.T) {
	h := newHostile(t, (*hostile).serve)
	l := bed.Listener{Addr: bed.Addr(t), Options: bed.Mesh}
	s := bed.Start(t, h.addr, l)
	began := time.Now()
	for _, c := range load(t, "responses") {
		if t.Failed() && time.Since(began) > 30*time.Second {
			t.Fatal("given up")
		}
		if err := h.response(c, l.Addr); err != nil {
			t.Errorf("%s: %s (%s): %v", c.where, c.name, c.cite, err)
			s.Alive()
		}
	}
}

func (h *hostile) response(c *testCase, addr string) error {
	h.mu.Lock()
	h.c, h.conn, h.other = c, nil, nil
	h.mu.Unlock()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	asks := ""
	if c.trailers {
		asks = "TE: trailers\r\n"
	}
	if _, err := fmt.Fprintf(nc, "%s /case HTTP/1.1\r\nHost: h\r\n%s\r\n", c.method, asks); err != nil {
		return err
	}
	r := bufio.NewReader(nc)
	switch {
	case c.conn == "broken":
		rest, err := io.ReadAll(r)
		if err != nil || plain(rest) != plain([]byte(c.seen)) {
			return fmt.Errorf("the client saw %q (%v), want %q and the end", rest, err, c.seen)
		}
	case c.statuses[0] >= 500:
		if err := failed(r, c.statuses[0], c.method); err != nil {
			return err
		}
	default:
		if err := exactly(r, c.seen); err != nil {
			return err
		}
	}
	if len(c.reply) > 1 {
		time.Sleep(50 * time.Millisecond) // until the rest of it has arrived
	}
	if c.conn == "open" {
		if err := h.next(nc, r); err != nil {
			return fmt.Errorf("the next request on the connection: %w", err)
		}
	}
	other, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer other.Close()
	_ = other.SetDeadline(time.Now().Add(patience))
	if err := h.next(other, bufio.NewReader(other)); err != nil {
		return fmt.Errorf("the next request of somebody else: %w", err)
	}
	return h.reused(c)
}

// next sends /after, and wants its response and nothing else.
func (h *hostile) next(nc net.Conn, r *bufio.Reader) error {
	if _, err := io.WriteString(nc, "GET /after HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		return err
	}
	return exactly(r, h.after)
}

// reused compares the connections that the origin saw.
func (h *hostile) reused(c *testCase) error {
	h.mu.Lock()
	conn, next := h.conn, h.other
	h.mu.Unlock()
	kept := conn == next
	if kept != (c.upstream == "kept" || c.upstream == "dropped" && h.byStream) {
		return fmt.Errorf("the origin's connection was used again: %v", kept)
	}
	if kept || c.end {
		return nil
	}
	// It is not only left aside: it is closed.
	_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err != nil && strings.Contains(err.Error(), "timeout") {
		return fmt.Errorf("the origin's connection stays open, unused")
	}
	return nil
}

// failed reads a refusal of the sidecar's own.
func failed(r *bufio.Reader, status int, method string) error {
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	for err == nil && resp.StatusCode < 200 {
		resp, err = http.ReadResponse(r, &http.Request{Method: method})
	}
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status || resp.Close || method != http.MethodHead && !strings.HasPrefix(string(body), "upstream connect error or disconnect/reset before headers.") {
		return fmt.Errorf("the client saw %d %q %v (%v), want %d", resp.StatusCode, body, resp.Header, err, status)
	}
	return nil
}

// exactly reads as much as want has, and a moment more to see that nothing follows is
// the next exchange's.
func exactly(r *bufio.Reader, want string) error {
	var got []byte
	for plain(got) != plain([]byte(want)) {
		b, err := r.ReadByte()
		if err != nil {
			return fmt.Errorf("the client saw %q (%w), want %q", got, err, want)
		}
		got = append(got, b)
		for r.Buffered() > 0 && plain(got) != plain([]byte(want)) {
			b, _ = r.ReadByte()
			got = append(got, b)
		}
		if len(got) > len(want)+4096 {
			return fmt.Errorf("the client saw %q, want %q", got, want)
		}
	}
	return nil
}

// added are the lines that the sidecar adds to every response.
var added = regexp.MustCompile(`(?m)^(date: [^\r]*|x-envoy-upstream-service-time: \d+|server: envoy)\r\n`)

// plain is a response in normal form without those.
func plain(b []byte) string {
	s, _ := normal(string(added.ReplaceAll(b, nil)))
	return s
}
