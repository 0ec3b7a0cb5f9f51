package cluster

import "slices"

// waiter is a request that waits for a connection because the limit is reached, or because
// one is being made already.
// It is sent a connection, or nil.
type waiter struct {
	ready chan *Conn // nil: try again, or fail
	err   *Error     // why, where it is to fail
	since int64      // when it came
}

// handOver gives a connection to the first that waits; nil lets it try again. p.mu is held.
func (p *pool) handOver(c *Conn) {
	w := p.waiting[0]
	p.waiting = p.waiting[1:]
	w.ready <- c
}

// queue is a place in the queue, where the first is who came first. p.mu is held.
func (p *pool) queue(w *waiter) *waiter {
	if w == nil {
		w = &waiter{ready: make(chan *Conn, 1), since: monotonic()}
	}
	at := len(p.waiting)
	for at > 0 && p.waiting[at-1].since > w.since {
		at--
	}
	p.waiting = slices.Insert(p.waiting, at, w)
	return w
}

// giveUp leaves the queue. What was handed over meanwhile goes on to the next.
func (p *pool) giveUp(w *waiter) {
	p.mu.Lock()
	i := slices.Index(p.waiting, w)
	if i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
	}
	p.mu.Unlock()
	if i >= 0 {
		return
	}
	if conn := <-w.ready; conn != nil {
		conn.Release()
	} else {
		p.wake()
	}
}

// purge fails all that wait, as Envoy does when a connection cannot be made: one after
// the other they would find the same, each after another timeout.
func (p *pool) purge(e *Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.waiting {
		own := *e // each may add to it
		w.err = &own
		w.ready <- nil
	}
	p.waiting = nil
}

// wakeAll lets all waiters try again. p.mu is not held.
func (p *pool) wakeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.waiting {
		w.ready <- nil
	}
	p.waiting = nil
}

// wake lets the first waiter try again. p.mu is not held.
func (p *pool) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) > 0 {
		p.handOver(nil)
	}
}
