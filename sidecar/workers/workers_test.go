package workers

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type task func()

func (t task) Run() { t() }

// TestPool: tasks share goroutines; those that are not needed end in time.
func TestPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(Pool)
		defer p.Close()
		var running atomic.Int64
		hold := make(chan bool)
		idle := func() int {
			p.mu.Lock()
			defer p.mu.Unlock()
			return len(p.idle)
		}
		for round, n := range []int{10, 10, 3} {
			for range n {
				p.Run(task(func() {
					running.Add(1)
					defer running.Add(-1)
					<-hold
				}))
			}
			synctest.Wait()
			if got := int(running.Load()); got != n {
				t.Errorf("round %d: %d tasks at once, want %d", round, got, n)
			}
			for range n {
				hold <- true
			}
			synctest.Wait()
			if got := idle(); got != 10 {
				t.Errorf("round %d: %d idle workers, want 10", round, got)
			}
		}
		// Three were needed since the last look, then none.
		time.Sleep(lookEvery)
		synctest.Wait()
		if got := idle(); got > 10 {
			t.Errorf("%d idle workers", got)
		}
		time.Sleep(2 * lookEvery)
		synctest.Wait()
		if got := idle(); got != 0 {
			t.Errorf("%d idle workers after a long time", got)
		}
	})
}

// TestMostIdle: no more wait than may.
func TestMostIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Pool{MostIdle: 2}
		defer p.Close()
		for range 3 {
			p.Run(task(func() { time.Sleep(time.Millisecond) }))
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if got := len(p.idle); got != 2 {
			t.Errorf("%d idle workers, want 2", got)
		}
	})
}

// TestPanic: a task's panic ends its worker, and no other task.
func TestPanic(t *testing.T) {
	p := new(Pool)
	done := make(chan bool)
	p.Run(task(func() { panic("a task's") }))
	for range 2 {
		p.Run(task(func() { done <- true }))
		<-done
	}
	p.Close()
}

// TestClose waits for what runs.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(Pool)
		p.Run(task(func() {}))
		synctest.Wait() // one is idle
		var finished bool
		p.Run(task(func() {}))
		p.Run(task(func() { time.Sleep(time.Minute); finished = true }))
		p.Close()
		if !finished {
			t.Error("Close did not wait")
		}
	})
}
