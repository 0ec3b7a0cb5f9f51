package cluster

import (
	"cmp"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
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
	degraded                                    degradation
	// external and local count the requests of the current interval.
	external, local rate
	// Under the cluster's lock:
	until       int64   // when the ejection ends
	times       int     // ejections that count towards the next one's length
	returned    int64   // when the last ejection ended
	since       int64   // when the last ejection began
	ejections   uint32  // ever
	successRate float64 // percent in the last interval, below 0 for unknown
}

// rate counts requests and successes.
type rate struct{ total, success atomic.Uint64 }

func (r *rate) count(ok bool) {
	r.total.Add(1)
	if ok {
		r.success.Add(1)
	}
}

// take returns the share of successes in percent, and begins anew.
func (r *rate) take() (percent float64, total uint64) {
	// In this order, a request that succeeds between the two lines counts as a failure of this
	// interval at worst, and as one more success of the next: the minimum keeps that at 100 %.
	success := r.success.Swap(0)
	total = r.total.Swap(0)
	if total == 0 {
		return 0, 0
	}
	return 100 * float64(min(success, total)) / float64(total), total
}

func (h *Host) ejected() bool { return h.outlier.isEjected.Load() }

// Report tells the outcome of an attempt: a status code or an Outcome.
func (h *Host) Report(o Outcome) { h.ReportJudged(o, o) }

// ReportJudged is Report of an answer that passive health checking is told another status of.
func (h *Host) ReportJudged(o, judged Outcome) {
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
	if cfg := h.cluster.cfg.Load().Outlier; cfg != nil {
		if o == OutcomeTimeout || o == OutcomeReset {
			h.reached(cfg)
		}
		h.judge(cfg, judged)
	}
}

// Judged is what passive health checking is told of an answer: where the cluster says which are
// errors, 500 at least for those, and 200 for all others, as in Envoy.
func (h *HTTP) Judged(r *message.Response) Outcome {
	switch {
	case h.Errors == nil:
		return Outcome(r.Status)
	case h.Errors.Match(r):
		return Outcome(max(r.Status, 500))
	}
	return 200
}

// reached tells outlier detection that a request without an answer had a connection: of what is
// the sidecar's own doing that counts as a success, as in Envoy, and begins the failures in a row
// anew.
func (h *Host) reached(cfg *Outlier) {
	if cfg.SplitLocalOrigin {
		h.outlier.local.count(true)
		clearCount(&h.outlier.failuresLocal)
	}
}

// ReportCut tells that an answer, which was reported, did not come whole: outlier detection
// judges both, as Envoy's does.
func (h *Host) ReportCut() {
	if cfg := h.cluster.cfg.Load().Outlier; cfg != nil {
		h.judge(cfg, OutcomeReset)
	}
}

// judge tells outlier detection of an outcome.
func (h *Host) judge(cfg *Outlier, o Outcome) {
	st := &h.outlier
	local := o < 0
	if cfg.SplitLocalOrigin {
		st.local.count(!local)
		if local {
			count(h, &st.failuresLocal, cfg.ConsecutiveLocalOrigin, ConsecutiveLocalOrigin)
			return
		}
	}
	ok := !local && o < 500
	st.external.count(ok)
	if !local {
		clearCount(&st.failuresLocal)
	}
	if ok {
		clearCount(&st.failures5xx)
		clearCount(&st.failuresGateway)
		return
	}
	if local || o >= 502 && o <= 504 {
		count(h, &st.failuresGateway, cfg.ConsecutiveGateway, ConsecutiveGateway)
	} else {
		clearCount(&st.failuresGateway)
	}
	count(h, &st.failures5xx, cfg.Consecutive5xx, Consecutive5xx)
}

// clearCount writes only what changes: the line is shared between cores.
func clearCount(c *atomic.Int32) {
	if c.Load() != 0 {
		c.Store(0)
	}
}

// count counts a failure, and ejects the host with the one that makes too many in a row. The count
// may be beyond a limit that was lowered; one of several callers that find it so goes on.
func count(h *Host, c *atomic.Int32, limit int, found Anomaly) {
	if limit <= 0 {
		return
	}
	if n := c.Add(1); int(n) < limit || !c.CompareAndSwap(n, 0) {
		return
	}
	own := h.cluster
	own.mu.Lock()
	defer own.mu.Unlock()
	if own.eject(h, anomaly{Anomaly: found}) {
		own.healthChanged()
	}
}

// Anomaly is how a host was found to be an outlier.
type Anomaly uint8

// The anomalies.
const (
	Consecutive5xx Anomaly = iota
	ConsecutiveGateway
	ConsecutiveLocalOrigin
	SuccessRate
	LocalSuccessRate
	FailurePercentage
	LocalFailurePercentage
	// degradedAnswer is none that a host is ejected for.
	degradedAnswer
)

var anomalyNames = [...]string{
	Consecutive5xx: "consecutive_5xx", ConsecutiveGateway: "consecutive_gateway_failure",
	ConsecutiveLocalOrigin: "consecutive_local_origin_failure",
	SuccessRate:            "success_rate", LocalSuccessRate: "local_origin_success_rate",
	FailurePercentage: "failure_percentage", LocalFailurePercentage: "local_origin_failure_percentage",
	degradedAnswer: "degraded",
}

