package stream

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// soon fails where f waits.
func soon(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(4 * time.Second):
		t.Fatalf("%s waits for a peer that does not read", what)
	}
}

// unread is a server's stream whose socket takes no more, and its peer, which reads nothing.
func unread(t *testing.T) (server *TLS, peer net.Conn) {
	t.Helper()
	server, client := tlsPair(t)
	narrow(t, server, client)
	peer = client.raw.Conn
	t.Cleanup(func() { _ = peer.Close() })
	// Below TLS, until nothing more goes for a while: what is on its way makes room.
	for full := 0; full < 20; {
		n, err := server.raw.writeNow(make([]byte, 64))
		if err != nil {
			t.Fatal(err)
		}
		if full++; n > 0 {
			full = 0
			continue
		}
		time.Sleep(5 * time.Millisecond)
	}
	return server, peer
}

// garbage is a record that has to be answered with an alert.
var garbage = []byte{23, 3, 3, 0, 32, 31: 1, 36: 0}

// TestQuietOfAPeerThatDoesNotRead: nobody's time runs while a connection is looked at, so
// what the peer makes us answer is not waited for.
func TestQuietOfAPeerThatDoesNotRead(t *testing.T) {
	server, peer := unread(t)
	if _, err := peer.Write(garbage); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the record is here", func() bool { return !server.raw.quiet() })
	soon(t, "Quiet", func() {
		if server.Quiet() {
			t.Error("it is quiet")
		}
	})
}

// TestQuietOfAPeerThatHasEnded: an end that was found behind data is no silence, though the socket has
// nothing and stays open: nobody writes a request to a peer that has left, nor waits for it.
func TestQuietOfAPeerThatHasEnded(t *testing.T) {
	for what, end := range map[string]func(client *TLS) int{
		"close_notify": func(client *TLS) int { _ = client.records.CloseWrite(); return 24 },
		"a fault":      func(client *TLS) int { n, _ := client.raw.Conn.Write(garbage); return n },
	} {
		server, client := tlsPair(t)
		if _, err := client.Write([]byte("data")); err != nil {
			t.Fatal(err)
		}
		all := 26 + end(client)
		eventually(t, "not all has come", func() bool {
			n := 0
			_ = server.raw.raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
			return n == all
		})
		l := &lender{buf: make([]byte, 100)}
		if n, err := server.ReadReady(l); string(l.buf[:n]) != "data" || err != nil {
			t.Fatalf("%s: %q, %v", what, l.buf[:n], err)
		}
		if _, ok := server.Pollable(nil); ok || server.Quiet() {
			t.Errorf("%s: it is quiet", what)
		}
		_ = server.SetReadDeadline(time.Now().Add(4 * time.Second))
		if n, _, err := server.Exchange([]byte("x"), l, true); n != 0 || err != ErrNotQuiet {
			t.Errorf("%s: %d bytes were written: %v", what, n, err)
		}
		if _, err := server.Read(l.buf); err == nil {
			t.Errorf("%s: it is not told", what)
		}
	}
}

// TestTryBesideAnAnswer: while the reader waits to answer, a write that must not wait does not:
// it would hold up whoever reads another connection. Only crypto/tls waits to answer.
func TestTryBesideAnAnswer(t *testing.T) {
	byLibrary(t)
	server, peer := unread(t)
	if _, err := peer.Write(garbage); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := server.Read(make([]byte, 1))
		read <- err
	}()
	eventually(t, "the reader is at its answer", func() bool {
		if server.raw.w.mu.TryLock() {
			server.raw.w.mu.Unlock()
			return false
		}
		return true
	})
	soon(t, "TryWrite", func() {
		if n, done, err := server.TryWrite([]byte("x")); n != 0 || done || err != nil {
			t.Errorf("%d, %v, %v", n, done, err)
		}
	})
	soon(t, "CloseNow", func() { _ = CloseNow(server) })
	soon(t, "the reader", func() { <-read })
}

// TestRefusalWaitsForNobody: a peer that breaks the protocol and reads nothing is refused at once.
func TestRefusalWaitsForNobody(t *testing.T) {
	server, peer := unread(t)
	_, _ = peer.Write([]byte{23, 3, 3, 0, 1, 0}) // a record that is too short
	soon(t, "the reader", func() {
		if _, err := server.Read(make([]byte, 10)); err == nil {
			t.Error("a record that is too short was read")
		}
	})
}

// TestCloseNow: it does not wait for a peer that reads nothing, whoever is at the connection,
// and one that reads gets the end.
func TestCloseNow(t *testing.T) {
	for name, before := range map[string]func(*TLS){
		"nobody writes": func(*TLS) {},
		"a write was interrupted": func(s *TLS) {
			_ = s.SetWriteDeadline(time.Now())
			_, _ = s.Write([]byte("x"))
			_ = s.SetWriteDeadline(time.Time{})
		},
		"something is left": func(s *TLS) { _, _, _ = s.TryWrite([]byte("x")) },
		"what is left is waited for": func(s *TLS) {
			_, _, _ = s.TryWrite([]byte("x"))
			go func() { _, _ = s.Write(nil) }()
			for s.raw.w.mu.TryLock() {
				s.raw.w.mu.Unlock()
				time.Sleep(time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			server, _ := unread(t)
			before(server)
			soon(t, "CloseNow", func() { _ = CloseNow(server) })
		})
	}
	server, client := tlsPair(t)
	_, _ = server.Write([]byte("x"))
	if err := CloseNow(WithPrefix(server, nil)); err != nil {
		t.Error(err)
	}
	b := make([]byte, 2)
	if n, err := client.Read(b); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := client.Read(b); err == nil || err.Error() != "EOF" {
		t.Error(err)
	}
}
