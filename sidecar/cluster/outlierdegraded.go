package cluster

import (
	"sync/atomic"
	"time"
)

// degradation is that a host said of itself, with an answer, that it is degraded. It goes on for
// a time, whatever the host says then, as an ejection does.
type degradation struct {
	is atomic.Bool
	// Under the cluster's lock:
	until int64 // when it ends
	times int   // those that count towards the next one's length
	ended int64 // when the last one ended
}

// ReportDegraded tells that a good answer of the host, which is reported too, calls it degraded.
func (h *Host) ReportDegraded() {
	c := h.cluster
	if cfg := c.cfg.Load().Outlier; cfg == nil || !cfg.DetectDegraded || h.outlier.degraded.is.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.degrade(h) {
		c.healthChanged()
	}
}

// degrade has a host come after the others; it tells whether it did. c.mu is held.
func (c *Cluster) degrade(h *Host) bool {
	cfg, d := c.cfg.Load().Outlier, &h.outlier.degraded
	if cfg == nil || !cfg.DetectDegraded || d.is.Load() || !c.has(h) {
		return false
	}
	c.metrics.Outlier(degradedAnswer.String(), "marked")
	var length time.Duration
	length, d.times = cfg.ejectionLength(d.times)
	d.until = monotonic() + int64(length)
	d.is.Store(true)
	c.m.log.Info("host says it is degraded", "cluster", c.name, "host", h.key, "for", length)
	c.tellEjection(h, anomaly{Anomaly: degradedAnswer}, true)
	return true
}

// endDegradations ends the degradations that are over, and tells whether there were any. c.mu is held.
func (c *Cluster) endDegradations(now, interval int64) (changed bool) {
	for _, h := range c.order {
		switch d := &h.outlier.degraded; {
		case d.is.Load() && now >= d.until:
			c.undegrade(h, now)
			changed = true
		case !d.is.Load() && d.times > 0 && now-d.ended >= interval:
			d.times--
		}
	}
	return changed
}

func (c *Cluster) undegrade(h *Host, now int64) {
	h.outlier.degraded.is.Store(false)
	h.outlier.degraded.ended = now
	c.m.log.Info("host is no longer degraded", "cluster", c.name, "host", h.key)
	c.tellReturn(h)
}

// undegradeAll ends every degradation: detecting them was switched off. c.mu is held.
func (c *Cluster) undegradeAll() (changed bool) {
	for _, h := range c.order {
		if h.outlier.degraded.is.Load() {
			c.undegrade(h, monotonic())
			changed = true
		}
		h.outlier.degraded.times = 0
	}
	return changed
}
