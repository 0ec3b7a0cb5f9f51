package route

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// Failure is how an attempt ended that brought no response.
type Failure uint8

// The failures.
const (
	// NotConnected: no connection came to be.
	NotConnected Failure = iota
	// Refused: the peer certainly did not process the request (RFC 9113 8.7).
	Refused
	// ResetUnsent: the connection ended before a byte of the request was sent.
	ResetUnsent
	// Reset: the connection ended later, or the attempt's own time was over.
	Reset
)

// Resends tells whether a request may be tried again of which a host has got some. A host
// that refuses may say so then; otherwise what is tried again was not sent.
func (p *RetryPolicy) Resends(req *message.Request, refuses bool) bool {
	on := p.On &^ (RetryConnectFailure | RetryRefusedStream | RetryResetBeforeRequest)
	if refuses {
		on = p.On &^ (RetryConnectFailure | RetryResetBeforeRequest)
	}
	if !req.Idempotent() {
		on &^= RetryResetIdempotent
	}
	return on != 0 && p.NumRetries > 0 && p.Admits(req)
}

const anyReset = Retry5xx | RetryGatewayError | RetryReset

// Admits tells whether a request may be retried at all.
func (p *RetryPolicy) Admits(req *message.Request) bool {
	return len(p.RequestHeaders) == 0 || anyMatches(p.RequestHeaders, req)
}

//go:noinline
func anyMatches(matchers []HeaderMatch, req *message.Request) bool {
	return slices.ContainsFunc(matchers, func(h HeaderMatch) bool { return h.Match(req) })
}

// RetriesFailure tells whether a failure is to be followed by another attempt.
// Envoy counts a reset as a 5xx, which it would answer with.
func (p *RetryPolicy) RetriesFailure(f Failure, idempotent bool) bool {
	on := anyReset
	switch f {
	case NotConnected:
		on |= RetryConnectFailure | RetryResetBeforeRequest
	case Refused: // the request was sent
		on |= RetryRefusedStream
	case ResetUnsent:
		on |= RetryRefusedStream | RetryResetBeforeRequest
	}
	if idempotent {
		on |= RetryResetIdempotent
	}
	return p.On&on != 0
}

// grpcRetries has the condition for each gRPC status.
var grpcRetries = [15]RetryOn{
	1: RetryGRPCCancelled, 4: RetryGRPCDeadlineExceeded, 8: RetryGRPCResourceExhausted,
	13: RetryGRPCInternal, 14: RetryGRPCUnavailable,
}

const anyGRPC = RetryGRPCCancelled | RetryGRPCDeadlineExceeded | RetryGRPCResourceExhausted | RetryGRPCInternal | RetryGRPCUnavailable

// RetriesResponse tells whether a response is to be dropped for another attempt.
// gRPC statuses are looked for in the head only: trailers come too late.
func (p *RetryPolicy) RetriesResponse(r *message.Response) bool {
	if _, limited := r.Fields.Get("x-envoy-ratelimited"); limited {
		return p.On&RetryRateLimited != 0
	}
	switch s := r.Status; {
	case p.On&Retry5xx != 0 && s >= 500 && s <= 599:
		return true
	case p.On&RetryGatewayError != 0 && s >= 502 && s <= 504:
		return true
	case p.On&RetryRetriable4xx != 0 && s == 409:
		return true
	case p.On&RetryStatusCodes != 0 && slices.Contains(p.StatusCodes, s):
		return true
	}
	if p.On&RetryHeaders != 0 && slices.ContainsFunc(p.Headers, func(h HeaderMatch) bool { return h.Match(r) }) {
		return true
	}
	if p.On&anyGRPC == 0 {
		return false
	}
	status, _ := r.Fields.ByID(message.GRPCStatus)
	if status == "" {
		return false
	}
	n, err := strconv.ParseUint(status, 10, 32) // "04" is 4 to Envoy too
	return err == nil && n < uint64(len(grpcRetries)) && p.On&grpcRetries[n] != 0
}

const (
	defaultBackOff        = 25 * time.Millisecond
	defaultRateLimitedMax = 300 * time.Second
)

// BackOff is how long to wait before the attempt after the n-th: a random part of
// a window that doubles each time, so that clients that failed together do not come
// back together.
func (p *RetryPolicy) BackOff(n int) time.Duration {
	base := p.BackOffBase
	if base <= 0 {
		base = defaultBackOff
	}
	most := p.BackOffMax
	if most <= 0 {
		most = 10 * min(base, math.MaxInt64/10-1)
	}
	window := most
	if times := time.Duration(1) << (min(max(n, 1), 20) - 1); base < most/times {
		window = base * times
	}
	return time.Duration(rand.Int64N(int64(window) + 1))
}

// RateLimitedBackOff is the wait that a response asks for, with up to half of it
// more by chance; false when it asks for none.
func (p *RetryPolicy) RateLimitedBackOff(r *message.Response, now time.Time) (time.Duration, bool) {
	if p.RateLimited == nil {
		return 0, false
	}
	most := p.RateLimited.Max
	if most <= 0 {
		most = defaultRateLimitedMax
	}
	for i := range p.RateLimited.Headers {
		d, ok := p.RateLimited.Headers[i].interval(r, now)
		if ok && d <= most && d > time.Millisecond {
			return d + rand.N(d/2), true
		}
	}
	return 0, false
}

func (h *ResetHeader) interval(r *message.Response, now time.Time) (time.Duration, bool) {
	v, ok := r.HeaderValue(h.Name, 0)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		return 0, false
	}
	if h.Unix {
		at := uint64(max(now.Unix(), 0))
		if n < at {
			return 0, false
		}
		n -= at
	}
	const longest = 1 << 32 // a number of seconds that a Duration holds
	return time.Duration(min(n, longest)) * time.Second, true
}
