package hcm

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/fault"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// hangsAfter reads requests whole and answers the first n of them, then no more.
func hangsAfter(t testing.TB, seen *atomic.Int32, n int32, answer string) string {
	return rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for {
			if _, _, err := readRequest(r); err != nil {
				return
			}
			if seen.Add(1) > n {
				_, _ = r.ReadByte()
				return
			}
			_, _ = io.WriteString(c, answer)
		}
	})
}

const unavailable = "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"

// TestTimesOfABodyInPieces: the route's timeout and the attempt's run once the request is
// there as a whole, in this attempt and in the next.
func TestTimesOfABodyInPieces(t *testing.T) {
	for name, tc := range map[string]struct {
		answered int32
		timeout  time.Duration
		retry    *route.RetryPolicy
		want     string
		sent     int32
	}{
		"route's": {0, 100 * time.Millisecond, nil, "504 UT response_timeout", 1},
		"route's, of the second attempt": {1, time.Second, // in which the first is answered
			&route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, BackOffBase: time.Millisecond}, "504 UT response_timeout", 2},
		"attempt's": {0, 0, &route.RetryPolicy{PerTryTimeout: 100 * time.Millisecond}, "504 UT upstream_per_try_timeout", 1},
		"attempt's, then the second's": {0, 0,
			&route.RetryPolicy{On: route.RetryReset, NumRetries: 1, BackOffBase: time.Millisecond, PerTryTimeout: 100 * time.Millisecond},
			"504 URX,UT upstream_per_try_timeout", 2},
		"route's, which is less than the second attempt's": {0, 2 * time.Second,
			&route.RetryPolicy{On: route.RetryReset, NumRetries: 5, BackOffBase: time.Millisecond, PerTryTimeout: 1200 * time.Millisecond},
			"504 UT response_timeout", 2},
	} {
		t.Run(name, bubble(func(t *testing.T) {
			var seen atomic.Int32
			b := newBed(t, hangsAfter(t, &seen, tc.answered, unavailable))
			f := b.route().Forward
			f.Timeout, f.Retry = tc.timeout, tc.retry
			b.start()
			c := b.dial()
			c.send("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello")
			time.Sleep(200 * time.Millisecond) // the client takes its time, which is not the host's
			c.send("world")
			if resp, _ := c.answer("POST"); resp.StatusCode != 504 {
				t.Errorf("status %d", resp.StatusCode)
			}
			b.wantLog(tc.want)
			if n := seen.Load(); n != tc.sent {
				t.Errorf("sent %d times, want %d", n, tc.sent)
			}
		}))
	}
}

// TestSlowClientsEjectNobody: what a host waits for a client is not held against it.
func TestSlowClientsEjectNobody(t *testing.T) {
	bubble(func(t *testing.T) {
		b := newBed(t, httpOrigin(t, echo))
		cfg := *b.clusters.Get("origin").Config()
		cfg.Outlier = &cluster.Outlier{Consecutive5xx: 2, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 100, BaseEjectionTime: time.Minute, Interval: time.Minute}
		if err := b.clusters.Update(&cfg); err != nil {
			t.Fatal(err)
		}
		b.route().Forward.Retry = &route.RetryPolicy{PerTryTimeout: 50 * time.Millisecond}
		b.cfg.StreamIdleTimeout = 150 * time.Millisecond
		b.start()
		for range 3 {
			c := b.dial()
			c.send("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello")
			if resp, _ := c.answer("POST"); resp.StatusCode != 408 {
				t.Errorf("status %d", resp.StatusCode)
			}
		}
		if h := b.clusters.Get("origin").Stats()[0]; h.Ejected || h.Timeouts > 0 {
			t.Errorf("%d timeouts, ejected %v", h.Timeouts, h.Ejected)
		}
	})(t)
}

// TestAttemptsTimeEndsWithTheAnswer: it bounds the wait for an answer, not the answer.
func TestAttemptsTimeEndsWithTheAnswer(t *testing.T) {
	retry := &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, PerTryTimeout: time.Second}
	t.Run("request at once", bubble(func(t *testing.T) {
		slow := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "hello")
			w.(http.Flusher).Flush()
			_, _ = io.Copy(io.Discard, r.Body)
			time.Sleep(1200 * time.Millisecond)
			_, _ = io.WriteString(w, "world")
		})
		b := newBed(t, slow)
		b.route().Forward.Retry = retry
		b.start()
		if resp, body := b.dial().do(simpleGet); resp.StatusCode != 200 || body != "helloworld" {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
	}))
	t.Run("request that ends after the answer began", bubble(func(t *testing.T) {
		var seen atomic.Int32
		b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
			_, _, _ = readRequest(r)
			seen.Add(1)
			time.Sleep(1200 * time.Millisecond)
			_, _ = io.WriteString(c, "world")
		}))
		b.route().Forward.Retry = retry
		b.start()
		c := b.dial()
		c.send("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab")
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.send("cd")
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "helloworld" || seen.Load() != 1 {
			t.Errorf("%q, %v, the host had %d requests", body, err, seen.Load())
		}
	}))
}

