package cluster

import "time"

// fewPools are those that a host keeps for workloads, in use or not. Of more it keeps those that are:
// workloads come and go for as long as the host is there.
const fewPools = 8

// unneeded is for how long the others have no connection before they go.
const unneeded = int64(time.Minute)

// dismissPools forgets the pools that are too many and have had nothing for long. now is a reading of the clock.
func (h *Host) dismissPools(now int64) {
	if len(*h.pools.Load()) <= fewPools {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	pools := *h.pools.Load()
	left := len(pools)
	next := make([]*pool, 0, left)
	for _, p := range pools {
		if left > fewPools && p.dismiss(now) {
			left--
		} else {
			next = append(next, p)
		}
	}
	if left < len(pools) {
		h.pools.Store(&next)
	}
}

// dismiss has the pool make no connections any more, where it has had none for long. Whoever has found it
// before is told to look again: no connection is made where nobody would find it.
func (p *pool) dismiss(now int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case len(p.all) > 0 || p.dialing > 0 || len(p.waiting) > 0:
		p.emptySince = 0
	case p.emptySince == 0:
		p.emptySince = now
	case now-p.emptySince >= unneeded:
		p.emptySince = -1
	}
	return p.dismissed()
}

// dismissed tells whether the pool is not its host's any more. p.mu is held.
func (p *pool) dismissed() bool { return p.emptySince < 0 }

// refused is a place in the queue whose request is told that the pool is dismissed.
func (p *pool) refused() *waiter {
	w := &waiter{ready: make(chan *Conn, 1), err: p.failed(Outdated, nil)}
	w.ready <- nil
	return w
}
