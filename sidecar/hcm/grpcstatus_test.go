package hcm

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
)

// TestTrailersAreReadOnce: a host that says two statuses in its trailers has said one thing, to
// everyone who asks: not success to one and failure to another.
func TestTrailersAreReadOnce(t *testing.T) {
	b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n"+
				"2\r\nok\r\n0\r\nGrpc-Status: 0\r\nGrpc-Status: 7\r\n\r\n")
		}
	}))
	b.cfg.AccessLog[0].Format = "%TRAILER(GRPC-STATUS)% %GRPC_STATUS_NUMBER%\n"
	c := b.start().dial()
	c.send("GET / HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nTE: trailers\r\n\r\n")
	resp, _ := c.answer("GET")
	if got := resp.Trailer["Grpc-Status"]; len(got) != 1 || got[0] != "0,7" {
		t.Errorf("the client got %q", got)
	}
	if got := b.logged(1)[0]; got != "0,7 -1" {
		t.Errorf("the log says %q", got)
	}
}
