package http2

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
)

// TestReceivedBulk: what waits is in small blocks where it comes in small frames, in
// blocks of one frame, and in larger ones when several wait; it comes out as it went in.
func TestReceivedBulk(t *testing.T) {
	var r received
	left := 10
	defer r.clear()
	sizes := func() (s []int) {
		for b := r.head; b != nil; b = b.next {
			s = append(s, len(b.b))
		}
		return s
	}
	frame := make([]byte, largeBlock)
	rand.NewChaCha8([32]byte{3}).Read(frame)
	var want, got []byte
	put := func(n int) { r.append(frame[:n], &left); want = append(want, frame[:n]...) }
	drain := func() {
		for r.n > 0 {
			p := r.peek()
			got = append(got, p...)
			r.consume(len(p))
		}
	}
	put(10)
	drain()
	for range 3 + bulkBlock/largeBlock {
		put(largeBlock)
	}
	if got, want := sizes(), []int{largeBlock, largeBlock, bulkBlock, bulkBlock}; !slices.Equal(got, want) {
		t.Errorf("blocks of %d, want %d", got, want)
	}
	drain()
	put(largeBlock)
	if got := sizes(); !slices.Equal(got, []int{bulkBlock}) {
		t.Errorf("while bulk goes on: blocks of %d", got)
	}
	drain()
	put(10)
	if got := sizes(); !slices.Equal(got, []int{smallBlock}) {
		t.Errorf("a small frame: blocks of %d", got)
	}
	drain()
	put(largeBlock)
	if got := sizes(); !slices.Equal(got, []int{largeBlock}) {
		t.Errorf("after a small frame: blocks of %d", got)
	}
	drain()
	if !bytes.Equal(got, want) {
		t.Error("the bytes differ")
	}
}

// TestTunnelLendsChunks: what is lent is good until the next read, also when the tunnel
// is closed meanwhile; the end comes after all of it.
func TestTunnelLendsChunks(t *testing.T) {
	ends, hold := make(chan *Tunnel, 1), make(chan bool)
	srv := serve(t, Default(), tunnelServer(ends, hold))
	defer close(hold)
	cc := dialClient(t, srv.addr, nil)
	client, server, s := tunnel(t, cc, requests()["connect"], ends)
	defer s.Close()
	data := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{4}).Read(data)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = server.Write(data)
		_ = server.CloseWrite()
	})
	var got []byte
	// A part by Read, the rest as chunks.
	part := make([]byte, 100)
	n, err := io.ReadFull(client, part)
	got = append(got, part[:n]...)
	for err == nil {
		var chunk []byte
		if chunk, err = client.ReadChunk(); err == nil && len(chunk) == 0 {
			t.Fatal("an empty chunk")
		}
		got = append(got, chunk...)
	}
	wg.Wait()
	if err != io.EOF || !bytes.Equal(got, data) {
		t.Errorf("%v after %d bytes, or they differ", err, len(got))
	}
	if _, err := client.Write([]byte("0123456789")); err != nil {
		t.Fatal(err)
	}
	chunk, err := server.ReadChunk()
	if err != nil {
		t.Fatal(err)
	}
	_ = client.Close()
	_ = server.Close()
	if string(chunk) != "0123456789" {
		t.Errorf("%q after the tunnel was closed", chunk)
	}
	if _, err := server.ReadChunk(); err == nil {
		t.Error("a closed tunnel can be read")
	}
}

// TestMemoryOfBodies: what the bodies of a connection take of memory is about what its
// window admits, and a block of one frame for each.
func TestMemoryOfBodies(t *testing.T) {
	cfg := Default()
	cfg.ConnWindow = 4 << 20
	a, _ := net.Pipe()
	sc := NewServer(&pipeStream{Conn: a}, cfg, nil) // nobody reads: it is the test's
	streams := make([]*Stream, 100)
	waiting := 0
	for i := range streams {
		s := newStream(&sc.conn)
		s.listed = true
		sc.streams[uint32(2*i+1)] = s
		sc.data.s, sc.data.id = s, uint32(2*i+1)
		for _, n := range []int{maxFrameSize, maxFrameSize, 2049} { // the last begins a block for bulk
			sc.keepPayload(make([]byte, n))
			waiting += n
		}
		streams[i] = s
	}
	held := 0
	for _, s := range streams {
		for b := s.in.head; b != nil; b = b.next {
			held += len(b.b)
		}
	}
	if most := waiting + int(cfg.ConnWindow) + bulkBlock + len(streams)*largeBlock; held > most {
		t.Errorf("%d bytes of bodies hold %d bytes of memory, want %d at most", waiting, held, most)
	}
	for i, s := range streams {
		if i%2 == 0 {
			s.in.clear()
			continue
		}
		for s.in.n > 0 {
			s.in.consume(len(s.in.peek()))
		}
	}
	if want := 1 + int(cfg.ConnWindow)/bulkBlock; sc.bulk != want {
		t.Errorf("%d large blocks may be taken when all are given back, want %d", sc.bulk, want)
	}
}
