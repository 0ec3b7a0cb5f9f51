package cluster

import "strings"

// poolKey tells the pools of a host apart whose connections are for some requests only. Names
// are in lower case: the same host is meant.
type poolKey struct {
	source    string
	priority  Priority
	name, san string
}

// mostParticular is how many such pools a host has before those that nothing uses end: a client
// that names ever other hosts leaves none behind for longer than it has requests under way.
const mostParticular = 1024

func keyOf(source string, priority Priority, t *Terms) poolKey {
	return poolKey{source, priority, strings.ToLower(t.name), strings.ToLower(t.san)}
}

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
	if p = h.particular[key]; p == nil {
		if len(h.particular) >= mostParticular {
			oldest = h.oldest(nil)
		}
		p = newPool(h, strings.Clone(key.source), key.priority)
		p.terms = t.own()
		p.key = keyOf(p.source, p.priority, p.terms)
		if h.particular == nil {
			h.particular = map[poolKey]*pool{}
		}
		h.particular[p.key] = p
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
		delete(p.host.particular, p.key)
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

// oldest is the pool whose last request came longest ago, among those that nothing uses. The
// host's lock is held.
func (h *Host) oldest(but *pool) (oldest *pool) {
	for _, p := range h.particular {
		if p != but && p.users == 0 && (oldest == nil || p.usedAt < oldest.usedAt) && p.unused() {
			oldest = p
		}
	}
	return oldest
}

// endOldest makes room for a pool's first connection where another's are idle.
func (c *Cluster) endOldest(but *pool) {
	var oldest *pool
	at := int64(0)
	for _, h := range c.hosts() {
		h.mu.Lock()
		if p := h.oldest(but); p != nil && (oldest == nil || p.usedAt < at) {
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
	if len(h.particular) == 0 {
		return out
	}
	out = out[:len(out):len(out)]
	for _, p := range h.particular {
		out = append(out, p)
	}
	return out
}
