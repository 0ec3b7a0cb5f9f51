package cluster

import (
	"container/list"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/proxytlv"
)

// particular is what a pool has whose connections are for requests with terms of their own. Its
// host's lock is held by who reads what it has but the terms, and by the users that come.
type particular struct {
	terms  *Terms
	key    poolKey
	users  atomic.Int64 // who is about to take from the pool
	usedAt int64        // when the last of them came
	place  *list.Element
}

// poolKey tells such pools of a host apart. Names are ASCII, and here in lower case: the same host is
// meant.
type poolKey struct {
	source     string
	priority   Priority
	generation uint64
	name, san  string
	from, to   netip.AddrPort
	extensions proxytlv.Kept
	client     uint64
}

func keyOf(source string, priority Priority, t *Terms) poolKey {
	return poolKey{source, priority, t.generation, strings.ToLower(t.name), strings.ToLower(t.san), t.from, t.to, t.extensions, t.client}
}

// particulars are those pools of a host, about in the order in which they were used, the last one
// first: those that were found in use when they were looked at are before the others.
type particulars struct {
	pools  map[poolKey]*pool
	recent list.List
}

const (
	// mostParticular is how many such pools a host has before those end that nothing uses, nor
	// did in the last time: a client that names ever other hosts, and clients that come and go,
	// leave none behind for longer.
	mostParticular = 1024
	recently       = int64(10 * time.Second)
	// utmostParticular is how many it has at most before also those end that were just used,
	// where the limits on connections do not say less.
	utmostParticular = 16 << 10
	// looks is how many of a host are looked at for one that nothing uses, and widely how many
	// hosts and pools of a cluster.
	looks  = 64
	widely = 4 * looks
	// atOnce is how many end where one is to: those too that did not when only others were looked
	// at, or else each time there would be one more.
	atOnce = 2
)

// enter returns the pool of requests with terms of their own, which stays until the caller
// leaves it.
func (h *Host) enter(source string, priority Priority, t *Terms, now int64) *pool {
	p, isNew := h.entered(keyOf(source, priority, t), t, now)
	for range atOnce {
		if !isNew || !h.endSurplus(now) {
			break
		}
	}
	return p
}

// entered tells too whether it made the pool.
func (h *Host) entered(key poolKey, t *Terms, now int64) (p *pool, isNew bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.particular == nil {
		h.particular = &particulars{pools: map[poolKey]*pool{}}
	}
	all := h.particular
	if p = all.pools[key]; p == nil {
		isNew = true
		p = newPool(h, strings.Clone(key.source), key.priority)
		own := &particular{terms: t.own()}
		own.key = keyOf(p.source, p.priority, own.terms)
		p.own = own
		all.pools[own.key] = p
		own.place = all.recent.PushFront(p)
	} else {
		all.recent.MoveToFront(p.own.place)
	}
	p.own.users.Add(1)
	p.own.usedAt = now
	return p, isNew
}

// endSurplus ends the oldest pool where there are too many, and tells whether it did.
func (h *Host) endSurplus(now int64) bool {
	h.mu.Lock()
	var oldest *pool
	if n := len(h.particular.pools); n > mostParticular {
		before, left := now-recently, looks
		if n > h.cluster.utmost() {
			before = now
		}
		oldest = h.particular.oldest(before, &left, nil)
	}
	h.mu.Unlock()
	if oldest == nil {
		return false
	}
	oldest.end()
	return true
}

// utmost is how many such pools a host may have, of both priorities: with fewer than the
// connections that there may be, clients that keep theirs would find none of before.
func (c *Cluster) utmost() int {
	s := c.cfg.Load()
	n := min(most(s.Limits.MaxConnections), utmostParticular)
	if s.HighLimits != nil {
		n += min(most(s.HighLimits.MaxConnections), utmostParticular)
	}
	return int(min(max(n, mostParticular), utmostParticular))
}

// leave ends what enter began.
func (p *pool) leave() {
	if p.own.users.Add(-1) == 0 && p.empty() {
		p.tidy()
	}
}

// end ends the connections of a pool that nothing uses: at once, as another is to have their place.
func (p *pool) end() {
	shared := p.multiplexed.conns.Load()
	p.closeIdle()
	if shared != nil {
		for _, c := range *shared {
			// Who takes a place now finds that it is condemned.
			if c.condemned.Load() && c.carries.Load() == 0 {
				_ = c.Close()
			}
		}
	}
	p.tidy()
}

