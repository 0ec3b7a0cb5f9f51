package sidecar

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/config"
)

// waitingBootstrap is one whose only listener leads to none of its clusters.
func waitingBootstrap(cluster string) string {
	return `
static_resources:
  clusters:
  - name: c
    ` + cluster + `
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]}
          http_filters:
          - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
`
}

func waitingCluster(kind, host string, more string) string {
	return fmt.Sprintf("{type: %s, name: c, load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: 80}}}}]}]}%s}", kind, host, more)
}

const aSlowCheck = ", health_checks: [{timeout: %s, interval: 60s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}]"

// namesAfter answers for names when the channel is closed.
type namesAfter struct {
	answer chan struct{}
	err    error
}

func (n namesAfter) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	select {
	case <-n.answer:
	case <-ctx.Done():
	}
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, n.err
}

// TestListenersAwaitTheBootstrapsClusters: listeners of a bootstrap are bound at once and accept
// nothing before all its clusters are initialized: first checks that pass or fail, or a first
// answer for a name; at most as long as a listener waits for what it names.
func TestListenersAwaitTheBootstrapsClusters(t *testing.T) {
	refused := errors.New("nobody is there")
	for name, tc := range map[string]struct {
		cluster string
		names   error
		held    bool          // at first
		until   time.Duration // where nobody answers
	}{
		"no checks":                     {waitingCluster("STATIC", "127.0.0.1", ""), nil, false, 0},
		"checks":                        {waitingCluster("STATIC", "127.0.0.1", fmt.Sprintf(aSlowCheck, "5s")), nil, true, 5 * time.Second},
		"checks that take too long":     {waitingCluster("STATIC", "127.0.0.1", fmt.Sprintf(aSlowCheck, "50s")), nil, true, 10 * time.Second},
		"a name":                        {waitingCluster("STRICT_DNS", "there.example", ""), nil, true, 5 * time.Second},
		"a name that is not answered":   {waitingCluster("STRICT_DNS", "there.example", ""), errors.New("broken"), true, 5 * time.Second},
		"a name, logical":               {waitingCluster("LOGICAL_DNS", "there.example", ""), nil, true, 5 * time.Second},
		"a name that is not waited for": {waitingCluster("STRICT_DNS", "there.example", ", wait_for_warm_on_init: false"), nil, false, 0},
		"an address":                    {waitingCluster("STRICT_DNS", "127.0.0.1", ""), nil, false, 0},
	} {
		for _, answered := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, answered %v", name, answered), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					answer := make(chan struct{})
					r := newResolvingRig(t, func(ctx context.Context, _, _ string) (net.Conn, error) {
						select {
						case <-answer:
						case <-ctx.Done():
						}
						return nil, refused
					}, namesAfter{answer, tc.names})
					b, err := config.ParseBootstrap([]byte(strings.Replace(waitingBootstrap("x"), "  - name: c\n    x\n", "  - "+tc.cluster+"\n", 1)))
					if err != nil {
						t.Fatal(err)
					}
					if err := r.load(b); err != nil {
						t.Fatal(err)
					}
					if synctest.Wait(); r.active() != "in" || r.l.held.Load() != tc.held || (len(r.unready()) > 0) != tc.held {
						t.Fatalf("at first: in force %q, held %v, not ready for %v", r.active(), r.l.held.Load(), r.unready())
					}
					if !tc.held {
						return
					}
					if answered {
						close(answer)
					} else {
						time.Sleep(tc.until - time.Millisecond)
						if synctest.Wait(); !r.l.held.Load() {
							t.Error("it is not waited for")
						}
						time.Sleep(2 * time.Millisecond)
					}
					if synctest.Wait(); r.l.held.Load() || len(r.unready()) > 0 {
						t.Errorf("then: held %v, not ready for %v", r.l.held.Load(), r.unready())
					}
				})
			})
		}
	}
}

// TestConnectionsWaitForFirstChecks: who connects meanwhile is served then.
func TestConnectionsWaitForFirstChecks(t *testing.T) {
	checked, answer := make(chan struct{}, 1), make(chan struct{})
	origin := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case checked <- struct{}{}:
		default:
		}
		select {
		case <-answer:
		case <-r.Context().Done():
		}
	}))
	defer origin.Close()
	host, port, _ := net.SplitHostPort(origin.Listener.Addr().String())
	s := run(t, waitingBootstrap(`load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: `+host+`, port_value: `+port+`}}}}]}]}
    health_checks: [{timeout: 20s, interval: 20s, unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: {path: /}}]`))
	<-checked
	c, err := net.Dial("tcp", s.Addrs().Listeners["in"].String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if ok, why := s.Ready(); ok || !strings.Contains(why, "cluster c waits for its first checks") || s.listeners.Serving() != 0 {
		t.Errorf("ready %v (%s) with %d connections", ok, why, s.listeners.Serving())
	}
	close(answer)
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("%v, %v", resp, err)
	}
	eventually(t, "ready", func() bool { ok, _ := s.Ready(); return ok })
}
