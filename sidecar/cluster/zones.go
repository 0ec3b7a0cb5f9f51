package cluster

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/fair"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Zone is where hosts are: the whole of a locality, as Envoy's zone-aware routing compares it.
type Zone struct{ Region, Zone, SubZone string }

// Own is the cluster that the sidecar itself is a host of.
type Own struct {
	Cluster string
	// Zone is where the sidecar is, nil where it is not said.
	Zone *Zone
}

// Takes refuses endpoints that the own cluster cannot have: in Envoy too, routing by zone takes
// all of its hosts for clients. Others may have them; nil is no cluster.
func (o *Own) Takes(cluster string, a *Assignment) error {
	if !o.is(cluster) || a == nil {
		return nil
	}
	for i, l := range a.Localities {
		if l.Priority != 0 {
			return fmt.Errorf("localities[%d]: priority %d: the cluster that local_cluster_name names has only priority 0", i, l.Priority)
		}
	}
	return nil
}

func (o *Own) is(cluster string) bool { return o != nil && o.Cluster == cluster }

// ZoneAware is how a cluster's requests keep to the sidecar's own zone, which they do where
// there is an own cluster.
type ZoneAware struct {
	Percent  int    // of the requests; the others go anywhere
	MinHosts uint64 // healthy ones, below which they all do
	// Force, when set, keeps all requests in the own zone while that has so many healthy hosts.
	Force    *uint32 `json:",omitempty"`
	ByWeight bool    `json:",omitempty"` // zones are measured by their hosts' weights, not their number
}

// DefaultZoneAware is in force where a cluster says nothing.
func DefaultZoneAware() ZoneAware { return ZoneAware{Percent: 100, MinHosts: 6} }

// zoneTerms are a cluster's terms of routing by zone, and what counts it.
type zoneTerms struct {
	ZoneAware
	zone         *Zone // the sidecar's own
	own          *atomic.Pointer[ownHosts]
	panicPercent float64
	failOnPanic  bool
	metrics      *telemetry.ClusterMetrics
}

// zoneTerms are those of a cluster, nil where its requests are not routed by zone: there is no
// own cluster, or it is that, or its policy does not choose between zones.
func (m *Manager) zoneTerms(s *settings) *zoneTerms {
	if m.opts.Own == nil || m.opts.Own.is(s.Name) || s.hashes() || s.Type == Aggregate || s.Type == OriginalDestination {
		return nil
	}
	t := &zoneTerms{
		ZoneAware: DefaultZoneAware(), zone: m.opts.Own.Zone, own: &m.own,
		panicPercent: s.panicPercent, failOnPanic: s.FailOnPanic, metrics: s.metrics,
	}
	if s.Zones != nil {
		t.ZoneAware = *s.Zones
	}
	return t
}

// capacity is what a zone can bear: its healthy hosts, or their weights.
type capacity struct{ hosts, weight uint64 }

func (c *capacity) add(h *Host) {
	c.hosts++
	c.weight += uint64(h.Weight())
}

func (c capacity) by(weight bool) uint64 {
	if weight {
		return c.weight
	}
	return c.hosts
}

// ownHosts is what routing by zone needs to know of the own cluster. Immutable.
type ownHosts struct {
	census
	localities int  // that have hosts, healthy or not
	present    bool // it has hosts in the sidecar's zone
	sum        capacity
	zones      map[Zone]capacity
}

// ownHosts counts the first priority; as in Envoy the own cluster has no other.
func (m *Manager) ownHosts(rosters []roster, s *settings) *ownHosts {
	own := &ownHosts{zones: map[Zone]capacity{}}
	if len(rosters) == 0 {
		return own
	}
	r := &rosters[0]
	own.localities, own.present = len(r.places), r.at(m.opts.Own.Zone) >= 0
	for i, h := range r.hosts {
		state, excluded := h.stateBy(s)
		own.census.add(h, state, excluded)
		if state == hostUp {
			zone := r.places[r.where[i]].zone()
			c := own.zones[zone]
			c.add(h)
			own.zones[zone] = c
			own.sum.add(h)
		}
	}
	return own
}

func (p *place) zone() Zone { return Zone{p.Region, p.Zone, p.SubZone} }

