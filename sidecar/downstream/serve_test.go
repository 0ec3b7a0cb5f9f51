package downstream

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// handler serves a byte at a time, and parks after each.
type handler struct {
	calls  chan int
	before func(c *Conn) // parking
}

func (h *handler) ServeStream(_ context.Context, c *Conn) {
	n, _ := c.Held.(int)
	c.Held = n + 1
	h.calls <- n + 1
	if n > 0 {
		if _, err := io.ReadFull(c.Stream, make([]byte, 1)); err != nil {
			return
		}
	}
	if h.before != nil {
		h.before(c)
	}
	c.Park(c.Stream)
}

type owner chan struct{}

func (o owner) Finished(*Conn) { close(o) }

func pair(t *testing.T) (*stream.Socket, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s, err := stream.NewSocket(near.(*net.TCPConn), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(); _ = far.Close() })
	return s, far
}

func TestParkedConnection(t *testing.T) {
	for name, end := range map[string]func(c *Conn, far net.Conn){
		"the peer leaves":       func(_ *Conn, far net.Conn) { _ = far.Close() },
		"the listener ends it":  func(c *Conn, _ net.Conn) { c.End(Ending{Reason: "test"}) },
		"its stream is closed":  func(c *Conn, _ net.Conn) { _ = c.Stream.Close() },
		"it is closed and woke": func(c *Conn, _ net.Conn) { _ = c.Stream.Close(); c.Wake(); c.Wake() },
	} {
		t.Run(name, func(t *testing.T) {
			poller, err := stream.NewPoller()
			if err != nil {
				t.Fatal(err)
			}
			defer poller.Close()
			s, far := pair(t)
			c := New(Facts{Stream: s, Peer: authz.Peer{Info: s.Info()}}, nil)
			h, done := &handler{calls: make(chan int, 10)}, make(owner)
			c.Attach(&Server{Handler: h, Context: t.Context(), Poller: poller}, done)
			c.Serve()
			for want := 2; want < 5; want++ {
				<-h.calls
				parked(t, poller)
				if _, err := far.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			if got := <-h.calls; got != 4 {
				t.Errorf("served for the %d. time", got)
			}
			parked(t, poller)
			end(c, far)
			select {
			case <-done:
			case <-time.After(5 * time.Second):
				t.Fatal("the connection is not finished")
			}
		})
	}
}

func parked(t *testing.T, p *stream.Poller) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for p.Waiting() != 1 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the connection is not parked")
		}
	}
}

// A connection that is woken while it is about to be parked is served once more;
// without a poller it is served at once.
func TestWokenBeforeParked(t *testing.T) {
	poller, err := stream.NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer poller.Close()
	for name, p := range map[string]*stream.Poller{"poller": poller, "none": nil} {
		s, far := pair(t)
		c := New(Facts{Stream: s, Peer: authz.Peer{Info: s.Info()}}, nil)
		h, done := &handler{calls: make(chan int, 10), before: (*Conn).Wake}, make(owner)
		c.Attach(&Server{Handler: h, Context: t.Context(), Poller: p}, done)
		_ = far.Close() // the second call sees it
		c.Serve()
		<-done
		if len(h.calls) != 2 {
			t.Errorf("%s: served %d times", name, len(h.calls))
		}
	}
}
