package hcm

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// TestClientSaysItsEnd: who says over TLS that nothing more follows, before the answer is here, has left,
// though its connection is open: as one of plaintext that ends its side.
func TestClientSaysItsEnd(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, tc := range []struct{ name, head, rest, answer, log string }{
			{"while it waits", simpleGet, "", "", " 0 DC downstream_remote_disconnect"},
			{"after a body", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi", "", "", " 0 DC downstream_remote_disconnect"},
			{"after a body in pieces", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", "0\r\n\r\n", "", " 0 DC downstream_remote_disconnect"},
			{"within a body", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhi", "", "", " 0 DC downstream_remote_disconnect"},
			{"within the answer", simpleGet, "", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", " 200 DC downstream_remote_disconnect"},
		} {
			t.Run(fmt.Sprint(tls.VersionName(version), " ", tc.name), func(t *testing.T) {
				came, gone := make(chan struct{}), make(chan struct{})
				b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
					for {
						if line, err := r.ReadString('\n'); err != nil || line == "\r\n" {
							break
						}
					}
					close(came)
					if tc.answer != "" {
						_, _ = c.Write([]byte(tc.answer))
					}
					for {
						if _, err := r.ReadByte(); err != nil { // until we close
							break
						}
					}
					close(gone)
				}))
				b.tls = &tls.Config{Certificates: []tls.Certificate{certificate(t, apiID)}, SessionTicketsDisabled: true}
				b.start()
				raw := b.dial()
				c := tls.Client(raw.Conn, &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
				_, _ = c.Write([]byte(tc.head))
				<-came
				if tc.rest != "" {
					_, _ = c.Write([]byte(tc.rest))
				}
				if tc.answer != "" {
					if line, err := bufio.NewReader(c).ReadString('\n'); !strings.Contains(line, "200") {
						t.Fatal(line, err)
					}
				}
				if err := c.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				select {
				case <-gone:
				case <-time.After(10 * time.Second):
					t.Fatal("the upstream connection is still open")
				}
				b.wantLog(tc.log)
			})
		}
	}
}
