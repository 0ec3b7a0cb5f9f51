package telemetry

import (
	"strings"
	"testing"
)

// TestResults: counters by what came of something come with a cluster's first, cost as little
// as others after it, and count for nobody when the cluster is gone.
func TestResults(t *testing.T) {
	for family, tc := range map[string]struct {
		first, more func(*ClusterMetrics)
		want        []string
	}{
		"hauberk_upstream_internal_redirects_total": {
			func(c *ClusterMetrics) { c.Redirected(0, RedirectFollowed) },
			func(c *ClusterMetrics) { c.Redirected(1, RedirectTooMany) },
			[]string{`{cluster="a",result="followed"} 1`, `{cluster="a",result="too_many"} 10`},
		},
		"hauberk_upstream_requests_abandoned_total": {
			func(c *ClusterMetrics) { c.Abandoned(0, AbandonedPending) },
			func(c *ClusterMetrics) { c.Abandoned(1, AbandonedStream) },
			[]string{`{cluster="a",stage="pending"} 1`, `{cluster="a",stage="stream"} 10`},
		},
		"hauberk_upstream_connections_closed_total": {
			func(c *ClusterMetrics) { c.ConnectionEnded(false, false) },
			func(c *ClusterMetrics) { c.ConnectionEnded(true, true) },
			[]string{`{cluster="a",end="local"} 1`, `{cluster="a",end="remote_with_request"} 10`},
		},
		"hauberk_upstream_zone_picks_total": {
			func(c *ClusterMetrics) { c.ZonePicked(0, ZoneAllDirectly) },
			func(c *ClusterMetrics) { c.ZonePicked(1, ZoneCrossed) },
			[]string{`{cluster="a",result="direct"} 1`, `{cluster="a",result="cross_zone"} 10`},
		},
	} {
		m := NewMetrics()
		c := m.Cluster("a")
		text := func() string {
			var b strings.Builder
			if err := m.Registry.WritePrometheus(&b); err != nil {
				t.Error(err)
			}
			return b.String()
		}
		if got := text(); strings.Contains(got, family+"{") {
			t.Errorf("%s before the first: %s", family, got)
		}
		tc.first(c)
		if n := testing.AllocsPerRun(9, func() { tc.more(c) }); n != 0 {
			t.Errorf("%s: %v allocations", family, n)
		}
		for _, want := range tc.want {
			if got := text(); !strings.Contains(got, family+want+"\n") {
				t.Errorf("no %s%s in %s", family, want, got)
			}
		}
		c.Forget()
		tc.first(c)
		gone := m.Cluster("b")
		gone.Forget()
		tc.first(gone)
		tc.first(nil)
		if got := text(); strings.Contains(got, family+"{") {
			t.Errorf("%s after the end: %s", family, got)
		}
	}
}
