package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hauberk-mesh/hauberk/xds/ads"
)

// observer turns what sessions do into metrics. Its one label values are
// resource types and results; nothing a client invents becomes a label.
type observer struct {
	ads.NopObserver
	sessions    prometheus.Gauge
	refused     *prometheus.CounterVec
	sent        *prometheus.CounterVec
	acks, nacks *prometheus.CounterVec
	ackSeconds  *prometheus.HistogramVec
	converged   prometheus.Histogram
}

func newObserver(reg prometheus.Registerer) *observer {
	buckets := []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30}
	o := &observer{
		sessions: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hauberk_xds_sessions", Help: "Open xDS streams."}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hauberk_xds_refused_total", Help: "xDS streams that were not admitted, by reason."}, []string{"reason"}),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hauberk_xds_resources_sent_total", Help: "Resources sent, by type and whether they were upserted or removed."}, []string{"type", "change"}),
		acks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hauberk_xds_acks_total", Help: "Responses that clients accepted, by type."}, []string{"type"}),
		nacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hauberk_xds_nacks_total", Help: "Responses that clients rejected, by type."}, []string{"type"}),
		ackSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hauberk_xds_ack_seconds", Help: "Time from a response to its acknowledgement, by type.", Buckets: buckets}, []string{"type"}),
		converged: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "hauberk_convergence_seconds", Help: "Time from the source's word of a change to a client's last acknowledgement of it.", Buckets: buckets}),
	}
	reg.MustRegister(o.sessions, o.refused, o.sent, o.acks, o.nacks, o.ackSeconds, o.converged)
	return o
}

func typeLabel(typeURL string) string {
	if s := shortTypes[typeURL]; s != "" {
		return s
	}
	return "other"
}

// SessionOpened implements ads.Observer, as do the methods below.
func (o *observer) SessionOpened(ads.SessionInfo) { o.sessions.Inc() }

// SessionClosed counts down.
func (o *observer) SessionClosed(ads.SessionInfo, error) { o.sessions.Dec() }

// Refused counts streams that were not admitted.
func (o *observer) Refused(reason string) { o.refused.WithLabelValues(reason).Inc() }

// Sent counts resources.
func (o *observer) Sent(_ ads.SessionInfo, typeURL string, upserts, removed int) {
	o.sent.WithLabelValues(typeLabel(typeURL), "upserted").Add(float64(upserts))
	o.sent.WithLabelValues(typeLabel(typeURL), "removed").Add(float64(removed))
}

// Acked counts and times acknowledgements.
func (o *observer) Acked(_ ads.SessionInfo, typeURL string, took time.Duration) {
	o.acks.WithLabelValues(typeLabel(typeURL)).Inc()
	o.ackSeconds.WithLabelValues(typeLabel(typeURL)).Observe(took.Seconds())
}

// Nacked counts rejections.
func (o *observer) Nacked(_ ads.SessionInfo, typeURL string, _ []string, _ string) {
	o.nacks.WithLabelValues(typeLabel(typeURL)).Inc()
}

// Converged times a change from its source to the client.
func (o *observer) Converged(_ ads.SessionInfo, c ads.Convergence) {
	if !c.Received.IsZero() {
		o.converged.Observe(c.Acked.Sub(c.Received).Seconds())
	}
}
