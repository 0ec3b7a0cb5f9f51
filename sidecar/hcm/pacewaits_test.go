package hcm

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	bodybuffer "github.com/hauberk-mesh/hauberk/sidecar/filter/buffer"
)

// TestWhoIsNotHurried: a client that is not what is waited for, or whose body is its part of a
// conversation, may rest.
func TestWhoIsNotHurried(t *testing.T) {
	reads := func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }
	later := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(2 * time.Minute)
		reads(w, r)
	}
	tooLate := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(4 * time.Minute)
		reads(w, r)
	}
	answers := func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		reads(w, r)
	}
	rests := func(t *testing.T) io.Reader { return trickle(t, 1, 3, 2*time.Minute) }
	soon := func(t *testing.T) io.Reader { return trickle(t, 1, 3, time.Minute) }
	much := func(*testing.T) io.Reader { return io.LimitReader(endlessBody{}, 8<<20) }
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		body    func(*testing.T) io.Reader
		header  []string
		rate    int64
		want    [3]int // by the client's version, 0 where it is not tried
		hosts   int    // the version of hosts that alone is tried, 0 for both
	}{
		"no rate":                   {reads, rests, nil, 0, [3]int{1: 200, 2: 200}, 0},
		"a rate":                    {reads, rests, nil, 100, [3]int{1: 408, 2: 408}, 0},
		"gRPC":                      {reads, rests, []string{"Content-Type", "application/grpc"}, 100, [3]int{1: 408, 2: 200}, 2},
		"gRPC to HTTP/1":            {reads, rests, []string{"Content-Type", "application/grpc"}, 100, [3]int{1: 408, 2: 408}, 1},
		"gRPC, in capitals":         {reads, rests, []string{"Content-Type", "Application/GRPC+Proto; a=b"}, 100, [3]int{1: 408, 2: 200}, 2},
		"gRPC-Web":                  {reads, rests, []string{"Content-Type", "application/grpc-web+proto"}, 100, [3]int{1: 408, 2: 200}, 2},
		"what begins like gRPC":     {reads, rests, []string{"Content-Type", "application/grpcs"}, 100, [3]int{1: 408, 2: 408}, 0},
		"messages of Connect":       {reads, rests, []string{"Content-Type", "application/Connect+proto"}, 100, [3]int{1: 200, 2: 200}, 0},
		"a route that says":         {reads, rests, []string{"X-Route", "says"}, 100, [3]int{1: 200, 2: 200}, 0},
		"the host answers first":    {answers, rests, nil, 100, [3]int{2: 200}, 0},
		"the host does not read":    {later, much, nil, 1 << 20, [3]int{1: 200, 2: 200}, 0},
		"the host is to say so":     {later, much, []string{"Expect", "100-continue"}, 100, [3]int{1: 200, 2: 200}, 0},
		"the host has said so":      {reads, rests, []string{"Expect", "100-continue"}, 100, [3]int{1: 408, 2: 408}, 0},
		"a byte before it says so":  {tooLate, soon, []string{"Expect", "100-continue", "X-Sends", "at-once"}, 100, [3]int{1: 408, 2: 408}, 0},
		"a byte before it could do": {later, rests, nil, 100, [3]int{1: 408, 2: 408}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubbles(t, func(t *testing.T, down, up int) {
				if tc.want[down] == 0 || tc.hosts > 0 && tc.hosts != up {
					return
				}
				b := paced(t, down, up)
				b.cluster("origin", versionedOrigin(t, up, tc.handler))
				if up == 2 {
					b.http2Cluster()
				}
				b.options.Patience.BodyRate = tc.rate
				if len(tc.header) > 0 && tc.header[0] == "X-Route" {
					b.route().Forward.IdleTimeout = ptr(5 * time.Minute)
				}
				b.start()
				status, text, took := b.post(down, tc.body(t), -1, tc.header...)
				time.Sleep(5 * time.Minute) // until the host is done, too
				slow := strings.Contains(b.logged(1)[0], " request_body_rate ")
				if slow != (tc.want[down] == 408) || !slow && status != 200 { // gRPC has its own statuses
					t.Errorf("%d %q after %v, want %d", status, text, took, tc.want[down])
				}
			})
		})
	}
}

