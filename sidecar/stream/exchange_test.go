package stream

import (
	"crypto/tls"
	"io"
	"strings"
	"sync"
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
		if _, n, err := s.Exchange([]byte("ping"), l, true); err != nil || n != 4 {
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
		var answered sync.WaitGroup
		answered.Go(func() {
			_, _ = io.ReadFull(server, make([]byte, len(out)))
			_, _ = server.Write([]byte("pong"))
		})
		l := &lender{buf: make([]byte, 64)}
		written, n, err := client.Exchange([]byte(out), l, true)
		if err != nil || written != len(out) || string(l.buf[:n]) != "pong" {
			t.Fatalf("wrote %d of %d, read %q: %v", written, len(out), l.buf[:n], err)
		}
		answered.Wait()
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
		if _, n, err := client.Exchange([]byte("ping"), l, false); err != nil || string(l.buf[:n]) != want {
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
		_, _, err := client.Exchange([]byte("ping"), &lender{buf: make([]byte, 64)}, true)
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

// TestExchangeLooks: with a peer that has not waited to be asked there is no exchange, and
// it is sent nothing.
func TestExchangeLooks(t *testing.T) {
	type exchanger interface {
		Stream
		Exchanger
		Prober
	}
	type pair struct {
		s    exchanger
		peer Stream
	}
	sockets := func(t *testing.T) pair {
		s, b := socketPair(t)
		peer, err := NewSocket(b, nil)
		if err != nil {
			t.Fatal(err)
		}
		return pair{s, peer}
	}
	encrypted := func(cfg *tls.Config) func(t *testing.T) pair {
		return func(t *testing.T) pair {
			server, client := tlsPairOf(t, cfg.Clone())
			return pair{client, server}
		}
	}
	for name, connect := range map[string]func(t *testing.T) pair{
		"socket": sockets, "TLS": encrypted(&tls.Config{SessionTicketsDisabled: true}), "TLS 1.2": encrypted(&tls.Config{MaxVersion: tls.VersionTLS12}),
		"TLS, after tickets": encrypted(&tls.Config{}),
	} {
		answered := func(t *testing.T, p pair, room int) {
			t.Helper()
			var peer sync.WaitGroup
			peer.Go(func() {
				_, _ = io.ReadFull(p.peer, make([]byte, 4))
				_, _ = p.peer.Write([]byte("pong"))
			})
			defer peer.Wait()
			l := &lender{buf: make([]byte, room)}
			if written, n, err := p.s.Exchange([]byte("ping"), l, true); err != nil || written != 4 || string(l.buf[:n]) != "pong"[:n] {
				t.Fatalf("wrote %d, read %q: %v", written, l.buf[:n], err)
			}
		}
		refused := func(t *testing.T, p pair) {
			t.Helper()
			_ = p.s.SetDeadline(time.Now().Add(time.Second)) // or it would wait for an answer
			written, n, err := p.s.Exchange([]byte("ping"), &lender{buf: make([]byte, 64)}, true)
			if err != ErrNotQuiet || written != 0 || n != 0 {
				t.Fatalf("wrote %d, read %d: %v", written, n, err)
			}
			_ = p.peer.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if n, _ := p.peer.Read(make([]byte, 4)); n != 0 {
				t.Errorf("the peer was sent %d bytes", n)
			}
		}
		t.Run(name+", quiet", func(t *testing.T) {
			p := connect(t)
			answered(t, p, 64)
			answered(t, p, 64)
		})
		t.Run(name+", spoke", func(t *testing.T) {
			p := connect(t)
			answered(t, p, 64)
			_, _ = p.peer.Write([]byte("more"))
			eventually(t, "bytes that wait were not seen", func() bool { return !p.s.Quiet() })
			refused(t, p)
		})
		t.Run(name+", said more than there was room for", func(t *testing.T) {
			p := connect(t)
			answered(t, p, 2)
			refused(t, p)
		})
		t.Run(name+", left", func(t *testing.T) {
			p := connect(t)
			answered(t, p, 64)
			_ = p.peer.CloseWrite()
			eventually(t, "the end was not seen", p.s.Gone)
			refused(t, p)
		})
	}
}
