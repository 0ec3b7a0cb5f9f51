package tcp

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/fair"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// TestBufferLimit: no buffer but the smallest has more than the limit, however often it was full, and no bytes go
// round it in the kernel.
func TestBufferLimit(t *testing.T) {
	for _, tc := range []struct{ most, first, last int }{
		{0, smallBuffer, largeBuffer}, {1000, smallBuffer, smallBuffer}, {smallBuffer, smallBuffer, smallBuffer},
		{10_000, smallBuffer, 10_000}, {mediumBuffer + 1, smallBuffer, mediumBuffer + 1}, {1 << 20, smallBuffer, largeBuffer},
	} {
		l := lease{size: smallBuffer, most: tc.most}
		if n := len(l.TakeBuffer()); n != tc.first {
			t.Errorf("limit %d: the first buffer has %d bytes", tc.most, n)
		}
		for range 3 {
			l.grow()
		}
		if n := len(l.TakeBuffer()); n != tc.last {
			t.Errorf("limit %d: the last buffer has %d bytes", tc.most, n)
		}
		l.DropBuffer()
	}
	var share fair.Share
	near, far := socketOf(t), socketOf(t)
	for most, want := range map[int]int{0: pipeSize, 1000: 0, spliceLeast: spliceLeast, 1 << 20: pipeSize} {
		got := 0
		if s := newSplicer(near, far, &share, most); s != nil {
			got = s.most
		}
		if got != want {
			t.Errorf("limit %d: a move has %d bytes, want %d", most, got, want)
		}
	}
}

func socketOf(t *testing.T) *stream.Socket {
	t.Helper()
	near, _ := socketPair(t)
	s, err := stream.NewSocket(near, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
