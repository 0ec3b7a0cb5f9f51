//go:build e2e

package mesh

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	consulapi "github.com/hashicorp/consul/api"
)

// consulLag bounds how long Consul's agent may keep from its servers what it knows.
// A full sync, which follows a start, an election and then every minute, gives up
// when it meets a registration. It is tried again after 15 to 30 s, and until then
// the agent reports no change of any service or check.
const consulLag = 40 * time.Second

// served waits until Consul's servers know an instance, and that it passes: until
// then there is nothing for the mesh to know.
func (m *mesh) served(service, instance string) time.Duration {
	m.t.Helper()
	return m.eventually(consulLag, "Consul's servers serve "+instance, func() error {
		return m.serves(service, instance, true)
	})
}

// unserved waits until Consul's servers serve an instance no more. The agent tells
// them of a check that was written at once, but of the sidecar's alias of it, which the
// mesh goes by, only with its next sync.
func (m *mesh) unserved(service, instance string) time.Duration {
	m.t.Helper()
	return m.eventually(consulLag, "Consul's servers serve "+instance+" no more", func() error {
		return m.serves(service, instance, false)
	})
}

// serves is an error unless Consul's servers have an instance as passing, or have not.
func (m *mesh) serves(service, instance string, want bool) error {
	entries, _, err := m.catalog.Health().Connect(service, "", true, nil)
	if err != nil {
		return err
	}
	got := slices.ContainsFunc(entries, func(e *consulapi.ServiceEntry) bool {
		return e.Service.Proxy.DestinationServiceID == instance
	})
	if got != want {
		return fmt.Errorf("%d instances, %s among them: %t", len(entries), instance, got)
	}
	return nil
}

// proxy is what Consul's servers hold of the registration of an instance's sidecar. The
// agent tells them of one that was made anew with its next sync.
func (w *workload) proxy() (*consulapi.AgentServiceConnectProxyConfig, error) {
	list, _, err := w.m.catalog.Catalog().Service(w.service+"-sidecar-proxy", "", nil)
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		if s.ServiceID == w.id+"-sidecar-proxy" {
			return s.ServiceProxy, nil
		}
	}
	return nil, fmt.Errorf("%d sidecars, none of %s", len(list), w.id)
}

// consulSays is the state of a service's own check in Consul, and its output,
// which is empty when it has not run.
func (m *mesh) consulSays(service, instance string) (status, output string) {
	m.t.Helper()
	checks, _, err := m.catalog.Health().Checks(service, nil)
	if err != nil {
		return err.Error(), ""
	}
	for _, c := range checks {
		if c.ServiceID == instance {
			return c.Status, c.Output
		}
	}
	return "none", ""
}

// explainChecks logs what Consul's agent knows of each check and what its servers,
// and so the mesh, were told.
func (m *mesh) explainChecks() {
	if m.consul == nil {
		return
	}
	local, err := m.catalog.Agent().Checks()
	if err != nil {
		m.t.Logf("Consul's agent: %v", err)
		return
	}
	served, _, err := m.catalog.Health().State(consulapi.HealthAny, nil)
	if err != nil {
		m.t.Logf("Consul's catalog: %v", err)
		return
	}
	told := map[string]string{}
	for _, c := range served {
		told[c.CheckID] = c.Status
	}
	for id, c := range local {
		m.t.Logf("Consul's check %s of %s: %s, in the catalog %s: %s", id, c.ServiceID, c.Status, cmp.Or(told[id], "not there"), c.Output)
	}
	b, _ := os.ReadFile(filepath.Join(m.dir, "consul", "consul.log"))
	m.t.Logf("--- consul\n%s", tail(string(b), 15))
}
