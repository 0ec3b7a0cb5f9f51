package token

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/selector"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/trust"
)

// Role is what a token makes of its holder.
type Role string

// The roles.
const (
	RoleNode         Role = "node"
	RoleControlPlane Role = "controlplane"
	RoleOperator     Role = "operator"
)

// ID returns the SPIFFE ID of the holder of a role.
func (r Role) ID(td spiffeid.TrustDomain, name string) (spiffeid.ID, error) {
	switch r {
	case RoleNode:
		return spiffe.ForNode(td, name)
	case RoleControlPlane:
		return spiffe.ForControlPlane(td, name)
	case RoleOperator:
		return spiffe.ForOperator(td, name)
	}
	return spiffeid.ID{}, fmt.Errorf("role %q is not known: use node, controlplane or operator", string(r))
}

// The bounds of a token's life. It is a bearer secret: long enough to carry it
// to a host, not long enough to be found there.
const (
	DefaultTTL = 10 * time.Minute
	MinTTL     = time.Second
	MaxTTL     = 24 * time.Hour
)

// Permit is one identity that a node may hold.
type Permit struct {
	ID spiffeid.ID
	// Selectors, each "kind=value" (uid=1001, gid=1001, unit=web.service), all
	// of which a caller of the host socket must match. Without one the host's
	// own configuration says who may ask for the identity; where that names
	// nobody either, it is for the node's own sidecar alone.
	Selectors []string
}

// Spec is what an operator asks for.
type Spec struct {
	Role Role
	// Name is the node's, control plane's or operator's.
	Name string
	// Permitted is for a node only.
	Permitted []Permit
	// TTL is DefaultTTL when zero.
	TTL time.Duration
	// Addresses, host:port, and Pin lead the joiner to the control plane.
	Addresses []string
	Pin       trust.Pin
}

func (s Spec) check(td spiffeid.TrustDomain) error {
	if err := checkHolder(td, s.Role, s.Name, s.Permitted); err != nil {
		return err
	}
	if s.TTL < MinTTL || s.TTL > MaxTTL {
		return fmt.Errorf("the lifetime %s is not between %s and %s", s.TTL, MinTTL, MaxTTL)
	}
	if s.Pin.IsZero() {
		return errors.New("there is no pin of the control plane's signer")
	}
	return checkAddresses(s.Addresses)
}

// maxName keeps a record's file name within what file systems take.
const maxName = 200

// checkHolder is the rule of tokens and of records alike.
func checkHolder(td spiffeid.TrustDomain, role Role, name string, permitted []Permit) error {
	if _, err := role.ID(td, name); err != nil {
		return err
	}
	if len(name) > maxName {
		return fmt.Errorf("the %s name has %d bytes, at most %d are allowed", role, len(name), maxName)
	}
	if role != RoleNode && len(permitted) > 0 {
		return fmt.Errorf("a token of the role %s permits no workload identities: only a node's does", role)
	}
	seen := map[spiffeid.ID]bool{}
	for _, p := range permitted {
		if err := checkPermit(td, p); err != nil {
			return err
		}
		if seen[p.ID] {
			return fmt.Errorf("%s is permitted twice: write its selectors once", p.ID)
		}
		seen[p.ID] = true
	}
	return nil
}

func checkPermit(td spiffeid.TrustDomain, p Permit) error {
	if p.ID.TrustDomain() != td {
		return fmt.Errorf("permitted ID %q is not of the trust domain %s", p.ID, td)
	}
	if p.ID.Path() == "" {
		return fmt.Errorf("permitted ID %s has no path: name a workload", p.ID)
	}
	if spiffe.Reserved(p.ID) {
		return fmt.Errorf("permitted ID %s is under /hauberk/, which is reserved: a node gets its own identity by its name", p.ID)
	}
	// Refused at minting: what the host socket could not match later.
	if _, err := selector.ParseSet(p.Selectors); err != nil {
		return fmt.Errorf("permitted ID %s: %w", p.ID, err)
	}
	return nil
}

func clonePermits(in []Permit) []Permit {
	out := slices.Clone(in)
	for i := range out {
		out[i].Selectors = slices.Clone(out[i].Selectors)
	}
	return out
}

// permitJSON is a Permit on disk.
type permitJSON struct {
	ID        string   `json:"id"`
	Selectors []string `json:"selectors,omitempty"`
}

func permitsToJSON(in []Permit) []permitJSON {
	var out []permitJSON
	for _, p := range in {
		out = append(out, permitJSON{p.ID.String(), p.Selectors})
	}
	return out
}

func permitsFromJSON(in []permitJSON) ([]Permit, error) {
	var out []Permit
	for _, p := range in {
		id, err := spiffeid.FromString(p.ID)
		if err != nil {
			return nil, fmt.Errorf("permitted ID %q: %w", p.ID, err)
		}
		out = append(out, Permit{ID: id, Selectors: p.Selectors})
	}
	return out, nil
}
