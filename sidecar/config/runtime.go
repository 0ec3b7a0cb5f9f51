package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

// Runtime is the values of a bootstrap's static layers, and the tracer of managers that name
// none, which nothing changes later; nil has none. What it says stands in the place of a field's
// value when a resource is read. A key that nothing could read is refused: it would seem to have
// an effect. Safe for concurrent use once the bootstrap was read.
type Runtime struct {
	values map[string]*structpb.Value
	paths  map[string]string
	read   map[string]bool // nil once nobody asks any more
	// tracer is that of the bootstrap, nil where it has none.
	tracer *tracing.Config
	// own: the bootstrap names a local cluster.
	own bool
}

// ownCluster tells whether there is a local cluster.
func (r *Runtime) ownCluster() bool { return r != nil && r.own }

// defaultTracer is of a manager that names no tracer.
func (r *Runtime) defaultTracer(c *tracing.Config) {
	if r == nil || r.tracer == nil {
		c.Provider.None = true
		return
	}
	c.Provider, c.SpawnUpstream = r.tracer.Provider, c.SpawnUpstream || r.tracer.SpawnUpstream
}

// readRuntime merges the layers; a later one wins.
func readRuntime(m *bootstrapv3.LayeredRuntime) (*Runtime, error) {
	out := &Runtime{values: map[string]*structpb.Value{}, paths: map[string]string{}, read: map[string]bool{}}
	for i, l := range m.GetLayers() {
		path := at("layered_runtime.layers", i)
		switch s := l.GetLayerSpecifier().(type) {
		case *bootstrapv3.RuntimeLayer_StaticLayer:
			if err := out.add("", s.StaticLayer, path+".static_layer"); err != nil {
				return nil, err
			}
		case *bootstrapv3.RuntimeLayer_AdminLayer_:
			// Nothing is changed through the admin interface, so it stays empty.
		default:
			return nil, fail(path, "is not a static_layer")
		}
	}
	return out, nil
}

// add takes a struct whose nested keys are joined with dots. One of a fraction is a value.
func (r *Runtime) add(prefix string, s *structpb.Struct, path string) error {
	for k, v := range s.GetFields() {
		key := prefix + k
		here := path + "[" + strconv.Quote(k) + "]"
		switch nested := v.GetKind().(type) {
		case *structpb.Value_StructValue:
			if !isFraction(nested.StructValue) {
				if err := r.add(key+".", nested.StructValue, here); err != nil {
					return err
				}
				continue
			}
		case *structpb.Value_ListValue, *structpb.Value_NullValue, nil:
			return fail(here, "is no number, text, boolean or fraction")
		}
		r.values[key], r.paths[key] = v, here
	}
	return nil
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
