// Package route matches requests to routes: virtual host, then the first route
// whose match holds, in the order configured.
package route

import (
	"regexp"
	"time"
)

// Config is a route configuration (envoy.config.route.v3.RouteConfiguration).
type Config struct {
	Name         string
	VirtualHosts []VirtualHost
}

// VirtualHost groups routes by host. Domains are exact, "*.suffix", "prefix.*"
// or "*"; matching is case-insensitive.
type VirtualHost struct {
	Name    string
	Domains []string
	Routes  []Route
	Headers HeaderMutations
	Retry   *RetryPolicy // applies where a route has none
}

// Route is one rule. Exactly one of Forward, Redirect and Direct is set.
type Route struct {
	Name     string
	Match    Match
	Forward  *Forward
	Redirect *Redirect
	Direct   *DirectResponse
	Headers  HeaderMutations
	// Origin says what intent made the rule, for access logs and people.
	Origin string
}

// Match holds when every part holds. Exactly one of the path fields is set.
type Match struct {
	Prefix, Path, PathSeparatedPrefix *string
	Regex                             *regexp.Regexp // must match the whole path
	CaseInsensitive                   bool
	Headers                           []HeaderMatch // ":method", ":authority" included
	Query                             []QueryMatch
	// RuntimeFraction, in millionths, lets only a share of requests match; 0 for all.
	RuntimeFraction uint32
}

// StringMatch is Envoy's StringMatcher. Exactly one pattern is set.
type StringMatch struct {
	Exact, Prefix, Suffix, Contains *string
	Regex                           *regexp.Regexp // whole value
	IgnoreCase                      bool
}

// HeaderMatch is Envoy's HeaderMatcher; Value nil means presence decides.
type HeaderMatch struct {
	Name           string // lower case
	Value          *StringMatch
	Range          *[2]int64 // [start, end)
	Present        *bool
	Invert         bool
	MissingAsEmpty bool
}

// QueryMatch is Envoy's QueryParameterMatcher; Value nil means presence.
type QueryMatch struct {
	Name    string
	Value   *StringMatch
	Present *bool
}

// Forward sends the request to a cluster.
type Forward struct {
	Cluster  string
	Weighted []WeightedCluster // used when Cluster is empty
	// PrefixRewrite replaces the matched prefix or path; "" for none.
	PrefixRewrite string
	HostRewrite   string
	// Timeout is for the whole upstream response, 0 for none. IdleTimeout is
	// the stream's, 0 for the connection manager's.
	Timeout     time.Duration
	IdleTimeout *time.Duration
	Retry       *RetryPolicy
	Hash        []HashPolicy
	// MetadataMatch selects endpoints by subset; empty for all.
}

// WeightedCluster is a leg of a split.
type WeightedCluster struct {
	Cluster string
	Weight  uint32
	Headers HeaderMutations
}

// RetryPolicy is Envoy's, with the conditions parsed.
type RetryPolicy struct {
	On            RetryOn
	StatusCodes   []int // for retriable-status-codes
	NumRetries    uint32
	PerTryTimeout time.Duration
	BackOffBase   time.Duration // 25 ms when 0
	BackOffMax    time.Duration // 10 × base when 0
	// RetryableMethodsOnly, when set, lets On apply only to idempotent methods,
	// except for conditions under which no byte was sent.
	IdempotentOnly bool
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
	// RetryResetIdempotent is ours: RetryReset for idempotent methods only.
	RetryResetIdempotent
)

// HashPolicy is one input of a consistent-hash load balancer.
type HashPolicy struct {
	Header, Query string
	Cookie        *CookieHash
	SourceIP      bool
	Terminal      bool
}

// CookieHash names a cookie and, with TTL set, has it generated.
type CookieHash struct {
	Name, Path string
	TTL        *time.Duration
}

// Redirect answers with a Location.
type Redirect struct {
	Scheme, Host, Path, PrefixRewrite string
	Port, Code                        int
	StripQuery                        bool
}

// DirectResponse answers without an upstream.
type DirectResponse struct {
	Status int
	Body   []byte
}

// HeaderMutations change headers on the way in and out. Order: remove, then add.
type HeaderMutations struct {
	RequestAdd, ResponseAdd       []HeaderAdd
	RequestRemove, ResponseRemove []string // lower case
}

// AppendAction is what to do when the header exists already.
type AppendAction uint8

// Envoy's HeaderAppendAction values.
const (
	AppendIfExistsOrAdd AppendAction = iota
	AddIfAbsent
	OverwriteIfExistsOrAdd
	OverwriteIfExists
)

// HeaderAdd is one header to add. Value is literal or holds %OPERATORS%, parsed
// by the access-log formatter.
type HeaderAdd struct {
	Name, Value string
	Action      AppendAction
}
