package store

import (
	"maps"
	"slices"
	"time"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
)

// guard keeps last-known health for a bounded time after the source lost and
// regained its server. A Consul server that restarts answers with a catalog in
// which every check of its agent is critical because none has run yet; agents
// that restart register again; servers that lost gossip declare nodes dead. To
// a mesh that believes it, a restart of Consul is an outage of everything.
//
// Inside the window an instance that was serving when the window opened keeps
// its health
//
//   - while its critical report comes from active checks that have not run;
//   - while most of the catalog looks lost ("mass"), also when the report rests
//     on gossip or a silent TTL check, and also when the instance is gone.
//
// A check that ran and failed, and an operator's maintenance mode, are believed
// at once. No instance is kept longer than the window's length.
type guard struct {
	window   time.Duration
	until    time.Time // zero: closed
	baseline map[catalog.Name][]*catalog.Instance
	// total counts the serving instances of baseline, lost those of them that
	// look lost without proof, by service.
	total, lost int
	lostOf      map[catalog.Name]int
	mass        bool
	// held is when each kept instance was first kept; given are those that were
	// kept for as long as is allowed.
	held  map[heldKey]time.Time
	given map[heldKey]struct{}
}

type heldKey struct {
	service  catalog.Name
	instance catalog.InstanceKey
}

// massMin is the smallest loss that can be called mass: one instance is a
// single failure even in a mesh of one.
const massMin = 2

// open starts or extends the window, given what is published and what the
// source said last. It returns the services whose published form may change.
func (g *guard) open(published, raw map[catalog.Name][]*catalog.Instance, now time.Time) []catalog.Name {
	g.until = now.Add(g.window)
	g.baseline = make(map[catalog.Name][]*catalog.Instance, len(published))
	g.lostOf = map[catalog.Name]int{}
	g.total, g.lost = 0, 0
	if g.held == nil {
		g.held, g.given = map[heldKey]time.Time{}, map[heldKey]struct{}{}
	}
	for n, list := range published {
		if c := countServing(list); c > 0 {
			g.baseline[n] = list
			g.total += c
			g.observe(n, raw[n])
		}
	}
	return g.judge()
}

func (g *guard) active(now time.Time) bool { return !g.until.IsZero() && now.Before(g.until) }

// observe counts what looks lost of one service without proof.
func (g *guard) observe(n catalog.Name, raw []*catalog.Instance) {
	lost := 0
	for _, b := range g.baseline[n] {
		if !b.Health.Serving() {
			continue
		}
		i := find(raw, b.Key())
		if i == nil || i.Health == catalog.Critical && i.Evidence != catalog.EvidenceSeen {
			lost++
		}
	}
	g.lost += lost - g.lostOf[n]
	g.lostOf[n] = lost
}

// judge decides whether the loss is a mass loss. When the verdict changes it
// returns every service whose published form may change with it.
func (g *guard) judge() []catalog.Name {
	mass := g.lost >= massMin && g.lost*2 > g.total
	if mass == g.mass {
		return nil
	}
	g.mass = mass
	return g.services()
}

func (g *guard) services() []catalog.Name {
	out := make([]catalog.Name, 0, len(g.lostOf))
	for n, lost := range g.lostOf {
		if lost > 0 {
			out = append(out, n)
		}
	}
	return out
}

// apply returns the service's instances, with last-known health where it is kept.
func (g *guard) apply(n catalog.Name, raw []*catalog.Instance, now time.Time) []*catalog.Instance {
	base := g.baseline[n]
	if !g.active(now) || len(base) == 0 {
		return raw
	}
	out := slices.Clone(raw)
	for _, b := range base {
		if !b.Health.Serving() {
			continue
		}
		k := heldKey{n, b.Key()}
		at := slices.IndexFunc(raw, func(i *catalog.Instance) bool { return i.Key() == b.Key() })
		if !g.keeps(raw, at) {
			delete(g.held, k)
			delete(g.given, k)
			continue
		}
		if _, over := g.given[k]; over {
			continue
		}
		if _, ok := g.held[k]; !ok {
			g.held[k] = now
		}
		if at < 0 {
			out = append(out, b)
			continue
		}
		last := *raw[at]
		last.Health = b.Health
		out[at] = &last
	}
	slices.SortFunc(out, compareInstances)
	return out
}

// keeps reports whether last-known health is better than what the source says
// of the instance at the index, negative when it is gone.
func (g *guard) keeps(raw []*catalog.Instance, at int) bool {
	if at < 0 {
		return g.mass
	}
	i := raw[at]
	if i.Health != catalog.Critical {
		return false
	}
	return i.Evidence == catalog.EvidenceNone || i.Evidence == catalog.EvidenceWeak && g.mass
}

// wake is when expire has something to do.
func (g *guard) wake() time.Time {
	at := g.until
	for _, first := range g.held {
		if t := first.Add(g.window); t.Before(at) {
			at = t
		}
	}
	return at
}

// expire ends what was kept for too long, and the window itself; it returns the
// services whose published form may change.
func (g *guard) expire(now time.Time) []catalog.Name {
	if g.until.IsZero() {
		return nil
	}
	over := !now.Before(g.until)
	names := map[catalog.Name]struct{}{}
	for k, first := range g.held {
		if over || !now.Before(first.Add(g.window)) {
			names[k.service] = struct{}{}
			g.given[k] = struct{}{}
			delete(g.held, k)
		}
	}
	if over {
		*g = guard{window: g.window}
	}
	return slices.Collect(maps.Keys(names))
}

func (g *guard) list() []string {
	if len(g.held) == 0 {
		return nil
	}
	out := make([]string, 0, len(g.held))
	for k := range g.held {
		out = append(out, k.service.String()+": "+k.instance.Node+"/"+k.instance.ID)
	}
	slices.Sort(out)
	return out
}
