package tracing

import (
	"encoding/binary"
	"math"
	"time"
)

// OTLP is protobuf (opentelemetry.proto.trace.v1 and collector.trace.v1), written by
// hand: spans are encoded where they end, without a message in between, and this
// package stays clear of protobuf's runtime. The numbers below are those of the
// protocol's fields.

const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

func appendTag(dst []byte, field, wire int) []byte {
	return binary.AppendUvarint(dst, uint64(field<<3|wire))
}

func appendBytes[T ~string | ~[]byte](dst []byte, field int, v T) []byte {
	dst = binary.AppendUvarint(appendTag(dst, field, wireBytes), uint64(len(v)))
	return append(dst, v...)
}

func appendVarint(dst []byte, field int, v uint64) []byte {
	return binary.AppendUvarint(appendTag(dst, field, wireVarint), v)
}

func appendFixed64(dst []byte, field int, v uint64) []byte {
	return binary.LittleEndian.AppendUint64(appendTag(dst, field, wireFixed64), v)
}

// nested begins a message within a message; end gives it its length.
type nested struct{ start int }

const lengthSpace = 5 // bytes of the length of a message below 4 GB

func beginMessage(dst []byte, field int) ([]byte, nested) {
	dst = appendTag(dst, field, wireBytes)
	return append(dst, make([]byte, lengthSpace)...), nested{len(dst)}
}

func (n nested) end(dst []byte) []byte {
	body := dst[n.start+lengthSpace:]
	var head [binary.MaxVarintLen64]byte
	size := binary.PutUvarint(head[:], uint64(len(body)))
	copy(dst[n.start:], head[:size])
	copy(dst[n.start+size:], body)
	return dst[:len(dst)-lengthSpace+size]
}

// otlp is the encoding of OpenTelemetry.
type otlp struct {
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
	dst, whole := beginMessage(dst, scopeSpansSpan)
	dst = appendBytes(dst, spanTrace, p.span.Trace[:])
	dst = appendBytes(dst, spanID, p.id[:])
	if p.record.RequestHeaders != nil {
		if state, ok := p.record.RequestHeaders.Header("tracestate"); ok && state != "" {
			dst = appendBytes(dst, spanState, valid([]byte(state)))
		}
	}
	if p.parent != (SpanID{}) {
		dst = appendBytes(dst, spanParent, p.parent[:])
	}
	dst = appendBytes(dst, spanName, valid(p.name))
	dst = appendVarint(dst, spanKind, uint64(p.kind))
	flags := uint32(flagSampled | flagParentKnown)
	if p.parent != (SpanID{}) && !p.upstream {
		flags |= flagParentRemote
	}
	dst = binary.LittleEndian.AppendUint32(appendTag(dst, spanFlags, wireFixed32), flags)
	dst = appendFixed64(dst, spanStart, uint64(p.start.UnixNano()))
	dst = appendFixed64(dst, spanEnd, uint64(p.end.UnixNano()))
	w := &p.otlp
	w.dst = dst
	t.tags(p, w)
	t.events(p, w.event)
	dst = w.dst
	if p.failed() {
		var s nested
		dst, s = beginMessage(dst, spanStatus)
		dst = s.end(appendVarint(dst, statusCode, statusError))
	}
	return whole.end(dst)
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

func (w *otlp) attribute(key string, value func(dst []byte) []byte) {
	dst, kv := beginMessage(w.dst, spanAttribute)
	dst = appendBytes(dst, keyValueKey, key)
	dst, v := beginMessage(dst, keyValueValue)
	w.dst = kv.end(v.end(value(dst)))
}

func (w *otlp) text(key string, value []byte) {
	w.attribute(key, func(dst []byte) []byte { return appendBytes(dst, anyString, valid(value)) })
}

func (w *otlp) typed(t *tag, value []byte) {
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
			return appendVarint(dst, anyInt, uint64(i))
		case DoubleTag:
			return appendFixed64(dst, anyDouble, math.Float64bits(d))
		}
		if b {
			return appendVarint(dst, anyBool, 1)
		}
		return appendVarint(dst, anyBool, 0)
	})
}

func (w *otlp) event(at time.Time, name string) {
	dst, e := beginMessage(w.dst, spanEvent)
	dst = appendFixed64(dst, eventTime, uint64(at.UnixNano()))
	w.dst = e.end(appendBytes(dst, eventName, name))
}

// Fields of ExportTraceServiceRequest, ResourceSpans, Resource, ScopeSpans and
// InstrumentationScope.
const (
	requestResourceSpans                          = 1
	resourceSpansResource, resourceSpansScope     = 1, 2
	resourceAttribute                             = 1
	scopeSpansScope, scopeSpansSpan               = 1, 2
	scopeName, scopeVersion                       = 1, 2
	responsePartial, partialRejected, partialText = 1, 1, 2
)

// wrapOTLP makes a request of spans.
func wrapOTLP(dst, spans []byte, p *Provider, n *Node) []byte {
	dst, rs := beginMessage(dst, requestResourceSpans)
	dst, res := beginMessage(dst, resourceSpansResource)
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
	dst = res.end(dst)
	dst, ss := beginMessage(dst, resourceSpansScope)
	if !p.NoScope {
		var scope nested
		dst, scope = beginMessage(dst, scopeSpansScope)
		dst = appendBytes(dst, scopeName, "hauberk")
		dst = scope.end(appendBytes(dst, scopeVersion, n.Version))
	}
	dst = append(dst, spans...)
	return rs.end(ss.end(dst))
}

func resourceText(dst []byte, key, value string) []byte {
	dst, kv := beginMessage(dst, resourceAttribute)
	dst = appendBytes(dst, keyValueKey, key)
	dst, v := beginMessage(dst, keyValueValue)
	return kv.end(v.end(appendBytes(dst, anyString, value)))
}

// rejected reads how many spans a collector did not take from its answer; one that
// cannot be read rejects none.
func rejected(answer []byte) (n int64, why string) {
	fields(answer, func(field int, v uint64, b []byte) {
		if field == responsePartial {
			fields(b, func(field int, v uint64, b []byte) {
				switch field {
				case partialRejected:
					n = int64(v)
				case partialText:
					why = string(b)
				}
			})
		}
	})
	return n, why
}

// fields walks the fields of a message as far as it can be read.
func fields(b []byte, each func(field int, v uint64, body []byte)) {
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		if n <= 0 {
			return
		}
		b = b[n:]
		var v uint64
		var body []byte
		switch key & 7 {
		case wireVarint:
			if v, n = binary.Uvarint(b); n <= 0 {
				return
			}
			b = b[n:]
		case wireBytes:
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return
			}
			body, b = b[n:n+int(size)], b[n+int(size):]
		case wireFixed64:
			if len(b) < 8 {
				return
			}
			b = b[8:]
		case wireFixed32:
			if len(b) < 4 {
				return
			}
			b = b[4:]
		default:
			return
		}
		each(int(key>>3), v, body)
	}
}
