package sidecar

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// TestMemoryLimitWithoutAManager: the limit of the process counts where its bootstrap has no
// overload manager of its own.
func TestMemoryLimitWithoutAManager(t *testing.T) {
	for text, want := range map[string]uint64{
		`overload_manager: {refresh_interval: 3s, resource_monitors: [{name: cpu, typed_config: {"@type": type.googleapis.com/envoy.extensions.resource_monitors.cpu_utilization.v3.CpuUtilizationConfig}}]}` + "\n": 800,
		"node: {id: node-1}\n": 800,
		`overload_manager: {resource_monitors: [{name: heap, typed_config: {"@type": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 9}}]}` + "\n": 9,
	} {
		b, err := config.ParseBootstrap([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		log := &bytes.Buffer{}
		s := &Sidecar{cfg: Config{Bootstrap: b, MemoryLimit: 1000, MemoryLimitOf: "control group", Log: slog.New(slog.NewTextHandler(log, nil))}, metrics: telemetry.NewMetrics()}
		if err := s.buildOverload(); err != nil {
			t.Fatal(err)
		}
		if line := fmt.Sprintf(`bytes=1000 of="control group" kept=%v heap=%d`, want == 800, want); !strings.Contains(log.String(), line) {
			t.Errorf("logged %q, want %q", log, line)
		}
		if got := s.overload.Config().MaxHeap; got != want {
			t.Errorf("%s: the heap is to have %d, want %d", text, got, want)
		}
		if got := s.overload.Config().CPU; b.Overload != nil && got != b.Overload.CPU {
			t.Errorf("%s: the processors looked at are %d", text, got)
		}
		if got := s.overload.Config().Refresh; b.Overload != nil && b.Overload.Refresh > 0 && got != b.Overload.Refresh {
			t.Errorf("%s: resources are looked at each %v", text, got)
		}
		s = &Sidecar{cfg: Config{Log: slog.New(slog.DiscardHandler)}, metrics: telemetry.NewMetrics()}
		if err := s.buildOverload(); err != nil || s.overload != nil {
			t.Error("without a limit there is an overload manager")
		}
	}
}
