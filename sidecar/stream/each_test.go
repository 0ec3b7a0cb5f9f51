package stream

import (
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// eachPairs runs a test with each stream that implements EachReader.
func eachPairs(t *testing.T, test func(t *testing.T, s Stream, peer io.WriteCloser)) {
	t.Run("socket", func(t *testing.T) {
		a, b := tcpPair(t)
		s, err := NewSocket(a, nil)
		if err != nil {
			t.Fatal(err)
		}
		test(t, s, b)
	})
	t.Run("Unix socket", func(t *testing.T) {
		s, peer := unixPair(t)
		test(t, s, peer)
	})
	t.Run("TLS", func(t *testing.T) {
		server, client := tlsPair(t)
		test(t, server, client)
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		server, client := tlsPairOf(t, &tls.Config{SessionTicketsDisabled: true, MaxVersion: tls.VersionTLS12})
		test(t, server, client)
	})
	t.Run("with a prefix", func(t *testing.T) {
		server, client := tlsPair(t)
		test(t, WithPrefix(server, nil), client)
	})
}

func unixPair(t *testing.T) (*Socket, *net.UnixConn) {
	t.Helper()
	fd, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i := range ends {
		f := os.NewFile(uintptr(fd[i]), "")
		c, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		ends[i] = c.(*net.UnixConn)
	}
	s, err := NewSocket(ends[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, ends[1]
}

// TestReadEachTakesNoDescriptors: what a local peer passes beside its bytes is not ours.
func TestReadEachTakesNoDescriptors(t *testing.T) {
	s, peer := unixPair(t)
	passed, err := os.CreateTemp(t.TempDir(), "passed")
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close()
	open := func() (n int) {
		all, _ := filepath.Glob("/proc/self/fd/*")
		for _, fd := range all {
			if to, _ := os.Readlink(fd); to == passed.Name() {
				n++
			}
		}
		return n
	}
	before := open()
	c := collect(8)
	c.stop = "end"
	done := make(chan error, 1)
	go func() { done <- s.ReadEach(c, c.took) }()
	for range 3 {
		if _, _, err := peer.WriteMsgUnix([]byte("x"), unix.UnixRights(int(passed.Fd()), int(passed.Fd())), nil); err != nil {
			t.Fatal(err)
		}
		c.want(t, "x")
	}
	_, _ = peer.Write([]byte("end"))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if after := open(); after != before {
		t.Errorf("%d descriptors of the file are open, %d before", after, before)
	}
}

// collector is a Buffers whose reader copies what it is told of.
type collector struct {
	lender
	got  chan string
	stop string // ends the reading
}

func collect(size int) *collector {
	return &collector{lender: lender{buf: make([]byte, size)}, got: make(chan string, 64)}
}

func (c *collector) took(n int, _ *Leader) bool {
	piece := string(c.buf[:n])
	c.got <- piece
	return piece != c.stop
}

func (c *collector) want(t *testing.T, want string) {
	t.Helper()
	got := ""
	for len(got) < len(want) {
		select {
		case piece := <-c.got:
			got += piece
		case <-time.After(5 * time.Second):
			t.Fatalf("%q has come, want %q", got, want)
		}
	}
	if got != want {
		t.Fatalf("%q has come, want %q", got, want)
	}
}

func TestReadEach(t *testing.T) {
	eachPairs(t, func(t *testing.T, s Stream, peer io.WriteCloser) {
		c := collect(16)
		c.stop = "stop"
		done := make(chan error)
		go func() { done <- s.(EachReader).ReadEach(c, c.took) }()
		for _, msg := range []string{"a", "message", strings.Repeat("longer than the buffer", 2000), "b"} {
			if _, err := io.WriteString(peer, msg); err != nil {
				t.Fatal(err)
			}
			c.want(t, msg)
		}
		// Whoever waits is woken by a deadline, and goes on after it.
		_ = s.SetReadDeadline(time.Unix(1, 0))
		if err := <-done; !IsTimeout(err) {
			t.Fatalf("after the deadline: %v", err)
		}
		_, _ = io.WriteString(peer, "meanwhile")
		_ = s.SetReadDeadline(time.Time{})
		go func() { done <- s.(EachReader).ReadEach(c, c.took) }()
		c.want(t, "meanwhile")
		_, _ = io.WriteString(peer, "stop")
		c.want(t, "stop")
		if err := <-done; err != nil {
			t.Fatalf("after the reader had enough: %v", err)
		}
		go func() { done <- s.(EachReader).ReadEach(c, c.took) }()
		_, _ = io.WriteString(peer, "more")
		c.want(t, "more")
		_ = s.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Fatalf("after Close: %v", err)
		}
	})
}

// TestReadEachFindsTheEnd: a FIN that came with the last bytes wakes nobody any more.
func TestReadEachFindsTheEnd(t *testing.T) {
	eachPairs(t, func(t *testing.T, s Stream, peer io.WriteCloser) {
		_, _ = io.WriteString(peer, "last words")
		if client, ok := peer.(*TLS); ok {
			_ = client.raw.Conn.Close() // no close_notify either
		} else {
			_ = peer.Close()
		}
		below := s
		if p, ok := s.(*Prefixed); ok {
			below = p.Stream
		}
		eventually(t, "the end has not arrived", below.(Prober).Gone)
		c := collect(64)
		_ = s.SetReadDeadline(time.Now().Add(5 * time.Second))
		err := s.(EachReader).ReadEach(c, c.took)
		c.want(t, "last words")
		if err != io.EOF && err != io.ErrUnexpectedEOF {
			t.Errorf("at the end: %v", err)
		}
	})
}

// TestReadEachReadsNothingInVain: after a message the reader waits at once.
func TestReadEachReadsNothingInVain(t *testing.T) {
	a, b := tcpPair(t)
	s, err := NewSocket(a, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := collect(64)
	done := make(chan error)
	const messages = 50
	go func() { done <- s.ReadEach(c, c.took) }()
	for range messages {
		_, _ = io.WriteString(b, "message")
		c.want(t, "message")
	}
	_ = b.Close()
	if err := <-done; err != io.EOF {
		t.Fatal(err)
	}
	// One at first, one at the end, and where the poller told of a message that was read.
	if vain := c.taken - messages; vain > messages/2 {
		t.Errorf("%d reads in vain for %d messages", vain, messages)
	}
}

// keptWrites keeps what is written, for the test to send it in pieces.
type keptWrites struct {
	*net.TCPConn
	on   bool
	kept []byte
}

func (k *keptWrites) Write(p []byte) (int, error) {
	if !k.on {
		return k.TCPConn.Write(p)
	}
	k.kept = append(k.kept, p...)
	return len(p), nil
}

// TestReadEachFindsEachRecord: however the bytes of records come and however small the memory
// for what is in them, all that is whole is told of before more comes.
func TestReadEachFindsEachRecord(t *testing.T) {
	for _, room := range []int{64, 1, 5, 1000, recordSize, 40_000} {
		if !t.Run(strconv.Itoa(room), func(t *testing.T) { findEachRecord(t, room) }) {
			return
		}
	}
}

func findEachRecord(t *testing.T, room int) {
	a, b := tcpPair(t)
	server, err := ServerTLS(a, nil, &tls.Config{Certificates: []tls.Certificate{certificate(t, clientID)}, SessionTicketsDisabled: true})
	if err != nil {
		t.Fatal(err)
	}
	out := &keptWrites{TCPConn: b}
	client := tls.Client(out, &tls.Config{InsecureSkipVerify: true})
	shaken := make(chan error, 1)
	go func() { shaken <- client.Handshake() }()
	if err := errors.Join(server.Handshake(t.Context()), <-shaken); err != nil {
		t.Fatal(err)
	}
	out.on = true

	c := &collector{lender: lender{buf: make([]byte, room)}, got: make(chan string, 1<<16)}
	done := make(chan error, 1)
	go func() { done <- server.ReadEach(c, c.took) }()
	r := rand.New(rand.NewPCG(uint64(room), 1))
	for range 60 {
		// Some records, and where in the bytes of all each ends.
		var ends, sizes []int
		out.kept = out.kept[:0]
		for range 1 + r.IntN(4) {
			n := []int{1, room, 1 + r.IntN(2*room+1), 1 + r.IntN(300)}[r.IntN(4)]
			n = min(n, recordSize)
			if _, err := client.Write(make([]byte, n)); err != nil {
				t.Fatal(err)
			}
			sizes, ends = append(sizes, n), append(ends, len(out.kept))
		}
		for sent := 0; sent < len(out.kept); {
			n := min(1+r.IntN(len(out.kept)), len(out.kept)-sent)
			if _, err := b.Write(out.kept[sent : sent+n]); err != nil {
				t.Fatal(err)
			}
			sent += n
			whole := 0
			for ; len(ends) > 0 && ends[0] <= sent; sizes, ends = sizes[1:], ends[1:] {
				whole += sizes[0]
			}
			c.want(t, string(make([]byte, whole)))
		}
	}
	_ = b.CloseWrite()
	if err := <-done; err == nil {
		t.Error("no error at the end of the connection")
	}
}

// TestResetBehindTheLastBytes: a reset that the poller finds together with bytes is no news to it
// once they were read, and the end of the stream all the same.
func TestResetBehindTheLastBytes(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // nobody polls between the two
	for range 20 {
		s, peer := socketPair(t)
		got, ended := make(chan struct{}, 10), make(chan error, 1)
		go func() {
			for {
				err := s.ReadEach(collect(64), func(int, *Leader) bool { got <- struct{}{}; return true })
				if err != ErrReadOn {
					ended <- err
					return
				}
				_ = s.SetReadDeadline(time.Time{})
			}
		}()
		for range 2 { // the first read takes nobody's word
			_, _ = peer.Write([]byte("x"))
			<-got
		}
		for range 10 {
			runtime.Gosched() // the reader waits
		}
		_ = peer.SetLinger(0)
		_, _ = peer.Write([]byte("x"))
		_ = peer.Close()
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			t.Fatal("the reader waits for a peer that has reset")
		}
	}
}
