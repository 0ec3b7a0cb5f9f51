package stream

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
)

// A reset that a writer was told of, whom the socket let wait or not, is no end to a reader.
func TestResetWhileWriting(t *testing.T) {
	for name, pair := range map[string]func() (Stream, net.Conn){
		"socket": func() (Stream, net.Conn) { s, peer := socketPair(t); return s, peer },
		"TLS":    func() (Stream, net.Conn) { s, peer := tlsPair(t); return s, peer.raw.Conn },
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 {
				s, peer := pair()
				written := make(chan error)
				go func() {
					var err error
					for err == nil {
						_, err = s.Write(make([]byte, 100_000))
					}
					written <- err
				}()
				_, _ = io.CopyN(io.Discard, peer, 1<<20)
				_ = peer.(*net.TCPConn).SetLinger(0)
				_ = peer.Close()
				if n, err := s.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Fatalf("%d bytes, %v; the writer has %v", n, err, <-written)
				}
				if n, err := s.Read(make([]byte, 1)); n > 0 || err == nil {
					t.Errorf("%d bytes, %v", n, err)
				}
				<-written
				_ = s.Close()
			}
		})
	}
}

// What the peer's host has is acknowledged; a FIN is a byte of it.
func TestUnacknowledged(t *testing.T) {
	s, peer := socketPair(t)
	if n := Unacknowledged(s); n != 0 {
		t.Errorf("%d before anything was written", n)
	}
	for {
		if _, done, err := s.TryWrite(make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		} else if !done {
			break
		}
	}
	if Unacknowledged(s) == 0 {
		t.Error("all of a write that waits is acknowledged")
	}
	_ = s.CloseWrite()
	if _, err := io.Copy(io.Discard, peer); err != nil {
		t.Fatal(err)
	}
	for Unacknowledged(s) > 0 { // until the peer's host has said so
		_ = s.Quiet()
	}
}
