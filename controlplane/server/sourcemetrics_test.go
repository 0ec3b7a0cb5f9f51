package server

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hauberk-mesh/hauberk/controlplane/source"
)

type statusOnly source.Status

func (statusOnly) Run(context.Context, source.Sink) error { return nil }
func (s statusOnly) Status() source.Status                { return source.Status(s) }

// TestSourceMetrics: each problem is counted under its kind, and a kind without
// any is zero, so that an alarm can tell it from an absence.
func TestSourceMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(sourceMetrics{statusOnly{Kind: "consul", Synced: true, LastSuccess: time.Unix(5, 0), Errors: map[string]string{
		source.ConcernTokenFile: "x", "service api": "x", "service web": "x", "services": "x", "config entries mesh": "x"}}})
	have := map[string]float64{}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			have[name] = m.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"hauberk_source_problems token file": 1, "hauberk_source_problems service": 2, "hauberk_source_problems services": 1,
		"hauberk_source_problems config entries": 1, "hauberk_source_problems entry": 0, "hauberk_source_problems consul": 0,
		"hauberk_source_synced": 1, "hauberk_source_last_success_timestamp_seconds": 5,
	} {
		if v, ok := have[name]; !ok || v != want {
			t.Errorf("%s is %v (there: %v), want %v", name, v, ok, want)
		}
	}
}
