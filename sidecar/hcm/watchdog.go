package hcm

import (
	"math"
	"sync/atomic"
	"time"
)

// side is one end of an exchange as its watchdog sees it: something that a
// goroutine may be waiting for.
type side interface {
	// interrupt ends whatever waits on the side with a timeout, now and until
	// resume. It may be called beside any other method.
	interrupt()
	resume()
}

// asker is the side of whoever asked: it may leave before it is answered.
type asker interface {
	side
	// gone tells whether the client has left. It may be called while another
	// goroutine reads.
	gone() bool
	// polled tells that gone has to be asked: nobody reports it.
	polled() bool
}

// watchdog interrupts the goroutine that waits for the ends of an exchange when its
// time is up, or when nobody waits for the answer any more.
type watchdog struct {
	timer  timer
	client asker
	// The timer's view: what to look for, and what it found.
	upstream   atomic.Pointer[upstream] // of the attempt, to be interrupted too
	hard       atomic.Int64             // absolute, noDeadline for none
	idleAfter  atomic.Int64             // without progress, 0 for none
	lastActive atomic.Int64
	watch      atomic.Bool // look whether the client has gone
	cause      atomic.Uint32
	waiting    atomic.Bool  // for a request
	drainBy    atomic.Int64 // when waiting ends because of a drain, 0 without one
	parkBy     atomic.Int64 // when waiting gives up its goroutine, 0 for never
	// parked is woken beside the client: nobody may be waiting at its stream.
	parked interface{ Wake() }
}

const noDeadline = math.MaxInt64

// causes of an interruption.
const (
	causeNone uint32 = iota
	causeHard
	causeIdle
	causeGone
	causePark
)

// parkAfter is how long a connection waits for a request before it gives up its
// goroutine, and with it the stack of the last one.
const parkAfter = int64(200 * time.Millisecond)

// watchEvery is how often a client is looked at that waits for an answer: cheap,
// and only slow requests pay.
const watchEvery = int64(100 * time.Millisecond)

// start registers the watchdog of a client with the timers.
func (w *watchdog) start(ts *Timers, c asker) {
	w.client = c
	w.timer.owner = w
	w.hard.Store(noDeadline)
	ts.add(&w.timer)
}

// stop ends it; no interruption is under way when it returns.
func (w *watchdog) stop() {
	w.timer.ts.remove(&w.timer)
	w.upstream.Store(nil)
}

// await arms the watchdog: hard is when waiting ends whatever happens, idle after
// how long without progress. watch looks for a client that has gone.
func (w *watchdog) await(now, hard, idle int64, watch bool) {
	w.cause.Store(causeNone)
	w.hard.Store(hard)
	w.idleAfter.Store(idle)
	w.lastActive.Store(now)
	w.watch.Store(watch)
	if w.timer.set(w.nextLook(now)) {
		w.resume()
		// A time that is over already may have fired again by now, and resume undid it.
		if w.timer.at.Load() == fired {
			w.interrupt()
		}
	}
	// A client that reports its leaving may have done so when nothing was armed.
	if watch && !w.client.polled() && w.client.gone() {
		w.look()
	}
}

// calm disarms the watchdog.
func (w *watchdog) calm() {
	if w.timer.set(0) {
		w.resume()
	}
}

// active notes progress, for the idle timeout. It reads the clock, so it is for
// bodies that come in pieces.
func (w *watchdog) active() { w.lastActive.Store(monotonic()) }

// bound replaces the hard deadline. Anyone may call it.
func (w *watchdog) bound(until int64) {
	w.hard.Store(until)
	w.timer.hasten(until)
}

// look has the watchdog look at the client at once. Anyone may call it.
func (w *watchdog) look() { w.timer.hasten(1) }

// nextLook is when there is something to look for by itself. It is a time also where
// that is never: who is not armed cannot be hastened.
func (w *watchdog) nextLook(now int64) int64 {
	next := w.hard.Load()
	if idle := w.idleAfter.Load(); idle > 0 {
		next = min(next, w.lastActive.Load()+idle)
	}
	if w.watch.Load() && w.client.polled() {
		next = min(next, now+watchEvery)
	}
	if w.waiting.Load() {
		if by := w.drainBy.Load(); by > 0 {
			next = min(next, by)
		}
		if by := w.parkBy.Load(); by > 0 {
			next = min(next, by)
		}
	}
	return max(next, 1)
}

// due implements timed.
func (w *watchdog) due(now int64) (bool, int64) {
	switch idle := w.idleAfter.Load(); {
	case now >= w.hard.Load():
		w.cause.Store(causeHard)
	case idle > 0 && now >= w.lastActive.Load()+idle:
		w.cause.Store(causeIdle)
	case w.waiting.Load() && w.drainBy.Load() > 0 && now >= w.drainBy.Load():
		w.cause.Store(causeIdle)
	case w.waiting.Load() && w.parkBy.Load() > 0 && now >= w.parkBy.Load():
		w.cause.Store(causePark)
	case w.watch.Load() && w.client.gone():
		w.cause.Store(causeGone)
	default:
		return false, w.nextLook(now)
	}
	return true, 0
}

// wake implements timed: whatever the owner waits for ends with a timeout.
func (w *watchdog) wake() {
	parks := w.cause.Load() == causePark // once interrupted, the owner awaits anew and clears it
	w.interrupt()
	if w.parked != nil && !parks {
		w.parked.Wake()
	}
}

func (w *watchdog) interrupt() {
	w.client.interrupt()
	if up := w.upstream.Load(); up != nil {
		(*up).interrupt()
	}
}

// resume undoes a wake.
func (w *watchdog) resume() {
	w.client.resume()
	if up := w.upstream.Load(); up != nil {
		(*up).resume()
	}
}

// drain gives a connection that waits for a request a moment, so that one on its
// way is not lost.
func (w *watchdog) drain(by int64) {
	w.endBy(by)
	w.timer.hasten(by)
}

// endBy has waiting for a request end at a time, or earlier.
func (w *watchdog) endBy(by int64) {
	for {
		cur := w.drainBy.Load()
		if cur > 0 && cur <= by || w.drainBy.CompareAndSwap(cur, by) {
			return
		}
	}
}

// idle replaces the idle timeout, from now on.
func (w *watchdog) idle(after int64) {
	now := monotonic()
	w.lastActive.Store(now)
	w.idleAfter.Store(after)
	if after > 0 {
		w.timer.hasten(now + after)
	}
}

// drainGrace is how long a connection may be idle once a drain has begun: a request
// that is on its way already is still answered, with Connection: close.
const drainGrace = time.Second
