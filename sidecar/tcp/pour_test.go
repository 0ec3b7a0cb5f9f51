package tcp

import (
	"bytes"
	"io"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// TestPourTakes: what the socket does not take at once is left, and counts for nothing until it was; who has
// left gets no more.
func TestPourTakes(t *testing.T) {
	near, far := socketPair(t)
	defer far.Close()
	_, _ = near.SetWriteBuffer(32<<10), far.SetReadBuffer(32<<10)
	s, err := stream.NewSocket(near, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := &relay{p: &Proxy{cfg: &Config{}, watch: newWatch(0)}}
	p := &pour{r: r, h: &r.down, to: s}
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	taken := 0
	for range 2 {
		rest := sent[taken:]
		n, more := p.Take([][]byte{rest[:20], rest[20:]})
		if taken += n; !more || r.down.moved.Load() != int64(taken) || p.failed != nil {
			t.Fatalf("took %d, more %v, counted %d of %d, %v", n, more, r.down.moved.Load(), taken, p.failed)
		}
	}
	if taken == 0 || taken == len(sent) || r.last.Load() == 0 {
		t.Fatalf("the socket takes %d bytes without a reader; noted %v", taken, r.last.Load() != 0)
	}
	got := make(chan []byte)
	go func() { b, _ := io.ReadAll(far); got <- b }()
	if _, err := s.Write(sent[taken:]); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b := <-got; !bytes.Equal(b, sent) {
		t.Errorf("%d bytes of %d came, or others", len(b), len(sent))
	}
	moved := r.down.moved.Load()
	if n, more := p.Take([][]byte{sent}); n != 0 || more || p.failed == nil || r.down.moved.Load() != moved {
		t.Errorf("of who takes no more: %d, more %v, %v", n, more, p.failed)
	}
}

// TestPourStopsWhereItIsOver: a direction that is to finish wants no more.
func TestPourStopsWhereItIsOver(t *testing.T) {
	near, far := socketPair(t)
	defer far.Close()
	s, err := stream.NewSocket(near, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := &relay{p: &Proxy{cfg: &Config{}, watch: newWatch(0)}}
	r.down.over = true
	if n, more := (&pour{r: r, h: &r.down, to: s}).Take([][]byte{[]byte("abc")}); n != 3 || more {
		t.Errorf("took %d, more %v", n, more)
	}
}
