package cluster

import (
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// TestStatNames: clusters that statistics call by one name share its series, which stay until the
// last of them is gone.
func TestStatNames(t *testing.T) {
	metrics := telemetry.NewMetrics()
	m := NewManager(Options{Metrics: metrics})
	defer m.Close()
	exposition := func() string {
		var b strings.Builder
		if err := metrics.Registry.WritePrometheus(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	for _, name := range []string{"a", "b"} {
		mustUpdate(t, m, &Config{Name: name, StatName: "both", Endpoints: hosts(name, "10.0.0.1")}).StartRequest(0)
	}
	const active = `hauberk_upstream_requests_active{cluster="both",state="active"} 2`
	if got := exposition(); strings.Count(got, active) != 1 {
		t.Errorf("no %s in\n%s", active, got)
	}
	if got := m.StatName("a") + " " + m.StatName("c"); got != "both " {
		t.Errorf("names: %q", got)
	}
	m.Remove("a")
	if got := exposition(); !strings.Contains(got, `hauberk_upstream_connections_open{cluster="both"}`) {
		t.Errorf("nothing is left of b in\n%s", got)
	}
	m.Remove("b")
	if got := exposition(); strings.Contains(got, "both") {
		t.Errorf("there is still\n%s", got)
	}
}
