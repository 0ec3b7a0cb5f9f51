package telemetry

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func metricsOf(t testing.TB, clusters int) *Metrics {
	t.Helper()
	m := NewMetrics()
	for i := range clusters {
		m.Cluster(fmt.Sprint("cluster-", i)).SetEndpoints(1, 0, 0, 0, 0)
	}
	return m
}

// TestScrapeAllocates: what a scrape takes does not grow with the number of series, or
// a process with thousands of clusters would grow by each.
func TestScrapeAllocates(t *testing.T) {
	scrape := func(clusters int) float64 {
		m := metricsOf(t, clusters)
		return testing.AllocsPerRun(5, func() {
			if err := m.Registry.WritePrometheus(io.Discard); err != nil {
				t.Fatal(err)
			}
		})
	}
	if few, many := scrape(10), scrape(1000); many > few+10 {
		t.Errorf("%v allocations with 10 clusters, %v with 1,000", few, many)
	}
}

// TestScrapeIsSorted: by labels within a family, wherever its series are kept.
func TestScrapeIsSorted(t *testing.T) {
	m := metricsOf(t, 30)
	everySeries(m)
	m.Cluster("cluster-7").Answered(0, 404)
	m.Cluster("cluster-8").Forget()
	m.Cluster("added")
	var out bytes.Buffer
	if err := m.Registry.WritePrometheus(&out); err != nil {
		t.Fatal(err)
	}
	var clusters []string
	for line := range strings.Lines(out.String()) {
		if label, ok := strings.CutPrefix(line, `hauberk_upstream_requests_total{cluster=`); ok {
			clusters = append(clusters, label)
		}
	}
	if !slices.IsSorted(clusters) {
		t.Errorf("not sorted: %s", clusters)
	}
	if n := len(clusters); n != 31*len(statusClasses)+1 { // 30, added, c, without the one; and what everySeries stores
		t.Errorf("%d series of requests", n)
	}
	for _, want := range []string{`"cluster-7",code_class="4xx"} 1`, `"cluster-7",code_class="5xx"} 0`, `"added",code_class="none"} 0`} {
		if !strings.Contains(out.String(), "hauberk_upstream_requests_total{cluster="+want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(out.String(), `"cluster-8"`) {
		t.Error("a cluster that is gone has series")
	}
}

// TestScrapeOfWhatIsUsed: a series appears with its first count, and stays.
func TestScrapeOfWhatIsUsed(t *testing.T) {
	m := metricsOf(t, 30)
	scrape := func() string {
		var out bytes.Buffer
		if err := m.Registry.WriteUsed(&out); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	for line := range strings.Lines(scrape()) {
		// metricsOf has set how many hosts each has.
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "hauberk_upstream_endpoints") {
			t.Errorf("counted nothing: %s", line)
		}
	}
	m.Cluster("cluster-7").Answered(0, 404)
	m.Cluster("cluster-7").Use().RequestDuration.Observe(0, time.Second)
	m.XDSConnected.With().Set(1)
	all := scrape()
	m.XDSConnected.With().Set(0)
	if again := scrape(); !strings.Contains(again, "hauberk_xds_connected 0\n") {
		t.Error("a gauge that is back at 0 is gone")
	}
	for _, want := range []string{
		"# TYPE hauberk_upstream_requests_total counter\nhauberk_upstream_requests_total{cluster=\"cluster-7\",code_class=\"4xx\"} 1\n",
		"hauberk_upstream_request_duration_seconds_count{cluster=\"cluster-7\"} 1\n",
		"hauberk_xds_connected 1\n",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no %s in %s", want, all)
		}
	}
	if n := strings.Count(all, "hauberk_upstream_requests_total{"); n != 1 {
		t.Errorf("%d series of requests", n)
	}
}

// slowly calls before for each write, as a client does that reads slowly.
type slowly struct{ before func() }

func (s slowly) Write(b []byte) (int, error) {
	s.before()
	return len(b), nil
}

// TestScrapeHoldsNothing: configuration goes on while a scrape is being read.
func TestScrapeHoldsNothing(t *testing.T) {
	m := metricsOf(t, 200)
	n := 0
	err := m.Registry.WritePrometheus(slowly{func() {
		n++
		c := m.Cluster(fmt.Sprint("new-", n))
		c.Answered(0, 200)
		c.Forget()
	}})
	if err != nil || n < 2 {
		t.Errorf("%d writes, %v", n, err)
	}
}

func BenchmarkScrape(b *testing.B) {
	m := metricsOf(b, 10_000)
	m.Cluster("cluster-1").Use().RequestDuration.Observe(0, time.Second)
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Registry.WritePrometheus(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
