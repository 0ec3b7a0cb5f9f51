package tracing

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/otlp"
)

// otlpTags is the encoding of OpenTelemetry.
type otlpTags struct {
	dst []byte
}

// Fields of Span, KeyValue, AnyValue and Event.
const (
	spanTrace, spanID, spanState, spanParent, spanName, spanKind, spanStart, spanEnd = 1, 2, 3, 4, 5, 6, 7, 8
	spanAttribute, spanEvent, spanStatus, spanFlags                                  = 9, 11, 15, 16
	flagSampled, flagParentKnown, flagParentRemote                                   = 1, 0x100, 0x200
	statusCode, statusError                                                          = 3, 2
	keyValueKey, keyValueValue                                                       = 1, 2
	anyString, anyBool, anyInt, anyDouble                                            = 1, 2, 3, 4
	eventTime, eventName                                                             = 1, 2
)

// appendOTLP appends a span as a field of ScopeSpans, so that spans after one another
// are what a request has in the middle.
func appendOTLP(dst []byte, p *report, t *Tracer) []byte {
	dst, whole := otlp.Begin(dst, scopeSpansSpan)
	dst = otlp.AppendBytes(dst, spanTrace, p.span.Trace[:])
	dst = otlp.AppendBytes(dst, spanID, p.id[:])
	if p.record.RequestHeaders != nil {
		if state, ok := p.record.RequestHeaders.Header("tracestate"); ok && state != "" {
			dst = otlp.AppendBytes(dst, spanState, otlp.Valid([]byte(state)))
		}
	}
	if p.parent != (SpanID{}) {
		dst = otlp.AppendBytes(dst, spanParent, p.parent[:])
	}
	dst = otlp.AppendBytes(dst, spanName, otlp.Valid(p.name))
	dst = otlp.AppendVarint(dst, spanKind, uint64(p.kind))
	flags := uint32(flagSampled | flagParentKnown)
	if p.parent != (SpanID{}) && !p.upstream {
		flags |= flagParentRemote
	}
	dst = binary.LittleEndian.AppendUint32(otlp.AppendTag(dst, spanFlags, otlp.Fixed32), flags)
	dst = otlp.AppendFixed64(dst, spanStart, uint64(p.start.UnixNano()))
	dst = otlp.AppendFixed64(dst, spanEnd, uint64(p.end.UnixNano()))
	w := &p.otlp
	w.dst = dst
	t.tags(p, w)
	t.events(p, w.event)
	dst = w.dst
	if p.failed() {
		var s otlp.Nested
		dst, s = otlp.Begin(dst, spanStatus)
		dst = s.End(otlp.AppendVarint(dst, statusCode, statusError))
	}
	return whole.End(dst)
}

// failed tells whether a span is one of an error by OpenTelemetry's semantic
// conventions: a server's own errors, and all that a client sees.
func (p *report) failed() bool {
	if code := p.record.Code; code == 0 || code >= 500 || code >= 400 && p.kind == client {
		return true
	}
	status, ok := p.record.SentGRPCStatus()
	if !ok || p.kind == client {
		return ok && status != 0
	}
	switch status {
	case 2, 4, 12, 13, 14, 15: // unknown, deadline exceeded, unimplemented, internal, unavailable, data loss
		return true
	}
	return status < 0
}

func (w *otlpTags) attribute(key string, value func(dst []byte) []byte) {
	dst, kv := otlp.Begin(w.dst, spanAttribute)
	dst = otlp.AppendBytes(dst, keyValueKey, key)
	dst, v := otlp.Begin(dst, keyValueValue)
	w.dst = kv.End(v.End(value(dst)))
}

func (w *otlpTags) text(key string, value []byte) {
	w.attribute(key, func(dst []byte) []byte { return otlp.AppendBytes(dst, anyString, otlp.Valid(value)) })
}

func (w *otlpTags) typed(t *tag, value []byte) {
	if t.kind == TextTag {
		w.text(t.name, value)
		return
	}
	i, d, b, ok := t.typed(string(value))
	if !ok {
		w.text(t.name, value)
		return
	}
	w.attribute(t.name, func(dst []byte) []byte {
		switch t.kind {
		case IntTag:
			return otlp.AppendVarint(dst, anyInt, uint64(i))
		case DoubleTag:
			return otlp.AppendFixed64(dst, anyDouble, math.Float64bits(d))
		}
		if b {
			return otlp.AppendVarint(dst, anyBool, 1)
		}
		return otlp.AppendVarint(dst, anyBool, 0)
	})
}

func (w *otlpTags) event(at time.Time, name string) {
	dst, e := otlp.Begin(w.dst, spanEvent)
	dst = otlp.AppendFixed64(dst, eventTime, uint64(at.UnixNano()))
	w.dst = e.End(otlp.AppendBytes(dst, eventName, name))
}

// Fields of ExportTraceServiceRequest, ResourceSpans, Resource, ScopeSpans and
// InstrumentationScope.
const (
	requestResourceSpans                      = 1
	resourceSpansResource, resourceSpansScope = 1, 2
	resourceAttribute                         = 1
	scopeSpansScope, scopeSpansSpan           = 1, 2
	scopeName, scopeVersion                   = 1, 2
)

// wrapOTLP makes a request of spans.
func wrapOTLP(dst, spans []byte, p *Provider, n *Node) []byte {
	dst, rs := otlp.Begin(dst, requestResourceSpans)
	dst, res := otlp.Begin(dst, resourceSpansResource)
	if !p.NoService {
		name := p.Service
		if name == "" {
			name = "unknown_service:hauberk"
		}
		dst = resourceText(dst, "service.name", name)
	}
	if !p.NoSDK {
		dst = resourceText(dst, "telemetry.sdk.language", "go")
		dst = resourceText(dst, "telemetry.sdk.name", "hauberk")
		dst = resourceText(dst, "telemetry.sdk.version", n.Version)
	}
	dst = res.End(dst)
	dst, ss := otlp.Begin(dst, resourceSpansScope)
	if !p.NoScope {
		var scope otlp.Nested
		dst, scope = otlp.Begin(dst, scopeSpansScope)
		dst = otlp.AppendBytes(dst, scopeName, "hauberk")
		dst = scope.End(otlp.AppendBytes(dst, scopeVersion, n.Version))
	}
	dst = append(dst, spans...)
	return rs.End(ss.End(dst))
}

func resourceText(dst []byte, key, value string) []byte {
	dst, kv := otlp.Begin(dst, resourceAttribute)
	dst = otlp.AppendBytes(dst, keyValueKey, key)
	dst, v := otlp.Begin(dst, keyValueValue)
	return kv.End(v.End(otlp.AppendBytes(dst, anyString, value)))
}
