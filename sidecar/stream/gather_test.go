package stream

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// countWrites counts what crypto/tls's writes become.
func (c *recordConn) countWrites() *int {
	n, once := new(int), c.w.once
	c.w.once = func(fd uintptr) bool { *n++; return once(fd) }
	return n
}

// TestWriteGathers: what one write sends goes to the socket by four records.
func TestWriteGathers(t *testing.T) {
	server, client := tlsPair(t)
	if err := server.raw.Conn.(*net.TCPConn).SetWriteBuffer(4 * gatherSize); err != nil { // so that none is cut
		t.Fatal(err)
	}
	writes := server.raw.countWrites()
	data := make([]byte, 2*gatherSize+1)
	rand.NewChaCha8([32]byte{1}).Read(data)
	for what, write := range map[string]func() (int, error){
		"Write": func() (int, error) { return server.Write(data) },
		"TryWrite": func() (int, error) {
			n, done, err := server.TryWrite(data)
			if !done {
				t.Error("not done")
			}
			return n, err
		},
	} {
		*writes = 0
		if n, err := write(); n != len(data) || err != nil {
			t.Fatalf("%s: %d, %v", what, n, err)
		}
		if *writes != 3 {
			t.Errorf("%s: %d bytes went to the socket in %d calls, want 3", what, len(data), *writes)
		}
		got := make([]byte, len(data))
		if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%s: %v, or the bytes differ", what, err)
		}
		if server.raw.w.kept != nil {
			t.Errorf("%s: the connection holds memory", what)
		}
	}
}

// narrow makes the buffers so small that many writes are cut somewhere. Much smaller ones
// would wait for TCP's timers.
func narrow(t testing.TB, server, client *TLS) {
	t.Helper()
	for _, err := range []error{
		server.raw.Conn.(*net.TCPConn).SetWriteBuffer(32 << 10), client.raw.Conn.(*net.TCPConn).SetReadBuffer(256 << 10),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestWritesOfAllSizes: with a reader that takes little at a time, writes of any size,
// waiting or not, arrive whole and in order, and the end after them.
func TestWritesOfAllSizes(t *testing.T) {
	for seed := range uint64(4) {
		server, client := tlsPair(t)
		narrow(t, server, client)
		r := rand.New(rand.NewPCG(seed, 7))
		data := make([]byte, 8<<20)
		rand.NewChaCha8([32]byte{byte(seed)}).Read(data)
		var wg sync.WaitGroup
		wg.Go(func() {
			defer func() { _ = server.CloseWrite() }()
			for rest := data; len(rest) > 0; {
				p := rest[:min(len(rest), 1+r.IntN(1<<(1+r.IntN(18))))]
				rest = rest[len(p):]
				n, done := 0, false
				if r.IntN(2) == 0 {
					var err error
					if n, done, err = server.TryWrite(p); err != nil {
						t.Error(err)
						return
					}
				}
				if !done {
					if m, err := server.Write(p[n:]); m != len(p)-n || err != nil {
						t.Errorf("%d of %d, %v", m, len(p)-n, err)
						return
					}
				}
			}
		})
		got, err := io.ReadAll(client)
		wg.Wait()
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("seed %d: %d of %d bytes, or others; %v", seed, len(got), len(data), err)
		}
	}
}

// TestDeadlineWhileGathering: a write that is cut by its deadline ends the stream for
// writing, and what left of it is a beginning of what was to be sent.
func TestDeadlineWhileGathering(t *testing.T) {
	server, client := tlsPair(t)
	data := make([]byte, 32<<20)
	rand.NewChaCha8([32]byte{2}).Read(data)
	_ = server.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	n, err := server.Write(data)
	if !IsTimeout(err) || n == 0 || n == len(data) {
		t.Fatalf("%d, %v", n, err)
	}
	_ = server.SetWriteDeadline(time.Time{})
	if _, err := server.Write(data[:1]); err == nil {
		t.Error("the stream can be written to after a write was cut")
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Close() })
	got, err := io.ReadAll(client)
	wg.Wait()
	if err != nil {
		t.Errorf("after what was kept: %v", err)
	}
	if len(got) < n || !bytes.Equal(got, data[:len(got)]) {
		t.Errorf("%d bytes arrived, %d were written, or they differ", len(got), n)
	}
}

