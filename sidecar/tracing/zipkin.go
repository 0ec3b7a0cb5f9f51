package tracing

import (
	"encoding/hex"
	"strconv"
	"time"
	"unicode/utf8"
)

// appendZipkin appends a span as Zipkin's JSON, version 2, with a comma before it
// unless it is the first.
func appendZipkin(dst []byte, p *report, t *Tracer) []byte {
	if len(dst) > 0 {
		dst = append(dst, ',')
	}
	dst = append(dst, `{"traceId":"`...)
	dst = appendTrace(dst, p.span)
	if p.parent != (SpanID{}) {
		dst = append(dst, `","parentId":"`...)
		dst = hex.AppendEncode(dst, p.parent[:])
	}
	dst = append(dst, `","id":"`...)
	dst = hex.AppendEncode(dst, p.id[:])
	if p.kind == client {
		dst = append(dst, `","kind":"CLIENT","name":`...)
	} else {
		dst = append(dst, `","kind":"SERVER","name":`...)
	}
	dst = appendJSON(dst, p.name)
	dst = append(dst, `,"timestamp":`...)
	dst = strconv.AppendInt(dst, p.start.UnixMicro(), 10)
	dst = append(dst, `,"duration":`...)
	dst = strconv.AppendInt(dst, max(1, p.end.Sub(p.start).Microseconds()), 10)
	dst = append(dst, `,"localEndpoint":{"serviceName":`...)
	if t.node.Cluster != "" {
		dst = appendJSON(dst, []byte(t.node.Cluster))
	} else {
		dst = appendJSON(dst, []byte(p.record.Service)) // a node of the mesh is in no cluster
	}
	dst = append(dst, '}')
	if p.shared {
		dst = append(dst, `,"shared":true`...)
	}
	w := &p.zipkin
	w.dst, w.first = append(dst, `,"tags":{`...), true
	t.tags(p, w)
	dst = append(w.dst, '}')
	first := true
	t.events(p, func(at time.Time, name string) {
		if first {
			dst = append(dst, `,"annotations":[`...)
		} else {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, `{"timestamp":`...)
		dst = strconv.AppendInt(dst, at.UnixMicro(), 10)
		dst = append(dst, `,"value":`...)
		dst = append(appendJSON(dst, []byte(name)), '}')
	})
	if !first {
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

type zipkinTags struct {
	dst   []byte
	first bool
}

func (w *zipkinTags) text(key string, value []byte) {
	if !w.first {
		w.dst = append(w.dst, ',')
	}
	w.first = false
	w.dst = append(appendJSON(w.dst, []byte(key)), ':')
	w.dst = appendJSON(w.dst, value)
}

// typed: Zipkin's tags are strings.
func (w *zipkinTags) typed(t *tag, value []byte) { w.text(t.name, value) }

const hexDigits = "0123456789abcdef"

// appendJSON appends a string; what is no UTF-8 becomes U+FFFD.
func appendJSON(dst, s []byte) []byte {
	dst = append(dst, '"')
	for len(s) > 0 {
		c, n := utf8.DecodeRune(s)
		switch {
		case c == utf8.RuneError && n == 1:
			dst = append(dst, `\ufffd`...)
		case c == '"' || c == '\\':
			dst = append(dst, '\\', byte(c))
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			dst = append(dst, s[:n]...)
		}
		s = s[n:]
	}
	return append(dst, '"')
}
