package tcp

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hauberk-mesh/hauberk/sidecar/fair"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// eventually waits for what another goroutine or the kernel does.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(what)
		}
	}
}

// narrow is a socket that takes little before its peer reads, and the peer.
func narrow(t *testing.T) (*stream.Socket, *net.TCPConn) {
	t.Helper()
	c, peer := socketPair(t)
	_, _ = c.SetWriteBuffer(32<<10), peer.SetReadBuffer(32<<10)
	s, err := stream.NewSocket(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Close(), peer.Close() })
	return s, peer
}

// TestTakenSlowly: what a destination takes counts at once, and not when it has taken all that was read in one
// go: a client that is slow with it is not idle.
func TestTakenSlowly(t *testing.T) {
	dst, peer := narrow(t)
	const size = 1 << 20
	r, h := &relay{p: &Proxy{cfg: &Config{}, watch: newWatch(0)}}, &half{dst: dst}
	done := make(chan error, 1)
	go func() { done <- r.put(h, make([]byte, size)) }()
	eventually(t, "nothing counts before all was taken", func() bool { return h.moved.Load() > 0 })
	const step = 256 << 10
	for range size / step {
		before := h.moved.Load()
		if _, err := io.CopyN(io.Discard, peer, step); err != nil {
			t.Fatal(err)
		}
		eventually(t, "what was taken later does not count", func() bool { n := h.moved.Load(); return n > before || n == size })
	}
	if err := <-done; err != nil || h.moved.Load() != size || r.last.Load() == 0 {
		t.Errorf("%v, %d of %d bytes", err, h.moved.Load(), size)
	}
}

// TestSplicedSlowly is the same of what the kernel moves.
func TestSplicedSlowly(t *testing.T) {
	dst, peer := narrow(t)
	from, c := socketPair(t)
	_ = c.SetReadBuffer(2 * pipeSize)
	src, err := stream.NewSocket(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = from.Close(), c.Close() })
	const size = 512 << 10
	go func() { _, _ = from.Write(make([]byte, size)) }()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the source has too little", func() (enough bool) {
		_ = raw.Control(func(fd uintptr) {
			n, err := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
			enough = err == nil && n >= pipeSize/4
		})
		return enough
	})
	var told, moved atomic.Int64
	go func() {
		s := newSplicer(dst, src, &fair.Share{}, 0)
		for moved.Load() < size {
			n, err := s.once(func() {}, func(n int64) { told.Add(n) })
			if err != nil {
				t.Error(err)
				return
			}
			moved.Add(n)
		}
	}()
	eventually(t, "nothing counts before the pipe is empty", func() bool { return told.Load() > moved.Load() })
	if n, err := io.CopyN(io.Discard, peer, size); err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	eventually(t, "not all is told of", func() bool { return told.Load() == size && moved.Load() == size })
}

// whole is a stream that tells of nothing before all of a write has left, as TLS does.
type whole struct{ *stream.Socket }

// TestTakenSlowlyOfOneWrite: who takes little of what waits in one write is not idle either, and who takes nothing is.
func TestTakenSlowlyOfOneWrite(t *testing.T) {
	dst, peer := narrow(t)
	const size = 4 << 20
	r := &relay{p: &Proxy{cfg: &Config{}, watch: newWatch(0)}}
	r.toUp.dst, r.down.dst = whole{dst}, whole{dst}
	done := make(chan error, 1)
	r.moving(&r.toUp)
	go func() { done <- r.put(&r.toUp, make([]byte, size)) }()
	now := int64(0)
	noted := func() bool {
		now++
		r.acknowledged(now)
		return r.last.Load() == now
	}
	for range 4 {
		eventually(t, "who takes nothing is never idle", func() bool { return !noted() })
		if _, err := io.CopyN(io.Discard, peer, 64<<10); err != nil {
			t.Fatal(err)
		}
		eventually(t, "what was taken does not count", noted)
	}
	if _, err := io.CopyN(io.Discard, peer, size-4*64<<10); err != nil {
		t.Errorf("not all arrives: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
