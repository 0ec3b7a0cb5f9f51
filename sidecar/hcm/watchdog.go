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
	// goroutine reads, as far as the watchdog was told of that.
	gone() bool
	// polled tells that gone has to be asked: nobody reports it.
	polled() bool
}

// watchdog interrupts the goroutine that waits for the ends of an exchange when its
// time is up, or when nobody waits for the answer any more.
//
// What is not atomic the owner changes while the timer is disarmed, which is when nobody
// looks. To arm it is one store, and most of an exchange's waits never come: who waits
// for the client arms it when there is nothing to read, or no room to write.
type watchdog struct {
	timer    timer
	client   asker
	upstream *upstream    // of the attempt, to be interrupted too; nil for none
	hard     atomic.Int64 // absolute, noDeadline for none
	// Without progress since both it ends after idleAfter, 0 for never.
	idleAfter atomic.Int64
	since     int64
	progress  atomic.Int64
	drainBy   atomic.Int64 // when waiting for a request ends because of a drain, 0 without one
	parkBy    int64        // when that gives up its goroutine, 0 for never
	cause     finding
	waiting   bool  // for a request
	over      bool  // or for the end of the connection
	watch     bool  // look whether the client has gone
	polled    bool  // because it does not tell
	pace      *pace // of a body that is read from the client, nil for any; the timer is disarmed when it changes
	// streamIdle is the idle timeout that an overload reduces, 0 for none, and below 0 that of a flush; the
	// timer is disarmed when it changes.
	streamIdle int64
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
	causeSlow
)

// finding is why a watchdog interrupted its owner, and in the same word whether all of the request was
// read: then nobody reads from the client, until the watchdog is told that there is more.
type finding struct{ word atomic.Uint32 }

const requestWhole = 1 << 8

// Load tells the cause.
func (f *finding) Load() uint32 { return f.word.Load() &^ requestWhole }

// Store sets the cause.
func (f *finding) Store(cause uint32) {
	f.word.And(requestWhole)
	f.word.Or(cause)
}

// noteWhole notes whether all of the request was read. Whoever reads it may call this.
func (w *watchdog) noteWhole(whole bool) {
	switch noted := w.whole(); { // to store it costs more
	case whole && !noted:
		w.cause.word.Or(requestWhole)
	case noted && !whole:
		w.cause.word.And(^uint32(requestWhole))
	}
}

// whole tells whether nobody reads from the client, as far as is known.
func (w *watchdog) whole() bool { return w.cause.word.Load()&requestWhole != 0 }

// parkAfter is how long a connection waits for a request before it gives up its
// goroutine, and with it the stack of the last one.
const parkAfter = int64(200 * time.Millisecond)

// watchEvery is how often a client is looked at that waits for an answer: cheap,
// and only slow requests pay.
const watchEvery = int64(100 * time.Millisecond)

// start registers the watchdog of a client with the timers.
func (w *watchdog) start(ts *Timers, c asker) {
	w.client, w.polled = c, c.polled()
	w.timer.owner, w.pace = w, nil
	w.hard.Store(noDeadline)
	ts.add(&w.timer)
}

// stop ends it; no interruption is under way when it returns.
func (w *watchdog) stop() {
	w.timer.ts.remove(&w.timer)
	w.upstream = nil
}

// await arms the watchdog: hard is when waiting ends whatever happens, idle after
// how long without progress. watch looks for a client that has gone.
func (w *watchdog) await(now, hard, idle int64, watch bool) {
	w.calm()
	w.forget()
	if w.hard.Load() != hard {
		w.hard.Store(hard)
	}
	w.setIdle(idle)
	w.since, w.watch = now, watch
	if w.pace != nil {
		w.pace.since.Store(now) // what was before is not the client's
	}
	w.arm(now)
}

// arm sets the timer. Others cannot hasten it before that: what they brought forward just
// then, or a client that reports its leaving and has left, is looked for after it.
func (w *watchdog) arm(now int64) {
	next := w.nextLook(now)
	w.timer.arm(next)
	if sooner := w.nextLook(now); sooner < next {
		w.timer.hasten(sooner)
	}
	if w.watch && !w.polled && w.client.gone() {
		w.look()
	}
}

// calm disarms the watchdog.
func (w *watchdog) calm() {
	if w.timer.disarm() {
		w.resume()
	}
}

