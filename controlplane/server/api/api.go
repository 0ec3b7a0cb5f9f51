// Package api is the vocabulary of the control plane's operator API: what its
// endpoints return, as JSON. Fields are only ever added.
package api

import (
	"encoding/json"
	"time"
)

// Paths of the API. Names in braces are path values.
const (
	StatusPath    = "/v1/status"
	ResourcesPath = "/v1/sidecars/{name}/resources"
	InboundPath   = "/v1/services/{name}/inbound"
	TokensPath    = "/v1/tokens"
	NodesPath     = "/v1/nodes"
	RevokePath    = "/v1/tokens/{name}/revoke"
	BanPath       = "/v1/nodes/{name}/ban"
	CAPath        = "/v1/ca"
	BackupPath    = "/v1/ca/backup"
	WithdrawPath  = "/v1/ca/signers/{name}/withdraw"
	RemovePath    = "/v1/controlplanes/{name}/remove"
)

// Status is one screen: the control plane, where its catalog comes from, the
// services and the sidecars.
type Status struct {
	ControlPlane ControlPlane `json:"control_plane"`
	Source       Source       `json:"source"`
	Services     []Service    `json:"services"`
	Sidecars     []Sidecar    `json:"sidecars"`
	// Problems are what an operator should look at, worst first.
	Problems []Problem `json:"problems"`
	// Warnings are what an operator should know of while everything works.
	Warnings []Problem `json:"warnings,omitempty"`
}

// ControlPlane describes the process that answers.
type ControlPlane struct {
	SPIFFEID    string    `json:"spiffe_id"`
	TrustDomain string    `json:"trust_domain"`
	Datacenter  string    `json:"datacenter"`
	Version     string    `json:"version"`
	Started     time.Time `json:"started"`
	XDSAddress  string    `json:"xds_address"`
	APIAddress  string    `json:"api_address"`
	Generation  uint64    `json:"generation"`
	// Signers are the trust anchors of the bundle.
	Signers []Signer `json:"signers"`
}

// Signer is one trust anchor.
type Signer struct {
	ID       string    `json:"id"`
	Owner    string    `json:"owner"`
	State    string    `json:"state"`
	NotAfter time.Time `json:"not_after"`
}

// Source says where the catalog comes from and how that goes.
type Source struct {
	Kind        string            `json:"kind"`
	Where       string            `json:"where"`
	Synced      bool              `json:"synced"`
	Index       uint64            `json:"index,omitempty"`
	LastSuccess time.Time         `json:"last_success"`
	Errors      map[string]string `json:"errors,omitempty"`
}

// Service is a service with mesh endpoints.
type Service struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	Passing  int    `json:"passing"`
	Total    int    `json:"total"`
}

// Sidecar is one node's xDS session, or a node that has joined and is away.
type Sidecar struct {
	Node      string    `json:"node"`
	SPIFFEID  string    `json:"spiffe_id"`
	Version   string    `json:"version"`
	Workloads []string  `json:"workloads"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since,omitzero"`
	// State is "synced", "stale" (something is sent and not acknowledged),
	// "rejected" (something was NACKed), "away" or "banned"; Why says more.
	State   string    `json:"state"`
	Why     string    `json:"why,omitempty"`
	LastAck time.Time `json:"last_ack,omitzero"`
	// Types counts resources by short type (LDS, RDS, CDS, EDS).
	Types map[string]TypeState `json:"types"`
	// Exposed lists application addresses that are reachable beside the
	// sidecar: "api listens on 0.0.0.0:9001".
	Exposed []string `json:"exposed,omitempty"`
}

// TypeState counts the resources of one type in a session.
type TypeState struct {
	Acked    int `json:"acked"`
	Pending  int `json:"pending"`
	Rejected int `json:"rejected"`
}

// Problem is something to look at.
type Problem struct {
	// Where names the thing: "service api", "sidecar web-1", "consul".
	Where string `json:"where"`
	What  string `json:"what"`
}

// Resource is one xDS resource as a sidecar is to have it.
type Resource struct {
	Type    string          `json:"type"` // LDS, RDS, CDS or EDS
	Name    string          `json:"name"`
	Version string          `json:"version"`
	State   string          `json:"state"` // acked, pending, rejected or unsent
	Error   string          `json:"error,omitempty"`
	Body    json.RawMessage `json:"body"`
}

// Inbound is the rendered inbound listener of a service, what its sidecars
// decide by.
type Inbound struct {
	Service     string          `json:"service"`
	Protocol    string          `json:"protocol"`
	SPIFFEID    string          `json:"spiffe_id"`
	TrustDomain string          `json:"trust_domain"`
	Datacenter  string          `json:"datacenter"`
	SNI         string          `json:"sni"`
	Listener    json.RawMessage `json:"listener"`
	Problems    []Problem       `json:"problems,omitempty"`
}

// TokenRequest asks for a join token.
type TokenRequest struct {
	Node string `json:"node"`
	// Role is "node" (default), "controlplane" or "operator".
	Role string `json:"role,omitempty"`
	// Services are workload names the node may be; Workloads are whole SPIFFE
	// IDs. Each may carry host-socket selectors after "@": "api@uid=1001".
	Services  []string      `json:"services,omitempty"`
	Workloads []string      `json:"workloads,omitempty"`
	TTL       time.Duration `json:"ttl,omitempty"`
	// Addresses of control planes to put into the token; the answering one's
	// own when empty.
	Addresses []string `json:"addresses,omitempty"`
}

// TokenReply carries the token, once; only its hash is kept.
type TokenReply struct {
	Token   string    `json:"token"`
	ID      string    `json:"id"`
	Node    string    `json:"node"`
	Expires time.Time `json:"expires"`
}

// Token is a token that was minted, without its secret.
type Token struct {
	ID      string    `json:"id"`
	Node    string    `json:"node"`
	Role    string    `json:"role"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Used    time.Time `json:"used,omitzero"`
}

// Node is a joined node's record.
type Node struct {
	Name      string    `json:"name"`
	Workloads []string  `json:"workloads"`
	Joined    time.Time `json:"joined"`
	Banned    bool      `json:"banned"`
}

// CA describes the certificate authority and the bundle.
type CA struct {
	TrustDomain string   `json:"trust_domain"`
	Sequence    uint64   `json:"sequence"`
	Pin         string   `json:"pin"`
	Signers     []Signer `json:"signers"`
	// Bundle is the SPIFFE bundle document.
	Bundle json.RawMessage `json:"bundle"`
}

// Error is the body of every answer that is not 2xx.
type Error struct {
	Error string `json:"error"`
}
