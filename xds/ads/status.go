package ads

import (
	"slices"
	"strings"
	"time"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// status reports every type; resources adds every name.
func (c *core) status(resources bool, now time.Time) []TypeStatus {
	out := make([]TypeStatus, 0, len(c.order))
	for _, ts := range c.order {
		if c.set != nil {
			c.refresh(ts)
		}
		out = append(out, c.typeStatus(ts, resources, now))
	}
	return out
}

func (c *core) typeStatus(ts *typeState, resources bool, now time.Time) TypeStatus {
	st := TypeStatus{
		Type: ts.url, Wildcard: ts.wildcard, Nacked: len(ts.nacked) + len(ts.fallen),
		Outstanding: len(ts.pending), LastError: ts.lastError, LastAck: ts.lastAck,
	}
	names := map[string]struct{}{}
	for n := range ts.names {
		names[n] = struct{}{}
	}
	for n := range ts.held {
		names[n] = struct{}{}
	}
	if c.set != nil && ts.wildcard {
		for n := range c.set.ByType[ts.url] {
			names[n] = struct{}{}
		}
	}
	flight := ts.flight()
	for n := range names {
		r := c.resourceStatus(ts, n, flight, now)
		if r.State != StateRemoving {
			st.Subscribed++
		}
		if r.State == StateAcked {
			st.Acked++
		}
		if resources {
			st.Resources = append(st.Resources, r)
		}
	}
	slices.SortFunc(st.Resources, func(a, b ResourceStatus) int { return strings.Compare(a.Name, b.Name) })
	return st
}

func (c *core) resourceStatus(ts *typeState, name string, flight map[string]string, now time.Time) ResourceStatus {
	h, held := ts.held[name]
	st := ResourceStatus{Name: name, ClientVersion: h.version, State: StatePending}
	var r *resource.Resource
	if c.set != nil {
		r = c.desired(ts, name)
	}
	if r == nil {
		switch {
		case held:
			st.State = StateRemoving
		case c.set != nil:
			st.State = StateAbsent
		}
		return st
	}
	st.Version = r.Version
	q, nacked := ts.nacked[name]
	f, fallen := ts.fallen[name]
	coming, flying := flight[name]
	switch {
	case nacked && q.version == r.Version:
		st.State, st.Error = StateNacked, q.detail
	case fallen && held && h.version == r.Version:
		// It has what is most important, and not all that it is to have.
		st.State, st.Error = StateNacked, f.detail
	case held && h.version == r.Version && (!flying || coming == r.Version):
		st.State = StateAcked
	case flying && coming == r.Version:
		st.State = StateSent
	case ts.suspects[name] == r.Version:
		st.State = StateRetrying
	default:
		if since, ok := ts.blockedSince[name]; ok && now.Sub(since) < c.hold {
			st.State = StateHeld
		}
	}
	return st
}

// held lists what the client has, as far as its content is known.
func (c *core) held() (out []*resource.Resource) {
	for _, ts := range c.order {
		from := len(out)
		for _, h := range ts.held {
			if h.res != nil {
				out = append(out, h.res)
			}
		}
		sortResources(out[from:])
	}
	return out
}
