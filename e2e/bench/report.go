package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

// ratio is the median of the rounds' ratios, with a 95 % interval by bootstrap. The rounds of
// one start are alike, so what is drawn is starts, and of each as many of its rounds.
func ratio(a, b []float64, starts int) (mid, low, high float64) {
	r := make([]float64, min(len(a), len(b)))
	for i := range r {
		r[i] = a[i] / b[i]
	}
	each := len(r) / starts
	var draws []float64
	var sample []float64
	for range 2000 {
		sample = sample[:0]
		for range starts {
			of := r[rand.IntN(starts)*each:][:each]
			for range of {
				sample = append(sample, of[rand.IntN(each)])
			}
		}
		draws = append(draws, median(sample))
	}
	slices.Sort(draws)
	return median(r), draws[len(draws)*25/1000], draws[len(draws)*975/1000]
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
	c.title(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	if c.memory != nil {
		c.memoryTable(w)
	} else {
		c.table(w)
	}
	w.Flush()
	for _, v := range c.Verdicts {
		fmt.Fprintln(out, "  "+v.String())
	}
	for name, why := range c.Unsupported {
		fmt.Fprintf(out, "  %s: not supported: %s\n", name, why)
	}
	for _, name := range slices.Sorted(maps.Keys(c.LeftOut)) {
		fmt.Fprintf(out, "  %s: left out: %s\n", name, c.LeftOut[name])
	}
	var disturbed []string
	for _, m := range c.Contenders {
		if m.Disturbed > 0 {
			disturbed = append(disturbed, fmt.Sprintf("%s %d of %d", m.Name, m.Disturbed, len(m.CPU)+len(m.P99)))
		}
	}
	if disturbed != nil {
		fmt.Fprintln(out, "  runs that other work disturbed: "+strings.Join(disturbed, ", "))
	}
}

func (c *cell) title(out io.Writer) {
	fmt.Fprintf(out, "\n%s: %s", c.Job, c.About)
	if c.memory == nil {
		fmt.Fprintf(out, "; %d connections", c.Connections)
		if c.Unit != "GB" {
			fmt.Fprintf(out, ", %d bytes; latency at %.0f a second", c.Body, c.OpenRate)
		}
		if !c.Features {
			fmt.Fprint(out, "; features off")
		}
	} else if c.Connections > 0 {
		fmt.Fprintf(out, "; %d connections", c.Connections)
	}
	fmt.Fprintln(out)
}

func (c *cell) table(w io.Writer) {
	if c.Unit == "GB" {
		fmt.Fprintln(w, "CONTENDER\tCPU s/GB\tMB/S\tPSS\tANONYMOUS\t")
		for _, m := range c.Contenders {
			fmt.Fprintf(w, "%s\t%.2f\t%.0f\t%.0f MB\t%.0f MB\t\n", m.Name, median(m.CPU), median(m.Rate)*1000, median(m.PSS)/mb, median(m.Anonymous)/mb)
		}
		return
	}
	if c.crowd {
		fmt.Fprintln(w, "CONTENDER\tA SECOND\tP50\tP99\tPSS\tANONYMOUS\t")
		for _, m := range c.Contenders {
			fmt.Fprintf(w, "%s\t%.0f\t%s\t%s\t%.0f MB\t%.0f MB\t\n", m.Name, median(m.Rate), micros(m.P50), micros(m.P99), median(m.PSS)/mb, median(m.Anonymous)/mb)
		}
		return
	}
	fmt.Fprintf(w, "CONTENDER\tCPU µs/%s\tALLOCS\tA SECOND\tP50\tP99\tPSS\tANONYMOUS\t\n", c.Unit)
	for _, m := range c.Contenders {
		fmt.Fprintf(w, "%s\t%.1f\t%s\t%.0f\t%s\t%s\t%.0f MB\t%.0f MB\t\n", m.Name, median(m.CPU), m.allocsText(), median(m.Rate),
			micros(m.P50), micros(m.P99), median(m.PSS)/mb, median(m.Anonymous)/mb)
	}
}

func (c *cell) memoryTable(w io.Writer) {
	held := c.memory.conns > 0
	head := "CONTENDER\tPSS\tRESIDENT\tANONYMOUS\t"
	if held {
		head += "PER CONNECTION\t"
	}
	fmt.Fprintln(w, head)
	for _, m := range c.Contenders {
		fmt.Fprintf(w, "%s\t%.1f MB\t%.1f MB\t%.1f MB\t", m.Name, median(m.PSS)/mb, median(m.Resident)/mb, median(m.Anonymous)/mb)
		if held {
			fmt.Fprintf(w, "%.1f KB\t", median(m.PerConnection)/kb)
		}
		fmt.Fprintln(w)
	}
}

func micros(v []float64) string {
	return (time.Duration(median(v)*1000) * time.Nanosecond).Round(time.Microsecond).String()
}

func writeJSON(file string, cells []*cell) error {
	b, err := json.MarshalIndent(cells, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}
