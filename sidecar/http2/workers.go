package http2

import (
	"sync"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// Workers are goroutines that serve one stream after another. A goroutine of its own
// for each stream would grow its stack each time, which costs more than the rest of a
// small exchange. Those that are not needed end. The zero value is a pool for
// Config.Workers, and Close ends it.
type Workers struct {
	mu     sync.Mutex
	idle   []*worker
	fewest int // idle ones since the last look
	timer  *time.Timer
	closed bool
	wg     sync.WaitGroup
}

type worker struct{ next chan *Stream }

// workersLook is how often surplus workers are sent away.
const workersLook = 5 * time.Second

// Close ends the idle workers and waits until the others have finished. No stream may
// begin afterwards.
func (ws *Workers) Close() {
	ws.mu.Lock()
	ws.closed = true
	if ws.timer != nil {
		ws.timer.Stop()
	}
	ws.dismiss(len(ws.idle))
	ws.mu.Unlock()
	ws.wg.Wait()
}

// serve has a worker run the stream's handler.
func (ws *Workers) serve(s *Stream) {
	ws.mu.Lock()
	if n := len(ws.idle) - 1; n >= 0 {
		// The latest has the warmest stack.
		w := ws.idle[n]
		ws.idle[n] = nil
		ws.idle = ws.idle[:n]
		ws.fewest = min(ws.fewest, n)
		ws.mu.Unlock()
		w.next <- s
		return
	}
	ws.fewest = 0
	ws.wg.Add(1)
	ws.mu.Unlock()
	go ws.work(&worker{next: make(chan *Stream, 1)}, s)
}

func (ws *Workers) work(w *worker, s *Stream) {
	defer ws.wg.Done()
	defer panics.Contain(panics.Housekeeper, nil, nil)
	for s != nil {
		s.run()
		ws.mu.Lock()
		if ws.closed {
			ws.mu.Unlock()
			return
		}
		ws.idle = append(ws.idle, w)
		if ws.timer == nil {
			ws.fewest = len(ws.idle)
			ws.timer = time.AfterFunc(workersLook, ws.look)
		}
		ws.mu.Unlock()
		s = <-w.next
	}
}

// look sends those away that were not needed since the last look.
func (ws *Workers) look() {
	defer panics.Contain(panics.Housekeeper, nil, nil)
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.closed {
		return
	}
	ws.dismiss(ws.fewest)
	ws.fewest = len(ws.idle)
	if ws.fewest == 0 {
		ws.timer = nil
		return
	}
	ws.timer.Reset(workersLook)
}

// dismiss ends the n that have been idle longest. The lock is held.
func (ws *Workers) dismiss(n int) {
	for _, w := range ws.idle[:n] {
		w.next <- nil
	}
	rest := copy(ws.idle, ws.idle[n:])
	clear(ws.idle[rest:])
	ws.idle = ws.idle[:rest]
}
