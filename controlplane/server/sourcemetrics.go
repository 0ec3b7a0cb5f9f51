package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hauberk-mesh/hauberk/controlplane/source"
)

// sourceMetrics shows a source's status as metrics, read when they are asked
// for. A label is a kind of problem, never a name that somebody chose.
type sourceMetrics struct{ source source.Source }

var (
	sourceProblems = prometheus.NewDesc("hauberk_source_problems",
		"Current problems of the source, by what they concern: a kind of watch, the token file, an entry or a file that cannot be used.",
		[]string{"concern"}, nil)
	sourceSynced = prometheus.NewDesc("hauberk_source_synced",
		"1 once the whole catalog was read.", nil, nil)
	sourceAnswered = prometheus.NewDesc("hauberk_source_last_success_timestamp_seconds",
		"When the source last had an answer.", nil, nil)
)

// Describe implements prometheus.Collector.
func (m sourceMetrics) Describe(out chan<- *prometheus.Desc) {
	out <- sourceProblems
	out <- sourceSynced
	out <- sourceAnswered
}

// Collect implements prometheus.Collector.
func (m sourceMetrics) Collect(out chan<- prometheus.Metric) {
	st := m.source.Status()
	for concern, n := range st.Concerns() {
		out <- prometheus.MustNewConstMetric(sourceProblems, prometheus.GaugeValue, float64(n), concern)
	}
	synced := 0.0
	if st.Synced {
		synced = 1
	}
	out <- prometheus.MustNewConstMetric(sourceSynced, prometheus.GaugeValue, synced)
	if !st.LastSuccess.IsZero() {
		out <- prometheus.MustNewConstMetric(sourceAnswered, prometheus.GaugeValue, float64(st.LastSuccess.UnixNano())/1e9)
	}
}
