package cluster

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// balancer chooses among hosts by priority, locality and policy. Immutable but
// for the positions of its wheels.
type balancer struct {
	levels []level
	loads  *loads // nil where the healthy hosts of the first level get all
	// router routes the requests of the first level by zone; nil where none does.
	router *zoneRouter
}

// level is one priority.
type level struct {
	census
	panic    bool
	healthy  tier  // in panic all
	degraded *tier // nil for none
}

// tier is the hosts of a level that are in one state of health.
type tier struct {
	group
	places *places // nil unless localities have weights, or requests are routed by zone
}

// places are a tier's hosts by locality. The wheel deals between those that have any, or the
// router chooses among all.
type places struct {
	groups []group
	turns  *wheel
	router *zoneRouter
}

// group is the hosts of which the policy takes one.
type group struct {
	hosts  []*Host
	turns  *wheel
	uneven *uneven    // for least request with different weights
	table  *hashTable // of hash policies, in place of the others
}

// uneven are hosts' weights, and a draw by them.
type uneven struct {
	weights []float64
	chance  *alias
}

// roster is the hosts of one priority in the order of the assignment, and for
// each the index of its locality in places.
type roster struct {
	hosts  []*Host
	where  []int
	places []place
}

// place is a locality of a roster, and how many hosts it has.
type place struct {
	*Locality
	hosts int
}

// newBalancer makes a balancer of the hosts that keep accepts; a nil keep accepts
// all.
func newBalancer(rosters []roster, keep func(*Host) bool, s *settings, a *Assignment, now int64) *balancer {
	b, drafts := newLevels(rosters, keep, s, a, now)
	for i, d := range drafts {
		lv := &b.levels[i]
		// Tables are dear; only those that may be asked are made.
		if lv.panic {
			lv.healthy = d.tier(d.all, true)
			continue
		}
		lv.healthy = d.tier(d.up, false)
		if len(d.half) > 0 {
			degraded := d.tier(d.half, false)
			lv.degraded = &degraded
		}
	}
	return b
}

// newLevels is a balancer that knows how its levels are, and has no hosts yet.
func newLevels(rosters []roster, keep func(*Host) bool, s *settings, a *Assignment, now int64) (*balancer, []*draft) {
	b := &balancer{levels: make([]level, len(rosters))}
	drafts := make([]*draft, len(rosters))
	counts := make([]census, len(rosters))
	for i := range rosters {
		drafts[i] = newDraft(&rosters[i], keep, s, a, now)
		counts[i] = drafts[i].counts
	}
	shares, panics := spread(counts, s.panicPercent)
	if shares.healthy != nil {
		b.loads = &shares
	}
	if s.zones != nil && len(drafts) > 0 {
		b.router = drafts[0].newZoneRouter()
		drafts[0].router = b.router
	}
	for i, d := range drafts {
		b.levels[i].census, b.levels[i].panic = d.counts, panics[i]
	}
	return b, drafts
}

// draft is what a level is made of.
type draft struct {
	*roster
	counts        census
	s             *settings
	now           int64
	all, up, half []int // indices of hosts
	// Of each place: its weight, and its hosts that have a say in its availability.
	weights []float64
	count   []int
	byPlace bool
	router  *zoneRouter // nil but for the first level
}

func newDraft(r *roster, keep func(*Host) bool, s *settings, a *Assignment, now int64) *draft {
	d := &draft{roster: r, s: s, now: now, weights: make([]float64, len(r.places)), count: make([]int, len(r.places))}
	d.counts.overprovisions, d.counts.weighted = defaultOverprovisioning, a != nil && a.WeightedHealth
	if a != nil && a.Overprovisioning > 0 {
		d.counts.overprovisions = a.Overprovisioning
	}
	kept := make([]int, len(r.places))
	for i, h := range r.hosts {
		if keep != nil && !keep(h) {
			continue
		}
		state, excluded := h.stateBy(s)
		d.counts.add(h, state, excluded)
		d.all = append(d.all, i)
		kept[r.where[i]]++
		if !excluded {
			d.count[r.where[i]]++
		}
		switch state {
		case hostUp:
			d.up = append(d.up, i)
		case hostDegraded:
			d.half = append(d.half, i)
		}
	}
	d.byPlace = s.LocalityWeighted && (keep == nil || s.Subsets.LocalityWeighted)
	for i, p := range r.places {
		d.weights[i] = float64(p.Weight)
		if keep != nil && s.Subsets.ScaleLocality && p.hosts > 0 {
			d.weights[i] = math.Round(d.weights[i] * float64(kept[i]) / float64(p.hosts))
		}
	}
	return d
}

