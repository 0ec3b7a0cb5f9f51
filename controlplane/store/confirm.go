package store

import (
	"context"
	"slices"
	"time"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/source"
)

// Timing of confirmation reads.
const (
	confirmTimeout  = 10 * time.Second
	confirmRetry    = time.Second
	confirmParallel = 8
	// lossWindow is the time over which vanishing instances are added up to
	// tell a mass loss from single ones.
	lossWindow = 10 * time.Second
)

// confirms holds the disappearance of instances back until a second read, past
// caches and replicas, agrees. A 200 with an empty list is too often not the
// truth: a stale replica, a cache, a restored snapshot.
//
// It concerns disappearance only: instances that are reported as failing are
// reported, and need no second opinion. A service that lost its last serving
// instance is confirmed; when more than half of all instances vanish in a short
// time every one that does is, and then without a bound.
type confirms struct {
	source  source.Confirmer
	hold    time.Duration
	pending map[catalog.Name]*pendingLoss
	// believed are services whose loss needs no more confirmation until the
	// source shows instances again.
	believed map[catalog.Name]struct{}
	results  chan confirmResult
	running  int
	seq      uint64

	windowEnd       time.Time
	total, vanished int
}

type pendingLoss struct {
	seq     uint64
	since   time.Time
	next    time.Time // when to ask (again)
	asking  bool
	mass    bool
	refuted bool // the last answer was that the instances exist
}

type confirmResult struct {
	name catalog.Name
	seq  uint64
	list []*catalog.Instance
	err  error
}

func (c *confirms) init(src source.Confirmer, hold time.Duration) {
	c.source, c.hold = src, hold
	c.pending = map[catalog.Name]*pendingLoss{}
	c.believed = map[catalog.Name]struct{}{}
	c.results = make(chan confirmResult)
}

// apply returns what to publish for a service: list, or list and the instances
// of old that are missing from it without confirmation. serving is the number
// of serving instances published now.
func (c *confirms) apply(n catalog.Name, old, list []*catalog.Instance, serving int, now time.Time) []*catalog.Instance {
	if c.source == nil {
		return list
	}
	missing := missingFrom(old, list)
	if len(missing) == 0 {
		delete(c.pending, n)
		delete(c.believed, n)
		return list
	}
	if _, ok := c.believed[n]; ok {
		return list
	}
	p := c.pending[n]
	if p == nil {
		if now.After(c.windowEnd) {
			c.windowEnd, c.total, c.vanished = now.Add(lossWindow), serving, 0
		}
		c.vanished += len(missing)
		mass := c.vanished >= massMin && c.vanished*2 > c.total
		if countServing(list) > 0 && !mass {
			return list
		}
		c.seq++
		p = &pendingLoss{seq: c.seq, since: now, next: now, mass: mass}
		c.pending[n] = p
	}
	out := slices.Concat(list, missing)
	slices.SortFunc(out, compareInstances)
	return out
}

func missingFrom(old, list []*catalog.Instance) []*catalog.Instance {
	var out []*catalog.Instance
	for _, o := range old {
		if o.Health.Serving() && find(list, o.Key()) == nil {
			out = append(out, o)
		}
	}
	return out
}

// startConfirms asks about whatever is due.
func (w *writer) startConfirms(ctx context.Context, now time.Time) {
	c := &w.confirm
	for n, p := range c.pending {
		if c.running >= confirmParallel {
			return
		}
		if p.asking || now.Before(p.next) {
			continue
		}
		p.asking = true
		c.running++
		seq := p.seq
		w.wg.Go(func() {
			rctx, cancel := context.WithTimeout(ctx, confirmTimeout)
			defer cancel()
			list, err := c.source.Confirm(rctx, n)
			select {
			case c.results <- confirmResult{n, seq, list, err}:
			case <-ctx.Done():
			}
		})
	}
}

// confirmed takes an answer.
func (w *writer) confirmed(r confirmResult, now time.Time) {
	c := &w.confirm
	c.running--
	p := c.pending[r.name]
	if p == nil || p.seq != r.seq {
		return
	}
	p.asking, p.next = false, now.Add(confirmRetry)
	switch {
	case r.err != nil:
		w.s.metrics.guards.WithLabelValues("confirm", "error").Inc()
		w.s.log.Warn("cannot confirm that a service lost instances: last-known ones kept",
			"service", r.name.String(), "err", r.err)
		return
	case !slices.ContainsFunc(missingFrom(w.next.Instances[r.name], w.raw[r.name]),
		func(i *catalog.Instance) bool { return find(r.list, i.Key()) != nil }):
		w.s.metrics.guards.WithLabelValues("confirm", "confirmed").Inc()
		c.believe(r.name)
		w.refresh(r.name, now)
	default:
		// The source will see its error, or the instances will go; until one of
		// the two happens the question stays open.
		p.refuted = true
		w.s.metrics.guards.WithLabelValues("confirm", "refuted").Inc()
		w.s.log.Warn("the source reported lost instances that its leader still has: kept", "service", r.name.String())
	}
}

func (c *confirms) believe(n catalog.Name) {
	delete(c.pending, n)
	c.believed[n] = struct{}{}
}

func (p *pendingLoss) expires(hold time.Duration) (time.Time, bool) {
	if p.mass || p.refuted {
		return time.Time{}, false
	}
	return p.since.Add(hold), true
}

func (c *confirms) wake() time.Time {
	var at time.Time
	earliest := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	for _, p := range c.pending {
		if !p.asking && c.running < confirmParallel {
			earliest(p.next)
		}
		if t, ok := p.expires(c.hold); ok {
			earliest(t)
		}
	}
	return at
}

// expire believes what nobody could confirm within the bound.
func (c *confirms) expire(now time.Time) []catalog.Name {
	var out []catalog.Name
	for n, p := range c.pending {
		if t, ok := p.expires(c.hold); ok && !now.Before(t) {
			c.believe(n)
			out = append(out, n)
		}
	}
	return out
}

func (c *confirms) list() []string {
	var out []string
	for n := range c.pending {
		out = append(out, n.String())
	}
	slices.Sort(out)
	return out
}
