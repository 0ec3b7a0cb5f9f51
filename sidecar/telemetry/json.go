package telemetry

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// node is a value of a JSON object, as it was configured.
type node struct {
	key string // of a member, quoted and with its colon
	// Exactly one of these is set: JSON as it is, a text with operators, the members
	// of an object, the values of a list.
	raw    string
	ops    []op
	object []node
	list   []node
	empty  string // "{}" or "[]" for an object or list
}

func compileObject(fields map[string]any, read reader) (*node, error) {
	n, err := compileNode(fields, read)
	return &n, err
}

// compileNode compiles a value: strings are formats, everything else is what it is.
func compileNode(v any, read reader) (n node, err error) {
	switch v := v.(type) {
	case string:
		n.ops, err = compile(v, read)
		if len(n.ops) == 0 {
			n.raw, n.ops = `""`, nil
		}
		return n, err
	case map[string]any:
		n.empty = "{}"
		for _, k := range slices.Sorted(maps.Keys(v)) {
			m, err := compileNode(v[k], read)
			if err != nil {
				return n, fmt.Errorf("%s: %w", k, err)
			}
			m.key = string(append(quoteFrom([]byte(k), 0), ':'))
			n.object = append(n.object, m)
		}
		return n, nil
	case []any:
		n.empty = "[]"
		for i := range v {
			m, err := compileNode(v[i], read)
			if err != nil {
				return n, fmt.Errorf("[%d]: %w", i, err)
			}
			n.list = append(n.list, m)
		}
		return n, nil
	case nil, bool, float64:
		raw, err := json.Marshal(v)
		n.raw = string(raw)
		return n, err
	}
	return n, fmt.Errorf("a %T is no value of JSON", v)
}

func (f *Format) appendObject(dst []byte, r *Record) []byte {
	dst, _ = f.object.append(dst, r, f.omit)
	return append(dst, '\n')
}

// append appends a value; ok is false where it is null, or an object without members, and those
// are left out.
func (n *node) append(dst []byte, r *Record, omit bool) (out []byte, ok bool) {
	switch {
	case n.raw != "":
		return append(dst, n.raw...), !omit || n.raw != "null"
	case n.ops != nil:
		return appendMember(dst, n.ops, r, omit)
	}
	members := n.object
	if members == nil {
		members = n.list
	}
	dst = append(dst, n.empty[0])
	first := len(dst)
	for i := range members {
		before := len(dst)
		if before > first {
			dst = append(dst, ',')
		}
		dst = append(dst, members[i].key...)
		if dst, ok = members[i].append(dst, r, omit); !ok {
			dst = dst[:before]
		}
	}
	nothing := omit && n.empty == "{}" && len(dst) == first
	return append(dst, n.empty[1]), !nothing
}

// appendMember appends a text with operators: alone, an operator has the type of
// its value.
func appendMember(dst []byte, ops []op, r *Record, omit bool) (out []byte, ok bool) {
	if len(ops) == 1 && ops[0].literal == "" {
		if dst, ok = ops[0].appendTyped(dst, r); !ok {
			return append(dst, "null"...), !omit
		}
		return dst, true
	}
	start := len(dst)
	for i := range ops {
		dst = ops[i].append(dst, r, omit)
	}
	return quoteFrom(dst, start), true
}

// appendTyped appends a value as JSON has it; ok is false where there is none, and nothing was appended.
func (o *op) appendTyped(dst []byte, r *Record) (out []byte, ok bool) {
	if o.typed != nil { // of any length, as in Envoy
		return o.typed(dst, r)
	}
	out, ok = o.appendValue(dst, r)
	if !ok || o.number {
		return out, ok
	}
	return quoteFrom(out, len(dst)), true
}
