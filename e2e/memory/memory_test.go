//go:build e2e

// Package memory holds the sidecar to the promises of its size: what an idle
// connection costs, and what a configuration does.
package memory

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

const connections = 4000

const (
	httpFilter = `
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: up}}]}]}
          http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]`
	tcpFilter = `
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: in
          cluster: up`
)

func bootstrap(listen, upstream, filter, downstream, up string) string {
	return fmt.Sprintf(`
static_resources:
  listeners:
  - name: in
    address: %s
    filter_chains:
    - filters:%s%s
  clusters:
  - name: up
    type: STATIC
    circuit_breakers: {thresholds: [{max_connections: 100000, max_requests: 100000, max_pending_requests: 100000}]}
    load_assignment: {cluster_name: up, endpoints: [{lb_endpoints: [{endpoint: {address: %s}}]}]}%s
`, yamlAddress(listen), filter, downstream, yamlAddress(upstream), up)
}

// message sends 1 KB and reads the answer.
func httpMessage(c net.Conn) error {
	request := "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1024\r\n\r\n" + strings.Repeat("y", messageSize)
	if _, err := io.WriteString(c, request); err != nil {
		return err
	}
	b := make([]byte, 4<<10)
	got := 0
	for !strings.Contains(string(b[:got]), "\r\n\r\nx") || b[got-1] != 'x' || got < messageSize+60 {
		n, err := c.Read(b[got:])
		if err != nil {
			return fmt.Errorf("after %q: %w", b[:got], err)
		}
		got += n
	}
	return nil
}

func tcpMessage(c net.Conn) error {
	b := make([]byte, messageSize)
	if _, err := c.Write(b); err != nil {
		return err
	}
	_, err := io.ReadFull(c, b)
	return err
}

// perConnection opens connections, has each exchange messages, and returns what
// one costs while all of them are idle: the memory of the process, and what of it
// the connection holds itself.
func perConnection(t *testing.T, s sidecar, addr string, client *tls.Config, message func(net.Conn) error) (anonymous, live float64) {
	t.Helper()
	open := func() net.Conn {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
		if client != nil {
			c = tls.Client(c, client)
		}
		for range 3 {
			if err := message(c); err != nil {
				t.Fatal(err)
			}
		}
		return c
	}
	// What the first connections bring into being is not theirs.
	for range 50 {
		_ = open().Close()
	}
	before := s.settled(t)
	without := s.live(t)
	for range connections {
		open()
	}
	after := s.settled(t)
	anonymous = float64(after.anonymous-before.anonymous) / connections
	with := s.live(t)
	if with.Goroutines > without.Goroutines+5 { // not one for each, and so no stack
		t.Errorf("%d goroutines, %d without connections", with.Goroutines, without.Goroutines)
	}
	live = float64(with.Heap-without.Heap) / connections
	t.Logf("%.0f bytes a connection, %.0f of them live; anonymous %d KB, then %d KB", anonymous, live, before.anonymous>>10, after.anonymous>>10)
	return anonymous, live
}

// The promises are 3 KB of memory for a connection of HTTP/1 in plaintext and 12 KB
// with mTLS, of TCP over both its hops. What a connection holds is the same each time
// and may not grow; how much garbage lies beside it is the host's chance.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issue("web")
	a.issue("api")
	server := a.context("DownstreamTlsContext", "api", "\n    require_client_certificate: true", "      ")
	for _, tc := range []struct {
		name       string
		filter     string
		downstream string
		serve      func(net.Conn)
		message    func(net.Conn) error
		client     *tls.Config
		anonymous  float64
		live       float64
	}{
		{"http", httpFilter, "", httpOrigin, httpMessage, nil, 3000, 1430},
		{"http mtls", httpFilter, server, httpOrigin, httpMessage, a.client("web"), 8000, 5800},
		{"tcp", tcpFilter, "", echo, tcpMessage, nil, 5500, 2550}, // two sockets
		{"tcp mtls", tcpFilter, server, echo, tcpMessage, a.client("web"), 10500, 6900},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			addr := freeAddr(t)
			s := start(t, bootstrap(addr, origin(t, tc.serve), tc.filter, tc.downstream, ""), addr)
			if anonymous, live := perConnection(t, s, addr, tc.client, tc.message); anonymous > tc.anonymous || live > tc.live {
				t.Errorf("%.0f bytes a connection, at most %.0f; %.0f live, at most %.0f", anonymous, tc.anonymous, live, tc.live)
			}
		})
	}
}

// inZone is where the sidecar is, and the cluster that it is a host of: other clusters route
// by zone then.
const inZone = `
node: {id: n1, cluster: own, locality: {zone: a}}
cluster_manager: {local_cluster_name: own}
`

const ownCluster = `  - name: own
    type: STATIC
    load_assignment:
      cluster_name: own
      endpoints:
      - {locality: {zone: a}, lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1001}}}}]}
      - {locality: {zone: b}, lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1002}}}}]}
`

// configuration is a static bootstrap of many clusters, each with a route.
func configuration(listen string, clusters int, zones bool) string {
	var routes, cs strings.Builder
	for i := range clusters {
		fmt.Fprintf(&routes, "            - {name: route-%d, domains: [\"service-%d.internal\"], routes: [{match: {prefix: /}, route: {cluster: cluster-%d}}]}\n", i, i, i)
		fmt.Fprintf(&cs, "  - {name: cluster-%d, type: STATIC, load_assignment: {cluster_name: cluster-%d, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]}}\n", i, i, 1024+i%60000)
	}
	head := ""
	if zones {
		head = inZone
		cs.WriteString(ownCluster)
	}
	return head + fmt.Sprintf(`
static_resources:
  listeners:
  - name: in
    address: %s
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
          route_config:
            virtual_hosts:
%s
  clusters:
%s`, yamlAddress(listen), routes.String(), cs.String())
}

func TestConfigurations(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		clusters            int
		zones               bool
		anonymous, resident int64
	}{
		{100, false, 15 << 20, 24 << 20},
		{10_000, false, 80 << 20, 80 << 20},
		{10_000, true, 80 << 20, 80 << 20},
	} {
		t.Run(fmt.Sprintf("%d, zones %t", tc.clusters, tc.zones), func(t *testing.T) {
			t.Parallel()
			addr := freeAddr(t)
			got := start(t, configuration(addr, tc.clusters, tc.zones), addr).settled(t)
			t.Logf("anonymous %d KB, resident %d KB", got.anonymous>>10, got.resident>>10)
			if got.anonymous > tc.anonymous || got.resident > tc.resident {
				t.Errorf("anonymous %d KB, at most %d; resident %d KB, at most %d", got.anonymous>>10, tc.anonymous>>10, got.resident>>10, tc.resident>>10)
			}
		})
	}
}
