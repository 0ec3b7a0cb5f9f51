package hcm

import (
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/processors"
)

// alarm is an owner that counts its wakes.
type alarm struct {
	until atomic.Int64
	woken atomic.Int32
}

func (a *alarm) due(now int64) (bool, int64) { return now >= a.until.Load(), a.until.Load() }
func (a *alarm) wake()                       { a.woken.Add(1) }

func TestTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := NewTimers()
		defer ts.Close()
		a, b := &alarm{}, &alarm{}
		ta, tb := &timer{owner: a}, &timer{owner: b}
		ts.add(ta)
		ts.add(tb)
		arm := func(tm *timer, d time.Duration) bool {
			at := monotonic() + int64(d)
			tm.owner.(*alarm).until.Store(at)
			woken := tm.disarm()
			tm.arm(at)
			return woken
		}
		arm(ta, time.Hour)
		arm(tb, 50*time.Millisecond)
		time.Sleep(49 * time.Millisecond)
		synctest.Wait()
		if b.woken.Load() != 0 {
			t.Error("woken before its time")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if b.woken.Load() != 1 || a.woken.Load() != 0 {
			t.Errorf("woken %d and %d times", b.woken.Load(), a.woken.Load())
		}
		if !arm(tb, time.Hour) || arm(tb, time.Hour) {
			t.Error("the owner was not told, or told twice, that it fired")
		}
		// What the owner put off does not wake it; what is brought forward does.
		arm(ta, 10*time.Millisecond)
		a.until.Store(monotonic() + int64(time.Second))
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if a.woken.Load() != 0 {
			t.Error("woken though it was put off")
		}
		soon := monotonic() + int64(20*time.Millisecond)
		b.until.Store(soon)
		tb.hasten(soon)
		time.Sleep(30 * time.Millisecond)
		synctest.Wait()
		if b.woken.Load() != 2 {
			t.Error("brought forward and not woken")
		}
		arm(ta, 10*time.Millisecond)
		ta.disarm()
		ts.remove(ta)
		time.Sleep(time.Second)
		synctest.Wait()
		if a.woken.Load() != 0 {
			t.Error("disarmed and woken")
		}
		ts.remove(tb)
	})
}

// left is a client that reports by itself that it has left.
type left struct {
	nobody
	away        atomic.Bool
	interrupted chan struct{}
}

func (l *left) gone() bool { return l.away.Load() }
func (l *left) interrupt() { close(l.interrupted) }

// watched waits for c without a timeout of its own, or with a far one.
func watched(t *testing.T, hard int64, test func(dog *watchdog, c *left)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ts := NewTimers()
		defer ts.Close()
		c := &left{interrupted: make(chan struct{})}
		var dog watchdog
		dog.start(ts, c)
		defer dog.stop()
		began := time.Now()
		test(&dog, c)
		synctest.Wait()
		select {
		case <-c.interrupted:
		case <-time.After(time.Minute):
			t.Fatalf("hard %d: overlooked", hard)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("hard %d: noticed after %v", hard, took)
		}
	})
}

// A client that left when nothing was armed is noticed by whoever waits next, one that
// leaves later at once, and a deadline that is brought forward counts: also where there
// was none.
func TestWatchdogIsHastened(t *testing.T) {
	for _, hard := range []int64{noDeadline, monotonic() + int64(24*time.Hour)} {
		watched(t, hard, func(dog *watchdog, c *left) {
			c.away.Store(true)
			dog.await(monotonic(), hard, 0, true)
		})
		watched(t, hard, func(dog *watchdog, c *left) {
			dog.await(monotonic(), hard, 0, true)
			synctest.Wait()
			c.away.Store(true)
			dog.look()
		})
		watched(t, hard, func(dog *watchdog, c *left) {
			dog.await(monotonic(), hard, 0, false)
			synctest.Wait()
			dog.look() // in vain: nobody has left
			synctest.Wait()
			dog.bound(monotonic() + int64(time.Second))
		})
		watched(t, hard, func(dog *watchdog, c *left) {
			dog.await(monotonic(), hard, 0, false)
			dog.idleFor(int64(time.Second))
		})
	}
}

// eager is hastened while it looks whether it is due.
type eager struct {
	t     *timer
	looks int
	woken chan struct{}
}

func (e *eager) due(now int64) (bool, int64) {
	e.looks++
	if e.looks == 1 {
		e.t.hasten(1)
	}
	return e.looks > 1, now + int64(time.Hour)
}

func (e *eager) wake() { close(e.woken) }

func TestTimerHastenedWhileItLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := NewTimers()
		defer ts.Close()
		e := &eager{t: &timer{}, woken: make(chan struct{})}
		e.t.owner = e
		ts.add(e.t)
		defer ts.remove(e.t)
		began := time.Now()
		e.t.arm(1)
		<-e.woken
		if took := time.Since(began); took > time.Second {
			t.Errorf("overlooked for %v", took)
		}
	})
}

// TestProcessorsAreFollowed: the runtime changes how many there are while it runs.
func TestProcessorsAreFollowed(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	synctest.Test(t, func(t *testing.T) {
		ts := NewTimers()
		defer ts.Close()
		a := &timer{owner: &alarm{}}
		ts.add(a)
		for n := 1; n <= 2; n++ {
			runtime.GOMAXPROCS(n)
			a.disarm()
			a.arm(monotonic() + int64(time.Second))
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if one := processors.One(); one != (n == 1) {
				t.Errorf("with %d: %v", n, one)
			}
		}
	})
}
