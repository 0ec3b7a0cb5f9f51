package decode

import (
	"reflect"
	"strings"
	"sync"
)

// field is a struct field that a key can mean.
type field struct {
	name  string
	index []int
}

// fieldSet maps what keys are reduced to (see reduce) to fields.
type fieldSet map[string]field

var fieldCache sync.Map // reflect.Type -> fieldSet

// fieldsOf collects the names of a struct's fields: their Go name, json name
// and alias.
func fieldsOf(t reflect.Type) fieldSet {
	if c, ok := fieldCache.Load(t); ok {
		return c.(fieldSet)
	}
	out := fieldSet{}
	for _, f := range reflect.VisibleFields(t) {
		if !f.IsExported() || f.Anonymous {
			continue
		}
		jsonName, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if jsonName == "-" {
			continue
		}
		for _, name := range []string{f.Name, jsonName, f.Tag.Get("alias")} {
			if name != "" {
				out[reduce(name)] = field{f.Name, f.Index}
			}
		}
	}
	fieldCache.Store(t, out)
	return out
}

func (s fieldSet) find(key string) (field, bool) {
	f, ok := s[reduce(key)]
	return f, ok
}

// nearest is the field whose name is at most two edits away from a key.
func (s fieldSet) nearest(key string) string {
	const limit = 2
	best, name := limit+1, ""
	k := reduce(key)
	for _, candidate := range sortedKeys(s) {
		if e := edits(k, candidate, limit); e < best && e < len(candidate) {
			best, name = e, s[candidate].name
		}
	}
	return name
}

// reduce makes PathPrefix, path_prefix and pathprefix the same key.
func reduce(key string) string {
	return strings.ToLower(strings.ReplaceAll(key, "_", ""))
}

func sameKey(a, b string) bool { return reduce(a) == reduce(b) }

// edits is the Levenshtein distance of two strings, or limit+1 if it is more.
func edits(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal, row[j] = row[j], min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
