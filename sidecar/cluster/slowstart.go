package cluster

import (
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// warm has the endpoint set made again, a step later, while hosts start slowly:
// their weights are what a set was made with. c.mu is held.
func (c *Cluster) warm(s *settings, now int64) {
	if c.warming != nil {
		c.warming.Stop()
		c.warming = nil
	}
	if s.SlowStart == nil || c.removed {
		return
	}
	window := int64(s.SlowStart.Window)
	for _, h := range c.order {
		if now-h.healthySince.Load() < window {
			step := min(max(s.SlowStart.Window/50, 10*time.Millisecond), time.Second)
			c.warming = time.AfterFunc(step, func() {
				defer panics.Contain(panics.Housekeeper, nil, nil)
				c.mu.Lock()
				defer c.mu.Unlock()
				if !c.removed {
					c.rebuild()
				}
			})
			return
		}
	}
}
