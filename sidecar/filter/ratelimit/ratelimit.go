// Package ratelimit limits requests by token buckets of this process
// (envoy.filters.http.local_ratelimit).
package ratelimit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/tokenbucket"
	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Config is envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit.
type Config struct {
	StatPrefix string
	Status     int // 429 when below 400
	// Bucket is nil where only routes limit.
	Bucket *tokenbucket.Spec
	// Enabled is the share of the requests that takes tokens, Enforced the share of
	// those without a token that is refused.
	Enabled, Enforced route.Share
	// RequestAdd is for requests that are over the limit and not refused,
	// ResponseAdd for the answers to those that are.
	RequestAdd, ResponseAdd []route.HeaderAdd
	// PerConnection gives each connection a bucket of its own.
	PerConnection bool
	// XRateLimit tells clients of the limit (draft-polli-ratelimit-headers-03).
	XRateLimit bool
	// ResourceExhausted is the gRPC status instead of Unavailable.
	ResourceExhausted bool
	// RetryAfter says when there is a token again, with a 429.
	RetryAfter bool
}

// Filter is the filter of one chain.
type Filter struct {
	limit *limit
	count filter.Counter
}

// limit is one configuration with its bucket.
type limit struct {
	*Config
	shared                                *tokenbucket.Bucket // nil for none, or one per connection
	request, response                     route.Mutations
	reply                                 filter.Reply
	enabled, ok, limited, enforcedCounter *telemetry.Counter
}

// New makes a filter; count may be nil.
func New(c *Config, count filter.Counter) (*Filter, error) {
	l, err := newLimit(c, count)
	return &Filter{l, count}, err
}

func newLimit(c *Config, count filter.Counter) (*limit, error) {
	l := &limit{Config: c, reply: filter.Reply{
		Status: c.Status, Body: "local_rate_limited", GRPC: filter.NoGRPC, Details: "local_rate_limited", Flags: telemetry.FlagRateLimited,
	}}
	if l.reply.Status < 400 {
		l.reply.Status = 429
	}
	if c.ResourceExhausted {
		l.reply.GRPC = 8
	}
	var err error
	if l.request, err = route.NewMutations(steps(c.RequestAdd)); err != nil {
		return nil, fmt.Errorf("local rate limit: %w", err)
	}
	if l.response, err = route.NewMutations(steps(c.ResponseAdd)); err != nil {
		return nil, fmt.Errorf("local rate limit: %w", err)
	}
	if b := c.Bucket; b != nil {
		if b.Max == 0 || b.PerFill == 0 || b.Interval <= 0 {
			return nil, errors.New("local rate limit: a token bucket needs a size, a fill and an interval")
		}
		if !c.PerConnection {
			l.shared = tokenbucket.New(*b)
		}
	}
	l.enabled, l.ok = count.Of("enabled"), count.Of("ok")
	l.limited, l.enforcedCounter = count.Of("rate_limited"), count.Of("enforced")
	return l, nil
}

func steps(adds []route.HeaderAdd) []route.HeaderMutation {
	var out []route.HeaderMutation
	for i := range adds {
		out = append(out, route.HeaderMutation{Add: &adds[i]})
	}
	return out
}

// Override implements filter.Overrider: a route's limit has a bucket of its own and
// replaces the filter's.
func (f *Filter) Override(config any) (any, error) {
	c, ok := config.(*Config)
	switch {
	case !ok:
		return nil, fmt.Errorf("local rate limit: the route's configuration is a %T", config)
	case c.Bucket == nil:
		return nil, errors.New("local rate limit: a route's limit needs a token bucket")
	}
	return newLimit(c, f.count)
}

// Request implements filter.Filter.
func (f *Filter) Request(c *filter.Context) filter.Verdict {
	l := f.limit
	if o, ok := c.Override().(*limit); ok {
		l = o
	}
	if l.Bucket == nil || !l.Enabled.Holds(rand.Uint32()) {
		return filter.Continue
	}
	l.enabled.Inc(c.Shard)
	b := l.shared
	if b == nil {
		b = c.Connection(l, func() any { return tokenbucket.New(*l.Bucket) }).(*tokenbucket.Bucket)
	}
	c.State.Config = l
	if b.Take() {
		l.ok.Inc(c.Shard)
		return filter.Continue
	}
	l.limited.Inc(c.Shard)
	if !l.Enforced.Holds(rand.Uint32()) {
		l.request.Apply(&c.Request.Fields, c, c.Scratch)
		return filter.Continue
	}
	l.enforcedCounter.Inc(c.Shard)
	c.State.Value = 1
	return filter.Answer(&l.reply)
}

// Response implements filter.Filter.
func (f *Filter) Response(c *filter.Context) {
	l, ok := c.State.Config.(*limit)
	if !ok {
		return
	}
	fields := &c.Response.Fields
	refused := c.State.Value == 1
	if refused {
		l.response.Apply(fields, c, c.Scratch)
	}
	if !l.XRateLimit && !(refused && l.RetryAfter) {
		return
	}
	b := l.shared
	if b == nil {
		b = c.Connection(l, func() any { return tokenbucket.New(*l.Bucket) }).(*tokenbucket.Bucket)
	}
	tokens, next := b.Left()
	if l.XRateLimit {
		add(c, fields, "x-ratelimit-limit", int64(l.Bucket.Max))
		add(c, fields, "x-ratelimit-remaining", int64(tokens))
		add(c, fields, "x-ratelimit-reset", int64(next/time.Second))
	}
	if refused && l.RetryAfter && l.reply.Status == 429 && !fields.Has(message.RetryAfter) {
		add(c, fields, "retry-after", max(1, int64((next+time.Second-1)/time.Second)))
	}
}

func add(c *filter.Context, f *message.Fields, name string, n int64) {
	*c.Scratch = strconv.AppendInt((*c.Scratch)[:0], n, 10)
	f.AddBytes(name, *c.Scratch)
}
