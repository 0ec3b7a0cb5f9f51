package cluster

import (
	"fmt"
	"slices"
)

// Subsets divide a cluster's hosts by metadata, as Envoy's subset load balancer
// does.
type Subsets struct {
	Selectors []Selector
	Fallback  Fallback
	// Default are the "envoy.lb" values of the hosts that FallbackDefault uses.
	Default map[string]any
	// LocalityWeighted keeps locality weights within a subset, ScaleLocality by how
	// many of a locality's hosts it has.
	LocalityWeighted, ScaleLocality bool
	// PanicAny uses all hosts where the fallback has none.
	PanicAny bool
	// ListAsAny takes a host whose value is a list for each of its elements.
	ListAsAny bool
	// FallbackList honours the criterion "fallback_list": criteria to try in order.
	FallbackList bool
	// AllowRedundant ignores criteria that are in no selector, if a selector has
	// the others.
	AllowRedundant bool
}

// Selector makes a subset of each combination of values of Keys, which are sorted.
type Selector struct {
	Keys       []string
	SingleHost bool
	Fallback   Fallback
	// FallbackKeys are the keys that FallbackKeysSubset looks for; sorted.
	FallbackKeys []string
}

// Fallback is what to use where no subset matches.
type Fallback uint8

// The fallback policies. FallbackUnset, of a selector, means the cluster's.
const (
	FallbackUnset Fallback = iota
	FallbackNone
	FallbackAny
	FallbackDefault
	FallbackKeysSubset
)

// subset is the hosts of one combination of values: single, or balanced.
type subset struct {
	single *Host
	*balancer
}

// subsetIndex finds subsets. Immutable.
type subsetIndex struct {
	// settings are those it was made of: newer ones may have no subsets any more.
	settings  *settings
	byText    map[string]*subset // by criteria, as MetadataMatch has them
	selectors map[string]*Selector
	any       *subset // all hosts, and
	fallback  *subset // the default subset; each nil where no policy falls back on it
}

func newSubsetIndex(rosters []roster, s *settings, a *Assignment, now int64) *subsetIndex {
	x := &subsetIndex{settings: s, byText: map[string]*subset{}, selectors: map[string]*Selector{}}
	all := func(*Host) bool { return true }
	balance := func(keep func(*Host) bool) *subset { return &subset{balancer: newBalancer(rosters, keep, s, a, now)} }
	if s.Subsets.PanicAny || s.Subsets.fallsBack(FallbackAny) {
		x.any = balance(all)
	}
	if s.Subsets.fallsBack(FallbackDefault) {
		x.fallback = balance(func(h *Host) bool { return matchesAll(h, s.Subsets.Default, s.Subsets.ListAsAny) })
	}
	members := map[string]map[*Host]bool{}
	for i := range s.Subsets.Selectors {
		sel := &s.Subsets.Selectors[i]
		names := joinKeys(sel.Keys)
		if x.selectors[names] == nil {
			x.selectors[names] = sel
		}
		for j := range rosters {
			for _, h := range rosters[j].hosts {
				for _, text := range combinations(h, sel.Keys, s.Subsets.ListAsAny) {
					if sel.SingleHost {
						if x.byText[text] == nil {
							x.byText[text] = &subset{single: h}
						}
						continue
					}
					if members[text] == nil {
						members[text] = map[*Host]bool{}
					}
					members[text][h] = true
				}
			}
		}
	}
	for text, in := range members {
		x.byText[text] = balance(func(h *Host) bool { return in[h] })
	}
	return x
}

// fallsBack tells whether a policy, the cluster's or a selector's, is to.
func (s *Subsets) fallsBack(to Fallback) bool {
	return s.Fallback == to || slices.ContainsFunc(s.Selectors, func(sel Selector) bool { return sel.Fallback == to })
}

func joinKeys(keys []string) string {
	var b []byte
	for _, k := range keys {
		b = append(append(b, k...), 0)
	}
	return string(b)
}

// combinations are the criteria that a host fulfils for keys: none where it lacks
// one, several where lists stand for each of their elements.
func combinations(h *Host, keys []string, lists bool) []string {
	out := []string{""}
	for _, k := range keys {
		v, ok := h.Endpoint().Metadata[lbNamespace][k]
		if !ok {
			return nil
		}
		values := []any{v}
		if list, ok := v.([]any); ok && lists {
			values = list
		}
		var next []string
		for _, stem := range out {
			for _, v := range values {
				next = append(next, string(appendCriterion([]byte(stem), k, canonical(v))))
			}
		}
		out = next
	}
	return out
}

// maxCombinations bounds the subsets that one endpoint may be in: lists multiply.
const maxCombinations = 1024

// check refuses endpoints whose lists would put them in too many subsets.
func (s *Subsets) check(a *Assignment) error {
	if s == nil || !s.ListAsAny || a == nil {
		return nil
	}
	for i, l := range a.Localities {
		for j, e := range l.Endpoints {
			if n := s.combinations(e.Metadata[lbNamespace]); n > maxCombinations {
				return fmt.Errorf("localities[%d].endpoints[%d]: the lists in its %s metadata put it in more than %d subsets, because of list_as_any; use shorter lists, or selectors with fewer keys",
					i, j, lbNamespace, maxCombinations)
			}
		}
	}
	return nil
}

