package route

import (
	"reflect"
	"sync"
)

// shared are what filters have made of a table's overrides.
type shared struct{ things sync.Map } // by sharedKey

type sharedKey struct {
	of   *FilterOverride
	kind reflect.Type
}

// Share returns what was made of an override of the table first, of the kind that made is: a limit of
// a route is one for all that use the table, for each chain of each listener, as in Envoy.
func (t *Table) Share(o *FilterOverride, made any) any {
	first, _ := t.made.things.LoadOrStore(sharedKey{o, reflect.TypeOf(made)}, made)
	return first
}

// Inherit has what was made of overrides go on with what was made of those that were in their places
// in another table. Nobody uses t yet.
func (t *Table) Inherit(before *Table) {
	var heirs []sharedKey
	t.made.things.Range(func(key, made any) bool {
		if _, ok := made.(heir); ok {
			heirs = append(heirs, key.(sharedKey))
		}
		return true
	})
	if len(heirs) == 0 {
		return
	}
	places, old := map[*FilterOverride]string{}, map[string]*FilterOverride{}
	t.EachOverride(func(where string, o *FilterOverride) { places[o] = where + o.Name })
	before.EachOverride(func(where string, o *FilterOverride) { old[where+o.Name] = o })
	for _, key := range heirs {
		made, _ := t.made.things.Load(key)
		if was, ok := before.made.things.Load(sharedKey{old[places[key.of]], key.kind}); ok {
			made.(heir).Inherit(was)
		}
	}
}

// heir is filter.Heir.
type heir interface{ Inherit(before any) }
