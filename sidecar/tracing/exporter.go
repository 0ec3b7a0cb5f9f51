package tracing

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

const (
	// flushEvery is how long a span waits for others to be sent with it.
	flushEvery = time.Second
	// maxPending bounds the bytes of spans that wait in one shard.
	maxPending = 1 << 20
	// keptBuffer is how much memory for spans is kept for the next ones.
	keptBuffer = 128 << 10
	// lastFlush bounds the sending of what is on its way or left at the end.
	lastFlush = 2 * time.Second
	// maxReason bounds what is logged of a collector's reason, in bytes.
	maxReason = 256
)

// exporter is what spans end in. Requests append to buffers, one for each shard, and
// never wait; a goroutine sends what is in them.
type exporter struct {
	owner    *Tracers
	provider *Provider
	encode   func(dst []byte, p *report, t *Tracer) []byte
	headers  route.Mutations
	limit    int // spans that wait in one shard
	shards   []pending
	refs     int // the owner's lock

	wake chan struct{} // there is a span
	full chan struct{} // a shard is half full, of spans or of bytes
	over chan struct{} // closed with the last tracer

	sent, dropped, failed, refused *telemetry.Counter
	complained                     time.Time
	spare                          []byte // the memory of spans that were sent
}

// pending is the spans of one shard, encoded one after the other.
type pending struct {
	mu sync.Mutex
	b  []byte
	n  int
	_  [64]byte // apart from the next shard's
}

func newExporter(ts *Tracers, p *Provider) (*exporter, error) {
	e := &exporter{
		owner: ts, provider: p, encode: appendOTLP, shards: make([]pending, telemetry.Shards()),
		wake: make(chan struct{}, 1), full: make(chan struct{}, 1), over: make(chan struct{}),
	}
	steps := make([]route.HeaderMutation, len(p.Collector.Headers))
	for i := range steps {
		steps[i].Add = &p.Collector.Headers[i]
	}
	var err error
	if e.headers, err = route.NewMutations(steps); err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	// As many in each shard: a connection, and often all traffic, has only one. Envoy's
	// workers have as many each.
	if e.limit = p.MaxSpans; e.limit <= 0 {
		e.limit = defaultMaxSpans
	}
	if p.Zipkin != nil {
		e.encode = appendZipkin
	}
	if m := ts.o.Metrics; m != nil {
		e.sent, e.dropped = m.TraceSpans.With("sent"), m.TraceSpans.With("dropped")
		e.failed, e.refused = m.TraceSpans.With("failed"), m.TraceSpans.With("rejected")
	}
	return e, nil
}

// nothing is what the headers of a request to a collector know of a request.
type nothing struct{}

func (nothing) Record() *telemetry.Record { return &telemetry.Record{} }

// add takes a span. Where there is no room for it, it is dropped and counted.
func (e *exporter) add(s telemetry.Shard, p *report, t *Tracer) {
	at := &e.shards[int(s)&(len(e.shards)-1)]
	at.mu.Lock()
	if at.n >= e.limit || len(at.b) > maxPending {
		at.mu.Unlock()
		e.dropped.Inc(s)
		return
	}
	before := len(at.b)
	at.b = e.encode(at.b, p, t)
	at.n++
	n, after := at.n, len(at.b)
	at.mu.Unlock()
	if n == 1 {
		signal(e.wake)
	}
	if n == (e.limit+1)/2 || before < maxPending/2 && after >= maxPending/2 {
		signal(e.full)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (e *exporter) run() {
	defer panics.Contain(panics.Housekeeper, nil, nil)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for last := false; !last; {
		select {
		case <-e.wake:
			timer.Reset(flushEvery)
			select {
			case <-timer.C:
			case <-e.full:
			case <-e.over:
			case <-e.owner.closing:
			}
		case <-e.over:
			last = true
		case <-e.owner.closing:
			last = true
		}
		panics.Guard(panics.Housekeeper, func() { e.flush(e.owner.ctx) })
	}
}

// flush sends what waits, each shard's spans in a request of their own.
func (e *exporter) flush(ctx context.Context) {
	for i := range e.shards {
		at := &e.shards[i]
		at.mu.Lock()
		spans, n := at.b, at.n
		if n > 0 {
			at.b, at.n, e.spare = e.spare[:0], 0, nil
		}
		at.mu.Unlock()
		if n == 0 {
			continue
		}
		lost, why, err := e.send(ctx, spans)
		if cap(spans) <= keptBuffer {
			e.spare = spans // a burst is no reason to keep the memory
		}
		if err != nil {
			e.failed.Add(0, uint64(n))
			e.complain("spans could not be sent", n, "err", err)
			continue
		}
		if lost = min(max(lost, 0), int64(n)); lost > 0 {
			e.complain("the collector rejects spans", int(lost), "reason", why[:min(len(why), maxReason)])
		}
		e.refused.Add(0, uint64(lost))
		e.sent.Add(0, uint64(n)-uint64(lost))
	}
}

// complain tells of spans that were lost, at most once a minute.
func (e *exporter) complain(what string, n int, key string, why any) {
	if now := time.Now(); now.Sub(e.complained) > time.Minute {
		e.complained = now
		e.owner.o.Log.Warn(what, "cluster", e.provider.Collector.Cluster, "spans", n, key, why)
	}
}

// send sends spans; lost is how many of them the collector did not want, and why its
// reason.
func (e *exporter) send(ctx context.Context, spans []byte) (lost int64, why string, err error) {
	to := e.provider.Collector
	c := e.owner.o.Clusters.Get(to.Cluster)
	if c == nil {
		return 0, "", fmt.Errorf("there is no cluster %q", to.Cluster)
	}
	timeout := to.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var req message.Request
	req.Method, req.Scheme, req.Path, req.Authority = "POST", "http", to.Path, to.Authority
	if req.Authority == "" {
		req.Authority = to.Cluster
	}
	agent := "OTel-OTLP-Exporter-Hauberk/"
	if e.provider.Zipkin != nil {
		agent = "hauberk/"
	}
	body, kind := e.body(spans)
	req.Fields.Add("content-type", kind)
	req.Fields.Add("user-agent", agent+e.owner.o.Node.Version)
	var scratch []byte
	e.headers.Apply(&req.Fields, nothing{}, &scratch)
	if to.GRPC {
		answer, err := c.CallGRPC(ctx, &req, body)
		lost, why = rejected(answer)
		return lost, why, err
	}
	a, err := c.Call(ctx, &req, body)
	switch {
	case err != nil:
		return 0, "", err
	case a.Head.Status < 200 || a.Head.Status > 299:
		return 0, "", fmt.Errorf("the collector answers %d", a.Head.Status)
	case e.provider.Zipkin == nil:
		lost, why = rejected(a.Body)
	}
	return lost, why, nil
}

// body makes a request's body of spans, and says what it is.
func (e *exporter) body(spans []byte) ([]byte, string) {
	switch {
	case e.provider.Zipkin != nil:
		return append(append([]byte{'['}, spans...), ']'), "application/json"
	case e.provider.Collector.GRPC:
		return wrapOTLP(nil, spans, e.provider, &e.owner.o.Node), "application/grpc"
	}
	return wrapOTLP(nil, spans, e.provider, &e.owner.o.Node), "application/x-protobuf"
}