// TestTimeBeforeTheRouterIsNotTheHosts: neither what a filter waits for nor a head that
// comes slowly counts.
func TestTimeBeforeTheRouterIsNotTheHosts(t *testing.T) {
	t.Run("fault", bubble(func(t *testing.T) {
		b := newBed(t, httpOrigin(t, echo))
		b.filter("f", &fault.Config{Delay: &fault.Delay{Fixed: 1200 * time.Millisecond, Share: route.All}})
		b.route().Forward.Timeout = time.Second
		b.start()
		if resp, _ := b.dial().do(simpleGet); resp.StatusCode != 200 {
			t.Errorf("status %d", resp.StatusCode)
		}
	}))
	t.Run("head", bubble(func(t *testing.T) {
		b := newBed(t, httpOrigin(t, echo))
		b.route().Forward.Timeout = time.Second
		b.start()
		c := b.dial()
		c.send("GET / HTTP/1.1\r\nHo")
		time.Sleep(1200 * time.Millisecond)
		c.send("st: h\r\n\r\n")
		if resp, _ := c.answer("GET"); resp.StatusCode != 200 {
			t.Errorf("status %d", resp.StatusCode)
		}
	}))
}

// stuck is a stream that takes nothing.
type stuck struct {
	stream.Stream
	once sync.Once
	cut  chan struct{}
}

func (s *stuck) Write([]byte) (int, error) { <-s.cut; return 0, os.ErrDeadlineExceeded }

func (s *stuck) SetDeadline(d time.Time) error {
	if !d.IsZero() && d.Before(time.Now()) {
		s.once.Do(func() { close(s.cut) })
	}
	return s.Stream.SetDeadline(d)
}

// TestFlushTimeoutOfSmallAnswers: also of one that is written with one call, and of our own.
func TestFlushTimeoutOfSmallAnswers(t *testing.T) {
	for name, target := range map[string]string{"host's": "/", "our own": "/a%2Fb", "host's, by the route": "/"} {
		t.Run(name, bubble(func(t *testing.T) {
			b, start := newBed(t, httpOrigin(t, echo)), time.Now()
			b.route().Forward.Timeout = 0
			b.cfg.EscapedSlashes = RejectEscaped
			b.cfg.FlushTimeout, b.cfg.StreamIdleTimeout = ptr(50*time.Millisecond), time.Minute
			if strings.HasSuffix(name, "by the route") {
				b.cfg.FlushTimeout, b.route().Forward.FlushTimeout = ptr(time.Hour), b.cfg.FlushTimeout
			}
			b.wrap = func(s stream.Stream) stream.Stream { return &stuck{Stream: s, cut: make(chan struct{})} }
			b.start()
			b.dial().send("GET " + target + " HTTP/1.1\r\nHost: h\r\n\r\n")
			if line := b.logged(1)[0]; !strings.Contains(line, "SI stream_idle_timeout") || time.Since(start) > 10*time.Second {
				t.Error(line)
			}
		}))
	}
}

// TestFlushOutlivesTheRoutesTime: a route's time is about the host. Once that has answered
// whole, the client has what the flush timeout gives it.
func TestFlushOutlivesTheRoutesTime(t *testing.T) {
	bubble(func(t *testing.T) {
		b := newBed(t, httpOrigin(t, echo))
		b.route().Forward.Timeout = 500 * time.Millisecond
		b.cfg.FlushTimeout = ptr(time.Second)
		b.wrap = func(s stream.Stream) stream.Stream { return &stuck{Stream: s, cut: make(chan struct{})} }
		b.start()
		b.dial().send(simpleGet)
		if line := b.logged(1)[0]; !strings.Contains(line, "SI stream_idle_timeout") {
			t.Error(line)
		}
	})(t)
}

// TestRouteTimeBeginsWithTheHead: also of a request that began in what the one before it
// came with.
func TestRouteTimeBeginsWithTheHead(t *testing.T) {
	bubble(func(t *testing.T) {
		b := newBed(t, httpOrigin(t, echo))
		b.route().Forward.Timeout = 300 * time.Millisecond
		b.start()
		c := b.dial()
		c.do(simpleGet + "GET /second HTTP/1.1\r\nHo")
		time.Sleep(400 * time.Millisecond) // the client takes its time, which is not the host's
		if resp, _ := c.do("st: h\r\n\r\n"); resp.StatusCode != 200 {
			t.Errorf("status %d", resp.StatusCode)
		}
	})(t)
}

// reluctant takes one write, which it tells, and then nothing, as it tells too.
type reluctant struct {
	stuck
	took, stands chan struct{}
	once         sync.Once
	writes       atomic.Int32
}

func (s *reluctant) Write(p []byte) (int, error) {
	if s.writes.Add(1) == 1 {
		defer close(s.took)
		return s.Stream.Write(p)
	}
	s.once.Do(func() { close(s.stands) })
	return s.stuck.Write(p)
}

