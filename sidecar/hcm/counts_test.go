package hcm

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestAttemptsThatWereGivenUpAreCounted: an attempt that was sent is one, whoever does not
// wait for its answer.
func TestAttemptsThatWereGivenUpAreCounted(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*bed)
		leave  func(*testClient)
	}{
		"the client left":  {func(*bed) {}, func(c *testClient) { _ = c.Close() }},
		"its time is over": {func(b *bed) { b.cfg.MaxStreamDuration = time.Second }, func(*testClient) {}},
	} {
		t.Run(name, bubble(func(t *testing.T) {
			got, over := make(chan struct{}), make(chan struct{})
			b := newBed(t, rawOrigin(t, func(_ int, _ net.Conn, r *bufio.Reader) {
				if _, _, err := readRequest(r); err == nil {
					close(got)
				}
				<-over
			}))
			defer close(over)
			tc.change(b)
			b.start()
			c := b.dial()
			c.send(simpleGet)
			<-got
			tc.leave(c)
			b.eventually("the attempt is counted", func() bool {
				return b.metric(`hauberk_upstream_requests_total{cluster="origin",code_class="none"} 1`)
			})
		}))
	}
}

// TestEachRetryIsCounted: each by how it went. One that another follows has failed.
func TestEachRetryIsCounted(t *testing.T) {
	for name, tc := range map[string]struct {
		good             int32 // the attempt that is
		success, failure string
	}{
		"the second is good": {3, "1", "1"},
		"none is":            {9, "0", "3"},
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				if n.Add(1) != tc.good {
					w.WriteHeader(503)
				}
				_, _ = io.WriteString(w, strings.Repeat("x", 10))
			}))
			b.route().Forward.Retry = &route.RetryPolicy{NumRetries: 3, On: route.Retry5xx}
			b.start()
			_, _ = b.dial().do(simpleGet)
			b.eventually("each retry is counted", func() bool {
				return b.metric(`hauberk_upstream_retries_total{cluster="origin",result="success"} `+tc.success) &&
					b.metric(`hauberk_upstream_retries_total{cluster="origin",result="failure"} `+tc.failure)
			})
		})
	}
}

// TestFailureAfterTheAnswerBegan: as in Envoy an attempt whose answer does not come whole has
// failed, however it began, and what the host did counts against it.
func TestFailureAfterTheAnswerBegan(t *testing.T) {
	for name, tc := range map[string]struct {
		end     func(net.Conn)
		reason  string
		ejected int
	}{
		"the host closes": {func(c net.Conn) { _ = c.Close() }, "protocol_error", 1},
		"the host resets": {func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); _ = c.Close() }, "protocol_error", 1},
		"the host stops":  {func(net.Conn) {}, "timeout", 0},
	} {
		t.Run(name, func(t *testing.T) {
			began, over := make(chan struct{}), make(chan struct{})
			b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
				if _, _, err := readRequest(r); err == nil {
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1234")
					<-began
					tc.end(c)
				}
				<-over
			}))
			defer close(over)
			cfg := *b.clusters.Get("origin").Config()
			cfg.Outlier = &cluster.Outlier{Consecutive5xx: 1, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 100}
			if err := b.clusters.Update(&cfg); err != nil {
				t.Fatal(err)
			}
			b.route().Forward.Timeout = 300 * time.Millisecond
			b.start()
			c := b.dial()
			c.send(simpleGet)
			if line, err := c.r.ReadString('\n'); err != nil || !strings.Contains(line, "200") {
				t.Fatalf("%q, %v", line, err)
			}
			close(began)
			want := `hauberk_upstream_failures_total{cluster="origin",reason="` + tc.reason + `"} 1`
			b.eventually("the failure is counted", func() bool { return b.failures() == want })
			if !b.metric(fmt.Sprintf(`hauberk_upstream_ejections_total{cluster="origin"} %d`, tc.ejected)) {
				t.Errorf("the host is not to be ejected %d times", tc.ejected)
			}
		})
	}
}

// TestOverflowAgesNoConnection: a connection that was had for a request, and not used, is as
// young as it was, however long the client had been there.
func TestOverflowAgesNoConnection(t *testing.T) {
	t.Parallel()
	const idle = 2 * time.Second
	held, closed := make(chan struct{}), make(chan struct{}, 2)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == "PUT" {
			held <- struct{}{}
			<-held
		}
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			closed <- struct{}{}
		}
	}
	srv.Start()
	b := newBed(t, srv.Listener.Addr().String())
	t.Cleanup(srv.Close)
	cfg := *b.clusters.Get("origin").Config()
	cfg.IdleTimeout = idle
	update := func() {
		next := cfg // what is in force is not changed
		if err := b.clusters.Update(&next); err != nil {
			t.Fatal(err)
		}
	}
	update()
	b.start()
	old := b.dial()
	time.Sleep(idle + 200*time.Millisecond)
	b.dial().send("PUT / HTTP/1.1\r\nHost: h\r\n\r\n")
	<-held
	defer func() { held <- struct{}{} }()
	b.dial().do(simpleGet)
	cfg.Limits.MaxRequests = 1
	update()
	if resp, _ := old.do(simpleGet); resp.StatusCode != 503 {
		t.Fatalf("status %d", resp.StatusCode)
	}
	select {
	case <-closed:
		t.Error("the connection that was not used is closed")
	case <-time.After(idle * 3 / 4):
	}
}
