package cluster

import (
	"encoding/json"
	"maps"
	"slices"
)

// MetadataMatch is what a route asks of its endpoints' "envoy.lb" metadata, ready
// to be looked up. Immutable.
type MetadataMatch struct {
	keys   []string // sorted
	values []string // canonical
	text   string   // keys and values as subsetKey joins them
	// preferred are the criteria to try in order where the cluster's policy is
	// a fallback list; they replace this one.
	preferred []*MetadataMatch
}

// fallbackList is the key whose value is a list of maps: criteria to try in order.
const fallbackList = "fallback_list"

// NewMetadataMatch makes criteria of fields whose values are as JSON decodes them.
// Without fields it returns nil, which asks for nothing.
func NewMetadataMatch(fields map[string]any) *MetadataMatch {
	if len(fields) == 0 {
		return nil
	}
	m := compileMatch(fields)
	list, ok := fields[fallbackList].([]any)
	if !ok {
		return m
	}
	base := maps.Clone(fields)
	delete(base, fallbackList)
	for _, e := range list {
		merged := maps.Clone(base)
		if over, ok := e.(map[string]any); ok {
			maps.Copy(merged, over)
		}
		m.preferred = append(m.preferred, compileMatch(merged))
	}
	if len(list) == 0 {
		m.preferred = []*MetadataMatch{compileMatch(base)}
	}
	return m
}

func compileMatch(fields map[string]any) *MetadataMatch {
	m := &MetadataMatch{keys: slices.Sorted(maps.Keys(fields))}
	var text []byte
	for _, k := range m.keys {
		v := canonical(fields[k])
		m.values = append(m.values, v)
		text = appendCriterion(text, k, v)
	}
	m.text = string(text)
	return m
}

// canonical is a value's JSON, the same for equal values.
func canonical(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "" // a value that JSON did not make equals nothing configured
	}
	return string(b)
}

func appendCriterion(dst []byte, key, value string) []byte {
	dst = append(dst, key...)
	dst = append(dst, 0)
	dst = append(dst, value...)
	return append(dst, 0)
}

// only appends the criteria of keys, which are sorted; false where one is missing.
func (m *MetadataMatch) only(dst []byte, keys []string) ([]byte, bool) {
	i := 0
	for _, k := range keys {
		for i < len(m.keys) && m.keys[i] < k {
			i++
		}
		if i == len(m.keys) || m.keys[i] != k {
			return dst, false
		}
		dst = appendCriterion(dst, k, m.values[i])
	}
	return dst, true
}
