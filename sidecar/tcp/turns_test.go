package tcp

import (
	"net"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/fair"
	"github.com/hauberk-mesh/hauberk/sidecar/fair/fairtest"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// TestBulkTakesTurns: bytes that are always there do not keep who waits for the network from
// the processor, whether they are copied or spliced.
func TestBulkTakesTurns(t *testing.T) {
	t.Run("copied", func(t *testing.T) {
		p, err := New(&Config{Cluster: "up"}, Options{Clusters: upstream(t, func(*net.TCPConn) {})})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		n := fairtest.Waited(t, func(others *fairtest.Bystander) {
			peer := &fairtest.Ample{Others: others}
			if err := (&relay{p: p}).copy(&half{src: peer, dst: peer}); err != nil {
				t.Fatal(err)
			}
		})
		if n > 40 { // reads of 64 KB, and the first smaller ones
			t.Errorf("%d reads before another ran", n)
		}
	})
	t.Run("spliced", func(t *testing.T) {
		var ends [2]*stream.Socket
		var peers [2]net.Conn
		for i := range ends {
			near, far := socketPair(t)
			s, err := stream.NewSocket(near, nil)
			if err != nil {
				t.Fatal(err)
			}
			ends[i], peers[i] = s, far
		}
		if !fairtest.Runs(t, func() {
			if _, err := peers[0].Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			var share fair.Share
			share.Spend(1 << 30) // what was moved before
			if err := newSplicer(ends[1], ends[0], &share, 0).move(func() {}, func(int64) {}, func(int64) {}); err != nil {
				t.Fatal(err)
			}
		}) {
			t.Error("nobody else ran")
		}
	})
}
