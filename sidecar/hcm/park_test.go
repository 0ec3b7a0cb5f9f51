package hcm

import (
	"net"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// An idle connection gives up its goroutine, serves the next request all the same,
// and ends when it has been idle for too long or is drained.
func TestIdleConnectionIsParked(t *testing.T) {
	for name, end := range map[string]func(*downstream.Conn){
		"idle timeout": nil,
		"drain":        (*downstream.Conn).StartDrain,
		"closed":       func(d *downstream.Conn) { d.End(downstream.Ending{Reason: "test"}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.cfg.IdleTimeout = 10 * time.Minute
			if end == nil {
				b.cfg.IdleTimeout = 1500 * time.Millisecond
			}
			b.route().Forward, b.route().Direct = nil, &route.DirectResponse{Status: 200, Body: []byte("ok")}
			b.start()
			c := b.dial()
			for range 2 {
				if res, _ := c.do("GET / HTTP/1.1\r\nHost: a\r\n\r\n"); res.StatusCode != 200 {
					t.Fatalf("status %d", res.StatusCode)
				}
				waitParked(t, b)
			}
			if end != nil {
				b.mu.Lock()
				d := b.conns[0]
				b.mu.Unlock()
				end(d)
			}
			c.closed()
		})
	}
}

// A client that speaks again soon after it was parked is given more time, until it has
// been silent for that long.
func TestPatience(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.route().Forward, b.route().Direct = nil, &route.DirectResponse{Status: 200, Body: []byte("ok")}
	b.start()
	c := b.dial()
	ask := func() (returns bool, waited time.Duration) {
		_, _ = c.do("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		answered := time.Now()
		waitParked(t, b)
		waited = time.Since(answered)
		b.mu.Lock()
		defer b.mu.Unlock()
		returns = b.conns[0].Held.(*http1Conn).returns
		b.poller.Waiting() // its lock lies between this look and whoever is woken next
		return returns, waited
	}
	if returns, _ := ask(); returns {
		t.Error("it has not been parked before")
	}
	for tries := 0; ; tries++ {
		returns, waited := ask()
		if returns && waited < time.Duration(parkAfter*9/10) {
			t.Errorf("parked after %s", waited)
		}
		if returns {
			break
		}
		if tries == 10 { // this machine is slow
			t.Fatal("it is not known to return")
		}
	}
	if returns, _ := ask(); returns {
		t.Error("it was silent for long")
	}
}

func waitParked(t *testing.T, b *bed) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for tick := time.NewTicker(10 * time.Millisecond); b.poller.Waiting() != 1; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the connection keeps its goroutine")
		}
	}
}

// TestClientLeavesWhileParked: nothing remains of a connection whose client leaves while it
// has no goroutine.
func TestClientLeavesWhileParked(t *testing.T) {
	for name, leave := range map[string]func(*testClient){
		"closes": func(c *testClient) { _ = c.Close() },
		"resets": func(c *testClient) { _ = c.Conn.(*net.TCPConn).SetLinger(0); _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t).start()
			c := b.dial()
			waitParked(t, b)
			leave(c)
			<-b.finished
			b.m.timers.mu.Lock()
			defer b.m.timers.mu.Unlock()
			if n := len(b.m.timers.entries); n != 0 {
				t.Errorf("%d watchdogs are left", n)
			}
		})
	}
}
