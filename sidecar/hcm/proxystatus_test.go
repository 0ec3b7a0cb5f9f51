package hcm

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// TestProxyStatus: what went wrong is told behind what proxies before have told, and where it is so
// configured with the status that goes with it.
func TestProxyStatus(t *testing.T) {
	for name, c := range map[string]struct {
		told   ProxyStatus
		path   string
		status int
		header string
	}{
		"nothing":       {ProxyStatus{Name: "us"}, "/", 200, ""},
		"no host":       {ProxyStatus{Name: "us"}, "/none", 503, `us; error=destination_unavailable; details="no_healthy_upstream; UH"`},
		"no flags":      {ProxyStatus{Name: "us", WithoutFlags: true}, "/none", 503, `us; error=destination_unavailable; details="no_healthy_upstream"`},
		"no details":    {ProxyStatus{Name: "us", WithoutDetails: true}, "/none", 503, "us; error=destination_unavailable"},
		"a status":      {ProxyStatus{Name: "us", WithoutDetails: true, SetCode: true}, "/other", 500, "us; error=destination_not_found"},
		"behind others": {ProxyStatus{Name: "us", WithoutDetails: true}, "/retried", 503, "inner; error=dns_error, us; error=destination_unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/retried" {
					w.Header().Set("Proxy-Status", "inner; error=dns_error")
					w.WriteHeader(503)
				}
				_, _ = io.WriteString(w, "ok")
			}))
			b.cluster("none")
			hosts := &b.cfg.Routes.VirtualHosts[0]
			for _, r := range []struct{ path, cluster string }{{"/none", "none"}, {"/retried", "origin"}} {
				hosts.Routes = append([]route.Route{{Match: route.Match{Path: &r.path}, Forward: &route.Forward{Cluster: r.cluster, Timeout: time.Second,
					Retry: &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, BackOffBase: 1}}}}, hosts.Routes...)
			}
			if c.path == "/other" {
				hosts.Domains = []string{"other.example"}
			}
			b.cfg.ProxyStatus = &c.told
			b.start()
			resp, _ := b.dial().do("GET " + c.path + " HTTP/1.1\r\nHost: h\r\n\r\n")
			if got := strings.Join(resp.Header.Values("Proxy-Status"), ", "); resp.StatusCode != c.status || got != c.header {
				t.Errorf("%d %q", resp.StatusCode, got)
			}
		})
	}
}

// TestProxyStatusOfFlags: each flag of an answer of the sidecar's own stands for an error.
func TestProxyStatusOfFlags(t *testing.T) {
	for flag, want := range map[telemetry.Flags]string{
		telemetry.FlagFaultInjected: "us; error=http_request_error",
		telemetry.FlagOverload:      "us; error=connection_limit_reached",
		telemetry.FlagDropOverload:  "us; error=connection_limit_reached",
		telemetry.FlagDelayInjected: "",
	} {
		x := &exchange{flags: flag}
		var f message.Fields
		x.tellProxyStatus(&f, &ProxyStatus{Name: "us", WithoutDetails: true})
		if got, _ := f.Joined("proxy-status"); got != want {
			t.Errorf("%v: %q", flag, got)
		}
	}
}
