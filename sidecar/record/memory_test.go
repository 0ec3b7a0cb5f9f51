package record

import (
	"bytes"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// memory is a Transport that has what another has written, step bytes at a time, and would wait
// between. Whatever it is lent is somebody else's as soon as it waits.
type memory struct {
	mu      sync.Mutex
	written bytes.Buffer
	in      []byte
	step    int
	wait    bool
	writing func() // called within a Write
}

func (m *memory) ReadLent(b Buffers) (int, error) {
	p := b.TakeBuffer()
	if m.wait = !m.wait; m.wait {
		b.DropBuffer()
		clear(p)
		others := readBuffers.Get().(*[readSize]byte)
		clear(others[:])
		readBuffers.Put(others)
		return 0, ErrWouldBlock
	}
	if len(m.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), m.step)], m.in)
	m.in = m.in[n:]
	return n, nil
}

func (m *memory) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.writing != nil {
		m.writing()
	}
	return m.written.Write(p)
}

func (m *memory) WriteLater(p []byte)            { _, _ = m.Write(p) }
func (*memory) SetDeadline(time.Time) error      { return nil }
func (*memory) SetReadDeadline(time.Time) error  { return nil }
func (*memory) SetWriteDeadline(time.Time) error { return nil }
func (*memory) Close() error                     { return nil }

// memories are a writer and a reader with the same keys, over memory.
func memories(t testing.TB) (w, r *Conn, from, to *memory) {
	t.Helper()
	from, to = &memory{}, &memory{step: 1 << 20}
	conn := func(m *memory, client bool) *Conn {
		s := &Secrets{client: secret{length: 32}, server: secret{bytes: [maxSecret]byte{1}, length: 32}}
		c, err := New(m, tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256}, client, s)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	return conn(from, false), conn(to, true), from, to
}

// TestResumed: wherever in a record a reader has to wait, it goes on there, and has nothing of a
// pool's memory while it waits. Keys change, and tickets come, as they like.
func TestResumed(t *testing.T) {
	for _, step := range []int{1, 4, 5, 6, 21, 22, 23, 100, 5000, maxPlain, sealedSize - 1, sealedSize, sealedSize + 1, readSize} {
		w, c, from, to := memories(t)
		w.out.most = 5
		r := rand.New(rand.NewPCG(1, uint64(step)))
		var want []byte
		for len(want) < 30_000+10*step {
			p := make([]byte, 1+r.IntN(1<<r.IntN(17)))
			for i := range p {
				p[i] = byte(r.Uint32())
			}
			want = append(want, p...)
			if _, err := w.Write(p); err != nil {
				t.Fatal(err)
			}
			if r.IntN(4) == 0 {
				_ = w.out.write(from, typeHandshake, []byte{messageKeyUpdate, 0, 0, 1, 1})
				_ = w.out.update()
			}
			if r.IntN(4) == 0 {
				_ = w.out.write(from, typeHandshake, []byte{messageNewSessionTicket, 0, 0})
				_ = w.out.write(from, typeHandshake, []byte{2, 9, 9})
			}
		}
		_ = w.CloseWrite()
		to.in, to.step = from.written.Bytes(), step
		var got []byte
		for {
			p := make([]byte, 1+r.IntN(1<<r.IntN(17)))
			n, err := c.Read(p)
			got = append(got, p[:n]...)
			if err == io.EOF {
				break
			}
			if err == ErrWouldBlock && (c.in.pooled != nil || c.in.plain != nil) {
				t.Fatalf("step %d: a pool's memory is held in a wait", step)
			}
			if err != nil && err != ErrWouldBlock {
				t.Fatalf("step %d: %v", step, err)
			}
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("step %d: %d bytes of %d, or others", step, len(got), len(want))
		}
	}
}

// TestManyWriters: what several write is whole, each record under a number of its own, through
// changes of keys.
func TestManyWriters(t *testing.T) {
	w, c, from, to := memories(t)
	w.out.most = 9
	const writers, writes, size = 8, 50, 40_000
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			p := bytes.Repeat([]byte{byte(i)}, size)
			for range writes {
				if n, err := w.Write(p); n != size || err != nil {
					t.Error(n, err)
				}
				if i == 0 {
					w.out.owed.Store(true)
				}
			}
		})
	}
	wg.Wait()
	_ = w.CloseWrite()
	to.in = from.written.Bytes()
	for total := 0; ; {
		p := make([]byte, maxPlain)
		n, err := c.Read(p)
		total += n
		switch {
		case err == io.EOF && total == writers*writes*size:
			return
		case err != nil && err != ErrWouldBlock:
			t.Fatalf("after %d bytes: %v", total, err)
		case n > 0 && bytes.Count(p[:n], p[:1]) != n:
			t.Fatal("a record has what two have written")
		}
	}
}

// TestMemoryOfWrites: while the transport has a record nobody else writes into it.
func TestMemoryOfWrites(t *testing.T) {
	for _, size := range []int{1, maxPlain + 1} {
		w, _, from, _ := memories(t)
		from.writing = func() {
			for range 3 { // somebody else writes meanwhile
				other, _, _, _ := memories(t)
				_, _ = other.Write(bytes.Repeat([]byte{1}, size))
			}
		}
		if _, err := w.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		_, c, _, to := memories(t)
		to.in, to.wait = from.written.Bytes(), true
		p := make([]byte, size)
		if n, err := c.Read(p); n != min(size, maxPlain) || err != nil || !bytes.Equal(p[:n], make([]byte, n)) {
			t.Errorf("%d: %d, %v", size, n, err)
		}
	}
}

// TestFaultBesideAWriter: who reads waits for nobody, and the peer hears of its fault from who was
// writing, or at the latest in place of the end.
func TestFaultBesideAWriter(t *testing.T) {
	for _, whoTells := range []string{"the writer", "Close"} {
		w, c, from, to := memories(t)
		_ = c
		bad := []byte{byte(typeAlert), 3, 3, 0, 2, 1, 0}
		from.in, from.step, from.wait = bad, len(bad), true
		w.out.mu.Lock() // somebody writes
		_, fault := w.Read(make([]byte, 10))
		if fault == nil || fault == ErrWouldBlock {
			t.Fatal(fault)
		}
		if whoTells == "Close" {
			w.out.mu.Unlock() // without having seen it
			_ = w.Close()
		} else {
			w.out.unlock(from)
			if n, err := w.Write([]byte("x")); n != 0 || err != fault {
				t.Errorf("written after a fault: %d, %v", n, err)
			}
		}
		to.in, to.wait = from.written.Bytes(), true
		_, err := c.Read(make([]byte, 10))
		if err == nil || err.Error() != "remote error: tls: unexpected message" {
			t.Errorf("%s: the peer sees %v", whoTells, err)
		}
	}
}

// TestCloseBesideAWriter: Close does not wait for who writes.
func TestCloseBesideAWriter(t *testing.T) {
	w, _, from, _ := memories(t)
	w.out.mu.Lock()
	if err := w.Close(); err != nil || from.written.Len() > 0 {
		t.Errorf("%v, %d bytes", err, from.written.Len())
	}
	w.out.mu.Unlock()
	if _, err := w.Write([]byte("x")); err != net.ErrClosed {
		t.Error(err)
	}
}
