package config

import (
	"reflect"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// sharedMetadata has the metadata of the endpoints of one resource, of which there is one copy of
// those that are equal: control planes say the same of thousands, and nobody changes what was read.
type sharedMetadata struct {
	// whole are the metadata of endpoints, parts those of one namespace by its name: the last few
	// that differ, as those of a locality or a version follow one another.
	whole recent[map[string]map[string]any]
	parts map[string]*recent[map[string]any]
}

func (s *sharedMetadata) of(m *corev3.Metadata) map[string]map[string]any {
	out := metadataOf(m)
	if len(out) == 0 {
		return out
	}
	for namespace, values := range out {
		if s.parts == nil {
			s.parts = map[string]*recent[map[string]any]{}
		}
		if s.parts[namespace] == nil {
			s.parts[namespace] = &recent[map[string]any]{}
		}
		out[namespace] = s.parts[namespace].one(values)
	}
	return s.whole.one(out)
}

// recent are a few values that came last.
type recent[T any] struct {
	kept [4]T
	n    int
}

// one returns the value that is kept and equal, or v, which is then kept.
func (r *recent[T]) one(v T) T {
	for i := range min(r.n, len(r.kept)) {
		if reflect.DeepEqual(r.kept[i], v) {
			return r.kept[i]
		}
	}
	r.kept[r.n%len(r.kept)] = v
	r.n++
	return v
}
