package cluster

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// What was counted of a cluster that is gone is not shown for ever, least of all that its
// hosts are healthy.
func TestMetricsOfRemovedClusters(t *testing.T) {
	metrics := telemetry.NewMetrics()
	m := NewManager(Options{Metrics: metrics})
	defer m.Close()
	exposed := func() string {
		var b strings.Builder
		if err := metrics.Registry.WritePrometheus(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	cfg := &Config{Name: "canary", Endpoints: &Assignment{Cluster: "canary", Localities: []Locality{{Endpoints: []Endpoint{{Host: "127.0.0.1", Port: 1}}}}},
		Subsets: &Subsets{Selectors: []Selector{{Keys: []string{"k"}}}}}
	for range 2 {
		if err := m.Update(cfg); err != nil {
			t.Fatal(err)
		}
		c := m.Get("canary")
		c.metrics.HealthChecked("success")
		c.metrics.Outlier("gateway_errors", "ejected")
		c.metrics.TLSFailure("expired")
		c.metrics.Answered(0, 200)
		for _, s := range []string{
			`hauberk_upstream_endpoints{cluster="canary",state="healthy"} 1`, `hauberk_upstream_requests_total{cluster="canary",code_class="2xx"} 1`,
			`hauberk_upstream_health_checks_total{cluster="canary",result="success"} 1`, `hauberk_upstream_tls_failures_total{cluster="canary",reason="expired"} 1`,
		} {
			if !strings.Contains(exposed(), s) {
				t.Errorf("no %s", s)
			}
		}
		m.Remove("canary")
		// What is under way goes on to count.
		c.metrics.HealthChecked("failure")
		c.metrics.Answered(0, 200)
		if s := exposed(); strings.Contains(s, "canary") {
			t.Error(s)
		}
	}
}

func TestTransportFailure(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for _, tc := range []struct {
		err  Error
		want string
	}{
		{Error{Kind: ConnectRefused, Host: "192.0.2.1:80", Err: refused}, "delayed connect error: Connection refused"},
		{Error{Kind: ConnectRefused, Host: "192.0.2.1:80", Err: syscall.ENETUNREACH}, "immediate connect error: Network is unreachable|remote address:192.0.2.1:80"},
		{Error{Kind: ConnectRefused, Host: "unix:/s", Err: syscall.ENOENT}, "immediate connect error: No such file or directory|remote address:/s"},
		{Error{Kind: TLSFailure, Host: "192.0.2.1:80", Err: errors.New("x509: expired")}, "TLS_error:|x509: expired:TLS_error_end"},
		{Error{Kind: ConnectTimeout, Host: "192.0.2.1:80", Err: context.DeadlineExceeded}, ""},
		{Error{Kind: Canceled, Host: "192.0.2.1:80", Err: syscall.ECONNABORTED}, ""},
		{Error{Kind: OverflowPending}, ""},
		{Error{Kind: ConnectRefused, Host: "192.0.2.1:80", Err: errors.New("what")}, ""},
		{Error{Kind: ConnectRefused}, ""},
	} {
		if got := tc.err.TransportFailure(); got != tc.want {
			t.Errorf("%v: %q, want %q", &tc.err, got, tc.want)
		}
	}
}
