package cluster

// Tried is a list of the hosts that a request was sent to, the last one first. Immutable; nil is
// the empty one.
type Tried struct {
	host   *Host
	before *Tried
	n      int
}

// And is the list with another host.
func (t *Tried) And(h *Host) *Tried {
	n := 1
	if t != nil {
		n = t.n + 1
	}
	return &Tried{h, t, n}
}

// Before is the list without the last one.
func (t *Tried) Before() *Tried {
	if t == nil {
		return nil
	}
	return t.before
}

// inOrder are the hosts, the first one first.
func (t *Tried) inOrder() []*Host {
	if t == nil {
		return nil
	}
	out := make([]*Host, t.n)
	for ; t != nil; t = t.before {
		out[t.n-1] = t.host
	}
	return out
}

// levelsOf are levels that a retry chooses from.
type levelsOf interface {
	count() int
	availability(level int) (healthy, degraded int)
	// level is where a host is, below 0 for none of them; own is the cluster of the choice.
	level(own *Cluster, h *Host) int
}

func (b *balancer) count() int { return len(b.levels) }

func (b *balancer) availability(level int) (int, int) { return b.levels[level].available() }

func (b *balancer) level(own *Cluster, h *Host) int {
	if h.cluster != own {
		return -1
	}
	return h.Priority()
}

// exclusion is what the choices of a host for one retry that is to avoid levels have in common.
type exclusion struct {
	own   *Cluster
	tried *Tried
	every int
	// Of levels the shares are worked out; without ok they have their own.
	levels levelsOf
	loads  loads
	ok     bool
}

// exclusion is nil where a choice avoids no levels.
func (pc *PickContext) exclusion(own *Cluster) *exclusion {
	if pc == nil || pc.OtherPriorities <= 0 || pc.Tried == nil {
		return nil
	}
	return &exclusion{own: own, tried: pc.Tried, every: pc.OtherPriorities}
}

// shares are those of a choice: its own where it does not avoid levels.
func (e *exclusion) shares(levels levelsOf, own *loads) *loads {
	if e == nil {
		return own
	}
	if e.levels != levels {
		e.levels = levels
		e.loads, e.ok = e.untried(levels)
	}
	if !e.ok {
		return own
	}
	return &e.loads
}

// untried are the shares of the levels for another attempt, as Envoy's previous_priorities has
// them: each time that so many more hosts were tried as every says, the levels of all of them have none.
// Where no other can bear anything, all begin anew. Without ok the levels have their own shares.
func (e *exclusion) untried(levels levelsOf) (l loads, ok bool) {
	excluded := make([]bool, levels.count())
	n := 0
	for _, h := range e.tried.inOrder() {
		if at := levels.level(e.own, h); at >= 0 && at < len(excluded) {
			excluded[at] = true
		}
		if n++; n%e.every != 0 {
			ok = ok && n > e.every
			continue
		}
		if l, ok = without(levels, excluded); !ok {
			clear(excluded)
			n = 0
			l, ok = without(levels, excluded)
		}
	}
	return l, ok
}

// without are the shares where the excluded levels have none; false where no other one is available.
func without(levels levelsOf, excluded []bool) (loads, bool) {
	healthy, degraded := make([]int, len(excluded)), make([]int, len(excluded))
	sum := 0
	for i := range excluded {
		if !excluded[i] {
			healthy[i], degraded[i] = levels.availability(i)
			sum += healthy[i] + degraded[i]
		}
	}
	if sum == 0 {
		return loads{}, false
	}
	deal(healthy, degraded, min(sum, 100))
	return reaching(healthy, degraded), true
}
