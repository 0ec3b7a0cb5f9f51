package tcp

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// faulty is a client whose writes panic, and that tells of its reads.
type faulty struct {
	stream.Stream
	began   chan struct{}
	reading atomic.Int32
}

func (f *faulty) Write([]byte) (int, error) { panic("write") }

func (f *faulty) Read(p []byte) (int, error) {
	f.reading.Add(1)
	defer f.reading.Add(-1)
	f.began <- struct{}{}
	return f.Stream.Read(p)
}

// recovering is what the owner of connections puts in front of their handler.
type recovering struct {
	*Proxy
	fault any
}

func (r *recovering) ServeStream(ctx context.Context, c *downstream.Conn) {
	defer func() {
		r.fault = recover()
		c.Finish()
	}()
	r.Proxy.ServeStream(ctx, c)
}

// TestFaultInADirection: when one direction panics, the other is done with the streams
// before the owner of the connection takes them back, and the upstream is closed.
func TestFaultInADirection(t *testing.T) {
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
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s, err := stream.NewSocket(server.(*net.TCPConn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	near := &faulty{Stream: s, began: began}
	conn := downstream.New(downstream.Facts{Stream: near, Info: s.Info(), Accepted: time.Now()}, nil)
	h, finished := &recovering{Proxy: p}, make(owner)
	conn.Attach(t.Context(), h, finished, nil)
	go conn.Serve()
	select {
	case <-finished:
	case <-time.After(5 * time.Second):
		t.Fatal("the connection is not finished")
	}
	if h.fault != "write" {
		t.Errorf("recovered %v", h.fault)
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
