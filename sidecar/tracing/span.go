package tracing

import (
	"encoding/hex"
	"sync"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Span is a request's place in its trace: the zero Span is none. It belongs to
// the goroutine of its request.
type Span struct {
	Trace  ID
	ID     SpanID
	Parent SpanID // zero for the first of a trace

	name  string
	route *RouteConfig
	host  string // that the client asked for
	start time.Time
	mono  int64 // start, on the clock of telemetry.Moments
	text  [48]byte

	// What is looked at where there is no span either comes last, beside what an exchange has next.

	Sampled bool
	// Reason is our own decision; whoever began the trace may have sampled otherwise.
	Reason Reason

	decided bool // Reason is
	live    bool // there is a span: headers are written
	wide    bool
	shared  bool // Zipkin: the id is that of the client's span
	single  bool // Zipkin: the trace came in one header, and goes on in one (if in several too, in these too)
	egress  bool
	// decorated: the span may be named by x-envoy-decorator-operation. name is what it is
	// called then, empty for Envoy's name; tell has the other side told.
	decorated, tell bool
}

// Attempt is the span of one attempt; the zero Attempt is none.
type Attempt struct {
	ID    SpanID
	live  bool
	start time.Time
}

// Live tells whether the request belongs to a trace that goes on from here.
func (s *Span) Live() bool { return s.live }

// Show puts the ids into a record.
func (s *Span) Show(r *telemetry.Record) {
	r.TraceForced = s.Reason == ServiceForced
	if !s.live {
		return
	}
	b := appendTrace(s.text[:0], s)
	r.TraceID = b
	r.SpanID = hex.AppendEncode(b, s.ID[:])[len(b):]
}

// Request is what Start has to know of a request besides itself.
type Request struct {
	Direction Direction
	// Begun is when it began, and Mono the same on the clock of telemetry.Moments.
	Begun time.Time
	Mono  int64
	// KeepID leaves the request's id as it came: no decision is noted in it, nor read from it.
	KeepID bool
	// Route and Decorator are what its route has, nil for nothing.
	Route     *RouteConfig
	Decorator *Decorator
}

// Start decides whether the request is sampled and makes it the next span of the
// trace that it belongs to, or the first of a new one. Nothing is allocated.
func (t *Tracer) Start(s *Span, req *message.Request, in *Request) {
	sampling := &t.cfg.Sampling
	if in.Route != nil {
		sampling = &in.Route.Sampling
	}
	reason := sampling.decide(req, !in.KeepID)
	*s = Span{Reason: reason, decided: true, egress: in.Direction == telemetry.Outbound, host: req.Authority, route: in.Route, start: in.Begun, mono: in.Mono}
	switch {
	case t.cfg.Provider.None:
	case t.cfg.Provider.Zipkin != nil:
		s.live = t.continueB3(s, req)
	default:
		s.live = t.continueW3C(s, req)
	}
	t.decorate(s, in.Decorator, &req.Fields)
}

// Count counts a request by why it is traced, once it is over: that it is a health check is known
// after Start, and those are not. A request that was refused before Start is none.
func (t *Tracer) Count(s *Span, healthCheck bool, shard telemetry.Shard) {
	if !s.decided {
		return
	}
	reason := s.Reason
	if healthCheck {
		reason = NotTraceable
	}
	t.counts[reason].Inc(shard)
}

// continueW3C: the trace of a parent is sampled as it says; a context that cannot be
// read is left alone, and the request has no span.
func (t *Tracer) continueW3C(s *Span, req *message.Request) (live bool) {
	p, found := readW3C(&req.Fields)
	switch found {
	case broken:
		return false
	case absent:
		if !t.cfg.NoPropagation {
			// State without a trace means nothing (W3C Trace Context 4.3).
			req.Fields.DelID(message.Tracestate)
		}
		s.Trace, s.ID, s.wide, s.Sampled = newTraceID(), newSpanID(), true, s.Reason != NotTraceable
	case present:
		s.Trace, s.Parent, s.ID, s.wide, s.Sampled = p.trace, p.span, newSpanID(), true, p.sampled
	}
	s.Sampled = s.Sampled || t.cfg.Provider.AlwaysOn
	return true
}

// continueB3: what B3's headers say of sampling counts before our own decision.
func (t *Tracer) continueB3(s *Span, req *message.Request) (live bool) {
	z, sampled := t.cfg.Provider.Zipkin, s.Reason != NotTraceable
	p, found, theirs, decided := readB3(&req.Fields)
	if decided {
		sampled = theirs
	}
	if found == absent && !decided && z.W3C {
		switch p, found = readW3C(&req.Fields); found {
		case present:
			sampled = p.sampled
		case broken:
			found = absent // a new trace begins (W3C Trace Context 4.3)
		}
	}
	if found == broken {
		return false
	}
	s.Sampled, s.single = sampled, req.Fields.Has(message.B3)
	switch {
	case found == absent:
		s.ID = newSpanID()
		copy(s.Trace[8:], s.ID[:])
		if s.wide = z.Wide; z.Wide {
			high := newSpanID()
			copy(s.Trace[:8], high[:])
		}
	case z.Shared && (!s.egress || t.cfg.SpawnUpstream):
		s.Trace, s.wide, s.ID, s.Parent, s.shared = p.trace, p.wide, p.span, p.before, true
	default:
		s.Trace, s.wide, s.Parent, s.ID = p.trace, p.wide, p.span, newSpanID()
	}
	return true
}

// Begin starts an attempt at forwarding the request and writes the headers that the
// upstream gets. Nothing is allocated beyond the request's fields.
func (t *Tracer) Begin(s *Span, a *Attempt, req *message.Request) {
	*a = Attempt{}
	if !s.live {
		return
	}
	out := *s
	if t.cfg.SpawnUpstream {
		a.ID, a.live = newSpanID(), true
		if s.Sampled {
			a.start = time.Now()
		}
		out.ID, out.Parent = a.ID, s.ID
	}
	if !t.cfg.NoPropagation {
		t.inject(&out, &req.Fields)
	}
}

func (t *Tracer) inject(s *Span, f *message.Fields) {
	var b [72]byte
	z := t.cfg.Provider.Zipkin
	if z == nil || z.W3C {
		f.SetBytes("traceparent", appendTraceparent(b[:0], s))
	}
	if z == nil {
		return
	}
	if s.single {
		f.SetBytes("b3", appendB3(b[:0], s))
		if !has(f, "x-b3-traceid") {
			return
		}
	}
	f.SetBytes("x-b3-traceid", appendTrace(b[:0], s))
	f.SetBytes("x-b3-spanid", hex.AppendEncode(b[:0], s.ID[:]))
	if s.Parent != (SpanID{}) {
		f.SetBytes("x-b3-parentspanid", hex.AppendEncode(b[:0], s.Parent[:]))
	} else {
		f.Del("x-b3-parentspanid")
	}
	if s.Sampled {
		f.Set("x-b3-sampled", "1")
	} else {
		f.Set("x-b3-sampled", "0")
	}
}

// kind is a span's place between the two ends of a call (OTLP's SpanKind).
type kind uint8

const (
	server kind = 2
	client kind = 3
)

// kindOf: with spans of attempts, the request's own is what the client called.
func (t *Tracer) kindOf(s *Span) kind {
	if s.egress && !t.cfg.SpawnUpstream {
		return client
	}
	return server
}

// report is a span that has ended.
type report struct {
	id, parent SpanID
	span       *Span
	kind       kind
	shared     bool
	name       []byte
	start, end time.Time
	record     *telemetry.Record
	upstream   bool
	retries    int

	// The rest is room for its encoding.
	text   [256]byte // of name
	tagger tagger
	otlp   otlpTags
	zipkin zipkinTags
}

// reports keeps the memory of reports that were encoded, so that a span allocates nothing.
var reports = sync.Pool{New: func() any { return new(report) }}

// hand gives a report to the exporter, and back.
func (t *Tracer) hand(p *report, shard telemetry.Shard) {
	t.out.Add(shard, func(dst []byte) []byte { return t.encode(dst, p, t) })
	p.span, p.record, p.name = nil, nil, nil
	p.otlp, p.zipkin = otlpTags{}, zipkinTags{}
	p.tagger.release()
	reports.Put(p)
}

// Finish reports the request's span; r is what is known of the request. It is for
// spans that are sampled.
func (t *Tracer) Finish(s *Span, r *telemetry.Record, end time.Time, shard telemetry.Shard) {
	if t.out == nil {
		return
	}
	p := reports.Get().(*report)
	p.span, p.id, p.parent, p.kind, p.shared = s, s.ID, s.Parent, t.kindOf(s), s.shared
	p.name, p.start, p.end, p.record = t.appendName(p.text[:0], s, r), s.start, end, r
	p.upstream, p.retries = false, 0
	t.hand(p, shard)
}

func (t *Tracer) appendName(dst []byte, s *Span, r *telemetry.Record) []byte {
	n := t.namesOf(s.route)
	switch {
	case n.operation != nil:
		return n.operation.AppendHeader(dst, r)
	case s.name != "":
		return append(dst, s.name...)
	case s.egress:
		return append(append(dst, "egress "...), s.host...)
	}
	return append(dst, "ingress"...)
}

// FinishAttempt reports an attempt's span; r is what is known of the attempt, retries
// how many there were before.
func (t *Tracer) FinishAttempt(s *Span, a *Attempt, r *telemetry.Record, retries int, shard telemetry.Shard) {
	if t.out == nil || !a.live {
		return
	}
	a.live = false
	p := reports.Get().(*report)
	b := p.text[:0]
	if n := t.namesOf(s.route); n.upstream != nil {
		b = n.upstream.AppendHeader(b, r)
	} else {
		b = append(append(append(b, "router "...), r.Cluster...), " egress"...)
	}
	p.span, p.id, p.parent, p.kind, p.shared = s, a.ID, s.ID, client, false
	p.name, p.start, p.end, p.record = b, a.start, time.Now(), r
	p.upstream, p.retries = true, retries
	t.hand(p, shard)
}

// Reports tells whether attempts of the span are to be finished.
func (t *Tracer) Reports(s *Span, a *Attempt) bool { return t.out != nil && s.Sampled && a.live }
