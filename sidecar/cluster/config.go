// Package cluster opens streams and exchanges to upstreams: endpoint sets, load
// balancing, health, connection pools, circuit limits. A cluster keeps its
// identity across updates, so that pools, counters and endpoints survive them.
package cluster

import (
	"net/netip"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/discovery"
	"github.com/hauberk-mesh/hauberk/sidecar/proxytlv"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
)

// Config is a cluster (envoy.config.cluster.v3.Cluster).
type Config struct {
	Name string
	// StatName is what statistics, logs and spans call it; Name when empty.
	StatName string `json:",omitempty"`
	// TrackBudgets has it counted how much of their time requests and attempts take.
	TrackBudgets bool `json:",omitempty"`
	// Metadata are for access logs: its filter_metadata by namespace, values as JSON has them.
	Metadata map[string]map[string]any `json:",omitempty"`
	Type     Type

	LB LB
	// FullScan makes least request look at every host instead of ChoiceCount.
	FullScan bool
	// LocalityWeighted balances between localities by their weights first.
	LocalityWeighted bool
	// Zones is nil for the defaults. LocalityWeighted goes before it.
	Zones *ZoneAware `json:",omitempty"`
	// FailOnPanic refuses requests in panic instead of using all hosts.
	FailOnPanic bool
	// ExcludeUnchecked leaves new hosts out of the sums that decide on panic and
	// failover until they were checked once.
	ExcludeUnchecked bool
	// DropRemoved lets a host go when discovery no longer names it, also while
	// its health checks pass.
	DropRemoved bool
	// ServeUnresolved lets nobody wait for the first answer for a DNS cluster's names.
	ServeUnresolved bool `json:",omitzero"`
	// CloseOnFailure closes the connections of a host that becomes unhealthy, those that carry byte
	// streams, and CloseOnChange all that are idle when a host comes or goes.
	CloseOnFailure, CloseOnChange bool

	// ServiceName is the EDS resource to ask for; Name when empty. Discovery is where that
	// comes from.
	ServiceName string
	Discovery   discovery.Source `json:",omitzero"`
	// Endpoints of a Static cluster, or of a DNS cluster before it has resolved.
	Endpoints *Assignment
	// Aggregate lists the clusters to try in order, for Type Aggregate.
	Aggregate      []string
	OriginalDst    *OriginalDst  // for Type OriginalDestination, nil for the defaults
	DNS            *DNS          // for StrictDNS and LogicalDNS, nil for the defaults
	ConnectTimeout time.Duration // 5 s when 0

	ChoiceCount int // least request, 2 when 0
	// ActiveRequestBias is the exponent by which active requests lower a host's
	// weight where weights differ (least request); nil is Envoy's 1.
	ActiveRequestBias *float64
	Hash              *HashTable // ring hash and maglev, nil for the defaults
	// PanicThreshold in percent of healthy hosts; nil is Envoy's 50.
	PanicThreshold *float64
	SlowStart      *SlowStart // nil for none
	Subsets        *Subsets   // nil for none

	TLS *TLS // nil for plaintext
	// Announce tells hosts of the client, before TLS, and of what Extensions say.
	Announce   Announcement `json:",omitempty"`
	Extensions *Extensions  `json:",omitempty"` // of version 2; nil for none
	// Sockets are looked at in order: the first whose Match an endpoint's metadata
	// has replaces TLS.
	Sockets  []SocketMatch
	Bind     *Bind         `json:",omitempty"` // nil for Options.Bind
	TCP      *TCPKeepAlive // nil for no probes
	Eyeballs *Eyeballs     `json:",omitempty"` // nil for the default

	Limits      Limits        // zero fields mean no limit
	HighLimits  *Limits       // of requests with high priority, nil for no limit
	IdleTimeout time.Duration // of pooled connections, 1 h when 0
	HTTP        HTTP

	// Outlier ejects hosts by what they answer; nil for none.
	Outlier *Outlier
	// HealthCheck asks the hosts; nil for none.
	HealthCheck *HealthCheck
}

// Service is the name of the EDS resource that has the endpoints of an EDS cluster.
func (c *Config) Service() string {
	if c.ServiceName != "" {
		return c.ServiceName
	}
	return c.Name
}

