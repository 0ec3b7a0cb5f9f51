package cluster

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// labelled makes hosts 10.0.0.1, 10.0.0.2 … with "k=v k=v" metadata; "k=v,w" is a
// list, and "unhealthy" a state.
func labelled(specs ...string) *Assignment {
	a := &Assignment{Localities: []Locality{{}}}
	for i, spec := range specs {
		e := Endpoint{Host: "10.0.0." + string(rune('1'+i)), Port: 80}
		fields := map[string]any{}
		for f := range strings.FieldsSeq(spec) {
			k, v, ok := strings.Cut(f, "=")
			switch {
			case !ok:
				e.Health = Unhealthy
			case strings.Contains(v, ","):
				var list []any
				for _, x := range strings.Split(v, ",") {
					list = append(list, x)
				}
				fields[k] = list
			default:
				fields[k] = v
			}
		}
		e.Metadata = map[string]map[string]any{"envoy.lb": fields}
		a.Localities[0].Endpoints = append(a.Localities[0].Endpoints, e)
	}
	return a
}

// reached are the last digits of the hosts that criteria reach.
func reached(c *Cluster, criteria map[string]any) string {
	seen := map[string]bool{}
	pc := &PickContext{Metadata: NewMetadataMatch(criteria)}
	for range 100 {
		h, err := c.PickFor(pc)
		if err != nil {
			return "none"
		}
		seen[h.Endpoint().Host[7:]] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(seen)), "")
}

func TestSubsets(t *testing.T) {
	type m = map[string]any
	sel := func(fallback Fallback, keys ...string) Selector { return Selector{Keys: keys, Fallback: fallback} }
	hosts := []string{"stage=prod version=1", "stage=prod version=2", "stage=dev version=1", "version=1,3"}
	both := []Selector{sel(FallbackUnset, "stage", "version"), sel(FallbackUnset, "stage")}
	keys := Selector{Keys: []string{"stage", "version"}, Fallback: FallbackKeysSubset, FallbackKeys: []string{"stage"}}
	for name, tc := range map[string]struct {
		s        Subsets
		criteria m
		want     string
	}{
		"one key":                    {Subsets{Selectors: both}, m{"stage": "prod"}, "12"},
		"two keys":                   {Subsets{Selectors: both}, m{"version": "2", "stage": "prod"}, "2"},
		"no such value":              {Subsets{Selectors: both, Fallback: FallbackNone}, m{"stage": "qa"}, "none"},
		"no such keys":               {Subsets{Selectors: both, Fallback: FallbackNone}, m{"version": "1"}, "none"},
		"no criteria":                {Subsets{Selectors: both, Fallback: FallbackNone}, nil, "none"},
		"any":                        {Subsets{Selectors: both, Fallback: FallbackAny}, m{"stage": "qa"}, "1234"},
		"any without criteria":       {Subsets{Selectors: both, Fallback: FallbackAny}, nil, "1234"},
		"default":                    {Subsets{Selectors: both, Fallback: FallbackDefault, Default: m{"stage": "dev"}}, m{"stage": "qa"}, "3"},
		"default of nothing":         {Subsets{Selectors: both, Fallback: FallbackDefault, Default: m{"stage": "x"}}, m{"stage": "qa"}, "none"},
		"panic":                      {Subsets{Selectors: both, Fallback: FallbackDefault, Default: m{"stage": "x"}, PanicAny: true}, m{"stage": "qa"}, "1234"},
		"selector none":              {Subsets{Selectors: []Selector{sel(FallbackNone, "stage")}, Fallback: FallbackAny}, m{"stage": "qa"}, "none"},
		"selector any":               {Subsets{Selectors: []Selector{sel(FallbackAny, "stage")}, Fallback: FallbackNone}, m{"stage": "qa"}, "1234"},
		"selector default":           {Subsets{Selectors: []Selector{sel(FallbackDefault, "stage")}, Fallback: FallbackNone, Default: m{"version": "2"}}, m{"stage": "qa"}, "2"},
		"selector of fewer keys":     {Subsets{Selectors: []Selector{keys, sel(FallbackNone, "stage")}}, m{"stage": "dev", "version": "9"}, "3"},
		"fewer keys, none":           {Subsets{Selectors: []Selector{keys, sel(FallbackNone, "stage")}, Fallback: FallbackAny}, m{"stage": "qa", "version": "9"}, "none"},
		"fewer keys of no selector":  {Subsets{Selectors: []Selector{keys}, Fallback: FallbackAny}, m{"stage": "dev", "version": "9"}, "1234"},
		"lists are values":           {Subsets{Selectors: []Selector{sel(FallbackNone, "version")}}, m{"version": "3"}, "none"},
		"a list as a value":          {Subsets{Selectors: []Selector{sel(FallbackNone, "version")}}, m{"version": []any{"1", "3"}}, "4"},
		"lists are each":             {Subsets{Selectors: []Selector{sel(FallbackNone, "version")}, ListAsAny: true}, m{"version": "1"}, "134"},
		"lists in the default":       {Subsets{Selectors: both, Fallback: FallbackDefault, Default: m{"version": "3"}, ListAsAny: true}, nil, "4"},
		"superfluous keys":           {Subsets{Selectors: both, Fallback: FallbackNone}, m{"stage": "dev", "team": "a"}, "none"},
		"superfluous keys allowed":   {Subsets{Selectors: both, Fallback: FallbackNone, AllowRedundant: true}, m{"stage": "dev", "team": "a"}, "3"},
		"fallback list":              {Subsets{Selectors: both, Fallback: FallbackNone, FallbackList: true}, m{"stage": "qa", "fallback_list": []any{m{"version": "7"}, m{"stage": "dev"}, m{"stage": "prod"}}}, "3"},
		"fallback list, none":        {Subsets{Selectors: both, Fallback: FallbackNone, FallbackList: true}, m{"stage": "prod", "fallback_list": []any{m{"stage": "x"}}}, "none"},
		"empty fallback list":        {Subsets{Selectors: both, Fallback: FallbackNone, FallbackList: true}, m{"stage": "dev", "fallback_list": []any{}}, "3"},
		"fallback list switched off": {Subsets{Selectors: both, Fallback: FallbackNone}, m{"stage": "prod", "fallback_list": []any{m{"stage": "dev"}}}, "none"},
		"one host each":              {Subsets{Selectors: []Selector{{Keys: []string{"stage"}, SingleHost: true}}}, m{"stage": "prod"}, "1"},
	} {
		t.Run(name, func(t *testing.T) {
			c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", Endpoints: labelled(hosts...), Subsets: &tc.s})
			if got := reached(c, tc.criteria); got != tc.want {
				t.Errorf("reached %s, not %s", got, tc.want)
			}
		})
	}
}

