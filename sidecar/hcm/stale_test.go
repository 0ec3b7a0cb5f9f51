package hcm

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestWhoMayMeetAStaleConnection: only a request that is then sent again by itself.
func TestWhoMayMeetAStaleConnection(t *testing.T) {
	for name, tc := range map[string]struct {
		x    *exchange
		want bool
	}{
		"idempotent":         {&exchange{complete: true, keep: true, request: message.Request{Method: "GET"}}, true},
		"not idempotent":     {&exchange{complete: true, keep: true, request: message.Request{Method: "POST"}}, false},
		"its body is gone":   {&exchange{complete: true, request: message.Request{Method: "PUT"}}, false},
		"its body is coming": {&exchange{keep: true, request: message.Request{Method: "PUT"}}, false},
		"it met one already": {&exchange{complete: true, keep: true, staleRetried: true, request: message.Request{Method: "GET"}}, false},
		"beside another":     {&exchange{complete: true, keep: true, aside: func() bool { return false }, request: message.Request{Method: "GET"}}, false},
	} {
		tc.x.req = &tc.x.request
		if got := tc.x.mayMeetStale(); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestEndOfAUsedConnection: without a policy a request is sent again where the connection
// may have been closed before it came, not where the host had it for a while.
func TestEndOfAUsedConnection(t *testing.T) {
	for name, tc := range map[string]struct {
		method string
		sent   time.Duration // ago
		wrote  bool
		again  bool
	}{
		"at once":                     {method: "PUT", wrote: true, again: true},
		"at once, with effect":        {method: "POST", wrote: true},
		"while the host worked":       {method: "PUT", wrote: true, sent: closeShows},
		"nothing of it was sent":      {method: "PUT", sent: time.Minute, again: true},
		"nothing of a POST was sent":  {method: "POST", sent: time.Minute, again: true},
		"a safe one, after some time": {method: "GET", wrote: true, sent: time.Minute},
	} {
		x := &exchange{ctx: t.Context(), keep: true, attempts: 1, ntried: 1, request: message.Request{Method: tc.method}}
		x.req, x.attempt = &x.request, &attempt{stale: true, wrote: tc.wrote}
		x.attempt.x = x
		x.attempt.sentAt = monotonic() - int64(tc.sent)
		o := x.attempt.broken(io.EOF)
		if o != reset || x.attempt.stale != (tc.sent < closeShows || !tc.wrote) {
			t.Errorf("%s: outcome %d, stale %v", name, o, x.attempt.stale)
		}
		if _, again := x.retryFailure(o); again != tc.again {
			t.Errorf("%s: sent again: %v", name, again)
		}
	}
}

// TestUnsentRequestIsMoved: a request whose connection takes no stream any more goes to
// another, also where it is not kept, as long as nothing of it was read for a host: all of it
// that has come is there.
func TestUnsentRequestIsMoved(t *testing.T) {
	for name, tc := range map[string]struct {
		attempt attempt
		pump    *pump
		was     bool // moved before
		outcome outcome
		again   bool
	}{
		"a used connection":          {attempt: attempt{stale: true}, outcome: refused, again: true},
		"its end":                    {attempt: attempt{stale: true}, outcome: reset, again: true},
		"a new one":                  {attempt: attempt{early: true}, outcome: refused, again: true},
		"once":                       {attempt: attempt{stale: true}, was: true, outcome: refused},
		"some of it was sent":        {attempt: attempt{stale: true, wrote: true}, outcome: reset},
		"more was read":              {attempt: attempt{stale: true}, pump: newPump(nil), outcome: refused},
		"by a policy it is not kept": {outcome: connectFailed},
	} {
		x := &exchange{ctx: t.Context(), attempts: 1, ntried: 1, staleRetried: tc.was, pump: tc.pump, request: message.Request{Method: "POST"}}
		x.req, x.attempt = &x.request, &tc.attempt
		x.sel.Retry = &route.RetryPolicy{On: route.RetryConnectFailure, NumRetries: 1}
		if o, again := x.retryFailure(tc.outcome); o != tc.outcome || again != tc.again {
			t.Errorf("%s: outcome %d, sent again: %v", name, o, again)
		}
	}
}

// TestUnaskedBytesAnswerNobody: what a host sends behind its answer, at once or a moment
// later, is not the answer to the next request, which may be another client's.
func TestUnaskedBytesAnswerNobody(t *testing.T) {
	const unasked = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSTOLEN"
	for _, method := range []string{"GET", "HEAD"} {
		for _, later := range []time.Duration{0, 100 * time.Microsecond} {
			t.Run(fmt.Sprint(method, " ", later), func(t *testing.T) {
				sent := make(chan struct{}, 1)
				b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
					for {
						req, err := http.ReadRequest(r)
						if err != nil {
							return
						}
						body := "ok"
						if req.Method == "HEAD" {
							body = ""
						}
						_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"+body)
						if req.URL.Path == "/more" {
							time.Sleep(later)
							_, _ = io.WriteString(c, unasked)
							sent <- struct{}{}
						}
					}
				})).start()
				first, second := b.dial(), b.dial()
				second.do(simpleGet)
				for range 3 {
					first.do(simpleGet)
				}
				first.send(method + " /more HTTP/1.1\r\nHost: h\r\n\r\n")
				first.answer(method)
				<-sent
				if resp, body := second.do(simpleGet); resp.StatusCode != 200 || body != "ok" {
					t.Errorf("%d %q", resp.StatusCode, body)
				}
				if n := b.clusters.Get("origin").Stats()[0].Failed; n != 0 {
					t.Errorf("the host is blamed %d times", n)
				}
			})
		}
	}
}

// TestFullConnection: a request that our own connection has no room for is turned away for
// that, counted once as one that the pool had no place for, and not put down to its host.
func TestFullConnection(t *testing.T) {
	b := versionedBed(t, 1, 2, func(http.ResponseWriter, *http.Request) {})
	b.route().Forward.Retry = &route.RetryPolicy{NumRetries: 3, On: route.Retry5xx | route.RetryConnectFailure | route.RetryReset}
	b.start()
	c := b.dial()
	c.do(simpleGet)
	origin := b.clusters.Get("origin")
	h, err := origin.Pick(nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := h.Acquire(func() (context.Context, context.CancelFunc) { return context.WithCancel(t.Context()) }, webID, nil, false, cluster.DefaultPriority, monotonic(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for err == nil { // nothing is flushed
		var s *http2.Stream
		if s, err = conn.HTTP2.Open(&message.Request{Method: "GET", Scheme: "http", Authority: "a", Path: "/" + strings.Repeat("x", 16<<10)}, true); err == nil {
			defer s.Close()
		}
	}
	if err != http2.ErrFull {
		t.Fatal(err)
	}
	if resp, _ := c.do(simpleGet); resp.StatusCode != 503 {
		t.Errorf("%d", resp.StatusCode)
	}
	if line := b.logged(2)[1]; !strings.Contains(line, " UO upstream_reset_before_response_started{overflow}") {
		t.Error(line)
	}
	if !b.metric(`hauberk_upstream_overflow_total{cluster="origin",limit="pending"} 1`) {
		t.Error("not counted, or more than once")
	}
	if s := origin.Stats()[0]; s.Failed != 0 || s.Requests != 1 {
		t.Errorf("the host is blamed: %+v", s)
	}
}
