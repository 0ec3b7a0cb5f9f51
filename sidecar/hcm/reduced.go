package hcm

import (
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
)

// An overload may reduce how long clients are waited for (reduce_timeouts). As in Envoy what waits already
// has what is left of its time at each moment: nothing is settled when a wait begins.

func (m *Manager) reduce(t overload.Timeout, full int64) int64 {
	return m.timers.reducer.Reduce(t, full)
}

// reducedExpiry is when a connection that was to take requests until a time takes no more of them.
func (m *Manager) reducedExpiry(d *downstream.Conn, expires int64) int64 {
	if m.timers.reducer == nil || d.Accepted.IsZero() {
		return expires
	}
	begin := monotonicOf(d.Accepted)
	return begin + m.reduce(overload.ConnectionMax, expires-begin)
}

// idle is how long nothing may move, 0 for ever.
func (w *watchdog) idle() int64 {
	idle := w.idleAfter.Load()
	if ts := w.timer.ts; ts != nil && ts.reducer != nil && idle > 0 {
		return w.reduced(ts.reducer, idle)
	}
	return idle
}

// reduced is what is left of an idle timeout. An attempt's own, which is for the host, stays what it is.
func (w *watchdog) reduced(r *overload.Reducer, idle int64) int64 {
	switch {
	case w.waiting:
		return r.Reduce(overload.ConnectionIdle, idle)
	case w.streamIdle < 0:
		return min(idle, r.Reduce(overload.StreamFlush, -w.streamIdle))
	case w.streamIdle > 0:
		return min(idle, r.Reduce(overload.StreamIdle, w.streamIdle))
	}
	return idle
}

// noteIdle settles which idle timeout is reduced, once it is known or another one.
func (x *exchange) noteIdle() {
	if x.m.timers.reducer != nil && x.dog != nil {
		x.dog.calm()
		x.dog.streamIdle = x.idleTimeout()
	}
}

// flushIdle: what is left is to flush an answer, which as in Envoy has a time of its own, and an overload
// reduces that one by itself.
func (x *exchange) flushIdle(r *overload.Reducer, flush int64) {
	w := x.dog
	if !r.Reduces(overload.StreamFlush) {
		flush = 0
	}
	if w == nil || w.streamIdle == -flush || w.cause.Load() != causeNone {
		return // or its time was up: nobody is waited for any more
	}
	armed := w.armed()
	w.calm()
	w.streamIdle = -flush
	if armed {
		w.arm(monotonic())
	}
}

// expirer is a client whose connection has a time to live.
type expirer interface {
	// endsBy is when waiting for another request ends because of it, 0 for never.
	endsBy() int64
}

// endsBy is when waiting for a request ends, because of a drain or of the connection's age, 0 for never.
func (w *watchdog) endsBy() int64 {
	by := w.drainBy.Load()
	if ts := w.timer.ts; ts != nil && ts.reducer != nil {
		if e, ok := w.client.(expirer); ok {
			if own := e.endsBy(); own > 0 && (by == 0 || own < by) {
				return own
			}
		}
	}
	return by
}

// endsBy implements expirer.
func (c *http1Conn) endsBy() int64 {
	if c.expires == 0 || c.m.cfg.SafeMaxDuration {
		return 0
	}
	return c.m.reducedExpiry(c.d, c.expires) + c.m.drainGrace
}

// awaitRequest has the watchdog look after a connection that rests, and with a goroutine until parkBy.
func (c *http1Conn) awaitRequest(parkBy int64) {
	idle := int64(0)
	if c.m.timers.reducer != nil {
		idle = c.m.idle
	}
	c.dog.awaitRequest(c.idleBy-c.restFor(), c.idleBy, idle, parkBy)
}
