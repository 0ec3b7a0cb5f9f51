// Package cluster opens streams and exchanges to upstreams: endpoint sets, load
// balancing, connection pools, circuit limits. A cluster keeps its identity
// across updates, so that pools, counters and endpoints survive them.
package cluster

import (
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
)

// Config is a cluster (envoy.config.cluster.v3.Cluster).
type Config struct {
	Name string
	Type Type
	// ServiceName is the EDS resource to ask for; Name when empty.
	ServiceName string
	// Endpoints of a Static cluster, or of StrictDNS before it has resolved.
	Endpoints *Assignment
	// Aggregate lists the clusters to try in order, for Type Aggregate.
	Aggregate      []string
	ConnectTimeout time.Duration // 5 s when 0
	LB             LB
	ChoiceCount    int    // least request, 2 when 0
	TLS            *TLS   // nil for plaintext
	Limits         Limits // zero fields mean no limit
	// PanicThreshold in percent of healthy hosts; nil is Envoy's 50.
	PanicThreshold *float64
	IdleTimeout    time.Duration // of pooled connections, 1 h when 0
	// Outlier ejects hosts by what they answer; nil for none.
	Outlier *Outlier
	// DNSRefresh is how often StrictDNS resolves, 5 s when 0.
	DNSRefresh time.Duration
}

// Type says where endpoints come from.
type Type uint8

// The cluster types.
const (
	Static Type = iota
	StrictDNS
	EDS
	Aggregate
)

// LB is the load-balancing policy.
type LB uint8

// The policies.
const (
	RoundRobin LB = iota
	LeastRequest
	Random
)

// TLS is an upstream TLS context. The own certificate is named by secret, and
// "default" means the identity of the workload that opens the connection, so
// pools are keyed by (source identity, cluster).
type TLS struct {
	SNI string
	// AutoHostSNI asks for the endpoint's host name, where it has one.
	AutoHostSNI bool
	// Certificate is an SDS secret name, or empty for none.
	Certificate string
	// Validation is the SDS name of the trust bundle ("ROOTCA").
	Validation string
	// PeerIDs are the SPIFFE IDs the server may have, exactly. Empty accepts
	// none, unless AnyPeer is set.
	PeerIDs []string
	AnyPeer bool
	ALPN    []string
	// Context is set instead of all of these by a foreign configuration.
	Context    *tlscontext.Client
	MinVersion uint16 // crypto/tls numbers, TLS 1.3 when 0
	MaxVersion uint16
}

// Limits are circuit breakers: more than these at once are refused.
type Limits struct {
	MaxConnections, MaxPendingRequests, MaxRequests, MaxRetries int
	// RetryBudget, when set, stands in for MaxRetries, as it does in Envoy.
	RetryBudget *RetryBudget
}

// RetryBudget limits concurrent retries to a share of the active requests, so
// that a failing upstream is not hit several times as hard.
type RetryBudget struct {
	Percent float64
	// MinConcurrency retries are allowed however few requests there are.
	MinConcurrency int
}

// Outlier is passive health checking. Counts of 0 are not counted; enforcing
// percentages are chances that a host which reached its count is ejected.
type Outlier struct {
	Consecutive5xx          int // status 5xx, and failures without an answer
	EnforcingConsecutive5xx int // percent
	// Gateway failures are 502, 503, 504 and failures without an answer.
	ConsecutiveGateway          int
	EnforcingConsecutiveGateway int
	// Local-origin failures are connect failures, timeouts and resets. With
	// SplitLocalOrigin they count here only, otherwise only with the others.
	SplitLocalOrigin                bool
	ConsecutiveLocalOrigin          int
	EnforcingConsecutiveLocalOrigin int

	Interval           time.Duration // 10 s when 0
	BaseEjectionTime   time.Duration // 30 s when 0
	MaxEjectionTime    time.Duration // 300 s, or the base if longer, when 0
	MaxEjectionPercent int           // of hosts, 0 for none
	// AlwaysEjectOne lets the first ejection exceed the percentage.
	AlwaysEjectOne bool
}

// Assignment is a set of endpoints (ClusterLoadAssignment).
type Assignment struct {
	Cluster    string
	Localities []Locality
	// Overprovisioning is by how much, in percent, the healthy hosts of a priority
	// count for more than they are; 140 when 0. A great number keeps all requests
	// in a priority while it has one healthy host.
	Overprovisioning int
}

// Locality groups endpoints of one place and priority.
type Locality struct {
	Region, Zone, SubZone string
	Priority              int
	Weight                uint32
	Endpoints             []Endpoint
}

// Endpoint is one upstream host.
type Endpoint struct {
	Host     string // IP, or a name for StrictDNS
	Port     int
	Pipe     string // Unix socket path, instead of Host
	Hostname string
	Health   Health
	Weight   uint32 // 1 when 0
}

// Health is what the control plane says of a host.
type Health uint8

// The health states.
const (
	Healthy Health = iota
	Unhealthy
	Draining
	Degraded
)
