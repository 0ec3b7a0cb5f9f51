//go:build e2e

package floods

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestHostileOrigins: what an origin sends without end is cut off, and the client is
// told as long as it can be.
func TestHostileOrigins(t *testing.T) {
	for _, tc := range []struct {
		name, begin, again string
		status             int // 0 when the answer has begun before
	}{
		{"interim responses", "", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 0},
		{"continues", "", "HTTP/1.1 100 Continue\r\n\r\n", 502},
		{"status line", "HTTP/1.1 200 ", "y", 502},
		{"field value", "HTTP/1.1 200 OK\r\nX: ", "y", 502},
		{"fields", "HTTP/1.1 200 OK\r\n", "X: y\r\n", 502},
		{"chunk extension", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", "y", 0},
		{"chunk extensions", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1;yyyyyyyyyyyyyyyyyy\r\na\r\n", 0},
		{"trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", "X: y\r\n", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			more := strings.Repeat(tc.again, 4096)
			f := newField(t, origin(t, func(_ string, c net.Conn, _ *bufio.Reader) {
				_, _ = io.WriteString(c, tc.begin)
				for {
					if _, err := io.WriteString(c, more); err != nil {
						return
					}
				}
			}), timeouts)
			f.during(loss{50 * 256 * kb, unfelt}, func() {
				f.attackers(50, func(_ int, c net.Conn) error {
					if _, err := io.WriteString(c, "GET /bad HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"); err != nil {
						return err
					}
					if tc.status == 0 {
						return over(c)
					}
					return refused(c, tc.status)
				})
			})
		})
	}
}

// TestBodiesNobodyReads: an endless response waits for its reader, and ends with
// stream_idle_timeout when there is none.
func TestBodiesNobodyReads(t *testing.T) {
	t.Parallel()
	piece := strings.Repeat("y", 64<<10)
	ended := make(chan struct{}, 100)
	f := newField(t, origin(t, func(_ string, c net.Conn, _ *bufio.Reader) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		for {
			if _, err := io.WriteString(c, piece); err != nil {
				ended <- struct{}{}
				return
			}
		}
	}), timeouts)
	f.during(loss{100 * 128 * kb, unfelt}, func() {
		f.attackers(100, func(_ int, c net.Conn) error {
			_, err := io.WriteString(c, "GET /bad HTTP/1.1\r\nHost: h\r\n\r\n")
			<-ended
			return err
		})
	})
}

// TestSilentOrigins: an origin that answers nothing holds a request no longer than
// stream_idle_timeout.
func TestSilentOrigins(t *testing.T) {
	t.Parallel()
	f := newField(t, origin(t, func(_ string, c net.Conn, r *bufio.Reader) { _, _ = r.ReadByte() }), "stream_idle_timeout: 1s")
	f.during(loss{crowd * 32 * kb, unfelt}, func() {
		f.attackers(crowd, func(_ int, c net.Conn) error {
			if _, err := io.WriteString(c, "GET /bad HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"); err != nil {
				return err
			}
			_ = c.SetDeadline(time.Now().Add(8 * time.Second))
			return refused(c, 504)
		})
	})
}
