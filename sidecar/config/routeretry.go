package config

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	omitcanaryv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/omit_canary_hosts/v3"
	omitmetadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/omit_host_metadata/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/xds/names"
)

var retryConditions = map[string]route.RetryOn{
	"5xx":                    route.Retry5xx,
	"gateway-error":          route.RetryGatewayError,
	"reset":                  route.RetryReset,
	"reset-before-request":   route.RetryResetBeforeRequest,
	"connect-failure":        route.RetryConnectFailure,
	"refused-stream":         route.RetryRefusedStream,
	"retriable-4xx":          route.RetryRetriable4xx,
	"retriable-status-codes": route.RetryStatusCodes,
	"retriable-headers":      route.RetryHeaders,
	"envoy-ratelimited":      route.RetryRateLimited,
	"cancelled":              route.RetryGRPCCancelled,
	"deadline-exceeded":      route.RetryGRPCDeadlineExceeded,
	"internal":               route.RetryGRPCInternal,
	"resource-exhausted":     route.RetryGRPCResourceExhausted,
	"unavailable":            route.RetryGRPCUnavailable,
	// No upstream is asked over HTTP/3, so the condition never arises.
	"http3-post-connect-failure": 0,

	names.RetryResetIdempotent: route.RetryResetIdempotent,
}

// notACondition says what to write in place of a word that Envoy would ignore, with a
// warning, and that its author took for a condition.
func notACondition(word string) string {
	if n, err := strconv.Atoi(word); err == nil && n >= 100 && n <= 599 {
		return fmt.Sprintf("%q is no condition: write retriable-status-codes, and the status into retriable_status_codes", word)
	}
	return fmt.Sprintf("unsupported condition %q, which an Envoy would ignore; the conditions are %s",
		word, strings.Join(slices.Sorted(maps.Keys(retryConditions)), ", "))
}

func retryPolicy(m *routev3.RetryPolicy, path string) (*route.RetryPolicy, error) {
	if m == nil {
		return nil, nil
	}
	out := &route.RetryPolicy{NumRetries: 1}
	for word := range strings.SplitSeq(m.GetRetryOn(), ",") {
		word = strings.TrimSpace(word)
		c, ok := retryConditions[word]
		if !ok && word != "" {
			return nil, fail(path+".retry_on", "%s", notACondition(word))
		}
		out.On |= c
	}
	if n := m.GetNumRetries(); n != nil {
		out.NumRetries = n.GetValue()
	}
	for i, c := range m.GetRetriableStatusCodes() {
		if c < 100 || c > 599 {
			return nil, fail(at(path+".retriable_status_codes", i), "%d is not a status code", c)
		}
		out.StatusCodes = append(out.StatusCodes, int(c))
	}
	var err error
	if out.Headers, err = headerMatches(m.GetRetriableHeaders(), path+".retriable_headers"); err != nil {
		return nil, err
	}
	if out.RequestHeaders, err = headerMatches(m.GetRetriableRequestHeaders(), path+".retriable_request_headers"); err != nil {
		return nil, err
	}
	if out.PerTryTimeout, err = duration(m.GetPerTryTimeout(), path+".per_try_timeout"); err != nil {
		return nil, err
	}
	if out.PerTryIdleTimeout, err = duration(m.GetPerTryIdleTimeout(), path+".per_try_idle_timeout"); err != nil {
		return nil, err
	}
	for i, p := range m.GetRetryHostPredicate() {
		if err := hostPredicate(p, out, at(path+".retry_host_predicate", i)); err != nil {
			return nil, err
		}
	}
	if out.OtherPriorities, err = otherPriorities(m.GetRetryPriority(), path+".retry_priority"); err != nil {
		return nil, err
	}
	switch n := m.GetHostSelectionRetryMaxAttempts(); {
	case n < 0:
		return nil, fail(path+".host_selection_retry_max_attempts", "is %d", n)
	case n == 0:
		out.Reselections = 1
	default:
		out.Reselections = int(min(n, math.MaxInt))
	}
	return out, retryBackOff(m, out, path)
}

