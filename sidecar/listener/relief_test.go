package listener

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/overload"
)

// newStrainedManager is a manager of a process whose heap is full at 1; stopped tells that
// nothing is to be accepted for that.
func newStrainedManager(t *testing.T) (m *Manager, heap *atomic.Uint64, stopped *atomic.Bool) {
	heap, stopped = new(atomic.Uint64), new(atomic.Bool)
	ov := overload.New(&overload.Config{Refresh: time.Millisecond, MaxHeap: 1, Actions: []overload.Action{{
		Kind: overload.StopAccepting, Triggers: []overload.Trigger{{Resource: overload.Heap, Threshold: 0.9}}}}},
		overload.Options{Heap: heap.Load, Accept: func(yes bool) { m.Accept(yes); stopped.Store(!yes) }})
	m = newTestManager(t, func(o *Options) { o.Overload = ov })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); ov.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return m, heap, stopped
}

// TestNoListenerAcceptsUnderOverload: while nothing is to be accepted, neither an update
// of a listener is a relief to any, nor does one that is new accept; when it is over, all
// serve who has waited.
func TestNoListenerAcceptsUnderOverload(t *testing.T) {
	m, heap, stopped := newStrainedManager(t)
	mustApply(t, m, echoConfig("a"))
	mustApply(t, m, echoConfig("b"))
	heap.Store(1)
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

// TestExemptionEnds: a listener that an update exempts no longer from overload accepts
// nothing from then on, until it is over.
func TestExemptionEnds(t *testing.T) {
	m, heap, stopped := newStrainedManager(t)
	exempt := echoConfig("a")
	exempt.IgnoreOverload = true
	mustApply(t, m, exempt)
	heap.Store(1)
	waitFor(t, stopped.Load)
	if err := roundTrip(dial(t, m, "a")); err != nil {
		t.Fatal(err)
	}
	mustApply(t, m, echoConfig("a"))
	c := dial(t, m, "a")
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if err := roundTrip(c); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the listener accepts under overload: %v", err)
	}
	heap.Store(0)
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := c.Read(make([]byte, 4)); err != nil {
		t.Errorf("and not when it is over: %v", err)
	}
}

// TestHold: nothing is accepted before Open, by a listener that is exempt from overload neither;
// who has connected is served then.
func TestHold(t *testing.T) {
	m := newTestManager(t, nil)
	m.Hold()
	plain, exempt := echoConfig("a"), echoConfig("b")
	exempt.IgnoreOverload = true
	replies := make(chan error, 2)
	for _, cfg := range []*Config{plain, exempt} {
		mustApply(t, m, cfg)
		c, err := net.Dial("tcp", m.Addrs()[cfg.Name].String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		go func() { replies <- roundTrip(c) }()
	}
	m.Accept(true) // which is for the end of an overload
	select {
	case err := <-replies:
		t.Fatalf("a listener accepts: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if n := m.Serving(); n != 0 {
		t.Errorf("%d connections are served", n)
	}
	m.Open()
	for range 2 {
		if err := <-replies; err != nil {
			t.Error(err)
		}
	}
}
