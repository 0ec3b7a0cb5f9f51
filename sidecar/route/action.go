package route

import (
	"regexp"
	"slices"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Forward sends the request to a cluster. What few routes have is behind pointers:
// there may be ten thousand of them.
type Forward struct {
	// One of Cluster, ClusterHeader and Weighted says where to.
	Cluster       string
	ClusterHeader string // lower case; its first value names the cluster
	Weighted      []WeightedCluster
	// WeightHeader holds the number that chooses among Weighted, WeightByHash takes
	// the hash for it; chance does where neither gives one.
	WeightHeader string // lower case
	WeightByHash bool
	// HighPriority lets the cluster's limits for high priority apply.
	HighPriority bool
	// IncludeHostRateLimits has the virtual host's RateLimits describe requests too,
	// whatever the filter says.
	IncludeHostRateLimits bool
	// AutoHostRewrite takes the name of the upstream host that was chosen.
	AutoHostRewrite bool
	// AppendForwardedHost keeps the host that is rewritten in x-forwarded-host.
	AppendForwardedHost bool
	// NotFoundStatus answers for a cluster that is not there, 503 when 0.
	NotFoundStatus uint16
	Rewrite        *Rewrite // nil for none

	// Timeout is for the whole upstream response, 0 for none. IdleTimeout is
	// the stream's, nil for the connection manager's, 0 for none.
	Timeout     time.Duration
	IdleTimeout *time.Duration
	// FlushTimeout is how long the end of a response may wait for its client, nil for the
	// connection manager's, 0 for ever.
	FlushTimeout *time.Duration `json:",omitempty"`
	// StreamDuration bounds the whole exchange; with it set, Timeout and
	// GRPCLimit have no say, as in Envoy.
	StreamDuration *StreamDuration
	GRPCLimit      *GRPCLimit

	// Metadata selects endpoints by their "envoy.lb" metadata, values as JSON decodes
	// them; empty for all.
	Metadata map[string]any
	Retry    *RetryPolicy
	Hedge    *HedgePolicy
	Hash     []HashPolicy
	Mirrors  []Mirror
	Upgrades []Upgrade // before the connection manager's
	// InternalRedirect is nil where redirects are passed on.
	InternalRedirect *InternalRedirect
	// RateLimits describe requests to rate limit filters.
	RateLimits []RateLimit
}

// Rewrite changes the path and the authority that the upstream gets. At most one of
// the fields for the path and one of those for the host is set.
type Rewrite struct {
	Prefix   string // in place of the matched prefix or path
	Regex    *Substitution
	Template *TemplateRewrite
	Path     string // the whole path, with %OPERATORS%

	Host       string
	HostFormat string // with %OPERATORS%
	HostHeader string // lower case
	HostRegex  *Substitution
}

// GRPCLimit lets grpc-timeout stand in for a route's timeout, up to Max (0: any). Offset is taken
// off it. Deprecated in Envoy.
type GRPCLimit struct{ Max, Offset time.Duration }

// StreamDuration is Envoy's MaxStreamDuration. A nil field is not set, 0 is no
// limit.
type StreamDuration struct {
	Max, GRPCMax *time.Duration
	GRPCOffset   time.Duration
}

// Upgrade allows a protocol to be switched to, "CONNECT" among them, or takes back
// what a wider configuration allows. Types are compared without case.
type Upgrade struct {
	Type     string
	Disabled bool
	// Terminate ends a CONNECT here: what follows it goes to the host as plain bytes.
	Terminate bool
	// Post has POST open what a CONNECT does with Terminate, also where CONNECT is not allowed.
	Post bool
}

// Terminates tells whether a list has CONNECT end here.
func Terminates(list []Upgrade) bool {
	return slices.ContainsFunc(list, func(u Upgrade) bool { return u.Terminate && !u.Disabled })
}

// TerminatesPost tells whether a list has POST end here.
func TerminatesPost(list []Upgrade) bool {
	return slices.ContainsFunc(list, func(u Upgrade) bool { return u.Post })
}

// Allows tells whether a list lets a protocol be switched to; said is false when it
// does not mention it.
func Allows(list []Upgrade, kind string) (allowed, said bool) {
	for i := range list {
		if equalFold(list[i].Type, kind) {
			return !list[i].Disabled, true
		}
	}
	return false, false
}

// WeightedCluster is a leg of a split.
type WeightedCluster struct {
	// One of the two names the cluster.
	Cluster, ClusterHeader string
	Weight                 uint32
	Headers                *HeaderMutations // nil for none
	HostRewrite            string           // replaces the authority before the route's rewrite does
	Metadata               map[string]any   // over the route's
	Filters                []FilterOverride
}

// Mirror copies requests to another cluster and drops the answers.
type Mirror struct {
	// One of the two names the cluster.
	Cluster, ClusterHeader string
	Share                  Share
	// HostRewrite stands in for the authority; without it "-shadow" is appended to
	// the request's own, unless KeepHost is set.
	HostRewrite string
	KeepHost    bool
	// Unsampled: a copy's trace is not sampled, whether the request's is or not.
	Unsampled bool
	Mutations []HeaderMutation
}

// HeaderMutation is one step on a message's headers: exactly one field is set.
type HeaderMutation struct {
	Remove   string // lower case
	Add      *HeaderAdd
	RemoveIf *StringMatch // every header whose lower-case name matches
}

// HedgePolicy sends a request again beside one that takes long.
type HedgePolicy struct {
	OnPerTryTimeout bool
}

// RetryPolicy is Envoy's, with the conditions parsed.
type RetryPolicy struct {
	On          RetryOn
	StatusCodes []int // for retriable-status-codes
	// Headers of a response that retriable-headers retries; any of them.
	Headers []HeaderMatch
	// RequestHeaders, when there are any, let only requests be retried that match
	// one of them.
	RequestHeaders []HeaderMatch
	NumRetries     uint32
	// PerTryTimeout and PerTryIdleTimeout are the attempt's, 0 for none.
	PerTryTimeout, PerTryIdleTimeout time.Duration
	BackOffBase                      time.Duration // 25 ms when 0
	BackOffMax                       time.Duration // 10 × base when 0
	// RateLimited takes the wait from a response's header, where it has one.
	RateLimited *RateLimitedBackOff
	// AvoidTried has a retry choose a host again that was tried, Reselections times at
	// most (1 or more).
	AvoidTried bool
	// OmitCanary has it avoid hosts that are canaries, and OmitMetadata, for each, those that
	// have all of it.
	OmitCanary   bool
	OmitMetadata []map[string]any
	Reselections int
	// OtherPriorities has a retry go to a priority that was not tried, of which those that were
	// are looked at anew after so many attempts each; 0 has load decide alone.
	OtherPriorities int `json:",omitempty"`
}

// RateLimitedBackOff is Envoy's rate_limited_retry_back_off.
type RateLimitedBackOff struct {
	Headers []ResetHeader // the first with a value that is not too long decides
	Max     time.Duration // 300 s when 0
}

// ResetHeader names a header that says when to come back: in seconds, or at a
// Unix time.
type ResetHeader struct {
	Name string // lower case
	Unix bool
}

// RetryOn is a set of retry conditions.
type RetryOn uint32

// The retry conditions, named as Envoy names them.
const (
	RetryConnectFailure RetryOn = 1 << iota
	RetryRefusedStream
	RetryResetBeforeRequest
	RetryReset
	Retry5xx
	RetryGatewayError
	RetryRetriable4xx
	RetryStatusCodes
	RetryHeaders
	RetryRateLimited
	RetryGRPCCancelled
	RetryGRPCDeadlineExceeded
	RetryGRPCInternal
	RetryGRPCResourceExhausted
	RetryGRPCUnavailable
	// RetryResetIdempotent is ours: RetryReset for idempotent methods only.
	RetryResetIdempotent
)

// HashPolicy is one input of a consistent-hash load balancer. Exactly one of
// Header, Query, Cookie and SourceIP is set.
type HashPolicy struct {
	Header        string // lower case
	HeaderRewrite *Substitution
	Query         string
	Cookie        *CookieHash
	SourceIP      bool
	// Terminal ends the list here when there is a hash.
	Terminal bool
}

// CookieHash names a cookie and, with TTL set, has it generated; 0 makes one for
// the browser's session.
type CookieHash struct {
	Name, Path string
	TTL        *time.Duration
	Attributes []CookieAttribute
}

// CookieAttribute is one more attribute of a generated cookie.
type CookieAttribute struct{ Name, Value string }

// Redirect answers with a Location. At most one of Path, PrefixRewrite, RegexRewrite and PathRewrite
// is set.
type Redirect struct {
	Scheme, Host, Path, PrefixRewrite string
	PathRewrite                       string `json:",omitempty"` // the whole path, with %OPERATORS%
	RegexRewrite                      *Substitution
	Port, Code                        int // Code is 301 when 0
	StripQuery                        bool
}

// DirectResponse answers without an upstream.
type DirectResponse struct {
	Status int
	Body   []byte
	// Format, where there is one, makes the body; Body is its %LOCAL_REPLY_BODY%.
	Format *telemetry.BodyFormat `json:",omitempty"`
}

// Substitution replaces every match of a pattern. Template has \0 to \9 for the
// match and its groups, as RE2 has.
type Substitution struct {
	Pattern  *regexp.Regexp
	Template string
}
