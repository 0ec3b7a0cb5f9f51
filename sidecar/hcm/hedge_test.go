package hcm

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// scripted answers the n-th request, over all connections, as the n-th word says:
// "hang", "close", or a status, with "-" in front after 200 ms, and with "~" once a second
// request has come too.
func scripted(t *testing.T, seen *atomic.Int32, words ...string) string {
	return rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for {
			head, body, err := readRequest(r)
			if err != nil {
				return
			}
			n := int(seen.Add(1))
			word := words[min(n, len(words))-1]
			if word[0] == '-' || word[0] == '~' {
				time.Sleep(200 * time.Millisecond)
				for end := time.Now().Add(5 * time.Second); word[0] == '~' && seen.Load() < 2 && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
				word = word[1:]
			}
			switch word {
			case "hang":
				_, _ = r.ReadByte()
				return
			case "close":
				return
			}
			retry := "false"
			if strings.Contains(head, "X-Envoy-Is-Timeout-Retry: true") {
				retry = "true"
			}
			answer := fmt.Sprintf("%d|%s", n, body)
			_, _ = io.WriteString(c, fmt.Sprintf("HTTP/1.1 %s X\r\nX-Timeout-Retry: %s\r\nContent-Length: %d\r\n\r\n%s", word, retry, len(answer), answer))
		}
	})
}

func TestHedge(t *testing.T) {
	for _, tc := range []struct {
		name    string
		script  []string
		retries uint32
		raw     string
		status  int
		body    string
		after   time.Duration // it is hedged; 50 ms when 0
		timeout time.Duration // of all attempts, which would be 504; 5 s when 0
		least   time.Duration
		log     string
		idle    bool // it is the time for which nothing may move
	}{
		{name: "the second answers, the first is idle", script: []string{"hang", "200"}, retries: 1, idle: true, status: 200, body: "2|", least: 50 * time.Millisecond, log: "retries=1"},
		{name: "idle without a retry", script: []string{"-200"}, idle: true, status: 200, body: "1|", least: 150 * time.Millisecond, log: "200 URX via_upstream"},
		{name: "in time", script: []string{"200"}, retries: 1, after: time.Hour, status: 200, body: "1|", log: "retries=0"},
		{name: "the second answers", script: []string{"hang", "200"}, retries: 1, status: 200, body: "2|", least: 50 * time.Millisecond, log: "retries=1"},
		{name: "with its body", script: []string{"hang", "200"}, retries: 1, raw: "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "2|hello"},
		{name: "the first answers after all", script: []string{"~200", "hang"}, retries: 1, status: 200, body: "1|", least: 150 * time.Millisecond, log: "retries=1"},
		{name: "a late error is dropped", script: []string{"~503", "~200"}, retries: 1, status: 200, body: "2|", least: 200 * time.Millisecond},
		{name: "an early error is tried again", script: []string{"503", "200"}, retries: 1, after: time.Hour, status: 200, body: "2|"},
		{name: "errors only", script: []string{"503"}, retries: 1, after: time.Hour, status: 503, body: "2|", log: "503 URX"},
		{name: "a broken connection is tried again", script: []string{"close", "200"}, retries: 1, after: time.Hour, status: 200, body: "2|"},
		{name: "nobody answers", script: []string{"hang"}, retries: 2, timeout: 500 * time.Millisecond, status: 504, least: 500 * time.Millisecond, log: "504 URX,UT response_timeout everything 127.0.0.1:"},
		{name: "late without a retry", script: []string{"-200"}, status: 200, body: "1|", least: 150 * time.Millisecond, log: "200 URX via_upstream"},
		{name: "no answer without a retry", script: []string{"hang"}, timeout: 300 * time.Millisecond, status: 504, least: 300 * time.Millisecond, log: "504 URX,UT response_timeout"},
		{name: "the last of three", script: []string{"hang", "hang", "200"}, retries: 2, status: 200, body: "3|", least: 100 * time.Millisecond, log: "retries=2"},
	} {
		t.Run(tc.name, bubble(func(t *testing.T) {
			var seen atomic.Int32
			b := newBed(t, scripted(t, &seen, tc.script...))
			f := b.route().Forward
			f.Timeout, f.Hedge = cmp.Or(tc.timeout, 5*time.Second), &route.HedgePolicy{OnPerTryTimeout: true}
			f.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: tc.retries, PerTryTimeout: cmp.Or(tc.after, 50*time.Millisecond), BackOffBase: time.Millisecond}
			if tc.idle {
				f.Retry.PerTryTimeout, f.Retry.PerTryIdleTimeout = 0, f.Retry.PerTryTimeout
			}
			b.vhost().TimeoutRetryHeader = true
			b.start()
			c := b.dial()
			if tc.raw == "" {
				tc.raw = simpleGet
			}
			start := time.Now()
			resp, body := c.do(tc.raw)
			took := time.Since(start)
			if resp.StatusCode != tc.status || tc.body != "" && body != tc.body || took < tc.least || tc.timeout > 0 && took > 6*tc.timeout {
				t.Errorf("%d %q after %v", resp.StatusCode, body, took)
			}
			if tc.log != "" {
				b.wantLog(tc.log)
			}
			if want := fmt.Sprint(strings.HasPrefix(tc.name, "the second") || strings.HasPrefix(tc.name, "the last")); tc.status == 200 && tc.script[0] == "hang" && tc.raw == simpleGet && resp.Header.Get("X-Timeout-Retry") != want {
				t.Errorf("x-envoy-is-timeout-retry: %q, want %s", resp.Header.Get("X-Timeout-Retry"), want)
			}
			// The connection goes on, and nothing is counted that has ended.
			active := func() int64 { return b.clusters.Get("origin").Stats()[0].Active }
			for end := time.Now().Add(5 * time.Second); active() != 0 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			if n := active(); n != 0 {
				t.Errorf("%d requests are still counted", n)
			}
			seen.Store(int32(len(tc.script)) - 1)
			if tc.script[len(tc.script)-1] == "200" {
				if resp, _ := c.do(simpleGet); resp.StatusCode != 200 {
					t.Errorf("the next request: %d", resp.StatusCode)
				}
			}
		}))
	}
}

