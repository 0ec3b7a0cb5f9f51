// Package ratelimit limits requests by token buckets of this process
// (envoy.filters.http.local_ratelimit): one for all, and those of descriptors, by which
// routes say what a request is.
package ratelimit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
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
	// Bucket is the default token bucket, nil where only descriptors or routes limit.
	Bucket *tokenbucket.Spec
	// Enabled is the share of the requests that takes tokens, Enforced the share of
	// those without a token that is refused.
	Enabled, Enforced route.Share
	// RequestAdd is for requests that are over the limit and not refused,
	// ResponseAdd for the answers to those that are.
	RequestAdd, ResponseAdd []route.HeaderAdd
	// PerConnection gives each connection buckets of its own: those of the first limit that
	// it meets, for all of its limits.
	PerConnection bool
	// Shared: the limits are those of the whole local cluster, of which each of its hosts has an
	// equal share: a request takes as many tokens as there are hosts. Not with PerConnection.
	Shared bool `json:",omitempty"`
	// XRateLimit tells clients of the limit (draft-polli-ratelimit-headers-03).
	XRateLimit bool
	// ResourceExhausted is the gRPC status instead of Unavailable.
	ResourceExhausted bool
	// RetryAfter says when there is a token again, with a 429.
	RetryAfter bool

	// Descriptors are those of requests that have buckets of their own. A request takes
	// a token of each that it matches, and then of Bucket; with DefaultForUnmatched only
	// when it matches none.
	Descriptors         []Descriptor
	DefaultForUnmatched bool
	// MaxDynamic is how many buckets a wildcard descriptor has, at least 1.
	MaxDynamic int
	// RateLimits describe requests, and have no stage. Without them those of routes of the
	// same Stage do, and of virtual hosts as HostRateLimits says.
	RateLimits     []route.RateLimit
	Stage          uint32
	HostRateLimits route.HostRateLimits
}

// Place is where limits are.
type Place struct {
	// Source is the cluster that this node belongs to.
	Source string
	// Members is how many hosts the local cluster has; nil where there is none.
	Members func() int
}

// Filter is the filter of one chain.
type Filter struct {
	limit *limit
	place Place
	count filter.Counter
}

// limit is one configuration with its buckets.
type limit struct {
	*Config
	Place
	hits                                  []*telemetry.Format // of RateLimits, nil where they have a number
	shared                                *buckets            // nil where connections have them
	fresh                                 func() any          // *buckets, for a connection
	request, response                     route.Changes
	reply                                 filter.Reply
	enabled, ok, limited, enforcedCounter *telemetry.Counter
	shadowed                              *telemetry.Counter
}

// New makes a filter; count may be nil.
func New(c *Config, p Place, count filter.Counter) (*Filter, error) {
	l, err := newLimit(c, p, count)
	return &Filter{l, p, count}, err
}

func newLimit(c *Config, p Place, count filter.Counter) (*limit, error) {
	l := &limit{Config: c, Place: p, hits: make([]*telemetry.Format, len(c.RateLimits)), reply: filter.Reply{
		Status: c.Status, Body: "local_rate_limited", GRPC: filter.NoGRPC, Details: "local_rate_limited",
		Flags: telemetry.FlagRateLimited, LateFlags: true,
	}}
	if l.reply.Status < 400 {
		l.reply.Status = 429
	}
	if c.ResourceExhausted {
		l.reply.GRPC = 8
	}
	var err error
	if l.request, err = route.NewChanges(nil, c.RequestAdd, message.RequestSingles); err != nil {
		return nil, fmt.Errorf("local rate limit: %w", err)
	}
	if l.response, err = route.NewChanges(nil, c.ResponseAdd, message.ResponseSingles); err != nil {
		return nil, fmt.Errorf("local rate limit: %w", err)
	}
	l.reply.Headers = func(c *filter.Context) { l.response.Apply(&c.Response.Fields, c, c.Scratch) }
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("local rate limit: %w", err)
	}
	for i := range c.RateLimits {
		f := c.RateLimits[i].HitsFormat
		if f == "" {
			continue
		}
		if l.hits[i], err = CompileHits(f); err != nil {
			return nil, fmt.Errorf("local rate limit: hits: %w", err)
		}
	}
	if c.Shared && p.Members == nil {
		return nil, errors.New("local rate limit: the limit is one of the local cluster, and there is none")
	}
	if l.fresh = func() any { return newBuckets(c) }; !c.PerConnection {
		l.shared = newBuckets(c)
	}
	l.enabled, l.ok = count.Of("enabled"), count.Of("ok")
	l.limited, l.enforcedCounter = count.Of("rate_limited"), count.Of("enforced")
	l.shadowed = count.Of("shadow_mode")
	return l, nil
}

// Check tells whether every bucket is whole and every descriptor is there once.
func (c *Config) Check() error {
	seen := map[string]bool{}
	if b := c.Bucket; b != nil && !whole(b) {
		return errPartial
	}
	for i := range c.Descriptors {
		d := &c.Descriptors[i]
		if !whole(&d.Bucket) {
			return fmt.Errorf("descriptor %s: %w", d, errPartial)
		}
		if seen[d.encoded()] {
			return fmt.Errorf("descriptor %s is there twice", d)
		}
		seen[d.encoded()] = true
	}
	return nil
}

