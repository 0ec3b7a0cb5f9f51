// Package decode turns HCL, JSON, YAML and Consul's own answers into consul/api
// values, strictly: an unknown field, a wrong type or a value twice is an error
// with its line and path. Consul's agent does the same for what it is given;
// consul/api does not, and what it drops in silence may be the condition of an
// authorization rule.
//
// Text becomes a tree of Nodes, which remember their lines; a tree becomes a
// typed value by reflection over the api structs, whose field names, json and
// alias tags say which keys mean them.
package decode

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Limits on what is parsed. Config entries are small; what is larger is not one.
const (
	MaxBytes = 4 << 20
	MaxDepth = 64
)

// Node is a parsed value. Value is nil, bool, string, int64, float64, []*Node
// or *Object.
type Node struct {
	Line  int // 0 when unknown
	Value any
}

// Object is a parsed map, in the order it was written.
type Object struct {
	Keys   []string
	Values []*Node
}

// Get returns the value of a key that means the same as name, and the key.
func (o *Object) Get(name string) (*Node, string) {
	for i, k := range o.Keys {
		if sameKey(k, name) {
			return o.Values[i], k
		}
	}
	return nil, ""
}

// Without returns o without the keys that mean the same as names.
func (o *Object) Without(names ...string) *Object {
	out := &Object{}
	for i, k := range o.Keys {
		if !slices.ContainsFunc(names, func(n string) bool { return sameKey(k, n) }) {
			out.Keys = append(out.Keys, k)
			out.Values = append(out.Values, o.Values[i])
		}
	}
	return out
}

func (o *Object) add(k string, v *Node) {
	o.Keys = append(o.Keys, k)
	o.Values = append(o.Values, v)
}

// List returns the elements of a list, or the node itself as the only one: in
// HCL a block that may be repeated and is written once looks like no list.
func (n *Node) List() []*Node {
	if l, ok := n.Value.([]*Node); ok {
		return l
	}
	return []*Node{n}
}

// FromAny makes a tree of what encoding/json decodes into any, numbers as
// json.Number.
func FromAny(v any) *Node {
	switch v := v.(type) {
	case map[string]any:
		o := &Object{}
		for _, k := range sortedKeys(v) {
			o.add(k, FromAny(v[k]))
		}
		return &Node{Value: o}
	case []any:
		l := make([]*Node, len(v))
		for i := range v {
			l[i] = FromAny(v[i])
		}
		return &Node{Value: l}
	case json.Number:
		n, err := number(v.String())
		if err != nil {
			return &Node{Value: v.String()}
		}
		return &Node{Value: n}
	}
	return &Node{Value: v}
}

func number(s string) (any, error) {
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return i, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return nil, fmt.Errorf("%q is not a number", s)
	}
	return f, nil
}

// Any returns the node as plain maps, lists and scalars; whole numbers are int.
func (n *Node) Any() any {
	switch v := n.Value.(type) {
	case *Object:
		m := make(map[string]any, len(v.Keys))
		for i, k := range v.Keys {
			m[k] = v.Values[i].Any()
		}
		return m
	case []*Node:
		l := make([]any, len(v))
		for i := range v {
			l[i] = v[i].Any()
		}
		return l
	case int64:
		return int(v)
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int(v)
		}
		return v
	}
	return n.Value
}

// zero reports whether the node says nothing: Consul answers with fields that
// were never set.
func (n *Node) zero() bool {
	switch v := n.Value.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == ""
	case int64:
		return v == 0
	case float64:
		return v == 0
	case []*Node:
		return len(v) == 0
	case *Object:
		return !slices.ContainsFunc(v.Values, func(n *Node) bool { return !n.zero() })
	}
	return false
}

func (n *Node) describe() string {
	switch v := n.Value.(type) {
	case nil:
		return "null"
	case bool:
		return fmt.Sprintf("the boolean %v", v)
	case string:
		return fmt.Sprintf("the string %q", v)
	case int64, float64:
		return fmt.Sprintf("the number %v", v)
	case []*Node:
		return "a list"
	}
	return "an object"
}
