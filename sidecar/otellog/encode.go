package otellog

import (
	"encoding/hex"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/hauberk-mesh/hauberk/sidecar/otlp"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

// Fields of ExportLogsServiceRequest, ResourceLogs, Resource, ScopeLogs, LogRecord, KeyValue,
// AnyValue, and of lists of the latter two.
const (
	requestResourceLogs                                                 = 1
	resourceLogsResource, resourceLogsScope                             = 1, 2
	resourceAttribute                                                   = 1
	scopeLogsRecord                                                     = 2
	recordTime, recordBody, recordAttribute, recordTrace, recordSpan    = 1, 5, 6, 9, 10
	keyValueKey, keyValueValue                                          = 1, 2
	anyString, anyBool, anyInt, anyDouble, anyArray, anyPairs, anyBytes = 1, 2, 3, 4, 5, 6, 7
	listElement                                                         = 1
)

// appendRequest makes a request of records, of which head tells.
func appendRequest(dst, head, records []byte) []byte {
	dst, logs := otlp.Begin(dst, requestResourceLogs)
	dst = append(dst, head...)
	dst, scope := otlp.Begin(dst, resourceLogsScope)
	return logs.End(scope.End(append(dst, records...)))
}

// appendResource tells whose the records are: what is configured takes the place of a label
// of the same name, and the last of several is the one.
func appendResource(dst []byte, c *Config, n *tracing.Node) []byte {
	var all []KeyValue
	if !c.NoLabels {
		all = []KeyValue{{"log_name", c.Name}, {"zone_name", n.Zone}, {"cluster_name", n.Cluster}, {"node_name", n.ID}}
	}
	for _, kv := range c.Resource {
		if i := slices.IndexFunc(all, func(o KeyValue) bool { return o.Key == kv.Key }); i >= 0 {
			all[i] = kv
		} else {
			all = append(all, kv)
		}
	}
	dst, resource := otlp.Begin(dst, resourceLogsResource)
	for _, kv := range all {
		dst = appendPair(dst, resourceAttribute, kv)
	}
	return resource.End(dst)
}

func appendPair(dst []byte, field int, kv KeyValue) []byte {
	dst, pair := otlp.Begin(dst, field)
	dst = otlp.AppendBytes(dst, keyValueKey, kv.Key)
	if kv.Value == nil {
		return pair.End(dst)
	}
	dst, value := otlp.Begin(dst, keyValueValue)
	return pair.End(value.End(appendAny(dst, kv.Value)))
}

// appendAny appends the content of an AnyValue.
func appendAny(dst []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		return otlp.AppendBytes(dst, anyString, v)
	case []byte:
		return otlp.AppendBytes(dst, anyBytes, v)
	case bool:
		n := uint64(0)
		if v {
			n = 1
		}
		return otlp.AppendVarint(dst, anyBool, n)
	case int64:
		return otlp.AppendVarint(dst, anyInt, uint64(v))
	case float64:
		return otlp.AppendFixed64(dst, anyDouble, math.Float64bits(v))
	case []any:
		dst, list := otlp.Begin(dst, anyArray)
		for _, e := range v {
			var element otlp.Nested
			dst, element = otlp.Begin(dst, listElement)
			dst = element.End(appendAny(dst, e))
		}
		return list.End(dst)
	case []KeyValue:
		dst, list := otlp.Begin(dst, anyPairs)
		for _, kv := range v {
			dst = appendPair(dst, listElement, kv)
		}
		return list.End(dst)
	}
	return dst // a value of no kind
}

// appendRecord appends a record as a field of ScopeLogs.
func (c *compiled) appendRecord(dst []byte, r *telemetry.Record) []byte {
	dst, record := otlp.Begin(dst, scopeLogsRecord)
	dst = otlp.AppendFixed64(dst, recordTime, uint64(r.Start.UnixNano()))
	if c.body != nil {
		var body otlp.Nested
		dst, body = otlp.Begin(dst, recordBody)
		dst = body.End(c.body.append(dst, r))
	}
	dst = appendMembers(dst, recordAttribute, c.attributes, r)
	if !c.tags.None() {
		dst = c.appendTags(dst, r)
	}
	dst = appendTrace(dst, r)
	return record.End(dst)
}

func (c *compiled) appendTags(dst []byte, r *telemetry.Record) []byte {
	scratch := scratches.Get().(*[]byte)
	c.tags.Each(r, (*scratch)[:0], func(name string, value []byte) {
		dst = appendText(dst, recordAttribute, name, value)
	})
	scratches.Put(scratch)
	return dst
}

func appendText(dst []byte, field int, key string, text []byte) []byte {
	dst, pair := otlp.Begin(dst, field)
	dst = otlp.AppendBytes(dst, keyValueKey, key)
	dst, value := otlp.Begin(dst, keyValueValue)
	return pair.End(value.End(otlp.AppendBytes(dst, anyString, otlp.Valid(text))))
}

func appendMembers(dst []byte, field int, list []member, r *telemetry.Record) []byte {
	for i := range list {
		var pair, value otlp.Nested
		dst, pair = otlp.Begin(dst, field)
		dst = otlp.AppendBytes(dst, keyValueKey, list[i].key)
		dst, value = otlp.Begin(dst, keyValueValue)
		dst = pair.End(value.End(list[i].value.append(dst, r)))
	}
	return dst
}

// append appends the content of an AnyValue.
func (n *node) append(dst []byte, r *telemetry.Record) []byte {
	switch {
	case n.text != nil:
		dst, text := otlp.Begin(dst, anyString)
		start := len(dst)
		if dst = n.text.AppendBody(dst, r); !utf8.Valid(dst[start:]) {
			dst = append(dst[:start], otlp.Valid(dst[start:])...)
		}
		return text.End(dst)
	case n.list != nil:
		dst, list := otlp.Begin(dst, anyArray)
		for _, e := range n.list {
			var element otlp.Nested
			dst, element = otlp.Begin(dst, listElement)
			dst = element.End(e.append(dst, r))
		}
		return list.End(dst)
	}
	dst, list := otlp.Begin(dst, anyPairs)
	return list.End(appendMembers(dst, listElement, n.members, r))
}

// appendTrace appends the request's trace and span where it has any. Zipkin's traces of 64
// bits are padded to the 128 that the protocol asks for.
func appendTrace(dst []byte, r *telemetry.Record) []byte {
	var id [16]byte
	if size := hex.DecodedLen(len(r.TraceID)); size == len(id) || size == len(id)/2 {
		if _, err := hex.Decode(id[len(id)-size:], r.TraceID); err == nil {
			dst = otlp.AppendBytes(dst, recordTrace, id[:])
		}
	}
	var span [8]byte
	if len(r.SpanID) == hex.EncodedLen(len(span)) {
		if _, err := hex.Decode(span[:], r.SpanID); err == nil {
			dst = otlp.AppendBytes(dst, recordSpan, span[:])
		}
	}
	return dst
}
