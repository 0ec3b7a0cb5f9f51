package cluster

import (
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/proxytlv"
)

// TestAllIsAnnounced: an endpoint whose header has no room for all that is configured is refused,
// whichever of it and the cluster comes first.
func TestAllIsAnnounced(t *testing.T) {
	var none proxytlv.List
	added := func(kind byte, n int) proxytlv.Kept { return proxytlv.Keep(none.With(kind, strings.Repeat("x", n))) }
	const half = proxytlv.MostAdded/2 - 3
	long := &Extensions{Added: added(0xe0, half+1)}
	match := map[string]any{"a": "b"}
	for name, c := range map[string]struct {
		cfg     Config
		own     proxytlv.Kept
		refused bool
	}{
		"too much":                  {Config{Announce: 2, Extensions: long}, added(0xd0, half), true},
		"just enough":               {Config{Announce: 2, Extensions: &Extensions{Added: added(0xe0, half)}}, added(0xd0, half), false},
		"in place of the cluster's": {Config{Announce: 2, Extensions: long}, added(0xe0, half), false},
		"of its socket":             {Config{Sockets: []SocketMatch{{Match: match, Announce: 2, Extensions: long}}}, added(0xd0, half), true},
		"not of its socket":         {Config{Announce: 2, Extensions: long, Sockets: []SocketMatch{{Match: match}}}, added(0xd0, half), false},
		"without a header":          {Config{Announce: 1, Extensions: long}, added(0xd0, half), false},
		"without its own":           {Config{Announce: 2, Extensions: long}, proxytlv.Kept{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			endpoints := func() *Assignment {
				a := hosts("c", "10.0.0.1:80")
				e := &a.Localities[0].Endpoints[0]
				e.Extensions, e.Metadata = c.own, map[string]map[string]any{SocketNamespace: match}
				return a
			}
			static, discovering := c.cfg, c.cfg
			static.Name, static.Endpoints = "static", endpoints()
			discovering.Name, discovering.Type = "c", EDS
			m := newManager(t, Options{})
			for way, err := range map[string]error{"": m.Update(&static), " to be checked": m.Check(&static), " taken": discovering.Takes(endpoints())} {
				if refused := err != nil; refused != c.refused || refused && !strings.Contains(err.Error(), "localities[0].endpoints[0]: its added_tlvs have") {
					t.Errorf("static%s: %v", way, err)
				}
			}
			mustUpdate(t, m, &discovering)
			if err := m.SetEndpoints(endpoints()); (err != nil) != c.refused {
				t.Errorf("discovered: %v", err)
			}
		})
	}
}
