package listener

import (
	"net"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/fair/fairtest"
)

// TestHandshakesTakeTurns: who waits for the network runs before a handshake that need not
// wait for its peer: of a crowd that connects all that was sent is there.
func TestHandshakesTakeTurns(t *testing.T) {
	m := newTestManager(t, func(o *Options) { o.TLS = testTLS{selfSigned(t, apiID)} })
	mustApply(t, m, mtlsConfig())
	var arrivals []*arrival
	for range fairtest.Tries {
		arrivals = append(arrivals, arrivalOf(t, m.all()[0], "not a handshake"))
	}
	ran := fairtest.Runs(t, func() {
		a := arrivals[0]
		arrivals = arrivals[1:]
		if _, err := a.open(a.conn.(*net.TCPConn)); err == nil {
			t.Error("the handshake succeeded")
		}
		a.leave()
	})
	if !ran {
		t.Error("nobody else ran before a handshake")
	}
}

// arrivalOf is a connection on its way to the first chain of a listener. What its peer says
// is there.
func arrivalOf(t *testing.T, l *listener, says string) *arrival {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	peer, err := net.Dial("tcp", socket.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peer.Close() })
	if _, err := peer.Write([]byte(says)); err != nil {
		t.Fatal(err)
	}
	c, err := socket.Accept()
	if err != nil {
		t.Fatal(err)
	}
	generation, _ := l.m.currentGeneration()
	a, refused := l.arrives(c, generation)
	if a == nil {
		t.Fatal(refused)
	}
	a.chain = a.snap.chains[0]
	return a
}
