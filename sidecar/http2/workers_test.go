package http2

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestWorkers: streams share goroutines; those that are not needed end in time.
func TestWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ws := new(Workers)
		defer ws.Close()
		cfg := Default()
		cfg.Workers = ws
		var running atomic.Int64
		hold := make(chan bool)
		cc, _ := pipe(t, nil, cfg, func(s *Stream) {
			running.Add(1)
			defer running.Add(-1)
			<-hold
			ok(s)
		})
		idle := func() int {
			ws.mu.Lock()
			defer ws.mu.Unlock()
			return len(ws.idle)
		}
		for round, n := range []int{10, 10, 3} {
			done := make(chan error, n)
			for range n {
				go func() {
					_, _, err := exchange(cc, newRequest("GET", "/"), "")
					done <- err
				}()
			}
			synctest.Wait()
			if got := int(running.Load()); got != n {
				t.Errorf("round %d: %d handlers at once, want %d", round, got, n)
			}
			for range n {
				hold <- true
			}
			for range n {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			synctest.Wait()
			if got := idle(); got != 10 {
				t.Errorf("round %d: %d idle workers, want 10", round, got)
			}
		}
		// Three were needed since the last look, then none.
		time.Sleep(workersLook)
		synctest.Wait()
		if got := idle(); got > 10 {
			t.Errorf("%d idle workers", got)
		}
		time.Sleep(2 * workersLook)
		synctest.Wait()
		if got := idle(); got != 0 {
			t.Errorf("%d idle workers after a long time", got)
		}
	})
}
