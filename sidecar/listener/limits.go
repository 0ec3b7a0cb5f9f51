package listener

import (
	"maps"
	"reflect"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/hauberk-mesh/hauberk/internal/tokenbucket"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// connectionLimit counts the connections of a filter chain.
type connectionLimit struct {
	cfg  *ConnectionLimit
	open *atomic.Int64 // also those of the chain that this one replaced
}

// rateLimit bounds how quickly connections come to a filter chain.
type rateLimit struct {
	cfg    *RateLimit
	bucket *tokenbucket.Bucket
}

// limit makes the limits of the chain. One that replaces another goes on with its counts,
// by the place of a limit and its prefix, and with the tokens of a bucket that is as it
// was.
func (c *chain) limit(old *chain, shared *sharedBuckets) {
	for i := range c.cfg.ConnectionLimits {
		l := &connectionLimit{cfg: &c.cfg.ConnectionLimits[i]}
		if old != nil && i < len(old.limits) && old.limits[i].cfg.StatPrefix == l.cfg.StatPrefix {
			l.open = old.limits[i].open
		} else {
			l.open = new(atomic.Int64)
		}
		c.limits = append(c.limits, l)
	}
	for i := range c.cfg.RateLimits {
		r := &rateLimit{cfg: &c.cfg.RateLimits[i]}
		if old != nil && i < len(old.rates) && *old.rates[i].cfg == *r.cfg {
			r.bucket = old.rates[i].bucket
		} else {
			r.bucket = shared.of(r.cfg)
		}
		c.rates = append(c.rates, r)
	}
}

// sharedBuckets are those that chains of any listener have in common, for as long as one has them.
// The zero value is ready, and safe for concurrent use.
type sharedBuckets struct {
	mu      sync.Mutex
	buckets map[sharedBucket]weak.Pointer[tokenbucket.Bucket]
}

type sharedBucket struct {
	name string
	spec tokenbucket.Spec
}

// of is the bucket of a rate: a new one where nobody shares it.
func (s *sharedBuckets) of(cfg *RateLimit) *tokenbucket.Bucket {
	if cfg.Share == "" {
		return tokenbucket.New(cfg.Bucket)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := sharedBucket{cfg.Share, cfg.Bucket}
	if b := s.buckets[key].Value(); b != nil {
		return b
	}
	maps.DeleteFunc(s.buckets, func(_ sharedBucket, b weak.Pointer[tokenbucket.Bucket]) bool { return b.Value() == nil })
	if s.buckets == nil {
		s.buckets = map[sharedBucket]weak.Pointer[tokenbucket.Bucket]{}
	}
	b := tokenbucket.New(cfg.Bucket)
	s.buckets[key] = weak.Make(b)
	return b
}

// heritage is what the chains of a snapshot have from those of the one before it, each
// from another.
type heritage struct {
	before *snapshot // nil for none
	taken  map[*chain]bool
}

// of is the chain that one of this configuration replaces, by its name, or as what matches
// the same where it has none; nil for none.
func (h *heritage) of(cfg *FilterChain, index int) *chain {
	if h.before == nil {
		return nil
	}
	for _, c := range h.before.chains {
		switch {
		case h.taken[c], (c.index < 0) != (index < 0), c.cfg.Name != cfg.Name:
		case index < 0, cfg.Name != "", reflect.DeepEqual(c.cfg.Match, cfg.Match):
			h.taken[c] = true
			return c
		}
	}
	return nil
}

// excess is why a connection gets no place in its chain's limits, and when it is closed.
type excess struct {
	reason string // empty where it got one
	delay  time.Duration
}

// note has a record tell.
func (e excess) note(r *telemetry.Record) {
	if e.reason == "rate_limit" {
		r.Flags |= telemetry.FlagRateLimited
	}
	r.ConnectionTermination = e.reason
}

// enter takes a place in every limit of the chain and a token of every rate, or is too
// many.
func (c *chain) enter() excess {
	if e := c.takePlaces(); e.reason != "" {
		return e
	}
	for _, r := range c.rates {
		if !r.bucket.Take() {
			c.leave()
			return excess{reason: "rate_limit"}
		}
	}
	return excess{}
}

// takePlaces takes a place in every limit of the chain, or in none.
func (c *chain) takePlaces() excess {
	for i, l := range c.limits {
		if l.open.Add(1) > l.cfg.Max {
			for _, undo := range c.limits[:i+1] {
				undo.open.Add(-1)
			}
			return excess{reason: "connection_limit", delay: l.cfg.Delay}
		}
	}
	return excess{}
}

// leave gives the places back that enter, or takePlaces, took.
func (c *chain) leave() {
	for _, l := range c.limits {
		l.open.Add(-1)
	}
}
