package otlp

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// TestFaultOfAnItem: an item whose encoding faults costs itself, and holds up neither others nor
// the end.
func TestFaultOfAnItem(t *testing.T) {
	col := newCollector(t, nil)
	es := col.exporters(t)
	e := mustOpen(t, es, col.config(nil))
	func() {
		defer func() { _ = recover() }()
		e.Add(0, func([]byte) []byte { panic("a fault") })
	}()
	e.Add(0, letter)
	e.Release()
	col.wait(t)
	es.Close()
	if got := col.became(); got != [4]uint64{1} || col.bodies[0] != "x" {
		t.Error(got, col.bodies)
	}
}

// TestPauseAfterAFailure: a collector that cannot be sent to is not called for each batch, and
// what comes meanwhile waits for it.
func TestPauseAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clusters := cluster.NewManager(cluster.Options{})
		defer clusters.Close()
		col := &collector{clusters: clusters, metrics: telemetry.NewMetrics()}
		es := col.exporters(t)
		defer es.Close()
		e := mustOpen(t, es, col.config(func(c *Config) { c.SendAt, c.Interval = 1, time.Minute }))
		e.Add(0, letter)
		synctest.Wait()
		if got := col.became(); got != [4]uint64{2: 1} {
			t.Fatal(got)
		}
		for range 50 {
			time.Sleep(10 * time.Millisecond)
			e.Add(0, letter)
		}
		synctest.Wait()
		if got := col.became(); got != [4]uint64{2: 1} {
			t.Errorf("within the pause: %v", got)
		}
		time.Sleep(maxPause)
		synctest.Wait()
		if got := col.became(); got != [4]uint64{2: 51} {
			t.Errorf("after it: %v", got)
		}
	})
}