// combinations is in how many subsets an endpoint is, or a number above the limit.
func (s *Subsets) combinations(metadata map[string]any) (sum int) {
	for _, sel := range s.Selectors {
		n := 1
		for _, k := range sel.Keys {
			v, ok := metadata[k]
			if list, isList := v.([]any); isList {
				n *= min(len(list), maxCombinations+1)
			} else if !ok {
				n = 0
			}
			n = min(n, maxCombinations+1)
		}
		sum = min(sum+n, maxCombinations+1)
	}
	return sum
}

func matchesAll(h *Host, want map[string]any, lists bool) bool {
	have := h.Endpoint().Metadata[lbNamespace]
	for k, v := range want {
		got, ok := have[k]
		list, isList := got.([]any)
		switch {
		case !ok:
			return false
		case lists && isList:
			if !slices.ContainsFunc(list, func(e any) bool { return canonical(e) == canonical(v) }) {
				return false
			}
		case canonical(got) != canonical(v):
			return false
		}
	}
	return true
}

// pick chooses a host by the context's criteria and the fallback policies.
func (x *subsetIndex) pick(pc *PickContext, p pick) *Host {
	s := x.settings
	var m *MetadataMatch
	if pc != nil {
		m = pc.Metadata
	}
	if m != nil && s.Subsets.FallbackList && m.preferred != nil {
		for _, alternative := range m.preferred {
			if h := x.pickCriteria(s, alternative, p); h != nil {
				return h
			}
		}
		return nil
	}
	return x.pickCriteria(s, m, p)
}

// keySpace is how long criteria may be to be looked up without allocating.
const keySpace = 512

func (x *subsetIndex) pickCriteria(s *settings, m *MetadataMatch, p pick) *Host {
	if m == nil {
		return x.pickFallback(s, p)
	}
	if sub := x.byText[m.text]; sub != nil && !s.Subsets.AllowRedundant {
		s.picks.subsets[subsetSelected].Inc(p.shard)
		return sub.choose(s, p)
	}
	return x.pickElsewhere(s, m, p)
}

// pickElsewhere follows the policies for criteria that no subset has as they are.
func (x *subsetIndex) pickElsewhere(s *settings, m *MetadataMatch, p pick) *Host {
	var space [keySpace]byte
	sub, sel := x.byText[m.text], x.selectorOf(m.keys)
	if s.Subsets.AllowRedundant {
		for i := range s.Subsets.Selectors {
			if text, ok := m.only(space[:0], s.Subsets.Selectors[i].Keys); ok {
				sub, sel = x.byText[string(text)], &s.Subsets.Selectors[i]
				break
			}
		}
	}
	// Keys of a fallback are fewer each time, so this ends.
	for {
		if sub != nil {
			s.picks.subsets[subsetSelected].Inc(p.shard)
			return sub.choose(s, p)
		}
		switch {
		case sel == nil || sel.Fallback == FallbackUnset:
			return x.pickFallback(s, p)
		case sel.Fallback == FallbackNone:
			return nil
		case sel.Fallback == FallbackAny:
			return x.any.choose(s, p)
		case sel.Fallback == FallbackDefault:
			return x.fallback.choose(s, p)
		}
		keys := sel.FallbackKeys
		text, ok := m.only(space[:0], keys)
		if !ok {
			return x.pickFallback(s, p)
		}
		sub, sel = x.byText[string(text)], x.selectorOf(keys)
	}
}

func (x *subsetIndex) selectorOf(keys []string) *Selector {
	var space [keySpace]byte
	names := space[:0]
	for _, k := range keys {
		names = append(append(names, k...), 0)
	}
	return x.selectors[string(names)]
}

// pickFallback is the cluster's own policy.
func (x *subsetIndex) pickFallback(s *settings, p pick) *Host {
	var h *Host
	switch s.Subsets.Fallback {
	case FallbackAny:
		h = x.any.choose(s, p)
	case FallbackDefault:
		h = x.fallback.choose(s, p)
	default:
		return nil
	}
	if h != nil {
		s.picks.subsets[subsetFallback].Inc(p.shard)
		return h
	}
	if s.Subsets.PanicAny {
		if h = x.any.choose(s, p); h != nil {
			s.picks.subsets[subsetPanic].Inc(p.shard)
		}
	}
	return h
}

func (b *subset) choose(s *settings, p pick) *Host {
	if b.single != nil {
		return b.single
	}
	h := b.balancer.choose(s, p)
	if h != nil && p.avoid != nil && p.avoid.avoids(h) {
		if other := b.scan(s, p.avoid); other != nil {
			return other
		}
	}
	return h
}

// How a choice among subsets came about.
const (
	subsetSelected = iota
	subsetFallback
	subsetPanic
)
