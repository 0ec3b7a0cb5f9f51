//go:build e2e

package floods

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

const (
	kb      = int64(1) << 10
	mb      = kb << 10
	unfelt  = 2 * time.Second // on two cores that the attackers use too
	crowd   = 300
	idlers  = 4000
	perIdle = 12 * kb
)

// drip sends text byte by byte until it is not taken any more.
func drip(c net.Conn, text string, pause time.Duration) {
	for i := 0; ; i++ {
		if _, err := io.WriteString(c, text[i%len(text):i%len(text)+1]); err != nil {
			return
		}
		time.Sleep(pause)
	}
}

// TestSlowHeads: heads that arrive byte by byte end at request_headers_timeout.
func TestSlowHeads(t *testing.T) {
	t.Parallel() // it waits, as others do
	f := newField(t, origin(t, nil), timeouts)
	f.during(loss{crowd * 24 * kb, unfelt}, func() {
		f.attackers(crowd, func(_ int, c net.Conn) error {
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\nX: "); err != nil {
				return err
			}
			go drip(c, "y", 50*time.Millisecond)
			began := time.Now()
			err := refused(c, 408)
			if took := time.Since(began); err == nil && (took < 800*time.Millisecond || took > 4*time.Second) {
				err = fmt.Errorf("the head was waited for %v", took)
			}
			return err
		})
	})
}

// TestSlowBodies: bodies that arrive byte by byte end at request_timeout, framed either
// way.
func TestSlowBodies(t *testing.T) {
	for _, tc := range []struct{ name, head, text string }{
		{"length", "Content-Length: 100000\r\n\r\n", "y"},
		{"short length", "Content-Length: 1000\r\n\r\n", "y"},
		{"chunks", "Transfer-Encoding: chunked\r\n\r\n", "1\r\ny\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := newField(t, origin(t, nil), timeouts)
			f.during(loss{crowd * 64 * kb, unfelt}, func() {
				f.attackers(crowd, func(_ int, c net.Conn) error {
					if _, err := io.WriteString(c, "POST /good HTTP/1.1\r\nHost: h\r\n"+tc.head); err != nil {
						return err
					}
					go drip(c, tc.text, 50*time.Millisecond)
					began := time.Now()
					err := refused(c, 408)
					if took := time.Since(began); err == nil && (took < 800*time.Millisecond || took > 5*time.Second) {
						err = fmt.Errorf("the body was waited for %v", took)
					}
					return err
				})
			})
		})
	}
}

// TestSilentBodies: a body that stops arriving ends at stream_idle_timeout.
func TestSilentBodies(t *testing.T) {
	t.Parallel()
	f := newField(t, origin(t, nil), "stream_idle_timeout: 1s")
	f.during(loss{crowd * 64 * kb, unfelt}, func() {
		f.attackers(crowd, func(_ int, c net.Conn) error {
			if _, err := io.WriteString(c, "POST /good HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\ny"); err != nil {
				return err
			}
			return over(c)
		})
	})
}

// TestEndlessMessages: what never ends is refused when it is too much, not kept.
func TestEndlessMessages(t *testing.T) {
	const chunked = "POST /good HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, tc := range []struct {
		name, begin, again string
		status             int
	}{
		{"request line", "GET /", "y", 414},
		{"field value", "GET / HTTP/1.1\r\nHost: h\r\nX: ", "y", 431},
		{"field name", "GET / HTTP/1.1\r\nHost: h\r\n", "y", 431},
		{"fields", "GET / HTTP/1.1\r\nHost: h\r\n", "X: y\r\n", 431},
		{"chunk extension", chunked + "1;", "y", 400},
		{"chunk extensions", chunked, "1;yyyyyyyyyyyyyyyyyy\r\na\r\n", 400},
		{"trailer value", chunked + "0\r\nX: ", "y", 431},
		{"trailers", chunked + "0\r\n", "X: y\r\n", 431},
		{"zeros of a chunk size", chunked, "0", 400},
		{"zeros of a length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: ", "0", 431},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newField(t, origin(t, nil), timeouts)
			more := strings.Repeat(tc.again, 4096)
			f.during(loss{100 * 192 * kb, unfelt}, func() {
				f.attackers(100, func(_ int, c net.Conn) error {
					go func() {
						_, _ = io.WriteString(c, tc.begin)
						for {
							if _, err := io.WriteString(c, more); err != nil {
								return
							}
						}
					}()
					return refused(c, tc.status)
				})
			})
		})
	}
}

