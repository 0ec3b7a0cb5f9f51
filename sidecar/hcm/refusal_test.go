package hcm

import (
	"io"
	"net/http"
	"testing"
)

// TestBodyRefusedBeforeItIsForwarded: what came with the head and is malformed reaches
// no origin, which could answer it before it is refused.
func TestBodyRefusedBeforeItIsForwarded(t *testing.T) {
	b := newBed(t, httpOrigin(t, func(http.ResponseWriter, *http.Request) { t.Error("the origin was asked") })).start()
	c := b.dial()
	if resp, _ := c.do("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nx\r\n"); resp.StatusCode != 400 || !resp.Close {
		t.Errorf("%d %v", resp.StatusCode, resp.Close)
	}
	c.closed()
	b.wantLog("400 DPE bad_chunk_size")
}

// TestBodyRefusedWhileTheAnswerIsAwaited: whoever waits for the response learns from an
// interrupted read that the body was refused, and must then find out why, every time.
func TestBodyRefusedWhileTheAnswerIsAwaited(t *testing.T) {
	b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.ReadAll(r.Body) })).start()
	for i := range 300 {
		c := b.dial()
		c.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n")
		c.send("a\r\nx")
		if resp, body := c.answer("POST"); resp.StatusCode != 400 {
			t.Fatalf("%d: %d %q", i, resp.StatusCode, body)
		}
		_ = c.Close()
	}
}