func TestHedgedClientLeaves(t *testing.T) {
	bubble(func(t *testing.T) {
		var seen atomic.Int32
		b := newBed(t, scripted(t, &seen, "hang"))
		f := b.route().Forward
		f.Timeout, f.Hedge = 0, &route.HedgePolicy{OnPerTryTimeout: true}
		f.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, PerTryTimeout: 20 * time.Millisecond}
		b.start()
		c := b.dial()
		c.send(simpleGet)
		for seen.Load() < 2 {
			time.Sleep(time.Millisecond)
		}
		_ = c.Close()
		b.wantLog("DC downstream_remote_disconnect")
	})(t)
}

// A body that does not come whole is sent as without hedging.
func TestLongBodyIsNotHedged(t *testing.T) {
	var seen atomic.Int32
	b := newBed(t, scripted(t, &seen, "200"))
	f := b.route().Forward
	f.Hedge = &route.HedgePolicy{OnPerTryTimeout: true}
	f.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, PerTryTimeout: time.Second}
	b.route().BufferLimit = ptr(uint64(3))
	b.start()
	if resp, body := b.dial().do("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"); resp.StatusCode != 200 || body != "1|hello" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
}

// joined is an origin whose first request is answered when the second has come, which
// never is.
func joined(t *testing.T) (first, second string) {
	var seen atomic.Int32
	came := make(chan struct{})
	serve := func(_ int, c net.Conn, r *bufio.Reader) {
		if _, _, err := readRequest(r); err != nil {
			return
		}
		if seen.Add(1) == 1 {
			<-came
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		} else {
			close(came)
		}
		_, _ = r.ReadByte()
	}
	return rawOrigin(t, serve), rawOrigin(t, serve)
}

// hedged has requests hedged after a time.
func (b *bed) hedged(after time.Duration) {
	f := b.route().Forward
	f.Hedge = &route.HedgePolicy{OnPerTryTimeout: true}
	f.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, PerTryTimeout: after, AvoidTried: true}
}

// failures are what the metrics tell of attempts that failed.
func (b *bed) failures() string { return b.counted("hauberk_upstream_failures_total") }

// counted are the series of a metric that have counted anything.
func (b *bed) counted(metric string) string {
	var text strings.Builder
	_ = b.metrics.Registry.WritePrometheus(&text)
	var found []string
	for l := range strings.Lines(text.String()) {
		if strings.HasPrefix(l, metric+"{") && !strings.HasSuffix(l, " 0\n") {
			found = append(found, strings.TrimSpace(l))
		}
	}
	return strings.Join(found, " ")
}

// TestHedgeWaitsForItsTurn: an attempt begins when it is asked for, however long the first one takes.
func TestHedgeWaitsForItsTurn(t *testing.T) {
	bubble(func(t *testing.T) {
		var seen atomic.Int32
		b := newBed(t, scripted(t, &seen, "hang"))
		b.hedged(90 * time.Minute)
		f := b.route().Forward
		f.Timeout, f.IdleTimeout, f.Retry.NumRetries = 2*time.Hour, new(time.Duration), 0
		c := b.start().dial()
		_ = c.SetDeadline(time.Now().Add(3 * time.Hour))
		if resp, _ := c.do(simpleGet); resp.StatusCode != 504 || seen.Load() != 1 {
			t.Errorf("%d after %d attempts", resp.StatusCode, seen.Load())
		}
	})(t)
}

