package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/hauberk-mesh/hauberk/sidecar/config"
)

// loopbackNameserver answers that every name is at 127.0.0.1, until the test ends.
func loopbackNameserver(t *testing.T) net.Addr {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { _ = pc.Close(); <-ended })
	go func() {
		defer close(ended)
		b := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Header = dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}
			m.Additionals = nil
			if q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 5}, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}}}
			}
			out, _ := m.Pack()
			_, _ = pc.WriteTo(out, from)
		}
	}()
	return pc.LocalAddr()
}

// TestDefaultsOfClusters: what the bootstrap says for its clusters is in force: whom their names are
// asked of, where connections come from, and where it is written that a host was ejected.
func TestDefaultsOfClusters(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		w.WriteHeader(500)
		_, _ = io.WriteString(w, host)
	}))
	defer origin.Close()
	events := filepath.Join(t.TempDir(), "events")
	b, err := config.ParseBootstrap(fmt.Appendf(nil, `
dns_resolution_config: {resolvers: [{socket_address: {address: 127.0.0.1, port_value: %d}}]}
cluster_manager:
  upstream_bind_config: {source_address: {address: 127.0.0.9, port_value: 0}}
  outlier_detection: {event_log_path: %s}
static_resources:
  clusters:
  - name: c
    type: STRICT_DNS
    outlier_detection: {consecutive_5xx: 1, max_ejection_percent: 100}
    load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: nowhere.test, port_value: %d}}}}]}]}
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: x
          http_filters: [{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
          route_config: {virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: c}}]}]}
`, loopbackNameserver(t).(*net.UDPAddr).Port, events, origin.Listener.Addr().(*net.TCPAddr).Port))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Build(Config{Bootstrap: b, Admin: "127.0.0.1:0", DrainTime: time.Second, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	eventually(t, "the listener", func() bool { return s.Addrs().Listeners["l"] != nil })
	code, from := 503, ""
	for until := time.Now().Add(10 * time.Second); code == 503 && time.Now().Before(until); {
		code, from = call(t, "GET", s.Addrs().Listeners["l"], "/", "")
	}
	if code != 500 || from != "127.0.0.9" {
		t.Errorf("%d from %s", code, from)
	}
	stop()
	if err := errors.Join(<-done, s.Close()); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(events); err != nil || !strings.Contains(string(text), `"CONSECUTIVE_5XX"`) {
		t.Errorf("%q %v", text, err)
	}
}
