package telemetry

import (
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/hauberk-mesh/hauberk/xds/logformat"
)

// Part is a part of the configuration that served a record.
type Part uint8

// The parts.
const (
	PartCluster Part = iota
	PartRoute
	PartHost
	PartListener
	PartChain
	PartVirtualHost
)

var partsOf = map[string]Part{
	"CLUSTER": PartCluster, "ROUTE": PartRoute, "UPSTREAM_HOST": PartHost,
	"LISTENER": PartListener, "LISTENER_FILTER_CHAIN": PartChain, "VIRTUAL_HOST": PartVirtualHost,
}

// Configured tells of the metadata that are configured of what served a record: by namespace, values
// as JSON decodes them; nil of a part that has none, or that there was not.
type Configured interface {
	ConfiguredMetadata(Part) map[string]map[string]any
}

// metadataLookup finds a value: as JSON, and in text as it is where it is a string. A null is no value.
type metadataLookup struct {
	part      Part
	namespace string
	keys      []string
}

func (l *metadataLookup) find(r *Record) (v any, ok bool) {
	if r.Configured == nil {
		return nil, false
	}
	fields, ok := r.Configured.ConfiguredMetadata(l.part)[l.namespace]
	if !ok {
		return nil, false
	}
	v = fields
	for _, k := range l.keys {
		object, _ := v.(map[string]any)
		if v, ok = object[k]; !ok {
			return nil, false
		}
	}
	return v, v != nil
}

func (l *metadataLookup) text(dst []byte, r *Record) ([]byte, bool) {
	v, ok := l.find(r)
	if !ok {
		return dst, false
	}
	if s, isText := v.(string); isText {
		return append(dst, s...), true
	}
	return appendJSON(dst, v), true
}

func (l *metadataLookup) typed(dst []byte, r *Record) ([]byte, bool) {
	v, ok := l.find(r)
	if !ok {
		return dst, false
	}
	return appendJSON(dst, v), true
}

// appendJSON writes a value that JSON made, members sorted.
func appendJSON(dst []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		start := len(dst)
		return quoteFrom(append(dst, v...), start)
	case bool:
		return strconv.AppendBool(dst, v)
	case float64:
		return appendFloat(dst, v)
	case map[string]any:
		dst = append(dst, '{')
		for i, k := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				dst = append(dst, ',')
			}
			start := len(dst)
			dst = append(quoteFrom(append(dst, k...), start), ':')
			dst = appendJSON(dst, v[k])
		}
		return append(dst, '}')
	case []any:
		dst = append(dst, '[')
		for i := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSON(dst, v[i])
		}
		return append(dst, ']')
	}
	return append(dst, "null"...)
}

// appendFloat writes a number as encoding/json does; one that JSON has not is null.
func appendFloat(dst []byte, v float64) []byte {
	switch size := math.Abs(v); {
	case math.IsInf(v, 0) || math.IsNaN(v):
		return append(dst, "null"...)
	case size != 0 && size < 1e-6 || size >= 1e21:
		start := len(dst)
		dst = strconv.AppendFloat(dst, v, 'e', -1, 64)
		if n := len(dst); n-start >= 4 && dst[n-4] == 'e' && dst[n-3] == '-' && dst[n-2] == '0' {
			dst[n-2] = dst[n-1]
			dst = dst[:n-1]
		}
		return dst
	}
	return strconv.AppendFloat(dst, v, 'f', -1, 64)
}

// configured is an operator for one type of metadata, or for the type that its argument names.
func configured(name, argument, help string) operatorDef {
	return operatorDef{OperatorDoc: OperatorDoc{name, argument, help}, compile: func(argument string, _ int) (out op, err error) {
		p, err := logformat.MetadataOf(name, argument)
		if err != nil {
			return out, err
		}
		if p.Type == logformat.MetadataDynamic {
			want(WantMetadata)
			namespace, key := p.Namespace, p.Keys[0]
			out.value = func(dst []byte, r *Record) ([]byte, bool) {
				v, ok := r.Metadata.Get(namespace, key)
				return append(dst, v...), ok
			}
			return out, nil
		}
		want(WantConfigured)
		l := &metadataLookup{partsOf[p.Type], p.Namespace, p.Keys}
		out.value, out.typed = l.text, l.typed
		return out, nil
	}}
}