// TestIdleConnections: a connection that waits holds next to nothing.
func TestIdleConnections(t *testing.T) {
	f := newField(t, origin(t, nil), "")
	f.during(loss{idlers * perIdle, unfelt}, func() {
		var all []net.Conn
		defer func() {
			for _, c := range all {
				_ = c.Close()
			}
		}()
		for i := range idlers {
			c, err := net.Dial("tcp", f.addr)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
			if i%4 == 0 { // some were used, and some began with what may precede a request
				_, _ = io.WriteString(c, "GET /good HTTP/1.1\r\nHost: h\r\n\r\n")
				if _, err := io.ReadFull(c, make([]byte, 20)); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(300 * time.Millisecond)
	})
}

// TestPipelinesNobodyReads: who sends requests and reads no answers is not read from
// any more.
func TestPipelinesNobodyReads(t *testing.T) {
	f := newField(t, origin(t, nil), timeouts)
	f.during(loss{100 * 128 * kb, unfelt}, func() {
		f.attackers(100, func(_ int, c net.Conn) error {
			_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second))
			many := strings.Repeat("GET /good HTTP/1.1\r\nHost: h\r\n\r\n", 1000)
			for sent := 0; ; sent += len(many) {
				if _, err := io.WriteString(c, many); err != nil {
					return nil
				}
				if sent > 64<<20 {
					return fmt.Errorf("%d bytes were taken without an answer being read", sent)
				}
			}
		})
	})
}

// TestPipelinesRead: every request of a long pipeline is answered, in order.
func TestPipelinesRead(t *testing.T) {
	f := newField(t, origin(t, nil), timeouts)
	f.during(loss{20 * 512 * kb, unfelt}, func() {
		f.attackers(20, func(_ int, c net.Conn) error {
			const n = 500
			go func() { _, _ = io.WriteString(c, strings.Repeat("GET /good HTTP/1.1\r\nHost: h\r\n\r\n", n)) }()
			r := bufio.NewReader(c)
			for i, got := 0, 0; got < n; i++ {
				line, err := r.ReadString('\n')
				if err != nil {
					return fmt.Errorf("%d of %d answered: %w", got, n, err)
				}
				if strings.HasPrefix(line, "HTTP/1.1 200 ") || strings.HasPrefix(line, "goodHTTP/1.1 200 ") {
					got++
				}
			}
			return nil
		})
	})
}

// TestRefusedPipelines: who sends requests that are refused as fast as they come, and reads
// the answers, has no more than its turns.
func TestRefusedPipelines(t *testing.T) {
	f := newField(t, origin(t, nil), timeouts, denied)
	many := strings.Repeat("GET /denied HTTP/1.1\r\nHost: h\r\n\r\n", 200)
	f.during(loss{32 * 128 * kb, unfelt}, func() {
		f.attackers(32, func(_ int, c net.Conn) error { return busy(c, many) })
	})
}

// busy sends text again and again for a while, and reads what is answered.
func busy(c net.Conn, text string) error {
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	go func() {
		for {
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
		}
	}()
	n, err := io.Copy(io.Discard, c)
	if errors.Is(err, os.ErrDeadlineExceeded) && n > 0 {
		return nil
	}
	return fmt.Errorf("%d bytes were answered: %w", n, err)
}