// Takes says why the cluster cannot have endpoints.
func (c *Config) Takes(a *Assignment) error {
	if err := checkAddresses(a); err != nil {
		return err
	}
	return c.holds(a)
}

// discoversAs tells whether both have the endpoints of the same EDS resource.
func (c *Config) discoversAs(o *Config) bool {
	return c.Type == EDS && o.Type == EDS && c.Service() == o.Service()
}

// Type says where endpoints come from.
type Type uint8

// The cluster types.
const (
	Static Type = iota
	StrictDNS
	EDS
	Aggregate
	LogicalDNS
	OriginalDestination
)

// LB is the load-balancing policy.
type LB uint8

// The policies.
const (
	RoundRobin LB = iota
	LeastRequest
	Random
	RingHash
	Maglev
)

// HashTable configures ring hash and maglev. Hosts are hashed by address, or by
// "hash_key" of their "envoy.lb" metadata.
type HashTable struct {
	// MinRing and MaxRing bound the ring's size: 1024 and 8 M when 0.
	MinRing, MaxRing uint64
	Murmur2          bool // instead of xxHash64; ring hash only
	// TableSize of maglev is a prime, 65537 when 0.
	TableSize   uint64
	UseHostname bool // instead of the address
	// BalanceFactor bounds a host's active requests to this percentage of the
	// average, at least 100; 0 for no bound.
	BalanceFactor uint32
	// Policies, where there are any, place requests in place of those of routes and of the cluster's
	// HTTP.
	Policies []route.HashPolicy `json:",omitempty"`
}

// OwnHash tells whether the balancer has hash policies of its own.
func (c *Config) OwnHash() bool { return c.Hash != nil && len(c.Hash.Policies) > 0 }

// SlowStart lets a host that is new get its share little by little.
type SlowStart struct {
	Window     time.Duration
	Aggression float64 // 1 when 0: linear
	MinPercent float64 // of the weight
}

// DestinationHeader names the destination where a cluster is to look at a header and names none.
const DestinationHeader = "x-envoy-original-dst-host"

// OriginalDst sends requests where the client meant to connect to.
type OriginalDst struct {
	// Header, when set, is the lower-case name of a request header whose first
	// value ("address:port") is used instead. Whoever sends it chooses the host.
	Header string
	Port   uint16 // replaces the destination's, unless 0
	// Cleanup is how often unused hosts are forgotten, 5 s when 0.
	Cleanup time.Duration
}

// DNS says how names are looked up.
type DNS struct {
	// Refresh is the time between lookups, 5 s when 0, to which up to Jitter is
	// added.
	Refresh, Jitter time.Duration
	// FailureBase and FailureMax, when set, are the back-off after a failed lookup.
	FailureBase, FailureMax time.Duration
	Family                  DNSFamily
	// Servers, IP:port, are asked one after the other in place of the host's.
	Servers []string `json:",omitempty"`
	// Tries is how often each server is asked, once when 0; the first time it has QueryTimeout to
	// answer, then twice as long as before. Without QueryTimeout it has its share of the lookup's 5 s.
	Tries        int           `json:",omitempty"`
	QueryTimeout time.Duration `json:",omitempty"`
	// Routable leaves out addresses of a family of which no interface has one.
	Routable bool `json:",omitempty"`
	// OwnResolver: all of how servers are asked is as the cluster says, and otherwise as
	// Options.Nameservers does.
	OwnResolver bool `json:",omitempty"`
	// Rotate has each lookup ask another server first.
	Rotate bool `json:",omitempty"`
	// OverTCP asks no question by UDP. WholeNames tries no search domains.
	OverTCP, WholeNames bool `json:",omitempty"`
	// RespectTTL has an answer's TTL stand in for Refresh, and MinRefresh for a shorter one.
	RespectTTL bool          `json:",omitempty"`
	MinRefresh time.Duration `json:",omitempty"`
}

// DNSFamily says which addresses of a name are used.
type DNSFamily uint8