// TestHedgeThatLost: an attempt that is ended because another one has answered says
// nothing of its host.
func TestHedgeThatLost(t *testing.T) {
	bubble(func(t *testing.T) {
		first, second := joined(t)
		b := newBed(t, first, second)
		b.hedged(time.Second) // which the second attempt has too
		b.start()
		if resp, _ := b.dial().do(simpleGet); resp.StatusCode != 200 {
			t.Fatal(resp.StatusCode)
		}
		b.logged(1)
		b.atRest()
		for _, h := range b.clusters.Get("origin").Stats() {
			if h.Timeouts > 0 || h.Failed > 0 {
				t.Errorf("%s: %d timeouts, %d failed", h.Address, h.Timeouts, h.Failed)
			}
		}
		if f := b.failures(); f != "" {
			t.Error(f)
		}
	})(t)
}

// TestHedgeThatIsLate: the host of an attempt that had its time has timed out, whatever
// ends the attempt then.
func TestHedgeThatIsLate(t *testing.T) {
	bubble(func(t *testing.T) {
		var seen atomic.Int32
		b := newBed(t)
		b.cluster("origin", scripted(t, &seen, "hang", "200"), scripted(t, &seen, "hang", "200"))
		b.hedged(time.Second) // which the second attempt has too
		b.start()
		if resp, _ := b.dial().do(simpleGet); resp.StatusCode != 200 {
			t.Fatal(resp.StatusCode)
		}
		b.logged(1)
		b.atRest()
		var timeouts, success uint64
		for _, h := range b.clusters.Get("origin").Stats() {
			timeouts += h.Timeouts
			success += h.Success
		}
		if timeouts != 1 || success != 1 {
			t.Errorf("%d timeouts, %d answered", timeouts, success)
		}
		if f := b.failures(); !strings.Contains(f, "per_try_timeout") {
			t.Error(f)
		}
	})(t)
}

// TestHedgedClientsThatLeave: that clients do not wait is not held against a host.
func TestHedgedClientsThatLeave(t *testing.T) {
	var seen atomic.Int32
	b := newBed(t, scripted(t, &seen, "hang"))
	cfg := *b.clusters.Get("origin").Config()
	cfg.Outlier = &cluster.Outlier{Consecutive5xx: 5, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 100, BaseEjectionTime: time.Minute, Interval: time.Minute}
	if err := b.clusters.Update(&cfg); err != nil {
		t.Fatal(err)
	}
	b.hedged(3 * time.Second)
	b.start()
	const clients = 5
	for i := range clients {
		c := b.dial()
		c.send(simpleGet)
		for seen.Load() <= int32(i) {
			time.Sleep(time.Millisecond)
		}
		_ = c.Close()
	}
	b.logged(clients)
	b.atRest()
	if h := b.clusters.Get("origin").Stats()[0]; h.Ejected || h.Timeouts > 0 {
		t.Errorf("ejected %v, %d timeouts", h.Ejected, h.Timeouts)
	}
}

// TestHedgesEndWithTheChoice: the attempt that lost is ended before the answer that is
// relayed has ended.
func TestHedgesEndWithTheChoice(t *testing.T) {
	var seen atomic.Int32
	ended := make(chan struct{})
	b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if _, _, err := readRequest(r); err != nil {
			return
		}
		if seen.Add(1) == 1 {
			_, _ = r.ReadByte()
			close(ended)
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
		select {
		case <-ended:
			_, _ = io.WriteString(c, "world")
		case <-time.After(3 * time.Second):
		}
	}))
	b.hedged(20 * time.Millisecond)
	b.start()
	c := b.dial()
	c.send(simpleGet)
	if _, body := c.answer("GET"); body != "helloworld" {
		t.Errorf("%q", body)
	}
}

// TestHedgesThatAnswerTogether: one is relayed, and the other gives back what it holds.
func TestHedgesThatAnswerTogether(t *testing.T) {
	meet := make(chan struct{})
	b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for {
			if _, _, err := readRequest(r); err != nil {
				return
			}
			select {
			case meet <- struct{}{}:
			case <-meet:
			case <-time.After(5 * time.Second):
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}))
	b.hedged(2 * time.Millisecond)
	b.start()
	c := b.dial()
	for range 50 {
		if resp, body := c.do(simpleGet); resp.StatusCode != 200 || body != "ok" {
			t.Fatalf("%d %q", resp.StatusCode, body)
		}
	}
	b.atRest()
	if n := b.clusters.Get("origin").Stats()[0].Active; n != 0 {
		t.Errorf("%d are active", n)
	}
}

// overdue is a client that nobody asks about before its time is over.
type overdue struct {
	nobody
	cut chan struct{}
}

