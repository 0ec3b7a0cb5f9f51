package hcm

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// parkingClient is a client whose owner, as soon as it is interrupted, parks: it
// awaits what ends an idle connection while the wake is still under way.
type parkingClient struct {
	parks chan struct{}
	wakes atomic.Int32
}

func (c *parkingClient) interrupt() {
	close(c.parks)
	for range 100 {
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
		c := &parkingClient{parks: make(chan struct{})}
		dog.parked = c
		dog.start(ts, c)
		defer dog.stop()
		now := monotonic()
		dog.rest()
		dog.awaitRequest(now, noDeadline, 0, now+parkAfter)
		<-c.parks
		dog.awaitRequest(monotonic(), noDeadline, 0, 0)
		if n := c.wakes.Load(); n != 0 {
			t.Errorf("woken %d times", n)
		}
	})
}

// waiter is a client whose wait an interruption ends.
type waiter struct{ ended chan struct{} }

func (c *waiter) interrupt() {
	select {
	case c.ended <- struct{}{}:
	default:
	}
}

func (c *waiter) resume() {
	select {
	case <-c.ended:
	default:
	}
}

func (*waiter) gone() bool   { return false }
func (*waiter) polled() bool { return true }

// TestWatchdogBesideOthers: the owner changes what is looked for while the timers look,
// and others hasten them; no interruption of an earlier wait reaches a later one. The
// race detector looks on.
func TestWatchdogBesideOthers(t *testing.T) {
	ts := NewTimers()
	defer ts.Close()
	c := &waiter{ended: make(chan struct{}, 1)}
	var dog watchdog
	dog.parked = &parkingClient{}
	dog.start(ts, c)
	defer dog.stop()
	stop := make(chan struct{})
	var others sync.WaitGroup
	for _, act := range []func(){dog.active, dog.look, func() { dog.drain(monotonic() + int64(time.Hour)) }} {
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					act()
					runtime.Gosched()
				}
			}
		})
	}
	var other upstream = &http2Upstream{}
	for i := range 2000 {
		dog.hold(nil)
		switch now := monotonic(); i % 4 {
		case 0: // what has passed interrupts, and says why
			dog.await(now, now-1, 0, true)
			<-c.ended
			if cause := dog.cause.Load(); cause != causeHard {
				t.Fatalf("round %d: interrupted because of %d", i, cause)
			}
			dog.calm()
		case 1: // what is far does not
			dog.await(now, now+int64(time.Hour), int64(time.Hour), true)
			dog.bound(now + int64(time.Minute))
			runtime.Gosched()
			dog.calm()
			dog.hold(&other)
		case 2:
			dog.rest()
			dog.awaitRequest(now, noDeadline, 0, now)
			<-c.ended
			if cause := dog.cause.Load(); cause != causePark {
				t.Fatalf("round %d: interrupted because of %d", i, cause)
			}
			dog.calm()
			dog.waiting = false
		case 3:
			dog.await(now, now, 0, false)
			dog.calm() // perhaps it was interrupted already
		}
		select {
		case <-c.ended:
			t.Fatalf("round %d: interrupted", i)
		default:
		}
	}
	close(stop)
	others.Wait()
}

// TestWatchdogIsHastenedWhileItIsArmed: what others bring forward just then counts, also
// where nothing else would have the watchdog look for long.
func TestWatchdogIsHastenedWhileItIsArmed(t *testing.T) {
	const far = int64(math.MaxInt64 / 2) // it never fires
	for name, hasten := range map[string]func(dog *watchdog){
		"drain": func(dog *watchdog) { dog.drain(far) },
		"bound": func(dog *watchdog) { dog.bound(far) },
	} {
		t.Run(name, func(t *testing.T) {
			ts := NewTimers()
			defer ts.Close()
			var dog watchdog
			dog.start(ts, nobody{})
			defer dog.stop()
			dog.rest()
			var round, done atomic.Int32
			const rounds = 20000
			go func() {
				for i := int32(1); i <= rounds; i++ {
					spinUntil(&round, i)
					pause(i % 64)
					hasten(&dog)
					done.Store(i)
				}
			}()
			for i := int32(1); i <= rounds; i++ {
				dog.calm()
				dog.drainBy.Store(0)
				dog.hard.Store(noDeadline)
				round.Store(i)
				pause(i / 64 % 64)
				dog.idleFor(0)
				spinUntil(&done, i)
				if at := dog.timer.at.Load(); at > far && !t.Failed() {
					t.Errorf("round %d: overlooked", i)
				}
			}
		})
	}
}

// spinUntil waits without a sleep, so that both go on at the same moment.
func spinUntil(v *atomic.Int32, want int32) {
	for n := 1; v.Load() != want; n++ {
		if n%1024 == 0 {
			runtime.Gosched()
		}
	}
}

// pause takes a moment that grows with n.
func pause(n int32) {
	var sink atomic.Int32
	for range n {
		sink.Add(1)
	}
}
