package render

import (
	"slices"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hauberk-mesh/hauberk/controlplane/compile"
	"github.com/hauberk-mesh/hauberk/xds/names"
)

// safeRetries are the conditions under which the upstream has seen nothing of
// the request, so that any request may be tried again.
var safeRetries = []string{"connect-failure", "refused-stream", "reset-before-request"}

// Other conditions that a route may declare: those that any HTTP client of ours
// knows, and those of gRPC.
var (
	declaredRetries = []string{"5xx", "gateway-error", "reset", "retriable-4xx"}
	grpcRetries     = []string{"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"}
)

// rateLimitedRetry is for an answer of a rate limit, which other conditions leave alone.
const rateLimitedRetry = "envoy-ratelimited"

const (
	safeRetryCount     = 2
	declaredRetryCount = 1 // Envoy's and Consul's, where a route declares conditions but no number
	retryBackOff       = 25 * time.Millisecond
	retryBackOffMax    = 250 * time.Millisecond
	// How often a retry chooses a host again that was tried. Our sidecar finds one that
	// was not, whatever the weights, in a cluster that has no more hosts than this.
	envoyReselections = 3
	meshReselections  = 100
)

// localRetries is the policy towards a workload's own application, which is one
// host: an idle connection that the application just closed fails no request.
func localRetries() *routev3.RetryPolicy {
	return &routev3.RetryPolicy{
		RetryOn:      strings.Join(safeRetries, ","),
		NumRetries:   u32(safeRetryCount),
		RetryBackOff: &routev3.RetryPolicy_RetryBackOff{BaseInterval: duration(retryBackOff), MaxInterval: duration(retryBackOffMax)},
	}
}

// defaultRetries is the policy of every outbound route that declares nothing:
// what the upstream has not seen, and, where the client can tell them apart,
// idempotent requests that it may have seen.
func defaultRetries(client Client) *routev3.RetryPolicy {
	p := localRetries()
	if client.Dialect != Envoy && client.Can(names.CapRetries) {
		p.RetryOn += "," + names.RetryResetIdempotent
	}
	p.RetryHostPredicate = []*routev3.RetryPolicy_RetryHostPredicate{{
		Name:       "envoy.retry_host_predicates.previous_hosts",
		ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: previousHosts},
	}}
	if p.HostSelectionRetryMaxAttempts = meshReselections; client.Dialect == Envoy {
		p.HostSelectionRetryMaxAttempts = envoyReselections
	}
	return p
}

var previousHosts = mustAny(&previoushostsv3.PreviousHostsPredicate{})

func (b *chainBuilder) retries(r *compile.Route) *routev3.RetryPolicy {
	p := defaultRetries(b.client)
	d := r.Destination
	if d == nil || d.NumRetries == 0 && !d.RetryOnConnectFailure && len(d.RetryOnStatusCodes) == 0 && len(d.RetryOn) == 0 {
		return p
	}
	on := strings.Split(p.RetryOn, ",")
	own := len(on)
	for _, condition := range d.RetryOn {
		condition = strings.ToLower(strings.TrimSpace(condition))
		if b.retryCondition(r, condition) && !slices.Contains(on, condition) {
			on = append(on, condition)
		}
	}
	if len(d.RetryOnStatusCodes) > 0 {
		on = append(on, "retriable-status-codes")
		p.RetriableStatusCodes = slices.Compact(slices.Sorted(slices.Values(d.RetryOnStatusCodes)))
	}
	p.RetryOn = strings.Join(on, ",")
	switch {
	case d.NumRetries > 0:
		p.NumRetries = wrapperspb.UInt32(d.NumRetries)
	case len(on) > own:
		p.NumRetries = u32(declaredRetryCount)
	}
	return p
}

func (b *chainBuilder) retryCondition(r *compile.Route, condition string) bool {
	where := r.Origin + " Destination.RetryOn"
	switch {
	case slices.Contains(safeRetries, condition), slices.Contains(declaredRetries, condition):
		return true
	case slices.Contains(grpcRetries, condition):
		return !b.lacks(names.CapHTTP2, where, condition+" is a gRPC status, which this sidecar does not read; it does not retry on it")
	case condition == rateLimitedRetry:
		return !b.lacks(names.CapRetryRateLimited, where, "this sidecar does not retry on "+condition+"; upgrade it")
	}
	b.problem(where, "%q is not a condition; it has no effect", condition)
	return false
}
