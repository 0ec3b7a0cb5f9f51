package cluster

import "testing"

// TestSubsetsMakeWhatIsAsked: of all hosts, and of the default subset, tables are made where a
// policy may ask them, and no others: they are dear.
func TestSubsetsMakeWhatIsAsked(t *testing.T) {
	selector := func(f Fallback) []Selector { return []Selector{{Keys: []string{"v"}, Fallback: f}} }
	for name, tc := range map[string]struct {
		subsets       Subsets
		any, fallback bool
	}{
		"none":                  {Subsets{Selectors: selector(FallbackUnset), Fallback: FallbackNone}, false, false},
		"any":                   {Subsets{Selectors: selector(FallbackUnset), Fallback: FallbackAny}, true, false},
		"default":               {Subsets{Selectors: selector(FallbackUnset), Fallback: FallbackDefault}, false, true},
		"default, then any":     {Subsets{Selectors: selector(FallbackUnset), Fallback: FallbackDefault, PanicAny: true}, true, true},
		"any of a selector":     {Subsets{Selectors: selector(FallbackAny), Fallback: FallbackNone}, true, false},
		"default of a selector": {Subsets{Selectors: selector(FallbackDefault), Fallback: FallbackNone}, false, true},
	} {
		c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", LB: RingHash, Subsets: &tc.subsets, Endpoints: labelled("v=1", "v=1", "v=2")})
		set := c.set.Load()
		if set.subsets.any != nil != tc.any || set.subsets.fallback != nil != tc.fallback || set.whole.levels[0].healthy.table != nil {
			t.Errorf("%s: any: %v, default: %v, whole: %v", name, set.subsets.any, set.subsets.fallback, set.whole.levels[0].healthy.table)
		}
		// Aggregates ask how many there are of which health.
		if n := set.whole.levels[0].census; n.hosts != 3 || n.healthy != 3 {
			t.Errorf("%s: %+v", name, n)
		}
		set.each(func(*balancer) {})
		for _, v := range []string{"1", "2", "3"} {
			h, _ := c.PickFor(&PickContext{Metadata: NewMetadataMatch(map[string]any{"v": v})})
			if want := v != "3" || tc.any || tc.fallback; (h != nil) != want {
				t.Errorf("%s: v=%s: %v", name, v, h)
			}
		}
	}
}
