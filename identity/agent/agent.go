// Package agent is a host's side of identity: it makes the node's and the
// workloads' keys, joins the mesh with a token, keeps every SVID renewed and
// every trust bundle current, and hands both out as a svid.Source.
//
// What is held stays usable when the control plane cannot be reached: the state
// directory brings it back after a restart. What the control plane withdraws is
// dropped at once.
package agent

import (
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Config says where an agent keeps its state and what it is to hold.
type Config struct {
	// StateDir is made with mode 0700, or must have it and be owned by the user
	// the agent runs as. One agent at a time may use it.
	StateDir string
	// Token is the text of a join token. It is used only when the state
	// directory holds no valid node SVID, so it may stay configured after use.
	Token string
	// Addresses are control planes, host:port. Empty: the token's, later those
	// that the control planes themselves announce. Given, they come first.
	Addresses []string
	// TrustDomain is what the operator expects; zero takes the token's or the
	// state's.
	TrustDomain spiffeid.TrustDomain
	// Workloads are the SPIFFE IDs to hold. Empty holds every permitted one.
	Workloads []spiffeid.ID
	// Default is the SPIFFE ID that the snapshot names as its default; zero takes
	// the only workload, if there is exactly one.
	Default spiffeid.ID
	// MemoryKeys keeps workload keys out of the state directory. A restart then
	// needs a control plane before the workloads have an identity again.
	MemoryKeys bool
	// StaleAfter is the age of the trust data from which it is warned of;
	// stale.After when zero. Old data stays in use.
	StaleAfter time.Duration
	// Version is reported to the control plane.
	Version string
	Logger  *slog.Logger
}

// Workload is one identity that this node may hold.
type Workload struct {
	ID spiffeid.ID
	// Selectors say who may ask for it on the host socket; all must hold. For an
	// identity without one the host's own configuration says it, or nobody may.
	Selectors []string
}

// Record is what the control plane says this node may be. Immutable.
type Record struct {
	Node      string
	Workloads []Workload
	Revision  uint64
	// Banned nodes hold nothing.
	Banned    bool
	BanReason string
}

// Permits reports whether the record names the ID.
func (r *Record) Permits(id spiffeid.ID) bool {
	if r == nil || r.Banned {
		return false
	}
	for _, w := range r.Workloads {
		if w.ID == id {
			return true
		}
	}
	return false
}

// WorkloadReport is what is known of one workload on this host.
type WorkloadReport struct {
	ID      spiffeid.ID
	ProxyID string
	Service string
	// Application is where the sidecar expects the local application.
	Application string
	// Listening is where it in fact listens.
	Listening []string
}

// Report is what the agent tells the control plane of its host. Each replaces
// the one before.
type Report struct {
	Workloads []WorkloadReport
	Warnings  []string
}

// State is how well an identity is kept.
type State string

// States of an identity.
const (
	// Missing: permitted and wanted, not yet issued.
	Missing State = "missing"
	OK      State = "ok"
	// Late: the last renewal failed; the SVID is still good.
	Late State = "late"
	// Critical: less than a quarter of the SVID's life is left.
	Critical State = "critical"
	Expired  State = "expired"
	// Withdrawn: wanted, but not (or no longer) in the node's record.
	Withdrawn State = "withdrawn"
)

// IdentityStatus describes one identity for people.
type IdentityStatus struct {
	ID        string    `json:"id"`
	State     State     `json:"state"`
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"`
	// Renews is when the next attempt is due.
	Renews    time.Time `json:"renews,omitzero"`
	LastError string    `json:"last_error,omitempty"`
	Serial    string    `json:"serial,omitempty"`
}

// Status describes the agent for people.
type Status struct {
	TrustDomain string           `json:"trust_domain"`
	Node        IdentityStatus   `json:"node"`
	Workloads   []IdentityStatus `json:"workloads"`
	// ControlPlane is the address last connected to.
	ControlPlane string `json:"control_plane,omitempty"`
	Connected    bool   `json:"connected"`
	// LastContact is when a control plane last confirmed the trust bundles and
	// this node's record, also one that an earlier run heard.
	LastContact time.Time `json:"last_contact,omitzero"`
	// Stale says so in words once that is too long ago.
	Stale     string `json:"stale,omitempty"`
	LastError string `json:"last_error,omitempty"`
	// Skew is this host's clock minus the control plane's.
	Skew           time.Duration `json:"skew"`
	BundleSequence uint64        `json:"bundle_sequence"`
	RecordRevision uint64        `json:"record_revision"`
	Banned         bool          `json:"banned,omitempty"`
}
