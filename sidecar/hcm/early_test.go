package hcm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	bodybuffer "github.com/hauberk-mesh/hauberk/sidecar/filter/buffer"
)

// endless is a body that is as long as it is said to be.
type endless struct {
	left int
	read atomic.Int64 // bytes that somebody took
}

func (e *endless) Read(p []byte) (int, error) {
	n := min(len(p), e.left)
	if n == 0 {
		return 0, io.EOF
	}
	e.left -= n
	e.read.Add(int64(n))
	return n, nil
}

// TestEarlyAnswerToAnUpload: a host that answers while a large upload is under way, and
// does not read the rest of it, has its answer relayed at once, whether or not it closes
// the connection, and in which way; the upload is then stopped, and the connection to
// the host is not used again.
func TestEarlyAnswerToAnUpload(t *testing.T) {
	for _, version := range []int{1, 2} {
		for _, end := range []string{"keep", "close", "reset"} {
			for _, whole := range []bool{false, true} { // is all of it here before it is sent on?
				t.Run(fmt.Sprintf("client %d, %s, %v", version, end, whole), func(t *testing.T) {
					t.Parallel()
					size := 100 << 20
					gone := make(chan error, 4)
					b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
						req, err := http.ReadRequest(r)
						if err != nil {
							return
						}
						if req.Method == "GET" {
							_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
							_, _ = r.ReadByte()
							return
						}
						_, _ = io.CopyN(io.Discard, req.Body, 10<<10)
						closing := "Connection: close\r\n"
						if end == "keep" {
							closing = ""
						}
						_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\n"+closing+"Content-Length: 5\r\n\r\nlarge")
						switch end {
						case "reset":
							_ = c.(*net.TCPConn).SetLinger(0)
							return
						case "close":
							_ = c.(*net.TCPConn).CloseWrite()
						}
						// The sidecar ends the connection, with much of the body unread.
						time.Sleep(300 * time.Millisecond)
						_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
						_, err = io.Copy(io.Discard, r)
						gone <- err
					}))
					if whole {
						size = 16 << 20 // more than the sockets take
						b.filter("buffer", &bodybuffer.Config{MaxBytes: size})
					}
					b.start()
					upload := &endless{left: size}
					var status int
					var body []byte
					var taken int64 // of the upload, when the answer came
					if version == 1 {
						c := b.dial()
						sent := make(chan struct{})
						go func() {
							defer close(sent)
							fmt.Fprintf(c, "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", size)
							_, _ = io.Copy(c, upload)
						}()
						resp, text := c.answer("POST")
						status, body = resp.StatusCode, []byte(text)
						taken = upload.read.Load()
						if resp.Close == whole {
							t.Errorf("close: %v", resp.Close)
						}
						<-sent
					} else {
						resp, err := b.httpClient(2).Post("http://"+b.addr+"/x", "", upload)
						if err != nil {
							t.Fatal(err)
						}
						status, taken = resp.StatusCode, upload.read.Load()
						body, err = io.ReadAll(resp.Body)
						if err != nil {
							t.Errorf("the answer's body: %v", err)
						}
						_ = resp.Body.Close()
					}
					if status != 413 || string(body) != "large" {
						t.Errorf("%d %q", status, body)
					}
					if !whole && taken >= int64(size) {
						t.Error("the answer came after the upload")
					}
					if end != "reset" {
						if err := <-gone; errors.Is(err, os.ErrDeadlineExceeded) {
							t.Error("the connection to the host is open")
						}
					}
					if resp, _ := b.dial().do("GET / HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 200 {
						t.Errorf("afterwards: %d", resp.StatusCode)
					}
					// The upload may end after the request that followed its answer.
					if lines := strings.Join(b.logged(2), "\n"); !strings.Contains(lines, "POST /x 413 - via_upstream") {
						t.Errorf("log %q", lines)
					}
				})
			}
		}
	}
}

// TestTooLargeWithItsHead: of a body that has to be whole, and is too large, nothing more is waited
// for, also when all of it that is there came with the head.
func TestTooLargeWithItsHead(t *testing.T) {
	b := newBed(t, rawOrigin(t, func(int, net.Conn, *bufio.Reader) { t.Error("it was sent on") }))
	b.filter("b", &bodybuffer.Config{MaxBytes: 4})
	c := b.start().dial()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	c.send("POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || resp.StatusCode != 413 {
		t.Error(resp, err)
	}
}
