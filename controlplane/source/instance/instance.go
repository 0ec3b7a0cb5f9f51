// Package instance makes catalog instances from Consul's health entries. Every
// source does it here, so that a workload means the same wherever it was
// written down.
package instance

import (
	"fmt"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/catalog/validate"
)

// MaxWeight is the largest load-balancing weight of an endpoint; Consul cuts
// larger ones, so do we.
const MaxWeight = 128

// FromEntry makes an instance of service from e. parent is the application that
// a sidecar serves, nil when unknown: Consul copies its tags and meta to the
// sidecar, but not its weights, and its maintenance mode reaches the sidecar
// only as a failing alias check. The error says why e is no mesh endpoint.
func FromEntry(service catalog.Name, e, parent *api.ServiceEntry) (*catalog.Instance, error) {
	s := e.Service
	if s == nil || e.Node == nil {
		return nil, fmt.Errorf("incomplete health entry")
	}
	native := s.Connect != nil && s.Connect.Native
	switch {
	case s.Kind == api.ServiceKindConnectProxy && s.Proxy != nil:
	case s.Kind == api.ServiceKindTypical && native:
	default:
		return nil, fmt.Errorf("instance %s on %s: kind %q is not supported as an endpoint", s.ID, e.Node.Node, s.Kind)
	}
	if s.SocketPath != "" {
		return nil, fmt.Errorf("instance %s on %s: endpoints on Unix sockets are not supported", s.ID, e.Node.Node)
	}
	i := &catalog.Instance{
		Service: service, ID: s.ID, Node: e.Node.Node,
		Address: s.Address, Port: s.Port, Entry: e,
	}
	if i.Address == "" {
		i.Address = e.Node.Address
	}
	if i.Port < 1 || i.Port > 65535 || i.Address == "" {
		return nil, fmt.Errorf("instance %s on %s: %q port %d cannot be reached", s.ID, e.Node.Node, i.Address, i.Port)
	}
	if !native {
		i.Proxy = s.Proxy
		if err := validate.Proxy(s.Proxy); err != nil {
			i.Problem = err.Error()
		}
	}
	i.Health, i.Evidence = health(e, parent)
	weigh(i, parent)
	return i, nil
}

// weigh sets the weights and what they say of health. A sidecar that was
// registered with weights of its own keeps them.
func weigh(i *catalog.Instance, parent *api.ServiceEntry) {
	w := i.Entry.Service.Weights
	if (w == api.AgentWeights{Passing: 1, Warning: 1}) && parent != nil && parent.Service != nil {
		w = parent.Service.Weights
	}
	if i.Health == catalog.Passing && w.Passing < 1 || i.Health == catalog.Warning && w.Warning < 1 {
		i.Health = catalog.Critical
	}
	i.PassingWeight = min(max(w.Passing, 1), MaxWeight)
	i.WarningWeight = min(max(w.Warning, 1), MaxWeight)
}

// health is the worst of the instance's checks, with how far to believe it.
func health(e, parent *api.ServiceEntry) (catalog.Health, catalog.Evidence) {
	if inMaintenance(e, e.Service.ID) || parent != nil && parent.Service != nil && inMaintenance(parent, parent.Service.ID) {
		return catalog.Maintenance, catalog.EvidenceSeen
	}
	worst, evidence := catalog.Passing, catalog.EvidenceNone
	for _, c := range e.Checks {
		switch c.Status {
		case api.HealthPassing:
		case api.HealthWarning:
			worst = max(worst, catalog.Warning)
		default:
			worst = catalog.Critical
			evidence = min(evidence, evidenceOf(c))
		}
	}
	if worst != catalog.Critical {
		return worst, catalog.EvidenceSeen
	}
	return worst, evidence
}

func inMaintenance(e *api.ServiceEntry, id string) bool {
	for _, c := range e.Checks {
		if c.CheckID == api.NodeMaint || c.CheckID == api.ServiceMaintPrefix+id {
			return true
		}
	}
	return false
}

// serfHealth is the check that Consul's servers keep for each agent.
const serfHealth = "serfHealth"

// evidenceOf tells whether a critical check is the result of having looked.
// Consul starts active checks as critical with no output, and gives each an
// output when it ran. An agent that starts again restores them as critical, some
// with the output of when they last passed. An alias check repeats the output of
// what it stands for.
func evidenceOf(c *api.HealthCheck) catalog.Evidence {
	output := strings.TrimSpace(c.Output)
	ran := output != ""
	switch {
	case c.CheckID == serfHealth:
		return catalog.EvidenceWeak
	case c.Type == "alias":
		if !ran || strings.HasSuffix(output, "failing:") || tellsOfSuccess(c.Type, output) {
			return catalog.EvidenceNone
		}
	case c.Type == "ttl" || c.Type == "":
		if !ran {
			return catalog.EvidenceWeak
		}
	case !ran, tellsOfSuccess(c.Type, output):
		return catalog.EvidenceNone
	}
	return catalog.EvidenceSeen
}

// tellsOfSuccess tells whether an output is what Consul writes only when a check of
// the type passes. That of an alias may end with the output of another.
func tellsOfSuccess(kind, output string) bool {
	switch kind {
	case "alias":
		const failing = " failing: "
		if _, of, ok := strings.Cut(output, failing); ok {
			return strings.HasPrefix(of, "TCP connect ") && strings.HasSuffix(of, ": Success")
		}
		return output == "All checks passing." || output == "No checks found."
	case "tcp":
		return strings.HasPrefix(output, "TCP connect ") && strings.HasSuffix(output, ": Success")
	case "grpc":
		return strings.HasPrefix(output, "gRPC check ") && strings.HasSuffix(output, ": success")
	}
	return false
}
