package listener

import (
	"bytes"
	"context"
	"io"
	"runtime/debug"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
)

// shared tells of each time that it serves a connection whether a worker does it.
type shared chan bool

func (s shared) ServeStream(_ context.Context, c *downstream.Conn) {
	s <- bytes.Contains(debug.Stack(), []byte("workers.(*Pool).work("))
	if n, _ := io.ReadFull(c.Stream, make([]byte, 1)); n == 1 {
		c.Park(c.Stream)
	}
}

// TestConnectionsShareWorkers: a goroutine of its own for each connection, and for each
// time that one is taken up again, would grow a stack of its own: a tenth of what a request
// costs on a connection that asks seldom.
func TestConnectionsShareWorkers(t *testing.T) {
	s := make(shared, 8)
	m := newTestManager(t, func(o *Options) {
		o.NewHandler = func(*Config, *FilterChain) (downstream.Handler, error) { return s, nil }
	})
	mustApply(t, m, echoConfig("l"))
	c := dial(t, m, "l")
	for n := range 3 {
		// The first byte ends the wait of who accepted it, the others wake it.
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if !<-s {
			t.Errorf("taken up for the %d. time by a goroutine of its own", n)
		}
	}
}
