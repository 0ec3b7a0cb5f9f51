package cluster

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestDegradedAnswers: a host that calls itself degraded comes after the others for as long as an
// ejection would last, whatever bounds ejections, and whether it is ejected or not.
func TestDegradedAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewManager(Options{})
		defer m.Close()
		o := Outlier{
			DetectDegraded: true, Interval: time.Second, BaseEjectionTime: 10 * time.Second, MaxEjectionTime: 15 * time.Second,
			Consecutive5xx: 1, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 100,
		}
		cfg := &Config{Name: "c", Outlier: &o, Endpoints: hosts("c", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")}
		c := mustUpdate(t, m, cfg)
		h := c.hosts()[0]
		lasts := func() time.Duration {
			began := time.Now()
			for h.outlier.degraded.is.Load() {
				wait(100 * time.Millisecond)
			}
			return time.Since(began)
		}
		for _, least := range []time.Duration{10 * time.Second, 15 * time.Second} {
			h.ReportDegraded()
			wait(time.Second)
			if got := count1(t, c, 300); got["10.0.0.1"] != 0 || !c.Stats()[0].Degraded || h.ejected() {
				t.Errorf("degraded: %v, %+v", got, c.Stats()[0])
			}
			h.ReportDegraded() // again: nothing is longer for it
			if took := lasts(); took < least-time.Second || took > least+time.Second {
				t.Errorf("degraded for %v, not %v", took, least)
			}
			wait(100 * time.Millisecond)
			if got := count1(t, c, 300); got["10.0.0.1"] == 0 {
				t.Errorf("after it: %v", got)
			}
		}
		if wait(10 * time.Second); h.outlier.degraded.times != 0 {
			t.Errorf("%d still count", h.outlier.degraded.times)
		}
		h.Report(500)
		h.ReportDegraded()
		if state, _ := h.state(); !h.ejected() || !h.outlier.degraded.is.Load() || state != hostDown {
			t.Errorf("ejected and degraded: %v", state)
		}
		again := *cfg
		own := o
		own.DetectDegraded = false
		again.Outlier = &own
		mustUpdate(t, m, &again)
		h.ReportDegraded()
		if h.outlier.degraded.is.Load() || !h.ejected() {
			t.Error("degraded where that is not looked for")
		}
		mustUpdate(t, m, cfg)
		h.ReportDegraded()
		mustUpdate(t, m, &Config{Name: "c", Endpoints: cfg.Endpoints})
		if h.outlier.degraded.is.Load() || h.ejected() {
			t.Error("degraded without outlier detection")
		}
	})
}
