package cluster

import "testing"

// TestOmitted: a retry avoids canaries, and hosts that have all of some metadata, where there are
// others.
func TestOmitted(t *testing.T) {
	lb := func(fields map[string]any) map[string]map[string]any {
		return map[string]map[string]any{lbNamespace: fields}
	}
	for _, c := range []struct {
		name     string
		pc       PickContext
		metadata map[string]map[string]any
		omitted  bool
	}{
		{"a canary", PickContext{OmitCanary: true}, lb(map[string]any{"canary": true}), true},
		{"no canary", PickContext{OmitCanary: true}, lb(map[string]any{"canary": false}), false},
		{"a text is no flag", PickContext{OmitCanary: true}, lb(map[string]any{"canary": "true"}), false},
		{"another namespace", PickContext{OmitCanary: true}, map[string]map[string]any{"other": {"canary": true}}, false},
		{"canaries may be", PickContext{}, lb(map[string]any{"canary": true}), false},
		{"a label", PickContext{OmitMetadata: []map[string]any{{"a": "b"}}}, lb(map[string]any{"a": "b", "c": "d"}), true},
		{"all labels", PickContext{OmitMetadata: []map[string]any{{"a": "b", "c": "d"}}}, lb(map[string]any{"a": "b", "c": "d"}), true},
		{"not all labels", PickContext{OmitMetadata: []map[string]any{{"a": "b", "c": "e"}}}, lb(map[string]any{"a": "b", "c": "d"}), false},
		{"either", PickContext{OmitMetadata: []map[string]any{{"a": "x"}, {"c": "d"}}}, lb(map[string]any{"a": "b", "c": "d"}), true},
		{"one of a list", PickContext{OmitMetadata: []map[string]any{{"a": "b"}}}, lb(map[string]any{"a": []any{"x", "b"}}), true},
		{"none of a list", PickContext{OmitMetadata: []map[string]any{{"a": "b"}}}, lb(map[string]any{"a": []any{"x"}}), false},
		{"no metadata", PickContext{OmitCanary: true, OmitMetadata: []map[string]any{{"a": "b"}}}, nil, false},
	} {
		h := &Host{}
		h.ep.Store(&Endpoint{Metadata: c.metadata})
		if got := c.pc.avoids(h); got != c.omitted {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
