// Package spiffe gives SPIFFE IDs their form in this mesh. A service has the
// path that Consul Connect uses, /ns/NAMESPACE/dc/DATACENTER/svc/SERVICE, so
// that Consul's own proxies are peers; what the mesh itself needs to name lives
// under /hauberk/, which no workload may be given.
//
// Names are never escaped: SPIFFE paths know no percent-encoding, and two names
// that differ only by an escape would be two spellings of one identity. What a
// path segment cannot hold is refused.
package spiffe

import (
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const (
	// MaxTrustDomain and MaxID are the lengths in bytes that every SPIFFE
	// implementation must support (SPIFFE-ID section 2.3); we make none longer.
	MaxTrustDomain = 255
	MaxID          = 2048

	reserved = "/hauberk/"
)

// Kind says what an ID names.
type Kind int

// The kinds of identity.
const (
	// Other is an ID outside this mesh's layout, such as one that a SPIRE
	// server or a federated trust domain issues.
	Other Kind = iota
	// Service is /ns/NAMESPACE/dc/DATACENTER/svc/SERVICE.
	Service
	// Node is /hauberk/node/NAME: a host, authenticating its control stream.
	Node
	// ControlPlane is /hauberk/controlplane/ID.
	ControlPlane
	// Operator is /hauberk/operator/NAME: a person or script at the API.
	Operator
)

// String returns the kind as messages and logs write it.
func (k Kind) String() string {
	switch k {
	case Service:
		return "service"
	case Node:
		return "node"
	case ControlPlane:
		return "controlplane"
	case Operator:
		return "operator"
	}
	return "other"
}

// Identity is an ID read by its layout.
type Identity struct {
	ID   spiffeid.ID
	Kind Kind
	// Namespace, Datacenter and Service belong to a Service.
	Namespace, Datacenter, Service string
	// Name is the name or id of a Node, ControlPlane or Operator.
	Name string
}

// TrustDomain checks a trust domain's name. Beyond the specification's alphabet
// it refuses what Go's X.509 parser cannot read as the host of a URI (empty
// labels): every handshake of such a domain would fail.
func TrustDomain(name string) (spiffeid.TrustDomain, error) {
	if name == "" {
		return spiffeid.TrustDomain{}, fmt.Errorf("spiffe: the trust domain is empty: give it a name such as mesh.example.org")
	}
	if strings.Contains(name, "/") {
		return spiffeid.TrustDomain{}, fmt.Errorf("spiffe: trust domain %q: write the bare name, without spiffe:// and without a path", name)
	}
	if len(name) > MaxTrustDomain {
		return spiffeid.TrustDomain{}, fmt.Errorf("spiffe: trust domain %.32q… has %d bytes, at most %d are allowed", name, len(name), MaxTrustDomain)
	}
	for _, r := range name {
		if !inTrustDomain(r) {
			return spiffeid.TrustDomain{}, fmt.Errorf("spiffe: trust domain %q: %q is not allowed, only a-z, 0-9, '.', '-' and '_' are", name, r)
		}
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" {
			return spiffeid.TrustDomain{}, fmt.Errorf("spiffe: trust domain %q: an empty label (a leading, trailing or doubled dot) cannot be read from a certificate", name)
		}
	}
	td, err := spiffeid.TrustDomainFromString(name)
	if err != nil {
		return spiffeid.TrustDomain{}, fmt.Errorf("spiffe: trust domain %q: %w", name, err)
	}
	return td, nil
}

// ForService names a service.
func ForService(td spiffeid.TrustDomain, namespace, datacenter, service string) (spiffeid.ID, error) {
	return build(td, []field{{"", "ns"}, {"namespace", namespace}, {"", "dc"}, {"datacenter", datacenter}, {"", "svc"}, {"service", service}})
}

// ForNode names a host.
func ForNode(td spiffeid.TrustDomain, name string) (spiffeid.ID, error) {
	return build(td, []field{{"", "hauberk"}, {"", "node"}, {"node", name}})
}

// ForControlPlane names a control plane.
func ForControlPlane(td spiffeid.TrustDomain, id string) (spiffeid.ID, error) {
	return build(td, []field{{"", "hauberk"}, {"", "controlplane"}, {"control plane", id}})
}

