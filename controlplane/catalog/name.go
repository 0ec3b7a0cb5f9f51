// Package catalog is the control plane's model of the world: services and
// their instances, Consul's config entries, intentions and the facts the whole
// environment shares. It may hold consul/api values, because operators write
// their intent in that vocabulary, but it knows no api.Client and no xDS.
//
// Everything reachable from a Snapshot is immutable once published. Readers
// share it freely; writers copy (see package store).
package catalog

import "strings"

// DefaultNamespace and DefaultPartition are the names Consul community edition
// puts every service into.
const (
	DefaultNamespace = "default"
	DefaultPartition = "default"
)

// Wildcard stands for any service name in an intention or a resolver.
const Wildcard = "*"

// Name is the key of a service. Exactly one of Datacenter and Peer is set for a
// service that is somewhere; both are empty inside config entries, which apply
// to every datacenter. Name is comparable and is used as a map key.
type Name struct {
	Datacenter string
	Peer       string
	Partition  string
	Namespace  string
	Service    string
}

// NewName returns the key of a service in the default namespace and partition.
func NewName(datacenter, service string) Name {
	return Name{
		Datacenter: datacenter,
		Partition:  DefaultPartition,
		Namespace:  DefaultNamespace,
		Service:    service,
	}
}

// In returns n placed in another datacenter.
func (n Name) In(datacenter string) Name {
	n.Datacenter, n.Peer = datacenter, ""
	return n
}

// Global returns n without its place: the form config entries are keyed by.
func (n Name) Global() Name {
	n.Datacenter, n.Peer = "", ""
	return n
}

// String gives "service", followed by every part that is not the default, as
// in "api (dc2, ns billing)". It is for people, never for keys.
func (n Name) String() string {
	var parts []string
	if n.Datacenter != "" {
		parts = append(parts, n.Datacenter)
	}
	if n.Peer != "" {
		parts = append(parts, "peer "+n.Peer)
	}
	if n.Partition != "" && n.Partition != DefaultPartition {
		parts = append(parts, "partition "+n.Partition)
	}
	if n.Namespace != "" && n.Namespace != DefaultNamespace {
		parts = append(parts, "ns "+n.Namespace)
	}
	if len(parts) == 0 {
		return n.Service
	}
	return n.Service + " (" + strings.Join(parts, ", ") + ")"
}
