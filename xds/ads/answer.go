package ads

import (
	"slices"
	"strings"
	"time"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// answered takes an ACK or NACK. It returns nil for a stale nonce: one that
// belongs to no outstanding response.
func (c *core) answered(ts *typeState, nonce string, nacked bool, detail string, now time.Time) *event {
	i := slices.IndexFunc(ts.pending, func(p *pending) bool { return p.nonce == nonce })
	if i < 0 {
		return nil
	}
	// A client answers in order. If it skipped older responses, a full list
	// includes them; anything else is found missing and sent again.
	for _, p := range ts.pending[:i] {
		if ts.full && !nacked {
			c.accept(ts, p)
		}
		ts.dirty = true
	}
	p := ts.pending[i]
	ts.pending = slices.Delete(ts.pending, 0, i+1)
	ev := &event{url: ts.url, acked: !nacked, took: now.Sub(p.sent)}
	if nacked {
		ev.detail = clip(detail)
		ev.nacked = c.reject(ts, p, detail)
		return ev
	}
	ts.lastAck = now
	c.accept(ts, p)
	if len(ts.nacked) == 0 && len(ts.fallen) == 0 && len(ts.suspects) == 0 {
		ts.lastError = ""
	}
	return ev
}

// accept records that the client has what p carried.
func (c *core) accept(ts *typeState, p *pending) {
	for n, r := range p.upserts {
		delete(ts.suspects, n)
		delete(ts.unsure, n)
		if !ts.wants(n) {
			continue
		}
		ts.held[n] = holding{r.Version, r}
		switch d := c.desired(ts, n); {
		case d == nil:
			ts.dirty = true // gone while it was on its way
		case d.Version == r.Version:
			delete(ts.nacked, n)
			if r.Fallback != nil {
				delete(ts.fallen, n)
			}
		}
	}
	if ts.full {
		clear(ts.unsure) // the list said it all
	}
	c.removed(ts, p)
}

func (c *core) removed(ts *typeState, p *pending) {
	for _, n := range p.removed {
		delete(ts.held, n)
		delete(ts.warming, n)
		delete(ts.unsure, n)
	}
	if len(p.removed) == 0 {
		return
	}
	if ts.url != resource.ListenerType {
		return
	}
	// A listener may have been rejected because one that is now gone had its
	// address. What the client has changed, so each may be tried once more.
	if len(ts.fallen) > 0 {
		clear(ts.fallen)
		ts.dirty = true
	}
	for n, q := range ts.nacked {
		delete(ts.nacked, n)
		ts.suspects[n] = q.version
		ts.retry = append(ts.retry, []string{n})
		ts.dirty = true
	}
}

// reject takes a NACK of p. One resource alone is convicted; several become
// suspects, to be retried in smaller groups. It returns the names concerned.
func (c *core) reject(ts *typeState, p *pending, detail string) []string {
	if detail == "" {
		detail = "rejected without a reason"
	}
	kept := clip(detail)
	ts.lastError = kept
	ts.dirty = true
	names := make([]string, 0, len(p.upserts))
	for n := range p.upserts {
		names = append(names, n)
	}
	slices.Sort(names)
	// A removal cannot be refused: the client is told once.
	c.removed(ts, p)
	switch {
	case len(names) == 0:
		return slices.Clone(p.removed)
	case len(names) == 1 && !p.carried:
		n := names[0]
		delete(ts.suspects, n)
		ts.undoubt(n, p.upserts[n])
		if !ts.wants(n) {
			break
		}
		// Only what the client has already must not stay as it is at any price.
		if _, held := ts.held[n]; held && p.upserts[n].Fallback != nil {
			ts.fallen[n] = nack{p.upserts[n].Version, kept}
		} else {
			ts.nacked[n] = nack{p.upserts[n].Version, kept}
		}
	default:
		for _, n := range names {
			ts.suspects[n] = p.upserts[n].Version
			ts.doubt(n, p.upserts[n])
		}
		ts.retry = append(ts.retry, ts.split(names, detail)...)
	}
	ts.clean = ts.full
	return names
}

// doubt remembers that the client may have kept r out of a rejected batch.
func (ts *typeState) doubt(name string, r *resource.Resource) {
	ts.undoubt(name, r)
	may := ts.unsure[name]
	if len(may) == maxUnsure {
		may = slices.Delete(may, 0, 1)
	}
	ts.unsure[name] = append(may, r)
}

// undoubt takes back that the client may have r: rejected alone, it has not.
func (ts *typeState) undoubt(name string, r *resource.Resource) {
	may := slices.DeleteFunc(ts.unsure[name], func(o *resource.Resource) bool { return o.Version == r.Version })
	if ts.unsure[name] = may; len(may) == 0 {
		delete(ts.unsure, name)
	}
}

// split divides a rejected batch. Names the client's reason does not mention
// come first, so the good wait for no verdict on the bad. Resources are retried
// one a response; a full list is too large for that and is bisected.
func (ts *typeState) split(names []string, detail string) (groups [][]string) {
	if len(detail) > maxSearched {
		detail = detail[:maxSearched]
	}
	var mentioned, other []string
	for _, n := range names {
		if strings.Contains(detail, n) {
			mentioned = append(mentioned, n)
		} else {
			other = append(other, n)
		}
	}
	if !ts.full {
		for _, n := range append(other, mentioned...) {
			groups = append(groups, []string{n})
		}
		return groups
	}
	if len(mentioned) > 0 && len(other) > 0 {
		groups = append(groups, other)
		for _, n := range mentioned {
			groups = append(groups, []string{n})
		}
		return groups
	}
	if len(names) == 1 {
		return [][]string{names}
	}
	half := len(names) / 2
	return [][]string{names[:half], names[half:]}
}

// maxDetail bounds what is kept of a client's reason, for each resource that it
// rejects and in the log.
const maxDetail = 1024

// maxSearched bounds what is searched for the names of resources, for each of them anew.
const maxSearched = 64 << 10

func clip(detail string) string {
	if len(detail) <= maxDetail {
		return detail
	}
	// A copy: the rest of the message is let go. A rune that is cut is dropped.
	return strings.ToValidUTF8(strings.Clone(detail[:maxDetail]), "") + " …"
}
