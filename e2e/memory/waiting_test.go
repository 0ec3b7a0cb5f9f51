//go:build e2e

package memory

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestWaitingRequests: a request whose answer is awaited holds its body once, for another
// attempt, and nothing of the copy that was written to the host.
func TestWaitingRequests(t *testing.T) {
	t.Parallel()
	const waiting, body = 500, 16 << 10
	var asked sync.WaitGroup
	asked.Add(waiting)
	silent := func(c net.Conn) {
		// The body's last byte is the only one of its kind.
		for b := make([]byte, 4<<10); ; {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			if strings.HasSuffix(string(b[:n]), "!") {
				asked.Done()
			}
		}
	}
	// The whole is there before any of it is sent.
	whole := strings.Replace(httpFilter, "http_filters: [", `http_filters: [{name: buffer, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: 65536}}, `, 1)
	addr := freeAddr(t)
	s := start(t, bootstrap(addr, origin(t, silent), whole, "", ""), addr)
	s.settled(t)
	before := s.live(t)
	request := fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s!", body, strings.Repeat("y", body-1))
	for range waiting {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
	}
	asked.Wait()
	s.settled(t)
	holds := s.live(t)
	each := float64(holds.Heap+holds.Stack-before.Heap-before.Stack) / waiting
	t.Logf("%.0f bytes a request of %d", each, body)
	// 38,700 are reached: the body in memory that grows by doubling, the exchange, a stack.
	if limit := 46_000.0; each > limit {
		t.Errorf("%.0f bytes a request of %d, at most %.0f", each, body, limit)
	}
}