// at is the place that is a zone, -1 for none.
func (r *roster) at(zone *Zone) int {
	return slices.IndexFunc(r.places, func(p place) bool { return zone != nil && p.zone() == *zone })
}

// OwnMembers tells how many hosts the own cluster has, whatever their health; nil where there is no
// own cluster.
func (m *Manager) OwnMembers() func() int {
	if m.opts.Own == nil {
		return nil
	}
	return func() int {
		own := m.own.Load()
		if own == nil {
			return 0
		}
		return own.hosts
	}
}

// zoneRouter routes the requests of a cluster's first priority by zone. What it knows of their
// hosts does not change; what it makes of them does, with the own cluster.
type zoneRouter struct {
	*zoneTerms
	zones   []Zone // of the roster's places
	healthy []capacity
	sum     capacity
	local   int // the place that is the sidecar's zone, -1 for none
	routes  atomic.Pointer[zoneRoutes]
	by      *ownHosts // what the routes were made by; the cluster's lock is held
}

// zoneRoutes is where requests go. Immutable; nil is anywhere.
type zoneRoutes struct {
	direct bool // all to the own zone
	stay   int  // of each 10,000 do otherwise
	// elsewhere draws one of the places that have more of the hosts than own zones have of
	// the own cluster's, by how much more; nil where none has.
	elsewhere *alias
	// panics: too few of the own cluster are healthy.
	panics bool
}

// newZoneRouter is of a draft of the first priority.
func (d *draft) newZoneRouter() *zoneRouter {
	z := &zoneRouter{zoneTerms: d.s.zones, local: d.at(d.s.zones.zone), healthy: make([]capacity, len(d.places))}
	for i := range d.places {
		z.zones = append(z.zones, d.places[i].zone())
	}
	for _, i := range d.up {
		z.healthy[d.where[i]].add(d.hosts[i])
		z.sum.add(d.hosts[i])
	}
	z.regard()
	return z
}

// routable tells whether requests could be routed by zone, whatever the own cluster is like.
func (z *zoneRouter) routable() bool {
	return z.zone != nil && z.Percent > 0 && len(z.zones) >= 2 && z.sum.hosts >= z.MinHosts
}

// regard makes the routes by what the own cluster is now. The cluster's lock is held.
func (z *zoneRouter) regard() {
	own := z.own.Load()
	if z.by == own {
		return
	}
	r, structure := z.route(own)
	z.metrics.ZoneRouted(structure)
	z.routes.Store(r)
	z.by = own
}

// route is Envoy's: the order of what speaks against it shows in the counters.
func (z *zoneRouter) route(own *ownHosts) (*zoneRoutes, telemetry.ZoneStructure) {
	switch {
	case len(z.zones) < 2, z.Force == nil && own.localities < 2:
		return nil, telemetry.ZoneUnneeded
	case !own.present:
		return nil, telemetry.ZoneOwnAbsent
	case z.sum.hosts < z.MinHosts:
		return nil, telemetry.ZoneTooFewHosts
	}
	r := &zoneRoutes{panics: own.panics(z.panicPercent)}
	if z.local >= 0 {
		clients, hosts := z.shares(own, z.local)
		if hosts > 0 && hosts >= clients || z.Force != nil && z.healthy[z.local].hosts >= uint64(*z.Force) {
			r.direct = true
			return r, telemetry.ZoneDirect
		}
		if clients > 0 {
			r.stay = hosts * shareOfAll / clients
		}
	}
	left, sum := make([]float64, len(z.zones)), 0.0
	for i := range z.zones {
		if clients, hosts := z.shares(own, i); i != z.local && hosts > clients {
			left[i] = float64(hosts - clients)
			sum += left[i]
		}
	}
	if sum > 0 {
		r.elsewhere = newAlias(left)
	}
	return r, telemetry.ZoneResidual
}

const shareOfAll = 10000

// shares are what a place has of the own cluster's hosts, which are the clients, and of this
// one's. One that has no healthy host has no share of either.
func (z *zoneRouter) shares(own *ownHosts, place int) (clients, hosts int) {
	if z.healthy[place].hosts == 0 {
		return 0, 0
	}
	of := func(part, whole capacity) int {
		if whole.by(z.ByWeight) == 0 {
			return 0
		}
		return int(shareOfAll * part.by(z.ByWeight) / whole.by(z.ByWeight))
	}
	return of(own.zones[z.zones[place]], own.sum), of(z.healthy[place], z.sum)
}

