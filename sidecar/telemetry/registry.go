package telemetry

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Kind of a metric family.
type Kind uint8

// The kinds.
const (
	CounterKind Kind = iota
	GaugeKind
	HistogramKind
)

func (k Kind) String() string {
	return [...]string{"counter", "gauge", "histogram"}[k]
}

// Desc describes a metric family: one row of docs/METRICS.md.
type Desc struct {
	Name, Help string
	Kind       Kind
	Labels     []string
	// Bounds are the buckets of a histogram.
	Bounds []time.Duration
}

// Registry holds metric families. Families are made at start, series when
// configuration is applied or when a bounded set of label values first occurs.
type Registry struct {
	mu       sync.Mutex
	families []*family
	byName   map[string]*family
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry { return &Registry{byName: map[string]*family{}} }

type family struct {
	Desc
	mu     sync.Mutex
	series map[string]*series
	// more, when set, visits series that are kept elsewhere, sorted by labels. What is
	// visited is valid until the visit ends.
	more func(f *family, visit func(*series))
	// collect, when set, yields the series at scrape time instead.
	collect func(emit func(value float64, labels ...string))
}

// series is one set of label values; exactly one of the handles is set.
type series struct {
	labels    []string
	counter   *Counter
	gauge     *Gauge
	histogram *Histogram
}

// Families describes what is registered, sorted by name.
func (r *Registry) Families() []Desc {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Desc, len(r.families))
	for i, f := range r.families {
		out[i] = f.Desc
	}
	slices.SortFunc(out, func(a, b Desc) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (r *Registry) add(d Desc) *family {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byName[d.Name] != nil {
		panic(fmt.Sprintf("telemetry: metric %s registered twice", d.Name))
	}
	f := &family{Desc: d, series: map[string]*series{}}
	r.byName[d.Name] = f
	r.families = append(r.families, f)
	return f
}

// CounterVec is a family of counters.
type CounterVec struct{ f *family }

// GaugeVec is a family of gauges.
type GaugeVec struct{ f *family }

// HistogramVec is a family of histograms.
type HistogramVec struct{ f *family }

// Counter registers a family of counters.
func (r *Registry) Counter(name, help string, labels ...string) *CounterVec {
	return &CounterVec{r.add(Desc{Name: name, Help: help, Kind: CounterKind, Labels: labels})}
}

// Gauge registers a family of gauges.
func (r *Registry) Gauge(name, help string, labels ...string) *GaugeVec {
	return &GaugeVec{r.add(Desc{Name: name, Help: help, Kind: GaugeKind, Labels: labels})}
}

// Histogram registers a family of histograms of durations.
func (r *Registry) Histogram(name, help string, bounds []time.Duration, labels ...string) *HistogramVec {
	return &HistogramVec{r.add(Desc{Name: name, Help: help, Kind: HistogramKind, Labels: labels, Bounds: bounds})}
}

// With returns the counter of these label values, making it when it is new. For
// configuration time, not for each request.
func (v *CounterVec) With(labels ...string) *Counter { return v.in(nil, 0, labels...) }

// in places a new counter into a cell of b.
func (v *CounterVec) in(b *block, cell int, labels ...string) *Counter {
	return v.f.get(labels, func(s *series) {
		if b == nil {
			b = newBlock(1)
		}
		s.counter = &Counter{b: b, cell: cell}
	}).counter
}

// With returns the gauge of these label values.
func (v *GaugeVec) With(labels ...string) *Gauge { return v.in(nil, 0, labels...) }

func (v *GaugeVec) in(b *block, cell int, labels ...string) *Gauge {
	return v.f.get(labels, func(s *series) {
		if b == nil {
			b = newBlock(1)
		}
		s.gauge = &Gauge{b: b, cell: cell}
	}).gauge
}

// Collect makes the family call fn at each scrape in place of stored series.
func (v *GaugeVec) Collect(fn func(emit func(value float64, labels ...string))) {
	v.f.mu.Lock()
	defer v.f.mu.Unlock()
	v.f.collect = fn
}

// Collect is that of gauges.
func (v *CounterVec) Collect(fn func(emit func(value float64, labels ...string))) {
	(&GaugeVec{v.f}).Collect(fn)
}

// With returns the histogram of these label values.
func (v *HistogramVec) With(labels ...string) *Histogram { return v.in(nil, 0, labels...) }

func (v *HistogramVec) in(b *block, first int, labels ...string) *Histogram {
	return v.f.get(labels, func(s *series) {
		if b == nil {
			b = newBlock(histogramCells(v.f.Bounds))
		}
		s.histogram = &Histogram{b: b, first: first, bounds: v.f.Bounds, coarse: coarseFor(v.f.Bounds)}
	}).histogram
}

// Delete removes the series with these label values. Handles to it stay usable
// and are no longer exposed.
func (v *CounterVec) Delete(labels ...string) { v.f.delete(labels) }

// Delete removes the series with these label values.
func (v *GaugeVec) Delete(labels ...string) { v.f.delete(labels) }

func seriesKey(labels []string) string { return strings.Join(labels, "\xff") }

func (f *family) get(labels []string, fill func(*series)) *series {
	if len(labels) != len(f.Labels) {
		panic(fmt.Sprintf("telemetry: %s takes %d labels, got %d", f.Name, len(f.Labels), len(labels)))
	}
	key := seriesKey(labels)
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.series[key]
	if s == nil {
		s = &series{labels: slices.Clone(labels)}
		fill(s)
		f.series[key] = s
	}
	return s
}

func (f *family) delete(labels []string) { f.deleteKey(seriesKey(labels)) }

func (f *family) deleteKey(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.series, key)
}

// deleteWhere removes every series whose labels are to be dropped.
func (f *family) deleteWhere(drop func(labels []string) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, s := range f.series {
		if drop(s.labels) {
			delete(f.series, key)
		}
	}
}
