package http2

import (
	"bytes"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

// TestReceivedBulk: what waits is in small blocks where it comes in small frames, in
// blocks of one frame, and in larger ones when several wait; it comes out as it went in.
func TestReceivedBulk(t *testing.T) {
	var r received
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
	put := func(n int) { r.append(frame[:n]); want = append(want, frame[:n]...) }
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