// next is the place that a request goes to. It is -1 for anywhere, and not ok for nowhere.
func (z *zoneRouter) next(s telemetry.Shard) (place int, ok bool) {
	r := z.routes.Load()
	switch {
	case r == nil, z.Percent < 100 && rand.IntN(100) >= z.Percent:
		return -1, true
	case r.panics:
		z.metrics.ZonePicked(s, telemetry.ZoneOwnPanics)
		return -1, !z.failOnPanic
	case r.direct:
		z.metrics.ZonePicked(s, telemetry.ZoneAllDirectly)
		return z.local, true
	case r.stay > 0 && rand.IntN(shareOfAll) < r.stay:
		z.metrics.ZonePicked(s, telemetry.ZoneSampled)
		return z.local, true
	case r.elsewhere == nil:
		z.metrics.ZonePicked(s, telemetry.ZoneNoCapacity)
		return rand.IntN(len(z.zones)), true
	}
	z.metrics.ZonePicked(s, telemetry.ZoneCrossed)
	return r.elsewhere.pick(), true
}

// forced tells whether all requests are kept in the own zone.
func (z *zoneRouter) forced() bool {
	r := z.routes.Load()
	return r != nil && r.direct && !r.panics && z.Percent >= 100 && z.Force != nil && z.healthy[z.local].hosts >= uint64(*z.Force)
}

// zonePlaces splits a tier's hosts for the router, nil where it would not choose between them.
func (d *draft) zonePlaces(in []int) *places {
	if d.router == nil || !d.router.routable() {
		return nil
	}
	p := &places{router: d.router}
	for _, at := range d.byLocality(in) {
		p.groups = append(p.groups, newGroup(d.pick(at), d.s, d.now))
	}
	return p
}

// regardOwn has the clusters route by what the own cluster is now. It may be called with the
// lock of any clusters held, which the routes are made under too; so others make them. The own
// cluster's lock is held.
func (m *Manager) regardOwn(own *ownHosts) {
	if reflect.DeepEqual(m.own.Load(), own) {
		return
	}
	m.own.Store(own)
	if m.ctx.Err() == nil && m.regarding.CompareAndSwap(false, true) {
		m.wg.Go(m.keepRegarding)
	}
}

// keepRegarding has all clusters regard the own one, and again where it changed meanwhile. It
// rests between, as a cluster does after its set: with thousands of clusters, many changes then
// share one round.
func (m *Manager) keepRegarding() {
	defer panics.Contain(panics.Housekeeper, nil, nil)
	for again := true; again; {
		own, began := m.own.Load(), monotonic()
		for i := range m.table {
			for _, c := range *m.table[i].Load() {
				panics.Guard(panics.Housekeeper, func() { fair.Background(c.regardOwn() * fair.Message) })
			}
		}
		if !m.pause(restAfter(time.Duration(monotonic() - began))) {
			return
		}
		// Who changes it from here on finds that nobody regards it, or is seen here.
		m.regarding.Store(false)
		again = m.own.Load() != own && m.regarding.CompareAndSwap(false, true)
	}
}

// pause is false where the manager is closed meanwhile.
func (m *Manager) pause(d time.Duration) bool {
	if d <= 0 {
		return m.ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-m.ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// regardOwn makes the routes of the set in force anew, and returns how many. A set that is made
// has them already, by what the own cluster was then; it is made and in force under one hold of
// the lock.
func (c *Cluster) regardOwn() (routers int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set.Load().each(func(b *balancer) {
		if b.router != nil {
			b.router.regard()
			routers++
		}
	})
	return routers
}

// each calls f with every balancer.
func (set *endpointSet) each(f func(*balancer)) {
	f(set.whole)
	if x := set.subsets; x != nil {
		for _, sub := range slices.AppendSeq([]*subset{x.any, x.fallback}, maps.Values(x.byText)) {
			if sub != nil && sub.balancer != nil {
				f(sub.balancer)
			}
		}
	}
}
