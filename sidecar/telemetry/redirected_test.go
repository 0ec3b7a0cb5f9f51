package telemetry

import (
	"strings"
	"testing"
)

// TestRedirected: after a cluster's first, redirects cost as little as other requests to
// count; of one that is gone they count for nobody.
func TestRedirected(t *testing.T) {
	m := NewMetrics()
	c := m.Cluster("a")
	c.Redirected(0, RedirectFollowed)
	if n := testing.AllocsPerRun(9, func() { c.Redirected(0, RedirectTooMany) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	text := func() string {
		var b strings.Builder
		_ = m.Registry.WriteUsed(&b)
		return b.String()
	}
	for _, want := range []string{`{cluster="a",result="followed"} 1`, `{cluster="a",result="too_many"} 10`} {
		if got := text(); !strings.Contains(got, "hauberk_upstream_internal_redirects_total"+want+"\n") {
			t.Errorf("no %s in %s", want, got)
		}
	}
	c.Forget()
	c.Redirected(0, RedirectFollowed)
	gone := m.Cluster("b")
	gone.Forget()
	gone.Redirected(0, RedirectFollowed)
	if got := text(); strings.Contains(got, "internal_redirects") {
		t.Errorf("%s", got)
	}
}
