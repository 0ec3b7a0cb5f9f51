package cluster

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestRestIsBounded: a change of health waits for as long as it took to make the set, or a
// second, at most; what else was made at the same time does not count.
func TestRestIsBounded(t *testing.T) {
	for name, tc := range map[string]struct{ set, others, want time.Duration }{
		"a small set":             {0, 0, 0},
		"a set of many hosts":     {10 * time.Millisecond, 0, 200 * time.Millisecond},
		"great tables":            {400 * time.Millisecond, 0, time.Second},
		"very great tables":       {3 * time.Second, 0, 3 * time.Second},
		"together with others":    {0, time.Hour, 0},
		"many hosts, with others": {10 * time.Millisecond, time.Hour, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := NewManager(Options{})
				defer m.Close()
				c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1", "10.0.0.2"), Outlier: &Outlier{
					Consecutive5xx: 1, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 50, Interval: time.Hour, BaseEjectionTime: time.Hour,
				}})
				c.mu.Lock()
				s := c.newSet(c.cfg.Load())
				s.took = int64(tc.set)
				time.Sleep(tc.others)
				c.install(s)
				c.mu.Unlock()
				h := c.hosts()[0]
				h.Report(500)
				time.Sleep(tc.want - 1)
				synctest.Wait()
				if now := c.set.Load() != s; now != (tc.want == 0) {
					t.Errorf("in force before %v: %v", tc.want, now)
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				if c.set.Load() == s {
					t.Errorf("not in force after %v", tc.want)
				}
			})
		})
	}
}