// lbNamespace has what endpoints are chosen by.
const lbNamespace = "envoy.lb"

// hostPredicate reads which hosts a retry is to avoid.
func hostPredicate(p *routev3.RetryPolicy_RetryHostPredicate, out *route.RetryPolicy, path string) error {
	if p.GetTypedConfig() == nil {
		return fail(path+".typed_config", "is missing")
	}
	m, err := p.GetTypedConfig().UnmarshalNew()
	if err != nil {
		return fail(path+".typed_config", "%v", err)
	}
	switch m := m.(type) {
	case *previoushostsv3.PreviousHostsPredicate:
		out.AvoidTried = true
	case *omitcanaryv3.OmitCanaryHostsPredicate:
		out.OmitCanary = true
	case *omitmetadatav3.OmitHostMetadataConfig:
		for namespace := range m.GetMetadataMatch().GetFilterMetadata() {
			if namespace != lbNamespace {
				return fail(under(path+".typed_config.metadata_match.filter_metadata", namespace), "hosts are omitted by %q alone", lbNamespace)
			}
		}
		// Without a label no host is omitted, as in Envoy.
		if all := m.GetMetadataMatch().GetFilterMetadata()[lbNamespace].AsMap(); len(all) > 0 {
			out.OmitMetadata = append(out.OmitMetadata, all)
		}
	default:
		return fail(path+".typed_config", "unsupported predicate %T", m)
	}
	return nil
}

// otherPriorities reads after how many attempts each a retry is to go to another priority.
func otherPriorities(p *routev3.RetryPolicy_RetryPriority, path string) (int, error) {
	if p == nil {
		return 0, nil
	}
	if p.GetTypedConfig() == nil {
		return 0, fail(path+".typed_config", "is missing")
	}
	m, err := p.GetTypedConfig().UnmarshalNew()
	if err != nil {
		return 0, fail(path+".typed_config", "%v", err)
	}
	c, ok := m.(*previousprioritiesv3.PreviousPrioritiesConfig)
	if !ok {
		return 0, fail(path+".typed_config", "unsupported retry priority %T", m)
	}
	if c.GetUpdateFrequency() <= 0 {
		return 0, fail(path+".typed_config.update_frequency", "must be at least 1")
	}
	return int(c.GetUpdateFrequency()), nil
}

func hedgePolicy(m *routev3.HedgePolicy) *route.HedgePolicy {
	if m == nil {
		return nil
	}
	return &route.HedgePolicy{OnPerTryTimeout: m.GetHedgeOnPerTryTimeout()}
}

func retryBackOff(m *routev3.RetryPolicy, out *route.RetryPolicy, path string) (err error) {
	if b := m.GetRetryBackOff(); b != nil {
		here := path + ".retry_back_off"
		if out.BackOffBase, err = duration(b.GetBaseInterval(), here+".base_interval"); err != nil {
			return err
		}
		if out.BackOffMax, err = duration(b.GetMaxInterval(), here+".max_interval"); err != nil {
			return err
		}
		if out.BackOffMax != 0 && out.BackOffMax < out.BackOffBase {
			return fail(here+".max_interval", "is less than base_interval")
		}
	}
	b := m.GetRateLimitedRetryBackOff()
	if b == nil {
		return nil
	}
	here := path + ".rate_limited_retry_back_off"
	out.RateLimited = &route.RateLimitedBackOff{}
	for i, h := range b.GetResetHeaders() {
		switch h.GetFormat() {
		case routev3.RetryPolicy_SECONDS, routev3.RetryPolicy_UNIX_TIMESTAMP:
		default:
			return fail(at(here+".reset_headers", i)+".format", "unknown value %d", h.GetFormat())
		}
		out.RateLimited.Headers = append(out.RateLimited.Headers, route.ResetHeader{
			Name: strings.ToLower(h.GetName()), Unix: h.GetFormat() == routev3.RetryPolicy_UNIX_TIMESTAMP,
		})
	}
	out.RateLimited.Max, err = duration(b.GetMaxInterval(), here+".max_interval")
	return err
}
