package hcm

import (
	"bufio"
	"context"
	"crypto/tls"
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

// silentOrigin takes connections and says nothing on them.
func silentOrigin(t testing.TB) string {
	return rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
}

// departing sends a POST that is cancelled once it waits, and returns when it was.
func (b *bed) departing(version int, waits func() bool) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		req, _ := http.NewRequestWithContext(ctx, "POST", "http://"+b.addr+"/pay", nil)
		if resp, err := b.httpClient(version).Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	b.eventually("the request waits", waits)
	cancel()
	<-done
}

// eventually waits for a condition.
func (b *bed) eventually(what string, is func() bool) {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if is() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	b.t.Fatalf("it never came to this: %s", what)
}

// metric tells whether the metrics have a line.
func (b *bed) metric(line string) bool {
	var text strings.Builder
	_ = b.metrics.Registry.WritePrometheus(&text)
	return strings.Contains(text.String(), line+"\n")
}

const onePending = `hauberk_upstream_requests_active{cluster="origin",state="pending"} 1`

// departed is how the access log tells of a client that left.
var departed = [3]string{1: "DC downstream_remote_disconnect", 2: "DR http2.remote_reset"}

// single lets the cluster have one connection, which the test holds with a GET until it
// calls release.
func (b *bed) single(origin chan struct{}) (release func()) {
	b.t.Helper()
	cfg := *b.clusters.Get("origin").Config()
	cfg.Limits.MaxConnections = 1
	if err := b.clusters.Update(&cfg); err != nil {
		b.t.Fatal(err)
	}
	b.start()
	first := b.dial()
	first.send(simpleGet)
	<-origin
	return func() {
		origin <- struct{}{}
		first.answer("GET")
	}
}

// TestPendingClientLeaves: a client that leaves while its request waits for a connection is
// noticed, its place is given back, and its request is sent to nobody.
func TestPendingClientLeaves(t *testing.T) {
	for version := 1; version <= 2; version++ {
		held := make(chan struct{})
		var posts atomic.Int32
		b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "POST" {
				posts.Add(1)
				return
			}
			held <- struct{}{}
			<-held
		}))
		release := b.single(held)
		b.departing(version, func() bool { return b.metric(onePending) })
		b.eventually("nothing waits", func() bool { return !b.metric(onePending) })
		if lines := b.logged(1); !strings.Contains(lines[0], departed[version]) {
			t.Errorf("HTTP/%d: the access log says %q", version, lines[0])
		}
		release()
		b.logged(2)
		if n := posts.Load(); n > 0 {
			t.Errorf("HTTP/%d: the request was sent after its client had left", version)
		}
	}
}

// TestPendingHasTime: what bounds a request bounds its wait for a connection.
func TestPendingHasTime(t *testing.T) {
	const short = 100 * time.Millisecond
	for _, tc := range []struct {
		name    string
		forward route.Forward
		log     string
	}{
		{"idle timeout", route.Forward{IdleTimeout: ptr(short)}, "504 SI stream_idle_timeout"},
		{"longest duration", route.Forward{StreamDuration: &route.StreamDuration{Max: ptr(short)}}, "504 DT max_duration_timeout"},
		{"timeout", route.Forward{Timeout: short}, "504 UT response_timeout"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			held := make(chan struct{})
			b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
				held <- struct{}{}
				<-held
			}))
			tc.forward.Cluster = "origin"
			vh := b.vhost()
			vh.Routes = append([]route.Route{{Match: route.Match{Prefix: ptr("/bounded")}, Forward: &tc.forward}}, vh.Routes...)
			b.single(held)
			defer close(held)
			c := b.dial()
			c.send("GET /bounded HTTP/1.1\r\nHost: h\r\n\r\n")
			c.answer("GET")
			b.wantLog(tc.log)
		})
	}
}

// TestConnectingClientLeaves: a client that leaves while a connection is being made for its
// request, which the host is not to blame for.
func TestConnectingClientLeaves(t *testing.T) {
	for version := 1; version <= 2; version++ {
		ids := &identities{t: t, certs: map[string]tls.Certificate{}}
		b := newBed(t)
		_ = b.clusters.Close()
		b.clusters = cluster.NewManager(cluster.Options{Metrics: b.metrics, TLS: ids})
		err := b.clusters.Update(&cluster.Config{Name: "origin", Endpoints: endpoints("origin", silentOrigin(t)), TLS: &cluster.TLS{SNI: "silent"}})
		if err != nil {
			t.Fatal(err)
		}
		b.start()
		b.departing(version, func() bool { return b.metric(onePending) })
		if lines := b.logged(1); !strings.Contains(lines[0], departed[version]) {
			t.Errorf("HTTP/%d: the access log says %q", version, lines[0])
		}
		if h := b.clusters.Get("origin").Stats()[0]; h.Active != 0 || h.ConnectFailed != 0 {
			t.Errorf("HTTP/%d: %+v", version, h)
		}
	}
}