// Health, priorities and panic are each subset's own.
func TestSubsetHealth(t *testing.T) {
	none := 0.0
	s := &Subsets{Selectors: []Selector{{Keys: []string{"v"}}}, Fallback: FallbackAny}
	m := newManager(t, Options{})
	c := mustUpdate(t, m, &Config{Name: "c", PanicThreshold: &none, Endpoints: labelled("v=1", "v=1 unhealthy", "v=2 unhealthy"), Subsets: s})
	if got := reached(c, map[string]any{"v": "1"}); got != "1" {
		t.Errorf("reached %s", got)
	}
	// A subset that exists is used, though nobody in it is healthy.
	if got := reached(c, map[string]any{"v": "2"}); got != "none" {
		t.Errorf("reached %s", got)
	}
	c = mustUpdate(t, m, &Config{Name: "c", Endpoints: labelled("v=1", "v=1 unhealthy", "v=2 unhealthy"), Subsets: s})
	if got := reached(c, map[string]any{"v": "2"}); got != "3" {
		t.Errorf("in panic reached %s", got)
	}
	if n := c.metrics.SubsetPicks()[0].Value(); n == 0 {
		t.Error("the choice was not counted")
	}
	if reached(c, nil); c.metrics.SubsetPicks()[1].Value() == 0 {
		t.Error("the fallback was not counted")
	}
	// Criteria hold for another attempt too.
	h, _ := c.PickFor(&PickContext{Metadata: NewMetadataMatch(map[string]any{"v": "2"})})
	if again, _ := c.PickFor(&PickContext{Metadata: NewMetadataMatch(map[string]any{"v": "2"}), Avoid: []*Host{h}}); again != h {
		t.Errorf("another attempt left the subset for %s", again.Address())
	}
}

