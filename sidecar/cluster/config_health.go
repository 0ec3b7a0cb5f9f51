package cluster

import (
	"regexp"
	"strings"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// Outlier is passive health checking. Counts of 0 are not counted; enforcing
// percentages are chances that a host which was found to be an outlier is ejected.
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

	// A host whose success rate in the last interval is more than StdevFactor/1000
	// standard deviations below the mean of the hosts is an outlier. Hosts count
	// that had RateVolume requests in the interval, if there are RateMinHosts.
	EnforcingSuccessRate, EnforcingLocalSuccessRate int
	RateMinHosts, RateVolume, StdevFactor           int
	// So is one with FailurePercent percent of failures, under the same terms.
	EnforcingFailurePercent, EnforcingLocalFailurePercent int
	FailurePercent, FailureMinHosts, FailureVolume        int

	Interval           time.Duration // 10 s when 0
	BaseEjectionTime   time.Duration // 30 s when 0
	MaxEjectionTime    time.Duration // 300 s, or the base if longer, when 0
	EjectionJitter     time.Duration // up to this is added to each ejection
	MaxEjectionPercent int           // of hosts, 0 for none
	// AlwaysEjectOne lets the first ejection exceed the percentage.
	AlwaysEjectOne bool
	// KeepOnCheck leaves a host ejected when an active health check passes.
	KeepOnCheck bool
	// DetectDegraded has a host come after the others, for as long as an ejection would last, that
	// says with an answer below 500 that it is degraded.
	DetectDegraded bool `json:",omitempty"`
}

// HealthCheck is active health checking (envoy.config.core.v3.HealthCheck).
// Exactly one of HTTP, TCP and GRPC is set.
type HealthCheck struct {
	Timeout time.Duration // of one check, connecting included
	// Interval is between checks of a host that has traffic; the others replace it
	// and are never 0: NoTraffic while no connection was ever made to the cluster,
	// for hosts that are healthy NoTrafficHealthy, Unhealthy for those that are
	// not, and the Edge intervals while a threshold is being counted up to.
	Interval, NoTraffic, NoTrafficHealthy time.Duration
	Unhealthy, UnhealthyEdge, HealthyEdge time.Duration
	InitialJitter, Jitter                 time.Duration
	JitterPercent                         int
	UnhealthyThreshold, HealthyThreshold  int
	NoReuse                               bool // a new connection for each check
	AlwaysLogFailures, AlwaysLogSuccess   bool
	// Events are the logs that have an event for each change of a host's health, and for what is
	// always logged.
	Events      []CheckLog     `json:",omitempty"`
	ALPN        []string       // instead of the TLS context's
	SocketMatch map[string]any // instead of the endpoints' metadata, nil for that
	HTTP        *HTTPCheck
	TCP         *TCPCheck
	GRPC        *GRPCCheck
}

// CheckLog is the path of a log, and the name of the field that says it, for errors.
type CheckLog struct{ Path, Field string }

// HTTPCheck sends a request. A response with "x-envoy-degraded" makes the host
// degraded, a failing one with "x-envoy-immediate-health-check-fail" takes it out
// of the sums that decide on panic and failover.
type HTTPCheck struct {
	Host   string // the endpoint's or the cluster's name when empty
	Path   string
	Method string // GET when empty
	Body   []byte
	HTTP2  bool
	// ByALPN: what is agreed on by ALPN is spoken, and HTTP2 counts where that is no version of HTTP.
	ByALPN bool `json:",omitempty"`
	// Headers are added after those of Remove (lower case) are taken out.
	Headers []route.HeaderAdd
	Remove  []string
	// Expected statuses pass, [200, 201) when empty. Retriable ones count towards
	// the threshold; any other makes the host unhealthy at once.
	Expected, Retriable []StatusRange
	// ServiceName, when set, must match "x-envoy-upstream-healthchecked-cluster".
	ServiceName *NameMatch
	// Receive must occur in the response's body in this order, without overlap.
	// BodyLimit is how much of it is looked at; 0 for all, up to 1 MiB.
	Receive   [][]byte
	BodyLimit int
}

// StatusRange is [From, To).
type StatusRange struct{ From, To int }

// TCPCheck connects, and with Send writes that and waits until what came back
// has all of Receive in order.
type TCPCheck struct {
	Send    []byte
	Receive [][]byte
	// Announce has a connection begin, within TLS where there is some, with a header of the PROXY
	// protocol: of its own addresses, or in version 2 of nobody (LOCAL).
	Announce Announcement `json:",omitempty"`
}

// GRPCCheck calls grpc.health.v1.Health/Check.
type GRPCCheck struct {
	Service   string
	Authority string // the endpoint's or the cluster's name when empty
	Metadata  []route.HeaderAdd
}

// NameMatch is a string matcher; exactly one of the fields but IgnoreCase is set.
type NameMatch struct {
	Exact, Prefix, Suffix, Contains *string
	Regex                           *regexp.Regexp // of the whole
	IgnoreCase                      bool
}

// Matches tells whether s matches.
func (m *NameMatch) Matches(s string) bool {
	fold := func(p string) string {
		if m.IgnoreCase {
			return strings.ToLower(p)
		}
		return p
	}
	s = fold(s)
	switch {
	case m.Exact != nil:
		return s == fold(*m.Exact)
	case m.Prefix != nil:
		return strings.HasPrefix(s, fold(*m.Prefix))
	case m.Suffix != nil:
		return strings.HasSuffix(s, fold(*m.Suffix))
	case m.Contains != nil:
		return strings.Contains(s, fold(*m.Contains))
	case m.Regex != nil:
		return route.FullMatch(m.Regex, s)
	}
	return false
}
