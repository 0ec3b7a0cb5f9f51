//go:build e2e

package main

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// seenTLS is what one end saw of the handshakes of a contender.
type seenTLS struct{ handshakes, resumed, odd atomic.Int64 }

func (s *seenTLS) add(c tls.ConnectionState) {
	s.handshakes.Add(1)
	if c.DidResume {
		s.resumed.Add(1)
	}
	if c.Version != tls.VersionTLS13 || c.CurveID != tls.X25519 || tls.CipherSuiteName(c.CipherSuite) != cipherSuite {
		s.odd.Add(1)
	}
}

// TestEveryContenderHandshakesAlike: with ends that offer all that Go has, each contender
// agrees on the same key exchange and cipher suite, and resumes no session: neither does it
// give a client tickets, nor does it use those of a server.
func TestEveryContenderHandshakesAlike(t *testing.T) {
	b := testBench(t)
	for _, p := range []proto{http1, tcp} {
		j := job{legs: []leg{{proto: p}, {proto: p, mtls: true}}}
		for _, x := range contenders() {
			if !b.takes(j, x.name) {
				continue
			}
			t.Run(x.name+"/"+string(p), func(t *testing.T) {
				server, client := handshakesAsClient(t, b, x, p), handshakesAsServer(t, b, x, p)
				for end, s := range map[string]*seenTLS{"as a client": server, "as a server": client} {
					if s.handshakes.Load() < 3 || s.resumed.Load() > 0 || s.odd.Load() > 0 {
						t.Errorf("%s: %d handshakes, %d resumed, %d with other parameters", end, s.handshakes.Load(), s.resumed.Load(), s.odd.Load())
					}
				}
			})
		}
	}
}

// handshakesAsClient has the contender make connections to a server that gives out tickets.
func handshakesAsClient(t *testing.T, b *bench, x contender, p proto) *seenTLS {
	t.Helper()
	config, err := b.clientTLS()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(b.file("api.crt"), b.file("api.key"))
	if err != nil {
		t.Fatal(err)
	}
	s := &seenTLS{}
	// One for all connections: it holds the key of the tickets.
	tickets := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: alpnOfTest(p), ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: config.RootCAs}
	o, err := startOrigin(func(_ *origin, c net.Conn) {
		c = tls.Server(c, tickets)
		answerOnce(c, p)
		if state := c.(*tls.Conn).ConnectionState(); state.HandshakeComplete {
			s.add(state)
		}
		_ = c.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.ln.Close() })
	m := assembleHop(t, b, x, p, o, leg{p, false}, leg{p, true})
	for range 3 {
		c, err := net.Dial("tcp", m.target.addr)
		if err != nil {
			t.Fatal(err)
		}
		askOnce(t, c, p)
		c.Close()
	}
	return s
}

// handshakesAsServer makes connections to the contender, with a cache for what tickets it gives.
func handshakesAsServer(t *testing.T, b *bench, x contender, p proto) *seenTLS {
	t.Helper()
	s := &seenTLS{}
	o, err := startOrigin(func(_ *origin, c net.Conn) { answerOnce(c, p) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.ln.Close() })
	m := assembleHop(t, b, x, p, o, leg{p, true}, leg{p, false})
	config, err := b.clientTLS()
	if err != nil {
		t.Fatal(err)
	}
	config.CurvePreferences, config.NextProtos = nil, alpnOfTest(p)
	tickets := &countTickets{}
	config.ClientSessionCache = tickets
	for range 3 {
		c, err := tls.Dial("tcp", m.target.addr, config)
		if err != nil {
			t.Fatal(err)
		}
		askOnce(t, c, p)
		s.add(c.ConnectionState())
		c.Close()
	}
	if tickets.n.Load() > 0 {
		t.Errorf("it gave %d session tickets", tickets.n.Load())
	}
	return s
}

// countTickets is a session cache that tells whether anything was put into it.
type countTickets struct {
	tls.ClientSessionCache
	n atomic.Int64
}

func (c *countTickets) Put(_ string, s *tls.ClientSessionState) {
	if s != nil {
		c.n.Add(1)
	}
}
func (c *countTickets) Get(string) (*tls.ClientSessionState, bool) { return nil, false }

func alpnOfTest(p proto) []string {
	if p == tcp {
		return nil
	}
	return []string{"http/1.1"}
}

func assembleHop(t *testing.T, b *bench, x contender, p proto, o *origin, in, out leg) *measured {
	t.Helper()
	m := &measured{origin: o}
	t.Cleanup(m.stop)
	if err := b.assemble(x, setting{job: job{legs: []leg{in, out}}, body: 1}, m); err != nil {
		t.Fatal(err)
	}
	return m
}

// answerOnce answers one request, or echoes one line, and lets the connection end.
func answerOnce(c net.Conn, p proto) {
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if p == tcp {
			_, _ = io.WriteString(c, line)
			return
		}
		if line == "\r\n" {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx")
			return
		}
	}
}

func askOnce(t *testing.T, c net.Conn, p proto) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	message, want := request, "HTTP/1.1 200 "
	if p == tcp {
		message, want = "message\n", "message\n"
	}
	if _, err := io.WriteString(c, message); err != nil {
		t.Fatal(err)
	}
	got, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || !strings.HasPrefix(got, want) {
		t.Fatalf("%q, %v", got, err)
	}
}