// armed tells the owner whether something is looked for, or was found.
func (w *watchdog) armed() bool { return w.timer.at.Load() != 0 }

// firing tells the owner whether it was woken, or may be about to be.
func (w *watchdog) firing() bool { return w.timer.at.Load() < 0 }

// rest begins the time between requests.
func (w *watchdog) rest() {
	w.calm()
	w.waiting = true
	w.forget()
}

// awaitRequest arms the watchdog of a connection that rests since a time: until by, and with a
// goroutine until parkBy. idle is what an overload reduces, 0 for nothing.
func (w *watchdog) awaitRequest(since, by, idle, parkBy int64) {
	w.calm()
	w.parkBy = parkBy
	w.await(since, by, idle, false)
}

// forget forgets the cause of an interruption.
func (w *watchdog) forget() {
	if w.cause.Load() != causeNone { // to store it costs more
		w.cause.Store(causeNone)
	}
}

// hold has u interrupted too from the next wait on; nil forgets whom it had.
func (w *watchdog) hold(u *upstream) {
	w.calm()
	w.upstream = u
}

// active notes progress, for the idle timeout. It reads the clock, so it is for
// bodies that come in pieces.
func (w *watchdog) active() { w.activeAt(monotonic()) }

// activeAt is active for who has read the clock.
func (w *watchdog) activeAt(now int64) { w.progress.Store(now) }

// lastActive is when there was progress, as far as is known.
func (w *watchdog) lastActive() int64 { return max(w.since, w.progress.Load()) }

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
	if idle := w.idle(); idle > 0 {
		next = min(next, w.lastActive()+idle)
	}
	if w.watch && w.polled {
		next = min(next, now+watchEvery)
	}
	if w.pace != nil {
		next = min(next, w.nextPace(now))
	}
	if w.waiting {
		if by := w.endsBy(); by > 0 {
			next = min(next, by)
		}
		if w.parkBy > 0 {
			next = min(next, w.parkBy)
		}
	}
	return max(next, 1)
}

// due implements timed.
func (w *watchdog) due(now int64) (bool, int64) {
	switch {
	case now >= w.hard.Load():
		w.cause.Store(causeHard)
	case w.tooIdle(now):
		w.cause.Store(causeIdle)
	case w.waiting && w.endsBy() > 0 && now >= w.endsBy():
		w.cause.Store(causeIdle)
	case w.waiting && w.parkBy > 0 && now >= w.parkBy:
		w.cause.Store(causePark)
	case w.watch && w.client.gone():
		w.cause.Store(causeGone)
	case w.pace != nil && w.tooSlow(now):
		w.cause.Store(causeSlow)
	default:
		return false, w.nextLook(now)
	}
	return true, 0
}

// wake implements timed: whatever the owner waits for ends with a timeout.
func (w *watchdog) wake() {
	w.interrupt()
	if w.parked != nil && w.cause.Load() != causePark {
		w.parked.Wake()
	}
}

func (w *watchdog) interrupt() {
	w.client.interrupt()
	if up := w.upstream; up != nil {
		(*up).interrupt()
	}
}

// resume undoes a wake.
func (w *watchdog) resume() {
	w.client.resume()
	if up := w.upstream; up != nil {
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

// tooIdle tells whether nothing has moved for too long.
func (w *watchdog) tooIdle(now int64) bool {
	idle := w.idle()
	return idle > 0 && now >= w.lastActive()+idle
}

func (w *watchdog) setIdle(after int64) {
	if w.idleAfter.Load() != after { // to store it costs more
		w.idleAfter.Store(after)
	}
}

// idleWithin shortens the idle timeout, from now on. Anyone may call it.
func (w *watchdog) idleWithin(now, after int64) {
	w.activeAt(now)
	w.idleAfter.Store(after)
	w.timer.hasten(now + after)
}

// idleFor replaces the idle timeout, from now on. The hard deadline is not touched: a pump may
// just be setting it.
func (w *watchdog) idleFor(after int64) {
	w.calm()
	w.forget()
	now := monotonic()
	w.setIdle(after)
	w.since = now
	w.arm(now)
}

// drainGrace is how long a connection may be idle once a drain has begun: a request
// that is on its way already is still answered, with Connection: close.
const drainGrace = time.Second
