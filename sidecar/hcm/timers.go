package hcm

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/clock"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/processors"
)

// Timers are the timeouts of many connections. Arming one is an atomic store: no
// timer of the runtime, no context and no deadline on a socket is touched unless a
// timeout really passes. One goroutine looks at them when the earliest is due.
type Timers struct {
	wakeAt atomic.Int64 // when the goroutine looks again
	kick   chan struct{}
	done   chan struct{}
	wg     sync.WaitGroup

	reducer *overload.Reducer // nil where no overload reduces timeouts

	asked       atomic.Int64 // for how many connections those that are idle are to make room
	madeRoom    func()       // counts one that did; nil for nobody
	relieveNext int64        // when they may again; the goroutine's

	mu      sync.Mutex
	entries []*timer
}

// fired marks a timer whose owner was woken and has not noticed yet.
const fired = -1

// looking marks one whose owner is being asked whether it is due, and lookAgain one that
// was hastened meanwhile: it is asked again.
const (
	looking   = -2
	lookAgain = -3
)

// timer is one connection's. at is when it is due, 0 when it is not armed.
type timer struct {
	at    atomic.Int64
	owner timed
	ts    *Timers
	index int
	// mu is held while the owner is asked and woken, so that the owner can wait until
	// that is over before it goes on.
	mu sync.Mutex
}

// timed owns a timer. Both methods are called on the timers' goroutine, and neither
// while the timer is disarmed: what they look at needs no other guard.
type timed interface {
	// due says whether the time has come; if not, when to look again (0: never).
	due(now int64) (yes bool, next int64)
	// wake interrupts whatever the owner waits for.
	wake()
}

// NewTimers starts the goroutine; Close ends it.
func NewTimers() *Timers {
	ts := &Timers{kick: make(chan struct{}, 1), done: make(chan struct{})}
	ts.wakeAt.Store(math.MaxInt64)
	processors.Note()
	ts.wg.Go(ts.run)
	return ts
}

// ReduceBy has an overload reduce timeouts. It is called before there are connections.
func (ts *Timers) ReduceBy(r *overload.Reducer) { ts.reducer = r }

// Reduced has every owner asked anew: timeouts are others than they were.
func (ts *Timers) Reduced() {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, t := range ts.entries {
		t.hasten(1)
	}
}

// Close ends the timers; what is armed does not fire any more.
func (ts *Timers) Close() {
	close(ts.done)
	ts.wg.Wait()
}

func (ts *Timers) add(t *timer) {
	t.ts = ts
	ts.mu.Lock()
	t.index = len(ts.entries)
	ts.entries = append(ts.entries, t)
	ts.mu.Unlock()
}

func (ts *Timers) remove(t *timer) {
	ts.mu.Lock()
	last := len(ts.entries) - 1
	ts.entries[t.index] = ts.entries[last]
	ts.entries[t.index].index = t.index
	ts.entries[last] = nil
	ts.entries = ts.entries[:last]
	ts.mu.Unlock()
	// A wake that is under way ends before the owner goes.
	t.at.Store(0)
	t.settle()
}

// settle returns when no wake is under way.
func (t *timer) settle() {
	t.mu.Lock()
	defer t.mu.Unlock()
}

// disarm returns when the owner is neither asked nor woken any more, and tells whether
// it was woken since the timer was armed. Only the owner calls it.
func (t *timer) disarm() (woken bool) {
	if t.at.Load() == 0 {
		return false // nobody else arms it
	}
	was := t.at.Swap(0)
	if was < 0 {
		t.settle()
	}
	return was == fired
}

// arm has the owner asked at a time, which is not 0. It must be disarmed. Only the owner
// calls it.
func (t *timer) arm(at int64) {
	t.at.Store(at)
	t.ts.soon(at)
}

// hasten brings an armed timer forward; anyone may call it.
func (t *timer) hasten(at int64) {
	for {
		cur, sooner := t.at.Load(), at
		switch {
		case cur == looking:
			sooner = lookAgain
		case cur <= at: // or it is not armed
			return
		}
		if t.at.CompareAndSwap(cur, sooner) {
			if sooner > 0 {
				t.ts.soon(sooner)
			}
			return
		}
	}
}

func (ts *Timers) soon(at int64) {
	if at > 0 && at < ts.wakeAt.Load() {
		select {
		case ts.kick <- struct{}{}:
		default:
		}
	}
}

func (ts *Timers) run() {
	defer panics.Contain(panics.Timer, nil, nil)
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for {
		select {
		case <-ts.done:
			return
		case <-ts.kick:
		case <-t.C:
		}
		processors.Note()
		// Whoever arms from here on either is seen by the scan or kicks: wakeAt
		// is raised before the scan starts.
		ts.wakeAt.Store(math.MaxInt64)
		now := monotonic()
		next := ts.scan(now)
		if ts.asked.Load() > 0 {
			next = min(next, ts.relieve(now))
		}
		ts.wakeAt.Store(next)
		// Armed between scan and store: look again.
		if again := ts.earliest(); again < next {
			next = again
			ts.wakeAt.Store(next)
		}
		if next == math.MaxInt64 {
			t.Reset(time.Hour)
		} else {
			t.Reset(time.Duration(max(0, next-monotonic())))
		}
	}
}

// scan fires what is due and returns when the next is.
func (ts *Timers) scan(now int64) int64 {
	next := int64(math.MaxInt64)
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, t := range ts.entries {
		at := t.at.Load()
		if at > 0 && at <= now {
			at = t.fire(at, now, timed.due)
		}
		if at > 0 {
			next = min(next, at)
		}
	}
	return next
}

func (ts *Timers) earliest() int64 {
	next := int64(math.MaxInt64)
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, t := range ts.entries {
		if at := t.at.Load(); at > 0 {
			next = min(next, at)
		}
	}
	return next
}

func (t *timer) fire(at, now int64, due func(timed, int64) (bool, int64)) (next int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// A panic is the owner's alone, and it is not asked again.
	defer panics.Contain(panics.Timer, nil, func() {
		t.at.Store(0)
		next = 0
	})
	if !t.at.CompareAndSwap(at, looking) {
		return t.at.Load()
	}
	yes, next := due(t.owner, now)
	if yes {
		next = fired
	}
	switch {
	case !t.at.CompareAndSwap(looking, next):
		// Whoever hastens it while its owner looks is not overlooked, nor where it was asked before its time.
		t.at.CompareAndSwap(lookAgain, 1)
		return t.at.Load()
	case yes:
		t.owner.wake()
	}
	return next
}

// monotonic is the time in nanoseconds since some moment.
func monotonic() int64 { return clock.Now() }

// sinceMono is how long a reading of the clock is ago.
func sinceMono(at int64) time.Duration { return time.Duration(monotonic() - at) }

// monotonicOf is the same clock's reading of a time that has one.
func monotonicOf(t time.Time) int64 { return clock.Of(t) }
