package workloadapi

import (
	"testing"
	"time"
)

// TestDiscoveryStreamsOfOneUser: who opens streams and closes them leaves the host's other users
// what the control plane admits of it.
func TestDiscoveryStreamsOfOneUser(t *testing.T) {
	u, now := newUsage(Limits{}, func(int) {}), time.Now()
	opens := func(uid uint32) (n int) {
		for range 10 * openBurst {
			if u.discover(uid, now) == nil {
				n++
			}
		}
		return n
	}
	for uid := range uint32(2) {
		if n := opens(uid); n != openBurst {
			t.Errorf("user %d opens %d at once", uid, n)
		}
	}
	now = now.Add(2 * time.Second)
	if n := opens(0); n != 2*opensPerSecond {
		t.Errorf("%d in two seconds", n)
	}
	for uid := range uint32(3 * maxOpened) {
		_ = u.discover(uid, now)
		now = now.Add(time.Second)
	}
	if n := len(u.opened); n > maxOpened {
		t.Errorf("%d users are remembered", n)
	}
}
