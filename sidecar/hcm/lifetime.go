package hcm

import (
	"math/rand/v2"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
)

// expiry is when a connection is to take no more requests, 0 for never.
func (m *Manager) expiry(d *downstream.Conn) int64 {
	most := int64(m.cfg.MaxConnectionDuration)
	if most <= 0 {
		return 0
	}
	begin := monotonic()
	if !d.Accepted.IsZero() {
		begin = monotonicOf(d.Accepted)
	}
	return begin + jittered(most, m.cfg.MaxConnectionJitter)
}

// drainWait is how long a connection may be idle once it drains.
func (m *Manager) drainWait() int64 { return jittered(m.drainGrace, m.cfg.DrainJitter) }

// jittered adds up to so many percent by chance.
func jittered(d int64, percent float64) int64 {
	if percent <= 0 {
		return d
	}
	return d + int64(rand.Float64()*percent/100*float64(d))
}
