package hcm

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
)

// agedClient is one whose connection has a time to live.
type agedClient struct {
	waiter
	by func() int64
}

func (c *agedClient) endsBy() int64 { return c.by() }

// reducing are timers whose timeouts are reduced to a tenth once the returned function was called, and
// no more once it was called again; but for those that are spared.
func reducing(t testing.TB, spared ...overload.Timeout) (*Timers, func(bool)) {
	heap := atomic.Uint64{}
	cfg := &overload.Config{MaxHeap: 1, Refresh: time.Millisecond, Actions: []overload.Action{{Kind: overload.ReduceTimeouts, Triggers: []overload.Trigger{{Resource: overload.Heap, Threshold: 1}}}}}
	for i := range cfg.Timeouts {
		cfg.Timeouts[i] = &overload.Least{Share: 0.1}
	}
	for _, t := range spared {
		cfg.Timeouts[t] = nil
	}
	ts := NewTimers()
	m := overload.New(cfg, overload.Options{Heap: heap.Load, Collect: func() {}, Reduced: ts.Reduced})
	ts.ReduceBy(m.Reducer())
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() { m.Run(ctx); close(over) }()
	t.Cleanup(func() { cancel(); <-over; ts.Close() })
	return ts, func(yes bool) {
		heap.Store(0)
		if yes {
			heap.Store(1)
		}
	}
}

// TestReducedTimeouts: who waits already when an overload begins has what is left of its time, who waits when it
// is over all of it again. A host's own time is not reduced.
func TestReducedTimeouts(t *testing.T) {
	const full = 100 * time.Second
	for what, tc := range map[string]struct {
		wait func(w *watchdog, now int64)
		want time.Duration
	}{
		"a connection": {func(w *watchdog, now int64) {
			w.rest()
			w.awaitRequest(now, noDeadline, int64(full), 0)
		}, full / 10},
		"a stream": {func(w *watchdog, now int64) {
			w.streamIdle = int64(full)
			w.await(now, noDeadline, int64(full), false)
		}, full / 10},
		"an attempt": {func(w *watchdog, now int64) {
			w.await(now, noDeadline, int64(full), false)
		}, full},
		"an attempt, of a stream that ends before": {func(w *watchdog, now int64) {
			w.streamIdle = int64(2 * full)
			w.await(now, noDeadline, int64(full), false)
		}, full / 5},
		"a flush": {func(w *watchdog, now int64) {
			w.streamIdle = int64(4 * full)
			w.await(now, noDeadline, int64(4*full), false)
			x := &exchange{dog: w, attempt: &attempt{}, m: &Manager{cfg: &Config{}, timers: w.timer.ts}}
			x.m.cfg.FlushTimeout = ptr(full)
			x.boundFlush()
		}, full / 10},
		"a connection's life": {func(w *watchdog, now int64) {
			m := &Manager{cfg: &Config{}, timers: w.timer.ts}
			d := &downstream.Conn{}
			d.Accepted = time.Now()
			c := &http1Conn{m: m, d: d, expires: now + int64(full)}
			w.client.(*agedClient).by = c.endsBy
			w.rest()
			w.awaitRequest(now, noDeadline, 0, 0)
		}, full / 10},
	} {
		for name, phases := range map[string][]bool{"before": {true}, "meanwhile": {false, true}, "and over": {false, true, false}} {
			synctest.Test(t, func(t *testing.T) {
				ts, set := reducing(t)
				reduce := func(yes bool) {
					set(yes)
					time.Sleep(2 * time.Millisecond)
					synctest.Wait()
				}
				c := &agedClient{waiter{make(chan struct{}, 1)}, func() int64 { return 0 }}
				var dog watchdog
				dog.start(ts, c)
				defer dog.stop()
				reduce(phases[0])
				began := time.Now()
				tc.wait(&dog, monotonic())
				for _, yes := range phases[1:] {
					reduce(yes)
				}
				<-c.ended
				want := tc.want
				if !phases[len(phases)-1] {
					want = full
				}
				if took := time.Since(began).Round(100 * time.Millisecond); took != want {
					t.Errorf("%s, %s: %v, want %v", what, name, took, want)
				}
			})
		}
	}
}
