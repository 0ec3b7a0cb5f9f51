package cluster

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// TestReachedLimits: as in Envoy a breaker is open while what it bounds is in use up to its
// limit, whether or not the cluster tracks what is left.
func TestReachedLimits(t *testing.T) {
	c := mustUpdate(t, newManager(t, Options{}), &Config{
		Name: "c", Limits: Limits{MaxRequests: 2, RetryBudget: &RetryBudget{Percent: 50}}, HighLimits: &Limits{MaxRetries: 1},
	})
	check := func(when string, want ...string) {
		t.Helper()
		got := map[string]float64{}
		c.reached(func(v float64, labels ...string) { got[labels[1]+" "+labels[2]] = v })
		for _, w := range want {
			if got[w] != 1 {
				t.Errorf("%s: %s is not reached: %v", when, w, got)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %v, want %q", when, got, want)
		}
	}
	check("at rest")
	c.StartRequest(0)
	check("one of two requests")
	c.StartRequest(0)
	check("two requests", "default requests")
	if !c.StartRetry(0) || !c.StartRetryAt(HighPriority, 0, 0) {
		t.Fatal("no retry")
	}
	check("retries", "default requests", "default retries", "high retries")
	c.EndRetryAt(HighPriority)
	c.EndRetry()
	c.EndRequest()
	check("one request again")
}

// TestBeyondTheLimit: a connection that a host always gets counts as one that is too many,
// as in Envoy: nothing else tells that the limit is too small.
func TestBeyondTheLimit(t *testing.T) {
	one, two := newServer(t), newServer(t)
	c := mustUpdate(t, newManager(t, Options{Metrics: telemetry.NewMetrics()}), &Config{
		Name: "c", Endpoints: hosts("c", one.addr, two.addr), Limits: Limits{MaxConnections: 1},
	})
	a, b := acquire(t, c, "web"), acquire(t, c, "web")
	defer a.Close()
	defer b.Close()
	if a.Host() == b.Host() {
		t.Fatal("both are to the same host")
	}
	if n := c.metrics.Use().OverflowConnections.Value(); n != 1 {
		t.Errorf("%d connections beyond the limit are counted, want 1", n)
	}
}

// TestPanicPicks: a choice among all hosts because too few are healthy is counted, also where
// it is refused.
func TestPanicPicks(t *testing.T) {
	for _, fail := range []bool{false, true} {
		m := newManager(t, Options{Metrics: telemetry.NewMetrics()})
		cfg := &Config{Name: "c", Endpoints: hosts("c", "127.0.0.1:1", "127.0.0.1:2"), FailOnPanic: fail}
		c := mustUpdate(t, m, cfg)
		_, _ = c.Pick(nil)
		if n := c.metrics.Use().PanicPicks.Value(); n != 0 {
			t.Errorf("%d choices while all are healthy", n)
		}
		sick := *cfg
		sick.Endpoints = hosts("c", "127.0.0.1:1 unhealthy", "127.0.0.1:2 unhealthy")
		c = mustUpdate(t, m, &sick)
		if _, err := c.Pick(nil); (err != nil) != fail {
			t.Errorf("fail %v: %v", fail, err)
		}
		if n := c.metrics.Use().PanicPicks.Value(); n != 1 {
			t.Errorf("fail %v: %d choices are counted, want 1", fail, n)
		}
	}
}
