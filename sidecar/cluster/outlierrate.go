package cluster

import (
	"math"
	"slices"
)

// sample is a host's success rate in the interval that ended.
type sample struct {
	h       *Host
	percent float64
	total   uint64
}

// compare ejects the hosts whose success rate stands out; it tells whether there
// were any. c.mu is held.
func (c *Cluster) compare(cfg *Outlier) (changed bool) {
	var external, local []sample
	for _, h := range c.order {
		h.outlier.successRate = -1
		percent, total := h.outlier.external.take()
		localPercent, localTotal := h.outlier.local.take()
		if h.ejected() {
			continue
		}
		if total > 0 {
			external = append(external, sample{h, percent, total})
			if total >= uint64(min(cfg.RateVolume, cfg.FailureVolume)) {
				h.outlier.successRate = percent
			}
		}
		if localTotal > 0 {
			local = append(local, sample{h, localPercent, localTotal})
		}
	}
	changed = c.compareRates(cfg, external, SuccessRate, FailurePercentage)
	return c.compareRates(cfg, local, LocalSuccessRate, LocalFailurePercentage) || changed
}

func (c *Cluster) compareRates(cfg *Outlier, all []sample, byRate, byPercent Anomaly) (changed bool) {
	all = slices.DeleteFunc(all, func(s sample) bool { return s.h.ejected() }) // by the other origin's rates, just before
	enough := func(volume int) (out []sample) {
		for _, s := range all {
			if s.total >= uint64(volume) {
				out = append(out, s)
			}
		}
		return out
	}
	if hosts := enough(cfg.RateVolume); len(hosts) > 0 && len(hosts) >= cfg.RateMinHosts {
		mean, floor := rateFloor(hosts, float64(cfg.StdevFactor)/1000)
		for _, s := range hosts {
			if s.percent < floor {
				changed = c.eject(s.h, anomaly{byRate, s.percent, mean, floor}) || changed
			}
		}
	}
	if hosts := enough(cfg.FailureVolume); len(hosts) > 0 && len(hosts) >= cfg.FailureMinHosts {
		for _, s := range hosts {
			if 100-s.percent >= float64(cfg.FailurePercent) {
				changed = c.eject(s.h, anomaly{Anomaly: byPercent, percent: s.percent}) || changed
			}
		}
	}
	return changed
}

// rateFloor is the mean of the success rates, and that below which a host is an outlier: factor
// standard deviations below it.
func rateFloor(hosts []sample, factor float64) (mean, floor float64) {
	n, sum, squares := float64(len(hosts)), 0.0, 0.0
	for _, s := range hosts {
		sum += s.percent
	}
	mean = sum / n
	for _, s := range hosts {
		squares += (s.percent - mean) * (s.percent - mean)
	}
	return mean, mean - factor*math.Sqrt(squares/n)
}
