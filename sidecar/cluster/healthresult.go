package cluster

import (
	"errors"
	"math/rand/v2"
	"time"
)

// checkDone takes a verdict in and returns the time until the next check.
func (c *Cluster) checkDone(k *checker, v verdict) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.checks[k.h] != k {
		return k.cfg.Interval // stopped meanwhile
	}
	if v.unready {
		if k.h.check.history.lastError == "" {
			c.m.log.Warn("health check cannot be made yet", "cluster", c.name, "host", k.h.key, "err", v.err)
		}
		k.h.check.history.lastError = v.err.Error()
		if c.unproven && len(c.unanswered) == 0 {
			c.prove() // what is missing may come with a listener that waits for this cluster
			c.healthChanged()
		}
		return unreadyPause
	}
	k.h.check.history.attempts++
	defer c.resulted()
	var t transition
	if v.err == nil {
		t = c.checkPassed(k, v.degraded)
	} else {
		t = c.checkMissed(k, v)
	}
	if k.h.check.state.Load()&checkPending != 0 {
		k.h.check.clear(checkPending)
		t = changed
	}
	c.settle(k, t)
	return k.interval(v.err == nil, t, c.trafficked.Load())
}

// settle draws the consequences of what happened to the state of a host. c.mu is held.
func (c *Cluster) settle(k *checker, t transition) {
	switch {
	case k.h.check.removed && k.h.check.state.Load()&checkFailed != 0:
		c.release(k)
	case t == changed:
		c.healthChanged()
	}
}

// errAskedOut is why a host fails that answers with x-envoy-immediate-health-check-fail.
var errAskedOut = errors.New("an answer of the host asks for no further requests")

// FailCheck takes a host that is checked for one that fails, and out of the sums that
// decide on failover, until checks pass: it is about to go, as an answer of its says. A
// host that is not checked could not come back, and nothing happens to it.
func (h *Host) FailCheck() {
	if h.check.state.Load()&checked == 0 {
		return
	}
	c := h.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.checks[h]; k != nil {
		c.settle(k, c.checkMissed(k, verdict{err: errAskedOut, exclude: true, passive: true}))
	}
}

// transition is what a check did to the state of its host.
type transition uint8

const (
	unchanged transition = iota
	pendingChange
	changed
)

func (c *Cluster) checkPassed(k *checker, degraded bool) (t transition) {
	h, st := k.h, &k.h.check
	first := st.state.Load()&checkPending != 0
	// A host whose only name is resolved later counts as healthy before its first check in Envoy:
	// that adds nothing there. Here it waits for the check as others do, and nothing is said.
	added := !first || c.cfg.Load().Type != LogicalDNS
	k.missed = 0
	c.metrics.HealthChecked("success")
	if bits := st.state.Load(); bits&checkFailed != 0 {
		// The first result counts at once: it makes starting faster.
		k.passed++
		if !first && k.passed < k.cfg.HealthyThreshold {
			t = pendingChange
		} else {
			st.clear(checkFailed | checkExcluded | checkTimeout)
			st.history.lastError = ""
			h.healthySince.Store(monotonic())
			c.m.log.Info("host passes its health checks", "cluster", c.name, "host", h.key)
			if added {
				c.tell(k, func(e *checkEvent) { e.AddHealthy = &firstCheck{first} })
			}
			t = changed
		}
	}
	if (t != changed || !added) && k.cfg.AlwaysLogSuccess {
		c.m.log.Info("health check passed", "cluster", c.name, "host", h.key)
		c.tell(k, func(e *checkEvent) { e.Success = something })
	}
	if degraded != (st.state.Load()&checkDegraded != 0) {
		if degraded {
			st.set(checkDegraded)
		} else {
			st.clear(checkDegraded)
		}
		c.m.log.Info("host reports on itself", "cluster", c.name, "host", h.key, "degraded", degraded)
		c.tell(k, func(e *checkEvent) {
			if degraded {
				e.Degraded = something
			} else {
				e.NoLongerDegraded = something
			}
		})
		if t == unchanged {
			t = changed
		}
	}
	if o := c.cfg.Load().Outlier; o != nil && !o.KeepOnCheck && h.ejected() && st.state.Load()&checkFailed == 0 {
		c.uneject(h)
		t = changed
	}
	return t
}

func (c *Cluster) checkMissed(k *checker, v verdict) (t transition) {
	h, st := k.h, &k.h.check
	first := st.state.Load()&checkPending != 0
	k.passed = 0
	st.history.failures++
	st.history.lastError = v.err.Error()
	result := "failure"
	switch {
	case v.timeout:
		result = "timeout"
	case v.network:
		result = "network_failure"
	case v.passive:
		result = "passive_failure"
	}
	c.metrics.HealthChecked(result)
	if v.exclude {
		st.set(checkExcluded)
	}
	if st.state.Load()&checkFailed == 0 {
		k.missed++
		if (v.network || v.retriable) && k.missed < k.cfg.UnhealthyThreshold {
			t = pendingChange
		} else {
			st.set(checkFailed)
			c.m.log.Warn("host fails its health checks", "cluster", c.name, "host", h.key, "err", v.err)
			c.tell(k, func(e *checkEvent) { e.EjectUnhealthy = &checkFailure{Type: v.failureType(), Status: v.status} })
			if c.cfg.Load().CloseOnFailure {
				h.closeBytes()
			}
			t = changed
		}
	}
	if k.cfg.AlwaysLogFailures || first {
		if t != changed {
			c.m.log.Warn("health check failed", "cluster", c.name, "host", h.key, "err", v.err)
		}
		c.tell(k, func(e *checkEvent) { e.Failure = &checkFailure{v.failureType(), &first, v.status} })
	}
	if v.timeout && st.state.Load()&checkFailed != 0 {
		st.set(checkTimeout)
	} else {
		st.clear(checkTimeout)
	}
	return t
}

// release lets a host go that only its checks had kept. c.mu is held.
func (c *Cluster) release(k *checker) {
	c.leave(k.h)
	c.forget(k.h)
	c.syncChecks()
	c.rebuild()
	c.hostsChanged()
}

// interval is the time until the next check after a result and what it did.
func (k *checker) interval(passed bool, t transition, traffic bool) time.Duration {
	c := k.cfg
	d := c.Interval
	switch {
	case !traffic && passed && t != pendingChange:
		d = c.NoTrafficHealthy
	case !traffic:
		d = c.NoTraffic
	case passed && t == pendingChange:
		d = c.HealthyEdge
	case !passed && t == pendingChange:
		d = c.UnhealthyEdge
	case !passed:
		d = c.Unhealthy
	}
	d = jittered(d, float64(c.JitterPercent))
	if c.Jitter > 0 {
		d += rand.N(c.Jitter)
	}
	return max(d, time.Millisecond)
}
