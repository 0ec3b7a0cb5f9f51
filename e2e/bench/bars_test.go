package main

import (
	"slices"
	"strings"
	"testing"
)

// TestEveryGoalNamesAJob: a goal for a job that does not exist would never be missed.
func TestEveryGoalNamesAJob(t *testing.T) {
	var names []string
	for _, b := range cpuBars {
		names = append(names, b.jobs...)
	}
	for j := range allocBars {
		names = append(names, j)
	}
	for j := range p99Bars {
		names = append(names, j)
	}
	for _, n := range names {
		if _, err := jobNamed(n); err != nil {
			t.Error(err)
		}
	}
}

// TestStandardMeasuresEveryGoal: `make bench` alone reaches each of them.
func TestStandardMeasuresEveryGoal(t *testing.T) {
	list, err := standardSettings()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range cpuBars {
		for _, job := range b.jobs {
			if !slices.ContainsFunc(list, func(s setting) bool {
				return s.job.name == job && (b.conns == 0 || s.conns == b.conns) && s.job.cannot(b.other) == ""
			}) {
				t.Errorf("nothing measures %s beside %s at %d connections", job, b.other, b.conns)
			}
		}
	}
	if full, err := fullSettings(); err != nil || len(full) < 80 {
		t.Errorf("the full matrix has %d settings, %v", len(full), err)
	}
}

func TestJudge(t *testing.T) {
	steady := func(v float64) []float64 { return []float64{v, v, v} }
	for name, x := range map[string]struct {
		cell cell
		want string
	}{
		"met":    {cell{Job: "plain", Connections: 64, Features: true, Contenders: []*measured{{Name: "hauberk", CPU: steady(11), Allocs: steady(0)}, {Name: "haproxy", CPU: steady(10)}}}, ""},
		"missed": {cell{Job: "plain", Connections: 64, Features: true, Contenders: []*measured{{Name: "hauberk", CPU: steady(12), Allocs: steady(0)}, {Name: "haproxy", CPU: steady(10)}}}, "CPU, hauberk / haproxy: 1.20 (95 %: 1.20 to 1.20), MISSES the bar of 1.10"},
		"allocations": {cell{Job: "plain", Unit: "request", Connections: 1, Features: true, Contenders: []*measured{{Name: "hauberk", CPU: steady(1), Allocs: steady(1)}}},
			"allocations per request: 1.00 (95 %: 1.00 to 1.00), MISSES the bar of 0.05"},
		"latency": {cell{Job: "grpc", Connections: 1000, Features: true, Contenders: []*measured{{Name: "hauberk", CPU: steady(1), P99: steady(3), Allocs: steady(0)}, {Name: "envoy", CPU: steady(1), P99: steady(2)}}},
			"p99, hauberk / envoy: 1.50 (95 %: 1.50 to 1.50), MISSES the bar of 1.00"},
		"memory": {cell{Job: "held", Connections: 1000, memory: &memoryJob{1000}, Contenders: []*measured{{Name: "hauberk", PerConnection: steady(4096)}}},
			"KB per connection: 4.00 (95 %: 4.00 to 4.00), MISSES the bar of 3.00"},
		"features off": {cell{Job: "plain", Connections: 64, Contenders: []*measured{{Name: "hauberk", CPU: steady(12), Allocs: steady(1)}, {Name: "haproxy", CPU: steady(10)}}}, ""},
	} {
		x.cell.judge()
		got := x.cell.missed()
		if x.want == "" && len(got) > 0 || x.want != "" && (len(got) != 1 || !strings.Contains(got[0], x.want)) {
			t.Errorf("%s: missed %q, want %q", name, got, x.want)
		}
	}
}

func TestChosenRefuses(t *testing.T) {
	for _, x := range []struct{ jobs, conns, bodies, features, want string }{
		{"nothing", "4", "0", "on", `"nothing" is not known; known are plain, `},
		{"plain", "0", "0", "on", `-c "0": want numbers of 1 or more`},
		{"plain", "4", "x", "on", `-body "x": want numbers of 0 or more`},
		{"plain", "4", "0", "maybe", `-features "maybe": want on, off or both`},
	} {
		if _, err := chosen(false, x.jobs, x.conns, x.bodies, x.features); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%+v: %v", x, err)
		}
	}
}

// TestRatioOfStarts: rounds of one start are not taken for as many of the program: where
// starts differ, the interval shows it, however many rounds there are.
func TestRatioOfStarts(t *testing.T) {
	var us, them []float64
	for _, start := range []float64{1, 1.1, 1.2, 1.3} {
		for range 50 {
			us, them = append(us, start), append(them, 1)
		}
	}
	if mid, low, high := ratio(us, them, 4); mid < 1.14 || mid > 1.16 || low > 1.05 || high < 1.25 {
		t.Errorf("%.2f (%.2f to %.2f)", mid, low, high)
	}
	if _, low, high := ratio(us, them, 1); low < 1.05 || high > 1.25 {
		t.Errorf("of one start: %.2f to %.2f", low, high)
	}
}
