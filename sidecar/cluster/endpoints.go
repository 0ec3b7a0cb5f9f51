package cluster

import (
	"net"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// endpointSet is what the load balancer reads. Immutable; a change of endpoints,
// of health or of an ejection makes a new one.
type endpointSet struct {
	hosts   []*Host      // all, in order of arrival
	whole   *balancer    // with subsets, of no hosts
	subsets *subsetIndex // nil without subsets
	began   int64        // when it began to be made
	took    int64        // and how long that lasted
	own     *ownHosts    // of the own cluster, nil for others
	drop    *Dropping    // nil where all requests are for the hosts
}

// members are a cluster's hosts as the assignment has them, then those that outlive it.
type members struct {
	order []*Host
	byKey map[string]*Host // of each address the first; nil for a few, which a map would cost more than
	again *mentions        // of addresses that are named again, nil for none
}

// mentions are hosts whose addresses were named before: the second of an address is 1.
type mentions struct {
	hosts map[mention]*Host
	last  map[string]uint32
}

type mention struct {
	key string
	nth uint32
}

// scanned is how many hosts are found by looking at all of them.
const scanned = 8

// member is the host that has a key, of those that have it the nth, nil for none.
func (m *members) member(key string, nth uint32) *Host {
	switch {
	case nth > 0 && m.again != nil:
		return m.again.hosts[mention{key, nth}]
	case nth > 0:
		return nil
	case m.byKey != nil:
		return m.byKey[key]
	}
	for _, h := range m.order {
		if h.key == key && h.nth == 0 {
			return h
		}
	}
	return nil
}

// has tells whether a host is a member.
func (m *members) has(h *Host) bool { return m.member(h.key, h.nth) == h }

// next is which of those with a key the next one is.
func (m *members) next(key string) uint32 {
	switch {
	case m.member(key, 0) == nil:
		return 0
	case m.again == nil:
		return 1
	}
	return m.again.last[key] + 1
}

// join adds a host; no other is the same of those with its key.
func (m *members) join(h *Host) {
	m.order = append(m.order, h)
	switch {
	case h.nth > 0:
		if m.again == nil {
			m.again = &mentions{map[mention]*Host{}, map[string]uint32{}}
		}
		m.again.hosts[mention{h.key, h.nth}] = h
		m.again.last[h.key] = max(m.again.last[h.key], h.nth)
	case m.byKey != nil:
		m.byKey[h.key] = h
	case len(m.order) > scanned:
		m.byKey = make(map[string]*Host, 2*scanned)
		for _, h := range m.order {
			if h.nth == 0 {
				m.byKey[h.key] = h
			}
		}
	}
}

// leave removes a host.
func (m *members) leave(h *Host) {
	m.order = slices.DeleteFunc(m.order, func(o *Host) bool { return o == h })
	if h.nth == 0 {
		delete(m.byKey, h.key)
	} else {
		delete(m.again.hosts, mention{h.key, h.nth})
	}
}

// plan is a set of endpoints that is made and not yet in force.
type plan struct {
	set     *endpointSet
	leaving []*Host // the hosts that are in the one before, and not in this
	changed bool    // other hosts are in this
}

// replace makes a the assignment, and puts it in force. c.mu is held.
func (c *Cluster) replace(a *Assignment) { c.adopt(c.prepare(a, c.cfg.Load())) }

// prepare makes a the assignment, and a set of it by s, which may fault. Hosts are recognised by
// address, so that their pools and counters survive. It ends idle connections of hosts that
// have another name to tell, and changes nothing that recall does not put back. c.mu is held.
func (c *Cluster) prepare(a *Assignment, s *settings) *plan {
	if c.removed {
		a = nil
	} else if s.Type == EDS {
		a = a.unlessStale()
	}
	c.assignment = a
	old := c.members
	c.members = members{}
	p := &plan{}
	if a != nil {
		for i := range a.Localities {
			l := &a.Localities[i]
			for j := range l.Endpoints {
				p.changed = c.take(l, &l.Endpoints[j], &old, s) || p.changed
			}
		}
	}
	for _, h := range old.order {
		now := c.member(h.key, h.nth)
		if now == h {
			continue
		}
		if now == nil && c.outlives(h, s) {
			h.check.removed = true
			h.locality = a.placeOf(h)
			c.join(h)
			continue
		}
		p.leaving = append(p.leaving, h)
		p.changed = true
	}
	for h := range c.checks {
		if !c.isChecked(h, s) {
			h.check.state.Store(0) // what was found no longer counts, in this set already
		}
	}
	p.set = c.newSet(s)
	return p
}

// adopt puts a plan in force. None departs before the set without it is made, and one that
// cannot be ended, or whose checks cannot, keeps no other. c.mu is held.
func (c *Cluster) adopt(p *plan) {
	for _, h := range p.leaving {
		panics.Guard(panics.Configuration, func() { c.forget(h) })
	}
	panics.Guard(panics.Configuration, c.syncChecks)
	c.install(p.set)
	c.awaitUpdate()
	if p.changed {
		c.hostsChanged()
	}
}

// hostsChanged follows a host that came or went. c.mu is held.
func (c *Cluster) hostsChanged() {
	if c.cfg.Load().CloseOnChange {
		for _, h := range c.order {
			h.retireConns()
		}
	}
}

// take puts an endpoint in its place; it tells whether the host is new.
func (c *Cluster) take(l *Locality, e *Endpoint, old *members, s *settings) (fresh bool) {
	key := e.key()
	nth := c.next(key)
	if nth > 0 && !s.Type.repeats() {
		return false // the first mention counts, as in Envoy
	}
	h := old.member(key, nth)
	// Connections over another transport socket are those of another host.
	if h == nil || !reflect.DeepEqual(h.socket, s.socketFor(e)) {
		was := h
		h, fresh = newHost(c, key, e, s), true
		h.nth = nth
		if was != nil {
			h.inherit(was, e, s)
		}
	} else if s.HealthCheck != nil && h.Endpoint().checkedElsewhere(e) {
		h.check.state.Store(checkFailed | checkPending) // what was found, if anything, is of another address
	}
	h.place(e, l.Priority)
	h.terms.Store(s.tlsGeneration)
	if s.Type == LogicalDNS {
		c.aim(h)
	}
	h.locality = l
	c.join(h)
	return fresh
}

// outlives tells whether a host that discovery no longer names stays: a check that
// passes is better evidence than a registry that may have lost it. It passed over the transport
// socket that there was: of another one nothing is known, and nobody would name it.
func (c *Cluster) outlives(h *Host, s *settings) bool {
	return !c.removed && s.HealthCheck != nil && !s.DropRemoved && (s.Type == EDS || s.Type == StrictDNS) &&
		!h.Endpoint().check().Disabled && h.check.state.Load()&checkFailed == 0 &&
		(h.Health() == Healthy || h.Health() == Degraded) && h.isOver(s)
}

// isOver tells whether the host is reached over the transport socket that s has for it.
func (h *Host) isOver(s *settings) bool {
	return reflect.DeepEqual(h.socket, s.socketFor(h.Endpoint()))
}

// placeOf is where a host is that a no longer names, with the weight that its place has now: none,
// where the place is not named either. a may be nil.
func (a *Assignment) placeOf(h *Host) *Locality {
	was := h.locality
	if a != nil {
		for i := range a.Localities {
			l := &a.Localities[i]
			if l.Region == was.Region && l.Zone == was.Zone && l.SubZone == was.SubZone && l.Priority == h.Priority() {
				return l
			}
		}
	}
	return &Locality{Region: was.Region, Zone: was.Zone, SubZone: was.SubZone, Priority: h.Priority()}
}

// forgetAll retires every host: what comes next has nothing to do with them.
func (c *Cluster) forgetAll() {
	for _, h := range c.order {
		c.forget(h)
	}
	c.members, c.assignment = members{}, nil
}

// forget retires a host that the assignment no longer names.
func (c *Cluster) forget(h *Host) {
	if heir := c.member(h.key, h.nth); h.ejected() && (heir == nil || heir == h || !heir.ejected()) {
		c.ejected--
	}
	h.depart()
}

// rosters sorts the hosts by priority and locality. c.mu is held.
func (c *Cluster) rosters() []roster {
	var out []roster
	for _, h := range c.order {
		p := h.Priority()
		for len(out) <= p {
			out = append(out, roster{})
		}
		r := &out[p]
		at := slices.IndexFunc(r.places, func(q place) bool {
			return q.Region == h.locality.Region && q.Zone == h.locality.Zone && q.SubZone == h.locality.SubZone
		})
		if at < 0 {
			at = len(r.places)
			r.places = append(r.places, place{Locality: h.locality})
		}
		r.places[at].hosts++
		r.hosts = append(r.hosts, h)
		r.where = append(r.where, at)
	}
	return out
}

// rebuild makes the endpoint set of what is known. c.mu is held.
func (c *Cluster) rebuild() { c.install(c.newSet(c.cfg.Load())) }

// newSet is the endpoint set of what is known, by cfg. c.mu is held.
func (c *Cluster) newSet(cfg *settings) *endpointSet {
	now := monotonic()
	rosters := c.rosters()
	s := &endpointSet{hosts: slices.Clone(c.order), began: now}
	if cfg.Subsets != nil {
		s.whole, _ = newLevels(rosters, nil, cfg, c.assignment, now)
		s.subsets = newSubsetIndex(rosters, cfg, c.assignment, now)
	} else {
		s.whole = newBalancer(rosters, nil, cfg, c.assignment, now)
	}
	s.drop = c.newDropping()
	if c.m.opts.Own.is(c.name) {
		s.own = c.m.ownHosts(rosters, cfg)
	}
	s.took = monotonic() - now
	return s
}

// install has the load balancer read s. c.mu is held.
func (c *Cluster) install(s *endpointSet) {
	began := monotonic()
	if c.rebuilding != nil {
		c.rebuilding.Stop()
		c.rebuilding = nil
	}
	c.set.Store(s)
	if s.own != nil {
		c.m.regardOwn(s.own)
	}
	if c.unproven && c.assignment != nil && !c.awaitsChecks() {
		c.prove()
	}
	for _, h := range s.hosts {
		state, _ := h.state()
		down := state == hostDown
		if down && !h.retired { // as in Envoy, whoever found it so
			h.retireConns()
		}
		h.retired = down
	}
	c.warm(c.cfg.Load(), s.began)
	c.countHosts(s.hosts)
	done := monotonic()
	c.restUntil = done + int64(restAfter(time.Duration(s.took+done-began)))
}

// rest is how much longer than making a set the cluster rests before a change of
// health makes the next one: with thousands of hosts, or great tables, many changes
// then share one.
const rest = 20

// mostRest bounds the rest, during which hosts that fail get requests.
const mostRest = time.Second

// restAfter is the rest after what took a time: as long at least where that is beyond the bound,
// so that half of the time is left for others.
func restAfter(took time.Duration) time.Duration {
	return min(rest*took, max(mostRest, took))
}

// healthChanged has the set made again, at once or after the rest. c.mu is held.
func (c *Cluster) healthChanged() {
	wait := c.restUntil - monotonic()
	switch {
	case wait <= 0:
		c.rebuild()
	case c.rebuilding == nil && !c.removed:
		c.rebuilding = time.AfterFunc(time.Duration(wait), func() {
			defer panics.Contain(panics.Housekeeper, nil, nil)
			c.mu.Lock()
			defer c.mu.Unlock()
			if !c.removed {
				c.rebuild()
			}
		})
	}
}

func (c *Cluster) countHosts(hosts []*Host) {
	if c.metrics == nil {
		return
	}
	if c.cfg.Load().Type == OriginalDestination {
		c.destinations.drop(func(*Host) bool { return false }) // which counts those that are left
		return
	}
	var healthy, unhealthy, draining, degraded int
	for _, h := range hosts {
		state, _ := h.state()
		switch {
		case h.Health() == Draining:
			draining++
		case state == hostUp:
			healthy++
		case state == hostDegraded:
			degraded++
		case h.Health() == Unhealthy || h.check.state.Load()&checkFailed != 0:
			unhealthy++
		}
	}
	c.metrics.SetEndpoints(healthy, unhealthy, draining, degraded, c.ejected)
}

// check is how the endpoint is health-checked.
func (e *Endpoint) check() EndpointCheck {
	if e.Check == nil {
		return EndpointCheck{}
	}
	return *e.Check
}

// checkedElsewhere tells whether checks of the endpoint as next say more or something else than those
// of this one: there were none, or they went to another address.
func (e *Endpoint) checkedElsewhere(next *Endpoint) bool {
	was, is := e.check(), next.check()
	return !is.Disabled && (was.Disabled || was.Address != is.Address || was.Port != is.Port)
}

func (e *Endpoint) key() string {
	if e.Pipe != "" {
		return "unix:" + e.Pipe
	}
	return net.JoinHostPort(e.Host, strconv.Itoa(e.Port))
}