// defaultOverprovisioning is Envoy's factor in percent where an assignment names
// none: a priority gives requests away only below 100/1.4 = 71 % healthy hosts.
const defaultOverprovisioning = 140

func (d *draft) pick(at []int) []*Host {
	out := make([]*Host, len(at))
	for i, j := range at {
		out[i] = d.hosts[j]
	}
	return out
}

// tier makes a tier of the hosts with the indices in. In panic the localities
// have no say, except with hash policies.
func (d *draft) tier(in []int, panic bool) tier {
	hosts := d.pick(in)
	switch {
	case len(in) == 0:
		return tier{}
	case d.s.hashes():
		hosts, shares := d.shares(in)
		return tier{group: group{hosts: hosts, table: newHashTable(hosts, shares, d.s)}}
	case panic:
		return tier{group: newGroup(hosts, d.s, d.now)}
	case d.byPlace:
		if p := d.localities(in); p != nil {
			return tier{group: group{hosts: p.hosts()}, places: p}
		}
	}
	return tier{group: newGroup(hosts, d.s, d.now), places: d.zonePlaces(in)}
}

// hosts are those that are chosen among.
func (p *places) hosts() (out []*Host) {
	for i := range p.groups {
		out = append(out, p.groups[i].hosts...)
	}
	return out
}

func (d *draft) byLocality(in []int) [][]int {
	out := make([][]int, len(d.places))
	for _, j := range in {
		out[d.where[j]] = append(out[d.where[j]], j)
	}
	return out
}

// localities splits hosts by locality. A locality's weight counts as far as its
// hosts are available, overprovisioning included; nil means that none counts.
func (d *draft) localities(in []int) *places {
	var groups []group
	var weights []float64
	for i, at := range d.byLocality(in) {
		if len(at) == 0 || d.count[i] == 0 {
			continue
		}
		ratio := min(1, float64(d.counts.overprovisions)/100*float64(len(at))/float64(d.count[i]))
		if w := d.weights[i] * ratio; w > 0 {
			groups = append(groups, newGroup(d.pick(at), d.s, d.now))
			weights = append(weights, w)
		}
	}
	if len(groups) == 0 {
		return nil
	}
	return &places{groups: groups, turns: spin(weights)}
}

// shares are what hash policies distribute by: hosts by their weights, within
// localities by theirs. A locality without weight has no share.
func (d *draft) shares(in []int) (hosts []*Host, shares []float64) {
	add := func(at []int, of float64) {
		sum := 0.0
		for _, j := range at {
			sum += float64(d.hosts[j].Weight())
		}
		for _, j := range at {
			hosts = append(hosts, d.hosts[j])
			shares = append(shares, float64(d.hosts[j].Weight())*of/sum)
		}
	}
	if !d.byPlace {
		add(in, 1)
		return hosts, shares
	}
	sum := 0.0
	for _, w := range d.weights {
		sum += w
	}
	for i, at := range d.byLocality(in) {
		if d.weights[i] > 0 {
			add(at, d.weights[i]/sum)
		}
	}
	return hosts, shares
}

func newGroup(hosts []*Host, s *settings, now int64) group {
	g := group{hosts: hosts}
	if len(hosts) < 2 {
		return g
	}
	weights := make([]float64, len(hosts))
	for i, h := range hosts {
		weights[i] = h.effectiveWeight(s.SlowStart, now)
	}
	switch {
	case s.LB == LeastRequest && slices.Min(weights) != slices.Max(weights):
		g.uneven = &uneven{weights, newAlias(weights)}
	case s.LB == RoundRobin:
		g.turns = spin(weights)
	}
	return g
}

