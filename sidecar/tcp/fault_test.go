package tcp

import (
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// faulty is a client whose writes, or reads, panic, and that tells of its reads.
type faulty struct {
	stream.Stream
	began   chan struct{}
	inRead  bool
	reading atomic.Int32
}

func (f *faulty) Write(p []byte) (int, error) {
	if !f.inRead {
		panic("write")
	}
	return f.Stream.Write(p)
}

func (f *faulty) Read(p []byte) (int, error) {
	f.reading.Add(1)
	defer f.reading.Add(-1)
	f.began <- struct{}{}
	if f.inRead {
		panic("read")
	}
	return f.Stream.Read(p)
}

// TestFaultInADirection: when one direction panics, on the connection's goroutine or on
// one of its own, the other is done with the streams before the owner of the connection
// takes them back, and the upstream is closed.
func TestFaultInADirection(t *testing.T) {
	for name, inRead := range map[string]bool{"to the client": false, "to the upstream": true} {
		t.Run(name, func(t *testing.T) { testFault(t, inRead) })
	}
}

func testFault(t *testing.T, inRead bool) {
	panics.LogTo(slog.New(slog.DiscardHandler))
	before := panics.Count(panics.Relay)
	began, ended := make(chan struct{}, 1), make(chan struct{})
	m := upstream(t, func(c *net.TCPConn) {
		<-began
		_, _ = c.Write([]byte("x"))
		_, _ = io.ReadAll(c)
		close(ended)
	})
	p, err := New(&Config{Cluster: "up"}, Options{Clusters: m})
	if err != nil {
		t.Fatal(err)
	}
	client, server := socketPair(t)
	defer client.Close()
	s, err := stream.NewSocket(server, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	near := &faulty{Stream: s, began: began, inRead: inRead}
	conn := downstream.New(downstream.Facts{Stream: near, Peer: authz.Peer{Info: s.Info()}, Accepted: time.Now()}, nil)
	finished := make(owner)
	conn.Attach(&downstream.Server{Handler: p, Context: t.Context()}, finished)
	go conn.Serve()
	select {
	case <-finished:
	case <-time.After(5 * time.Second):
		t.Fatal("the connection is not finished")
	}
	if n := panics.Count(panics.Relay) - before; n != 1 {
		t.Errorf("contained %d panics", n)
	}
	if n := near.reading.Load(); n != 0 {
		t.Error("the other direction still reads")
	}
	p.watch.mu.Lock()
	relays := len(p.watch.relays)
	p.watch.mu.Unlock()
	if relays != 0 {
		t.Errorf("%d relays are watched", relays)
	}
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Fatal("the upstream is open")
	}
}
