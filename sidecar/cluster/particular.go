package cluster

import (
	"container/list"
	"net/netip"
	"strings"
)

// poolKey tells the pools of a host apart whose connections are for some requests only. Names
// are in lower case: the same host is meant.
type poolKey struct {
	source    string
	priority  Priority
	name, san string
	from, to  netip.AddrPort
}

func keyOf(source string, priority Priority, t *Terms) poolKey {
	return poolKey{source, priority, strings.ToLower(t.name), strings.ToLower(t.san), t.from, t.to}
}

// particulars are those pools of a host, and in which order they were used, the last one first.
type particulars struct {
	pools  map[poolKey]*pool
	recent list.List
}

// mostParticular is how many such pools a host has before those that nothing uses end: a client
// that names ever other hosts, and clients that come and go, leave none behind for longer.
const mostParticular = 1024

// looks is how many of them are looked at for one that nothing uses.
const looks = 64

// enter returns the pool of requests with terms of their own, which stays until the caller
// leaves it.
func (h *Host) enter(source string, priority Priority, t *Terms, now int64) *pool {
	p, oldest := h.entered(keyOf(source, priority, t), t, now)
	if oldest != nil {
		oldest.end()
	}
	if p.starved() {
		h.cluster.endOldest(p)
	}
	return p
}

// entered tells too which pool is to make room for it, nil for none.
func (h *Host) entered(key poolKey, t *Terms, now int64) (p, oldest *pool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.particular == nil {
		h.particular = &particulars{pools: map[poolKey]*pool{}}
	}
	own := h.particular
	if p = own.pools[key]; p == nil {
		if len(own.pools) >= mostParticular {
			oldest = own.oldest(nil)
		}
		p = newPool(h, strings.Clone(key.source), key.priority)
		p.terms = t.own()
		p.key = keyOf(p.source, p.priority, p.terms)
		own.pools[p.key] = p
		p.place = own.recent.PushFront(p)
	} else {
		own.recent.MoveToFront(p.place)
	}
	p.users++
	p.usedAt = now
	return p, oldest
}

// leave ends what enter began.
func (p *pool) leave() {
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	p.users--
	p.forget()
}

// end ends the connections of a pool that nothing uses.
func (p *pool) end() {
	p.closeIdle()
	p.tidy()
}

// tidy forgets the pool where there is nothing in it.
func (p *pool) tidy() {
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	p.forget()
}

// forget removes the pool where it has nothing and nobody is about to add to it. The host's
// lock is held.
func (p *pool) forget() {
	if p.terms != nil && p.users == 0 && p.empty() {
		own := p.host.particular
		if own.pools[p.key] == p {
			delete(own.pools, p.key)
			own.recent.Remove(p.place)
		}
	}
}

// empty tells whether the pool has no connection, nor is to have one.
func (p *pool) empty() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all) == 0 && p.dialing == 0 && len(p.waiting) == 0
}

// unused tells whether the pool has connections, and none serves a request.
func (p *pool) unused() bool {
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

// starved tells whether the pool is to open its first connection, and its cluster has as many
// as it may have.
func (p *pool) starved() bool {
	b, limits := p.breaker()
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all) == 0 && p.dialing == 0 && !p.room(b.conns.Load()+1, limits.MaxConnections)
}

// oldest is the pool whose last request came longest ago, among those that nothing uses; nil
// where none of those that are looked at is one. The host's lock is held.
func (own *particulars) oldest(but *pool) *pool {
	if own == nil {
		return nil
	}
	for e, n := own.recent.Back(), 0; e != nil && n < looks; e, n = e.Prev(), n+1 {
		if p := e.Value.(*pool); p != but && p.users == 0 && p.unused() {
			return p
		}
	}
	return nil
}

// endOldest makes room for a pool's first connection where another's are idle.
func (c *Cluster) endOldest(but *pool) {
	var oldest *pool
	at := int64(0)
	for _, h := range c.hosts() {
		h.mu.Lock()
		if p := h.particular.oldest(but); p != nil && (oldest == nil || p.usedAt < at) {
			oldest, at = p, p.usedAt
		}
		h.mu.Unlock()
	}
	if oldest != nil {
		oldest.end()
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
