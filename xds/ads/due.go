package ads

import (
	"slices"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// desired returns what the client should have under a name, or nil.
func (c *core) desired(ts *typeState, name string) *resource.Resource {
	if ts.url == resource.SecretType {
		// Keys never travel over ADS, whatever a view contains (DESIGN 5).
		return nil
	}
	if r := c.set.Get(ts.url, name); r != nil {
		if q, ok := ts.fallen[name]; ok && q.version == r.Version && r.Fallback != nil {
			return r.Fallback
		}
		return r
	}
	if _, named := ts.names[name]; !named || ts.url != resource.EndpointType {
		return nil
	}
	// A cluster warms until its endpoints arrive, so an assignment that is
	// asked for always exists. One that the client holds is emptied only
	// while a cluster names it: when the cluster is going, requests in flight
	// keep their endpoints until it is gone.
	empty := ts.emptied(name)
	if empty == nil {
		return nil // a name no cluster can have: the empty string
	}
	if h, ok := ts.held[name]; ok && h.version != empty.Version && !c.assigned(name) {
		return nil
	}
	return empty
}

// emptied is the assignment without endpoints. It is remembered: each look at all that a client
// names asks for each, and a client names what it likes.
func (ts *typeState) emptied(name string) *resource.Resource {
	if r, ok := ts.empty[name]; ok {
		return r
	}
	r, err := resource.New(name, &endpointv3.ClusterLoadAssignment{ClusterName: name})
	if err != nil {
		return nil
	}
	if ts.empty == nil || len(ts.empty) > 2*len(ts.names) { // of names that are asked for no longer, too
		ts.empty = map[string]*resource.Resource{}
	}
	ts.empty[name] = r
	return r
}

// assigned reports whether a cluster of the set names the assignment.
func (c *core) assigned(name string) bool {
	if c.assignments == nil {
		c.assignments = map[string]struct{}{}
		for _, r := range c.set.ByType[resource.ClusterType] {
			for _, ref := range r.Refs {
				if ref.Type == resource.EndpointType {
					c.assignments[ref.Name] = struct{}{}
				}
			}
		}
	}
	_, ok := c.assignments[name]
	return ok
}

// flight returns what the client will have of each name once it has accepted
// all that is on its way; the empty version stands for removed.
func (ts *typeState) flight() map[string]string {
	if len(ts.pending) == 0 {
		return nil
	}
	m := map[string]string{}
	for _, p := range ts.pending {
		for n, r := range p.upserts {
			m[n] = r.Version
		}
		for _, n := range p.removed {
			m[n] = ""
		}
	}
	return m
}

// refresh derives due, gone and absent.
func (c *core) refresh(ts *typeState) {
	if !ts.dirty {
		return
	}
	ts.dirty = false
	ts.due, ts.gone, ts.absent = nil, nil, nil
	flight := ts.flight()
	all := c.set.ByType[ts.url]
	if ts.wildcard {
		for name := range all {
			c.consider(ts, name, flight)
		}
	}
	listed := func(name string) bool { return ts.wildcard && all[name] != nil }
	for name := range ts.names {
		if !listed(name) {
			c.consider(ts, name, flight)
		}
	}
	other := func(name string) bool {
		_, named := ts.names[name]
		return !named && !listed(name)
	}
	for name := range ts.held {
		if other(name) {
			c.consider(ts, name, flight)
		}
	}
	for name := range ts.must {
		if _, held := ts.held[name]; !held && other(name) {
			c.consider(ts, name, flight)
		}
	}
	for name := range ts.unsure {
		_, held := ts.held[name]
		if _, must := ts.must[name]; !held && !must && other(name) {
			c.consider(ts, name, flight)
		}
	}
	sortResources(ts.due)
	slices.Sort(ts.gone)
	slices.Sort(ts.absent)
	ts.prune()
}

// consider files one name under due, gone or absent.
func (c *core) consider(ts *typeState, name string, flight map[string]string) {
	r := c.desired(ts, name)
	h, held := ts.held[name]
	if r != nil && held && h.res == nil && h.version == r.Version {
		ts.held[name] = holding{r.Version, r}
	}
	current, inFlight := flight[name]
	if !inFlight && held {
		current = h.version
	}
	_, must := ts.must[name]
	_, unsure := ts.unsure[name]
	if r == nil {
		delete(ts.nacked, name)
		delete(ts.fallen, name)
		c.considerGone(ts, name, current != "" || (unsure && !inFlight), must)
		return
	}
	if q, ok := ts.nacked[name]; ok && q.version == r.Version {
		if must {
			c.answerQuarantined(ts, name, q.version)
		}
		return
	}
	if must || current != r.Version || (unsure && !inFlight) {
		ts.due = append(ts.due, r)
	}
}

func (c *core) considerGone(ts *typeState, name string, has, must bool) {
	switch {
	case has && (c.delta || ts.full):
		ts.gone = append(ts.gone, name)
	case has:
		// State of the world cannot take back a route or assignment; the
		// client drops it when nothing names it. It keeps what it holds, and
		// is told that again when it waits for it: a cluster whose change is
		// on its way warms until then, and may yet be back to stay.
		h := ts.held[name]
		switch {
		case must && h.res != nil:
			ts.due = append(ts.due, h.res)
		case must:
			delete(ts.must, name)
			ts.answer = true
		}
	case must:
		ts.absent = append(ts.absent, name)
	}
}

// answerQuarantined answers a renewed request for a resource the client rejects
// in its current version: with the last good version, or as absent.
func (c *core) answerQuarantined(ts *typeState, name, version string) {
	h, held := ts.held[name]
	switch {
	case held && h.res != nil && h.version != version:
		ts.due = append(ts.due, h.res)
	case !held:
		ts.absent = append(ts.absent, name)
	default:
		delete(ts.must, name)
		ts.answer = true
	}
}

// prune drops clocks of what is no longer due or gone.
func (ts *typeState) prune() {
	for name := range ts.blockedSince {
		if ts.dueNamed(name) == nil {
			delete(ts.blockedSince, name)
		}
	}
	for name := range ts.goneSince {
		if _, ok := slices.BinarySearch(ts.gone, name); !ok {
			delete(ts.goneSince, name)
		}
	}
	for name, version := range ts.suspects {
		if r := ts.dueNamed(name); r == nil || r.Version != version {
			delete(ts.suspects, name)
		}
	}
}

func (ts *typeState) dueNamed(name string) *resource.Resource {
	i, ok := slices.BinarySearchFunc(ts.due, name, func(r *resource.Resource, n string) int {
		switch {
		case r.Name < n:
			return -1
		case r.Name > n:
			return 1
		}
		return 0
	})
	if !ok {
		return nil
	}
	return ts.due[i]
}

// blocked reports whether a listener or route must wait for clusters, and keeps
// the clock of its waiting. The clock runs on while the content changes, so a
// resource that changes often is not starved.
func (c *core) blocked(ts *typeState, r *resource.Resource, now time.Time) bool {
	if ts.url != resource.ListenerType && ts.url != resource.RouteType {
		return false
	}
	if h, ok := ts.held[r.Name]; ok && h.version == r.Version {
		return false // sent again unchanged: it can break nothing new
	}
	waits := slices.ContainsFunc(r.Refs, func(ref resource.Ref) bool {
		return ref.Type == resource.ClusterType && !c.ready(ref.Name, 0)
	})
	if !waits {
		delete(ts.blockedSince, r.Name)
		return false
	}
	since, ok := ts.blockedSince[r.Name]
	if !ok {
		ts.blockedSince[r.Name] = now
		return true
	}
	return now.Sub(since) < c.hold
}

// ready reports whether a cluster may be named: the client has acknowledged it
// and, if it was new, its endpoints; or nothing of the kind is to be expected,
// because the client does not ask for it or it does not exist.
func (c *core) ready(name string, depth int) bool {
	cds := c.types[resource.ClusterType]
	if cds == nil || !cds.wants(name) {
		return true
	}
	r := c.set.Get(resource.ClusterType, name)
	if r == nil {
		return true
	}
	h, held := cds.held[name]
	if !held || cds.leaving(name) {
		return false
	}
	// An aggregate cluster is as ready as those it lists. The depth bounds a
	// view in which aggregates name each other.
	for _, ref := range r.Refs {
		if ref.Type == resource.ClusterType && depth < 4 && !c.ready(ref.Name, depth+1) {
			return false
		}
	}
	if _, ok := cds.warming[name]; !ok {
		return true
	}
	if h.res != nil {
		r = h.res
	}
	for _, ref := range r.Refs {
		if ref.Type != resource.EndpointType {
			continue
		}
		eds := c.types[resource.EndpointType]
		if eds == nil {
			return false
		}
		if _, ok := eds.held[ref.Name]; !ok || eds.leaving(ref.Name) {
			return false
		}
	}
	delete(cds.warming, name)
	return true
}

// leaving reports whether the removal of a name is on its way: the client has it
// and will not, though it may be back in the view.
func (ts *typeState) leaving(name string) bool {
	return slices.ContainsFunc(ts.pending, func(p *pending) bool { return slices.Contains(p.removed, name) })
}
