// Package drain tells the parts of a process, or of one listener, that they are
// to finish: a trigger on one side, watchers on the other. A watcher learns that
// the drain has begun and when it must be over; the trigger learns when every
// piece of work that was held has been released.
package drain

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Trigger starts a drain and waits for its end. Safe for concurrent use.
type Trigger struct {
	w      *Watcher
	unlink func()
}

// Watcher is the receiving side. The zero value is not useful; a nil Watcher
// never drains. Safe for concurrent use.
type Watcher struct {
	draining atomic.Bool
	done     chan struct{}

	mu       sync.Mutex
	deadline time.Time
	held     int
	idle     chan struct{} // non-nil while someone waits for held to reach zero
	children map[*Watcher]struct{}
}

// New returns a trigger and its watcher.
func New() (*Trigger, *Watcher) {
	w := &Watcher{done: make(chan struct{})}
	return &Trigger{w: w, unlink: func() {}}, w
}

// Child returns a trigger and watcher of their own that also drain when w does,
// with w's deadline unless their own is earlier. Work held on the child counts as
// held on w. Release must be called when the child is no longer needed.
func (w *Watcher) Child() (*Trigger, *Watcher) {
	trigger, child := New()
	if w == nil {
		return trigger, child
	}
	w.mu.Lock()
	if w.children == nil {
		w.children = map[*Watcher]struct{}{}
	}
	w.children[child] = struct{}{}
	deadline := w.deadline
	w.mu.Unlock()
	if w.Draining() {
		child.start(deadline)
	}
	trigger.unlink = func() {
		w.mu.Lock()
		delete(w.children, child)
		w.signal()
		w.mu.Unlock()
	}
	return trigger, child
}

// Drain starts the drain; zero means that there is no deadline. A later call can
// only bring the deadline forward.
func (t *Trigger) Drain(deadline time.Time) { t.w.start(deadline) }

// Release unlinks a child from its parent. Work still held on the child no longer
// counts for the parent.
func (t *Trigger) Release() { t.unlink() }

// Wait returns when nothing is held any more, on t's watcher or a child of it, or
// with the context's error.
func (t *Trigger) Wait(ctx context.Context) error {
	for {
		idle := t.w.idleChan()
		if idle == nil {
			return nil
		}
		select {
		case <-idle:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Held is how many pieces of work have not been released yet.
func (t *Trigger) Held() int { return t.w.heldNow() }

func (w *Watcher) start(deadline time.Time) {
	w.mu.Lock()
	first := !w.draining.Load()
	if !deadline.IsZero() && (w.deadline.IsZero() || deadline.Before(w.deadline)) {
		w.deadline = deadline
	}
	if first {
		w.draining.Store(true)
		close(w.done)
	}
	deadline = w.deadline
	children := make([]*Watcher, 0, len(w.children))
	for c := range w.children {
		children = append(children, c)
	}
	w.mu.Unlock()
	for _, c := range children {
		c.start(deadline)
	}
}

// Draining reports whether the drain has begun: one atomic load.
func (w *Watcher) Draining() bool { return w != nil && w.draining.Load() }

// Done is closed when the drain begins; nil for a nil watcher.
func (w *Watcher) Done() <-chan struct{} {
	if w == nil {
		return nil
	}
	return w.done
}

// Deadline is when everything must have ended; zero when not draining or when
// there is none.
func (w *Watcher) Deadline() time.Time {
	if w == nil {
		return time.Time{}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.deadline
}

// Hold marks a piece of work that the drain waits for. The function returned
// releases it; calling it again does nothing.
func (w *Watcher) Hold() (release func()) {
	if w == nil {
		return func() {}
	}
	w.mu.Lock()
	w.held++
	w.mu.Unlock()
	var once sync.Once
	return func() {
		once.Do(func() {
			w.mu.Lock()
			w.held--
			w.signal()
			w.mu.Unlock()
		})
	}
}

// signal wakes waiters to look again; w.mu is held.
func (w *Watcher) signal() {
	if w.idle != nil {
		close(w.idle)
		w.idle = nil
	}
}

func (w *Watcher) heldNow() int {
	w.mu.Lock()
	n := w.held
	children := make([]*Watcher, 0, len(w.children))
	for c := range w.children {
		children = append(children, c)
	}
	w.mu.Unlock()
	for _, c := range children {
		n += c.heldNow()
	}
	return n
}

// idleChan returns nil when nothing is held, otherwise a channel that is closed
// at the next release that can change that.
func (w *Watcher) idleChan() <-chan struct{} {
	w.mu.Lock()
	if w.held > 0 {
		if w.idle == nil {
			w.idle = make(chan struct{})
		}
		idle := w.idle
		w.mu.Unlock()
		return idle
	}
	children := make([]*Watcher, 0, len(w.children))
	for c := range w.children {
		children = append(children, c)
	}
	w.mu.Unlock()
	for _, c := range children {
		if idle := c.idleChan(); idle != nil {
			return idle
		}
	}
	return nil
}
