package catalog

import (
	"strings"

	"github.com/hashicorp/consul/api"
)

// EntryKey names one config entry. Name is "global" for proxy-defaults and
// "mesh" for mesh, as in Consul, and has no capital letters: see FoldName.
type EntryKey struct {
	Kind      string
	Partition string
	Namespace string
	Name      string
}

// FoldName gives the name that an entry, or the service that it is about, has in a key. To
// Consul the names of entries have no case: intentions of Web are those of web.
func FoldName(name string) string { return strings.ToLower(name) }

// KeyOf returns the key an entry is stored under.
func KeyOf(e api.ConfigEntry) EntryKey {
	k := EntryKey{Kind: e.GetKind(), Partition: e.GetPartition(), Namespace: e.GetNamespace(), Name: FoldName(e.GetName())}
	if k.Partition == "" {
		k.Partition = DefaultPartition
	}
	if k.Namespace == "" {
		k.Namespace = DefaultNamespace
	}
	if k.Kind == api.MeshConfig && k.Name == "" {
		k.Name = api.MeshConfigMesh
	}
	return k
}

// Entry returns the key of an entry in the default namespace and partition.
func Entry(kind, name string) EntryKey {
	return EntryKey{Kind: kind, Partition: DefaultPartition, Namespace: DefaultNamespace, Name: FoldName(name)}
}

func (k EntryKey) String() string { return k.Kind + "/" + k.Name }

// Kinds are the config entry kinds the control plane reads.
var Kinds = []string{
	api.ProxyDefaults, api.ServiceDefaults, api.ServiceRouter, api.ServiceSplitter,
	api.ServiceResolver, api.ServiceIntentions, api.MeshConfig,
}

// Snapshot is one immutable, coherent state of the catalog.
type Snapshot struct {
	// Generation grows by one with each published snapshot of one process. It
	// orders snapshots of that process and means nothing to another.
	Generation uint64
	// Datacenter is where this control plane is.
	Datacenter string
	// TrustDomain is the environment's SPIFFE trust domain, without scheme.
	TrustDomain string
	// Instances holds the mesh endpoints of every service that has any, sorted
	// by node and id. A service that is known but has none has an empty slice.
	Instances map[Name][]*Instance
	// Entries holds every config entry by key.
	Entries map[EntryKey]api.ConfigEntry
	// EntryOrigins tells where an entry came from, for people: a file and
	// line, or "consul index N".
	EntryOrigins map[EntryKey]string
	// Broken holds entries that exist but cannot be used and have no last good
	// version, with the reason. What depends on one fails to compile; an
	// intention that does becomes a deny.
	Broken map[EntryKey]string
	// DefaultAllow is the verdict when no intention matches: Consul's ACL
	// default, or default_intention_policy of a files source. False (deny)
	// unless the source said allow.
	DefaultAllow bool
}

// Dirty names what differs between a snapshot and the one before.
type Dirty struct {
	// All is set when anything may differ: the first snapshot, or a change of
	// a fact that everything depends on.
	All       bool
	Instances map[Name]struct{}
	Entries   map[EntryKey]struct{}
}

// Empty reports whether nothing differs.
func (d Dirty) Empty() bool { return !d.All && len(d.Instances) == 0 && len(d.Entries) == 0 }
