package hcm

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/overload"
)

// overloaded has the bed's process do things because of an overload. What tells how often each
// was done.
func (b *bed) overloaded(kinds ...overload.Kind) (done func(k overload.Kind) int) {
	b.t.Helper()
	cfg := &overload.Config{MaxHeap: 1, Refresh: time.Millisecond}
	for _, k := range kinds {
		cfg.Actions = append(cfg.Actions, overload.Action{Kind: k, Triggers: []overload.Trigger{{Resource: overload.Heap, Threshold: 1}}})
	}
	m := overload.New(cfg, overload.Options{Heap: func() uint64 { return 1 }, Collect: func() {}})
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() { m.Run(ctx); close(over) }()
	b.t.Cleanup(func() { cancel(); <-over })
	b.overload = m.Signals(false)
	b.eventually("the overload", func() (yes bool) {
		m.Shares(func(share float64, _ ...string) { yes = share == 1 })
		return yes
	})
	return func(k overload.Kind) (n int) {
		m.Done(func(value float64, labels ...string) {
			if labels[0] == k.String() {
				n = int(value)
			}
		})
		return n
	}
}

// TestKeepAliveEndsOnce: of the streams of a connection that ends already none ends it again.
func TestKeepAliveEndsOnce(t *testing.T) {
	arrived, release := make(chan struct{}, 3), make(chan struct{})
	b := versionedBed(t, 2, 1, func(w http.ResponseWriter, r *http.Request) { arrived <- struct{}{}; <-release })
	done := b.overloaded(overload.DisableKeepAlive)
	b.start()
	c := b.httpClient(2)
	answers := make(chan int, 3)
	for range 3 {
		go func() {
			resp, err := c.Get("http://" + b.addr + "/a")
			if err != nil {
				t.Error(err)
				answers <- 0
				return
			}
			_ = resp.Body.Close()
			answers <- resp.StatusCode
		}()
		<-arrived
	}
	for range 3 {
		release <- struct{}{}
		if status := <-answers; status != 200 {
			t.Errorf("status %d", status)
		}
		b.logged(1)
	}
	b.logged(3)
	if n := done(overload.DisableKeepAlive); n != 1 {
		t.Errorf("the connection was ended %d times", n)
	}
}
