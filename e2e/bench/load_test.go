package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestScheduleHasARequest: the slowest contender may answer so seldom that half of its rate
// is less than one request in the time of the open loop, which measures all the same.
func TestScheduleHasARequest(t *testing.T) {
	for _, c := range []struct {
		rate float64
		want int
	}{{7, 1}, {10, 1}, {25, 2}} {
		s, got := newSchedule(c.rate, 100*time.Millisecond), 0
		for _, more := s.next(); more; _, more = s.next() {
			got++
		}
		if got != c.want {
			t.Errorf("%g a second for 100 ms: %d requests, want %d", c.rate, got, c.want)
		}
	}
}

// TestOpenTime: slow contenders are asked for longer, not for ever.
func TestOpenTime(t *testing.T) {
	for rate, want := range map[float64]time.Duration{5000: 400, 500: 400, 250: 800, 125: 1600, 10: 1600} {
		if got := openTime(400*time.Millisecond, rate); got != want*time.Millisecond {
			t.Errorf("at %g a second: %v, want %d ms", rate, got, want)
		}
	}
}

// slowLane takes its time, and tells how many exchanges are under way.
type slowLane struct {
	underWay *atomic.Int64
	wait     func()
}

func (l slowLane) dial(target) (lane, error) { return l, nil }
func (l slowLane) Close() error              { return nil }
func (l slowLane) exchange() error {
	l.underWay.Add(1)
	defer l.underWay.Add(-1)
	l.wait()
	return nil
}

// TestMeasuredExchangesAreWhole: the clocks are read when nothing is under way, and the rate
// is of the time that all of what counts took.
func TestMeasuredExchangesAreWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := slowLane{new(atomic.Int64), func() { time.Sleep(400 * time.Millisecond) }}
		measured := 0
		r, err := closedLanes(l, target{}, 3, time.Second, time.Second, func(bool) {
			if n := l.underWay.Load(); n != 0 {
				t.Errorf("%d exchanges are under way", n)
			}
			measured++
		})
		if err != nil || measured != 2 || r.done != 9 || r.took != 1200*time.Millisecond {
			t.Errorf("%+v, %v, measured %d times", r, err, measured)
		}
	})
}

// TestEveryLoadChecksItsAnswers: one byte of an answer that is another is a failure.
func TestEveryLoadChecksItsAnswers(t *testing.T) {
	for name, x := range map[string]struct {
		load   load
		origin func(int) (*origin, error)
	}{
		"http1": {h1Load{}, startHTTP1}, "grpc": {h2Load{grpc: true}, startGRPC}, "grpc-stream": {h2Load{grpc: true, stream: true}, startGRPC},
		"tcp": {tcpLoad{}, startEcho}, "bulk": {bulkLoad{}, startSource},
	} {
		for _, spoilt := range []bool{false, true} {
			o, err := x.origin(20_000)
			if err != nil {
				t.Fatal(err)
			}
			relay, err := startOrigin(func(_ *origin, c net.Conn) { relay(c, o.ln.Addr().String(), spoilt) })
			if err != nil {
				t.Fatal(err)
			}
			r, err := x.load.closed(target{addr: relay.ln.Addr().String(), body: 20_000}, 2, 0, 20*time.Millisecond, func(bool) {})
			if err == nil && r.failed > 0 {
				err = r.last
			}
			if spoilt && !errors.Is(err, errNotTheOrigins) || !spoilt && (err != nil || r.done == 0) {
				t.Errorf("%s, spoilt: %t: %v", name, spoilt, err)
			}
			o.ln.Close()
			relay.ln.Close()
		}
	}
}

// TestHeldStreamsEnd: no stream is left for a proxy to reset, which it would take for a flood.
func TestHeldStreamsEnd(t *testing.T) {
	open := make(chan int, 4)
	o, err := startOrigin(func(o *origin, c net.Conn) { open <- serveGRPC(o, c, grpcMessage(1000)) })
	if err != nil {
		t.Fatal(err)
	}
	defer o.ln.Close()
	at, l := target{addr: o.ln.Addr().String(), body: 1000}, h2Load{grpc: true, stream: true}
	closed, err := l.closed(at, 8, 0, 10*time.Millisecond, func(bool) {})
	if err != nil || closed.failed > 0 || closed.done == 0 {
		t.Fatalf("%+v, %v", closed, err)
	}
	paced, err := l.open(at, 8, 1000, 10*time.Millisecond)
	if err != nil || paced.failed > 0 || paced.done == 0 {
		t.Fatalf("%+v, %v", paced, err)
	}
	for range 4 {
		if n := <-open; n > 0 {
			t.Errorf("%d streams were left open", n)
		}
	}
}

// relay leads to an origin, and may change a byte of the bodies that come back.
func relay(c net.Conn, addr string, spoilt bool) {
	up, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer up.Close()
	go func() {
		_, _ = io.Copy(up, c)
		_ = up.Close()
	}()
	b := make([]byte, 32<<10)
	for {
		n, err := up.Read(b)
		if err != nil {
			return
		}
		if i := bytes.Index(b[:n], []byte("xxxx")); i >= 0 && spoilt {
			b[i+1] = 'y'
		}
		if _, err := c.Write(b[:n]); err != nil {
			return
		}
	}
}
