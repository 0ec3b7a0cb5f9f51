package hcm

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
)

// keepalive has the cluster "origin" spoken to in HTTP/2, with PINGs.
func (b *bed) keepalive(every, wait time.Duration) {
	b.t.Helper()
	cfg := *b.clusters.Get("origin").Config()
	cfg.HTTP.Protocol, cfg.HTTP.HTTP2 = cluster.SpeakHTTP2, http2.Default()
	cfg.HTTP.HTTP2.Keepalive = http2.Keepalive{Interval: every, Timeout: wait}
	if err := b.clusters.Update(&cfg); err != nil {
		b.t.Fatal(err)
	}
}

// TestKeepaliveTimeout: a host that does not answer PINGs is lost; it broke no protocol.
func TestKeepaliveTimeout(t *testing.T) {
	b := newBed(t, framesOrigin(t, func(*xhttp2.Framer, xhttp2.Frame) {}))
	b.keepalive(50*time.Millisecond, 50*time.Millisecond)
	b.start()
	resp, _ := b.dial().do(simpleGet)
	if line := b.logged(1)[0]; resp.StatusCode != 503 || !strings.Contains(line, " 503 UC upstream_reset_before_response_started{connection_termination}") {
		t.Errorf("%d: %s", resp.StatusCode, line)
	}
	if b.metric(`hauberk_protocol_errors_total{side="upstream",reason="keepalive_timeout"} 1`) {
		t.Error("it is counted as a broken protocol")
	}
}

// TestRefusedAfterTheAnswerBegan: a stream that its host refuses once the answer has begun was
// reset; the connection stands. The client must not take its request for one that was not
// processed.
func TestRefusedAfterTheAnswerBegan(t *testing.T) {
	b := newBed(t, framesOrigin(t, func(f *xhttp2.Framer, fr xhttp2.Frame) {
		if h := fr.Header(); h.Type == xhttp2.FrameHeaders {
			_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: h.StreamID, BlockFragment: []byte{0x88}, EndHeaders: true}) // 200
		} else if h.Type == xhttp2.FrameData {
			_ = f.WriteRSTStream(h.StreamID, xhttp2.ErrCodeRefusedStream)
		}
	}))
	b.http2Cluster()
	b.start()
	f := b.dialHTTP2()
	f.headers(":method: POST", ":scheme: http", ":authority: h", ":path: /")
	if got := f.outcome(); got != "HEADERS 200" {
		t.Fatal(got)
	}
	f.data("x")
	if got := f.outcome(); got != "RST_STREAM INTERNAL_ERROR" {
		t.Error(got)
	}
	if line := b.logged(1)[0]; !strings.Contains(line, " 200 UR upstream_reset_after_response_started{remote_refused_stream_reset}") {
		t.Error(line)
	}
}

// TestResetsOfASharedConnection: a stream that its host resets, or refuses, on a connection
// that stands was not lost with the connection: it counts against the host, and whether it is
// sent again is the retry policy's to say.
func TestResetsOfASharedConnection(t *testing.T) {
	for name, code := range map[string]xhttp2.ErrCode{"reset": xhttp2.ErrCodeInternal, "refused": xhttp2.ErrCodeRefusedStream} {
		t.Run(name, func(t *testing.T) {
			const before = 1 // requests that are answered, so that the connection is known
			var streams atomic.Int64
			b := newBed(t, framesOrigin(t, func(f *xhttp2.Framer, fr xhttp2.Frame) {
				h := fr.Header()
				if h.Type != xhttp2.FrameHeaders {
					return
				}
				if streams.Add(1) <= before {
					answerFrame(f, h.StreamID, "200")
				} else {
					_ = f.WriteRSTStream(h.StreamID, code)
				}
			}))
			cfg := *b.clusters.Get("origin").Config()
			cfg.HTTP.Protocol = cluster.SpeakHTTP2
			cfg.Outlier = &cluster.Outlier{Consecutive5xx: 2, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 100}
			if err := b.clusters.Update(&cfg); err != nil {
				t.Fatal(err)
			}
			client := b.start().dial()
			for i, want := range []int{200, 503, 503} {
				if resp, _ := client.do(simpleGet); resp.StatusCode != want {
					t.Errorf("request %d is answered with %d", i, resp.StatusCode)
				}
			}
			if n := streams.Load(); n != before+2 {
				t.Errorf("%d requests came", n)
			}
			if s := b.clusters.Get("origin").Stats()[0]; !s.Ejected {
				t.Errorf("not ejected: success %d, failed %d", s.Success, s.Failed)
			}
		})
	}
}
