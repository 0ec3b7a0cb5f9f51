package cluster

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// PickContext is what the choice of a host depends on besides the cluster. The
// zero value is valid, and so is nil: each field adds something.
type PickContext struct {
	// What each choice asks for comes first.

	// Request is for the header that may name the destination; nil for a byte
	// stream.
	Request *message.Request
	// Shard counts the choice.
	Shard telemetry.Shard
	// HasHash: Hash is what hash policies place the request by; without one they choose at
	// random.
	HasHash bool
	// Client is for balancers with hash policies of their own; nil where Hash is by those already.
	Client *route.Client
	// Metadata chooses a subset.
	Metadata *MetadataMatch
	// Tried are the hosts of the attempts before this one. Where OtherPriorities is not 0 it goes
	// to none of their priorities, which are looked at anew after so many attempts each.
	Tried           *Tried
	OtherPriorities int
	// Avoid are hosts that were tried. With OmitCanary those are to be avoided too whose metadata
	// call them canary, and for each of OmitMetadata those that have all of it. Reselections is how
	// many more choices are made when the first is to be avoided; the last one is taken. Where it
	// is 0 or not below the number of hosts, such a host is chosen only when there is no other.
	Avoid        []*Host
	OmitCanary   bool
	OmitMetadata []map[string]any
	Reselections int
	Hash         uint64
	// Destination is where the client meant to connect to, where a firewall
	// redirected it; otherwise invalid. It is for OriginalDestination.
	Destination netip.AddrPort
}

// Pick is PickFor with nothing but hosts to avoid.
func (c *Cluster) Pick(avoid []*Host) (*Host, error) {
	return c.PickFor(&PickContext{Avoid: avoid})
}

// PickFor chooses a host. An aggregate cluster chooses among the levels of all its
// clusters; the host's Cluster is the one whose limits and counters apply. It
// allocates only for a retry that avoids priorities.
func (c *Cluster) PickFor(pc *PickContext) (*Host, error) {
	not := pc.exclusion(c)
	h := c.once(pc, 0, not)
	if h != nil && pc != nil && pc.avoids(h) {
		h = c.another(pc, h, not)
	}
	if h != nil {
		return h, nil
	}
	if c.metrics != nil {
		c.metrics.Use().NoHealthy.Inc(0)
	}
	return nil, &Error{Kind: NoHealthyHost, Cluster: c.name}
}

// fairReselections is how often a host is chosen again before one that was not tried is
// looked for in order: chance, or the next place of the hash, gives a fair one in most
// cases.
const fairReselections = 5

// avoids tells whether h is to be avoided.
func (pc *PickContext) avoids(h *Host) bool {
	// As in Envoy another host of the same address is the same.
	if slices.ContainsFunc(pc.Avoid, func(o *Host) bool { return o == h || o.key == h.key }) {
		return true
	}
	if !pc.OmitCanary && pc.OmitMetadata == nil {
		return false
	}
	have := h.Endpoint().Metadata[lbNamespace]
	if pc.OmitCanary && have["canary"] == true {
		return true
	}
	return slices.ContainsFunc(pc.OmitMetadata, func(all map[string]any) bool { return hasAll(have, all) })
}

// hasAll tells whether metadata have each of some values, or a list with it.
func hasAll(have, all map[string]any) bool {
	for key, want := range all {
		got, ok := have[key]
		if list, many := got.([]any); many {
			ok = slices.ContainsFunc(list, func(v any) bool { return reflect.DeepEqual(v, want) })
		} else {
			ok = ok && reflect.DeepEqual(got, want)
		}
		if !ok {
			return false
		}
	}
	return true
}

// another looks for a host that is not to be avoided. A request with metadata criteria stays
// within them, and one that avoids priorities within the others: of those its shares say which.
func (c *Cluster) another(pc *PickContext, tried *Host, not *exclusion) *Host {
	thorough := pc.Reselections <= 0 || pc.Reselections >= c.size()
	more := pc.Reselections
	if thorough && (more <= 0 || more > fairReselections) {
		more = fairReselections
	}
	last := tried
	for attempt := 1; attempt <= more; attempt++ {
		h := c.once(pc, attempt, not)
		if h == nil {
			break
		}
		if last = h; !pc.avoids(h) {
			return h
		}
	}
	if thorough && not == nil {
		if h := c.scan(pc); h != nil {
			return h
		}
	}
	return last
}

// size is how many hosts there are.
func (c *Cluster) size() int {
	s := c.cfg.Load()
	switch s.Type {
	case OriginalDestination:
		return c.destinations.size()
	case Aggregate:
		n := 0
		for _, child := range c.aggregated(s).clusters {
			n += child.size()
		}
		return n
	}
	return len(c.set.Load().hosts)
}

func (c *Cluster) scan(pc *PickContext) *Host {
	s := c.cfg.Load()
	switch {
	case s.Type == OriginalDestination:
		return nil
	case s.Type != Aggregate:
		return c.set.Load().scan(s, pc)
	}
	for _, child := range c.aggregated(s).clusters {
		if h := child.scan(pc); h != nil {
			return h
		}
	}
	return nil
}

func (set *endpointSet) scan(s *settings, pc *PickContext) *Host {
	if set.subsets == nil {
		return set.whole.scan(s, pc)
	}
	if h := set.choose(s, pc, pick{level: -1, avoid: pc}); h != nil && !pc.avoids(h) {
		return h
	}
	return nil
}

// once makes one choice, which avoids levels by not.
func (c *Cluster) once(pc *PickContext, attempt int, not *exclusion) *Host {
	s := c.cfg.Load()
	switch s.Type {
	case OriginalDestination:
		return c.destinations.pick(s, pc)
	case Aggregate:
		return c.pickAggregate(s, pc, attempt, not)
	}
	return c.set.Load().choose(s, pc, pick{attempt: attempt, level: -1, not: not})
}

func (set *endpointSet) choose(s *settings, pc *PickContext, p pick) *Host {
	if pc != nil {
		p.shard = pc.Shard
	}
	switch {
	case s.hashes():
		p.hash = s.hash(pc)
	case set.subsets != nil || set.whole.loads != nil || p.not != nil:
		p.hash = rand.Uint64()
	}
	if set.subsets != nil {
		return set.subsets.pick(pc, p)
	}
	return set.whole.choose(s, p)
}

// hash is what places a request: that of the balancer's own policies, where it has any, or else
// the one it came with, or chance.
func (s *settings) hash(pc *PickContext) uint64 {
	switch {
	case pc == nil:
	case s.OwnHash() && pc.Client != nil:
		if h, ok := route.HashOf(s.Hash.Policies, pc.Request, pc.Client); ok {
			return h
		}
	case pc.HasHash:
		return pc.Hash
	}
	return rand.Uint64()
}
