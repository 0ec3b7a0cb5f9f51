//go:build e2e

package differential

import (
	"math/rand/v2"
	"strings"
)

var retryConditions = []string{"5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited", "retriable-4xx",
	"refused-stream", "retriable-status-codes", "retriable-headers", "http3-post-connect-failure",
	"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"}

// retryOn is a list of conditions, of which the frequent ones are wanted more often.
func retryOn(r *rand.Rand) string {
	var on []string
	for range r.IntN(4) {
		on = append(on, one(r, retryConditions...))
	}
	if chance(r, 3) {
		on = append(on, one(r, "5xx", "5xx", "reset", "gateway-error", "retriable-status-codes", "retriable-headers"))
	}
	return strings.Join(on, one(r, ",", ",", ", ", " ,", ",,"))
}

func retryPolicy(r *rand.Rand) map[string]any {
	p := map[string]any{"retry_on": retryOn(r), "retry_back_off": map[string]any{"base_interval": one(r, "0.001s", "0.005s", "0.0005s"), "max_interval": "0.01s"}}
	switch r.IntN(6) {
	case 0: // the default
	case 1:
		p["num_retries"] = 0
	case 2, 3:
		p["num_retries"] = 1
	case 4:
		p["num_retries"] = 2
	case 5:
		p["num_retries"] = 4
	}
	if chance(r, 3) {
		p["per_try_timeout"] = one(r, shortTry, shortTry, longTry, "0s")
	}
	if chance(r, 4) {
		p["per_try_idle_timeout"] = one(r, shortTry, longTry, "0s")
		if p["per_try_idle_timeout"] == p["per_try_timeout"] {
			delete(p, "per_try_timeout")
		}
	}
	if chance(r, 2) {
		p["retriable_status_codes"] = one(r, []any{418}, []any{200}, []any{503, 404}, []any{503, 503}, []any{100, 599}, []any{302})
	}
	if chance(r, 2) {
		p["retriable_headers"] = retriableHeaders(r)
	}
	if chance(r, 5) {
		p["retriable_request_headers"] = retriableHeaders(r)
	}
	if chance(r, 5) {
		p["rate_limited_retry_back_off"] = rateLimitedBackOff(r)
	}
	if chance(r, 3) {
		// One that is not below the number of hosts has the sidecar find one that was not tried.
		p["retry_host_predicate"], p["host_selection_retry_max_attempts"] = hostPredicates(r), one(r, 0, 1)
	}
	if chance(r, 4) {
		p["retry_priority"] = map[string]any{"name": "envoy.retry_priorities.previous_priorities", "typed_config": map[string]any{
			"@type": apiType + "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig", "update_frequency": one(r, 1, 1, 2, 3)}}
	}
	return p
}

// retriableHeaders look at x-retry, which hosts and clients send.
func retriableHeaders(r *rand.Rand) (out []any) {
	for range 1 + r.IntN(2) {
		m := map[string]any{"name": one(r, "x-retry", "X-Retry", "x-none", ":status", "grpc-status")}
		switch r.IntN(6) {
		case 0:
			m["present_match"] = !chance(r, 3)
		case 1:
			m["string_match"] = map[string]any{"exact": one(r, "1", "a", "503", "14")}
		case 2:
			m["string_match"] = map[string]any{one(r, "prefix", "suffix", "contains"): one(r, "a", "5", "1"), "ignore_case": chance(r, 2)}
		case 3:
			m["range_match"] = map[string]any{"start": one(r, -1, 0, 500), "end": one(r, 1, 2, 599)}
		case 4:
			m["string_match"] = map[string]any{"safe_regex": map[string]any{"regex": one(r, "1|a", "5..", "[^a]")}}
		case 5: // it is there
		}
		if chance(r, 4) {
			m["invert_match"] = true
		}
		if chance(r, 5) {
			m["treat_missing_header_as_empty"] = true
		}
		out = append(out, m)
	}
	return out
}

func rateLimitedBackOff(r *rand.Rand) map[string]any {
	var headers []any
	for range 1 + r.IntN(2) {
		headers = append(headers, map[string]any{"name": one(r, "retry-after", "Retry-After", "x-reset"), "format": one(r, "SECONDS", "UNIX_TIMESTAMP")})
	}
	return map[string]any{"reset_headers": headers, "max_interval": one(r, "0.5s", "0.001s", "5s")}
}

func hostPredicates(r *rand.Rand) (out []any) {
	for range 1 + r.IntN(2) {
		switch r.IntN(4) {
		case 0, 1:
			out = append(out, map[string]any{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": map[string]any{
				"@type": apiType + "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}})
		case 2:
			out = append(out, map[string]any{"name": "envoy.retry_host_predicates.omit_canary_hosts", "typed_config": map[string]any{
				"@type": apiType + "extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate"}})
		case 3:
			labels := map[string]any{"hash_key": one(r, "origin", "other", "third", "refused")}
			if chance(r, 3) {
				labels["none"] = "x"
			}
			out = append(out, map[string]any{"name": "envoy.retry_host_predicates.omit_host_metadata", "typed_config": map[string]any{
				"@type":          apiType + "extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig",
				"metadata_match": map[string]any{"filter_metadata": map[string]any{"envoy.lb": labels}}}})
		}
	}
	return out
}
