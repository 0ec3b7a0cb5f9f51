package cluster

import (
	"slices"
	"testing"
)

// TestScanKeepsToLocalities: who looks for a host that was not tried looks where hosts are chosen:
// in no locality without weight, where weights count.
func TestScanKeepsToLocalities(t *testing.T) {
	tagged := func(host string, health Health) Endpoint {
		e := ep(host, health)
		e.Metadata = map[string]map[string]any{lbNamespace: {"v": "1"}}
		return e
	}
	for name, tc := range map[string]struct {
		a, b Health
		want bool // that the host of b is found
		with func(*Config)
	}{
		"healthy":   {Healthy, Healthy, false, func(*Config) {}},
		"degraded":  {Degraded, Degraded, false, func(*Config) {}},
		"by a hash": {Healthy, Healthy, false, func(c *Config) { c.LB = RingHash }},
		"in a subset": {Healthy, Healthy, false, func(c *Config) {
			c.Subsets = &Subsets{Selectors: []Selector{{Keys: []string{"v"}}}, LocalityWeighted: true}
		}},
		"in panic":        {Unhealthy, Unhealthy, true, func(*Config) {}},
		"without weights": {Healthy, Healthy, true, func(c *Config) { c.LocalityWeighted = false }},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := &Config{Name: "c", LocalityWeighted: true, Endpoints: localities(map[string]uint32{"a": 1},
				[]Endpoint{tagged("10.0.0.1", tc.a), tagged("10.0.0.2", tc.a)}, []Endpoint{tagged("10.0.1.1", tc.b)})}
			tc.with(cfg)
			c := mustUpdate(t, newManager(t, Options{}), cfg)
			all := c.hosts()
			pc := &PickContext{Avoid: all[:1], Reselections: 100, Metadata: NewMetadataMatch(map[string]any{"v": "1"})}
			for range 50 {
				pc.Avoid = all[:1]
				if h, err := c.PickFor(pc); err != nil || h == all[0] || h == all[2] && !tc.want {
					t.Fatalf("picked %v, %v beside the first", h, err)
				}
				pc.Avoid = all[:2]
				if h, err := c.PickFor(pc); err != nil || slices.Contains(pc.Avoid, h) == tc.want {
					t.Fatalf("picked %v, %v beside all of the first locality", h, err)
				}
			}
		})
	}
}

// TestScanKeepsToAForcedZone: who looks for a host that was not tried does not leave the zone that requests are
// forced to stay in, for another priority either; where they are not forced it does.
func TestScanKeepsToAForcedZone(t *testing.T) {
	for name, force := range map[string]*uint32{"forced": least(1), "not forced": nil, "too few to force": least(3)} {
		t.Run(name, func(t *testing.T) {
			c := mustUpdate(t, zoneManager(t, "a=1 b=1"), &Config{Name: "c", Zones: &ZoneAware{Percent: 100, Force: force}, Endpoints: zoned("c", "a=2 b=1 c=1!")})
			own := c.hosts()[:2]
			for range 50 {
				pc := &PickContext{Avoid: own[:1], Reselections: 100}
				if h, err := c.PickFor(pc); err != nil || h != own[1] {
					t.Fatalf("picked %v, %v beside the first", h, err)
				}
				pc.Avoid = own
				if h, err := c.PickFor(pc); err != nil || slices.Contains(own, h) != (name == "forced") {
					t.Fatalf("picked %v, %v beside all of the zone", h, err)
				}
			}
		})
	}
}
