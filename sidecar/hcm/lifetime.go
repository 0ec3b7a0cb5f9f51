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
	return begin + most + int64(rand.Float64()*m.cfg.MaxConnectionJitter/100*float64(most))
}