func (a Anomaly) String() string { return anomalyNames[a] }

// enforcing is the chance, in percent, that an anomaly has consequences.
func (o *Outlier) enforcing(a Anomaly) int {
	return [...]int{
		o.EnforcingConsecutive5xx, o.EnforcingConsecutiveGateway, o.EnforcingConsecutiveLocalOrigin,
		o.EnforcingSuccessRate, o.EnforcingLocalSuccessRate, o.EnforcingFailurePercent, o.EnforcingLocalFailurePercent,
	}[a]
}

// eject takes a host out of balancing for a time that grows with each ejection; it
// tells whether it did. c.mu is held.
func (c *Cluster) eject(h *Host, found anomaly) bool {
	cfg := c.cfg.Load().Outlier
	if cfg == nil || h.ejected() || !c.has(h) {
		return false
	}
	within := 100*(c.ejected+1) <= cfg.MaxEjectionPercent*len(c.order)
	switch {
	case !within && !(cfg.AlwaysEjectOne && c.ejected == 0):
		c.metrics.Outlier(found.String(), "overflow")
		return false
	case rand.IntN(100) >= cfg.enforcing(found.Anomaly):
		c.metrics.Outlier(found.String(), "observed")
		c.tellEjection(h, found, false)
		return false
	}
	c.metrics.Outlier(found.String(), "ejected")
	var length time.Duration
	length, h.outlier.times = cfg.ejectionLength(h.outlier.times)
	h.outlier.since = monotonic()
	h.outlier.until = h.outlier.since + int64(length)
	h.outlier.ejections++
	h.outlier.isEjected.Store(true)
	c.ejected++
	if c.metrics != nil {
		c.metrics.Use().Ejections.Inc(0)
	}
	c.m.log.Warn("host ejected", "cluster", c.name, "host", h.key, "for", length, "reason", found.String())
	c.tellEjection(h, found, true)
	if c.cfg.Load().CloseOnFailure {
		h.closeBytes()
	}
	return true
}

// ejectionLength is how long an ejection lasts after so many others, and how many they are then.
func (o *Outlier) ejectionLength(times int) (time.Duration, int) {
	base, most := o.ejectionTimes()
	if base*time.Duration(times) < most+base {
		times++
	}
	length := min(base*time.Duration(times), most)
	if o.EjectionJitter > 0 {
		length += rand.N(o.EjectionJitter)
	}
	return length, times
}

func (o *Outlier) ejectionTimes() (base, most time.Duration) {
	base, most = o.BaseEjectionTime, o.MaxEjectionTime
	if base <= 0 {
		base = 30 * time.Second
	}
	if most <= 0 {
		most = max(base, 300*time.Second)
	}
	return base, most
}

// watchOutliers has the hosts judged once an interval. c.mu is held.
func (c *Cluster) watchOutliers(o *Outlier) {
	every := time.Duration(0)
	if o != nil && !c.removed {
		every = max(time.Millisecond, cmp.Or(o.Interval, 10*time.Second))
	}
	if every == c.judgedEvery {
		return // or a cluster that changes often would never be judged
	}
	c.judgedEvery = every
	if c.judging != nil {
		c.judging.Stop()
		c.judging = nil
	}
	if every > 0 {
		c.judging = time.AfterFunc(every, func() {
			defer panics.Contain(panics.Housekeeper, nil, nil)
			c.judge()
		})
	}
}

// judge ends ejections and compares the hosts.
func (c *Cluster) judge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	cfg := c.cfg.Load().Outlier
	if cfg == nil || c.judging == nil {
		return
	}
	defer c.judging.Reset(c.judgedEvery)
	now, interval := monotonic(), int64(c.judgedEvery)
	changed := false
	for _, h := range c.order {
		if h.ejected() && now >= h.outlier.until {
			c.uneject(h)
			changed = true
		}
	}
	changed = c.endDegradations(now, interval) || changed
	changed = c.compare(cfg) || changed
	for _, h := range c.order {
		if st := &h.outlier; !h.ejected() && st.times > 0 && now-st.returned >= interval {
			st.times--
		}
	}
	if changed {
		c.rebuild()
	}
}

// uneject lets a host back. c.mu is held, and the set is to be rebuilt.
func (c *Cluster) uneject(h *Host) {
	h.outlier.isEjected.Store(false)
	h.outlier.returned = monotonic()
	clearCount(&h.outlier.failures5xx)
	clearCount(&h.outlier.failuresGateway)
	clearCount(&h.outlier.failuresLocal)
	c.ejected--
	c.m.log.Info("host back after ejection", "cluster", c.name, "host", h.key)
	c.tellReturn(h)
}

// unejectAll ends every ejection: passive health checking was switched off.
func (c *Cluster) unejectAll() {
	for _, h := range c.order {
		if h.ejected() {
			c.uneject(h)
		}
		h.outlier.times = 0
	}
	c.rebuild()
}