// CompileHits reads a format of hits, which is one operator.
func CompileHits(text string) (*telemetry.Format, error) {
	f, err := telemetry.ParseFormat(text)
	if err == nil && !f.Single() {
		err = errors.New("is not one operator")
	}
	return f, err
}

var errPartial = errors.New("a token bucket needs a fill and an interval")

func whole(b *tokenbucket.Spec) bool { return b.PerFill > 0 && b.Interval > 0 }

// Inherit implements filter.Heir: an update fills no bucket that is as it was.
func (f *Filter) Inherit(before any) {
	if b, ok := before.(*Filter); ok {
		f.limit.Inherit(b.limit)
	}
}

// Inherit implements filter.Heir for a route's limit.
func (l *limit) Inherit(before any) {
	b, ok := before.(*limit)
	if !ok || l.shared == nil || b.shared == nil {
		return
	}
	if reflect.DeepEqual(l.Bucket, b.Bucket) && reflect.DeepEqual(l.Descriptors, b.Descriptors) &&
		l.DefaultForUnmatched == b.DefaultForUnmatched && l.MaxDynamic == b.MaxDynamic {
		l.shared = b.shared
	}
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
	return newLimit(c, f.place, f.count)
}

// Request implements filter.Filter.
func (f *Filter) Request(c *filter.Context) filter.Verdict {
	l := f.limit
	if o, ok := c.Override().(*limit); ok {
		l = o
	}
	if !l.Enabled.Holds(rand.Uint32()) {
		return filter.Continue
	}
	l.enabled.Inc(c.Shard)
	over := l.take(c)
	if over == nil {
		l.ok.Inc(c.Shard)
		return filter.Continue
	}
	l.limited.Inc(c.Shard)
	if over.shadow {
		l.shadowed.Inc(c.Shard)
		return filter.Continue
	}
	if !l.Enforced.Holds(rand.Uint32()) {
		l.request.Apply(&c.Request.Fields, c, c.Scratch)
		return filter.Continue
	}
	l.enforcedCounter.Inc(c.Shard)
	if l.RetryAfter && l.reply.Status == 429 {
		c.State.Value |= noteRetryAfter
	}
	return filter.Answer(&l.reply)
}

// What State.Value notes beside the bucket in State.Config.
const (
	noteRetryAfter = 1 << iota // the answer says when there is a token again
	noteTold                   // of the limit, by x-ratelimit headers
)

// ofConnection is the key of a connection's buckets. It is one for all limits, as in Envoy:
// of two filters, or a filter and a route, the one that a connection meets first says how
// much it may.
type ofConnection struct{}

// take takes a token of each bucket that the request has to ask, until one that is no
// shadow has none. It gives the one that had none, a shadow only where it was no other, or
// nil. That one, or else the first, is noted for the response.
func (l *limit) take(c *filter.Context) (over *bucket) {
	s := l.shared
	if s == nil {
		s = c.Connection(ofConnection{}, l.fresh).(*buckets)
	}
	var room [8]claim
	claims := l.claims(c, s, room[:0])
	if s.defaultBucket != nil && (len(claims) == 0 || !s.defaultForUnmatched) {
		claims = append(claims, claim{bucket: s.defaultBucket, hits: 1})
	}
	shares := 1
	if l.Shared {
		shares = max(1, l.Members())
	}
	told := 0
	for i := range claims {
		if claims[i].take(shares) {
			continue
		}
		if !claims[i].shadow {
			claims[i].note(c, l)
			return claims[i].bucket
		}
		if over == nil {
			over, told = claims[i].bucket, i
		}
	}
	if len(claims) > 0 {
		claims[told].note(c, l)
	}
	return over
}

// take takes the claim's tokens, or gives them back, which are those of this host alone. What takes
// nothing is refused, as by Envoy.
func (b *claim) take(shares int) bool {
	n := float64(b.hits)
	if b.refund {
		b.Give(n)
		return true
	}
	return n > 0 && b.TakeSome(n*float64(shares))
}

func (b *claim) note(c *filter.Context, l *limit) {
	c.State.Config = b.bucket
	if b.headers == route.RateLimitHeadersOn || b.headers == route.RateLimitHeadersOfFilter && l.XRateLimit {
		c.State.Value |= noteTold
	}
}

// Response implements filter.Filter.
func (f *Filter) Response(c *filter.Context) {
	b, ok := c.State.Config.(*bucket)
	if !ok {
		return
	}
	fields := &c.Response.Fields
	tell, retryAfter := c.State.Value&noteTold != 0, c.State.Value&noteRetryAfter != 0
	if b.untold || !tell && !retryAfter {
		return
	}
	tokens, next := b.Left()
	if tell {
		add(c, fields, "x-ratelimit-limit", int64(b.size))
		add(c, fields, "x-ratelimit-remaining", int64(tokens))
		add(c, fields, "x-ratelimit-reset", seconds(next))
	}
	if retryAfter && !fields.Has(message.RetryAfter) {
		add(c, fields, "retry-after", max(1, seconds(next)))
	}
}

// seconds rounds up what is left of milliseconds, as Envoy does.
func seconds(d time.Duration) int64 {
	return int64((d.Truncate(time.Millisecond) + time.Second - 1) / time.Second)
}

func add(c *filter.Context, f *message.Fields, name string, n int64) {
	*c.Scratch = strconv.AppendInt((*c.Scratch)[:0], n, 10)
	f.AddBytes(name, *c.Scratch)
}
