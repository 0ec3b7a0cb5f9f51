package hcm

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// logsAttempts has attempts logged, and nothing else.
func (b *bed) logsAttempts(format string) {
	b.cfg.AccessLog = nil
	b.cfg.UpstreamLog = &UpstreamLog{Logs: []telemetry.AccessLogConfig{{Path: b.logPath, Format: format + "\n"}}}
}

// TestAttemptReports: an attempt that lasts is logged when it has its connection, again and again,
// and at its end, with the bytes that its host was sent and has sent.
func TestAttemptReports(t *testing.T) {
	b := newBed(t, upperOrigin(t))
	b.logsAttempts("%ACCESS_LOG_TYPE% %RESPONSE_CODE% %BYTES_SENT% %BYTES_RECEIVED% %UPSTREAM_CLUSTER%")
	b.cfg.UpstreamLog.OnStream, b.cfg.UpstreamLog.Interval = true, 50*time.Millisecond
	b.route().Match = route.Match{Connect: true}
	b.route().Forward.Upgrades = []route.Upgrade{{Type: "CONNECT", Terminate: true}}
	b.start()
	c := b.dial()
	c.send("CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n")
	if resp, err := http.ReadResponse(c.r, &http.Request{Method: "CONNECT"}); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	c.send("abc")
	if _, err := io.ReadFull(c.r, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	const during = "UpstreamPeriodic 200 3 3 origin"
	b.eventually("it is logged again and again", func() bool {
		lines := b.logged(1)
		return len(lines) > 2 && lines[len(lines)-1] == during && lines[len(lines)-2] == during
	})
	if lines := b.logged(1); lines[0] != "UpstreamPoolReady 0 0 0 origin" {
		t.Errorf("%q", lines)
	}
	_ = c.Close()
	b.eventually("its end is logged", func() bool {
		lines := b.logged(1)
		return lines[len(lines)-1] == "UpstreamEnd 200 3 3 origin"
	})
}

// TestAttemptsBeside: the attempts of a hedged request have a record each; and the copy for a mirror has one.
func TestAttemptsBeside(t *testing.T) {
	release := make(chan struct{})
	var n atomic.Int32
	b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) == 1 {
			<-release
		}
		w.WriteHeader(201)
	}))
	b.cluster("mirror", httpOrigin(t, func(http.ResponseWriter, *http.Request) {}))
	b.logsAttempts("%RESPONSE_CODE% %RESPONSE_FLAGS% %UPSTREAM_CLUSTER% %REQ(X-ENVOY-ATTEMPT-COUNT)%")
	b.cfg.Routes.VirtualHosts[0].AttemptCountInRequest = true
	f := b.route().Forward
	f.Retry = &route.RetryPolicy{NumRetries: 1, On: route.Retry5xx, PerTryTimeout: 50 * time.Millisecond}
	f.Hedge = &route.HedgePolicy{OnPerTryTimeout: true}
	f.Mirrors = []route.Mirror{{Cluster: "mirror", Share: route.All}}
	b.start()
	if resp, _ := b.dial().do(simpleGet); resp.StatusCode != 201 {
		t.Error(resp.StatusCode)
	}
	lines := b.logged(3)
	close(release)
	slices.Sort(lines)
	if !slices.Equal(lines, []string{"0 UT origin 1", "200 - mirror 1", "201 - origin 2"}) {
		t.Errorf("%q", lines)
	}
}

// TestAttemptOfAFault: of an exchange that panics nothing is reported any more.
func TestAttemptOfAFault(t *testing.T) {
	b := newBed(t, "127.0.0.1:1")
	b.logsAttempts("%ACCESS_LOG_TYPE%")
	b.cfg.UpstreamLog.Interval = time.Hour
	b.start()
	x := besides(b)
	defer x.leave()
	x.d.Info, x.cluster = &stream.Info{}, b.clusters.Get("origin")
	if o := x.attempt.choose(); o != responded {
		t.Fatal(o)
	}
	x.attempt.startLog()
	before := len(b.m.timers.entries)
	x.attempt.wreck()
	if after := len(b.m.timers.entries); after != before-1 || x.attempt.log != nil {
		t.Errorf("%d timers, of %d before", after, before)
	}
}

