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
func (r *Registry) WritePrometheus(out io.Writer) error { return r.expose(out, false) }

// WriteUsed is WritePrometheus without the series that have counted nothing yet, as
// Envoy's usedonly leaves them out: of ten thousand clusters most are not used for long
// times. A gauge that is back at 0 was used.
func (r *Registry) WriteUsed(out io.Writer) error { return r.expose(out, true) }

func (r *Registry) expose(out io.Writer, used bool) error {
	w := exposition{bufio.NewWriter(out), used}
	r.mu.Lock()
	families := slices.Clone(r.families)
	r.mu.Unlock()
	slices.SortFunc(families, func(a, b *family) int { return strings.Compare(a.Name, b.Name) })
	for _, f := range families {
		f.write(w)
	}
	return w.Flush()
}

// exposition is where the text goes; used leaves out what has counted nothing.
type exposition struct {
	*bufio.Writer
	used bool
}

func (f *family) write(w exposition) {
	f.mu.Lock()
	collect, more := f.collect, f.more
	all := slices.Collect(maps.Values(f.series))
	f.mu.Unlock()
	slices.SortFunc(all, func(a, b *series) int { return slices.Compare(a.labels, b.labels) })
	if w.used {
		all = slices.DeleteFunc(all, func(s *series) bool { return !s.used() })
	}
	if collect != nil {
		f.title(w)
		collect(func(value float64, labels ...string) { f.line(w, "", labels, "", value) })
		return
	}
	bounds := make([]string, len(f.Bounds))
	for i, b := range f.Bounds {
		bounds[i] = strconv.FormatFloat(b.Seconds(), 'g', -1, 64)
	}
	titled := false
	one := func(s *series) {
		if !titled {
			titled = true
			f.title(w)
		}
		f.one(w, s, bounds)
	}
	if more != nil {
		more(f, func(s *series) {
			if w.used && !s.used() {
				return
			}
			for len(all) > 0 && slices.Compare(all[0].labels, s.labels) < 0 {
				one(all[0])
				all = all[1:]
			}
			one(s)
		})
	}
	for _, s := range all {
		one(s)
	}
}

func (f *family) title(w exposition) {
	w.WriteString("# HELP " + f.Name + " " + escapeHelp.Replace(f.Help) + "\n")
	w.WriteString("# TYPE " + f.Name + " " + f.Kind.String() + "\n")
}

// used tells whether anything was ever counted.
func (s *series) used() bool {
	switch {
	case s.counter != nil:
		return s.counter.Value() > 0
	case s.gauge != nil:
		return s.gauge.used()
	}
	return s.histogram.Count() > 0
}

// one writes a series; bounds are the texts of a histogram's.
func (f *family) one(w exposition, s *series, bounds []string) {
	switch {
	case s.counter != nil:
		f.count(w, "", s.labels, "", s.counter.Value())
	case s.gauge != nil:
		f.line(w, "", s.labels, "", s.gauge.Value())
	case s.histogram != nil:
		f.histogram(w, s, bounds)
	}
}

// histogram writes cumulative buckets; the count is that of the last one, so that
// the series agree although requests go on meanwhile.
func (f *family) histogram(w exposition, s *series, bounds []string) {
	h := s.histogram
	var total uint64
	for i, bound := range bounds {
		total += h.b.sum(h.first + i)
		f.count(w, "_bucket", s.labels, bound, total)
	}
	total += h.b.sum(h.first + len(bounds))
	f.count(w, "_bucket", s.labels, "+Inf", total)
	f.line(w, "_sum", s.labels, "", h.Seconds())
	f.count(w, "_count", s.labels, "", total)
}

func (f *family) count(w exposition, suffix string, labels []string, le string, value uint64) {
	f.head(w, suffix, labels, le)
	w.Write(append(strconv.AppendUint(roomForNumber(w), value, 10), '\n'))
}

func (f *family) line(w exposition, suffix string, labels []string, le string, value float64) {
	f.head(w, suffix, labels, le)
	w.Write(append(strconv.AppendFloat(roomForNumber(w), value, 'g', -1, 64), '\n'))
}

// roomForNumber is a buffer that holds a number and the end of its line, within w's own.
func roomForNumber(w exposition) []byte {
	const longest = 32
	if w.Available() < longest {
		_ = w.Flush() // an error stays with w
	}
	return w.AvailableBuffer()
}

// head writes a line's name and labels, piece by piece: there may be a million lines.
func (f *family) head(w exposition, suffix string, labels []string, le string) {
	w.WriteString(f.Name)
	w.WriteString(suffix)
	separator := byte('{')
	label := func(name, value string) {
		w.WriteByte(separator)
		w.WriteString(name)
		w.WriteString(`="`)
		w.WriteString(value)
		w.WriteByte('"')
		separator = ','
	}
	if len(labels) > 0 {
		for i, name := range f.Labels {
			label(name, escapeLabel.Replace(labels[i]))
		}
	}
	if le != "" {
		label("le", le)
	}
	if separator == ',' {
		w.WriteByte('}')
	}
	w.WriteByte(' ')
}

var (
	escapeLabel = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
	escapeHelp  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
)
