package cluster

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/sockopt"
)

// TestDescriptorsForHosts: where descriptors are short no connection is made, whatever its
// options, which is a limit of ours and says nothing of the host, nor of its health.
func TestDescriptorsForHosts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, cfg := range map[string]Config{
		"plain":       {},
		"with probes": {TCP: &TCPKeepAlive{Idle: time.Minute}},
		"bound":       {Bind: &Bind{FreeBind: true, Options: []sockopt.Option{}}},
	} {
		t.Run(name, func(t *testing.T) {
			var limit atomic.Uint64
			limit.Store(4) // the test has more open
			m := newManager(t, Options{Descriptors: limit.Load})
			cfg.Name, cfg.Endpoints = "c", hosts("c", l.Addr().String())
			c := mustUpdate(t, m, &cfg)
			_, err := c.Open(t.Context(), "", nil, 0)
			if e, ok := err.(*Error); !ok || e.Kind != OverflowConnections || e.Kind.OfHost() {
				t.Fatalf("beyond the line: %v", err)
			}
			check := &checker{h: c.hosts()[0], cfg: &HealthCheck{TCP: &TCPCheck{}}}
			if _, err := check.connect(t.Context(), c.cfg.Load()); !errors.As(err, &unready{}) {
				t.Errorf("a check: %v", err)
			}
			limit.Store(1 << 20)
			conn, err := c.Open(t.Context(), "", nil, 0)
			if err != nil {
				t.Fatalf("when there are more: %v", err)
			}
			_ = conn.Close()
		})
	}
}