// The families.
const (
	IPv6First DNSFamily = iota // IPv6, and IPv4 where there is none
	IPv4First
	IPv4Only
	IPv6Only
	AllFamilies
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

// SocketMatch is a transport socket for the hosts whose metadata of namespace
// "envoy.transport_socket_match" has all of Match.
type SocketMatch struct {
	Name  string
	Match map[string]any // as JSON decodes it
	TLS   *TLS           // nil for plaintext
	// Announce and Extensions are Config's, in their place.
	Announce   Announcement `json:",omitempty"`
	Extensions *Extensions  `json:",omitempty"`
}

// Eyeballs are the order in which several addresses of a host are tried: First of the first family, then
// one of the other, and so on.
type Eyeballs struct {
	Family DNSFamily // IPv4Only or IPv6Only comes first; the family of the first address where it is neither
	First  int       // 1 when 0
}

// TCPKeepAlive are the probes of idle connections; zero fields are the system's.
type TCPKeepAlive struct {
	Idle, Interval time.Duration
	Probes         int
}

// NoneAllowed is a limit that refuses everything, as 0 does in Envoy's configuration.
const NoneAllowed = -1

// Limits are circuit breakers: more than these at once are refused. 0 is no limit. A
// request counts as pending while it waits for a connection, and against MaxRequests
// from when it has one. A host without a connection may have one whatever
// MaxConnections.
type Limits struct {
	MaxConnections, MaxPendingRequests, MaxRequests, MaxRetries int
	// MaxPools limits the pools for requests of HTTP, of which a host has one, or one for each of the
	// terms that its connections depend on: names, clients, announced addresses.
	MaxPools int `json:",omitempty"`
	// RetryBudget, when set, stands in for MaxRetries, as it does in Envoy.
	RetryBudget *RetryBudget
	// TrackRemaining exposes how much is left of each limit.
	TrackRemaining bool
	// MaxHostConnections limits the connections to each host; HighLimits have none.
	MaxHostConnections int
}

// RetryBudget limits concurrent retries to a share of the active or recent requests, so
// that a failing upstream is not hit several times as hard.
type RetryBudget struct {
	Percent float64
	// MinConcurrency retries are allowed however few requests there are.
	MinConcurrency int
	// Interval, from a millisecond on, has it count the requests that began so long ago at most,
	// retries among them, in the place of the active ones.
	Interval time.Duration `json:",omitempty"`
}

// Assignment is a set of endpoints (ClusterLoadAssignment).
type Assignment struct {
	Cluster    string
	Localities []Locality
	// Overprovisioning is by how much, in percent, the healthy hosts of a priority
	// count for more than they are; 140 when 0. A great number keeps all requests
	// in a priority while it has one healthy host.
	Overprovisioning int
	// WeightedHealth measures a priority by its hosts' weights, not their number.
	WeightedHealth bool
	// DropPerMillion is the share of requests that are answered in the place of the hosts.
	DropPerMillion uint32 `json:",omitempty"`
	// StaleAfter is for how long the endpoints of an EDS cluster are good without an update; 0 is
	// for ever. Of other clusters it says nothing, as in Envoy.
	StaleAfter time.Duration `json:",omitempty"`

	arrived int64 // when the manager got it, 0 where it did not yet
}

// Locality groups endpoints of one place and priority.
type Locality struct {
	Region, Zone, SubZone string
	Priority              int
	// Weight counts where the cluster is LocalityWeighted; 0 gets no requests.
	Weight    uint32
	Endpoints []Endpoint
}

// Endpoint is one upstream host.
type Endpoint struct {
	Host     string // IP, or a name for the DNS types
	Port     int
	Pipe     string // Unix socket path, instead of Host
	Hostname string
	// Also are further addresses of the same host, where connections are made that cannot be made
	// to the first, or not soon (RFC 8305).
	Also   []netip.AddrPort `json:",omitempty"`
	Health Health
	Weight uint32 // 1 when 0
	// Metadata is by namespace, values as JSON decodes them.
	Metadata map[string]map[string]any
	// OfLocality is what the metadata of its locality have of SocketNamespace: it chooses the
	// transport socket where the endpoint's own choose none.
	OfLocality map[string]any `json:",omitempty"`
	Check      *EndpointCheck // nil for nothing
	// Extensions are those of headers to this host, before and in the place of the cluster's.
	Extensions proxytlv.Kept `json:",omitzero"`
}

// EndpointCheck changes how one endpoint is health-checked.
type EndpointCheck struct {
	Disabled bool
	Address  string // IP, instead of the endpoint's
	Port     int    // instead of the endpoint's
	Hostname string // for the Host header and the gRPC authority
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