// TestUpgradeToSilentHost: a host of HTTP/2 that never says whether it takes upgrades. What
// bounds the request ends it, and so does a client that leaves.
func TestUpgradeToSilentHost(t *testing.T) {
	const short = 100 * time.Millisecond
	for _, tc := range []struct {
		name   string
		change func(*bed)
		log    string
	}{
		{"idle timeout", func(b *bed) { b.cfg.StreamIdleTimeout = short }, "SI stream_idle_timeout"},
		{"longest duration", func(b *bed) { b.cfg.MaxStreamDuration = short }, "408 DT max_duration_timeout"},
		{"client leaves", func(*bed) {}, departed[1]},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, silentOrigin(t))
			b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}}
			tc.change(b)
			b.http2Cluster()
			b.start()
			c := b.dial()
			c.send("GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: abc\r\n\r\n")
			if tc.name == "client leaves" {
				b.eventually("the host has the request", func() bool { return b.clusters.Get("origin").Stats()[0].Active == 1 })
				_ = c.Close()
			} else {
				c.answer("GET")
			}
			b.wantLog(tc.log)
			b.eventually("the host has no request", func() bool { return b.clusters.Get("origin").Stats()[0].Active == 0 })
		})
	}
}

// TestBlackHoleIsEjected: a host to which no connection can be made is found out, also where
// no request waits as long as the connect timeout.
func TestBlackHoleIsEjected(t *testing.T) {
	b := newBed(t)
	_ = b.clusters.Close()
	b.clusters = cluster.NewManager(cluster.Options{Metrics: b.metrics, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	if err := b.clusters.Update(&cluster.Config{
		Name: "origin", Endpoints: endpoints("origin", "10.0.0.1:80"), ConnectTimeout: 100 * time.Millisecond,
		Outlier: &cluster.Outlier{Consecutive5xx: 3, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 100},
	}); err != nil {
		t.Fatal(err)
	}
	b.route().Forward.Timeout = 30 * time.Millisecond
	b.start()
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); {
		if b.dial().do("GET /x HTTP/1.1\r\nHost: h\r\n\r\n"); b.clusters.Get("origin").Stats()[0].Ejected {
			return
		}
	}
	t.Errorf("%+v", b.clusters.Get("origin").Stats()[0])
}

// rateLimited answers each request with 429 and asks for quiet.
func rateLimited(t testing.TB, seconds string, seen *atomic.Int32) string {
	return httpOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		seen.Add(1)
		w.Header().Set("Retry-After", seconds)
		w.Header().Set("X-Envoy-Ratelimited", "true")
		w.WriteHeader(429)
	})
}

var retriesLimited = &route.RetryPolicy{On: route.RetryRateLimited, NumRetries: 10, BackOffBase: 1,
	RateLimited: &route.RateLimitedBackOff{Headers: []route.ResetHeader{{Name: "retry-after"}}}}

// TestBackOffOutlastsTimeout: a host that asks for more quiet than there is time has it,
// and the client its timeout.
func TestBackOffOutlastsTimeout(t *testing.T) {
	var seen atomic.Int32
	b := newBed(t, rateLimited(t, "30", &seen))
	b.route().Forward.Timeout = 100 * time.Millisecond
	b.route().Forward.Retry = retriesLimited
	b.start()
	if resp, body := b.dial().do(simpleGet); resp.StatusCode != 504 || body != "upstream request timeout" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	b.wantLog("504 UT response_timeout")
	if n := seen.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// TestBackOffClientLeaves: a client that leaves while its request waits for another
// attempt is noticed, and gives its place in the retry budget back.
func TestBackOffClientLeaves(t *testing.T) {
	for version := 1; version <= 2; version++ {
		var seen atomic.Int32
		b := newBed(t, rateLimited(t, "30", &seen))
		b.route().Forward.Timeout, b.route().Forward.Retry = 0, retriesLimited
		cfg := *b.clusters.Get("origin").Config()
		cfg.Limits.MaxRetries = 1
		if err := b.clusters.Update(&cfg); err != nil {
			t.Fatal(err)
		}
		b.start()
		b.departing(version, func() bool {
			h := b.clusters.Get("origin").Stats()[0]
			return seen.Load() == 1 && h.Active == 0
		})
		if lines := b.logged(1); !strings.Contains(lines[0], departed[version]) {
			t.Errorf("HTTP/%d: the access log says %q", version, lines[0])
		}
		if n := seen.Load(); n != 1 {
			t.Errorf("HTTP/%d: %d requests", version, n)
		}
		if !b.clusters.Get("origin").StartRetry(0) {
			t.Errorf("HTTP/%d: the retry is still under way", version)
		}
	}
}
