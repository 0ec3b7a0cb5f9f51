package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

// ratio is the median of the rounds' ratios, with a 95 % interval by bootstrap.
func ratio(a, b []float64) (mid, low, high float64) {
	r := make([]float64, len(a))
	for i := range a {
		r[i] = a[i] / b[i]
	}
	var draws []float64
	sample := make([]float64, len(r))
	for range 2000 {
		for i := range sample {
			sample[i] = r[rand.IntN(len(r))]
		}
		draws = append(draws, median(sample))
	}
	slices.Sort(draws)
	return median(r), draws[len(draws)*25/1000], draws[len(draws)*975/1000]
}

// bars are the goals for Hauberk's CPU per request: at most this many times the
// other's, by the number of connections.
func bar(other string, connections int) (float64, bool) {
	switch {
	case other == "haproxy" && connections >= 64:
		return 1.10, true
	case other == "haproxy":
		return 1.35, true
	case other == "envoy":
		return 0.5, true
	}
	return 0, false
}

func (c *cell) of(name string) *measured {
	for _, m := range c.Contenders {
		if m.Name == name {
			return m
		}
	}
	return nil
}

func (c *cell) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s, %d connections, HTTP/1.1, 1 KB answers; latency at %.0f requests/s\n", c.Job, c.Connections, c.Contenders[0].OpenRate)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "CONTENDER\tCPU µs/req\tALLOCS/req\tREQ/S\tP50\tP99\tRESIDENT\tANONYMOUS\t")
	for _, m := range c.Contenders {
		fmt.Fprintf(w, "%s\t%.1f\t%s\t%.0f\t%s\t%s\t%.0f MB\t%.0f MB\t\n", m.Name, median(m.CPU), m.allocsText(), median(m.Rate),
			m.P50.Round(time.Microsecond), m.P99.Round(time.Microsecond), float64(m.Resident)/(1<<20), float64(m.Anonymous)/(1<<20))
	}
	w.Flush()
	us := c.of("hauberk")
	for _, m := range c.Contenders {
		if m == us {
			continue
		}
		mid, low, high := ratio(us.CPU, m.CPU)
		verdict := ""
		if most, ok := bar(m.Name, c.Connections); ok {
			verdict = fmt.Sprintf(", the bar of %.2f is met", most)
			if mid > most {
				verdict = fmt.Sprintf(", MISSES the bar of %.2f", most)
			}
		}
		fmt.Fprintf(out, "  hauberk / %s: %.2f (95 %%: %.2f to %.2f)%s\n", m.Name, mid, low, high, verdict)
	}
}

func writeJSON(file string, cells []*cell) error {
	b, err := json.MarshalIndent(cells, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}