func (o overdue) interrupt() { close(o.cut) }
func (o overdue) gone() bool { <-o.cut; return false }

// cuttable is an upstream that notes its interruption.
type cuttable struct {
	upstream
	cut chan struct{}
}

func (c cuttable) interrupt()           { close(c.cut) }
func (c cuttable) resume()              {}
func (c cuttable) leave(*attempt, bool) {}

// TestAdoptedWhenItsTimeIsOver: the deadline that passes as an attempt is adopted ends the
// wait for its host too.
func TestAdoptedWhenItsTimeIsOver(t *testing.T) {
	b := newBed(t, "127.0.0.1:1").start()
	x := besides(b)
	defer x.leave()
	x.dog.stop()
	x.dog = &watchdog{}
	x.dog.start(b.m.timers, overdue{cut: make(chan struct{})})
	y := besides(b)
	defer y.leave()
	up := cuttable{cut: make(chan struct{})}
	x.deadline, x.lifeEnd, y.attempt.up = 1, noDeadline, up
	x.adopt(y)
	defer x.attempt.drop(false)
	select {
	case <-up.cut:
	case <-time.After(5 * time.Second):
		t.Error("the host is waited for")
	}
}

// TestNoHedgeWithoutAHost: an attempt that found no host may be late to say so. It is not
// joined by another, whose cluster's budget nobody knows.
func TestNoHedgeWithoutAHost(t *testing.T) {
	b := newBed(t).start()
	x := besides(b)
	defer x.leave()
	x.sel.Retry, x.attempts, x.cluster = &route.RetryPolicy{NumRetries: 1}, 1, b.clusters.Get("origin")
	if o := x.attempt.choose(); o != noHost {
		t.Fatalf("outcome %d", o)
	}
	if x.mayHedge() {
		t.Error("it is hedged")
	}
}

// TestHedgedUploadIsAnsweredEarly: an attempt beside another reads while it writes, so that the
// answer of a host that takes no more of a body is there when it comes, and the chosen one's body goes on
// meanwhile.
func TestHedgedUploadIsAnsweredEarly(t *testing.T) {
	const size = 24 << 20
	for _, takes := range []bool{false, true} {
		t.Run(fmt.Sprintf("takes the rest: %v", takes), func(t *testing.T) {
			took, over := make(chan int64, 4), make(chan struct{})
			b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				n, _ := io.CopyN(io.Discard, req.Body, 10<<10)
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
				if takes {
					more, _ := io.Copy(io.Discard, req.Body)
					took <- n + more
				}
				_, _ = io.WriteString(c, "early")
				<-over // it reads no more
			}))
			b.hedged(2 * time.Second)
			b.route().Forward.Timeout = 3 * time.Second
			b.route().BufferLimit = ptr(uint64(32 << 20))
			b.start()
			c := b.dial()
			defer close(over)
			c.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", size) + strings.Repeat("x", size))
			if resp, body := c.answer("POST"); resp.StatusCode != 200 || body != "early" {
				t.Errorf("%d %q", resp.StatusCode, body)
			}
			if takes {
				if n := <-took; n != size {
					t.Errorf("the host got %d bytes, want %d", n, size)
				}
			}
			b.logged(1)
			b.atRest()
		})
	}
}

// TestHedgeTakesItsPump: once the attempt that was chosen has gone, nobody looks at what sent its
// body, which is another exchange's then.
func TestHedgeTakesItsPump(t *testing.T) {
	b := newBed(t, "127.0.0.1:1").start()
	x, y := besides(b), besides(b)
	defer x.leave()
	y.ownPump = newPump(y)
	y.pump = y.ownPump
	h := &hedge{x: x, cancel: func() {}, late: time.NewTimer(time.Hour), turn: time.NewTimer(time.Hour), chosen: y}
	x.adopt(y)
	h.end()
	if x.pump != nil {
		t.Error("the exchange has the pump still")
	}
}

// TestHedgedUploadIsKeptOnce: what sends the rest of a body while the answer is relayed has a copy
// of its own, and nobody needs the first any more.
func TestHedgedUploadIsKeptOnce(t *testing.T) {
	const size = 24 << 20
	over := make(chan struct{})
	b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
			<-over // it takes nothing
		}
	}))
	b.hedged(time.Minute)
	b.route().Forward.Timeout = 0
	b.route().BufferLimit = ptr(uint64(32 << 20))
	b.start()
	defer close(over)
	c := b.dial()
	c.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", size) + strings.Repeat("x", size))
	if _, err := http.ReadResponse(c.r, nil); err != nil {
		t.Fatal(err)
	}
	b.eventually("one copy is kept", func() bool { n := keeping.Load(); return n >= size && n < 2*size })
}
