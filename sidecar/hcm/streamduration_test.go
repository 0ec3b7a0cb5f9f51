package hcm

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// limitStreams bounds how long the origin's streams last.
func (b *bed) limitStreams(d time.Duration) {
	b.t.Helper()
	cfg := *b.clusters.Get("origin").Config()
	cfg.HTTP.MaxStreamDuration = d
	if err := b.clusters.Update(&cfg); err != nil {
		b.t.Fatal(err)
	}
}

// TestStreamsOfAClusterAreBounded: each attempt has the cluster's max_stream_duration from the
// moment at which it has a connection, the answer's body included. It ends as a reset does, which
// the policy may retry, and says nothing of the host.
func TestStreamsOfAClusterAreBounded(t *testing.T) {
	const post = "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n"
	for name, tc := range map[string]struct {
		raw    string
		answer string // of the second attempt; the first has none
		begun  string // what the first attempt has of an answer
		change func(*bed)
		status int
		log    string
		counts uint64
	}{
		"no answer":                {simpleGet, "", "", func(*bed) {}, 504, "504 UMSDR upstream_max_stream_duration_reached", 1},
		"the body does not come":   {post, "", "", func(*bed) {}, 408, "408 UMSDR upstream_max_stream_duration_reached", 1},
		"an answer without end":    {simpleGet, "", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", func(*bed) {}, 200, "200 UMSDR upstream_max_stream_duration_reached", 1},
		"a tunnel":                 {"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: abc\r\n\r\n", "", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n", func(b *bed) { b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}} }, 101, "101 UMSDR upstream_max_stream_duration_reached", 1},
		"the attempt's ends first": {simpleGet, "", "", func(b *bed) { b.route().Forward.Retry = &route.RetryPolicy{PerTryTimeout: 50 * time.Millisecond} }, 504, "504 UT upstream_per_try_timeout", 0},
		"the attempt's ends later": {simpleGet, "", "", func(b *bed) { b.route().Forward.Retry = &route.RetryPolicy{PerTryTimeout: time.Second} }, 504, "504 UMSDR upstream_max_stream_duration_reached", 1},
		"the route's ends first":   {simpleGet, "", "", func(b *bed) { b.route().Forward.Timeout = 50 * time.Millisecond }, 504, "504 UT response_timeout", 0},
		"the manager's ends first": {simpleGet, "", "", func(b *bed) { b.cfg.MaxStreamDuration = 50 * time.Millisecond }, 504, "504 DT max_duration_timeout", 0},
		"the request's ends first": {post, "", "", func(b *bed) { b.cfg.RequestTimeout = 50 * time.Millisecond }, 408, "408 - request_overall_timeout", 0},
		"it is retried": {simpleGet, "HTTP/1.1 204 OK\r\n\r\n", "", func(b *bed) {
			b.route().Forward.Retry = &route.RetryPolicy{On: route.RetryReset, NumRetries: 1, BackOffBase: 1}
		}, 204, "204 - via_upstream", 1},
		"each has its own": {simpleGet, "", "", func(b *bed) {
			b.route().Forward.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: 2, BackOffBase: 1}
		}, 504, "504 URX,UMSDR upstream_max_stream_duration_reached", 3},
		"hedged": {simpleGet, "", "", func(b *bed) {
			b.route().Forward.Retry = &route.RetryPolicy{On: route.RetryReset, NumRetries: 1, BackOffBase: 1, PerTryTimeout: 60 * time.Millisecond}
			b.route().Forward.Hedge = &route.HedgePolicy{OnPerTryTimeout: true}
		}, 504, "504 URX,UMSDR upstream_max_stream_duration_reached", 2},
	} {
		t.Run(name, bubble(func(t *testing.T) {
			var came atomic.Int32
			b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
				for line := ""; line != "\r\n"; {
					line, _ = r.ReadString('\n')
				}
				if came.Add(1) > 1 && tc.answer != "" {
					_, _ = io.WriteString(c, tc.answer)
				}
				_, _ = io.WriteString(c, tc.begun)
				_, _ = io.Copy(io.Discard, r)
			}))
			b.limitStreams(100 * time.Millisecond)
			tc.change(b)
			c := b.start().dial()
			c.send(tc.raw)
			if resp, err := http.ReadResponse(c.r, nil); err != nil || resp.StatusCode != tc.status {
				t.Errorf("%v, %v", resp, err)
			}
			if line := b.logged(1)[0]; !strings.Contains(line, " "+tc.log+" ") {
				t.Error(line)
			}
			if n := b.metrics.Cluster("origin").Use().Failures[telemetry.FailedStreamDuration].Value(); n != tc.counts {
				t.Errorf("%d counted, want %d", n, tc.counts)
			}
		}))
	}
}

// TestHostEndsAtTheSameTime: a host that has the exchange's time from grpc-timeout resets its stream at
// the end of it. The time was over, whoever says so first: a gRPC client is told of its deadline.
func TestHostEndsAtTheSameTime(t *testing.T) {
	const limit = 50 * time.Millisecond
	for name, limited := range map[string]struct {
		by  func(*bed)
		log string
	}{
		"max_stream_duration": {func(b *bed) { b.cfg.MaxStreamDuration = limit }, "504 DT max_duration_timeout"},
		"timeout":             {func(b *bed) { b.route().Forward.Timeout = limit }, "504 UT response_timeout"},
	} {
		t.Run(name, bubble(func(t *testing.T) {
			b := newBed(t, framesOrigin(t, func(f *xhttp2.Framer, fr xhttp2.Frame) {
				if h := fr.Header(); h.Type == xhttp2.FrameHeaders {
					time.Sleep(limit)
					_ = f.WriteRSTStream(h.StreamID, xhttp2.ErrCodeCancel)
				}
			}))
			cfg := *b.clusters.Get("origin").Config()
			cfg.HTTP.Protocol = cluster.SpeakHTTP2
			if err := b.clusters.Update(&cfg); err != nil {
				t.Fatal(err)
			}
			limited.by(b)
			client := b.start().dial()
			for range 20 {
				if resp, _ := client.do(simpleGet); resp.StatusCode != 504 {
					t.Errorf("answered with %d", resp.StatusCode)
				}
			}
			for _, line := range b.logged(20) {
				if !strings.Contains(line, " "+limited.log+" ") {
					t.Error(line)
				}
			}
		}))
	}
}