func TestSubsetLocalities(t *testing.T) {
	zone := func(z string, weight uint32, labels ...string) Locality {
		l := labelled(labels...).Localities[0]
		for i := range l.Endpoints {
			l.Endpoints[i].Host = "10.0." + z + l.Endpoints[i].Host[6:]
		}
		l.Zone, l.Weight = z, weight
		return l
	}
	a := &Assignment{Localities: []Locality{zone("1", 10, "v=1", "v=2", "v=2", "v=2", "v=2"), zone("2", 10, "v=1")}}
	for name, tc := range map[string]struct {
		aware, scale bool
		first        int // percent of v=1 in the first zone
	}{"off": {false, false, 50}, "weights": {true, false, 50}, "scaled": {true, true, 17}} {
		c := mustUpdate(t, newManager(t, Options{}), &Config{
			Name: "c", Endpoints: a, LocalityWeighted: true,
			Subsets: &Subsets{Selectors: []Selector{{Keys: []string{"v"}}}, LocalityWeighted: tc.aware, ScaleLocality: tc.scale},
		})
		pc := &PickContext{Metadata: NewMetadataMatch(map[string]any{"v": "1"})}
		n := 0
		for range 1000 {
			if h, _ := c.PickFor(pc); h.locality.Zone == "1" {
				n++
			}
		}
		if d := n/10 - tc.first; d < -2 || d > 2 {
			t.Errorf("%s: %d of 1000 in the first zone", name, n)
		}
	}
}

// TestListsAreBounded: lists multiply, so that a few short ones could fill the memory.
func TestListsAreBounded(t *testing.T) {
	const ten = "=1,2,3,4,5,6,7,8,9,10 "
	thousand, million := labelled("a"+ten+"b"+ten+"c"+ten), labelled("a=1", "a"+ten+"b"+ten+"c"+ten+"d"+ten+"e"+ten+"f"+ten)
	all := Selector{Keys: []string{"a", "b", "c", "d", "e", "f"}}
	subsets := func(lists bool, selectors ...Selector) *Subsets {
		return &Subsets{ListAsAny: lists, Selectors: selectors}
	}
	for name, tc := range map[string]struct {
		a  *Assignment
		s  *Subsets
		at string // the endpoint that is refused
	}{
		"a thousand":              {thousand, subsets(true, Selector{Keys: []string{"a", "b", "c"}}), ""},
		"and some more":           {thousand, subsets(true, Selector{Keys: []string{"a", "b", "c"}}, Selector{Keys: []string{"a", "b"}}), "localities[0].endpoints[0]"},
		"a million":               {million, subsets(true, all), "localities[0].endpoints[1]"},
		"a list is one value":     {million, subsets(false, all), ""},
		"a key that is not there": {million, subsets(true, Selector{Keys: []string{"a", "b", "c", "d", "e", "z"}}), ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, Options{})
			refused := func(what string, err error) {
				t.Helper()
				if (err != nil) != (tc.at != "") || err != nil && !strings.Contains(err.Error(), tc.at) {
					t.Errorf("%s: %v", what, err)
				}
			}
			refused("static", m.Update(&Config{Name: "static", Endpoints: tc.a, Subsets: tc.s}))
			c := mustUpdate(t, m, &Config{Name: "eds", Type: EDS, Subsets: tc.s})
			a := *tc.a
			a.Cluster = "eds"
			refused("endpoints", m.SetEndpoints(&a))
			if n := len(c.hosts()); tc.at != "" && n != 0 {
				t.Errorf("%d hosts of what was refused", n)
			}
			mustUpdate(t, m, &Config{Name: "later", Type: EDS})
			a.Cluster = "later"
			if err := m.SetEndpoints(&a); err != nil {
				t.Error(err)
			}
			refused("subsets", m.Update(&Config{Name: "later", Type: EDS, Subsets: tc.s}))
		})
	}
}

func FuzzMetadataMatch(f *testing.F) {
	f.Add("stage", "prod", "version", "1")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string) {
		m := NewMetadataMatch(map[string]any{k1: v1, k2: v2})
		if text, ok := m.only(nil, m.keys); !ok || string(text) != m.text {
			t.Errorf("%q is not %q", text, m.text)
		}
	})
}
