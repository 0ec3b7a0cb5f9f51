package decode

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Mode says how strict to be.
type Mode int

const (
	// Strict is for what people write.
	Strict Mode = iota
	// Server is for what Consul answers: it may know fields that we do not, and
	// they are harmless as long as they say nothing.
	Server
)

// FieldError is one field that cannot be decoded.
type FieldError struct {
	Line   int
	Path   string
	Reason string
}

func (e *FieldError) Error() string {
	if e.Path == "" {
		return e.Reason
	}
	return e.Path + ": " + e.Reason
}

// Errors are all fields that cannot be decoded, in the order they were written.
type Errors []*FieldError

func (e Errors) Error() string {
	parts := make([]string, len(e))
	for i := range e {
		parts[i] = e[i].Error()
	}
	return strings.Join(parts, "; ")
}

// Into decodes a node into the struct that v points to. The error is an Errors.
func Into(n *Node, v any, mode Mode) error {
	d := &decoder{mode: mode}
	d.value(n, reflect.ValueOf(v).Elem(), "")
	if len(d.errs) > 0 {
		return d.errs
	}
	return nil
}

type decoder struct {
	mode Mode
	errs Errors
}

func (d *decoder) fail(n *Node, path, format string, args ...any) {
	d.errs = append(d.errs, &FieldError{n.Line, path, fmt.Sprintf(format, args...)})
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	timeType     = reflect.TypeFor[time.Time]()
)

func (d *decoder) value(n *Node, v reflect.Value, path string) {
	if n.Value == nil {
		return // null is absence
	}
	switch v.Type() {
	case durationType:
		d.duration(n, v, path)
		return
	case timeType:
		d.time(n, v, path)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		// What is there already holds the defaults of fields left out.
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.value(n, v.Elem(), path)
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Map:
		d.mapping(n, v, path)
	case reflect.Slice:
		d.slice(n, v, path)
	case reflect.Interface:
		v.Set(reflect.ValueOf(n.Any()))
	default:
		d.scalar(n, v, path)
	}
}

// object unwraps the list of one that repeated blocks and JSON written for HCL
// give where there is one object.
func (d *decoder) object(n *Node, path string) *Object {
	v := n.Value
	if l, ok := v.([]*Node); ok && len(l) == 1 {
		v = l[0].Value
	}
	o, ok := v.(*Object)
	if !ok {
		if l, isList := v.([]*Node); isList && len(l) > 1 {
			d.fail(n, path, "given %d times, but there is only one", len(l))
		} else {
			d.fail(n, path, "want an object, have %s", n.describe())
		}
		return nil
	}
	return o
}

func (d *decoder) structure(n *Node, v reflect.Value, path string) {
	o := d.object(n, path)
	if o == nil {
		return
	}
	fields := fieldsOf(v.Type())
	seen := map[string]string{}
	for i, k := range o.Keys {
		child := o.Values[i]
		f, ok := fields.find(k)
		if !ok {
			d.unknown(child, k, path, fields)
			continue
		}
		p := join(path, f.name)
		if first, dup := seen[f.name]; dup {
			if first == k {
				d.fail(child, p, "given twice")
			} else {
				d.fail(child, p, "given twice, as %s and as %s", first, k)
			}
			continue
		}
		seen[f.name] = k
		d.value(child, v.FieldByIndex(f.index), p)
	}
}

func (d *decoder) unknown(n *Node, key, path string, fields fieldSet) {
	if d.mode == Server && n.zero() {
		return
	}
	hint := "; remove it"
	if near := fields.nearest(key); near != "" {
		hint = "; did you mean " + near + "?"
	}
	d.fail(n, join(path, key), "unknown field%s", hint)
}

