package tcp

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
)

// TestClosedBy: connections that the proxy closes are counted once, by why; those that end
// by themselves are not.
func TestClosedBy(t *testing.T) {
	short := 50 * time.Millisecond
	silent := func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }
	for name, tc := range map[string]struct {
		cfg    Config
		to     *cluster.Manager
		leaves bool
		want   string
	}{
		"no such cluster":            {Config{Cluster: "absent"}, clusterAt(t, 1), false, "no_cluster"},
		"no cluster is reached":      {Config{Cluster: "up"}, clusterAt(t, 1), false, ""},
		"idle":                       {Config{Cluster: "up", IdleTimeout: &short}, upstream(t, silent), false, "idle_timeout"},
		"idle before it has spoken":  {Config{Cluster: "up", IdleTimeout: &short, AwaitData: true, MaxEarlyData: 1}, clusterAt(t, 1), false, "idle_timeout"},
		"too old":                    {Config{Cluster: "up", MaxDuration: short}, upstream(t, silent), false, "max_connection_duration"},
		"too old before it spoke":    {Config{Cluster: "up", MaxDuration: short, AwaitData: true, MaxEarlyData: 1}, clusterAt(t, 1), false, "max_connection_duration"},
		"the client leaves in peace": {Config{Cluster: "up"}, upstream(t, echoAll), true, ""},
	} {
		client, line := serve(t, tc.cfg, tc.to)
		metrics := lastMetrics
		if tc.leaves {
			_ = client.CloseWrite()
		}
		_, _ = io.ReadAll(client)
		line() // the connection is over
		var text strings.Builder
		if err := metrics.Registry.WritePrometheus(&text); err != nil {
			t.Fatal(err)
		}
		var got string
		for l := range strings.Lines(text.String()) {
			if rest, ok := strings.CutPrefix(l, `hauberk_connections_closed_total{listener="in",reason="`); ok {
				got += strings.TrimSuffix(rest, "\"} 1\n")
			}
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}
