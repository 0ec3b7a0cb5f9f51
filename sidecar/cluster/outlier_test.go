package cluster

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

// TestRateFloor has the example of Envoy's documentation.
func TestRateFloor(t *testing.T) {
	var all []sample
	for _, p := range []float64{50, 100, 100, 100, 100} {
		all = append(all, sample{percent: p})
	}
	if mean, got := rateFloor(all, 1.9); mean != 90 || math.Abs(got-52) > 1e-9 {
		t.Errorf("got %v, not 52", got)
	}
}

// TestSuccessRate: what stands out in an interval is ejected at its end.
func TestSuccessRate(t *testing.T) {
	base := Outlier{
		Interval: 10 * time.Second, BaseEjectionTime: 20 * time.Second, MaxEjectionPercent: 50,
		RateMinHosts: 5, RateVolume: 100, StdevFactor: 1900, FailurePercent: 85, FailureMinHosts: 5, FailureVolume: 50,
	}
	for name, tc := range map[string]struct {
		change  func(*Outlier)
		reports func(i int) (good, bad int, what Outcome)
		ejected int // hosts
	}{
		"one stands out":            {func(o *Outlier) { o.EnforcingSuccessRate = 100 }, func(i int) (int, int, Outcome) { return 50 * min(i+1, 2), 50 * max(0, 1-i), 500 }, 1},
		"not enforced":              {func(*Outlier) {}, func(i int) (int, int, Outcome) { return 50 * min(i+1, 2), 50 * max(0, 1-i), 500 }, 0},
		"too few hosts":             {func(o *Outlier) { o.EnforcingSuccessRate, o.RateMinHosts = 100, 6 }, func(i int) (int, int, Outcome) { return 50 * min(i+1, 2), 50 * max(0, 1-i), 500 }, 0},
		"too little":                {func(o *Outlier) { o.EnforcingSuccessRate = 100 }, func(i int) (int, int, Outcome) { return 49, 50 * max(0, 1-i), 500 }, 0},
		"all alike":                 {func(o *Outlier) { o.EnforcingSuccessRate = 100 }, func(int) (int, int, Outcome) { return 10, 90, 500 }, 0},
		"percentage":                {func(o *Outlier) { o.EnforcingFailurePercent = 100 }, func(i int) (int, int, Outcome) { return 60, 540 * max(0, 1-i), 503 }, 1},
		"below it":                  {func(o *Outlier) { o.EnforcingFailurePercent = 100 }, func(int) (int, int, Outcome) { return 20, 80, 503 }, 0},
		"half at most":              {func(o *Outlier) { o.EnforcingFailurePercent = 100 }, func(int) (int, int, Outcome) { return 0, 60, 503 }, 2},
		"local failures count too":  {func(o *Outlier) { o.EnforcingFailurePercent = 100 }, func(i int) (int, int, Outcome) { return 60, 540 * max(0, 1-i), OutcomeConnect }, 1},
		"local failures, split":     {func(o *Outlier) { o.EnforcingFailurePercent, o.SplitLocalOrigin = 100, true }, func(i int) (int, int, Outcome) { return 60, 540 * max(0, 1-i), OutcomeConnect }, 0},
		"local percentage":          {func(o *Outlier) { o.EnforcingLocalFailurePercent, o.SplitLocalOrigin = 100, true }, func(i int) (int, int, Outcome) { return 60, 540 * max(0, 1-i), OutcomeConnect }, 1},
		"local rate":                {func(o *Outlier) { o.EnforcingLocalSuccessRate, o.SplitLocalOrigin = 100, true }, func(i int) (int, int, Outcome) { return 50 * min(i+1, 2), 50 * max(0, 1-i), OutcomeTimeout }, 1},
		"answers are no local ones": {func(o *Outlier) { o.EnforcingLocalFailurePercent, o.SplitLocalOrigin = 100, true }, func(int) (int, int, Outcome) { return 0, 100, 503 }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := NewManager(Options{})
				defer m.Close()
				o := base
				tc.change(&o)
				c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"), Outlier: &o})
				wait(12 * time.Second)
				for i, h := range c.hosts() {
					good, bad, what := tc.reports(i)
					for range good {
						h.Report(200)
					}
					for range bad {
						h.Report(what)
					}
				}
				wait(10 * time.Second)
				n := 0
				for _, h := range c.hosts() {
					if h.ejected() {
						n++
					}
				}
				if n != tc.ejected {
					t.Errorf("%d hosts were ejected, not %d: %+v", n, tc.ejected, c.Stats())
				}
				// The next interval without requests judges nobody, and they come back.
				if wait(32 * time.Second); c.ejected != 0 {
					t.Errorf("%d are still ejected", c.ejected)
				}
			})
		})
	}
}

func TestEjectionTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewManager(Options{})
		defer m.Close()
		c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1"), CloseOnFailure: true, Outlier: &Outlier{
			Consecutive5xx: 1, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 100, Interval: time.Second,
			BaseEjectionTime: 10 * time.Second, MaxEjectionTime: 15 * time.Second, EjectionJitter: 4 * time.Second,
		}})
		h := c.hosts()[0]
		for _, least := range []time.Duration{10 * time.Second, 15 * time.Second, 15 * time.Second} {
			h.Report(500)
			began := time.Now()
			for h.ejected() {
				wait(100 * time.Millisecond)
			}
			if took := time.Since(began); took < least || took > least+6*time.Second {
				t.Errorf("ejected for %v, not %v and up to 4 s", took, least)
			}
		}
		// An interval without an ejection each makes the next one shorter.
		wait(10 * time.Second)
		if h.outlier.times != 0 {
			t.Errorf("%d ejections still count", h.outlier.times)
		}
	})
}

// TestOutlierThresholdLowered: a host that has failed more often in a row than a new threshold
// allows is ejected at the next failure, and failures that nothing counted are not held against it.
func TestOutlierThresholdLowered(t *testing.T) {
	for name, c := range map[string]struct {
		before, after int
		more          int // failures until it is ejected
	}{"lowered": {10, 3, 1}, "lowered to one": {10, 1, 1}, "raised": {5, 10, 6}, "switched on": {0, 3, 3}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := NewManager(Options{})
				defer m.Close()
				cfg := func(consecutive int) *Config {
					return &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1"), Outlier: &Outlier{
						Consecutive5xx: consecutive, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 100, Interval: time.Hour, BaseEjectionTime: time.Hour,
					}}
				}
				h := mustUpdate(t, m, cfg(c.before)).hosts()[0]
				for range 4 {
					h.Report(500)
				}
				mustUpdate(t, m, cfg(c.after))
				for i := 1; i <= c.more; i++ {
					if h.ejected() {
						t.Fatalf("ejected after %d more failures, not %d", i-1, c.more)
					}
					h.Report(500)
				}
				if !h.ejected() {
					t.Errorf("not ejected after %d more failures", c.more)
				}
			})
		})
	}
}

// TestRatesOfTheOtherOrigin: a host that was just ejected by the rates of its answers has no say in
// those of connections.
func TestRatesOfTheOtherOrigin(t *testing.T) {
	cfg := &Outlier{
		SplitLocalOrigin: true, EnforcingSuccessRate: 100, EnforcingLocalSuccessRate: 100, RateMinHosts: 3, RateVolume: 1, StdevFactor: 1000,
		FailurePercent: 101, MaxEjectionPercent: 100, Interval: time.Hour,
	}
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"), Outlier: cfg})
	for i, h := range c.hosts() {
		external, local := uint64(100), uint64(100)
		switch i {
		case 0:
			external, local = 0, 0
		case 1:
			local = 80 // which is little beside the others, and much beside none
		}
		h.outlier.external.total.Store(100)
		h.outlier.external.success.Store(external)
		h.outlier.local.total.Store(100)
		h.outlier.local.success.Store(local)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.compare(cfg)
	for i, h := range c.order {
		if want := i < 2; h.ejected() != want {
			t.Errorf("%s: ejected is %v", h.key, h.ejected())
		}
	}
}
