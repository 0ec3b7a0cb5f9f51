package store

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	published  prometheus.Counter
	held       prometheus.Gauge
	confirming prometheus.Gauge
	guard      prometheus.Gauge
	guards     *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		published: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hauberk_catalog_snapshots_total",
			Help: "Catalog snapshots published.",
		}),
		held: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hauberk_catalog_held_instances",
			Help: "Instances whose last-known health is kept against what the source reports.",
		}),
		confirming: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hauberk_catalog_confirming_services",
			Help: "Services whose reported loss of the last endpoint is not confirmed yet.",
		}),
		guard: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hauberk_catalog_guard_active",
			Help: "1 while the source was regained a short time ago and loss is distrusted.",
		}),
		guards: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hauberk_catalog_guard_decisions_total",
			Help: "Decisions of the guards against a false empty, by guard and outcome.",
		}, []string{"guard", "outcome"}),
	}
	if r != nil {
		r.MustRegister(m.published, m.held, m.confirming, m.guard, m.guards)
	}
	return m
}
