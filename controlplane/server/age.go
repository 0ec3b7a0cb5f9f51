package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hauberk-mesh/hauberk/internal/stale"
)

// catalogAge: the catalog is current unless something of the source fails, and
// then as old as its last answer.
func (s *Server) catalogAge() stale.Kept {
	st := s.cfg.Source.Status()
	k := stale.Kept{
		What: "the catalog of " + st.Kind + " " + st.Where, AsOf: st.LastSuccess,
		Means: "instances, config entries and intentions are served as they were; mend the source, the problems below say what fails",
	}
	if st.Synced && len(st.Errors) == 0 {
		k.AsOf = time.Now()
	}
	return k
}

// kept is all that this control plane serves though its origin may be away.
func (s *Server) kept() []stale.Kept {
	out := []stale.Kept{s.catalogAge()}
	for _, p := range s.identity.Peers() {
		out = append(out, stale.Kept{
			What: "what " + p.ID + " says", AsOf: p.Heard,
			Means: "its new signers, node records and bans are not known here, nor this one's there; check that the two reach each other. " +
				"Until it is back no new signer signs here; one that is gone for good is removed with hauberk ca remove NAME",
		})
	}
	return out
}

// ages collects the same as metrics.
type ages Server

var (
	catalogAgeDesc = prometheus.NewDesc("hauberk_catalog_age_seconds",
		"Time since the source of the catalog last answered; 0 while all of it works.", nil, nil)
	peerAgeDesc = prometheus.NewDesc("hauberk_control_plane_peer_age_seconds",
		"Time since another control plane last told its state.", []string{"peer"}, nil)
)

// Describe implements prometheus.Collector, as does Collect.
func (a *ages) Describe(to chan<- *prometheus.Desc) { to <- catalogAgeDesc; to <- peerAgeDesc }

// Collect reads the ages now.
func (a *ages) Collect(to chan<- prometheus.Metric) {
	s, now := (*Server)(a), time.Now()
	if age, ok := s.catalogAge().Age(now); ok {
		to <- prometheus.MustNewConstMetric(catalogAgeDesc, prometheus.GaugeValue, age.Seconds())
	}
	for _, p := range s.identity.Peers() {
		to <- prometheus.MustNewConstMetric(peerAgeDesc, prometheus.GaugeValue, max(now.Sub(p.Heard), 0).Seconds(), p.ID)
	}
}
