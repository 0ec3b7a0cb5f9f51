package main

import (
	"fmt"
	"slices"
)

// verdict is one figure of Hauberk's, beside another's or by itself, and the goal
// that it is held to, if there is one.
type verdict struct {
	What  string  `json:"what"`
	Value float64 `json:"value"`
	Low   float64 `json:"low"` // 95 % interval
	High  float64 `json:"high"`
	Most  float64 `json:"most,omitempty"` // the goal, 0 without one
	Met   bool    `json:"met"`
}

func (v verdict) String() string {
	s := fmt.Sprintf("%s: %.2f (95 %%: %.2f to %.2f)", v.What, v.Value, v.Low, v.High)
	switch {
	case v.Most == 0:
		return s
	case v.Met:
		return s + fmt.Sprintf(", the bar of %.2f is met", v.Most)
	}
	return s + fmt.Sprintf(", MISSES the bar of %.2f", v.Most)
}

// cpuBars are the goals for CPU per unit, as a multiple of another's, by job,
// contender and connections. 0 connections is any number.
var cpuBars = []struct {
	jobs  []string
	other string
	conns int
	most  float64
}{
	{[]string{"plain", "mtls2"}, "haproxy", 64, 1.10},
	{[]string{"plain", "mtls2"}, "haproxy", 4, 1.35},
	{[]string{"plain", "mtls2"}, "envoy", 64, 0.50},
	{[]string{"plain", "mtls2"}, "envoy", 4, 0.50},
	{[]string{"mtls2-h2", "grpc", "grpc-stream"}, "haproxy", 64, 1.50},
	{[]string{"mtls2-h2", "grpc", "grpc-stream"}, "haproxy", 4, 1.35},
	{[]string{"mtls2-h2", "grpc", "grpc-stream"}, "envoy", 64, 0.50},
	{[]string{"mtls2-h2", "grpc", "grpc-stream"}, "envoy", 4, 0.50},
	{[]string{"tcp-mtls2"}, "haproxy", 64, 1.10},
	{[]string{"connect-tcp-mtls2"}, "envoy", 0, 0.30},
	{[]string{"bulk-mtls2"}, "envoy", 0, 1.10},
}

// allocBars are the goals for allocations per unit: none on plaintext HTTP/1, and
// two more for each hop with mTLS.
var allocBars = map[string]float64{"plain": 0, "mtls1": 2, "mtls2": 4, "grpc": 4}

// measureSlack is what the runtime's own work may add to a goal of nothing: its
// counters are merged in batches.
const measureSlack = 0.05

const kb, mb = 1 << 10, 1 << 20

// memoryBars are the goals for memory, by job.
var memoryBars = []struct {
	jobs       []string
	what       string
	of         func(*measured) []float64
	most, unit float64
}{
	{[]string{"idle-100"}, "anonymous MB", func(m *measured) []float64 { return m.Anonymous }, 15, mb},
	{[]string{"idle-100"}, "resident MB", func(m *measured) []float64 { return m.Resident }, 32, mb},
	{[]string{"idle-10000"}, "resident MB", func(m *measured) []float64 { return m.Resident }, 80, mb},
	{[]string{"held"}, "KB per connection", func(m *measured) []float64 { return m.PerConnection }, 3, kb},
	{[]string{"held-mtls", "held-tcp-mtls2"}, "KB per connection", func(m *measured) []float64 { return m.PerConnection }, 12, kb},
}

// p99Bars are jobs whose 99th percentile may be no worse than Envoy's.
var p99Bars = map[string]bool{"mtls2-h2": true, "grpc": true, "grpc-stream": true}

func (c *cell) bar(other string) float64 {
	if !c.Features {
		return 0
	}
	for _, b := range cpuBars {
		for _, j := range b.jobs {
			if j == c.Job && b.other == other && (b.conns == 0 || b.conns == c.Connections) {
				return b.most
			}
		}
	}
	return 0
}

// judge fills the verdicts in.
func (c *cell) judge() {
	us := c.of("hauberk")
	if us == nil {
		return
	}
	if c.memory != nil {
		c.judgeMemory(us)
		return
	}
	for _, m := range c.Contenders {
		if m == us {
			continue
		}
		if !c.crowd {
			c.beside("CPU, hauberk / "+m.Name, us.CPU, m.CPU, c.bar(m.Name))
		}
		if len(us.P99) > 0 {
			most := 0.0
			if c.crowd { // the median, too: that of a few requests is the steadier one
				c.beside("p50, hauberk / "+m.Name, us.P50, m.P50, 0)
			}
			if p99Bars[c.Job] && m.Name == "envoy" && c.Features {
				most = 1
			}
			c.beside("p99, hauberk / "+m.Name, us.P99, m.P99, most)
		}
	}
	if most, ok := allocBars[c.Job]; ok && c.Features {
		c.absolute("allocations per "+c.Unit, us.Allocs, most+measureSlack, 1)
	}
}

func (c *cell) judgeMemory(us *measured) {
	for _, b := range memoryBars {
		if slices.Contains(b.jobs, c.Job) {
			c.absolute(b.what, b.of(us), b.most, b.unit)
		}
	}
	for _, m := range c.Contenders {
		if m == us {
			continue
		}
		c.beside("PSS, hauberk / "+m.Name, us.PSS, m.PSS, 0)
		if len(us.PerConnection) > 0 {
			c.beside("per connection, hauberk / "+m.Name, us.PerConnection, m.PerConnection, 0)
		}
	}
}

func (c *cell) beside(what string, us, them []float64, most float64) {
	mid, low, high := ratio(us, them, max(1, c.Starts))
	c.Verdicts = append(c.Verdicts, verdict{what, mid, low, high, most, most == 0 || mid <= most})
}

// absolute judges the figure itself, in a unit of that many.
func (c *cell) absolute(what string, values []float64, most, unit float64) {
	ones := make([]float64, len(values))
	for i := range ones {
		ones[i] = unit
	}
	c.beside(what, values, ones, most)
}

// missed is the goals of the cell that were not reached, and what was refused.
func (c *cell) missed() (out []string) {
	for _, v := range c.Verdicts {
		if !v.Met {
			out = append(out, fmt.Sprintf("%s: %s", c.name(), v))
		}
	}
	for name, why := range c.Unsupported {
		out = append(out, fmt.Sprintf("%s: %s: not supported: %s", c.name(), name, why))
	}
	return out
}

// name tells a setting from the others of a run.
func (c *cell) name() string {
	s := fmt.Sprintf("%s, c=%d", c.Job, c.Connections)
	if c.memory == nil {
		s += fmt.Sprintf(", %d bytes", c.Body)
	}
	if !c.Features {
		s += ", features off"
	}
	return s
}
