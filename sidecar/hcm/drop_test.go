package hcm

import (
	"net/http"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// dropping has the cluster's assignment drop a share of a million requests.
func (b *bed) dropping(name string, share uint32, addrs ...string) {
	b.t.Helper()
	a := endpoints(name, addrs...)
	a.DropPerMillion = share
	if err := b.clusters.Update(&cluster.Config{Name: name, Endpoints: a}); err != nil {
		b.t.Fatal(err)
	}
}

// TestDropped: a request that is dropped is answered in the place of the cluster, before the
// route changes it, and is not retried.
func TestDropped(t *testing.T) {
	for _, tc := range []struct {
		name             string
		share            uint32
		suppress         bool
		body, header, is string
	}{
		{"all", 1_000_000, false, "unconditional drop overload", "X-Envoy-Unconditional-Drop-Overload", "503 UDO unconditional_drop_overload"},
		{"nearly all", 999_999, false, "drop overload", "X-Envoy-Drop-Overload", "503 DO drop_overload"},
		{"suppressed", 1_000_000, true, "unconditional drop overload", "", "503 UDO unconditional_drop_overload"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t)
			b.dropping("origin", tc.share, httpOrigin(t, echo))
			b.cfg.SuppressEnvoyHeaders = tc.suppress
			b.route().Forward.Rewrite = &route.Rewrite{Prefix: "/rewritten"}
			b.route().Forward.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: 3}
			b.vhost().AttemptCountInResponse = true
			b.start()
			resp, body := b.dial().do("GET /asked HTTP/1.1\r\nHost: h\r\n\r\n")
			if resp.StatusCode != 503 || body != tc.body {
				t.Errorf("answered %d %q", resp.StatusCode, body)
			}
			for name := range resp.Header {
				if strings.HasPrefix(name, "X-Envoy") && name != tc.header {
					t.Errorf("the answer has %s", name)
				}
			}
			if tc.header != "" && resp.Header.Get(tc.header) != "true" {
				t.Errorf("no %s in %v", tc.header, resp.Header)
			}
			if got := b.logged(1)[0]; !strings.HasPrefix(got, "GET /asked "+tc.is+" ") || !strings.Contains(got, " retries=0 ") {
				t.Errorf("logged %q", got)
			}
		})
	}
}

// TestMirrorDropped: copies for a cluster that drops them are not made.
func TestMirrorDropped(t *testing.T) {
	b := newBed(t, httpOrigin(t, echo))
	b.dropping("mirror", 1_000_000, httpOrigin(t, func(http.ResponseWriter, *http.Request) { t.Error("a copy came") }))
	b.route().Forward.Mirrors = []route.Mirror{{Cluster: "mirror", Share: route.All}}
	b.start()
	if resp, _ := b.dial().do("GET / HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 200 {
		t.Errorf("answered %d", resp.StatusCode)
	}
	if got := b.metrics.Mirrored.With("dropped").Value(); got != 1 {
		t.Errorf("%v counted", got)
	}
}

// TestOverloadedIsTold: an answer in place of a cluster that is full says so, unless headers of ours are
// suppressed.
func TestOverloadedIsTold(t *testing.T) {
	for suppress, want := range map[bool]string{false: "true", true: ""} {
		b := newBed(t)
		if err := b.clusters.Update(&cluster.Config{Name: "origin", Endpoints: endpoints("origin", httpOrigin(t, echo)), Limits: cluster.Limits{MaxRequests: cluster.NoneAllowed}}); err != nil {
			t.Fatal(err)
		}
		b.cfg.SuppressEnvoyHeaders = suppress
		b.start()
		resp, _ := b.dial().do("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		if got := resp.Header.Get("X-Envoy-Overloaded"); resp.StatusCode != 503 || got != want {
			t.Errorf("suppressed %v: answered %d, x-envoy-overloaded %q", suppress, resp.StatusCode, got)
		}
	}
}
