package hcm

import (
	"strings"
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
