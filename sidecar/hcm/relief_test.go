package hcm

import (
	"bufio"
	"cmp"
	"io"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestIdleConnectionsMakeRoom: the longest idle end first, some at a time; who is busy, or was just now, stays.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := NewTimers()
		defer ts.Close()
		const idle, asks, expected = 20, 8, 8 * relievedEach
		ended := func(c *waiter) bool {
			select {
			case <-c.ended:
				return true
			default:
				return false
			}
		}
		add := func(rests bool) *waiter {
			c, dog := &waiter{make(chan struct{}, 1)}, &watchdog{}
			dog.start(ts, c)
			t.Cleanup(dog.stop)
			now := monotonic()
			if rests {
				dog.rest()
				dog.awaitRequest(now, noDeadline, 0, 0)
			} else {
				dog.await(now, noDeadline, int64(time.Hour), false)
			}
			return c
		}
		busy := add(false)
		var resting []*waiter
		for range idle {
			resting = append(resting, add(true))
			time.Sleep(time.Second)
		}
		time.Sleep(5 * time.Second)
		young := add(true)
		relieve := func() (n int) {
			for range asks {
				ts.Relieve()
			}
			time.Sleep(someLooks)
			synctest.Wait()
			last := true
			for i, c := range resting {
				yes := ended(c)
				if c == nil {
					continue
				}
				if yes && !last && i > 0 {
					t.Errorf("connection %d ended before an older one", i)
				}
				if last = yes; yes {
					n++
				}
			}
			return n
		}
		if n := relieve(); n != expected {
			t.Errorf("%d made room", n)
		}
		resting = resting[expected:]
		if n := relieve(); n != idle-expected {
			t.Errorf("%d made room after these", n)
		}
		resting = nil
		relieve()
		if ended(busy) || ended(young) {
			t.Error("one that is busy, or was just now, made room")
		}
		time.Sleep(5 * time.Second)
		relieve()
		if !ended(young) {
			t.Error("one that was idle for long enough stays")
		}
	})
}

const someLooks = 2 * time.Duration(relieveAtMost)

// TestIdleClientsMakeRoom: of both versions, of HTTP/2 after a GOAWAY.
func TestIdleClientsMakeRoom(t *testing.T) {
	bothInBubbles(t, func(t *testing.T, version int) {
		b := versionedBed(t, version, 1, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
		b.start()
		b.m.timers.Expose(b.metrics)
		client := b.httpClient(version)
		get := func() {
			resp, err := client.Get("http://" + b.addr + "/")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, bufio.NewReader(resp.Body))
			_ = resp.Body.Close()
		}
		get()
		time.Sleep(time.Minute + time.Millisecond) // without a poller it is taken up and parked again, just at the minute
		open := func() int {
			b.m.timers.mu.Lock()
			defer b.m.timers.mu.Unlock()
			return len(b.m.timers.entries)
		}
		before := open()
		for range before {
			b.m.timers.Relieve()
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if after := open(); before == 0 || after != 0 {
			t.Errorf("%d connections before, %d after", before, after)
		}
		if !b.metric(`hauberk_connections_made_room_total{where="listeners"} 1`) {
			t.Error("it is not counted")
		}
		b.exempt = true
		get()
		time.Sleep(time.Minute + time.Millisecond)
		before = open()
		b.m.timers.Relieve()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if after := open(); before == 0 || after != before {
			t.Errorf("%d connections of who is exempt before, %d after", before, after)
		}
		get()
	})
}

// drainedMeanwhile is a connection that is drained just when it is asked to make room.
type drainedMeanwhile struct {
	timer timer
	by    int64
	woken chan struct{}
}

func (c *drainedMeanwhile) due(now int64) (bool, int64) {
	if c.by > 0 {
		return now >= c.by, c.by
	}
	return false, now + int64(time.Hour)
}

func (c *drainedMeanwhile) wake() { close(c.woken) }

func (*drainedMeanwhile) idleSince() (int64, bool) { return 1, true }

func (c *drainedMeanwhile) yield() bool {
	c.by = monotonic() + int64(time.Second)
	c.timer.hasten(c.by)
	return true
}

// TestDrainMeetsRelief: a drain that comes while a connection is asked to make room is not forgotten.
func TestDrainMeetsRelief(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Minute)
		ts := NewTimers()
		defer ts.Close()
		c := &drainedMeanwhile{woken: make(chan struct{})}
		c.timer.owner = c
		ts.add(&c.timer)
		defer ts.remove(&c.timer)
		c.timer.arm(monotonic() + int64(time.Hour))
		ts.Relieve()
		began := time.Now()
		<-c.woken
		if took := time.Since(began); took > time.Minute {
			t.Errorf("it ended after %v", took)
		}
	})
}

// TestRoomForMany: of more than are looked at in a go the longest idle make room, at the most two for one that
// comes, and those that came meanwhile in the next go.
func TestRoomForMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Hour)
		ts := NewTimers()
		defer ts.Close()
		const n, asks = 3*relievePiece + 7, relievedFirst
		now := monotonic()
		conns := make([]*restsSince, n)
		for i := range conns {
			c := &restsSince{since: now - idleLeast - int64(i*7919%n)}
			conns[i] = c
			c.timer.owner = c
			ts.add(&c.timer)
			defer ts.remove(&c.timer)
			c.timer.arm(noDeadline)
		}
		slices.SortFunc(conns, func(a, b *restsSince) int { return cmp.Compare(a.since, b.since) })
		for round := range 2 {
			for range asks {
				ts.Relieve()
			}
			time.Sleep(someLooks)
			synctest.Wait()
			for i, c := range conns {
				if want := i < relievedEach*asks*(round+1); c.woken != want {
					t.Fatalf("round %d, number %d: %v", round, i, c.woken)
				}
			}
		}
	})
}

// restsSince is a connection that is idle.
type restsSince struct {
	timer timer
	since int64
	woken bool
}

func (*restsSince) due(int64) (bool, int64) { return false, noDeadline }

func (c *restsSince) wake() { c.woken = true }

func (c *restsSince) idleSince() (int64, bool) { return c.since, true }

func (*restsSince) yield() bool { return true }
