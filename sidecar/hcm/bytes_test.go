package hcm

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// TestBytesOfAHost: what is counted of a cluster are bodies, whatever frames them and
// whoever sends them.
func TestBytesOfAHost(t *testing.T) {
	for name, request := range map[string]string{
		"length":  "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n" + strings.Repeat("x", 1000),
		"chunked": "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + strings.Repeat("x", 1000) + "\r\n0\r\n\r\n",
	} {
		b := newBed(t, versionedOrigin(t, 1, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, "0123456789")
		})).start()
		if resp, _ := b.dial().do(request); resp.StatusCode != 200 {
			t.Fatal(resp.StatusCode)
		}
		b.eventually(name+": bodies are counted", func() bool {
			return b.metric(`hauberk_upstream_bytes_total{cluster="origin",flow="sent"} 1000`) &&
				b.metric(`hauberk_upstream_bytes_total{cluster="origin",flow="received"} 10`)
		})
	}
}

// lostCarrier is a stream whose HTTP/2 connection its peer's host closed.
type lostCarrier struct{ stream.Stream }

func (lostCarrier) Read([]byte) (int, error) { return 0, fmt.Errorf("http2: %w", io.EOF) }

// TestLostCarrierIsNoEnd: what a tunnel brought before it was lost is not the whole.
func TestLostCarrierIsNoEnd(t *testing.T) {
	u := &bytesUpstream{c: &cluster.Conn{Stream: lostCarrier{}}}
	if _, last, err := u.Next(); last || err == nil {
		t.Errorf("it is passed on as the end: %t %v", last, err)
	}
}
