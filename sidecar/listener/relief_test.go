package listener

import (
	"context"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/overload"
)

// TestNoListenerAcceptsUnderOverload: while nothing is to be accepted, neither an update
// of a listener is a relief to any, nor does one that is new accept; when it is over, all
// serve who has waited.
func TestNoListenerAcceptsUnderOverload(t *testing.T) {
	var m *Manager
	var heap atomic.Uint64
	var stopped atomic.Bool
	heap.Store(1)
	ov := overload.New(&overload.Config{Refresh: time.Millisecond, MaxHeap: 1, Actions: []overload.Action{{
		Kind: overload.StopAccepting, Triggers: []overload.Trigger{{Resource: overload.Heap, Threshold: 0.9}}}}},
		overload.Options{Heap: heap.Load, Accept: func(yes bool) { m.Accept(yes); stopped.Store(!yes) }})
	m = newTestManager(t, func(o *Options) { o.Overload = ov })
	mustApply(t, m, echoConfig("a"))
	mustApply(t, m, echoConfig("b"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); ov.Run(ctx) }()
	defer func() { cancel(); <-done }()
	waitFor(t, stopped.Load)
	mustApply(t, m, echoConfig("b"))
	at := filepath.Join(t.TempDir(), "socket")
	old, heir := echoConfig("c"), echoConfig("d")
	for _, cfg := range []*Config{old, heir} {
		cfg.Network, cfg.Address = "unix", at
	}
	mustApply(t, m, old)
	for name, err := range m.Replace([]string{"c"}, []*Config{heir}) {
		t.Fatal(name, err)
	}
	replies := make(chan error, 3)
	names := []string{"a", "b", "d"}
	for _, name := range names {
		addr := m.Addrs()[name]
		c, err := net.Dial(addr.Network(), addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		go func() { replies <- roundTrip(c) }()
	}
	select {
	case err := <-replies:
		t.Fatalf("a listener accepts under overload: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	if n := m.Serving(); n != 0 {
		t.Errorf("%d connections are served under overload", n)
	}
	heap.Store(0)
	for range names {
		if err := <-replies; err != nil {
			t.Error(err)
		}
	}
}
