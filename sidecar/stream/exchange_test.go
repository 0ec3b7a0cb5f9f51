package stream

import (
	"io"
	"strings"
	"testing"
	"time"
)

// exchangeMany has a peer answer each of many requests at once, and ends the connection.
func exchangeMany(t *testing.T, s interface {
	Stream
	Exchanger
}, peer io.ReadWriter) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64)
		for {
			if _, err := peer.Read(buf); err != nil {
				return
			}
			_, _ = peer.Write([]byte("pong"))
		}
	}()
	_ = s.SetDeadline(time.Now().Add(20 * time.Second))
	l := &lender{buf: make([]byte, 64)}
	for i := range 5000 {
		if _, n, err := s.Exchange([]byte("ping"), l); err != nil || n != 4 {
			t.Fatalf("%d: %d %v", i, n, err)
		}
	}
	_ = s.Close()
	<-done
}

// TestTLSExchange: a request of any size is written and its answer found, also one that
// is there before the wait begins.
func TestTLSExchange(t *testing.T) {
	server, client := tlsPair(t)
	big := strings.Repeat("x", 8<<20) // more than the kernel takes at once
	for _, out := range []string{"ping", big} {
		go func() {
			_, _ = io.ReadFull(server, make([]byte, len(out)))
			_, _ = server.Write([]byte("pong"))
		}()
		l := &lender{buf: make([]byte, 64)}
		written, n, err := client.Exchange([]byte(out), l)
		if err != nil || written != len(out) || string(l.buf[:n]) != "pong" {
			t.Fatalf("wrote %d of %d, read %q: %v", written, len(out), l.buf[:n], err)
		}
	}
	exchangeMany(t, client, server)
}

// TestTLSExchangeLeftover: what was received together with an answer is found by the
// next call, though no byte of it comes again.
func TestTLSExchangeLeftover(t *testing.T) {
	server, client := tlsPair(t)
	_ = client.SetDeadline(time.Now().Add(5 * time.Second))
	go func() {
		_, _ = io.ReadFull(server, make([]byte, 4))
		_, _ = server.Write([]byte("pong"))
		_, _ = server.Write([]byte("more"))
	}()
	l := &lender{buf: make([]byte, 4)}
	for _, want := range []string{"pong", "more"} {
		if _, n, err := client.Exchange([]byte("ping"), l); err != nil || string(l.buf[:n]) != want {
			t.Fatalf("%q, %v, want %q", l.buf[:n], err, want)
		}
	}
}

// TestTLSExchangeEnds: the wait for an answer ends with a deadline, after which the
// stream can be used, and with a close, whoever makes it.
func TestTLSExchangeEnds(t *testing.T) {
	server, client := tlsPair(t)
	ended := make(chan error)
	exchange := func() {
		_, _, err := client.Exchange([]byte("ping"), &lender{buf: make([]byte, 64)})
		ended <- err
	}
	go exchange()
	_, _ = io.ReadFull(server, make([]byte, 4))
	_ = client.SetDeadline(past)
	if err := <-ended; !IsTimeout(err) {
		t.Errorf("after the deadline: %v", err)
	}
	_ = client.SetDeadline(time.Time{})
	go exchange()
	_, _ = io.ReadFull(server, make([]byte, 4))
	_, _ = server.Write([]byte("pong"))
	if err := <-ended; err != nil {
		t.Errorf("a stream that was interrupted: %v", err)
	}
	go exchange()
	_, _ = io.ReadFull(server, make([]byte, 4))
	_ = client.Close()
	if err := <-ended; err == nil {
		t.Error("after a close: no error")
	}
}

var past = time.Unix(1, 0)
