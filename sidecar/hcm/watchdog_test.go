package hcm

import (
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// parkingClient is a client whose owner, as soon as it is interrupted, parks: it
// awaits what ends an idle connection while the wake is still under way.
type parkingClient struct {
	dog   *watchdog
	parks chan struct{}
	wakes atomic.Int32
}

func (c *parkingClient) interrupt() {
	close(c.parks)
	for c.dog.cause.Load() != causeNone {
		runtime.Gosched()
	}
}
func (*parkingClient) resume()      {}
func (*parkingClient) gone() bool   { return false }
func (*parkingClient) polled() bool { return false }

func (c *parkingClient) Wake() { c.wakes.Add(1) }

// TestParkingIsNotWoken: the interruption that has an idle connection parked does
// not wake it, however fast its owner is.
func TestParkingIsNotWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := NewTimers()
		defer ts.Close()
		var dog watchdog
		c := &parkingClient{dog: &dog, parks: make(chan struct{})}
		dog.parked = c
		dog.start(ts, c)
		defer dog.stop()
		now := monotonic()
		dog.waiting.Store(true)
		dog.parkBy.Store(now + parkAfter)
		dog.await(now, noDeadline, 0, false)
		<-c.parks
		dog.parkBy.Store(0)
		dog.await(monotonic(), noDeadline, 0, false)
		if n := c.wakes.Load(); n != 0 {
			t.Errorf("woken %d times", n)
		}
	})
}
