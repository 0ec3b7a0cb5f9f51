// Package workers has goroutines that do one thing after another.
package workers

import (
	"sync"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// Task is what a worker does. A panic of it ends the worker alone.
type Task interface{ Run() }

// Pool are goroutines that serve one stream, or connection, after another. A goroutine of
// its own for each would grow its stack each time, which costs more than the rest of a
// small exchange. Those that are not needed end. The zero value is ready, and Close ends
// it; all methods are safe for concurrent use.
type Pool struct {
	// MostIdle is how many may wait for something to do, 0 for any number. It is set
	// before the first Run.
	MostIdle int

	mu     sync.Mutex
	idle   []*worker
	fewest int // idle ones since the last look
	timer  *time.Timer
	closed bool
	wg     sync.WaitGroup
}

type worker struct{ next chan Task }

// lookEvery is how often surplus workers are sent away.
const lookEvery = time.Second

// Close ends the idle workers and waits until the others have finished. Nothing may be
// run afterwards.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
	}
	p.dismiss(len(p.idle))
	p.mu.Unlock()
	p.wg.Wait()
}

// Run has a worker do t, beside the caller. It does not wait. Without a pool t has a goroutine
// of its own.
func (p *Pool) Run(t Task) {
	if p == nil {
		go alone(t)
		return
	}
	p.mu.Lock()
	if n := len(p.idle) - 1; n >= 0 {
		// The latest has the warmest stack.
		w := p.idle[n]
		p.idle[n] = nil
		p.idle = p.idle[:n]
		p.fewest = min(p.fewest, n)
		p.mu.Unlock()
		w.next <- t
		return
	}
	p.fewest = 0
	p.wg.Add(1)
	p.mu.Unlock()
	go p.work(&worker{next: make(chan Task, 1)}, t)
}

func alone(t Task) {
	defer panics.Contain(panics.Housekeeper, nil, nil)
	t.Run()
}

func (p *Pool) work(w *worker, t Task) {
	defer p.wg.Done()
	defer panics.Contain(panics.Housekeeper, nil, nil)
	for t != nil {
		t.Run()
		p.mu.Lock()
		if p.closed || p.MostIdle > 0 && len(p.idle) >= p.MostIdle {
			p.mu.Unlock()
			return
		}
		p.idle = append(p.idle, w)
		if p.timer == nil {
			p.fewest = len(p.idle)
			p.timer = time.AfterFunc(lookEvery, p.look)
		}
		p.mu.Unlock()
		t = <-w.next
	}
}

// look sends those away that were not needed since the last look.
func (p *Pool) look() {
	defer panics.Contain(panics.Housekeeper, nil, nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.dismiss(p.fewest)
	p.fewest = len(p.idle)
	if p.fewest == 0 {
		p.timer = nil
		return
	}
	p.timer.Reset(lookEvery)
}

// dismiss ends the n that have been idle longest. The lock is held.
func (p *Pool) dismiss(n int) {
	for _, w := range p.idle[:n] {
		w.next <- nil
	}
	rest := copy(p.idle, p.idle[n:])
	clear(p.idle[rest:])
	p.idle = p.idle[:rest]
}
