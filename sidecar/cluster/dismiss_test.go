package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestPoolsOfDepartedWorkloads: a host keeps no pools for workloads that have gone, but for a few, and those that are
// in use; and whoever found one before gets no connection that nobody else would find.
func TestPoolsOfDepartedWorkloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewManager(Options{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done() // nobody answers
			return nil, ctx.Err()
		}})
		defer m.Close()
		h := mustUpdate(t, m, &Config{Name: "c", ConnectTimeout: 5 * time.Minute, Endpoints: hosts("c", "10.0.0.1")}).hosts()[0]
		first := h.pool("workload-0", DefaultPriority)
		for i := range 3 * fewPools {
			h.pool(fmt.Sprint("workload-", i), DefaultPriority)
		}
		waits, cancel := context.WithCancel(t.Context())
		left := make(chan error)
		go func() {
			_, err := h.Acquire(func() (context.Context, context.CancelFunc) { return context.WithCancel(waits) }, "workload-1", nil, false, DefaultPriority, monotonic(), 0)
			left <- err
		}()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := len(*h.pools.Load()); n != fewPools {
			t.Errorf("%d pools are left", n)
		}
		if p := h.pool("workload-1", DefaultPriority); p.empty() {
			t.Error("a pool that is in use has gone")
		}
		within := func() (context.Context, context.CancelFunc) { return context.WithCancel(t.Context()) }
		if _, err := first.connect(within, 0); !IsOutdated(err) {
			t.Errorf("a connection of its own: %v", err)
		}
		if _, err := first.connectShared(t.Context(), protocolHTTP2, 0); !IsOutdated(err) {
			t.Errorf("a shared one: %v", err)
		}
		h.cluster.conns.Add(1)
		if _, err := first.dialBytes(t.Context(), 0); !IsOutdated(err) {
			t.Errorf("one for bytes: %v", err)
		}
		cancel()
		var e *Error
		if err := <-left; !errors.As(err, &e) || e.Kind != Canceled {
			t.Errorf("whoever left: %v", err)
		}
		if n := h.cluster.conns.Load(); n != 1 { // that which is being made
			t.Errorf("%d connections are counted", n)
		}
	})
}
