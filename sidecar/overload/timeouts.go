package overload

import (
	"slices"
	"time"
)

// Timeout is a kind of those that ReduceTimeouts reduces.
type Timeout uint8

// The timeouts.
const (
	// ConnectionIdle is a connection's without a request.
	ConnectionIdle Timeout = iota
	// StreamIdle is a request's on which nothing moves.
	StreamIdle
	// Handshake is that of a transport socket's handshake.
	Handshake
	// ConnectionMax is how long a connection takes requests.
	ConnectionMax
	// StreamFlush is that of an answer's end, for which nothing but its client is waited.
	StreamFlush
	// Timeouts is how many there are.
	Timeouts
)

// Least is what is left of a timeout when it is reduced altogether: a time, or else a share of what
// it is otherwise.
type Least struct {
	Absolute bool
	Time     time.Duration
	Share    float64
}

// Reducer tells how long timeouts are just now. A nil one reduces none.
type Reducer struct {
	least   [Timeouts]*Least
	signals *Signals
}

// Reducer is what reduces timeouts, nil where nothing does. As in Envoy no listener is exempt.
func (m *Manager) Reducer() *Reducer {
	if m == nil || !slices.ContainsFunc(m.cfg.Actions, func(a Action) bool { return a.Kind == ReduceTimeouts }) {
		return nil
	}
	return &Reducer{m.cfg.Timeouts, &m.signals}
}

// Reduces tells whether it may ever reduce a timeout.
func (r *Reducer) Reduces(t Timeout) bool { return r != nil && r.least[t] != nil }

// Reduce is what is left of a timeout of so many nanoseconds. It may change at any time.
func (r *Reducer) Reduce(t Timeout, full int64) int64 {
	if !r.Reduces(t) {
		return full
	}
	share := r.signals.shares[ReduceTimeouts].Load()
	if share == 0 {
		return full
	}
	l := r.least[t]
	least := int64(l.Time)
	if !l.Absolute {
		least = int64(l.Share * float64(full))
	}
	least = min(least, full)
	if share == saturated {
		return least
	}
	return full - int64(float64(full-least)*float64(share)/saturated)
}
