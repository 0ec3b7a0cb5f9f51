package hcm

import (
	"cmp"
	"slices"
	"time"
)

// Where descriptors are about to be short, connections of clients that are idle make room for new ones, the
// longest idle first: a client that returns connects anew, one that is refused does not know when to.

const (
	// idleLeast is how long a connection must be idle to make room: a request on a younger one may be on its way.
	idleLeast = int64(5 * time.Second)
	// relievedEach is how many make room for one that asks, and relievedFirst for the first of a burst: they take a
	// moment to close, in which more come.
	relievedEach, relievedFirst = 2, 16
	burstAfter                  = int64(100 * time.Millisecond)
	// relieveAtMost is how often all connections are looked at, and no more than this share of the time.
	relieveAtMost = int64(time.Millisecond)
	relieveShare  = 10
	// relievePiece is how many are looked at in a go: whoever comes or goes meanwhile waits for no more.
	relievePiece = 256
)

// Relieve has two connections that are idle end soon, for one that came. Anyone may call it.
func (ts *Timers) Relieve() {
	if ts.asked.Add(1) == 1 {
		ts.soon(1)
	}
}

// rester is timed of a connection, which may be idle. Its methods are called as those are.
type rester interface {
	timed
	// idleSince tells since when the connection has been idle, and whether it is, and is to make room.
	idleSince() (since int64, yes bool)
	// yield has it end for others, if it is idle still.
	yield() (yes bool)
}

// idler is a connection that is idle.
type idler struct {
	since int64
	timer *timer
}

// relieve ends connections that are idle, or tells when to look again.
func (ts *Timers) relieve(now int64) (next int64) {
	if now < ts.relieveNext {
		return ts.relieveNext
	}
	n := relievedEach * int(ts.asked.Swap(0))
	if now >= ts.relieveNext+burstAfter {
		n = max(n, relievedFirst)
	}
	next = noDeadline
	for _, i := range ts.longestIdle(now, n) {
		at := i.timer.at.Load()
		if at <= 0 {
			continue
		}
		switch at = i.timer.fire(at, now, i.yield); {
		case at == fired && ts.madeRoom != nil:
			ts.madeRoom()
		case at > 0:
			next = min(next, at)
		}
	}
	over := monotonic()
	ts.relieveNext = over + max(relieveAtMost, relieveShare*(over-now))
	return next
}

// longestIdle are the n connections that have been idle for longest.
func (ts *Timers) longestIdle(now int64, n int) []idler {
	var idle []idler
	latest := now - idleLeast
	for begin, more := 0, true; more; begin += relievePiece {
		ts.mu.Lock()
		end := min(begin+relievePiece, len(ts.entries))
		for _, t := range ts.entries[min(begin, end):end] {
			if since, yes := t.idleSince(); yes && since <= latest {
				idle = append(idle, idler{since, t})
			}
		}
		more = end < len(ts.entries)
		ts.mu.Unlock()
		if len(idle) >= 2*n { // to sort them seldom costs less than to keep them sorted
			idle = longest(idle, n)
			latest = idle[n-1].since
		}
	}
	return longest(idle, n)
}

func longest(idle []idler, n int) []idler {
	slices.SortFunc(idle, func(a, b idler) int { return cmp.Compare(a.since, b.since) })
	return idle[:min(n, len(idle))]
}

// yield is due of who is to end if it is idle as it was; it is asked again at once where it is not, for its own
// times.
func (i idler) yield(owner timed, _ int64) (bool, int64) {
	r := owner.(rester)
	since, yes := r.idleSince()
	return yes && since == i.since && r.yield(), 1
}

// idleSince asks the owner, where it waits.
func (t *timer) idleSince() (since int64, yes bool) {
	owner, ok := t.owner.(rester)
	if !ok {
		return 0, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.at.Load()
	if at <= 0 || !t.at.CompareAndSwap(at, looking) {
		return 0, false
	}
	since, yes = owner.idleSince()
	if !t.at.CompareAndSwap(looking, at) { // it was hastened, or disarmed
		t.at.CompareAndSwap(lookAgain, 1)
	}
	return since, yes
}

// idleSince implements rester.
func (w *watchdog) idleSince() (since int64, yes bool) {
	if !w.waiting || w.over {
		return 0, false
	}
	c, ok := w.client.(*http1Conn)
	return w.since, !ok || !c.d.Exempt
}

// yield implements rester.
func (w *watchdog) yield() bool {
	if !w.waiting || w.over {
		return false
	}
	w.cause.Store(causeIdle)
	w.endBy(yielded) // a parked connection is waited for anew before it ends
	return true
}

// yielded is when a connection's waiting ends that has made room: before any time there is. A request that came just
// then is its last.
const yielded = 1

// hasYielded tells whether the connection has made room.
func (w *watchdog) hasYielded() bool { return w.drainBy.Load() == yielded }

// idleSince implements rester.
func (c *http2Conn) idleSince() (since int64, yes bool) {
	return c.restsFrom.Load(), c.active.Load() == 0 && !c.leaving.Load() && !c.d.Exempt
}

// yield implements rester.
func (c *http2Conn) yield() bool {
	_, yes := c.idleSince()
	return yes
}