// TestResetWhileGathering: the peer's reset ends a write of many records.
func TestResetWhileGathering(t *testing.T) {
	for _, try := range []bool{false, true} {
		server, client := tlsPair(t)
		_ = client.raw.Conn.(*net.TCPConn).SetLinger(0)
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _ = io.CopyN(io.Discard, client, 1<<20)
			_ = client.raw.Conn.Close()
		})
		data, err := make([]byte, gatherSize), error(nil)
		for err == nil {
			done := false
			if try {
				_, done, err = server.TryWrite(data)
			}
			if !done && err == nil {
				_, err = server.Write(data)
			}
		}
		wg.Wait()
		if !isReset(err) {
			t.Errorf("try %v: %v", try, err)
		}
	}
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// TestAnswersWhileGathering: a record that crypto/tls writes on the reader's account (the
// answer to a key update) beside a write stays whole, leaves, and holds nothing up.
func TestAnswersWhileGathering(t *testing.T) {
	server, client := tlsPair(t)
	narrow(t, server, client)
	c, peer := server.raw, client.raw.Conn
	record := func(kind byte, n int) []byte {
		r := make([]byte, 5+n)
		r[0], r[3], r[4] = kind, byte(n>>8), byte(n)
		for i := range n {
			r[5+i] = kind
		}
		return r
	}
	const pieces, answers = 200, 300
	var wg sync.WaitGroup
	wg.Go(func() {
		for range answers {
			if _, err := c.Write(record(2, 40)); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		full := record(1, recordSize)
		for i := range pieces {
			try := i%2 == 0
			if try {
				if ok, err := c.beginTry(false); err != nil {
					t.Error(err)
				} else if !ok {
					_, _ = c.Write(nil)
					_, _ = c.beginTry(false)
				}
			}
			c.gather(gatherSize)
			for range 4 {
				if _, err := c.Write(full); err != nil {
					t.Error(err)
				}
			}
			done := false
			if try {
				done, _ = c.endTry()
			}
			if !done {
				c.gathered()
				_, _ = c.Write(nil)
			}
		}
	})
	got := [3]int{}
	head, body := make([]byte, 5), make([]byte, recordSize)
	for range pieces*4 + answers {
		if _, err := io.ReadFull(peer, head); err != nil {
			t.Fatal(err)
		}
		n := int(head[3])<<8 | int(head[4])
		if n > len(body) || head[0] != 1 && head[0] != 2 {
			t.Fatalf("a record that begins with %x", head)
		}
		if _, err := io.ReadFull(peer, body[:n]); err != nil {
			t.Fatal(err)
		}
		if bytes.Count(body[:n], head[:1]) != n {
			t.Fatal("a record is in another")
		}
		got[head[0]]++
	}
	wg.Wait()
	if got[1] != pieces*4 || got[2] != answers || c.w.kept != nil {
		t.Errorf("%d records and %d answers; kept %d bytes", got[1], got[2], len(c.w.kept))
	}
}

// TestFailedWriteTellsWhatLeft: of a write that failed half way, what the peer may have
// read is not 0 bytes: a request that was sent in part is not sent again.
func TestFailedWriteTellsWhatLeft(t *testing.T) {
	server, client := tlsPair(t)
	for _, err := range []error{ // together less than what is written
		server.raw.Conn.(*net.TCPConn).SetWriteBuffer(8 << 10), client.raw.Conn.(*net.TCPConn).SetReadBuffer(8 << 10),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		_, _ = io.ReadFull(client, make([]byte, recordSize))
		_ = client.raw.Conn.(*net.TCPConn).SetLinger(0)
		_ = client.raw.Conn.Close()
	}()
	n, err := server.Write(make([]byte, gatherSize))
	if err == nil || n < recordSize || n >= gatherSize {
		t.Errorf("%d bytes and %v; the peer has read %d", n, err, recordSize)
	}
}

// TestFailedWriteBehindWhatWasKept: also where something was to leave first.
func TestFailedWriteBehindWhatWasKept(t *testing.T) {
	server, client := tlsPair(t)
	for _, err := range []error{
		server.raw.Conn.(*net.TCPConn).SetWriteBuffer(16 << 10), client.raw.Conn.(*net.TCPConn).SetReadBuffer(8 << 10),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	sent := 0
	for done := true; done; {
		var n int
		var err error
		if n, done, err = server.TryWrite(make([]byte, 8<<10)); err != nil {
			t.Fatal(err)
		}
		sent += n
	}
	read := make(chan int)
	go func() {
		n, _ := io.ReadFull(client, make([]byte, sent+2*recordSize))
		_ = client.raw.Conn.(*net.TCPConn).SetLinger(0)
		_ = client.raw.Conn.Close()
		read <- n
	}()
	_ = server.SetWriteDeadline(time.Now().Add(20 * time.Second))
	n, err := server.Write(make([]byte, 55<<10))
	if got := <-read - sent; got < 2*recordSize || n < got || err == nil {
		t.Errorf("%d bytes and %v; the peer has read %d", n, err, got)
	}
}

// TestKeptIsBounded: what could not be written at once is not added to beyond its memory.
func TestKeptIsBounded(t *testing.T) {
	server, client := tlsPair(t)
	narrow(t, server, client)
	var most atomic.Int64
	once := server.raw.w.once
	server.raw.w.once = func(fd uintptr) bool {
		most.Store(max(most.Load(), int64(cap(server.raw.w.kept))))
		return once(fd)
	}
	sent := 0
	for done := false; !done; { // until the socket is full
		n, all, err := server.TryWrite(make([]byte, gatherSize))
		if err != nil {
			t.Fatal(err)
		}
		sent += n
		done = !all
	}
	ended := make(chan error, 1)
	go func() {
		_, err := server.Write(make([]byte, 2*gatherSize))
		ended <- err
	}()
	if _, err := io.ReadFull(client, make([]byte, sent+2*gatherSize)); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if size := most.Load(); size > keptSize {
		t.Errorf("%d bytes were kept, of at most %d", size, keptSize)
	}
}
