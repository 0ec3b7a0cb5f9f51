package http2

import (
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// TestTunnelReleasedAtItsDeadline: a timer that is due just then has no part in the stream,
// which is another's. The race detector tells.
func TestTunnelReleasedAtItsDeadline(t *testing.T) {
	s := serve(t, ForTunnels(), func(s *Stream) {
		_ = s.WriteHead(&message.Response{Status: 200, ContentLength: message.UnknownLength}, false)
		_ = s.Flush()
		_, _, _ = s.Next()
	})
	cc := dialClient(t, s.addr, ForTunnels())
	for range 300 {
		st, err := cc.Open(&message.Request{Method: "CONNECT", Authority: "a:1", ContentLength: message.UnknownLength}, false)
		if err != nil {
			t.Fatal(err)
		}
		tunnel := NewTunnel(st, nil)
		due := time.Now().Add(100 * time.Microsecond)
		if err := tunnel.SetReadDeadline(due); err != nil {
			t.Fatal(err)
		}
		for time.Now().Before(due) {
		}
		tunnel.Release()
	}
}
