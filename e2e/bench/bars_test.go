package main

import (
	"maps"
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
	for _, b := range memoryBars {
		names = append(names, b.jobs...)
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
	for _, n := range []int{4, 64} {
		for job := range p99Bars {
			if !slices.ContainsFunc(list, func(s setting) bool { return s.job.name == job && s.conns == n && s.job.cannot("envoy") == "" }) {
				t.Errorf("nothing measures the latency of %s beside Envoy at %d connections", job, n)
			}
		}
	}
	absolute := slices.Collect(maps.Keys(allocBars))
	for _, b := range memoryBars {
		absolute = append(absolute, b.jobs...)
	}
	for _, job := range absolute {
		if !slices.ContainsFunc(list, func(s setting) bool { return s.job.name == job && !s.bare }) {
			t.Errorf("nothing measures the goal of %s", job)
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

// TestLatencyIsShownBesideAll: it is held to a goal beside Envoy alone, and there in the jobs
// of HTTP/2 and gRPC.
func TestLatencyIsShownBesideAll(t *testing.T) {
	one := []float64{1}
	for job, goals := range map[string]int{"grpc": 1, "mtls2-h2": 1, "mtls2": 0, "tcp-mtls2": 0} {
		c := cell{Job: job, Connections: 1, Features: true}
		for _, x := range contenders() {
			c.Contenders = append(c.Contenders, &measured{Name: x.name, CPU: one, P99: one, Allocs: one})
		}
		c.judge()
		shown, held := 0, 0
		for _, v := range c.Verdicts {
			if strings.HasPrefix(v.What, "p99, ") {
				shown++
				if v.Most > 0 {
					held++
				}
			}
		}
		if shown != len(contenders())-1 || held != goals {
			t.Errorf("%s: %d shown, %d of them held to a goal: %v", job, shown, held, c.Verdicts)
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
