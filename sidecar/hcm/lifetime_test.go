package hcm

import (
	"testing"
	"time"
)

// TestDrainWait: connections that drain together end at different times, within the jitter and all
// over it.
func TestDrainWait(t *testing.T) {
	m := &Manager{cfg: &Config{}, drainGrace: int64(10 * time.Second)}
	m.cfg.DrainJitter = 50
	least, most := time.Hour, time.Duration(0)
	for range 1000 {
		d := time.Duration(m.drainWait())
		least, most = min(least, d), max(most, d)
	}
	if least < 10*time.Second || least > 11*time.Second || most < 14*time.Second || most > 15*time.Second {
		t.Errorf("from %v to %v", least, most)
	}
	m.cfg = &Config{}
	if d := time.Duration(m.drainWait()); d != 10*time.Second {
		t.Errorf("%v without any", d)
	}
}
