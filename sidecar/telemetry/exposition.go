package telemetry

import (
	"bufio"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// WritePrometheus writes every series in the Prometheus text format, version
// 0.0.4, sorted by name and labels. It takes no lock that the data path holds.
func (r *Registry) WritePrometheus(out io.Writer) error {
	w := bufio.NewWriter(out)
	r.mu.Lock()
	families := slices.Clone(r.families)
	r.mu.Unlock()
	slices.SortFunc(families, func(a, b *family) int { return strings.Compare(a.Name, b.Name) })
	for _, f := range families {
		f.write(w)
	}
	return w.Flush()
}

func (f *family) write(w *bufio.Writer) {
	f.mu.Lock()
	collect, more := f.collect, f.more
	all := slices.Collect(maps.Values(f.series))
	f.mu.Unlock()
	if more != nil {
		all = append(all, more(f)...)
	}
	slices.SortFunc(all, func(a, b *series) int { return slices.Compare(a.labels, b.labels) })
	if len(all) == 0 && collect == nil {
		return
	}
	w.WriteString("# HELP " + f.Name + " " + escapeHelp.Replace(f.Help) + "\n")
	w.WriteString("# TYPE " + f.Name + " " + f.Kind.String() + "\n")
	if collect != nil {
		collect(func(value float64, labels ...string) { f.line(w, "", labels, "", floatText(value)) })
		return
	}
	for _, s := range all {
		switch {
		case s.counter != nil:
			f.line(w, "", s.labels, "", strconv.FormatUint(s.counter.Value(), 10))
		case s.gauge != nil:
			f.line(w, "", s.labels, "", floatText(s.gauge.Value()))
		case s.histogram != nil:
			f.histogram(w, s)
		}
	}
}

// histogram writes cumulative buckets; the count is that of the last one, so that
// the series agree although requests go on meanwhile.
func (f *family) histogram(w *bufio.Writer, s *series) {
	h := s.histogram
	var total uint64
	for i, bound := range h.bounds {
		total += h.b.sum(h.first + i)
		f.line(w, "_bucket", s.labels, floatText(bound.Seconds()), strconv.FormatUint(total, 10))
	}
	total += h.b.sum(h.first + len(h.bounds))
	f.line(w, "_bucket", s.labels, "+Inf", strconv.FormatUint(total, 10))
	sum := float64(h.b.sum(h.first+len(h.bounds)+1)) / 1e9
	f.line(w, "_sum", s.labels, "", floatText(sum))
	f.line(w, "_count", s.labels, "", strconv.FormatUint(total, 10))
}

func (f *family) line(w *bufio.Writer, suffix string, labels []string, le, value string) {
	w.WriteString(f.Name + suffix)
	if len(labels) > 0 || le != "" {
		sep := "{"
		for i, name := range f.Labels {
			w.WriteString(sep + name + `="` + escapeLabel.Replace(labels[i]) + `"`)
			sep = ","
		}
		if le != "" {
			w.WriteString(sep + `le="` + le + `"`)
		}
		w.WriteString("}")
	}
	w.WriteString(" " + value + "\n")
}

var (
	escapeLabel = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
	escapeHelp  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
)

func floatText(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
