package hcm

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// interrupted is a client that does something when the reading of its body is interrupted.
type interrupted struct {
	nobody
	then func()
}

func (i interrupted) interrupt() { i.then() }

// ending is an upstream whose exchange ends.
type ending struct {
	upstream
	left *int
}

func (e ending) interrupt()           {}
func (e ending) resume()              {}
func (e ending) stopWriting()         {}
func (e ending) clean(*attempt) bool  { return true }
func (e ending) leave(*attempt, bool) { *e.left++ }

// TestRetryResponseWhilePumping: what the pump finds until it is stopped decides whether
// the request can be sent again; the response is dropped all the same. A wait for the
// turn that the end of the exchange cuts short is no attempt.
func TestRetryResponseWhilePumping(t *testing.T) {
	b := newBed(t, "127.0.0.1:1").start()
	cl := b.clusters.Get("origin")
	for _, tc := range []struct {
		name    string
		then    func(*pump)
		over    bool // the exchange's context has ended
		retries uint32
		outcome outcome
		again   bool
		left    int
	}{
		{name: "nothing", retries: 1, outcome: responded, again: true, left: 1},
		{name: "no retry left", outcome: responded},
		{name: "a broken body", retries: 1, then: func(p *pump) { p.refused = http1.ErrTruncated }, outcome: clientBroke, left: 1},
		{name: "the client left", retries: 1, then: func(p *pump) { p.clientErr = true }, outcome: clientGone, left: 1},
		{name: "a fault", retries: 1, then: func(p *pump) { p.panicked = true }, outcome: clientGone, left: 1},
		{name: "the exchange ends", retries: 1, over: true, outcome: clientGone, left: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x := besides(b)
			defer x.leave()
			left := 0
			x.cluster = cl
			if x.attempt.choose() != responded || !x.attempt.begin() {
				t.Fatal("no host")
			}
			ctx, end := context.WithCancel(t.Context())
			defer end()
			p := newPump(x)
			p.reset()
			x.client = interrupted{then: func() {
				if tc.then != nil {
					tc.then(p)
				}
				p.end()
			}}
			x.ctx, x.attempt.up, x.attempts = ctx, ending{left: &left}, 1
			x.deadline, x.lifeEnd = noDeadline, noDeadline
			x.pump, x.keep, x.complete, x.resp.Status = p, true, false, 503
			x.sel.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: tc.retries, BackOffBase: time.Nanosecond}
			if tc.over {
				x.sel.Retry.BackOffBase = 1000 * time.Hour
				end()
			}
			if o, again := x.retryResponse(); o != tc.outcome || again != tc.again || left != tc.left {
				t.Errorf("outcome %d, again %v, left %d times", o, again, left)
			}
			if left == 0 { // the response is relayed, and its end ends the rest
				if p.replay.Load() != replayKept {
					t.Error("the pump keeps what it reads for an attempt that is not made")
				}
				x.endUpstream(true)
			}
			x.endRetry(false)
			x.pump = nil
		})
	}
	b.atRest()
}

// TestWaitTurn: a turn comes after its wait, which the time of the exchange ends.
func TestWaitTurn(t *testing.T) {
	const soon = 5 * time.Millisecond
	ts := NewTimers()
	defer ts.Close()
	for name, tc := range map[string]struct {
		wait, left, life, idle time.Duration
		over, gone             bool
		want                   outcome
	}{
		"its turn":              {wait: time.Millisecond, left: time.Hour, want: responded},
		"without end":           {wait: time.Millisecond, want: responded},
		"too late":              {wait: time.Hour, left: soon, life: time.Hour, want: timedOut},
		"too late for all":      {wait: time.Hour, left: time.Hour, life: soon, want: lifeOver},
		"nothing moves":         {wait: time.Hour, idle: soon, want: idleTimedOut},
		"it ends":               {wait: time.Hour, over: true, want: clientGone},
		"it ends in time":       {wait: time.Minute, left: time.Hour, over: true, want: clientGone},
		"nobody waits any more": {wait: time.Hour, gone: true, want: clientGone},
		"nobody sees its turn":  {wait: time.Millisecond, gone: true, want: clientGone},
	} {
		ctx, end := context.WithCancel(t.Context())
		c := &leaver{}
		x := &exchange{ctx: ctx, client: c, dog: &watchdog{}, complete: true, deadline: noDeadline, lifeEnd: noDeadline}
		x.m = &Manager{streamIdle: int64(tc.idle)}
		x.dog.start(ts, c)
		if tc.left > 0 {
			x.deadline = monotonic() + int64(tc.left)
		}
		if tc.life > 0 {
			x.lifeEnd = monotonic() + int64(tc.life)
		}
		if tc.over {
			time.AfterFunc(soon, end)
		}
		c.left.Store(tc.gone)
		began := time.Now()
		if got := x.waitTurn(tc.wait); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
		if time.Since(began) > 900*time.Millisecond {
			t.Errorf("%s: it waited", name)
		}
		x.dog.stop()
		end()
	}
}

// TestInterimResponseAndRetry: once an interim response was passed on the exchange is its
// host's; another attempt might send one too. However the attempt ends then, it was the last.
func TestInterimResponseAndRetry(t *testing.T) {
	for name, then := range map[string]string{"an answer": "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "no answer": ""} {
		t.Run(name, func(t *testing.T) {
			var seen atomic.Int32
			b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
				for {
					if _, _, err := readRequest(r); err != nil {
						return
					}
					switch seen.Add(1) {
					case 1: // the connection is a used one for the next
						_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
						continue
					case 2:
						_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </first>\r\n\r\n"+then)
					default:
						_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </second>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					}
					if then == "" {
						return
					}
				}
			}))
			b.route().Forward.Retry = &route.RetryPolicy{On: route.Retry5xx | route.RetryReset, NumRetries: 1, BackOffBase: time.Nanosecond}
			b.start()
			c := b.dial()
			c.do(simpleGet)
			c.send("GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
			all, _ := io.ReadAll(c.r)
			answer := string(all)
			if strings.Count(answer, " 103 ") != 1 || !strings.Contains(answer, "HTTP/1.1 503 ") || seen.Load() != 2 {
				t.Errorf("%d requests: %q", seen.Load(), answer)
			}
		})
	}
}

// leaver is a client that tells when it has left.
type leaver struct {
	nobody
	left atomic.Bool
}

func (l *leaver) gone() bool { return l.left.Load() }
