package authz

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// MetadataRule asks for a value of metadata, as envoy.type.matcher.v3.MetadataMatcher does. What is
// not there is present to no ValueMatch.
type MetadataRule struct {
	// OfRoute: the metadata are of the route that was selected, and without one the rule does not
	// hold. Else they are what filters have said so far.
	OfRoute   bool
	Namespace string
	Path      []string // at least one key; all but the last lead through objects
	Value     ValueMatch
	Invert    bool
}

// ValueMatch is envoy.type.matcher.v3.ValueMatcher. Exactly one field is set.
type ValueMatch struct {
	Null    bool // it is there, and null
	Bool    *bool
	Present *bool // false matches nothing, as in Envoy
	Number  *NumberMatch
	Text    *route.StringMatch
	OneOf   *ValueMatch // one of a list's
	Or      []ValueMatch
}

// NumberMatch matches one number, or those from Low to below High.
type NumberMatch struct {
	Exact     *float64
	Low, High float64
}

// MarshalJSON is for people: JSON has no infinity, which a bound may be.
func (m NumberMatch) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Exact     *bound
		Low, High bound
	}{(*bound)(m.Exact), bound(m.Low), bound(m.High)})
}

type bound float64

// MarshalJSON implements json.Marshaler.
func (b bound) MarshalJSON() ([]byte, error) {
	if f := float64(b); math.IsInf(f, 0) || math.IsNaN(f) {
		return json.Marshal(strconv.FormatFloat(f, 'g', -1, 64))
	}
	return json.Marshal(float64(b))
}

// Metadata is where rules on metadata look. A value is nil, a bool, a float64, a string, a []any or
// a map[string]any.
type Metadata interface {
	// Said is what filters have said of the request.
	Said(namespace, key string) (value any, ok bool)
	// OfRoute is what the selected route has, nil for nothing; routed is that there is a route.
	OfRoute(namespace string) (fields map[string]any, routed bool)
	// IgnoresParameters tells whether the selected route was found by a path without parameters.
	IgnoresParameters() bool
}

// metadataMatcher is a compiled MetadataRule.
type metadataMatcher struct {
	rule  *MetadataRule
	value valueMatcher
}

type valueMatcher struct {
	*ValueMatch
	text *stringMatcher
	sub  []valueMatcher // of Or, or the one of OneOf
}

func (c *compiler) metadata(r *MetadataRule) (m matcher, err error) {
	switch {
	case r.Namespace == "" || len(r.Path) == 0:
		return m, at("metadata", wrong("a namespace and a path are needed"))
	case r.OfRoute && c.level == Connection:
		return m, at("metadata", wrong("a network filter has no route; put the rule into the HTTP filter"))
	}
	m.kind, m.metadata = kindMetadata, &metadataMatcher{rule: r}
	if m.metadata.value, err = compileValue(&r.Value, 0); err != nil {
		return m, at("metadata.value", err)
	}
	if !r.OfRoute && r.Namespace == metadataNetworkRBAC {
		c.asks = true
	}
	return m, nil
}

func compileValue(v *ValueMatch, depth int) (m valueMatcher, err error) {
	if depth > maxDepth {
		return m, wrong("nested more than %d deep", maxDepth)
	}
	if err := one(v.Null, v.Bool != nil, v.Present != nil, v.Number != nil, v.Text != nil, v.OneOf != nil, v.Or != nil); err != nil {
		return m, err
	}
	m.ValueMatch = v
	among := v.Or
	if v.OneOf != nil {
		among = []ValueMatch{*v.OneOf}
	}
	for i := range among {
		sub, err := compileValue(&among[i], depth+1)
		if err != nil {
			return m, err
		}
		m.sub = append(m.sub, sub)
	}
	if v.Text != nil {
		if m.text, err = compileString(v.Text); err != nil {
			return m, because(err)
		}
	}
	return m, nil
}

// AsksFindings tells whether rules of a filter of connections ask what others have found.
func (f *NetworkFilter) AsksFindings() bool {
	e, err := Compile([]NetworkFilter{*f}, Connection, nil)
	return err == nil && e.asks
}

func (m *metadataMatcher) match(in *input) bool {
	value, present := any(nil), false
	if m.rule.OfRoute {
		if in.metadata == nil {
			return false
		}
		fields, routed := in.metadata.OfRoute(m.rule.Namespace)
		if !routed {
			return false
		}
		value, present = descend(fields, m.rule.Path)
	} else if len(m.rule.Path) == 1 { // what filters say has no members
		value, present = in.said(m.rule.Namespace, m.rule.Path[0])
	}
	return m.value.match(value, present) != m.rule.Invert
}

// descend follows a path of keys through objects.
func descend(fields map[string]any, path []string) (value any, present bool) {
	for i, key := range path {
		if value, present = fields[key]; !present || i == len(path)-1 {
			break
		}
		if fields, present = value.(map[string]any); !present {
			return nil, false
		}
	}
	return value, present
}

func (m *valueMatcher) match(value any, present bool) bool {
	switch {
	case !present:
		// An or of nothing that is there is none either.
		return false
	case m.Present != nil:
		return *m.Present
	case m.Or != nil:
		return m.anyMatches(value)
	case m.OneOf != nil:
		list, _ := value.([]any)
		for _, v := range list {
			if m.anyMatches(v) {
				return true
			}
		}
		return false
	}
	switch v := value.(type) {
	case nil:
		return m.Null
	case bool:
		return m.Bool != nil && *m.Bool == v
	case string:
		return m.text != nil && m.text.match(v)
	case float64:
		n := m.Number
		return n != nil && (n.Exact != nil && *n.Exact == v || n.Exact == nil && n.Low <= v && v < n.High)
	}
	return false
}

func (m *valueMatcher) anyMatches(value any) bool {
	for i := range m.sub {
		if m.sub[i].match(value, true) {
			return true
		}
	}
	return false
}

// said is what filters before this one have said; those of a connection tell a request nothing.
func (in *input) said(namespace, key string) (any, bool) {
	if namespace == metadataNetworkRBAC {
		for i := len(in.found) - 1; i >= 0; i-- {
			if v, ok := in.found[i].said(key); ok {
				return v, true
			}
		}
	}
	switch {
	case in.req != nil && in.metadata == nil:
		return nil, false
	case in.metadata == nil:
		text, ok := in.peer.Announced.Said().Get(namespace, key)
		return text, ok
	}
	return in.metadata.Said(namespace, key)
}

// metadataNetworkRBAC is where Envoy's network filter writes: texts, on its shadow rules alone.
const metadataNetworkRBAC = "envoy.filters.network.rbac"

func (f *Findings) said(key string) (string, bool) {
	kind, ok := strings.CutPrefix(key, f.Prefix)
	switch {
	case !ok || !f.Shadow.Asked:
	case kind == "shadow_engine_result":
		if f.Shadow.Allowed {
			return "allowed", true
		}
		return "denied", true
	case kind == "shadow_effective_policy_id":
		return f.Shadow.Policy, f.Shadow.Policy != ""
	}
	return "", false
}
