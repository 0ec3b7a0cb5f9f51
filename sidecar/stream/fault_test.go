package stream

import (
	"log/slog"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

type faultyWaker struct{}

func (faultyWaker) Woken(*Watch) { panic("woken") }

// TestFaultOfAWatchOwner: the poller goes on waking others.
func TestFaultOfAWatchOwner(t *testing.T) {
	panics.LogTo(slog.New(slog.DiscardHandler))
	before := panics.Count(panics.Poller)
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	woken := make(waker, 1)
	for _, owner := range []WatchOwner{faultyWaker{}, woken} {
		near, far := sockets(t)
		if !p.Watch(&Watch{Owner: owner}, near) {
			t.Fatal("cannot wait")
		}
		if _, err := far.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	<-woken
	if n := panics.Count(panics.Poller) - before; n != 1 {
		t.Errorf("contained %d panics", n)
	}
}
