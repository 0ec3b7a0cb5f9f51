package sidecar

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestHealthOfTheSideThatDrains: a drain of the inbound side fails the health checks that
// come in there, one of the process all of them; on connections that were open before, too.
func TestHealthOfTheSideThatDrains(t *testing.T) {
	listener := func(name, direction string) string {
		return `
  - name: ` + name + `
    traffic_direction: ` + direction + `
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: x
          drain_timeout: 60s
          http_filters:
          - name: health
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
              pass_through_mode: false
              headers: [{name: ":path", string_match: {exact: /healthz}}]
          - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]}`
	}
	s := run(t, "static_resources:\n  listeners:"+listener("in", "INBOUND")+listener("out", "OUTBOUND")+"\n")
	type checker struct {
		net.Conn
		r *bufio.Reader
	}
	ask := func(c *checker, want int) {
		t.Helper()
		_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != want {
			t.Errorf("%d, want %d", resp.StatusCode, want)
		}
	}
	dial := func(name string) *checker {
		c, err := net.Dial("tcp", s.Addrs().Listeners[name].String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		k := &checker{c, bufio.NewReader(c)}
		ask(k, 200)
		return k
	}
	in, out := dial("in"), dial("out")
	waits, cancel := context.WithCancel(t.Context())
	cancel() // the connections are to stay
	drain := func(inbound bool) {
		if err := (*view)(s).Drain(waits, inbound, 0); err != nil && !strings.Contains(err.Error(), "connections") {
			t.Fatal(err)
		}
	}
	drain(true)
	ask(in, 503)
	ask(out, 200)
	drain(false)
	ask(out, 503)
}
