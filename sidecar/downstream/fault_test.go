package downstream

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// faulty parks once and then panics, or its owner does.
type faulty struct {
	parked bool
	owner  bool
	done   chan struct{}
}

func (f *faulty) ServeStream(_ context.Context, c *Conn) {
	if !f.parked {
		f.parked = true
		c.Park(c.Stream)
		return
	}
	c.Park(c.Stream) // a fault finishes a connection that was about to be parked
	if !f.owner {
		panic("handler")
	}
	c.Finish()
}

func (f *faulty) Finished(c *Conn) {
	defer close(f.done)
	if f.owner {
		panic("owner")
	}
	_ = c.Stream.Close()
}

// TestFaultOfAParkedConnection: it ends the connection, which its owner is told of.
func TestFaultOfAParkedConnection(t *testing.T) {
	panics.LogTo(slog.New(slog.DiscardHandler))
	for name, owner := range map[string]bool{"handler": false, "owner": true} {
		t.Run(name, func(t *testing.T) {
			before := panics.Count(panics.Connection)
			poller, err := stream.NewPoller()
			if err != nil {
				t.Fatal(err)
			}
			defer poller.Close()
			s, far := pair(t)
			c := New(Facts{Stream: s, Peer: authz.Peer{Info: s.Info()}}, nil)
			f := &faulty{owner: owner, done: make(chan struct{})}
			c.Attach(&Server{Handler: f, Context: t.Context(), Poller: poller}, f)
			c.Serve()
			parked(t, poller)
			if _, err := far.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			<-f.done
			_ = far.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.ReadAll(far); err != nil && stream.IsTimeout(err) {
				t.Error("the connection is open")
			}
			if n := panics.Count(panics.Connection) - before; n != 1 {
				t.Errorf("contained %d panics", n)
			}
		})
	}
}
