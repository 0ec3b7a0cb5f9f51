// Package tracing gives each request a place in a distributed trace: it reads and
// writes the headers that carry a trace (W3C Trace Context, Zipkin's B3), decides
// which requests are sampled as Envoy does, and exports the spans of those (OTLP over
// gRPC or HTTP, Zipkin's JSON) from a goroutine of its own. A request that is not
// sampled pays for its header and for nothing else.
package tracing

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/hauberk-mesh/hauberk/sidecar/otlp"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	meshnames "github.com/hauberk-mesh/hauberk/xds/names"
)

// Config is envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing.
type Config struct {
	Sampling
	// Verbose adds the moments of a request to its span.
	Verbose bool
	// MaxPath is how much of a path is kept, in bytes.
	MaxPath int
	Tags    []Tag
	// SpawnUpstream makes a span of its own for each attempt.
	SpawnUpstream bool
	// Operation and UpstreamOperation are the names of spans, texts with %OPERATORS%;
	// empty for Envoy's names.
	Operation, UpstreamOperation string
	// NoPropagation leaves the request's headers alone.
	NoPropagation bool
	Provider      Provider
}

// Defaults of Envoy.
const (
	DefaultMaxPath  = 256
	defaultMaxSpans = 1024
)

// TagType is the type of a tag's value where the provider has types. A value that is
// none of its type is a string.
type TagType uint8

// The types.
const (
	TextTag TagType = iota
	IntTag
	DoubleTag
	BoolTag
)

// Tag is a tag that the configuration adds to spans. A tag without a value is left out.
type Tag struct {
	Name string
	// Header names a request header. Otherwise Value is a text with %OPERATORS%, or with
	// Literal one as it is. Default stands in for what has no value.
	Header, Default string
	Value           string
	Literal         bool
	// Metadata: Value is one operator, and what it says is a value though it is empty.
	Metadata bool
	Type     TagType
}

// Provider is where spans go, and which headers carry a trace.
type Provider struct {
	// None leaves requests without spans: only the decision whether to sample is noted in
	// their ids.
	None bool
	// Zipkin selects Zipkin's headers and format, otherwise they are OpenTelemetry's.
	Zipkin *Zipkin
	// Service is the name that spans are reported under.
	Service string
	// Collector takes the spans; nil for none: then headers are all there is.
	Collector *Collector
	// MaxSpans bounds the spans of a shard that wait to be sent, 1024 when 0; more are
	// dropped.
	MaxSpans int
	// AlwaysOn samples every request, whatever its parent and Sampling say; of OpenTelemetry.
	AlwaysOn bool
	// NoSDK, NoService and NoScope leave out what OTLP says of the sender.
	NoSDK, NoService, NoScope bool
}

// Zipkin is what only Zipkin has.
type Zipkin struct {
	// Wide makes trace ids of 128 bits.
	Wide bool
	// Shared lets a server's span have the id of its client's.
	Shared bool
	// W3C also reads and writes W3C's headers.
	W3C bool
}

// Collector is a service of a cluster.
type Collector = otlp.Collector

// Node is what spans say of the sidecar.
type Node struct{ ID, Cluster, Zone, Version string }

// Direction is that of the listener.
type Direction = telemetry.Direction

// tag is a compiled Tag.
type tag struct {
	name, header, value string
	format              *telemetry.Format
	kind                TagType
	metadata            bool
}

func compileSpanTags(list []Tag) ([]tag, error) { return compileTags(list, meshnames.SpanTags) }

// compileTags refuses names that are taken.
func compileTags(list []Tag, taken []string) ([]tag, error) {
	var out []tag
	for i, t := range list {
		c := tag{name: t.Name, header: t.Header, value: t.Default, kind: t.Type, metadata: t.Metadata}
		switch {
		case t.Name == "":
			return nil, fmt.Errorf("custom tag %d has no name", i)
		case slices.Contains(taken, t.Name):
			return nil, fmt.Errorf("custom tag %s: every span has a tag of this name; choose another", t.Name)
		case slices.ContainsFunc(out, func(o tag) bool { return o.name == t.Name }):
			return nil, fmt.Errorf("custom tag %s is there twice", t.Name)
		case t.Header != "":
		case t.Literal:
			c.value = t.Value
		default:
			f, err := telemetry.ParseFormat(t.Value)
			if err != nil {
				return nil, fmt.Errorf("custom tag %s: %w", t.Name, err)
			}
			c.format = f
		}
		out = append(out, c)
	}
	return out, nil
}

// Tags are tags of a record in a log.
type Tags struct{ list []tag }

// CompileTags compiles the tags of a log; their types mean nothing there.
func CompileTags(list []Tag) (Tags, error) {
	out, err := compileTags(list, nil)
	return Tags{out}, err
}

// None tells whether there are no tags.
func (t Tags) None() bool { return len(t.list) == 0 }

// Each tells the tags that have a value, which is made in scratch and not kept.
func (t Tags) Each(r *telemetry.Record, scratch []byte, tell func(name string, value []byte)) {
	for i := range t.list {
		if v, ok := t.list[i].of(r, scratch[:0]); ok {
			tell(t.list[i].name, v)
		}
	}
}

// of is the tag's value for a request, in scratch, which is empty, where it has to be made; ok is false
// without one.
func (t *tag) of(r *telemetry.Record, scratch []byte) (out []byte, ok bool) {
	switch {
	case t.metadata:
		out, ok = t.format.AppendValue(scratch, r)
	case t.format != nil:
		out = t.format.AppendHeader(scratch, r)
		ok = len(out) > 0
	default:
		if out, ok = telemetry.AppendRequestField(scratch, r.RequestHeaders, t.header); ok {
			return out, len(out) > 0
		}
	}
	if !ok {
		out = append(scratch, t.value...)
	}
	return out, ok || len(out) > 0
}

// typed reads a value as the tag's type, which is not TextTag; ok is false where the
// value is none of it.
func (t *tag) typed(v string) (i int64, d float64, b, ok bool) {
	var err error
	switch t.kind {
	case IntTag:
		i, err = strconv.ParseInt(v, 10, 64)
	case DoubleTag:
		d, err = strconv.ParseFloat(v, 64)
	case BoolTag:
		b, err = strconv.ParseBool(v)
	}
	return i, d, b, err == nil
}