// TestBudgets: how much of its time a request takes is counted where the cluster has it so, and of
// each attempt.
func TestBudgets(t *testing.T) {
	for name, tc := range map[string]struct {
		total, try     time.Duration
		takes          time.Duration
		request, tries string
	}{
		"in time":             {4 * time.Second, 2 * time.Second, time.Second, `{cluster="origin",of="request"} 0.25`, `{cluster="origin",of="attempt"} 0.5`},
		"without limits":      {0, 0, time.Second, `{cluster="origin",of="request"} 0`, `{cluster="origin",of="attempt"} 0`},
		"its time is over":    {time.Second, 0, 2 * time.Second, `{cluster="origin",of="request"} 1`, `{cluster="origin",of="attempt"} 0`},
		"the attempt's is so": {4 * time.Second, time.Second, 2 * time.Second, `{cluster="origin",of="request"} 0.25`, `{cluster="origin",of="attempt"} 1`},
	} {
		t.Run(name, bubble(func(t *testing.T) {
			b := newBed(t)
			addr := rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
				if _, _, err := readRequest(r); err != nil {
					return
				}
				time.Sleep(tc.takes)
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			})
			if err := b.clusters.Update(&cluster.Config{Name: "origin", Endpoints: endpoints("origin", addr), TrackBudgets: true}); err != nil {
				t.Fatal(err)
			}
			b.route().Forward.Timeout = tc.total
			b.route().Forward.Retry = &route.RetryPolicy{PerTryTimeout: tc.try}
			b.start()
			_, _ = b.dial().do(simpleGet)
			synctest.Wait()
			for _, want := range []string{tc.request, tc.tries} {
				if line := "hauberk_upstream_timeout_budget_used_ratio_sum" + want; !b.metric(line) {
					t.Error("there is no", line)
				}
			}
			b.eventually("both are counted once", func() bool {
				return b.metric(`hauberk_upstream_timeout_budget_used_ratio_count{cluster="origin",of="request"} 1`) &&
					b.metric(`hauberk_upstream_timeout_budget_used_ratio_count{cluster="origin",of="attempt"} 1`)
			})
		}))
	}
}

// TestBudgetsOfWholeAnswers: what broke off, and what was answered by a redirect that was followed, took no
// part of its time; each attempt did.
func TestBudgetsOfWholeAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		answers  []string
		requests string
		attempts string
	}{
		"broken off": {[]string{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"}, "0", "1"},
		"redirected": {[]string{"HTTP/1.1 302 Found\r\nLocation: http://h/b\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}, "1", "2"},
	} {
		t.Run(name, bubble(func(t *testing.T) {
			b := newBed(t)
			addr := rawOrigin(t, func(n int, c net.Conn, r *bufio.Reader) {
				for _, answer := range tc.answers {
					if _, _, err := readRequest(r); err != nil {
						return
					}
					_, _ = io.WriteString(c, answer)
				}
			})
			if err := b.clusters.Update(&cluster.Config{Name: "origin", Endpoints: endpoints("origin", addr), TrackBudgets: true}); err != nil {
				t.Fatal(err)
			}
			b.route().Forward.InternalRedirect = &route.InternalRedirect{Max: 1, Codes: []int{302}}
			b.start()
			b.dial().send(simpleGet)
			b.logged(len(tc.answers))
			for of, want := range map[string]string{"request": tc.requests, "attempt": tc.attempts} {
				line := `hauberk_upstream_timeout_budget_used_ratio_count{cluster="origin",of="` + of + `"} ` + want
				b.eventually(line, func() bool {
					return b.metric(line) || want == "0" && !b.metric(`hauberk_upstream_timeout_budget_used_ratio_count{cluster="origin",of="`+of+`"} 1`)
				})
			}
		}))
	}
}
