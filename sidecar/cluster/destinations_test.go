package cluster

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// TestDestinationsAreCounted: the hosts that clients' destinations make are the cluster's
// endpoints, and those of before are not.
func TestDestinationsAreCounted(t *testing.T) {
	metrics := telemetry.NewMetrics()
	m := NewManager(Options{Metrics: metrics})
	defer m.Close()
	healthy := func(when string, want int) {
		t.Helper()
		var b strings.Builder
		if err := metrics.Registry.WritePrometheus(&b); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), `hauberk_upstream_endpoints{cluster="c",state="healthy"} `+strconv.Itoa(want)+"\n") {
			t.Errorf("%s: not %d in\n%s", when, want, b.String())
		}
	}
	c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1", "10.0.0.2", "10.0.0.3")})
	healthy("static", 3)
	mustUpdate(t, m, &Config{Name: "c", Type: OriginalDestination})
	healthy("before the first", 0)
	for _, to := range []string{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:80"} {
		if _, err := c.PickFor(&PickContext{Destination: netip.MustParseAddrPort(to)}); err != nil {
			t.Fatal(err)
		}
	}
	healthy("two destinations", 2)
	c.destinations.drop(func(h *Host) bool { return h.Address() == "10.0.0.1:80" })
	healthy("one is forgotten", 1)
}
