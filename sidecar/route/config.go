// Package route matches requests to routes (virtual host, then the first route
// whose match holds, in the order configured) and says what a route does to a
// request: which cluster, which rewrites, timeouts, retries and hash.
package route

import (
	"regexp"
)

// Config is a route configuration (envoy.config.route.v3.RouteConfiguration).
type Config struct {
	Name         string
	VirtualHosts []VirtualHost
	Headers      *HeaderMutations // nil for none, as in VirtualHost and Route
	// InternalOnly are headers, in lower case, of which a request keeps none unless its
	// client is internal. They are gone before a route is chosen.
	InternalOnly []string `json:",omitempty"`
	// MostSpecificHeadersWin reverses the order of levels for header mutations:
	// route configuration first, route last.
	MostSpecificHeadersWin bool
	// IgnorePort matches domains without the authority's port.
	IgnorePort bool
	// HostHeader, in lower case, is the header that domains match in place of the authority;
	// empty for none.
	HostHeader string `json:",omitempty"`
	// IgnorePathParameters matches paths without what follows a semicolon.
	IgnorePathParameters bool
	// ValidateClusters refuses routes to clusters that are not there; else they answer
	// 503. Nil is true within a listener of a static configuration, and false for what
	// is discovered.
	ValidateClusters *bool
	// Mirrors apply where neither virtual host nor route has any.
	Mirrors []Mirror
	Filters []FilterOverride
}

// VirtualHost groups routes by host. Domains are exact, "*.suffix", "prefix.*"
// or "*"; matching is case-insensitive.
type VirtualHost struct {
	Name    string
	Domains []string
	// Metadata are for access logs: its filter_metadata by namespace, values as JSON has them.
	Metadata map[string]map[string]any `json:",omitempty"`
	Routes   []Route
	Headers  *HeaderMutations
	// Retry, Hedge and Mirrors apply where a route has none; nothing is merged.
	Retry   *RetryPolicy
	Hedge   *HedgePolicy
	Mirrors []Mirror
	Filters []FilterOverride
	// RateLimits describe requests to rate limit filters.
	RateLimits []RateLimit
	// AttemptCountInRequest and AttemptCountInResponse add x-envoy-attempt-count,
	// TimeoutRetryHeader x-envoy-is-timeout-retry.
	AttemptCountInRequest, AttemptCountInResponse, TimeoutRetryHeader bool

	RequireTLS TLSRequirement
	// BufferLimit bounds the part of a body that is kept for retries and mirrors,
	// nil for the connection manager's.
	BufferLimit *uint64
}

// TLSRequirement says which requests a virtual host sends to https.
type TLSRequirement uint8

// Envoy's TlsRequirementType values.
const (
	TLSOptional TLSRequirement = iota
	TLSForExternal
	TLSForAll
)

// Route is one rule. Exactly one of Forward, Redirect and Direct is set.
type Route struct {
	Name     string
	Match    Match
	Forward  *Forward
	Redirect *Redirect
	Direct   *DirectResponse
	Headers  *HeaderMutations
	Filters  []FilterOverride
	// Tracing is what the package tracing has for a route, nil for nothing.
	Tracing any
	// BufferLimit is the virtual host's for this route, nil to inherit it.
	BufferLimit *uint64
	// Metadata are its filter_metadata by namespace, as rules read them: values as JSON has them.
	// Our own namespace is Origin's.
	Metadata map[string]map[string]any `json:",omitempty"`
	// Origin says what intent made the rule, for access logs and people.
	Origin string
}

// FilterOverride is the configuration of an HTTP filter for a part of the routes
// (typed_per_filter_config). Config is the filter's own type; with Disabled the
// filter does not run, and with neither it runs although it is off by default.
type FilterOverride struct {
	Name     string // of the filter in the chain
	Disabled bool
	Config   any
}

// Match holds when every part holds. Exactly one of the path fields is set.
type Match struct {
	Prefix, Path, PathSeparatedPrefix *string
	Regex                             *regexp.Regexp // must match the whole path
	Template                          *Template
	// Connect matches CONNECT and nothing else.
	Connect         bool
	CaseInsensitive bool
	// GRPC matches gRPC requests only, by their content type.
	GRPC    bool
	Headers []HeaderMatch // ":method", ":authority" included
	Query   []QueryMatch
	Cookies []CookieMatch
	TLS     *TLSMatch
	// Share lets only a part of the requests match; nil for all.
	Share *Share
}

// Share is a part of the requests, in millionths.
type Share uint32

// All is every request.
const All Share = 1_000_000

// Holds tells whether a uniformly distributed number falls into the share.
func (s Share) Holds(random uint32) bool { return uint64(random)*uint64(All)>>32 < uint64(s) }

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

// CookieMatch is Envoy's CookieMatcher. A cookie that is missing does not match,
// and so matches an inverted matcher.
type CookieMatch struct {
	Name   string
	Value  *StringMatch
	Invert bool
}

// TLSMatch asks for a client certificate; nil fields ask for nothing.
type TLSMatch struct {
	Presented, Validated *bool
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
	// KeepEmpty adds the header also when the value comes out empty.
	KeepEmpty bool
}
