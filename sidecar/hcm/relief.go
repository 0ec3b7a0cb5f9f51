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
	// relieveAtMost is how often all connections are looked at, and relievedLeast how many make room then; of many a
	// share.
	relieveAtMost = int64(100 * time.Millisecond)
	relievedLeast = 16
	relievedShare = 64
)

// Relieve has some connections that are idle end soon. Anyone may call it.
func (ts *Timers) Relieve() {
	if !ts.asked.Swap(true) {
		ts.soon(1)
	}
}

// rester is timed of a connection, which may be idle. Its methods are called as those are.
type rester interface {
	timed
	// idleSince tells since when the connection has been idle, and whether it is.
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
	if ts.relieved > 0 && now < ts.relieved+relieveAtMost {
		return ts.relieved + relieveAtMost
	}
	ts.relieved = now
	ts.asked.Store(false)
	ts.mu.Lock()
	defer ts.mu.Unlock()
	var idle []idler
	for _, t := range ts.entries {
		if since, yes := t.idleSince(); yes && now-since >= idleLeast {
			idle = append(idle, idler{since, t})
		}
	}
	slices.SortFunc(idle, func(a, b idler) int { return cmp.Compare(a.since, b.since) })
	next = noDeadline
	for _, i := range idle[:min(len(idle), max(relievedLeast, len(ts.entries)/relievedShare))] {
		if at := i.timer.at.Load(); at > 0 {
			at = i.timer.fire(at, now, yield)
			if at > 0 {
				next = min(next, at)
			}
		}
	}
	return next
}

// yield is due of who is to end if it is idle; it is asked again at once where it is not, for its own times.
func yield(owner timed, _ int64) (bool, int64) { return owner.(rester).yield(), 1 }

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
func (w *watchdog) idleSince() (since int64, yes bool) { return w.since, w.waiting && !w.over }

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
	return c.restsFrom.Load(), c.active.Load() == 0 && !c.leaving.Load()
}

// yield implements rester.
func (c *http2Conn) yield() bool {
	_, yes := c.idleSince()
	return yes
}