// pick is one choice: hash decides the level and, with a hash policy, the host.
type pick struct {
	hash uint64
	// attempt counts the choices for one request; hash policies need it to come to
	// another host.
	attempt int
	// level is chosen already, by an aggregate, unless it is below 0.
	level    int
	degraded bool
	shard    telemetry.Shard // of what counts the choice
	// avoid has a subset look for a host that it does not avoid, if there is one; nil for any.
	avoid *PickContext
	// not is of a retry that is to avoid levels; nil of others.
	not *exclusion
}

func (t *tier) choose(s *settings, p pick) *Host {
	g := &t.group
	if t.places != nil {
		if g = t.places.next(g, p.shard); g == nil {
			return nil
		}
	}
	return g.choose(s, p)
}

// next is the group that a request goes to, all where it may go anywhere, nil for none.
func (p *places) next(all *group, s telemetry.Shard) *group {
	if p.router == nil {
		return &p.groups[p.turns.next()]
	}
	switch at, ok := p.router.next(s); {
	case !ok:
		return nil
	case at >= 0:
		return &p.groups[at]
	}
	return all
}

func (g *group) choose(s *settings, p pick) *Host {
	switch {
	case g.table != nil:
		return g.table.find(p.hash, p.attempt)
	case len(g.hosts) == 0:
		return nil
	case len(g.hosts) == 1:
		return g.hosts[0]
	case g.turns != nil:
		return g.hosts[g.turns.next()]
	case s.LB == LeastRequest:
		return g.leastRequest(s)
	}
	return g.hosts[rand.IntN(len(g.hosts))]
}

// choose picks a level by its share, and a host of it.
func (b *balancer) choose(s *settings, p pick) *Host {
	level, degraded := p.level, p.degraded
	if level < 0 {
		level = 0
		if l := p.not.shares(b, b.loads); l != nil && l.healthy != nil {
			level, degraded = l.at(int(p.hash % 100))
		}
	}
	if level >= len(b.levels) {
		if len(b.levels) == 0 && s.panicPercent > 0 { // as in Envoy, where none of no hosts is healthy
			if m := s.metrics.Use(); m != nil {
				m.PanicPicks.Inc(p.shard)
			}
		}
		return nil
	}
	lv := &b.levels[level]
	switch {
	case lv.panic:
		return lv.panicked(s, p)
	case degraded:
		if lv.degraded == nil {
			return nil
		}
		return lv.degraded.choose(s, p)
	}
	return lv.healthy.choose(s, p)
}

// panicked picks a host of a level in panic, where degraded ones are among the healthy.
func (lv *level) panicked(s *settings, p pick) *Host {
	if m := s.metrics.Use(); m != nil {
		m.PanicPicks.Inc(p.shard)
	}
	if s.FailOnPanic {
		return nil
	}
	return lv.healthy.choose(s, p)
}

// scan finds a host that is not to be avoided and may be chosen, in order of priority.
func (b *balancer) scan(s *settings, avoid *PickContext) *Host {
	for i := range b.levels {
		lv := &b.levels[i]
		if lv.panic && s.FailOnPanic {
			continue
		}
		if h := outside(lv.healthy.eligible(), avoid); h != nil {
			return h
		}
		if lv.degraded != nil {
			if h := outside(lv.degraded.eligible(), avoid); h != nil {
				return h
			}
		}
		if b.router != nil && b.router.forced() {
			return nil
		}
	}
	return nil
}

// eligible are the hosts that requests may go to at all: where they are forced to stay in the own
// zone, those there.
func (t *tier) eligible() []*Host {
	if t.places != nil && t.places.router != nil && t.places.router.forced() {
		return t.places.groups[t.places.router.local].hosts
	}
	return t.hosts
}

// outside is one of hosts that is not to be avoided.
func outside(hosts []*Host, avoid *PickContext) *Host {
	if len(hosts) == 0 {
		return nil
	}
	start := rand.IntN(len(hosts))
	for i := range hosts {
		if h := hosts[(start+i)%len(hosts)]; !avoid.avoids(h) {
			return h
		}
	}
	return nil
}
