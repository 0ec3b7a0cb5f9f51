package hcm

import (
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// connection is a timer's owner that belongs to a downstream connection.
type connection interface {
	// requestsActive tells whose connection it is, and how many requests it has under way. It
	// is called like timed's methods, or while the timer is disarmed: then armed is false.
	requestsActive(armed bool) (*downstream.Conn, int64)
}

// requestsActive implements connection. Whoever waits for a request has armed the watchdog
// before; while it is disarmed there is one, or it was just answered.
func (w *watchdog) requestsActive(armed bool) (*downstream.Conn, int64) {
	c, ok := w.client.(*http1Conn)
	switch {
	case !ok:
		return nil, 0 // a stream of HTTP/2, which its connection counts
	case armed && (w.waiting || w.over):
		return c.d, 0
	}
	return c.d, 1
}

// requestsActive implements connection.
func (c *http2Conn) requestsActive(bool) (*downstream.Conn, int64) { return c.d, c.active.Load() }

// Expose shows the requests that are under way, which are counted when they are looked at, and the connections that
// made room.
func (ts *Timers) Expose(m *telemetry.Metrics) {
	ts.madeRoom = func() { m.MadeRoom.With("listeners").Inc(0) }
	type key struct{ direction, service string }
	m.RequestsActive.Collect(func(emit func(value float64, labels ...string)) {
		active := map[key]int64{}
		ts.mu.Lock()
		for _, t := range ts.entries {
			c, ok := t.owner.(connection)
			if !ok {
				continue
			}
			if d, n := t.count(c); n > 0 {
				active[key{d.Direction.String(), d.Service}] += n
			}
		}
		ts.mu.Unlock()
		for k, n := range active {
			emit(float64(n), k.direction, k.service)
		}
	})
}

// count asks the owner as fire does: it cannot disarm the timer meanwhile.
func (t *timer) count(c connection) (d *downstream.Conn, n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		at := t.at.Load()
		if at <= 0 || !t.at.CompareAndSwap(at, looking) {
			if at > 0 {
				continue
			}
			return c.requestsActive(false)
		}
		d, n = c.requestsActive(true)
		if !t.at.CompareAndSwap(looking, at) && t.at.CompareAndSwap(lookAgain, 1) {
			t.ts.soon(1) // it was hastened meanwhile
		}
		return d, n
	}
}
