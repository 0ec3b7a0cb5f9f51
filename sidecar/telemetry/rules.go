package telemetry

import (
	"maps"
	"runtime"
	"slices"
	"sync"
	"weak"
)

// ruleCounters count decisions by the rule that made them. Rules come and go with every
// change of a policy and have no end that anybody would tell of: the rules of a connection
// or a route may outlive those that replace them. So a counter is here for as long as
// rules hold it, and what nothing can count any more is not shown.
type ruleCounters struct {
	mu sync.Mutex
	of map[ruleKey]weak.Pointer[Counter]
}

type ruleKey struct{ decision, rule string }

// keepRules has a family show these counters.
func (v *CounterVec) keepRules() *ruleCounters {
	r := &ruleCounters{of: map[ruleKey]weak.Pointer[Counter]{}}
	v.f.mu.Lock()
	defer v.f.mu.Unlock()
	v.f.more = r.visit
	return r
}

// with returns the counter that all rules of a name share.
func (r *ruleCounters) with(decision, rule string) *Counter {
	key := ruleKey{decision, rule}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.of[key].Value(); c != nil {
		return c
	}
	c := &Counter{b: newBlock(1)}
	r.of[key] = weak.Make(c)
	runtime.AddCleanup(c, r.forget, key)
	return c
}

// forget drops a counter that is gone, unless another has its place.
func (r *ruleCounters) forget(key ruleKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of[key].Value() == nil {
		delete(r.of, key)
	}
}

// visit implements family.more.
func (r *ruleCounters) visit(_ *family, visit func(*series)) {
	r.mu.Lock()
	of := maps.Clone(r.of)
	r.mu.Unlock()
	all := make([]series, 0, len(of))
	for key, p := range of {
		if c := p.Value(); c != nil {
			all = append(all, series{labels: []string{key.decision, key.rule}, counter: c})
		}
	}
	slices.SortFunc(all, func(a, b series) int { return slices.Compare(a.labels, b.labels) })
	for i := range all {
		visit(&all[i])
	}
}
