package listener

import (
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// What was counted of a listener and its service goes with its last connection, and no
// sooner.
func TestMetricsOfRemovedListeners(t *testing.T) {
	metrics := telemetry.NewMetrics()
	m := newTestManager(t, func(o *Options) { o.Metrics = metrics })
	shown := func(what string) bool {
		var b strings.Builder
		if err := metrics.Registry.WritePrometheus(&b); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(b.String(), what)
	}
	const accepts, opened = `hauberk_listener_accepts_total{listener="gone"} 1`, `hauberk_connections_total{direction="unspecified",service="gone",peer="none"} 1`
	mustApply(t, m, echoConfig("gone"))
	mustApply(t, m, echoConfig("kept"))
	c, other := dial(t, m, "gone"), dial(t, m, "kept")
	if err := roundTrip(c); err != nil {
		t.Fatal(err)
	}
	if err := roundTrip(other); err != nil {
		t.Fatal(err)
	}
	m.Remove("gone")
	if err := roundTrip(c); err != nil {
		t.Fatal(err)
	}
	if !shown(accepts) || !shown(opened) {
		t.Error("a listener that drains is not counted any more")
	}
	_ = c.Close()
	for end := time.Now().Add(10 * time.Second); shown(`"gone"`); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what was counted of it is there for ever")
		}
	}
	if !shown(`hauberk_listener_accepts_total{listener="kept"} 1`) || !shown(`service="kept",peer="none"} 1`) {
		t.Error("the other listener's counts are gone")
	}
}
