package ads

import (
	"slices"
	"time"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// next returns the responses to send now, in order, and when to ask again if
// nothing happens before; the zero time means never. What it returns counts as
// sent.
func (c *core) next(now time.Time) (out []*response, wake time.Time) {
	if c.set == nil {
		return nil, time.Time{}
	}
	for _, ts := range c.order {
		// Order matters within one pass too: sending a cluster makes its
		// assignment owed, and EDS comes next.
		c.refresh(ts)
		out = append(out, c.urgent(ts, now)...)
		if r := c.upserts(ts, now); r != nil {
			out = append(out, r)
		}
	}
	if r := c.removals(now); r != nil {
		out = append(out, r)
	}
	return out, c.deadline(now)
}

// urgent sends changed listeners that carry authorization and that the client
// holds in an older version: past the outstanding response, past held clusters
// and apart from everything that could be rejected with them.
func (c *core) urgent(ts *typeState, now time.Time) (out []*response) {
	if ts.url != resource.ListenerType {
		return nil
	}
	var batch []*resource.Resource
	var alone [][]*resource.Resource
	flight := ts.flight()
	for _, r := range ts.due {
		h, held := ts.held[r.Name]
		if !r.Urgent || !held || h.version == r.Version || flight[r.Name] == r.Version {
			continue
		}
		if ts.suspects[r.Name] == r.Version {
			alone = append(alone, []*resource.Resource{r})
		} else {
			batch = append(batch, r)
		}
	}
	if len(batch) > 0 {
		alone = append([][]*resource.Resource{batch}, alone...)
	}
	n := 0
	for _, p := range ts.pending {
		if p.urgent {
			n++
		}
	}
	for _, b := range alone {
		if n++; n > maxUrgent {
			break
		}
		out = append(out, c.send(ts, b, nil, true, now))
	}
	return out
}

// upserts returns the next response of a type, unless one is outstanding.
func (c *core) upserts(ts *typeState, now time.Time) *response {
	if ts.outstanding() {
		return nil
	}
	batch, waiting := c.batch(ts, now)
	if len(batch) == 0 || ts.retryTurn {
		// New content and retries take turns, so neither starves the other.
		if group := c.group(ts); group != nil {
			ts.retryTurn = false
			return c.send(ts, group, nil, false, now)
		}
	}
	var removed []string
	if len(ts.absent) > 0 {
		for _, n := range ts.absent {
			delete(ts.must, n)
		}
		if c.delta {
			removed = ts.absent
		}
		ts.absent = nil
		ts.answer = true
	}
	if len(batch) > 0 {
		ts.retryTurn = len(ts.retry) > 0
		return c.send(ts, batch, removed, false, now)
	}
	// An owed answer without content waits for content that is held back: an
	// empty first list would tell the client that there is nothing.
	finish := ts.toldPartial && len(ts.due) == 0
	if len(removed) > 0 || (!waiting && (ts.answer || ts.clean || finish)) {
		return c.send(ts, nil, removed, false, now)
	}
	return nil
}

// batch collects what is due and may go now. waiting reports that something is
// held back.
func (c *core) batch(ts *typeState, now time.Time) (batch []*resource.Resource, waiting bool) {
	size := 0
	for _, r := range ts.due {
		if ts.suspects[r.Name] == r.Version {
			continue
		}
		if c.blocked(ts, r, now) {
			waiting = true
			continue
		}
		size += len(r.Name) + len(r.Version) + len(r.Body.GetValue()) + len(r.Body.GetTypeUrl()) + 16
		if c.delta && size > maxResponse && len(batch) > 0 {
			break
		}
		batch = append(batch, r)
	}
	return batch, waiting
}

// group takes the next group of suspects that is still of interest. Suspects
// are not held: they were sent once, so what they waited for is past.
func (c *core) group(ts *typeState) (pick []*resource.Resource) {
	for len(ts.retry) > 0 && len(pick) == 0 {
		names := ts.retry[0]
		ts.retry = ts.retry[1:]
		for _, n := range names {
			if r := ts.dueNamed(n); r != nil && ts.suspects[n] == r.Version {
				pick = append(pick, r)
			}
		}
	}
	return pick
}

// send records a response as outstanding and returns it.
func (c *core) send(ts *typeState, upserts []*resource.Resource, removed []string, urgent bool, now time.Time) *response {
	p := &pending{nonce: c.nonce(), sent: now, removed: removed, urgent: urgent}
	if len(upserts) > 0 {
		p.upserts = make(map[string]*resource.Resource, len(upserts))
	}
	for _, r := range upserts {
		p.upserts[r.Name] = r
		delete(ts.must, r.Name)
		delete(ts.blockedSince, r.Name)
		c.owe(ts, r)
	}
	ts.due = slices.DeleteFunc(ts.due, func(r *resource.Resource) bool { return p.upserts[r.Name] == r })
	ts.gone = slices.DeleteFunc(ts.gone, func(n string) bool { return slices.Contains(removed, n) })
	for _, n := range removed {
		delete(ts.must, n)
	}
	r := &response{
		url: ts.url, nonce: p.nonce, removed: removed,
		upserts: upserts, changed: len(upserts), partial: len(ts.due) > 0,
	}
	if ts.full {
		r.upserts = ts.compose(p)
		// What the client kept of a rejected list is replaced by this one,
		// and begins anew as if it were sent.
		for _, u := range r.upserts {
			if _, ok := ts.unsure[u.Name]; ok && p.upserts[u.Name] == nil {
				c.owe(ts, u)
			}
		}
		p.carried = slices.ContainsFunc(ts.pending, func(q *pending) bool { return len(q.upserts) > 0 })
	}
	if !urgent {
		ts.answer, ts.clean = false, false
		ts.toldPartial = r.partial
	}
	ts.pending = append(ts.pending, p)
	ts.lastNonce = p.nonce
	return r
}

// owe makes what belongs to a cluster or listener be sent again after it: the
// client starts anew with both, and waits for them.
func (c *core) owe(ts *typeState, r *resource.Resource) {
	child := ""
	switch ts.url {
	case resource.ClusterType:
		child = resource.EndpointType
		if _, held := ts.held[r.Name]; !held {
			ts.warming[r.Name] = struct{}{}
		}
	case resource.ListenerType:
		child = resource.RouteType
	default:
		return
	}
	cs := c.types[child]
	if cs == nil {
		return
	}
	for _, ref := range r.Refs {
		if ref.Type == child && cs.wants(ref.Name) {
			cs.must[ref.Name] = struct{}{}
			cs.dirty = true
		}
	}
}

// compose returns a full list: what the client holds, changed by what is in
// flight and by p. So a rejected resource stands at its last good version, and
// one to be removed stays until its removal.
func (ts *typeState) compose(p *pending) []*resource.Resource {
	m := make(map[string]*resource.Resource, len(ts.held)+len(p.upserts))
	for n, h := range ts.held {
		if h.res != nil {
			m[n] = h.res
		}
	}
	for _, q := range append(slices.Clone(ts.pending), p) {
		for n, r := range q.upserts {
			if ts.wants(n) {
				m[n] = r
			}
		}
		for _, n := range q.removed {
			delete(m, n)
		}
	}
	out := make([]*resource.Resource, 0, len(m))
	for _, r := range m {
		out = append(out, r)
	}
	sortResources(out)
	return out
}

// deadline is the next moment at which time alone changes what next returns.
// Moments that have passed are left out: what they allowed waits for an answer
// of the client, not for the clock.
func (c *core) deadline(now time.Time) (wake time.Time) {
	for _, ts := range c.order {
		for _, clocks := range []map[string]time.Time{ts.blockedSince, ts.goneSince} {
			for _, since := range clocks {
				if t := since.Add(c.hold); t.After(now) && (wake.IsZero() || t.Before(wake)) {
					wake = t
				}
			}
		}
	}
	return wake
}
