package catalog

import (
	"cmp"
	"slices"

	"github.com/hashicorp/consul/api"
)

// Health is the aggregate of an instance's checks: the worst one wins, and
// maintenance wins over all of them, because it is an operator's word.
type Health uint8

// The health states, best first.
const (
	Passing Health = iota
	Warning
	Critical
	Maintenance
)

func (h Health) String() string {
	switch h {
	case Passing:
		return "passing"
	case Warning:
		return "warning"
	case Critical:
		return "critical"
	case Maintenance:
		return "maintenance"
	}
	return "unknown"
}

// Evidence tells how far a critical report can be believed. Consul restores
// every check as critical when it restarts, so that a fresh process is not sent
// traffic before it was looked at; for a mesh that is a false alarm of the
// largest size.
type Evidence uint8

// The kinds of evidence, from conclusive to none.
const (
	// EvidenceSeen is a check that ran and failed. Every report that is not
	// critical has it too.
	EvidenceSeen Evidence = iota
	// EvidenceWeak is a state that nothing ran for: gossip membership, or a TTL
	// check without a word about the reason. A single one is believed.
	EvidenceWeak
	// EvidenceNone is an active check that has not run yet.
	EvidenceNone
)

// Key identifies an instance among those of its service.
func (i *Instance) Key() InstanceKey { return InstanceKey{Node: i.Node, ID: i.ID} }

// InstanceKey is a registration id on a Consul node.
type InstanceKey struct{ Node, ID string }

// Serving reports whether the instance may take new traffic.
func (h Health) Serving() bool { return h == Passing || h == Warning }

// NodeMeta is the key in a registration's Meta that binds a workload to a
// Hauberk node identity. Without it the workload belongs to the node that has
// the name of its Consul node.
const NodeMeta = "hauberk-node"

// Instance is one mesh endpoint of a service: a connect-proxy registration (a
// sidecar, ours or another's) or a connect-native instance.
type Instance struct {
	// Service is the service whose traffic the instance takes.
	Service Name
	// ID is the instance's own registration id, unique on its Consul node,
	// such as "api-1-sidecar-proxy".
	ID string
	// Node is the Consul node name.
	Node string
	// Address and Port are where peers reach the instance with mTLS.
	Address string
	Port    int
	// Weights are the load-balancing weights while passing and while warning,
	// 1 to 128 (Consul's rules: less than one counts as unhealthy).
	PassingWeight, WarningWeight int
	Health                       Health
	// Proxy is the registration that shapes the workload's sidecar; nil for a
	// connect-native instance. Field meanings are Consul's. Read only.
	Proxy *api.AgentServiceConnectProxyConfig
	// Evidence tells how far a Critical Health can be believed. It describes the
	// report, not the instance: Equal ignores it.
	Evidence Evidence
	// Problem, when not empty, says why the workload behind Proxy cannot be
	// hosted by a Hauberk sidecar (package catalog/validate): it asks for what
	// the control plane does not implement. The instance is still an endpoint,
	// because another proxy may well host it.
	Problem string
	// Entry is the health entry the instance was made from, the value that
	// subset filters (go-bexpr) are evaluated on. Read only.
	Entry *api.ServiceEntry
}

// HauberkNode returns the name of the Hauberk node that hosts the instance.
func (i *Instance) HauberkNode() string {
	if i.Entry != nil && i.Entry.Service != nil {
		if n := i.Entry.Service.Meta[NodeMeta]; n != "" {
			return n
		}
	}
	return i.Node
}

// SortInstances puts instances into the order of a snapshot: by node and id.
func SortInstances(list []*Instance) {
	slices.SortFunc(list, func(a, b *Instance) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.ID, b.ID))
	})
}