// TestSlowBodyForAFilter: a body that a filter wants whole is not waited for any longer.
func TestSlowBodyForAFilter(t *testing.T) {
	bothInBubbles(t, func(t *testing.T, version int) {
		b := paced(t, version, 1)
		b.filter("buffer", &bodybuffer.Config{MaxBytes: 1 << 20})
		b.start()
		status, text, took := b.post(version, trickle(t, 1, 1000, 5*time.Second), -1)
		if status != 408 || took < 29*time.Second || took > 32*time.Second {
			t.Errorf("%d %q after %v", status, text, took)
		}
		if line := b.logged(1)[0]; !strings.Contains(line, " request_body_rate ") {
			t.Errorf("logged: %s", line)
		}
		b.eventually("it is counted", func() bool { return b.metric(`hauberk_slow_clients_total{what="body"} 1`) })
	})
}

// stopped is a client whose window others have filled.
type stopped struct {
	nobody
	held   bool
	came   uint64
	lifted int64
}

// TestWhatElseACarrierBrought: a client is not slow with one body while it was held back, until
// just now, nor while others of its connection keep to the rate; a byte of these now and then is
// no excuse.
func TestWhatElseACarrierBrought(t *testing.T) {
	const second = int64(time.Second)
	waited := func(each func(c *stopped, w *watchdog, now int64)) (at int64) {
		c := &stopped{}
		w := watchdog{client: c, pace: &pace{perByte: second / 100}}
		w.pace.left.Store(patienceFirst)
		w.awaits()
		for now := int64(0); now < 1000*second; now += second / 10 {
			if each(c, &w, now); w.tooSlow(now) {
				return now / second
			}
		}
		return 1000
	}
	for name, tc := range map[string]struct {
		each func(c *stopped, w *watchdog, now int64)
		want int64
	}{
		"nothing": {func(*stopped, *watchdog, int64) {}, 30},
		"held back for a while": {func(c *stopped, _ *watchdog, now int64) {
			if now < 29*second {
				c.lifted = now
			}
		}, 59},
		"held back until a byte came": {func(c *stopped, w *watchdog, now int64) {
			if now < 25*second {
				c.lifted = now
			} else if now == 25*second {
				w.cameAt(1, now)
				w.awaits()
			}
		}, 55},
		"others at the rate":           {func(c *stopped, _ *watchdog, now int64) { c.came += 10 }, 1000},
		"others at half of it":         {func(c *stopped, _ *watchdog, now int64) { c.came += 5 }, 59},
		"a byte of others":             {func(c *stopped, _ *watchdog, now int64) { c.came = uint64(now / (20 * second)) }, 30},
		"much of others, then nothing": {func(c *stopped, _ *watchdog, now int64) { c.came = 1 << 20 }, 330},
	} {
		if got := waited(tc.each); got < tc.want-1 || got > tc.want+1 {
			t.Errorf("%s: too slow after %d s, want %d", name, got, tc.want)
		}
	}
}

func (c *stopped) heldBack() bool { return c.held }

func (c *stopped) inflow() (uint64, int64) { return c.came, c.lifted }

// TestHeldBackByOthers: who may not send, as others have filled the window of the connection
// and their host does not read, is not too slow.
func TestHeldBackByOthers(t *testing.T) {
	c := &stopped{held: true}
	w := watchdog{client: c, pace: &pace{perByte: 1}}
	w.activeAt(0)
	w.awaits()
	if w.tooSlow(1) {
		t.Error("while it may not send")
	}
	if c.held = false; w.tooSlow(0) || !w.tooSlow(2) {
		t.Error("once it may")
	}
	c.held = true
	w.setIdle(3)
	if w.tooSlow(2) || !w.tooIdle(3) {
		t.Error("it is not idle")
	}
}

// TestHeldUp: a watchdog that looks late, because the process could not run, says nothing of
// the client, nor does what was read late.
func TestHeldUp(t *testing.T) {
	const second = int64(time.Second)
	var w watchdog
	w.client = nobody{}
	w.pace = &pace{perByte: second / 100}
	w.pace.left.Store(patienceFirst)
	w.activeAt(0)
	w.awaits()
	if w.tooSlow(29 * second) {
		t.Error("too early")
	}
	if !w.tooSlow(30*second + second/2) {
		t.Error("not at all")
	}
	if w.tooSlow(120 * second) {
		t.Error("though it looked too late")
	}
	w.pace.since.Store(0)
	if w.cameAt(1, 120*second); w.pace.left.Load() < patienceFirst {
		t.Errorf("patience of %v after a byte that was read too late", time.Duration(w.pace.left.Load()))
	}
	if w.tooSlow(300 * second) {
		t.Error("though nobody waits")
	}
}
