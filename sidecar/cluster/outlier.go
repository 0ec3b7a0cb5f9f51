package cluster

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Outcome is what came of an attempt, for passive health checking.
type Outcome int

// Outcomes that are not status codes.
const (
	// OutcomeConnect: no connection could be made.
	OutcomeConnect Outcome = -1 - iota
	// OutcomeTimeout: no answer in time.
	OutcomeTimeout
	// OutcomeReset: the connection ended before or in the answer.
	OutcomeReset
)

// outlierState is a host's part of passive health checking.
type outlierState struct {
	failures5xx, failuresGateway, failuresLocal atomic.Int32
	isEjected                                   atomic.Bool
	// Under the cluster's lock:
	until int64 // when the ejection ends
	times int   // ejections that count towards the next one's length
}

func (h *Host) ejected() bool { return h.outlier.isEjected.Load() }

// Report tells the outcome of an attempt: a status code or an Outcome.
func (h *Host) Report(o Outcome) {
	h.requests.Add(1)
	if o >= 100 && o < 500 {
		h.success.Add(1)
	} else {
		h.failed.Add(1)
	}
	switch o {
	case OutcomeConnect:
		h.connectFailed.Add(1)
	case OutcomeTimeout:
		h.timeouts.Add(1)
	}
	cfg := h.cluster.cfg.Load().Outlier
	if cfg == nil {
		return
	}
	st := &h.outlier
	local := o < 0
	if local && cfg.SplitLocalOrigin {
		count(h, &st.failuresLocal, cfg.ConsecutiveLocalOrigin, cfg.EnforcingConsecutiveLocalOrigin)
		return
	}
	if !local {
		clearCount(&st.failuresLocal)
	}
	if !local && o < 500 {
		clearCount(&st.failures5xx)
		clearCount(&st.failuresGateway)
		return
	}
	if local || o >= 502 && o <= 504 {
		count(h, &st.failuresGateway, cfg.ConsecutiveGateway, cfg.EnforcingConsecutiveGateway)
	} else {
		clearCount(&st.failuresGateway)
	}
	count(h, &st.failures5xx, cfg.Consecutive5xx, cfg.EnforcingConsecutive5xx)
}

// clearCount writes only what changes: the line is shared between cores.
func clearCount(c *atomic.Int32) {
	if c.Load() != 0 {
		c.Store(0)
	}
}

func count(h *Host, c *atomic.Int32, limit, enforcing int) {
	n := c.Add(1)
	if limit <= 0 || int(n) != limit {
		return
	}
	c.Store(0)
	if rand.IntN(100) < enforcing {
		h.cluster.eject(h)
	}
}

// eject takes a host out of balancing for a time that grows with each ejection.
func (c *Cluster) eject(h *Host) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cfg := c.cfg.Load().Outlier
	if cfg == nil || h.ejected() || c.byKey[h.key] != h {
		return
	}
	within := 100*(c.ejected+1) <= cfg.MaxEjectionPercent*len(c.byKey)
	if !within && !(cfg.AlwaysEjectOne && c.ejected == 0) {
		return
	}
	base := cfg.BaseEjectionTime
	if base <= 0 {
		base = 30 * time.Second
	}
	most := cfg.MaxEjectionTime
	if most <= 0 {
		most = max(base, 300*time.Second)
	}
	h.outlier.times++
	h.outlier.until = monotonic() + int64(min(base*time.Duration(h.outlier.times), most))
	h.outlier.isEjected.Store(true)
	c.ejected++
	if c.metrics != nil {
		c.metrics.Ejections.Inc(0)
	}
	c.m.log.Warn("host ejected", "cluster", c.name, "host", h.key, "for", min(base*time.Duration(h.outlier.times), most))
	c.rebuild()
}

// tickOutliers ends ejections, once an interval.
func (c *Cluster) tickOutliers(now int64) {
	cfg := c.cfg.Load().Outlier
	if cfg == nil {
		return
	}
	interval := int64(cfg.Interval)
	if interval <= 0 {
		interval = int64(10 * time.Second)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now-c.checked < interval {
		return
	}
	c.checked = now
	changed := false
	for _, h := range c.byKey {
		switch {
		case h.ejected() && now >= h.outlier.until:
			c.uneject(h)
			changed = true
		case !h.ejected() && h.outlier.times > 0:
			h.outlier.times--
		}
	}
	if changed {
		c.rebuild()
	}
}

func (c *Cluster) uneject(h *Host) {
	h.outlier.isEjected.Store(false)
	clearCount(&h.outlier.failures5xx)
	clearCount(&h.outlier.failuresGateway)
	clearCount(&h.outlier.failuresLocal)
	c.ejected--
	c.m.log.Info("host back after ejection", "cluster", c.name, "host", h.key)
}

// unejectAll ends every ejection: passive health checking was switched off.
func (c *Cluster) unejectAll() {
	for _, h := range c.byKey {
		if h.ejected() {
			c.uneject(h)
		}
		h.outlier.times = 0
	}
	c.rebuild()
}
