//go:build e2e

package mesh

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPrioritizeByLocality: the instance of one's own zone is asked while it is there,
// then that of the region, then the one far away. So do a Hauberk sidecar and an Envoy.
func TestPrioritizeByLocality(t *testing.T) {
	m := newFilesMesh(t)
	m.file("mesh.hcl", `
config_entry { Kind = "proxy-defaults" Name = "global" Config { protocol = "http" } PrioritizeByLocality { Mode = "failover" } }
config_entry { Kind = "service-intentions" Name = "api" Sources = [{ Name = "web" Action = "allow" }, { Name = "legacy" Action = "allow" }] }`)
	// register a workload in a place: what a stanza says of it.
	in := func(w *workload, region, zone string) *workload {
		path := filepath.Join(m.files, w.id+".json")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		m.file(w.id+".json", strings.Replace(string(b), `"service":{`, fmt.Sprintf(`"service":{"locality":{"region":%q,"zone":%q},`, region, zone), 1))
		return w
	}
	run := func(w *workload) *workload { m.sidecarFor(w.id, w); return w }
	here := run(in(m.register(spec{id: "api-here", service: "api"}), "eu", "a"))
	near := run(in(m.register(spec{id: "api-near", service: "api"}), "eu", "b"))
	run(in(m.register(spec{id: "api-far", service: "api"}), "us", "a"))
	web := run(in(m.register(spec{id: "web-1", service: "web", upstreams: []string{"api"}}), "eu", "a"))
	legacy := m.envoyFor("legacy-1", in(m.register(spec{id: "legacy-1", service: "legacy", upstreams: []string{"api"}}), "eu", "a"))

	only := func(what, id string) {
		t.Helper()
		for _, caller := range []*workload{web, legacy.workload} {
			m.eventually(20*second, what+": "+caller.id+" asks "+id+" alone", func() error {
				for range 30 {
					if code, body, err := caller.get("api", "/"); err != nil || code != 200 || body != id {
						return fmt.Errorf("%d %q %v", code, body, err)
					}
				}
				return nil
			})
		}
	}
	only("all are there", "api-here")
	gone := func(w *workload) {
		if err := os.Remove(filepath.Join(m.files, w.id+".json")); err != nil {
			t.Fatal(err)
		}
	}
	gone(here)
	only("none in the zone", "api-near")
	gone(near)
	only("none in the region", "api-far")
}
