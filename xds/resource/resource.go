// Package resource holds what both sides of xDS exchange: named, typed,
// versioned bodies. A resource is marshalled once and shared by all sessions.
package resource

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// The type URLs of the resources the mesh uses, in make-before-break order.
const (
	ClusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	ListenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	SecretType   = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
)

// PushOrder is the order upserts are sent in; removals go in reverse after all
// upserts have been acknowledged.
var PushOrder = []string{ClusterType, EndpointType, ListenerType, RouteType}

// Resource is one immutable resource.
type Resource struct {
	Type string
	Name string
	// Version is the hash of the canonical bytes, so every control plane that
	// renders the same resource gives it the same version.
	Version string
	Body    *anypb.Any
	// Refs are the resources this one names: a listener's routes and clusters,
	// a route's clusters, a cluster's endpoints. Used to order pushes.
	Refs []Ref
	// Urgent marks a listener that carries authorization: where the client
	// already holds a version of it, a change waits for nothing (DESIGN 3).
	Urgent bool
	// Fallback, of the same name, is sent in place of this one to a client that holds another
	// version and has rejected this one: what must reach it, without what it may have no use
	// for.
	Fallback *Resource
}

// Ref names another resource.
type Ref struct{ Type, Name string }

// New marshals m deterministically. It returns an error if m does not marshal
// or does not pass its own generated validation.
func New(name string, m proto.Message, refs ...Ref) (*Resource, error) {
	if v, ok := m.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			return nil, fmt.Errorf("resource %q: %w", name, err)
		}
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("resource %q: %w", name, err)
	}
	typeURL := "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName())
	return &Resource{
		Type:    typeURL,
		Name:    name,
		Version: Version(b),
		Body:    &anypb.Any{TypeUrl: typeURL, Value: b},
		Refs:    refs,
	}, nil
}

// A resource that has a file of its own, or comes from a service of its type alone, is asked
// for by both names in one, which no other control plane is asked for.
const inFile, inStream, nameAfter = "file:", "stream:", "#"

// Marks are what the path of such a file, or the name of a service, must not have in it.
const Marks = nameAfter

// InFile is the name by which the resource of that name in a file is asked for.
func InFile(path, name string) string { return inFile + path + nameAfter + name }

// SplitFile is the reverse of InFile. ok is false for what is in no file.
func SplitFile(asked string) (path, name string, ok bool) { return split(asked, inFile) }

// InStream is the name by which the resource of that name of a service is asked for.
func InStream(service, name string) string { return inStream + service + nameAfter + name }

// SplitStream is the reverse of InStream. ok is false for what no such service has.
func SplitStream(asked string) (service, name string, ok bool) { return split(asked, inStream) }

// Aggregated tells whether the aggregated stream is asked for a name.
func Aggregated(asked string) bool {
	_, _, file := SplitFile(asked)
	_, _, stream := SplitStream(asked)
	return !file && !stream
}

func split(asked, mark string) (from, name string, ok bool) {
	rest, ok := strings.CutPrefix(asked, mark)
	if ok {
		from, name, ok = strings.Cut(rest, nameAfter)
	}
	if !ok {
		return "", "", false
	}
	return from, name, true
}

// Set is one immutable view: the resources a client may see, by type and name.
type Set struct {
	// Generation grows with each change of one view.
	Generation uint64
	ByType     map[string]map[string]*Resource
	// Change identifies the catalog change that made the set, and its clock:
	// Consul index, and unix nanoseconds when the source received it and when
	// the set was built. Zero when unknown.
	Index           uint64
	Received, Built int64
}

// Get returns a resource, or nil.
func (s *Set) Get(typeURL, name string) *Resource { return s.ByType[typeURL][name] }
