package tcp

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// parkAfter is how long nothing moves before a connection gives up its goroutines:
// parkFirst, unless bytes moved again soon after it had last done so.
const (
	parkAfter = int64(time.Second / 2)
	parkFirst = int64(50 * time.Millisecond)
)

// glance is the least time between two looks at all connections.
const glance = int64(20 * time.Millisecond)

// watch is the clock of a proxy's connections. One goroutine looks at all of them
// when the earliest is due: no connection has a timer, and no byte that moves arms
// one. The goroutine lives while there are connections.
type watch struct {
	base time.Time
	step int64 // how long new connections may go unseen

	mu     sync.Mutex
	relays []*relay
	over   chan struct{}
	kick   chan struct{}
	asleep atomic.Bool // for longer than step
}

// newWatch returns the clock for connections whose shortest limit is given; 0 for
// none.
func newWatch(shortest time.Duration) *watch {
	w := &watch{base: time.Now(), step: parkFirst, kick: make(chan struct{}, 1)}
	if shortest > 0 {
		w.step = min(w.step, max(int64(shortest/4), glance))
	}
	return w
}

// now is in nanoseconds, and positive.
func (w *watch) now() int64 { return int64(time.Since(w.base)) + 1 }

func (w *watch) add(r *relay) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r.index = int32(len(w.relays))
	w.relays = append(w.relays, r)
	if len(w.relays) == 1 {
		w.over = make(chan struct{})
		go w.run(w.over)
	}
}

func (w *watch) remove(r *relay) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := len(w.relays) - 1
	w.relays[r.index] = w.relays[last]
	w.relays[r.index].index = r.index
	w.relays[last] = nil
	w.relays = w.relays[:last]
	if last == 0 {
		close(w.over)
	}
}

// stir has the goroutine look soon at connections that move again.
func (w *watch) stir() {
	if w.asleep.Swap(false) {
		select {
		case w.kick <- struct{}{}:
		default:
		}
	}
}

func (w *watch) run(over <-chan struct{}) {
	defer panics.Contain(panics.Timer, nil, nil)
	timer := time.NewTimer(time.Duration(w.step))
	defer timer.Stop()
	for {
		select {
		case <-over:
			return
		case <-w.kick:
		case <-timer.C:
		}
		wait := w.step
		panics.Guard(panics.Timer, func() { wait = w.rest(w.look()) })
		timer.Reset(time.Duration(max(glance, wait)))
	}
}

// rest is how long to sleep after a look that found nothing to do for as long as wait. From
// here on connections that move again stir; one that did so since the look, to no effect,
// is found by another.
func (w *watch) rest(wait int64) int64 {
	if wait <= w.step {
		return wait
	}
	w.asleep.Store(true)
	now := w.now()
	_, next := w.due(now)
	if wait = min(wait, next-now); wait <= w.step {
		w.asleep.Store(false)
	}
	return wait
}

// look acts on what is due, and tells how long until the next is.
func (w *watch) look() int64 {
	now := w.now()
	due, next := w.due(now)
	for _, r := range due {
		r.lookGuarded(now)
	}
	return next - now
}

// due are the relays that are to be looked at now, and when the next is.
func (w *watch) due(now int64) (due []*relay, next int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next = now + int64(time.Hour)
	for _, r := range w.relays {
		at := r.nextLook(now)
		if at <= now {
			due = append(due, r)
			at = now + w.step
		}
		next = min(next, at)
	}
	return due, next
}

// nextLook is when something is to be done about a relay.
func (r *relay) nextLook(now int64) int64 {
	if r.leftAt.Load() != 0 || r.drainAt.Load() != 0 {
		return now
	}
	last := r.last.Load()
	at := last + r.patience()
	if now >= at {
		at = now + int64(time.Hour) // parked, or being parked
		if r.running() {
			at = now
		}
	}
	if idle := int64(r.p.idle); idle > 0 {
		at = min(at, last+idle)
	}
	if r.end > 0 {
		at = min(at, r.end)
	}
	if r.moved() != r.counted.Load() {
		at = min(at, r.countAt.Load())
	}
	if f := r.flush.Load(); f > 0 {
		at = min(at, f)
	}
	return at
}

// patience is how long nothing moves before the relay is parked.
func (r *relay) patience() int64 {
	if r.returns.Load() {
		return parkAfter
	}
	return parkFirst
}

// running tells whether the relay has goroutines that could be spared.
func (r *relay) running() bool {
	if !r.parkable {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.parking && (r.toUp.running || r.down.running)
}

// moved are the bytes of both directions.
func (r *relay) moved() int64 { return r.toUp.moved.Load() + r.down.moved.Load() }

// countEvery is how often the counters get what has moved meanwhile.
const countEvery = int64(time.Second)

// count has the counters get what has moved. No byte that moves is counted by itself.
// logging is held.
func (r *relay) count(now int64) {
	up, down := r.toUp.moved.Load(), r.down.moved.Load()
	received, sent := up-r.countedUp, down-(r.counted.Load()-r.countedUp)
	if received == 0 && sent == 0 {
		return
	}
	r.countedUp = up
	r.counted.Store(up + down)
	r.countAt.Store(now + countEvery)
	r.c.PeerMetrics.Bytes(r.c.Shard, received, sent)
	r.up.Host().Cluster().Metrics().Bytes(r.c.Shard, sent, received)
}

// unlogged ends the lines at intervals: the last one, which its owner writes, is yet to
// come. The watch may still be looking at a relay that was removed.
func (r *relay) unlogged() {
	r.logging.Lock()
	defer r.logging.Unlock()
	r.count(r.p.watch.now())
	r.flush.Store(0)
}

// lookGuarded is look on the goroutine of all relays.
func (r *relay) lookGuarded(now int64) {
	defer panics.Contain(panics.Timer, r.c, r.close)
	r.look(now)
}

func (r *relay) look(now int64) {
	if r.toUp.writing.Load() || r.down.writing.Load() {
		r.acknowledged(now)
	}
	quiet := now - r.last.Load()
	switch {
	case r.end > 0 && now >= r.end:
		r.stop(telemetry.FlagDurationTimeout, endDuration)
	case r.p.idle > 0 && quiet >= int64(r.p.idle):
		r.stop(0, endIdle)
	case r.leftAt.Load() != 0:
		r.linger(now)
	case r.drainAt.Load() != 0:
		r.drained(now)
	case quiet >= r.patience() && r.parkable:
		r.quiesce()
	}
	r.logging.Lock()
	defer r.logging.Unlock()
	r.count(now)
	if f := r.flush.Load(); f > 0 && now >= f {
		r.flush.Store(now + r.p.flushEvery)
		o := r.outcome()
		r.p.log(r.c, &o, telemetry.LogConnectionPeriodic, r.toUp.moved.Load(), r.down.moved.Load())
	}
}
