package stream

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"time"
)

// relayed is a pair whose client said "early" right behind its handshake, so that the server
// received it together with the handshake's end.
func relayed(t *testing.T) (server, client *TLS) {
	t.Helper()
	a, near := tcpPair(t)
	far, b := tcpPair(t)
	said := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { relay(near, far, said) })
	go relay(far, near, nil)
	cert := certificate(t, clientID)
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, SessionTicketsDisabled: true}
	server, err := ServerTLS(a, nil, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if libraryAlone {
		server.tls = tls.Server(server.raw, cfg)
		server.records = library{server.tls, server.raw}
	}
	if client, err = ClientTLS(b, &tls.Config{InsecureSkipVerify: true}); err != nil {
		t.Fatal(err)
	}
	wg.Go(func() {
		if err := client.Handshake(context.Background()); err != nil {
			t.Error(err)
			return
		}
		_, _ = client.Write([]byte("early"))
		close(said)
	})
	if err := server.Handshake(context.Background()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	_ = server.SetDeadline(time.Now().Add(20 * time.Second))
	return server, client
}

// relay passes on what comes, but holds what follows the first until there is all that was said.
func relay(to, from net.Conn, said chan struct{}) {
	b := make([]byte, 64<<10)
	n, _ := from.Read(b)
	_, _ = to.Write(b[:n])
	if said == nil {
		for n > 0 {
			n, _ = from.Read(b)
			_, _ = to.Write(b[:n])
		}
		return
	}
	held := 0
	for done := false; !done; {
		select {
		case <-said:
			done = true
		default:
		}
		_ = from.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		n, _ := from.Read(b[held:])
		held += n
	}
	_, _ = to.Write(b[:held])
}

// TestEarlyWords: what came with the end of the handshake is found, in whichever way it is asked for.
func TestEarlyWords(t *testing.T) {
	for name, find := range map[string]func(*TLS) string{
		"Read": func(s *TLS) string {
			b := make([]byte, 100)
			n, _ := s.Read(b)
			return string(b[:n])
		},
		"ReadReady": func(s *TLS) string {
			l := &lender{buf: make([]byte, 100)}
			n, _ := s.ReadReady(l)
			return string(l.buf[:n])
		},
		"ReadEach": func(s *TLS) (got string) {
			l := &lender{buf: make([]byte, 100)}
			_ = s.ReadEach(l, func(n int, _ *Leader) bool { got = string(l.buf[:n]); return false })
			return got
		},
		"Exchange": func(s *TLS) string {
			l := &lender{buf: make([]byte, 100)}
			_, n, _ := s.Exchange([]byte("x"), l, false)
			return string(l.buf[:n])
		},
		"parking": func(s *TLS) string {
			if _, ok := s.Pollable(nil); ok || s.Quiet() {
				return "nothing"
			}
			b := make([]byte, 100)
			n, _ := s.Read(b)
			m, _ := s.Read(b[n:])
			return string(b[:n+m])
		},
		"a look": func(s *TLS) string {
			if _, _, err := s.Exchange([]byte("x"), &lender{buf: make([]byte, 100)}, true); err != ErrNotQuiet {
				return "nothing"
			}
			return "early"
		},
	} {
		t.Run(name, func(t *testing.T) {
			server, _ := relayed(t)
			byLibrary(t)
			other, _ := relayed(t)
			if got := find(other); got != "early" {
				t.Errorf("found %q by crypto/tls", got)
			}
			if len(server.raw.prefix) == 0 {
				t.Fatal("it came later")
			}
			if got := find(server); got != "early" {
				t.Errorf("found %q", got)
			}
		})
	}
}