func (d *decoder) mapping(n *Node, v reflect.Value, path string) {
	o := d.object(n, path)
	if o == nil {
		return
	}
	m := reflect.MakeMapWithSize(v.Type(), len(o.Keys))
	for i, k := range o.Keys {
		p := join(path, k)
		key := reflect.ValueOf(k).Convert(v.Type().Key())
		if m.MapIndex(key).IsValid() {
			d.fail(o.Values[i], p, "given twice")
			continue
		}
		elem := reflect.New(v.Type().Elem()).Elem()
		d.value(o.Values[i], elem, p)
		m.SetMapIndex(key, elem)
	}
	v.Set(m)
}

func (d *decoder) slice(n *Node, v reflect.Value, path string) {
	list, ok := n.Value.([]*Node)
	if !ok {
		// One block of a list of objects.
		if _, isObject := n.Value.(*Object); !isObject || !holdsObjects(v.Type().Elem()) {
			d.fail(n, path, "want a list, have %s", n.describe())
			return
		}
		list = []*Node{n}
	}
	s := reflect.MakeSlice(v.Type(), len(list), len(list))
	for i, e := range list {
		p := fmt.Sprintf("%s[%d]", path, i)
		if e.Value == nil {
			d.fail(e, p, "must not be null")
			continue
		}
		d.value(e, s.Index(i), p)
	}
	v.Set(s)
}

func holdsObjects(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.Struct || t.Kind() == reflect.Map
}

func (d *decoder) scalar(n *Node, v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.String:
		if s, ok := n.Value.(string); ok {
			v.SetString(s)
			return
		}
		hint := ""
		switch n.Value.(type) {
		case int64, float64, bool:
			hint = "; put it in quotes"
		}
		d.fail(n, path, "want a string, have %s%s", n.describe(), hint)
	case reflect.Bool:
		if b, ok := n.Value.(bool); ok {
			v.SetBool(b)
			return
		}
		d.fail(n, path, "want true or false, have %s", n.describe())
	case reflect.Float32, reflect.Float64:
		switch f := n.Value.(type) {
		case int64:
			v.SetFloat(float64(f))
		case float64:
			v.SetFloat(f)
		default:
			d.fail(n, path, "want a number, have %s", n.describe())
		}
	default:
		d.integer(n, v, path)
	}
}

func (d *decoder) integer(n *Node, v reflect.Value, path string) {
	i, ok := wholeNumber(n)
	if !ok {
		d.fail(n, path, "want a whole number, have %s", n.describe())
		return
	}
	switch {
	case v.CanInt() && !v.OverflowInt(i):
		v.SetInt(i)
	case v.CanUint() && i >= 0 && !v.OverflowUint(uint64(i)):
		v.SetUint(uint64(i))
	case v.CanInt() || v.CanUint():
		d.fail(n, path, "%d is out of range", i)
	default:
		d.fail(n, path, "cannot be set here")
	}
}

func wholeNumber(n *Node) (int64, bool) {
	switch f := n.Value.(type) {
	case int64:
		return f, true
	case float64:
		if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			return int64(f), true
		}
	}
	return 0, false
}

// duration takes "5s" and, as Consul does, a whole number of nanoseconds.
func (d *decoder) duration(n *Node, v reflect.Value, path string) {
	if s, ok := n.Value.(string); ok {
		if s == "" {
			return
		}
		t, err := time.ParseDuration(s)
		if err != nil {
			d.fail(n, path, `%q is not a duration; write one such as "500ms" or "5s"`, s)
			return
		}
		v.SetInt(int64(t))
		return
	}
	i, ok := wholeNumber(n)
	if !ok {
		d.fail(n, path, `want a duration such as "5s", have %s`, n.describe())
		return
	}
	v.SetInt(i)
}

func (d *decoder) time(n *Node, v reflect.Value, path string) {
	s, ok := n.Value.(string)
	if !ok {
		d.fail(n, path, "want a time, have %s", n.describe())
		return
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		d.fail(n, path, "%q is not a time as in RFC 3339", s)
		return
	}
	v.Set(reflect.ValueOf(t))
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
