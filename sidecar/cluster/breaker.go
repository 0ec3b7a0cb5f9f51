package cluster

import (
	"math"
	"sync/atomic"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Priority is the routing priority of a request: each has limits of its own.
type Priority uint8

// The priorities.
const (
	DefaultPriority Priority = iota
	HighPriority
)

// breaker counts what is in use of a priority's limits.
type breaker struct {
	requests, pending, conns, retries atomic.Int64
	// recent is nil but for a retry budget of an interval.
	recent atomic.Pointer[recent]
}

var noLimits Limits

func (c *Cluster) breakerOf(p Priority) (*breaker, *Limits) {
	s := c.cfg.Load()
	if p == HighPriority {
		if s.HighLimits == nil {
			return &c.high, &noLimits
		}
		return &c.high, s.HighLimits
	}
	return &c.breaker, &s.Limits
}

// exceeds tells whether n at once are more than the limit allows.
func exceeds(n int64, limit int) bool { return n > most(limit) }

// room tells whether the cluster's limit, of which n would be in use, and the host's
// allow another connection. p.mu is held.
func (p *pool) room(n int64, limit int) bool {
	return !exceeds(n, limit) && !p.hostFull()
}

// hostFull tells whether the host has as many connections as it may. p.mu is held.
func (p *pool) hostFull() bool {
	each := p.host.cluster.cfg.Load().Limits.MaxHostConnections
	return exceeds(p.host.conns.Load()+int64(p.dialing)+1, each)
}

// spared is alone, and counts the connection that is beyond the limit, of which nothing else
// tells. p.mu is held.
func (p *pool) spared(shared bool, s telemetry.Shard) bool {
	return p.alone(shared) && p.beyond(s)
}

// beyond counts a connection that is made beyond a limit.
func (p *pool) beyond(s telemetry.Shard) bool {
	if m := p.host.cluster.metrics.Use(); m != nil {
		m.OverflowConnections.Inc(s)
	}
	return true
}

// sparedBytes is spared for a byte stream: no other one has a connection to the host, or
// gets one. p.mu is held.
func (p *pool) sparedBytes(s telemetry.Shard) bool {
	if p.apart > 0 {
		return false
	}
	for c := range p.all {
		if c.bytes {
			return false
		}
	}
	return p.beyond(s)
}

// alone tells whether a request finds no connection that it could wait for, shared or one of
// its own, nor one that is being made. It may have one whatever the limit, as in Envoy, so
// that no host starves at it. p.mu is held.
func (p *pool) alone(shared bool) bool {
	making := p.dialing - p.apart
	if p.multiplexed.dialing != nil {
		making--
	}
	if shared && p.multiplexed.dialing != nil || !shared && making+len(p.idle) > 0 {
		return false
	}
	for c := range p.all {
		if (c.HTTP2 != nil) == shared && !c.bytes && !c.uncounted && c.current() {
			return false
		}
	}
	return true
}

// activeRequests are those of both priorities, pending ones too, and plain connections.
func (c *Cluster) activeRequests() int64 {
	return c.requests.Load() + c.pending.Load() + c.high.requests.Load() + c.high.pending.Load() + c.relayed.Load()
}

// StartRequest is StartRequestAt with default priority.
func (c *Cluster) StartRequest(s telemetry.Shard) bool { return c.StartRequestAt(DefaultPriority, s) }

// EndRequest takes a request with default priority off the count.
func (c *Cluster) EndRequest() { c.EndRequestAt(DefaultPriority) }

// StartRequestAt counts a request against the priority's limit; false refuses it.
// The caller of a true result calls EndRequestAt.
func (c *Cluster) StartRequestAt(p Priority, s telemetry.Shard) bool {
	b, limits := c.breakerOf(p)
	if exceeds(b.requests.Add(1), limits.MaxRequests) {
		b.requests.Add(-1)
		if c.metrics != nil {
			c.metrics.Use().OverflowRequests.Inc(s)
		}
		return false
	}
	if r := b.recent.Load(); r != nil {
		r.began(monotonic())
	}
	return true
}

// EndRequestAt takes a request off the count.
func (c *Cluster) EndRequestAt(p Priority) {
	b, _ := c.breakerOf(p)
	b.requests.Add(-1)
}

// StartRetry is StartRetryAt with default priority.
func (c *Cluster) StartRetry(s telemetry.Shard) bool { return c.StartRetryAt(DefaultPriority, 0, s) }

// EndRetry takes a retry with default priority off the count.
func (c *Cluster) EndRetry() { c.EndRetryAt(DefaultPriority) }

// StartRetryAt counts a concurrent retry against the priority's budget or limit; own requests are under
// way for a budget beside those that are counted. False refuses it. The caller of a true result calls EndRetryAt.
func (c *Cluster) StartRetryAt(p Priority, own int64, s telemetry.Shard) bool {
	b, limits := c.breakerOf(p)
	if b.retries.Add(1) > b.mostRetries(limits, own) {
		b.retries.Add(-1)
		if c.metrics != nil {
			c.metrics.Use().OverflowRetries.Inc(s)
			c.metrics.Use().RetryOverflow.Inc(s)
		}
		return false
	}
	return true
}

// mostRetries is the limit on concurrent retries, which a budget may set by the
// requests that are active or pending now, or by those that began in its interval.
func (b *breaker) mostRetries(limits *Limits, own int64) int64 {
	if budget := limits.RetryBudget; budget != nil {
		of := b.requests.Load() + b.pending.Load() + own
		if r := b.recent.Load(); r != nil {
			of = r.count(monotonic())
		}
		return max(int64(budget.MinConcurrency), int64(float64(of)*budget.Percent/100))
	}
	return most(limits.MaxRetries)
}

// most is a limit as a number.
func most(limit int) int64 {
	if limit == 0 {
		return math.MaxInt64
	}
	return int64(max(limit, 0))
}

// EndRetryAt takes a retry off the count.
func (c *Cluster) EndRetryAt(p Priority) {
	b, _ := c.breakerOf(p)
	b.retries.Add(-1)
}

// active emits what goes on now, at a scrape; nothing of a cluster that is idle.
func (c *Cluster) active(emit func(value float64, labels ...string)) {
	var requests, pending int64
	for p := range Priority(2) {
		b, _ := c.breakerOf(p)
		requests += b.requests.Load()
		pending += b.pending.Load()
	}
	if requests > 0 {
		emit(float64(requests), c.statName(), "active")
	}
	if pending > 0 {
		emit(float64(pending), c.statName(), "pending")
	}
}

var priorityNames = [...]string{"default", "high"}

// limitUse is one of a breaker's limits, and how much of it is in use.
type limitUse struct {
	limit      string
	most, used int64
}

func (b *breaker) uses(limits *Limits) [4]limitUse {
	return [...]limitUse{
		{"connections", most(limits.MaxConnections), b.conns.Load()},
		{"pending", most(limits.MaxPendingRequests), b.pending.Load()},
		{"requests", most(limits.MaxRequests), b.requests.Load()},
		{"retries", b.mostRetries(limits, 0), b.retries.Load()},
	}
}

// remaining emits what is left of the limits that are tracked, at a scrape.
func (c *Cluster) remaining(emit func(value float64, labels ...string)) {
	for p, name := range priorityNames {
		b, limits := c.breakerOf(Priority(p))
		if !limits.TrackRemaining {
			continue
		}
		for _, l := range b.uses(limits) {
			if l.most < math.MaxInt64 {
				emit(float64(max(0, l.most-l.used)), c.statName(), name, l.limit)
			}
		}
	}
}

// reached emits the limits that are in use to the full, at a scrape. As in Envoy nothing
// is full that is not in use.
func (c *Cluster) reached(emit func(value float64, labels ...string)) {
	for p, name := range priorityNames {
		b, limits := c.breakerOf(Priority(p))
		for _, l := range b.uses(limits) {
			if l.used > 0 && l.used >= l.most {
				emit(1, c.statName(), name, l.limit)
			}
		}
	}
}