// tidy forgets the pool where there is nothing in it.
func (p *pool) tidy() {
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	p.forget()
}

// forget removes the pool where it has nothing and nobody is about to add to it, and tells whether
// it has gone. The host's lock is held.
func (p *pool) forget() bool {
	if p.own.users.Load() > 0 || !p.empty() {
		return false
	}
	all := p.host.particular
	if all.pools[p.own.key] == p {
		delete(all.pools, p.own.key)
		all.recent.Remove(p.own.place)
	}
	return true
}

// empty tells whether the pool has no connection, nor is to have one.
func (p *pool) empty() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all) == 0 && p.dialing == 0 && len(p.waiting) == 0
}

// unused tells whether the pool has connections, and none serves a request.
func (p *pool) unused() bool {
	if p.own.users.Load() > 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.all) == 0 || p.dialing > 0 || len(p.waiting) > 0 {
		return false
	}
	busy := len(p.all) - len(p.idle)
	if shared := p.multiplexed.conns.Load(); shared != nil {
		for _, c := range *shared {
			if c.carries.Load() == 0 {
				busy--
			}
		}
	}
	return busy == 0
}

// oldest is about the pool whose last request came longest ago, and not after before, among those
// of a priority that nothing uses; nil where none of those that are looked at is one, of which
// each takes one of left. Those that are in use go to the front, so that others are looked at the
// next time. The host's lock is held.
func (all *particulars) oldest(before int64, left *int, of *Priority) *pool {
	if all == nil {
		return nil
	}
	for n := min(all.recent.Len(), looks); n > 0 && *left > 0; n-- {
		*left--
		e := all.recent.Back()
		p := e.Value.(*pool)
		switch {
		case p.forget():
		case (of == nil || p.priority == *of) && p.unused():
			if p.own.usedAt > before {
				return nil
			}
			return p
		default:
			all.recent.MoveToFront(e)
		}
	}
	return nil
}

// makeRoom ends idle connections of other pools where one is to be waited for, or refused, because
// as many are open as may be: those of the host where its limit is reached, of the same priority
// where that one's is.
func (p *pool) makeRoom(want protocol) {
	for range atOnce {
		if p.own == nil || !p.endOther(want) {
			return
		}
	}
}

// endOther ends the oldest of the other pools where one is to make room, and tells whether it did.
func (p *pool) endOther(want protocol) bool {
	b, limits := p.breaker()
	p.mu.Lock()
	host := p.hostFull()
	found := want == protocolHTTP1 && (len(p.idle) > 0 || p.unclaimed > len(p.waiting)) ||
		want == protocolHTTP2 && p.multiplexed.dialing != nil
	p.mu.Unlock()
	full := exceeds(b.conns.Load()+1, limits.MaxConnections)
	if found || !host && !full {
		return false
	}
	var of *Priority
	if full {
		of = &p.priority
	}
	var oldest *pool
	if left := looks; host {
		p.host.mu.Lock()
		oldest = p.host.particular.oldest(math.MaxInt64, &left, of)
		p.host.mu.Unlock()
	} else {
		oldest = p.host.cluster.oldest(of)
	}
	if oldest == nil {
		return false
	}
	oldest.end()
	return true
}

// oldest is about the oldest of the pools of some hosts.
func (c *Cluster) oldest(of *Priority) (oldest *pool) {
	at, left := int64(0), widely
	c.some(func(h *Host) bool {
		left--
		h.mu.Lock()
		defer h.mu.Unlock()
		if p := h.particular.oldest(math.MaxInt64, &left, of); p != nil && (oldest == nil || p.own.usedAt < at) {
			oldest, at = p, p.own.usedAt
		}
		return left > 0
	})
	return oldest
}

// some calls fn with hosts, from any one on, while it wants more.
func (c *Cluster) some(fn func(*Host) bool) {
	if c.cfg.Load().Type == OriginalDestination {
		c.destinations.some(fn)
		return
	}
	hosts := c.set.Load().hosts
	if len(hosts) == 0 {
		return
	}
	first := rand.IntN(len(hosts))
	for i := range hosts {
		if !fn(hosts[(first+i)%len(hosts)]) {
			return
		}
	}
}

// everyPool are the pools of the host, of whichever terms.
func (h *Host) everyPool() []*pool {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := *h.pools.Load()
	if h.particular == nil {
		return out
	}
	out = out[:len(out):len(out)]
	for _, p := range h.particular.pools {
		out = append(out, p)
	}
	return out
}
