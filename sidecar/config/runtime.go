package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// Runtime is the values of a bootstrap's static layers, which nothing changes later; nil has
// none. A key that nothing could read is refused: it would seem to have an effect. Safe for
// concurrent use once the bootstrap was read.
type Runtime struct {
	values map[string]*structpb.Value
	paths  map[string]string
	read   map[string]bool // nil once nobody asks any more
}

// readRuntime merges the layers; a later one wins.
func readRuntime(m *bootstrapv3.LayeredRuntime) (*Runtime, error) {
	out := &Runtime{values: map[string]*structpb.Value{}, paths: map[string]string{}, read: map[string]bool{}}
	for i, l := range m.GetLayers() {
		path := at("layered_runtime.layers", i)
		switch s := l.GetLayerSpecifier().(type) {
		case *bootstrapv3.RuntimeLayer_StaticLayer:
			out.add("", s.StaticLayer, path+".static_layer")
		case *bootstrapv3.RuntimeLayer_AdminLayer_:
			// Nothing is changed through the admin interface, so it stays empty.
		default:
			return nil, fail(path, "is not a static_layer")
		}
	}
	return out, nil
}

// add takes a struct whose nested keys are joined with dots.
func (r *Runtime) add(prefix string, s *structpb.Struct, path string) {
	for k, v := range s.GetFields() {
		key := prefix + k
		here := path + "[" + strconv.Quote(k) + "]"
		if nested := v.GetStructValue(); nested != nil && nested.GetFields()["numerator"] == nil {
			r.add(key+".", nested, here)
			continue
		}
		r.values[key], r.paths[key] = v, here
	}
}

func (r *Runtime) note(key string) {
	if r.read != nil {
		r.read[key] = true
	}
}

// number reads a key; ok is false where it is not set.
func (r *Runtime) number(key string) (n float64, ok bool, err error) {
	if r == nil {
		return 0, false, nil
	}
	v := r.values[key]
	if v == nil {
		return 0, false, nil
	}
	r.note(key)
	switch k := v.GetKind().(type) {
	case *structpb.Value_NumberValue:
		return k.NumberValue, true, nil
	case *structpb.Value_StringValue:
		if n, err := strconv.ParseFloat(k.StringValue, 64); err == nil {
			return n, true, nil
		}
	}
	return 0, false, fail(r.paths[key], "is not a number")
}

// boolean reads a key.
func (r *Runtime) boolean(key string) (b, ok bool, err error) {
	if r == nil || r.values[key] == nil {
		return false, false, nil
	}
	r.note(key)
	switch k := r.values[key].GetKind().(type) {
	case *structpb.Value_BoolValue:
		return k.BoolValue, true, nil
	case *structpb.Value_StringValue:
		if b, err := strconv.ParseBool(k.StringValue); err == nil {
			return b, true, nil
		}
	}
	return false, false, fail(r.paths[key], "is not a boolean")
}

// withPrefix are the keys that begin so, sorted.
func (r *Runtime) withPrefix(prefix string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(r.values)) {
		if strings.HasPrefix(k, prefix) {
			out = append(out, k)
		}
	}
	return out
}

// withoutEffect are keys that Consul's bootstraps set: RE2's sizes of programs, in place of
// which every expression has one bound here.
var withoutEffect = []string{"re2.max_program_size.error_level", "re2.max_program_size.warn_level"}

// settle refuses what nothing has read, unless listeners are still to come that may.
func (r *Runtime) settle(toCome bool) error {
	if toCome {
		r.read = nil
		return nil
	}
	for _, k := range slices.Sorted(maps.Keys(r.values)) {
		if !r.read[k] && !slices.Contains(withoutEffect, k) {
			return fail(r.paths[k], "runtime key %q is read by nothing in this bootstrap; remove it", k)
		}
	}
	r.read = nil
	return nil
}

// enabled reads a feature flag: its default, unless the runtime says otherwise.
func (d *decoder) enabled(f *corev3.RuntimeFeatureFlag, path string) (bool, error) {
	if f == nil {
		return true, nil
	}
	if b, ok, err := d.runtime.boolean(f.GetRuntimeKey()); err != nil || ok {
		return b, err
	}
	if f.GetDefaultValue() == nil {
		return false, fail(path+".default_value", "is missing")
	}
	return f.GetDefaultValue().GetValue(), nil
}
