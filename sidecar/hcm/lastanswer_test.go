package hcm

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"testing"
)

// TestLastAnswerBeforeAPipelinedRequest: the answer to the last request of a connection arrives
// whole, though the client has sent another that nobody reads.
func TestLastAnswerBeforeAPipelinedRequest(t *testing.T) {
	body := bytes.Repeat([]byte("x"), 512<<10)
	asked, goOn := make(chan bool), make(chan bool)
	b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- true
		<-goOn
		_, _ = w.Write(body)
	}))
	b.cfg.MaxRequests = 1
	b.start()
	c := b.dial()
	if err := c.Conn.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	c.send(simpleGet)
	<-asked
	c.send(simpleGet)
	goOn <- true
	b.logged(1) // all of the answer is written as far as the sidecar is concerned
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(resp.Body); err != nil || len(got) != len(body) || !resp.Close {
		t.Errorf("%d bytes of %d, %v", len(got), len(body), err)
	}
	c.closed()
}