// TestFlushOfTheLastPiece: it waits for the client alone, like what fits into one call,
// also where the request ends only then.
func TestFlushOfTheLastPiece(t *testing.T) {
	for name, rest := range map[string]string{"request at once": "", "request that ends meanwhile": "world"} {
		t.Run(name, bubble(func(t *testing.T) {
			c := &reluctant{stuck: stuck{cut: make(chan struct{})}, took: make(chan struct{}), stands: make(chan struct{})}
			b := newBed(t, rawOrigin(t, func(_ int, nc net.Conn, r *bufio.Reader) {
				for line := ""; line != "\r\n"; {
					line, _ = r.ReadString('\n')
				}
				_, _ = io.WriteString(nc, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nx", 1+directWrite))
				<-c.took
				_, _ = io.WriteString(nc, strings.Repeat("x", directWrite))
				_, _ = io.Copy(io.Discard, r)
			}))
			b.route().Forward.Timeout = 2 * time.Second
			b.cfg.FlushTimeout = ptr(4 * time.Second)
			b.wrap = func(s stream.Stream) stream.Stream { c.Stream = s; return c }
			b.start()
			far := b.dial()
			far.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello" + strings.Repeat("w", 5-len(rest)))
			<-c.stands
			far.send(rest)
			if line := b.logged(1)[0]; !strings.Contains(line, "SI stream_idle_timeout") {
				t.Error(line)
			}
		}))
	}
}

// TestAttemptsIdleTimeEndsWithTheAnswer: a client that takes the last piece slowly has the
// exchange's idle time for that, not the host's.
func TestAttemptsIdleTimeEndsWithTheAnswer(t *testing.T) {
	bubble(func(t *testing.T) {
		c := &reluctant{stuck: stuck{cut: make(chan struct{})}, took: make(chan struct{}), stands: make(chan struct{})}
		b := newBed(t, rawOrigin(t, func(_ int, nc net.Conn, r *bufio.Reader) {
			_, _, _ = readRequest(r)
			_, _ = fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nx", 1+directWrite)
			<-c.took
			_, _ = io.WriteString(nc, strings.Repeat("x", directWrite))
			_, _ = r.ReadByte()
		}))
		b.route().Forward.Retry = &route.RetryPolicy{PerTryIdleTimeout: 2 * time.Second}
		b.cfg.MaxStreamDuration = 4 * time.Second
		b.wrap = func(s stream.Stream) stream.Stream { c.Stream = s; return c }
		b.start()
		b.dial().send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		<-c.stands
		b.wantLog("200 DT max_duration_timeout")
	})(t)
}

// woken is a client that remembers whether its waits are interrupted.
type woken struct {
	atomic.Bool
	ever chan struct{}
}

func (c *woken) interrupt()   { c.Store(true); c.ever <- struct{}{} }
func (c *woken) resume()      { c.Store(false) }
func (c *woken) gone() bool   { return false }
func (c *woken) polled() bool { return true }

// TestAnswerMeetsTheAttemptsTime: an attempt's time that runs out while its answer, which is
// here, waits for the processor, does not take the answer from the client.
func TestAnswerMeetsTheAttemptsTime(t *testing.T) {
	ts := NewTimers()
	defer ts.Close()
	c := woken{ever: make(chan struct{}, 2)}
	x := &exchange{dog: &watchdog{}, attempt: &attempt{}, m: &Manager{streamIdle: int64(time.Hour)}}
	x.timeouts.PerTry = time.Second
	x.attempt.x, x.attempt.until, x.complete = x, noDeadline, true
	x.dog.start(ts, &c)
	defer x.dog.stop()
	x.dog.await(monotonic(), monotonic(), int64(time.Minute), false) // it has run out
	<-c.ever
	if x.answered(); c.Load() || x.dog.cause.Load() != causeNone || x.dog.firing() {
		t.Error("the client is kept from the answer")
	}
	x.attempt.until = monotonic() // the route's has run out too
	x.answered()
	<-c.ever // and counts
}

// TestWhoseIdleTimeItWas: once an answer is whole, only the stream's idle time counts, and is
// told of.
func TestWhoseIdleTimeItWas(t *testing.T) {
	x := &exchange{dog: &watchdog{}, attempt: &attempt{}, m: &Manager{streamIdle: int64(time.Hour)}}
	x.timeouts.PerTryIdle = time.Minute
	x.attempt.x = x
	for idle, want := range map[time.Duration]outcome{time.Minute: tryIdle, time.Hour: idleTimedOut, time.Second: idleTimedOut} {
		x.dog.cause.Store(causeIdle)
		x.dog.idleAfter.Store(int64(idle))
		if got := x.attempt.broken(os.ErrDeadlineExceeded); got != want {
			t.Errorf("after %v: %v, want %v", idle, got, want)
		}
	}
}