// ForOperator names a user of the operator API.
func ForOperator(td spiffeid.TrustDomain, name string) (spiffeid.ID, error) {
	return build(td, []field{{"", "hauberk"}, {"", "operator"}, {"operator", name}})
}

// CheckName says whether a name can be a segment of a SPIFFE path; what says
// whose name it is, for the message.
func CheckName(what, name string) error {
	if err := checkSegment(what, name); err != nil {
		return fmt.Errorf("spiffe: %w", err)
	}
	return nil
}

// Reserved reports whether the ID lies under /hauberk/, which only the control
// plane itself gives out.
func Reserved(id spiffeid.ID) bool {
	return strings.HasPrefix(id.Path()+"/", reserved)
}

// Parse reads an ID from text.
func Parse(s string) (Identity, error) {
	id, err := spiffeid.FromString(s)
	if err != nil {
		return Identity{}, fmt.Errorf("spiffe: %q: %w", s, err)
	}
	return Of(id)
}

// Of reads an ID by its layout. An ID that fits none is Other, except under
// /hauberk/: there, what is not known is refused, so that a later version's
// identity is not taken for a stranger with an ordinary name.
func Of(id spiffeid.ID) (Identity, error) {
	if id.IsZero() {
		return Identity{}, fmt.Errorf("spiffe: the ID is empty")
	}
	if len(id.String()) > MaxID {
		return Identity{}, fmt.Errorf("spiffe: the ID has %d bytes, at most %d are supported", len(id.String()), MaxID)
	}
	if _, err := TrustDomain(id.TrustDomain().Name()); err != nil {
		return Identity{}, err
	}
	out := Identity{ID: id}
	p := strings.Split(strings.TrimPrefix(id.Path(), "/"), "/")
	switch {
	case len(p) == 6 && p[0] == "ns" && p[2] == "dc" && p[4] == "svc":
		out.Kind, out.Namespace, out.Datacenter, out.Service = Service, p[1], p[3], p[5]
	case len(p) == 3 && p[0] == "hauberk" && p[1] == "node":
		out.Kind, out.Name = Node, p[2]
	case len(p) == 3 && p[0] == "hauberk" && p[1] == "controlplane":
		out.Kind, out.Name = ControlPlane, p[2]
	case len(p) == 3 && p[0] == "hauberk" && p[1] == "operator":
		out.Kind, out.Name = Operator, p[2]
	case Reserved(id):
		return Identity{}, fmt.Errorf("spiffe: %s: /hauberk/ is reserved, and this is none of its identities (node, controlplane, operator)", id)
	}
	return out, nil
}

// field is one path segment; what is empty for the layout's own words.
type field struct{ what, value string }

func build(td spiffeid.TrustDomain, fields []field) (spiffeid.ID, error) {
	// A zero or hand-made trust domain passes the same gate as a configured one.
	if _, err := TrustDomain(td.Name()); err != nil {
		return spiffeid.ID{}, err
	}
	segments := make([]string, 0, len(fields))
	for _, f := range fields {
		if f.what != "" {
			if err := checkSegment(f.what, f.value); err != nil {
				return spiffeid.ID{}, fmt.Errorf("spiffe: %w", err)
			}
		}
		segments = append(segments, f.value)
	}
	id, err := spiffeid.FromSegments(td, segments...)
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("spiffe: %w", err)
	}
	if n := len(id.String()); n > MaxID {
		return spiffeid.ID{}, fmt.Errorf("spiffe: %.64s… would have %d bytes, at most %d are allowed: use shorter names", id, n, MaxID)
	}
	return id, nil
}

func checkSegment(what, value string) error {
	switch value {
	case "":
		return fmt.Errorf("the %s name is empty", what)
	case ".", "..":
		return fmt.Errorf("the %s name %q cannot be part of a SPIFFE ID: it is a relative path", what, value)
	}
	for _, r := range value {
		if !inSegment(r) {
			return fmt.Errorf("the %s name %q cannot be part of a SPIFFE ID: %q is not allowed, only letters a-z and A-Z, digits, '.', '-' and '_' are; rename the %s", what, value, r, what)
		}
	}
	return nil
}

func inTrustDomain(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_'
}

func inSegment(r rune) bool { return inTrustDomain(r) || r >= 'A' && r <= 'Z' }
